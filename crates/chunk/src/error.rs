//! What can go wrong with chunks.

use std::io;
use std::sync::Arc;

use aquifer_types::{BatchError, ErrorKind, Offset};

/// Why a chunk cannot be encoded or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The chunk's bytes could not be fetched.
    #[error("chunk {object}: reading it failed: {source}")]
    Read {
        /// The object's name.
        object: Arc<str>,
        /// What the store said.
        source: io::Error,
    },
    /// The bytes are not those that were written, or not those of this chunk.
    #[error("chunk {object} is damaged: {why}")]
    Damaged {
        /// The object's name.
        object: Arc<str>,
        /// What does not hold, with its place.
        why: String,
    },
    /// A later version of the format, or one with features that this program
    /// does not know.
    #[error("chunk {object} cannot be read by this version: {why}")]
    Unsupported {
        /// The object's name.
        object: Arc<str>,
        /// What is not known.
        why: String,
    },
    /// A batch that should become rows cannot be decoded.
    #[error("the batch at offset {base_offset} cannot be decoded: {source}")]
    Batch {
        /// The batch's base offset.
        base_offset: Offset,
        /// What is wrong with it.
        source: BatchError,
    },
    /// A record was pushed that is not behind the last one, or lies outside the
    /// chunk's covered range.
    #[error("record {offset} cannot be added: offsets from {from} up to {next} may follow")]
    OutOfOrder {
        /// The record's offset.
        offset: Offset,
        /// The lowest offset that may follow.
        from: Offset,
        /// The end of the covered range.
        next: Offset,
    },
    /// Rows of another partition or schema were pushed.
    #[error("rows cannot be added: {why}")]
    Mismatch {
        /// What differs.
        why: String,
    },
    /// A record does not fit among the rows that are built together, of at most
    /// 512 MiB.
    #[error("record {offset} has {bytes} bytes where {limit} are left for rows built together")]
    TooLarge {
        /// The record's offset.
        offset: Offset,
        /// The bytes of its key, headers and value.
        bytes: usize,
        /// What is left for it.
        limit: usize,
    },
    /// The Parquet or Arrow library refused to write.
    #[error("a chunk cannot be encoded: {why}")]
    Encode {
        /// The library's own words.
        why: String,
    },
    /// A name that no chunk has.
    #[error("'{path}' is not the name of a chunk: {why}")]
    Path {
        /// The name, shortened.
        path: String,
        /// Which part is wrong.
        why: &'static str,
    },
}

impl Error {
    /// What a caller should do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::InvalidData => ErrorKind::Damaged,
                _ => ErrorKind::Unavailable,
            },
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Batch { source, .. } => source.kind(),
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::OutOfOrder { .. } | Self::Mismatch { .. } | Self::Encode { .. } => {
                ErrorKind::Internal
            }
            Self::Path { .. } => ErrorKind::InvalidRequest,
        }
    }

    pub(crate) fn damaged(object: &Arc<str>, why: impl Into<String>) -> Self {
        Self::Damaged { object: object.clone(), why: why.into() }
    }

    pub(crate) fn encode(error: impl std::fmt::Display) -> Self {
        Self::Encode { why: error.to_string() }
    }
}
