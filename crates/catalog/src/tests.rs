//! Tests of the whole crate against SQLite, with real files where they matter.
//!
//! `UPDATE_GOLDEN=1` writes the golden files instead of comparing with them.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "tests stop at the first surprise and damage real files"
)]

mod change;
mod damage;
mod golden;
mod replay;

use std::path::PathBuf;

use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    Catalog, Change, ChunkRow, FieldRow, GarbageRow, IntentRow, MetaRow, Options, PartitionRow,
    StreamRow, TombstoneRow, garbage_reason,
};

/// A directory with the place of a catalog in it.
struct Place {
    _directory: TempDir,
    file: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("catalog.db");
        Self { _directory: directory, file }
    }

    fn open(&self) -> Catalog {
        Catalog::open(&self.file, Options::default()).unwrap()
    }
}

fn stream_id(number: u128) -> Uuid {
    Uuid::from_u128(0x51_0000 + number)
}

fn chunk_id(number: u128) -> Uuid {
    Uuid::from_u128(0xc4_0000 + number)
}

fn stream(number: u128, name: &str) -> StreamRow {
    StreamRow {
        stream_id: stream_id(number),
        tenant: "default".to_owned(),
        name: name.to_owned(),
        partitions: 4,
        class: "durable".to_owned(),
        config_json: r#"{"retention_ms":86400000}"#.to_owned(),
        created_ms: 1_700_000_000_000,
        epoch: 7,
    }
}

fn partition(stream: u128, partition: i32, tiered_offset: i64) -> PartitionRow {
    PartitionRow {
        stream_id: stream_id(stream),
        partition,
        start_offset: 0,
        tiered_offset,
        epoch: 7,
    }
}

fn chunk(number: u128, stream: u128, partition: i32, base_offset: i64) -> ChunkRow {
    ChunkRow {
        chunk_id: chunk_id(number),
        stream_id: stream_id(stream),
        partition,
        base_offset,
        next_offset: base_offset + 100,
        object_path: format!(
            "default/audit-{}/p{partition}/{base_offset:020}-{}.parquet",
            stream_id(stream),
            chunk_id(number)
        ),
        object_bytes: 4_096,
        record_count: 98,
        raw_bytes: 20_000,
        min_timestamp: Some(-5),
        max_timestamp: Some(1_700_000_000_500),
        max_appended: 1_700_000_000_600,
        generation: 0,
        schema_version: 3,
        checksum: "crc32c:0badcafe".to_owned(),
        metadata_json: r#"{"epochs":[[7,0]]}"#.to_owned(),
        index_path: None,
        index_bytes: None,
        key_id: None,
    }
}

fn garbage(object_path: &str, due_ms: i64) -> GarbageRow {
    GarbageRow {
        object_path: object_path.to_owned(),
        reason: garbage_reason::REPLACED.to_owned(),
        since_ms: due_ms - 60_000,
        due_ms,
    }
}

fn intent(number: u128, stream: u128, partition: i32) -> IntentRow {
    IntentRow {
        chunk_id: chunk_id(number),
        stream_id: stream_id(stream),
        partition,
        object_path: format!("default/upload-{number}.parquet"),
        created_ms: 1_700_000_001_000,
    }
}

fn tombstone(number: u128, name: &str) -> TombstoneRow {
    TombstoneRow {
        stream_id: stream_id(number),
        tenant: "default".to_owned(),
        name: name.to_owned(),
        deleted_ms: 1_700_000_002_000,
    }
}

fn meta(key: &str, value: &str) -> MetaRow {
    MetaRow { key: key.to_owned(), value: value.to_owned() }
}

fn field(stream: u128, field_id: i32, path: &str) -> FieldRow {
    FieldRow {
        stream_id: stream_id(stream),
        field_id,
        path: path.to_owned(),
        field_type: "utf8".to_owned(),
        since: 3,
    }
}

/// Changes that leave a sound catalog with at least one row in every table,
/// nulls and non-ASCII text among them.
fn sample() -> Vec<Change> {
    let mut full = chunk(2, 1, 0, 100);
    full.index_path = Some("default/audit/x.index".to_owned());
    full.index_bytes = Some(512);
    full.key_id = Some("vault:transit/aquifer#3".to_owned());
    full.generation = 2;
    let mut empty = chunk(3, 1, 1, 0);
    empty.record_count = 0;
    empty.min_timestamp = None;
    empty.max_timestamp = None;
    vec![
        Change::PutStream(stream(1, "audit")),
        Change::PutStream(stream(2, "größe-ログ")),
        Change::PutPartition(partition(1, 0, 200)),
        Change::PutPartition(partition(1, 1, 100)),
        Change::PutPartition(partition(2, 0, 0)),
        Change::PutChunk(chunk(1, 1, 0, 0)),
        Change::PutChunk(full),
        Change::PutChunk(empty),
        Change::AddGarbage(garbage("default/old.parquet", 5_000_000)),
        Change::PutIntent(intent(9, 2, 0)),
        Change::PutTombstone(tombstone(8, "gone")),
        Change::PutMeta(meta("cluster_id", "b2c3")),
        Change::PutMeta(meta("next_epoch", "8")),
        Change::PutField(field(1, 0, "user.username")),
        Change::PutField(field(1, 1, "verb")),
    ]
}
