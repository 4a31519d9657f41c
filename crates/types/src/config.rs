//! The configuration of a stream and the classes of service.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: {why}")]
pub struct ConfigError {
    /// The field's name as in the API.
    pub field: &'static str,
    /// The value given.
    pub value: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

/// What an acknowledgement promises. A stream's class is chosen when it is
/// created and does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamClass {
    /// Acknowledged records are in the synced journal.
    #[default]
    Durable,
    /// Acknowledged records are in the operating system's cache: losing the
    /// process loses nothing, losing power loses the last moments, and no offset
    /// is ever given twice.
    Relaxed,
    /// Acknowledged records are in the object store and committed in the shared
    /// database. Refused until the shared ledger exists.
    Shared,
}

impl StreamClass {
    /// The class's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Relaxed => "relaxed",
            Self::Shared => "shared",
        }
    }
}

impl FromStr for StreamClass {
    type Err = ConfigError;
    fn from_str(name: &str) -> Result<Self, ConfigError> {
        match name {
            "durable" => Ok(Self::Durable),
            "relaxed" => Ok(Self::Relaxed),
            "shared" => Ok(Self::Shared),
            other => Err(ConfigError {
                field: "class",
                value: other.chars().take(80).collect(),
                why: "the classes are durable, relaxed and shared",
            }),
        }
    }
}

/// What retention does with old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum CleanupPolicy {
    /// Old records are deleted, by age and by bytes.
    #[default]
    #[serde(rename = "delete")]
    Delete,
    /// The newest record of each key is kept for ever.
    #[serde(rename = "compact")]
    Compact,
    /// Both.
    #[serde(rename = "compact,delete")]
    CompactDelete,
}

impl CleanupPolicy {
    /// Whether old records are deleted, by age and by bytes.
    #[must_use]
    pub const fn deletes(self) -> bool {
        matches!(self, Self::Delete | Self::CompactDelete)
    }

    /// Whether the newest record of each key is kept, and older ones go.
    #[must_use]
    pub const fn compacts(self) -> bool {
        matches!(self, Self::Compact | Self::CompactDelete)
    }
}

/// What is indexed for search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChunkIndex {
    /// Nothing: searches scan.
    None,
    /// The tokens of the values.
    #[default]
    Tokens,
}

/// What becomes of the fields of JSON values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChunkShred {
    /// They are in the values alone.
    None,
    /// They are columns of chunks as well, by the stream's schema.
    #[default]
    Fields,
}

impl ChunkShred {
    /// Whether it is what streams have unless told otherwise.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whose time a record bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampType {
    /// Its producer's.
    #[default]
    Create,
    /// The server's, of the append.
    Append,
}

impl TimestampType {
    /// Whether it is what streams have unless told otherwise.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The configuration of a stream. Absent limits are no limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// Records older than this, counted from their append, are deleted; in ms.
    pub retention_ms: Option<u64>,
    /// A partition's oldest records are deleted while it holds more bytes.
    pub retention_bytes: Option<u64>,
    /// The bytes of records at which a chunk is cut; 64 KiB to 1 GiB.
    pub chunk_target_bytes: u64,
    /// The age of its oldest record at which a smaller chunk is cut; in ms, at
    /// least 100.
    pub chunk_max_age_ms: u64,
    /// The largest record: key, headers and value together; 1 B to 64 MiB.
    pub record_bytes_max: u64,
    /// What retention does.
    pub cleanup_policy: CleanupPolicy,
    /// What is indexed for search.
    pub index: ChunkIndex,
    /// What becomes of the fields of JSON values.
    #[serde(skip_serializing_if = "ChunkShred::is_default")]
    pub shred: ChunkShred,
    /// Whose time records bear.
    #[serde(skip_serializing_if = "TimestampType::is_default")]
    pub timestamp_type: TimestampType,
    /// What Kafka's tools set and expect to find again. Compaction keeps to
    /// `delete.retention.ms`, `min.compaction.lag.ms`, `max.compaction.lag.ms`
    /// and `min.cleanable.dirty.ratio`, nothing depends on the others: only names of [`KAFKA_SETTINGS`], each value at most
    /// [`KAFKA_VALUE_BYTES_MAX`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kafka: BTreeMap<String, String>,
}

/// The settings that [`StreamConfig::kafka`] may hold.
pub const KAFKA_SETTINGS: &[&str] = &[
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "preallocate",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "segment.index.bytes",
    "segment.jitter.ms",
    "unclean.leader.election.enable",
];

/// The longest value in [`StreamConfig::kafka`], in bytes.
pub const KAFKA_VALUE_BYTES_MAX: usize = 4096;

/// Fields of a configuration that are to change; what is absent stays. In JSON
/// null takes a limit away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfigChange {
    /// As in [`StreamConfig`].
    #[serde(deserialize_with = "present")]
    pub retention_ms: Option<Option<u64>>,
    #[serde(deserialize_with = "present")]
    /// As in [`StreamConfig`].
    pub retention_bytes: Option<Option<u64>>,
    #[serde(deserialize_with = "present")]
    /// As in [`StreamConfig`].
    pub chunk_target_bytes: Option<u64>,
    #[serde(deserialize_with = "present")]
    /// As in [`StreamConfig`].
    pub chunk_max_age_ms: Option<u64>,
    #[serde(deserialize_with = "present")]
    /// As in [`StreamConfig`].
    pub record_bytes_max: Option<u64>,
    #[serde(deserialize_with = "present")]
    /// As in [`StreamConfig`].
    pub cleanup_policy: Option<CleanupPolicy>,
    #[serde(deserialize_with = "present")]
    /// As in [`StreamConfig`].
    pub index: Option<ChunkIndex>,
    #[serde(deserialize_with = "present")]
    /// As in [`StreamConfig`].
    pub shred: Option<ChunkShred>,
    #[serde(deserialize_with = "present")]
    /// As in [`StreamConfig`].
    pub timestamp_type: Option<TimestampType>,
    #[serde(deserialize_with = "present")]
    /// As in [`StreamConfig`]; all of it.
    pub kafka: Option<BTreeMap<String, String>>,
}

