//! The rows of the catalog, and the changes that are made to them.
//!
//! Times are milliseconds since the Unix epoch, sizes are bytes, offsets are
//! those of the partition. A text holds at most 16 MiB, and should hold no NUL:
//! SQLite keeps it, PostgreSQL will refuse it. A count or size is at most `i64::MAX`.

use std::fmt::Display;

use uuid::Uuid;

use crate::cell::{Cell, Cells, Record};
use crate::statement::Statement;

/// A stream: key `stream_id`; `(tenant, name)` is unique among living streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamRow {
    /// The stream, for ever.
    pub stream_id: Uuid,
    /// The tenant's name.
    pub tenant: String,
    /// The stream's name within its tenant.
    pub name: String,
    /// How many partitions it has, at least 1.
    pub partitions: i32,
    /// The name of its service class.
    pub class: String,
    /// Its configuration, a JSON object that the catalog does not look into.
    pub config_json: String,
    /// When it was created.
    pub created_ms: i64,
    /// The epoch at which its row last changed, from the server-wide counter.
    pub epoch: i64,
}

/// A partition: key `(stream_id, partition)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRow {
    /// Its stream.
    pub stream_id: Uuid,
    /// Its number in the stream, from 0.
    pub partition: i32,
    /// The first offset that may be read.
    pub start_offset: i64,
    /// The first offset that is not yet in a chunk.
    pub tiered_offset: i64,
    /// Its epoch, from the server-wide counter.
    pub epoch: i64,
}

/// A live chunk: key `chunk_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRow {
    /// The chunk, for ever.
    pub chunk_id: Uuid,
    /// Its stream.
    pub stream_id: Uuid,
    /// Its partition's number.
    pub partition: i32,
    /// The first offset of its covered range.
    pub base_offset: i64,
    /// The first offset behind its covered range, above `base_offset`.
    pub next_offset: i64,
    /// The Parquet object, relative to tier 2.
    pub object_path: String,
    /// The object's size.
    pub object_bytes: u64,
    /// How many records it has; 0 if its range holds none any more.
    pub record_count: u64,
    /// What its records had before encoding.
    pub raw_bytes: u64,
    /// The least record timestamp, none without records.
    pub min_timestamp: Option<i64>,
    /// The greatest record timestamp, none without records.
    pub max_timestamp: Option<i64>,
    /// When the last record of its range was appended.
    pub max_appended: i64,
    /// How often its records were compacted, from 0.
    pub generation: u32,
    /// The version of the stream's schema that it was written with.
    pub schema_version: u32,
    /// The object's checksum, as `<algorithm>:<hex>`.
    pub checksum: String,
    /// What else a reader needs (epochs, what it replaces), a JSON object that
    /// the catalog does not look into.
    pub metadata_json: String,
    /// Its index sidecar, relative to tier 2, once there is one.
    pub index_path: Option<String>,
    /// The sidecar's size, where it is known.
    pub index_bytes: Option<u64>,
    /// The key that its data key is sealed with, if it is encrypted.
    pub key_id: Option<String>,
}

/// An object to be deleted: key `object_path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GarbageRow {
    /// The object, relative to tier 2.
    pub object_path: String,
    /// Why, for people: one of [`garbage_reason`].
    pub reason: String,
    /// Since when nobody needs it but readers that already hold it.
    pub since_ms: i64,
    /// When it may be deleted.
    pub due_ms: i64,
}

/// Why an object is garbage.
pub mod garbage_reason {
    /// Compaction wrote its records anew.
    pub const REPLACED: &str = "replaced";
    /// The stream was truncated behind it.
    pub const TRUNCATED: &str = "truncated";
    /// Its age or the stream's size passed the retention.
    pub const EXPIRED: &str = "expired";
    /// Its stream was deleted.
    pub const STREAM_DELETED: &str = "stream deleted";
    /// Its upload was never committed.
    pub const ABANDONED: &str = "abandoned";

