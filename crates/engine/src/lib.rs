//! The engine: answers questions in a process of its own, with DataFusion.
//!
//! It reads chunks by itself and asks the server for what is not in one yet
//! (`aquifer_query::wire`). It has no state that matters: it may be killed at
//! any time. It never decides what is visible or who may ask.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests use real files"))]

mod answer;
mod asof;
mod chunk_scan;
mod chunks;
mod connection;
mod engine;
mod error;
mod estimate;
mod exprs;
mod fields;
mod functions;
mod interrupt;
mod joins;
mod link;
mod near;
mod pg_catalog;
mod pool;
mod prune;
mod refusal;
mod render;
mod run;
mod schema;
mod search;
mod size;
mod spill;
mod sql;
mod stream_exec;
mod table;
mod tail;
mod tail_cache;
mod tail_columns;
#[cfg(test)]
mod test_stream;
mod usage;
mod zones;

pub use chunks::ChunkAccess;
pub use error::Error;
pub use pool::Resources;
pub use run::{RunError, run};
pub use schema::table_schema;
pub use table::{Reads, ScanOptions, StreamTable};
pub use tail::TailSource;
pub use tail_cache::TailCache;
pub use usage::{Usage, spilled_bytes};

#[cfg(test)]
mod tests;
