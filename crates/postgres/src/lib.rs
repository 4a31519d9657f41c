//! The PostgreSQL protocol (version 3.0): messages ⇄ questions of
//! `aquifer_query`.
//!
//! A connection proves its user, then asks by the simple or the extended query
//! protocol. What concerns the session alone (settings, transactions, cursors)
//! is answered here; everything else is a question, whose rows are encoded as
//! they come and no faster than the client takes them. Nothing is computed
//! here, and no transaction is kept: each statement reads a cut of its own.
//!
//! The codec is our own: of a message, nothing is allocated before its length
//! and counts are checked, and no malformed one can panic.

mod cancels;
mod command;
mod copy;
mod error;
mod extended;
mod frames;
mod lexer;
mod login;
mod metrics;
mod options;
mod outbox;
mod parameters;
mod portal;
mod reply;
mod request;
mod rows;
mod server;
mod session;
mod settings;
mod simple;
mod startup;
mod statements;
#[cfg(test)]
mod tests;
mod types;
mod values;

pub use metrics::PostgresMetrics;
pub use options::{PostgresOptions, PostgresSecurity};
pub use server::{PostgresEnvironment, PostgresServer};
