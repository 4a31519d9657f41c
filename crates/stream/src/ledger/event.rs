//! What happened: the facts that the ledger decides, writes and replays.
//!
//! An [`Event`] is decided once, against the state before it, and applied
//! without any check ever after: replay never validates old facts against
//! today's configuration.
//!
//! Frame layout: the frame's kind is the event's, its meta is below, its
//! payload is the batch of an append and empty otherwise.
//!
//! | kind | event | meta |
//! |---|---|---|
//! | 1 | records were appended | binary, 44 bytes, below |
//! | 2 | anything about streams, chunks, groups, answers, attempts and leases | JSON of [`Event`] |
//! | 3 | a batch of the tail was written anew, where it lies from here on; nothing else changes | as of kind 1 |
//! | 4–9 | reserved: checkpoints | |
//!
//! Append meta, little endian: version (1) u8, flags u8 (0), reserved u16,
//! partition u32, stream id 16 bytes, base offset i64, appended ms i64,
//! epoch u32. Everything else about the batch is in its own header.

use aquifer_types::{
    Batch, BatchHeader, ChunkId, CommitId, Epoch, GroupName, LeaseName, LeaseToken, Offset,
    Partition, PartitionIndex, ProducerEpoch, ProducerId, StreamClass, StreamConfig,
    StreamConfigChange, StreamId, StreamPath, TenantName, Timestamp, TransactionalId,
};
use serde::{Deserialize, Serialize};

use super::leases::HeldLease;
use super::transaction_event::TransactionEvent;
use crate::Error;
use crate::api::{Appended, GroupPosition, NewTransactional, PositionNote};
use crate::chunk_meta::ChunkMeta;
use crate::ledger::document::{Document, DocumentExpectation, DocumentKey};

pub(crate) const KIND_APPEND: u8 = 1;
pub(crate) const KIND_EVENT: u8 = 2;
pub(crate) const KIND_RELOCATED: u8 = 3;

const APPEND_VERSION: u8 = 1;
const APPEND_META_BYTES: usize = 44;

/// A batch that was given its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AppendEvent {
    pub(crate) partition: Partition,
    pub(crate) appended: Timestamp,
    /// The batch's header with base offset and epoch set.
    pub(crate) batch: BatchHeader,
}

/// A fact other than an append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    StreamCreated {
        id: StreamId,
        path: StreamPath,
        partitions: u32,
        class: StreamClass,
        config: StreamConfig,
        created: Timestamp,
        epoch: Epoch,
    },
    StreamAltered {
        id: StreamId,
        config: StreamConfig,
    },
    /// The new number of partitions.
    PartitionsAdded {
        id: StreamId,
        partitions: u32,
        /// Where the new ones begin.
        #[serde(default, skip_serializing_if = "is_zero")]
        from: Offset,
    },
    StreamDeleted {
        id: StreamId,
        at: Timestamp,
    },
    /// Nothing below `start` is readable any more.
    Truncated {
        partition: Partition,
        start: Offset,
        at: Timestamp,
        /// By retention, not by a caller.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_expired: bool,
    },
    UploadIntended {
        chunk: ChunkId,
        partition: Partition,
        object_path: String,
        at: Timestamp,
    },
    /// The upload's object is garbage, whether or not it is there.
    UploadAbandoned {
        chunk: ChunkId,
        object_path: String,
        at: Timestamp,
    },
    ChunkAdded {
        chunk: ChunkMeta,
        /// None in what the first version wrote.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<Timestamp>,
    },
    ChunksReplaced {
        removed: Vec<ChunkId>,
        added: ChunkMeta,
        at: Timestamp,
    },
    /// A live chunk has a search index, in the place of any that it had.
    ChunkIndexed {
        partition: Partition,
        chunk: ChunkId,
        /// The upload that was announced.
        index: ChunkId,
        index_path: String,
        index_bytes: u64,
        at: Timestamp,
    },
    GarbageCollected {
        object_paths: Vec<String>,
    },
    PositionsCommitted {
        tenant: TenantName,
        group: GroupName,
        positions: Vec<(Partition, GroupPosition)>,
    },
    GroupDeleted {
        tenant: TenantName,
        group: GroupName,
    },
    /// A group without positions is gone.
    PositionsForgotten {
        tenant: TenantName,
        group: GroupName,
        partitions: Vec<Partition>,
    },
    DocumentPut {
        key: DocumentKey,
        document: std::sync::Arc<Document>,
    },
    DocumentDeleted {
        key: DocumentKey,
    },
    /// The answer to a request with an idempotency key.
    AnswerKept {
        tenant: TenantName,
        key: String,
        answer: KeptAnswer,
    },
    /// No offset from these on is given: manifests name them.
    CeilingsSet {
        ceilings: Vec<(Partition, Offset)>,
    },
    /// A relaxed partition goes on at `through` after an unclean start.
    OffsetsReserved {
        partition: Partition,
        through: Offset,
    },
    /// Where a partition goes on after an unclean start or a recovery.
    OffsetsSkipped {
        partition: Partition,
        end: Offset,
    },
    /// The commit of this group that bears an id of its caller's came to this.
    CommitKept {
        id: CommitId,
        outcomes: Vec<Outcome>,
        at: Timestamp,
    },
    /// A lease was granted, or goes on under the same token.
    LeaseHeld {
        name: LeaseName,
        lease: HeldLease,
    },
    LeaseReleased {
        name: LeaseName,
    },
    /// Whoever asked for the commit was told that it was not done: it will not
    /// be.
    CommitFenced {
        id: CommitId,
        at: Timestamp,
    },
    /// Anything about producers and transactions.
    Transaction(TransactionEvent),
}

