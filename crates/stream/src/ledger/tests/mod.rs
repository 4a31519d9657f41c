//! Ring A of the ledger: deterministic, on one thread, over a faulty disk.
//!
//! [`driver`] does step by step what the writer's, publisher's and keeper's
//! threads do, with their own code; [`model`] knows what must be found
//! afterwards; [`script`] makes up what is done.

mod attempts;
mod clocks;
mod crash_points;
mod driver;
mod faults;
mod golden;
mod keeping;
mod model;
mod online;
mod regressions;
mod relocation;
mod script;
mod transactions;
mod undo;
