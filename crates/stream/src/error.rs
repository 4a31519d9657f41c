//! What can go wrong in the store, said so that a person knows the mend.

use std::time::Duration;

use aquifer_types::{ErrorKind, LeaseName, LeaseToken, Offset, Partition, StreamId, StreamPath};

/// An error of the stream store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No stream has this name.
    #[error("stream {0} does not exist")]
    StreamNotFound(StreamPath),
    /// The stream was deleted while it was read.
    #[error("the stream ({0}) was deleted")]
    StreamDeleted(StreamId),
    /// The stream has fewer partitions.
    #[error(
        "stream {path} has {partitions} partitions, numbered from 0; there is no partition {partition}"
    )]
    PartitionNotFound {
        /// The stream.
        path: StreamPath,
        /// How many it has.
        partitions: u32,
        /// The one asked for.
        partition: u32,
    },
    /// A stream of this name exists.
    #[error("stream {0} exists already")]
    StreamExists(StreamPath),
    /// A view of this name exists.
    #[error("{0} is the name of a view; a stream and a view cannot have the same")]
    ViewExists(StreamPath),
    /// No group has this name.
    #[error("group {0} has no positions")]
    GroupNotFound(String),
    /// The request cannot be carried out as it is.
    #[error("{0}")]
    Invalid(String),
    /// Something is larger than its limit.
    #[error("{what} has {size} bytes, the limit is {limit} ({limit_name})")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
        /// The limit's name in the configuration.
        limit_name: &'static str,
    },
    /// The offset is not kept, or does not exist yet.
    #[error(
        "offset {offset} of partition {partition} is out of range: earliest is {earliest}, end is {end}"
    )]
    OutOfRange {
        /// The partition's number.
        partition: u32,
        /// The offset asked for.
        offset: Offset,
        /// The earliest offset that can be read.
        earliest: Offset,
        /// The end of the partition.
        end: Offset,
    },
    /// The partition's end is not where the caller expected it.
    #[error(
        "partition {partition} ends at offset {actual}, not at the expected {expected}; nothing was appended"
    )]
    UnexpectedOffset {
        /// The partition's number.
        partition: u32,
        /// What the caller expected.
        expected: Offset,
        /// Where it ends.
        actual: Offset,
    },
    /// A producer's sequence does not follow its last one.
    #[error(
        "producer {producer} sent sequence {sequence} to partition {partition}, {expected} was due; nothing was appended"
    )]
    OutOfOrderSequence {
        /// The producer.
        producer: i64,
        /// The partition's number.
        partition: u32,
        /// What it sent.
        sequence: i32,
        /// What was due.
        expected: i32,
    },
    /// The batch was appended so long ago that its answer is forgotten.
    #[error(
        "producer {producer} repeated sequence {sequence} of partition {partition}, which is stored but older than its last five batches"
    )]
    DuplicateSequence {
        /// The producer.
        producer: i64,
        /// The partition's number.
        partition: u32,
        /// What it sent.
        sequence: i32,
    },
    /// A newer incarnation of the producer exists.
    #[error(
        "producer {producer} has epoch {current}, the batch has {sent}: a newer instance took over"
    )]
    ProducerFenced {
        /// The producer.
        producer: i64,
        /// The epoch in force.
        current: i16,
        /// The epoch of the batch.
        sent: i16,
    },
    /// Somebody else holds the lease.
    #[error("lease {name} is held under token {token} for another {wait_ms} ms")]
    LeaseHeld {
        /// The lease.
        name: LeaseName,
        /// The grant in force.
        token: LeaseToken,
        /// When it runs out, unless it is renewed, in ms.
        wait_ms: u64,
    },
    /// No transactional id has this producer any more.
    #[error("producer {producer} is not the one that the transactional id has now")]
    UnknownProducer {
        /// The producer.
        producer: i64,
    },
    /// The transaction is not in a state that allows it.
    #[error("{0}")]
    InvalidTransactionState(String),
    /// No producer was given this transactional id, or so long ago that it is
    /// forgotten.
    #[error("transactional id {0:?} is not known: a producer has to be initialised with it")]
    TransactionalIdNotFound(String),
    /// The declared timeout is zero or above the limit.
    #[error(
        "a transaction may take 1 to {limit} ms (transaction_ms_max), the producer asks for {timeout_ms}"
    )]
    TransactionTimeoutTooLong {
        /// What the producer asks for, in ms.
        timeout_ms: u64,
        /// The limit, in ms.
        limit: u64,
    },
    /// A precondition of an internal commit does not hold any more.
    #[error("the commit was overtaken: {0}")]
    Overtaken(String),
    /// A stream's configuration is not what the caller expected.
    #[error("the configuration of stream {0} was changed meanwhile")]
    ConfigChanged(StreamPath),
    /// A field cannot be declared beside those that are there.
    #[error("stream {path}: {why}")]
    FieldConflict {
        /// The stream.
        path: StreamPath,
        /// The field and what stands against it.
        why: aquifer_types::DeclareError,
    },
    /// A document is not in the version that the caller expected.
    #[error("{kind:?} {name} is {}", .actual.map_or_else(|| "absent".to_owned(), |version| format!("in version {version}")))]
    DocumentChanged {
        /// What it is.
        kind: crate::DocumentKind,
        /// Its name.
        name: String,
        /// Its version, where it exists.
        actual: Option<u64>,
    },
    /// A queue or quota is full.
    #[error("{what} is at its limit of {limit} ({limit_name}); retry more slowly")]
    Throttled {
        /// What is full.
        what: &'static str,
        /// Its limit.
        limit: u64,
        /// The limit's name in the configuration.
        limit_name: &'static str,
    },
    /// The journal is full of records that tier 2 did not take yet.
    #[error(
        "{what} holds {bytes} bytes that are not yet in tier 2, the limit is {limit} ({limit_name}): {why}"
    )]
    Backpressure {
        /// The journal, or a partition of it.
        what: String,
        /// What it holds.
        bytes: u64,
        /// The limit.
        limit: u64,
        /// The limit's name in the configuration.
        limit_name: &'static str,
        /// What keeps tier 2 from taking them.
        why: String,
    },
    /// Metadata waits for the catalog, which does not take it.
    #[error(
        "{waiting} changes of metadata wait for the catalog, the limit is {limit} (catalog_changes_max): {why}; nothing was changed"
    )]
    CatalogBehind {
        /// The changes that wait.
        waiting: u64,
        /// The limit.
        limit: u64,
        /// What keeps the catalog from taking them.
        why: String,
    },
    /// The catalog could not be written; the journal has it all.
    #[error("the catalog cannot be written: {0}")]
    Catalog(String),
    /// The disk under the journal is full.
    #[error("the disk under the journal is full, nothing was appended: {0}")]
    StorageFull(String),
    /// Writing failed before anything was stored.
    #[error("the journal could not be written, nothing was appended: {0}")]
    NotWritten(String),
    /// Writing failed in a way that leaves open what was stored.
    #[error("the journal could not be synced: the records may or may not be stored: {0}")]
    Indefinite(String),
    /// The store shuts down or failed to start.
    #[error("the store is stopping")]
    Stopping,
    /// Tier 2 did not answer.
    #[error("tier 2 is unavailable: {0}")]
    Tier2(String),
    /// The system has no thread left to encode a chunk.
    #[error("a chunk could not be encoded: {0}")]
    NotEncoded(String),
    /// A newer server has taken tier 2 over.
    #[error("{0}")]
    Fenced(String),
    /// Stored bytes are damaged.
    #[error("{at}: {why}")]
    Damaged {
        /// File or object and position.
        at: String,
        /// What is wrong there.
        why: String,
    },
    /// Not in this version.
    #[error("{0}")]
    Unsupported(String),
    /// Starting failed.
    #[error("{0}")]
    Start(String),
    /// A bug in the store.
    #[error("internal error, please report it: {0}")]
    Internal(String),
}