    /// The reason of a row; what a newer program wrote is `other`.
    #[must_use]
    pub fn known(reason: &str) -> &'static str {
        let all = [REPLACED, TRUNCATED, EXPIRED, STREAM_DELETED, ABANDONED];
        all.into_iter().find(|known| *known == reason).unwrap_or("other")
    }
}

/// An upload under way: key `chunk_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntentRow {
    /// The chunk to be.
    pub chunk_id: Uuid,
    /// Its stream.
    pub stream_id: Uuid,
    /// Its partition's number.
    pub partition: i32,
    /// The object that is being written, relative to tier 2.
    pub object_path: String,
    /// When the upload was begun.
    pub created_ms: i64,
}

/// A deleted stream: key `stream_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TombstoneRow {
    /// The stream that was.
    pub stream_id: Uuid,
    /// Its tenant's name.
    pub tenant: String,
    /// The name that it had.
    pub name: String,
    /// When it was deleted.
    pub deleted_ms: i64,
}

/// A named value of the server: key `key`. Keys that begin with `catalog.`
/// belong to the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetaRow {
    /// The name.
    pub key: String,
    /// The value, as text.
    pub value: String,
}

/// A field of a stream's append-only schema: key `(stream_id, field_id)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRow {
    /// The stream.
    pub stream_id: Uuid,
    /// The field's id in every chunk of the stream, from 0.
    pub field_id: i32,
    /// Where the field is in a record's value.
    pub path: String,
    /// Its type's name.
    pub field_type: String,
    /// The version of the stream's schema that brought it.
    pub since: u32,
}

/// One change of the catalog: a write of one key, the last one wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds or replaces a stream; another stream of that name gives it up.
    PutStream(StreamRow),
    /// Removes a stream with its partitions and fields. Its chunks and intents
    /// stay until each is removed, so that no object is forgotten and a large
    /// stream can go in several steps.
    RemoveStream(Uuid),
    /// Adds or replaces a partition.
    PutPartition(PartitionRow),
    /// Adds or replaces a chunk.
    PutChunk(ChunkRow),
    /// Removes a chunk; its objects become garbage only by `AddGarbage`.
    RemoveChunk(Uuid),
    /// Adds or replaces an object to delete.
    AddGarbage(GarbageRow),
    /// Forgets an object, by path: it is deleted.
    RemoveGarbage(String),
    /// Adds or replaces an upload under way.
    PutIntent(IntentRow),
    /// Removes an upload, by chunk: it was committed or given up.
    RemoveIntent(Uuid),
    /// Adds or replaces a deleted stream.
    PutTombstone(TombstoneRow),
    /// Forgets a deleted stream.
    RemoveTombstone(Uuid),
    /// Adds or replaces a named value.
    PutMeta(MetaRow),
    /// Adds or replaces a field of a schema.
    PutField(FieldRow),
}

/// All rows, each list in the order of its key, chunks in the order of
/// stream, partition and base offset, garbage as it falls due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The position of the journal that the rows stand at.
    pub position: Option<u64>,
    /// Living streams.
    pub streams: Vec<StreamRow>,
    /// Their partitions.
    pub partitions: Vec<PartitionRow>,
    /// Live chunks.
    pub chunks: Vec<ChunkRow>,
    /// Objects to delete.
    pub garbage: Vec<GarbageRow>,
    /// Uploads under way.
    pub intents: Vec<IntentRow>,
    /// Deleted streams.
    pub tombstones: Vec<TombstoneRow>,
    /// Named values, but for the catalog's own.
    pub meta: Vec<MetaRow>,
    /// Fields of schemas.
    pub fields: Vec<FieldRow>,
}

/// A size or count as the table holds it.
fn count<'a>(name: &str, of: impl Display, value: u64) -> Result<Cell<'a>, String> {
    i64::try_from(value)
        .map(Cell::Integer)
        .map_err(|_| format!("{name} {value} of {of}, the most is {}", i64::MAX))
}

fn integer_or_null<'a>(value: Option<i64>) -> Cell<'a> {
    value.map_or(Cell::Null, Cell::Integer)
}

fn text_or_null(value: &Option<String>) -> Cell<'_> {
    value.as_deref().map_or(Cell::Null, Cell::Text)
}

