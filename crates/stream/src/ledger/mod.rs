//! The ledger: the only door to state that changes while serving.
//!
//! A [`Commit`] is several operations that happen together or not at all. It is
//! decided in the order of arrival, written to the journal with whatever else
//! is waiting, synced, published, and only then answered.

pub(crate) mod answers;
pub(crate) mod attempts;
pub(crate) mod document;
pub(crate) mod event;
pub(crate) mod hot_state;
mod keeper;
pub(crate) mod leases;
mod local;
pub(crate) mod producer;
pub(crate) mod publisher;
pub(crate) mod recovery;
mod repeats;
pub(crate) mod sequencer;
pub(crate) mod snapshot;
#[cfg(test)]
mod tests;
mod transact;
pub(crate) mod transaction_event;
pub(crate) mod transactions;
mod writer;

pub use document::{Document, DocumentExpectation, DocumentKey, DocumentKind};
pub use event::{Operation, Outcome, Resolution};
pub use leases::Precondition;
pub(crate) use local::{LocalLedger, Submitted};
pub use recovery::RecoveryReport;
pub use sequencer::{Commit, Committed, Idempotency};
