//! Open tables: each stream as a read-only Apache Iceberg table over its live
//! chunks.
//!
//! [`Tables::load`] answers what a catalog of the Iceberg REST protocol answers
//! for a table. The chunks are the table's data files as they lie; what is
//! written here is metadata alone, below `_iceberg/` in tier 2: a snapshot lists
//! the chunks that were live when it was made. One is made when somebody asks,
//! chunks have changed, and the last one is older than a named interval; so a
//! stream that nobody opens costs nothing, and one that everybody opens costs
//! one snapshot an interval.
//!
//! Readers fetch files on their own and hold no leases. A chunk that was
//! replaced, truncated or deleted stays for `chunk_grace_ms`; a snapshot that
//! names one is listed for at most half of that, so whoever was given it has the
//! other half to read. Records that are not in a chunk yet, and chunks that are
//! encrypted, are never shown.
//!
//! Format version 2 of <https://iceberg.apache.org/spec/>. Nothing here changes
//! a stream, and losing all of `_iceberg/` costs the history of snapshots only.
//!
//! | object below `_iceberg/<tenant>/<stream>-<stream id>/metadata/` | what it is |
//! |---|---|
//! | `<version, 10 digits>-<uuid>.metadata.json` | the table: schema, snapshots; the highest version counts |
//! | `snap-<snapshot id>-<uuid>.avro` | a snapshot: a list of manifests |
//! | `<uuid>-m<number>.avro` | a manifest: data files, or files of deleted positions |
//! | `<uuid>-d<first offset that stays>.parquet` | deleted positions of a chunk that a truncation cut through |
//!
//! They are put in the order in which they name each other, the table's metadata
//! last: a crash leaves the version before, and objects that nothing names,
//! which go a grace time after the table is opened again.

mod avro;
mod bounds;
mod changes;
mod data_file;
mod draft;
mod error;
mod history;
mod live;
mod location;
mod manifest;
mod manifest_list;
mod metadata;
mod metrics;
mod options;
mod positions;
mod schema;
mod snapshot;
mod stored;
mod sweep;
mod table;
mod tables;

pub use error::Error;
pub use metrics::TableMetrics;
pub use options::TableOptions;
pub use schema::PARTITION_COLUMN;
pub use tables::{LoadedTable, Snapshots, TableEnvironment, Tables};
