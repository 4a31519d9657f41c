//! Objects in and out: imports of files and objects into streams, watches that
//! go on importing, exports of records as objects.
//!
//! [`Objects`] is the whole of it for the doors. An import lists what its
//! addresses name ([`aquifer_env::source`]), decodes each object (`format`) and
//! appends its records in parts, each in one commit with how far the object is
//! (`import`, `imported`). So an object's version is imported exactly once,
//! whatever is interrupted when. A watch looks again and again; an export reads
//! a range that is fixed when it begins and puts objects whose names say what
//! they hold (`export`). All three are jobs: documents of the ledger that a
//! restart goes on with (`job`, `run`).
//!
//! It keeps nothing of its own: what is known of jobs and objects are documents,
//! and records go the way of all records. The addresses that clients may name
//! are the operator's to allow (`address`).

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests use real files"))]

mod address;
mod decompress;
mod error;
mod export;
mod format;
mod import;
mod imported;
mod job;
mod metrics;
mod objects;
mod options;
mod ranges;
mod rows;
mod run;
mod spec;

pub use error::Error;
pub use export::{ExportBound, ExportCompression, ExportSpec};
pub use format::write::ExportFormat;
pub use job::{ExportCut, JobDocument, JobState, JobStatus, Live, RowError, Work};
pub use metrics::ObjectMetrics;
pub use objects::{ObjectEnvironment, Objects, Upload, UploadAnswer};
pub use options::ObjectOptions;
pub use spec::{Compression, CsvTypes, Format, ImportSpec, OnError};
