//! What can go wrong with a table.

use aquifer_types::{ErrorKind, StreamPath};

/// An error of open tables.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The store's.
    #[error(transparent)]
    Store(#[from] aquifer_stream::Error),
    /// The table cannot be shown to readers outside.
    #[error("stream {path} cannot be read as a table: {why}")]
    NotATable {
        /// The stream.
        path: StreamPath,
        /// What stands against it.
        why: String,
    },
    /// The table has more chunks than its limit.
    #[error("stream {path} has {chunks} chunks, the limit of a table is {limit} (chunks_max)")]
    TooManyChunks {
        /// The stream.
        path: StreamPath,
        /// The chunks that it has.
        chunks: usize,
        /// The limit.
        limit: usize,
    },
    /// More tables are asked for than may wait.
    #[error("more than {limit} loads of tables wait already (loads_max); ask again later")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// Readers outside cannot reach this tier 2.
    #[error("tier 2 at {url} cannot be reached by readers of tables: {why}")]
    Location {
        /// Tier 2.
        url: String,
        /// What stands against it.
        why: String,
    },
    /// An object of a table's metadata is not as it was written.
    #[error("{path}: {why}")]
    Damaged {
        /// The object.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A bug.
    #[error("internal error, please report it: {0}")]
    Internal(String),
}

impl Error {
    /// What a caller should do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::NotATable { .. } | Self::Location { .. } => ErrorKind::Unsupported,
            Self::TooManyChunks { .. } => ErrorKind::TooLarge,
            Self::Busy { .. } => ErrorKind::Throttled,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    pub(crate) fn damaged(path: &str, why: impl std::fmt::Display) -> Self {
        Self::Damaged { path: path.to_owned(), why: why.to_string() }
    }

    pub(crate) fn internal(why: impl std::fmt::Display) -> Self {
        Self::Internal(why.to_string())
    }
}
