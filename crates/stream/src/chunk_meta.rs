//! What the ledger knows about a chunk.

use aquifer_types::{ChunkId, Epoch, Offset, Partition, Timestamp, TimestampType};
use serde::{Deserialize, Serialize};

/// A chunk in tier 2: where it is, what it covers, what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkMeta {
    /// Its identity.
    pub id: ChunkId,
    /// The partition that it is a part of.
    pub partition: Partition,
    /// The first offset of the range that it covers.
    pub base: Offset,
    /// The first offset behind that range; ranges lie side by side without gaps.
    pub next: Offset,
    /// The path of its object under the root of tier 2.
    pub object_path: String,
    /// The object's size in bytes.
    pub object_bytes: u64,
    /// The object's checksum, as the chunk encoder gives it.
    pub checksum: String,
    /// The number of its rows.
    pub records: u64,
    /// The bytes of its records' keys, headers and values.
    pub raw_bytes: u64,
    /// The lowest timestamp of a row; absent without rows.
    pub min_timestamp: Option<Timestamp>,
    /// The highest timestamp of a row; absent without rows.
    pub max_timestamp: Option<Timestamp>,
    /// When the newest of its records was appended; absent without rows.
    pub max_appended: Option<Timestamp>,
    /// In which epochs its records were appended: (epoch, first offset).
    pub epochs: Vec<(Epoch, Offset)>,
    /// 0 from the journal, one more than its inputs from compaction.
    pub generation: u32,
    /// The version of the stream's schema that it was written with.
    pub schema_version: u32,
    /// How many of its records have a value that does not fit that schema; absent
    /// where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfit: Option<u64>,
    /// Whose clock the timestamps of its records come from.
    #[serde(default, skip_serializing_if = "TimestampType::is_default")]
    pub timestamp_type: TimestampType,
    /// The search index beside it, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_path: Option<String>,
    /// The size of that index in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_bytes: Option<u64>,
    /// The key that its data key is sealed with, when it is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}
