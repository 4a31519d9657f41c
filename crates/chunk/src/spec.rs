//! What a chunk says about itself.

use aquifer_types::{
    ChunkId, Epoch, Offset, PartitionIndex, StreamId, StreamName, TenantName, Timestamp,
    TimestampType,
};

use crate::ObjectName;

/// What a chunk is and covers; fixed before its first record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkSpec {
    /// The tenant that owns the stream.
    pub tenant: TenantName,
    /// The stream's name when the chunk was written.
    pub stream: StreamName,
    /// The stream.
    pub stream_id: StreamId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset of the covered range.
    pub base: Offset,
    /// The first offset behind the covered range.
    pub next: Offset,
    /// The partition's epochs within the covered range, each with the first
    /// offset that it applies to, in growing order.
    pub epochs: Vec<(Epoch, Offset)>,
    /// 0 for a chunk that tiering wrote, else one more than the highest of what
    /// it replaces.
    pub generation: u32,
    /// The chunks that compaction made this one from.
    pub replaces: Vec<ChunkId>,
    /// The version of the stream's schema that the columns follow.
    pub schema_version: u32,
    /// The chunk's own id, never used before.
    pub chunk_id: ChunkId,
    /// Whose clock the timestamps come from.
    pub timestamp_type: TimestampType,
    /// How far, from its base on, older records of the same keys are gone, in
    /// this chunk and in all before it: up to each of these offsets (growing)
    /// since that time. Empty where only tiering and merging had to do with it.
    pub compacted: Vec<(Offset, Timestamp)>,
}

impl ChunkSpec {
    /// The chunk's name below tier 2's root.
    #[must_use]
    pub fn object_name(&self) -> ObjectName {
        ObjectName {
            tenant: self.tenant.clone(),
            stream: self.stream.clone(),
            stream_id: self.stream_id,
            partition: self.partition,
            base: self.base,
            chunk_id: self.chunk_id,
        }
    }

    /// [`ChunkSpec::object_name`] as a path.
    #[must_use]
    pub fn object_path(&self) -> String {
        self.object_name().to_string()
    }

    /// The epoch that `offset` was appended in; the first one below its range,
    /// 0 where none is known.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Epoch {
        let behind = self.epochs.partition_point(|(_, first)| *first <= offset);
        self.epochs.get(behind.saturating_sub(1)).map_or(Epoch(0), |(epoch, _)| *epoch)
    }
}

/// What a chunk's rows amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChunkStats {
    /// How many rows there are.
    pub records: u64,
    /// The bytes of their keys, headers and values together.
    pub raw_bytes: u64,
    /// The lowest timestamp; `None` without rows.
    pub min_timestamp: Option<Timestamp>,
    /// The highest timestamp; `None` without rows.
    pub max_timestamp: Option<Timestamp>,
    /// When the last of them was appended; `None` without rows.
    pub max_appended: Option<Timestamp>,
    /// How many have a value that does not fit the stream's schema; `None` where
    /// values were not looked at, and where the schema has no column and some begin
    /// as an object and are no JSON: their fields are in nothing but themselves.
    pub unfit: Option<u64>,
}

impl ChunkStats {
    /// Adds what further rows amount to, but for what does not fit.
    pub(crate) fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.raw_bytes += other.raw_bytes;
        self.min_timestamp = match (self.min_timestamp, other.min_timestamp) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        // `None` is less than any time.
        self.max_timestamp = self.max_timestamp.max(other.max_timestamp);
        self.max_appended = self.max_appended.max(other.max_appended);
    }
}