fn is_zero(offset: &Offset) -> bool {
    *offset == Offset::ZERO
}

/// The first answer to a request, for whoever repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptAnswer {
    pub(crate) stream: StreamId,
    pub(crate) appends: Vec<Appended>,
    pub(crate) at: Timestamp,
    /// CRC-32C over the request's batches, to tell a repetition from another
    /// request under the same key.
    pub(crate) request_checksum: u32,
}

impl AppendEvent {
    pub(crate) fn encode(&self) -> [u8; APPEND_META_BYTES] {
        let mut meta = [0; APPEND_META_BYTES];
        meta[0] = APPEND_VERSION;
        meta[4..8].copy_from_slice(&self.partition.index.get().to_le_bytes());
        meta[8..24].copy_from_slice(self.partition.stream.as_bytes());
        meta[24..32].copy_from_slice(&self.batch.base_offset.get().to_le_bytes());
        meta[32..40].copy_from_slice(&self.appended.get().to_le_bytes());
        meta[40..44].copy_from_slice(&self.batch.epoch.get().to_le_bytes());
        meta
    }

    /// Decodes an append and checks its batch, which lies beside it.
    pub(crate) fn decode(meta: &[u8], payload: &[u8]) -> Result<Self, Error> {
        let damaged = |why: String| Error::Damaged { at: "an append frame".into(), why };
        let meta: &[u8; APPEND_META_BYTES] =
            meta.try_into().map_err(|_| damaged(format!("its meta has {} bytes", meta.len())))?;
        if meta[0] != APPEND_VERSION {
            return Err(Error::Unsupported(format!(
                "an append frame has version {}, this program knows {APPEND_VERSION}",
                meta[0]
            )));
        }
        let word = |at: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&meta[at..at + 4]);
            u32::from_le_bytes(bytes)
        };
        let long = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&meta[at..at + 8]);
            i64::from_le_bytes(bytes)
        };
        let mut stream = [0; 16];
        stream.copy_from_slice(&meta[8..24]);
        let batch = BatchHeader::read(payload).map_err(|error| damaged(error.to_string()))?;
        if batch.base_offset.get() != long(24) || batch.epoch.get() != word(40) {
            return Err(damaged("its batch bears another offset or epoch".into()));
        }
        if batch.total_bytes() != payload.len() {
            return Err(damaged("its batch has another length".into()));
        }
        Ok(Self {
            partition: Partition::new(StreamId::from_bytes(stream), PartitionIndex(word(4))),
            appended: Timestamp(long(32)),
            batch,
        })
    }
}

