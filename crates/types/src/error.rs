//! What a caller should do about an error, whatever layer it came from.

use serde::{Deserialize, Serialize};

/// The class of an error. One function maps it to HTTP statuses, one to Kafka
/// error codes; a caller decides by it whether to retry, to change the request
/// or to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is malformed or asks for what is not allowed: change it.
    InvalidRequest,
    /// The caller did not prove who it is.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// The named thing does not exist.
    NotFound,
    /// A thing of that name exists already.
    AlreadyExists,
    /// The offset lies outside what is kept: read from the earliest one.
    OutOfRange,
    /// A record, batch or request is larger than a named limit.
    TooLarge,
    /// A precondition (expected offset, sequence) does not hold.
    Conflict,
    /// An older epoch spoke: a newer owner exists, stop.
    Fenced,
    /// A quota or queue is full: retry later, more slowly.
    Throttled,
    /// Something needed is absent for now: retry.
    Unavailable,
    /// No space: the operator must act; reads and truncation still work.
    StorageFull,
    /// It may or may not have happened: retry only with an idempotency key,
    /// a sequence or an expected offset.
    Indefinite,
    /// Stored bytes do not match their checksum; they are never served.
    Damaged,
    /// The feature does not exist in this mode or version.
    Unsupported,
    /// A bug.
    Internal,
}

impl ErrorKind {
    /// Whether the same request may succeed later without being changed.
    #[must_use]
    pub fn is_retriable(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable | Self::StorageFull | Self::Indefinite)
    }
}
