//! Why a search has no answer.

use std::error::Error;

/// What ends a search early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A part cannot be read.
    #[error(transparent)]
    Chunk(#[from] aquifer_chunk::Error),
    /// What the source says.
    #[error(transparent)]
    Source(Box<dyn Error + Send + Sync>),
    /// The hits take more than they may.
    #[error("the hits have more than {bytes_max} bytes; ask for fewer at once")]
    HitsTooLarge {
        /// What they may.
        bytes_max: u64,
    },
    /// The cursor is not one that a search gave.
    #[error("this is not where a page of this search ended: {text}")]
    Cursor {
        /// As it came, cut short.
        text: String,
    },
    /// A task of it ended without an answer.
    #[error("a part of the search ended without an answer")]
    Lost,
}