/// What a commit asks for; the ledger turns it into events or refuses it.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Append a batch.
    Append {
        /// To this partition.
        partition: Partition,
        /// Validated.
        batch: Batch,
        /// Only if the partition ends here.
        expected_offset: Option<Offset>,
    },
    /// Write a batch of the tail anew at the head of the journal, so that the
    /// file in which it lies can go; nothing is done where a chunk or the start
    /// has passed it meanwhile.
    Relocate {
        /// Its partition.
        partition: Partition,
        /// As it was read from there, at its offset.
        batch: Batch,
        /// When it was appended.
        appended: Timestamp,
    },
    /// Create a stream under an id that was never used.
    CreateStream {
        /// Its id.
        id: StreamId,
        /// Its name, partitions, class and configuration.
        new: crate::api::NewStream,
    },
    /// Change fields of a stream's configuration.
    AlterStream {
        /// The stream.
        id: StreamId,
        /// The fields; the others stay as they are when it is decided.
        change: StreamConfigChange,
        /// Only if this is its configuration then.
        expected: Option<Box<StreamConfig>>,
    },
    /// Let a stream have more partitions.
    GrowStream {
        /// The stream.
        id: StreamId,
        /// How many it has then.
        partitions: u32,
    },
    /// Delete a stream, its records and all positions in it.
    DeleteStream {
        /// The stream.
        id: StreamId,
    },
    /// Make everything below an offset unreadable.
    Truncate {
        /// The partition.
        partition: Partition,
        /// The new start; at most the end.
        start: Offset,
    },
    /// The same for what retention does not keep any longer.
    Expire {
        /// The partition.
        partition: Partition,
        /// The new start; at most the end.
        start: Offset,
    },
    /// Announce an upload, of a chunk or of an index.
    IntendUpload {
        /// The chunk to be, or the index.
        chunk: ChunkId,
        /// Its partition.
        partition: Partition,
        /// The object's path, never used before.
        object_path: String,
    },
    /// Give an announced upload up.
    AbandonUpload {
        /// The chunk.
        chunk: ChunkId,
    },
    /// Make an object garbage that is named as a chunk or an index and that nothing
    /// knows.
    DiscardOrphan {
        /// The partition in its name.
        partition: Partition,
        /// The first offset in its name.
        base: Offset,
        /// The chunk in its name; of an index, its own id.
        chunk: ChunkId,
        /// The object's path.
        object_path: String,
    },
    /// Add an uploaded chunk and move the tiered offset behind it.
    AddChunk {
        /// It begins at the tiered offset; its upload was announced.
        chunk: ChunkMeta,
    },
    /// Put one chunk in the place of several.
    ReplaceChunks {
        /// Live chunks that lie in a row.
        removed: Vec<ChunkId>,
        /// It covers what they cover; its upload was announced.
        added: ChunkMeta,
    },
    /// Let a chunk have a search index, in the place of any that it has.
    IndexChunk {
        /// The chunk's partition.
        partition: Partition,
        /// The chunk's first offset.
        base: Offset,
        /// The chunk; it must be live.
        chunk: ChunkId,
        /// The index; its upload was announced under this id.
        index: ChunkId,
        /// The path of its object.
        index_path: String,
        /// The object's size in bytes.
        index_bytes: u64,
    },
    /// Give no offset from these on; what is not there any more is passed over.
    SetCeilings {
        /// Where each partition ends at the latest.
        ceilings: Vec<(Partition, Offset)>,
    },
    /// Forget objects that were deleted.
    CollectGarbage {
        /// Their paths.
        object_paths: Vec<String>,
    },
    /// Commit a group's positions.
    CommitPositions {
        /// The group's tenant.
        tenant: TenantName,
        /// The group.
        group: GroupName,
        /// Offsets and notes.
        positions: Vec<(Partition, Offset, PositionNote)>,
    },
    /// Put a document in the place of any of its name.
    PutDocument {
        /// Its name.
        key: DocumentKey,
        /// Its text.
        value: String,
        /// What must hold.
        expected: DocumentExpectation,
    },
    /// Delete a document; one that does not exist stays so.
    DeleteDocument {
        /// Its name.
        key: DocumentKey,
        /// What must hold.
        expected: DocumentExpectation,
    },
    /// Forget some of a group's positions; those that do not exist stay so.
    ForgetPositions {
        /// The group's tenant.
        tenant: TenantName,
        /// The group.
        group: GroupName,
        /// Where it has none any more.
        partitions: Vec<Partition>,
        /// Only those that were committed before; absent, all of them.
        committed_before: Option<Timestamp>,
    },
    /// Forget a group.
    DeleteGroup {
        /// The group's tenant.
        tenant: TenantName,
        /// The group.
        group: GroupName,
    },
    /// Grant a lease that nobody holds.
    AcquireLease {
        /// Its name.
        name: LeaseName,
        /// For how long, in ms.
        ttl_ms: u64,
    },
    /// Let a lease last from now on.
    RenewLease {
        /// Its name.
        name: LeaseName,
        /// The grant.
        token: LeaseToken,
        /// For how long, in ms.
        ttl_ms: u64,
    },
    /// Give a lease back.
    ReleaseLease {
        /// Its name.
        name: LeaseName,
        /// The grant.
        token: LeaseToken,
    },
    /// Find out what became of a commit; one that is not there is fenced.
    ResolveCommit {
        /// The id that its caller gave it.
        id: CommitId,
    },
    /// Give a producer its id and epoch; its outcome is [`Outcome::Producer`].
    InitProducer {
        /// The producer's tenant.
        tenant: TenantName,
        /// The transactional id that it takes over, fencing whoever had it;
        /// without one it is idempotent only.
        transactional: Option<NewTransactional>,
    },
    /// Let the producer's transaction include partitions; opens it where none
    /// is open.
    AddPartitions {
        /// The producer's tenant.
        tenant: TenantName,
        /// Its transactional id.
        transactional: TransactionalId,
        /// Its id and epoch.
        producer: (ProducerId, ProducerEpoch),
        /// Of streams of the tenant.
        partitions: Vec<Partition>,
    },
    /// Let the producer's transaction include a group; opens it where none is
    /// open.
    AddGroup {
        /// The producer's tenant.
        tenant: TenantName,
        /// Its transactional id.
        transactional: TransactionalId,
        /// Its id and epoch.
        producer: (ProducerId, ProducerEpoch),
        /// The group.
        group: GroupName,
    },
    /// Commit a group's positions when, and if, the transaction is committed.
    CommitPositionsInTransaction {
        /// The producer's tenant.
        tenant: TenantName,
        /// Its transactional id.
        transactional: TransactionalId,
        /// Its id and epoch.
        producer: (ProducerId, ProducerEpoch),
        /// A group that the open transaction includes.
        group: GroupName,
        /// Offsets and notes.
        positions: Vec<(Partition, Offset, PositionNote)>,
    },
    /// Commit or abort the open transaction. The same end may be repeated until
    /// the next one is opened.
    EndTransaction {
        /// The producer's tenant.
        tenant: TenantName,
        /// Its transactional id.
        transactional: TransactionalId,
        /// Its id and epoch.
        producer: (ProducerId, ProducerEpoch),
        /// Whether its records count.
        is_commit: bool,
    },
    /// Abort a transaction whose time is over, if it is still open, and fence
    /// its producer.
    ExpireTransaction {
        /// The producer's tenant.
        tenant: TenantName,
        /// Its transactional id.
        transactional: TransactionalId,
        /// The id and epoch that it had when it was seen.
        producer: (ProducerId, ProducerEpoch),
    },
}

