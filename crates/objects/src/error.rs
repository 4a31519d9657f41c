//! What can go wrong with an import, a watch or an export.

use std::time::Duration;

use aquifer_env::store::{StoreError, StoreErrorKind};
use aquifer_types::ErrorKind;

/// An error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The stream store refused or failed.
    #[error(transparent)]
    Store(#[from] aquifer_stream::Error),
    /// The store of the objects refused or failed.
    #[error("{why}")]
    Objects {
        /// What to do about it.
        kind: StoreErrorKind,
        /// The object's address, and what its store said.
        why: String,
    },
    /// The request cannot be carried out as it is.
    #[error("{0}")]
    Invalid(String),
    /// The address does not begin with one that is allowed.
    #[error("{0} is not an address that this server may open (objects.allowed)")]
    NotAllowed(String),
    /// There is no such import, watch or export.
    #[error("there is no {what} {id}")]
    NotFound {
        /// An import, a watch or an export.
        what: &'static str,
        /// The id that was asked for.
        id: String,
    },
    /// A limit is reached.
    #[error("{what}: the limit is {limit} ({limit_name})")]
    Limit {
        /// Of what there are too many.
        what: &'static str,
        /// How many there may be.
        limit: u64,
        /// The limit's name in the configuration.
        limit_name: &'static str,
    },
    /// A row cannot be imported, and the import was to stop at such.
    #[error("{object}, row {row}: {why}")]
    Row {
        /// The object's address.
        object: String,
        /// Its row, from 1: a line of lines.
        row: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A row of an object, and whatever is behind it, cannot be read. What is
    /// before it is imported, and the object is not whole.
    #[error("{object}, row {row}: {why}; nothing can be read from there on")]
    Broken {
        /// The object's address.
        object: String,
        /// The first row that cannot be had, from 1.
        row: u64,
        /// What is wrong.
        why: String,
    },
    /// The same object is being imported into the same stream.
    #[error("{0} is being imported already")]
    Busy(String),
    /// The server is stopping, or the import was cancelled.
    #[error("it was stopped")]
    Stopped,
    /// A bug.
    #[error("{0}")]
    Internal(String),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Objects { kind: error.kind, why: error.to_string() }
    }
}

impl Error {
    /// A document or a thread that is not as this crate left it.
    pub(crate) fn internal(why: impl std::fmt::Display) -> Self {
        Self::Internal(why.to_string())
    }

    /// What a caller should do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Objects { kind, .. } => match kind {
                StoreErrorKind::NotFound => ErrorKind::NotFound,
                StoreErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
                StoreErrorKind::Precondition => ErrorKind::Conflict,
                StoreErrorKind::Unavailable => ErrorKind::Unavailable,
                StoreErrorKind::Denied => ErrorKind::Forbidden,
                StoreErrorKind::Full => ErrorKind::StorageFull,
                StoreErrorKind::Other => ErrorKind::InvalidRequest,
            },
            Self::Invalid(_) | Self::Row { .. } | Self::Broken { .. } => ErrorKind::InvalidRequest,
            Self::NotAllowed(_) => ErrorKind::Forbidden,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Limit { .. } => ErrorKind::Throttled,
            Self::Busy(_) => ErrorKind::Conflict,
            Self::Stopped => ErrorKind::Unavailable,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Whether the same may succeed later. An object that has changed is read
    /// anew in its new version; what is indefinite is found out by reading how
    /// far the object was imported.
    pub(crate) fn is_retriable(&self) -> bool {
        match self {
            Self::Objects { kind: StoreErrorKind::Precondition, .. } => true,
            Self::Store(aquifer_stream::Error::DocumentChanged { .. }) => true,
            Self::Limit { .. } => false,
            _ => self.kind().is_retriable(),
        }
    }

    /// How long to wait before the same is tried again, where somebody said.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Store(error) => error.retry_after(),
            _ => None,
        }
    }
}
