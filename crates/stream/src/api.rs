//! What the doors ask of the store, and what they get back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aquifer_chunk::Rows;
use aquifer_types::{
    Batch, Epoch, GroupName, Offset, PartitionIndex, ProducerEpoch, ProducerId, Record, Sequence,
    StreamClass, StreamConfig, StreamConfigChange, StreamId, StreamPath, Timestamp,
    TransactionalId,
};

/// A stream to be created.
#[derive(Debug, Clone)]
pub struct NewStream {
    /// Its full name; it must not exist.
    pub path: StreamPath,
    /// 1 to [`aquifer_types::PARTITIONS_MAX`].
    pub partitions: u32,
    /// What an acknowledgement promises.
    pub class: StreamClass,
    /// Its configuration.
    pub config: StreamConfig,
}

/// A change to a stream; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct StreamUpdate {
    /// The fields of the configuration that change.
    pub config: Option<StreamConfigChange>,
    /// The new number of partitions; it can only grow, and keys move when it does.
    pub partitions: Option<u32>,
}

/// A stream in a list.
#[derive(Debug, Clone)]
pub struct StreamSummary {
    /// Its full name.
    pub path: StreamPath,
    /// Its identity.
    pub id: StreamId,
    /// The number of its partitions.
    pub partitions: u32,
    /// Its class.
    pub class: StreamClass,
    /// Its configuration.
    pub config: StreamConfig,
    /// When it was created.
    pub created: Timestamp,
    /// The records between start and end of all partitions, gaps counted in.
    pub records: u64,
    /// The bytes that its records take in the journal and in tier 2.
    pub bytes: u64,
}

/// One partition of a described stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number.
    pub partition: PartitionIndex,
    /// The earliest offset that can be read.
    pub start_offset: Offset,
    /// The first offset that is not yet in a chunk.
    pub tiered_offset: Offset,
    /// The first offset that an open transaction hides; the end without one.
    pub stable_offset: Offset,
    /// The offset that the next record gets.
    pub end_offset: Offset,
    /// The number of live chunks.
    pub chunks: u64,
    /// The bytes of batches in the journal and of chunks in tier 2.
    pub bytes: u64,
    /// The epoch in which it is appended to.
    pub epoch: Epoch,
}

/// Everything about a stream.
#[derive(Debug, Clone)]
pub struct StreamDescription {
    /// As in a list.
    pub summary: StreamSummary,
    /// In order of their numbers.
    pub partitions: Vec<PartitionDescription>,
}

/// What appends and lists of partitions need to know of a stream.
#[derive(Debug, Clone)]
pub struct StreamShape {
    /// Its identity.
    pub id: StreamId,
    /// The number of its partitions.
    pub partitions: u32,
    /// Its configuration.
    pub config: Arc<StreamConfig>,
    /// The epoch in which it is appended to.
    pub epoch: Epoch,
}

/// A position in a partition to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The earliest record that is kept.
    Earliest,
    /// Behind the last record that is visible.
    Latest,
    /// This offset.
    Offset(Offset),
    /// The first record with this timestamp or a later one; the end where there
    /// is none.
    Time(Timestamp),
}

/// Where to cut a stream off at its beginning.
#[derive(Debug, Clone)]
pub enum Truncation {
    /// Records below these offsets go; other partitions stay.
    Cut(BTreeMap<PartitionIndex, Offset>),
    /// In every partition, all before the first record with this timestamp or a
    /// later one.
    Time(Timestamp),
    /// Everything that is there now.
    All,
}

/// Batches for one partition.
#[derive(Debug, Clone)]
pub struct PartitionAppend {
    /// The partition's number.
    pub partition: PartitionIndex,
    /// One batch, validated by [`Batch::accept`] or built by a `BatchBuilder`.
    pub batch: Batch,
    /// The append happens only if the partition's end is exactly here.
    pub expected_offset: Option<Offset>,
}

