//! The HTTP door: frames in, calls of the stream crate, frames out.
//!
//! [`HttpServer::start`] takes a [`StreamStore`](aquifer_stream::StreamStore),
//! [`HttpOptions`] and an [`HttpEnvironment`] and answers until it is stopped.
//! A request goes through `guard` (who may come in, counting, the log), its
//! handler (`streams`, `append`, `read`, `tail`, `chunks`, `sql`, `search`, `groups`, `users`,
//! `objects`, `iceberg`, `operation`), and
//! comes back as an answer or as a [`Problem`]. `routes` has the table of all
//! paths, `openapi.json` describes them.
//!
//! It never decides about durability, order or offsets: an append is answered
//! after [`StreamStore::append`](aquifer_stream::StreamStore::append) is, and
//! with what that says. It writes nothing to disk, so a crash leaves nothing of
//! it behind.
//!
//! Memory is bounded by [`HttpOptions`]: request bodies and answers each have
//! one budget over all connections, records are handed on one by one, and a
//! tail holds a position instead of a queue.

mod accept;
mod app;
mod append;
mod arrow;
mod batching;
mod chunks;
mod groups;
mod guard;
mod iceberg;
mod input;
mod json_records;
mod metrics;
mod objects;
mod operation;
mod options;
mod parameters;
mod problem;
mod read;
mod render;
mod rendered;
mod routes;
mod schema;
mod search;
mod server;
mod sql;
mod streams;
mod tail;
mod time;
mod users;

pub use metrics::HttpMetrics;
pub use options::{HttpOptions, Token};
pub use problem::{Problem, TYPE_PREFIX};
pub use server::{HttpEnvironment, HttpServer};