impl Operation {
    /// Whether the catalog has to be told of it.
    pub(crate) fn is_in_catalog(&self) -> bool {
        match self {
            Self::CreateStream { .. }
            | Self::AlterStream { .. }
            | Self::GrowStream { .. }
            | Self::DeleteStream { .. }
            | Self::Truncate { .. }
            | Self::Expire { .. }
            | Self::IntendUpload { .. }
            | Self::AbandonUpload { .. }
            | Self::DiscardOrphan { .. }
            | Self::AddChunk { .. }
            | Self::ReplaceChunks { .. }
            | Self::IndexChunk { .. } => true,
            Self::CollectGarbage { object_paths } => !object_paths.is_empty(),
            Self::Append { .. }
            | Self::Relocate { .. }
            | Self::SetCeilings { .. }
            | Self::CommitPositions { .. }
            | Self::ForgetPositions { .. }
            | Self::DeleteGroup { .. }
            | Self::PutDocument { .. }
            | Self::DeleteDocument { .. }
            | Self::AcquireLease { .. }
            | Self::RenewLease { .. }
            | Self::ReleaseLease { .. }
            | Self::ResolveCommit { .. }
            | Self::InitProducer { .. }
            | Self::AddPartitions { .. }
            | Self::AddGroup { .. }
            | Self::CommitPositionsInTransaction { .. }
            | Self::EndTransaction { .. }
            | Self::ExpireTransaction { .. } => false,
        }
    }
}

/// What an operation came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A batch has its place.
    Appended(Appended),
    /// The batch had been appended before, there.
    Duplicate(Appended),
    /// The document has this version.
    Document {
        /// The version.
        version: u64,
    },
    /// It was done.
    Done,
    /// The lease is granted.
    Leased(LeaseToken),
    /// A producer has this id and epoch.
    Producer {
        /// Its id.
        id: ProducerId,
        /// Its epoch.
        epoch: ProducerEpoch,
    },
    /// What became of the commit that was asked for.
    Resolved(Resolution),
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// It was done, with these outcomes.
    Committed(Vec<Outcome>),
    /// It was not done and will not be.
    Absent,
}