impl Record for StreamRow {
    const TABLE: &'static str = "streams";
    const KEY_COLUMNS: usize = 1;
    const PUT: Statement = Statement::PutStream;
    const ALL: Statement = Statement::AllStreams;

    fn cells(&self) -> Result<Vec<Cell<'_>>, String> {
        Ok(vec![
            Cell::Id(self.stream_id),
            Cell::Text(&self.tenant),
            Cell::Text(&self.name),
            Cell::Integer(self.partitions.into()),
            Cell::Text(&self.class),
            Cell::Text(&self.config_json),
            Cell::Integer(self.created_ms),
            Cell::Integer(self.epoch),
        ])
    }

    fn from_cells(cells: &mut Cells<'_, '_>) -> Result<Self, String> {
        Ok(Self {
            stream_id: cells.id()?,
            tenant: cells.text()?,
            name: cells.text()?,
            partitions: cells.number()?,
            class: cells.text()?,
            config_json: cells.text()?,
            created_ms: cells.integer()?,
            epoch: cells.integer()?,
        })
    }
}

impl Record for PartitionRow {
    const TABLE: &'static str = "partitions";
    const KEY_COLUMNS: usize = 2;
    const PUT: Statement = Statement::PutPartition;
    const ALL: Statement = Statement::AllPartitions;

    fn cells(&self) -> Result<Vec<Cell<'_>>, String> {
        Ok(vec![
            Cell::Id(self.stream_id),
            Cell::Integer(self.partition.into()),
            Cell::Integer(self.start_offset),
            Cell::Integer(self.tiered_offset),
            Cell::Integer(self.epoch),
        ])
    }

    fn from_cells(cells: &mut Cells<'_, '_>) -> Result<Self, String> {
        Ok(Self {
            stream_id: cells.id()?,
            partition: cells.number()?,
            start_offset: cells.integer()?,
            tiered_offset: cells.integer()?,
            epoch: cells.integer()?,
        })
    }
}

impl Record for ChunkRow {
    const TABLE: &'static str = "chunks";
    const KEY_COLUMNS: usize = 1;
    const PUT: Statement = Statement::PutChunk;
    const ALL: Statement = Statement::AllChunks;

    fn cells(&self) -> Result<Vec<Cell<'_>>, String> {
        let of = format_args!("chunk {}", self.chunk_id);
        Ok(vec![
            Cell::Id(self.chunk_id),
            Cell::Id(self.stream_id),
            Cell::Integer(self.partition.into()),
            Cell::Integer(self.base_offset),
            Cell::Integer(self.next_offset),
            Cell::Text(&self.object_path),
            count("object_bytes", of, self.object_bytes)?,
            count("record_count", of, self.record_count)?,
            count("raw_bytes", of, self.raw_bytes)?,
            integer_or_null(self.min_timestamp),
            integer_or_null(self.max_timestamp),
            Cell::Integer(self.max_appended),
            Cell::Integer(self.generation.into()),
            Cell::Integer(self.schema_version.into()),
            Cell::Text(&self.checksum),
            Cell::Text(&self.metadata_json),
            text_or_null(&self.index_path),
            match self.index_bytes {
                None => Cell::Null,
                Some(bytes) => count("index_bytes", of, bytes)?,
            },
            text_or_null(&self.key_id),
        ])
    }

    fn from_cells(cells: &mut Cells<'_, '_>) -> Result<Self, String> {
        Ok(Self {
            chunk_id: cells.id()?,
            stream_id: cells.id()?,
            partition: cells.number()?,
            base_offset: cells.integer()?,
            next_offset: cells.integer()?,
            object_path: cells.text()?,
            object_bytes: cells.number()?,
            record_count: cells.number()?,
            raw_bytes: cells.number()?,
            min_timestamp: cells.integer_or_null()?,
            max_timestamp: cells.integer_or_null()?,
            max_appended: cells.integer()?,
            generation: cells.number()?,
            schema_version: cells.number()?,
            checksum: cells.text()?,
            metadata_json: cells.text()?,
            index_path: cells.text_or_null()?,
            index_bytes: cells.number_or_null()?,
            key_id: cells.text_or_null()?,
        })
    }
}

