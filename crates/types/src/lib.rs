//! The nouns that every layer of Aquifer speaks in: names, offsets, epochs,
//! batches and records, stream configuration and kinds of errors.
//!
//! Nothing here does I/O, knows a clock or is asynchronous. What arrives from
//! outside is bounded and checked here once, so that the layers above handle
//! values that cannot be malformed.

pub mod batch;
pub mod config;
mod declared;
mod error;
mod ids;
mod json_schema;
mod murmur2;
mod name;
mod numbers;
mod record;
mod record_json;
mod schema;

pub use batch::{
    Batch, BatchBuilder, BatchError, BatchHeader, BatchLimits, BatchRules, Compression, Marker,
};
pub use config::{
    ChunkIndex, ChunkShred, CleanupPolicy, ConfigError, KAFKA_SETTINGS, KAFKA_VALUE_BYTES_MAX,
    StreamClass, StreamConfig, StreamConfigChange, TimestampType,
};
pub use declared::DeclareError;
pub use error::ErrorKind;
pub use ids::{ChunkId, CommitId, Partition, StreamId};
pub use json_schema::{JSON_SCHEMA_BYTES_MAX, JsonSchemaError, fields_of_json_schema};
pub use murmur2::{murmur2, partition_for_key};
pub use name::{
    GroupName, LeaseName, NameError, StreamName, StreamPath, TenantName, TransactionalId,
};
pub use numbers::{
    Epoch, GroupSequence, LeaseToken, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence,
    Timestamp,
};
pub use record::{Header, NewRecord, Record};
pub use record_json::write_record_json;
pub use schema::{
    FIELD_ID_MIN, FIELD_NAME_BYTES_MAX, FieldKind, NewField, SCHEMA_DEPTH_MAX, SCHEMA_FIELDS_MAX,
    SchemaError, SchemaField, StreamSchema,
};

/// The largest number of partitions that a stream may have.
pub const PARTITIONS_MAX: u32 = 10_000;