/// A field that is there is `Some`, whatever it holds: null is not absence.
fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl StreamConfigChange {
    /// The configuration with the fields replaced.
    #[must_use]
    pub fn of(&self, config: &StreamConfig) -> StreamConfig {
        StreamConfig {
            retention_ms: self.retention_ms.unwrap_or(config.retention_ms),
            retention_bytes: self.retention_bytes.unwrap_or(config.retention_bytes),
            chunk_target_bytes: self.chunk_target_bytes.unwrap_or(config.chunk_target_bytes),
            chunk_max_age_ms: self.chunk_max_age_ms.unwrap_or(config.chunk_max_age_ms),
            record_bytes_max: self.record_bytes_max.unwrap_or(config.record_bytes_max),
            cleanup_policy: self.cleanup_policy.unwrap_or(config.cleanup_policy),
            index: self.index.unwrap_or(config.index),
            shred: self.shred.unwrap_or(config.shred),
            timestamp_type: self.timestamp_type.unwrap_or(config.timestamp_type),
            kafka: self.kafka.clone().unwrap_or_else(|| config.kafka.clone()),
        }
    }
}

impl From<StreamConfig> for StreamConfigChange {
    /// A change of every field.
    fn from(config: StreamConfig) -> Self {
        Self {
            retention_ms: Some(config.retention_ms),
            retention_bytes: Some(config.retention_bytes),
            chunk_target_bytes: Some(config.chunk_target_bytes),
            chunk_max_age_ms: Some(config.chunk_max_age_ms),
            record_bytes_max: Some(config.record_bytes_max),
            cleanup_policy: Some(config.cleanup_policy),
            index: Some(config.index),
            shred: Some(config.shred),
            timestamp_type: Some(config.timestamp_type),
            kafka: Some(config.kafka),
        }
    }
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            retention_ms: Some(7 * 24 * 3600 * 1000),
            retention_bytes: None,
            chunk_target_bytes: 64 << 20,
            chunk_max_age_ms: 60_000,
            record_bytes_max: 1 << 20,
            cleanup_policy: CleanupPolicy::Delete,
            index: ChunkIndex::Tokens,
            shred: ChunkShred::Fields,
            timestamp_type: TimestampType::Create,
            kafka: BTreeMap::new(),
        }
    }
}

impl StreamConfig {
    /// Checks every bound.
    ///
    /// # Errors
    /// [`ConfigError`] names the first field outside its bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let between = |field, value: u64, low: u64, high: u64, why| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError { field, value: value.to_string(), why })
            }
        };
        const MS_MAX: u64 = i64::MAX as u64 / 4;
        between(
            "retention_ms",
            self.retention_ms.unwrap_or(1),
            1,
            MS_MAX,
            "it is 1 or more, or null",
        )?;
        between(
            "retention_bytes",
            self.retention_bytes.unwrap_or(1),
            1,
            i64::MAX as u64,
            "it is 1 or more, or null",
        )?;
        between(
            "chunk_target_bytes",
            self.chunk_target_bytes,
            64 << 10,
            1 << 30,
            "it lies between 64 KiB and 1 GiB",
        )?;
        between("chunk_max_age_ms", self.chunk_max_age_ms, 100, MS_MAX, "it is at least 100")?;
        between(
            "record_bytes_max",
            self.record_bytes_max,
            1,
            64 << 20,
            "it lies between 1 B and 64 MiB",
        )?;
        for (name, value) in &self.kafka {
            let wrong = |value: &str, why| ConfigError {
                field: "kafka",
                value: value.chars().take(80).collect(),
                why,
            };
            if !KAFKA_SETTINGS.contains(&name.as_str()) {
                return Err(wrong(name, "it has settings that only Kafka's tools look at"));
            }
            if value.len() > KAFKA_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
                return Err(wrong(value, "a value has at most 4 KiB and no control characters"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_bounds_hold() {
        let config = StreamConfig::default();
        assert_eq!(config.validate(), Ok(()));
        for (bad, field) in [
            (StreamConfig { retention_ms: Some(0), ..config.clone() }, "retention_ms"),
            (StreamConfig { chunk_target_bytes: 1, ..config.clone() }, "chunk_target_bytes"),
            (StreamConfig { record_bytes_max: 65 << 20, ..config.clone() }, "record_bytes_max"),
            (
                StreamConfig {
                    kafka: [("retention.ms".to_owned(), "1".to_owned())].into(),
                    ..config.clone()
                },
                "kafka",
            ),
            (
                StreamConfig {
                    kafka: [("flush.ms".to_owned(), "1".repeat(4097))].into(),
                    ..config.clone()
                },
                "kafka",
            ),
        ] {
            assert_eq!(bad.validate().map_err(|e| e.field), Err(field));
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(serde_json::from_str::<StreamConfig>("{\"retention\":1}").is_err());
        assert_eq!(serde_json::from_str::<StreamConfig>("{}").ok(), Some(StreamConfig::default()));
    }
}