impl Record for GarbageRow {
    const TABLE: &'static str = "garbage";
    const KEY_COLUMNS: usize = 1;
    const PUT: Statement = Statement::AddGarbage;
    const ALL: Statement = Statement::AllGarbage;

    fn cells(&self) -> Result<Vec<Cell<'_>>, String> {
        Ok(vec![
            Cell::Text(&self.object_path),
            Cell::Text(&self.reason),
            Cell::Integer(self.since_ms),
            Cell::Integer(self.due_ms),
        ])
    }

    fn from_cells(cells: &mut Cells<'_, '_>) -> Result<Self, String> {
        Ok(Self {
            object_path: cells.text()?,
            reason: cells.text()?,
            since_ms: cells.integer()?,
            due_ms: cells.integer()?,
        })
    }
}

impl Record for IntentRow {
    const TABLE: &'static str = "intents";
    const KEY_COLUMNS: usize = 1;
    const PUT: Statement = Statement::PutIntent;
    const ALL: Statement = Statement::AllIntents;

    fn cells(&self) -> Result<Vec<Cell<'_>>, String> {
        Ok(vec![
            Cell::Id(self.chunk_id),
            Cell::Id(self.stream_id),
            Cell::Integer(self.partition.into()),
            Cell::Text(&self.object_path),
            Cell::Integer(self.created_ms),
        ])
    }

    fn from_cells(cells: &mut Cells<'_, '_>) -> Result<Self, String> {
        Ok(Self {
            chunk_id: cells.id()?,
            stream_id: cells.id()?,
            partition: cells.number()?,
            object_path: cells.text()?,
            created_ms: cells.integer()?,
        })
    }
}

impl Record for TombstoneRow {
    const TABLE: &'static str = "tombstones";
    const KEY_COLUMNS: usize = 1;
    const PUT: Statement = Statement::PutTombstone;
    const ALL: Statement = Statement::AllTombstones;

    fn cells(&self) -> Result<Vec<Cell<'_>>, String> {
        Ok(vec![
            Cell::Id(self.stream_id),
            Cell::Text(&self.tenant),
            Cell::Text(&self.name),
            Cell::Integer(self.deleted_ms),
        ])
    }

    fn from_cells(cells: &mut Cells<'_, '_>) -> Result<Self, String> {
        Ok(Self {
            stream_id: cells.id()?,
            tenant: cells.text()?,
            name: cells.text()?,
            deleted_ms: cells.integer()?,
        })
    }
}

impl Record for MetaRow {
    const TABLE: &'static str = "meta";
    const KEY_COLUMNS: usize = 1;
    const PUT: Statement = Statement::PutMeta;
    const ALL: Statement = Statement::AllMeta;

    fn cells(&self) -> Result<Vec<Cell<'_>>, String> {
        Ok(vec![Cell::Text(&self.key), Cell::Text(&self.value)])
    }

    fn from_cells(cells: &mut Cells<'_, '_>) -> Result<Self, String> {
        Ok(Self { key: cells.text()?, value: cells.text()? })
    }
}

impl Record for FieldRow {
    const TABLE: &'static str = "fields";
    const KEY_COLUMNS: usize = 2;
    const PUT: Statement = Statement::PutField;
    const ALL: Statement = Statement::AllFields;

    fn cells(&self) -> Result<Vec<Cell<'_>>, String> {
        Ok(vec![
            Cell::Id(self.stream_id),
            Cell::Integer(self.field_id.into()),
            Cell::Text(&self.path),
            Cell::Text(&self.field_type),
            Cell::Integer(self.since.into()),
        ])
    }

    fn from_cells(cells: &mut Cells<'_, '_>) -> Result<Self, String> {
        Ok(Self {
            stream_id: cells.id()?,
            field_id: cells.number()?,
            path: cells.text()?,
            field_type: cells.text()?,
            since: cells.number()?,
        })
    }
}
