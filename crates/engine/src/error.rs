//! What can go wrong when a question is answered.

use std::error::Error as StdError;

use aquifer_query::wire::Refusal;
use aquifer_types::{ErrorKind, Offset, Partition};
use datafusion::error::DataFusionError;
use datafusion::parquet::errors::ParquetError;

/// Why a question cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A chunk cannot be read.
    #[error(transparent)]
    Chunk(#[from] aquifer_chunk::Error),
    /// The records behind the chunks cannot be read.
    #[error("records of partition {partition} from offset {from} on cannot be read: {why}")]
    Tail {
        /// The partition.
        partition: Partition,
        /// Where the read began.
        from: Offset,
        /// What the caller can do.
        kind: ErrorKind,
        /// What is wrong.
        why: String,
    },
    /// The server refused what was asked of it.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// DataFusion refused what this crate asked of it.
    #[error("the plan of the question is not sound: {0}")]
    Plan(String),
}

impl Error {
    /// What a caller should do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Chunk(error) => error.kind(),
            Self::Tail { kind, .. } => *kind,
            Self::Refused(refusal) => refusal.kind,
            Self::Plan(_) => ErrorKind::Internal,
        }
    }

    /// The error of this crate that an operator failed of, when it was one.
    #[must_use]
    pub fn beneath(error: &DataFusionError) -> Option<&Self> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<Self>() {
                return Some(found);
            }
            // What wraps an error in a box answers with the box's own source.
            next = match error.downcast_ref::<DataFusionError>() {
                Some(DataFusionError::External(inner)) => Some(&**inner),
                Some(DataFusionError::ParquetError(inner)) => Some(&**inner),
                Some(DataFusionError::Shared(inner)) => Some(&**inner),
                Some(DataFusionError::Context(_, inner)) => Some(&**inner),
                _ => match error.downcast_ref::<ParquetError>() {
                    Some(ParquetError::External(inner)) => Some(&**inner),
                    _ => error.source(),
                },
            };
        }
        None
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

impl From<Error> for ParquetError {
    fn from(error: Error) -> Self {
        Self::External(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_beneath_what_operators_wrap_it_in() {
        let lost = || Error::Plan("lost".to_owned());
        let check = |error: DataFusionError, is_ours: bool| {
            assert_eq!(Error::beneath(&error).is_some(), is_ours, "{error:?}");
        };
        check(lost().into(), true);
        check(DataFusionError::from(ParquetError::from(lost())), true);
        let shared = DataFusionError::Shared(std::sync::Arc::new(lost().into()));
        check(shared.context("while sorting"), true);
        check(DataFusionError::Execution("lost".to_owned()), false);
        check(DataFusionError::from(ParquetError::EOF("lost".to_owned())), false);
    }
}
