//! One function from the store's errors to Kafka's codes.

use aquifer_stream::Error;
use aquifer_types::ErrorKind;
use kafka_protocol::ResponseError;

/// Kafka's code for an error of the store (Kafka protocol, "Error Codes").
pub(crate) fn error_code(error: &Error) -> ResponseError {
    match error {
        Error::StreamNotFound(_) | Error::PartitionNotFound { .. } => {
            ResponseError::UnknownTopicOrPartition
        }
        Error::StreamExists(_) => ResponseError::TopicAlreadyExists,
        Error::GroupNotFound(_) => ResponseError::GroupIdNotFound,
        Error::TooLarge { .. } => ResponseError::MessageTooLarge,
        Error::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        Error::DuplicateSequence { .. } => ResponseError::DuplicateSequenceNumber,
        Error::ProducerFenced { .. } => ResponseError::InvalidProducerEpoch,
        Error::UnknownProducer { .. } => ResponseError::InvalidProducerIdMapping,
        Error::TransactionalIdNotFound(_) => ResponseError::TransactionalIdNotFound,
        Error::TransactionTimeoutTooLong { .. } => ResponseError::InvalidTransactionTimeout,
        Error::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
        Error::StorageFull(_) => ResponseError::KafkaStorageError,
        // Retriable, and nothing was appended: the client sends it again.
        Error::Backpressure { .. } | Error::Throttled { .. } | Error::NotWritten(_) => {
            ResponseError::NotEnoughReplicas
        }
        Error::Indefinite(_) => ResponseError::NotEnoughReplicasAfterAppend,
        Error::Stopping => ResponseError::NotLeaderOrFollower,
        other => of_kind(other.kind()),
    }
}

const fn of_kind(kind: ErrorKind) -> ResponseError {
    match kind {
        ErrorKind::InvalidRequest => ResponseError::InvalidRequest,
        ErrorKind::Unauthenticated => ResponseError::SaslAuthenticationFailed,
        ErrorKind::Forbidden => ResponseError::TopicAuthorizationFailed,
        ErrorKind::NotFound => ResponseError::UnknownTopicOrPartition,
        ErrorKind::AlreadyExists => ResponseError::TopicAlreadyExists,
        ErrorKind::OutOfRange => ResponseError::OffsetOutOfRange,
        ErrorKind::TooLarge => ResponseError::MessageTooLarge,
        ErrorKind::Conflict => ResponseError::InvalidTxnState,
        ErrorKind::Fenced => ResponseError::InvalidProducerEpoch,
        ErrorKind::Throttled => ResponseError::ThrottlingQuotaExceeded,
        ErrorKind::Unavailable => ResponseError::CoordinatorNotAvailable,
        ErrorKind::StorageFull => ResponseError::KafkaStorageError,
        ErrorKind::Indefinite => ResponseError::RequestTimedOut,
        ErrorKind::Damaged => ResponseError::CorruptMessage,
        ErrorKind::Unsupported => ResponseError::UnsupportedVersion,
        ErrorKind::Internal => ResponseError::UnknownServerError,
    }
}