/// Appends to one stream that happen together or not at all.
#[derive(Debug, Clone)]
pub struct AppendRequest {
    /// The stream's full name.
    pub path: StreamPath,
    /// In the order in which they are to be appended.
    pub appends: Vec<PartitionAppend>,
    /// The same key within a day gives the first answer again and appends
    /// nothing; 1 to 255 bytes.
    pub idempotency_key: Option<String>,
}

/// Where a batch was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Appended {
    /// The partition's number.
    pub partition: PartitionIndex,
    /// The offset of the batch's first record.
    pub base_offset: Offset,
    /// The number of its records.
    pub count: u32,
}

/// The answer to an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendAnswer {
    /// One for each batch, in the order of the request; for a duplicate, those
    /// of the first time.
    pub appends: Vec<Appended>,
    /// Whether it had been appended before.
    pub is_duplicate: bool,
    /// When the server appended it; with a server-set timestamp, the records'.
    pub appended: Timestamp,
}

/// What an open transaction hides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Only what is stable.
    #[default]
    Committed,
    /// All that is durable.
    Uncommitted,
}

/// How a read answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Records that count: those of aborted transactions and control batches are
    /// left out, and the reader is led past them.
    #[default]
    Records,
    /// Every batch as it lies, beside [`ReadAnswer::aborted`].
    Raw,
}

/// A read of one partition.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    /// The stream's full name.
    pub path: StreamPath,
    /// The partition's number.
    pub partition: PartitionIndex,
    /// Where to begin.
    pub from: Position,
    /// The most bytes of records; at least one batch is answered all the same.
    pub bytes_max: usize,
    /// How long to wait where nothing is there yet.
    pub wait: Duration,
    /// What open transactions hide.
    pub isolation: Isolation,
    /// What becomes of aborted and control batches.
    pub form: Form,
}

/// A piece of a partition, in the form in which it lies.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a block is moved once, its bytes are shared")]
pub enum Block {
    /// A batch of the journal, as its producer sent it. It may begin before the
    /// position that was asked for.
    Batch(Batch),
    /// Rows of a chunk.
    Rows(Rows),
}

/// The answer to a read.
#[derive(Debug, Clone)]
pub struct ReadAnswer {
    /// In order of offsets.
    pub blocks: Vec<Block>,
    /// The position that was asked for, as an offset; records before it that a
    /// block holds are to be skipped.
    pub from: Offset,
    /// Where to go on: behind the last block, and behind a gap that follows it.
    pub next_offset: Offset,
    /// The earliest offset that can be read.
    pub start_offset: Offset,
    /// The end of what is stable.
    pub stable_offset: Offset,
    /// The end of the partition.
    pub end_offset: Offset,
    /// For [`Form::Raw`] and [`Isolation::Committed`]: the aborted transactions
    /// that the answered batches of the journal overlap with, by their first
    /// offsets. Rows of chunks never hold any of theirs.
    pub aborted: Vec<AbortedTransaction>,
}

/// A transaction whose records do not count, in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AbortedTransaction {
    /// Who wrote it.
    pub producer_id: ProducerId,
    /// Its first record.
    pub first_offset: Offset,
    /// Its marker.
    pub last_offset: Offset,
}

/// A transactional id to be taken over by a producer.
#[derive(Debug, Clone)]
pub struct NewTransactional {
    /// The id.
    pub id: TransactionalId,
    /// How long its transactions may take, in ms.
    pub timeout_ms: u32,
    /// Only if the id has this producer, or had it before the same request was
    /// answered last (KIP-360).
    pub expected: Option<(ProducerId, ProducerEpoch)>,
}

/// How the transactions of a transactional id stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionState {
    /// Its present producer has written none.
    Empty,
    /// One is open.
    Ongoing,
    /// The last one was committed.
    Committed,
    /// The last one was aborted.
    Aborted,
}

