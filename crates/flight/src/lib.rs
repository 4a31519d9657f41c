//! Arrow Flight SQL: calls of gRPC ⇄ questions of `aquifer_query`.
//!
//! A call proves its caller, names a statement, and takes its rows as the
//! engine wrote them: the messages of an Arrow IPC stream are put into Flight's
//! envelope without a look at the rows in them, no faster than the client takes
//! them. Tickets hold their statement themselves; what is kept between calls
//! (prepared statements, sessions) is bounded and forgotten when it is idle.
//! Nothing is computed here, no transaction is kept and nothing is written but
//! views.
//!
//! What clients send is read by code that cannot panic: protocol buffers by
//! `prost`, values of parameters by our own, since Arrow's IPC reader takes a
//! schema on trust.

mod actions;
mod arrival;
mod batches;
mod calls;
mod catalog;
mod connection;
mod framing;
mod login;
mod metrics;
mod options;
mod outgoing;
mod parameters;
mod problem;
mod questions;
mod runs;
mod schema;
mod server;
mod service;
mod sessions;
mod sql_info;
mod statements;
#[cfg(test)]
mod tests;
mod tickets;
mod type_info;
mod wire_types;

pub use metrics::FlightMetrics;
pub use options::{FlightOptions, FlightSecurity};
pub use server::{FlightEnvironment, FlightServer};