impl Error {
    /// What a caller should do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::StreamNotFound(_)
            | Self::StreamDeleted(_)
            | Self::PartitionNotFound { .. }
            | Self::GroupNotFound(_)
            | Self::UnknownProducer { .. }
            | Self::TransactionalIdNotFound(_) => ErrorKind::NotFound,
            Self::StreamExists(_) | Self::ViewExists(_) => ErrorKind::AlreadyExists,
            Self::Invalid(_) | Self::TransactionTimeoutTooLong { .. } => ErrorKind::InvalidRequest,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::OutOfRange { .. } => ErrorKind::OutOfRange,
            Self::UnexpectedOffset { .. }
            | Self::OutOfOrderSequence { .. }
            | Self::DuplicateSequence { .. }
            | Self::ConfigChanged(_)
            | Self::FieldConflict { .. }
            | Self::DocumentChanged { .. }
            | Self::LeaseHeld { .. }
            | Self::InvalidTransactionState(_)
            | Self::Overtaken(_) => ErrorKind::Conflict,
            Self::ProducerFenced { .. } | Self::Fenced(_) => ErrorKind::Fenced,
            Self::Throttled { .. } => ErrorKind::Throttled,
            Self::Backpressure { .. }
            | Self::CatalogBehind { .. }
            | Self::Catalog(_)
            | Self::NotWritten(_)
            | Self::Stopping
            | Self::Tier2(_)
            | Self::NotEncoded(_)
            | Self::Start(_) => ErrorKind::Unavailable,
            Self::StorageFull(_) => ErrorKind::StorageFull,
            Self::Indefinite(_) => ErrorKind::Indefinite,
            Self::Damaged { .. } => ErrorKind::Damaged,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Internal(_) => ErrorKind::Internal,
        }
    }

    /// Whether certainly nothing was changed.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::Indefinite(_))
    }

    /// The earliest offset that can be read, where the one asked for cannot.
    #[must_use]
    pub fn earliest(&self) -> Option<Offset> {
        match self {
            Self::OutOfRange { earliest, .. } => Some(*earliest),
            _ => None,
        }
    }

    /// When to try the same again, where that makes sense.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::LeaseHeld { wait_ms, .. } = self {
            return Some(Duration::from_millis(*wait_ms));
        }
        match self.kind() {
            ErrorKind::Throttled | ErrorKind::Indefinite => Some(Duration::from_secs(1)),
            ErrorKind::Unavailable => Some(Duration::from_secs(2)),
            ErrorKind::StorageFull => Some(Duration::from_secs(10)),
            _ => None,
        }
    }

    pub(crate) fn out_of_range(
        partition: Partition,
        offset: Offset,
        earliest: Offset,
        end: Offset,
    ) -> Self {
        Self::OutOfRange { partition: partition.index.get(), offset, earliest, end }
    }
}

impl From<aquifer_types::BatchError> for Error {
    fn from(error: aquifer_types::BatchError) -> Self {
        match error.kind() {
            ErrorKind::Damaged => Self::Damaged { at: "a batch".into(), why: error.to_string() },
            _ => Self::Invalid(error.to_string()),
        }
    }
}