/// A transactional id and its transaction.
#[derive(Debug, Clone)]
pub struct TransactionDescription {
    /// The id.
    pub transactional: TransactionalId,
    /// Its producer and that one's epoch.
    pub producer: (ProducerId, ProducerEpoch),
    /// How its transactions stand.
    pub state: TransactionState,
    /// How long a transaction may take, in ms.
    pub timeout_ms: u32,
    /// When the open one was opened.
    pub started: Option<Timestamp>,
    /// The partitions that the open one includes; empty in a list.
    pub partitions: Vec<(StreamPath, PartitionIndex)>,
    /// The groups that the open one includes; empty in a list.
    pub groups: Vec<GroupName>,
}

/// A producer that has appended to a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerDescription {
    /// Its id.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The sequence of its last record.
    pub last_sequence: Sequence,
    /// When it appended last.
    pub last_used: Timestamp,
    /// Where its open transaction begins in the partition.
    pub transaction_start: Option<Offset>,
}

impl ReadAnswer {
    /// The records from the position that was asked for, in order.
    ///
    /// # Errors
    /// [`crate::Error`] where a stored batch cannot be decoded.
    pub fn records(&self) -> Result<Vec<Record>, crate::Error> {
        let mut records = Vec::new();
        for block in &self.blocks {
            block.records_from(self.from, &mut records)?;
        }
        Ok(records)
    }
}

/// A consumer's named position in one partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GroupPosition {
    /// The offset of the next record to be read.
    pub offset: Offset,
    /// The consumer's own note; at most 4 KiB.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// The epoch of the record before it, as far as the consumer said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<Epoch>,
    /// When it was committed.
    pub committed: Timestamp,
}

/// What a consumer leaves beside a position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PositionNote {
    /// Its own note; at most 4 KiB.
    pub metadata: String,
    /// The epoch of the record before the position.
    pub leader_epoch: Option<Epoch>,
}

impl From<String> for PositionNote {
    fn from(metadata: String) -> Self {
        Self { metadata, leader_epoch: None }
    }
}

impl GroupPosition {
    pub(crate) fn new(offset: Offset, note: &PositionNote, committed: Timestamp) -> Self {
        let PositionNote { metadata, leader_epoch } = note.clone();
        Self { offset, metadata, leader_epoch, committed }
    }
}

/// The positions of a consumer group.
#[derive(Debug, Clone)]
pub struct GroupDescription {
    /// The group's name.
    pub group: GroupName,
    /// By stream and partition.
    pub positions: BTreeMap<StreamPath, BTreeMap<PartitionIndex, GroupPosition>>,
}

/// A live chunk.
#[derive(Debug, Clone)]
pub struct ChunkDescription {
    /// The partition's number.
    pub partition: PartitionIndex,
    /// The first offset of the range that it covers.
    pub base_offset: Offset,
    /// The first offset behind that range.
    pub next_offset: Offset,
    /// The path of its object under the root of tier 2.
    pub object_path: String,
    /// The object's size.
    pub object_bytes: u64,
    /// The rows in it.
    pub records: u64,
    /// The bytes of its records' keys, headers and values.
    pub raw_bytes: u64,
    /// The lowest timestamp of a record, and the highest.
    pub timestamps: Option<(Timestamp, Timestamp)>,
    /// The path of its search index, when it has one.
    pub index_path: Option<String>,
    /// The size of that object.
    pub index_bytes: Option<u64>,
    /// 0 from the journal, one more than its inputs from compaction.
    pub generation: u32,
    /// The version of the stream's schema whose columns it has.
    pub schema_version: u32,
}

/// How the store is, for health and readiness.
#[derive(Debug, Clone)]
pub struct Health {
    /// Whether appends are taken; if not, why.
    pub appends: Result<(), String>,
    /// Whether tier 2 answered its last request; if not, why.
    pub tier2: Result<(), String>,
    /// Whether the catalog took its last changes; if not, why.
    pub catalog: Result<(), String>,
    /// Bytes of journal files in use, and their limit.
    pub journal_bytes: (u64, u64),
    /// Age of the oldest record that is only in the journal, in ms.
    pub tiering_lag_ms: u64,
}
