//! SQL: from a statement's text to a plan over one cut.
//!
//! `source` reads the text and `command` says whether it is one of those that
//! are allowed; `names` finds the streams and views that it names; `planner`
//! asks the server for one cut over all of them and plans. Nothing here reads a
//! record.

mod command;
mod describe;
mod dialect;
mod names;
mod parameters;
mod planner;
mod repeated;
mod server;
mod session;
mod source;
mod types;
mod views;

pub(crate) use describe::Described;
pub(crate) use names::{INFORMATION, Listing, Named, PG_CATALOG, PUBLIC};
pub(crate) use planner::{Outcome, Plan, Planner};
pub(crate) use server::{Resolved, Server};
pub(crate) use session::{Session, Sessions};
#[cfg(test)]
pub(crate) use source::Source;
pub(crate) use types::sql_type;
