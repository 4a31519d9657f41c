//! What each change does, and what opening and applying promise.

use std::time::{Duration, Instant};

use super::*;
use crate::{Applied, Check, Error, Snapshot};

/// Applies `changes` one position after the other and loads what is there.
fn load_after(changes: &[Change]) -> Snapshot {
    let mut catalog = Catalog::open_in_memory().unwrap();
    for (position, change) in changes.iter().enumerate() {
        catalog.apply(position as u64, std::slice::from_ref(change)).unwrap();
    }
    let mut snapshot = catalog.load().unwrap();
    snapshot.position = None;
    snapshot
}

#[test]
fn every_row_comes_back_after_a_restart() {
    let place = Place::new();
    let mut catalog = place.open();
    assert_eq!(catalog.apply(41, &sample()).unwrap(), Applied::Written);
    let before = catalog.load().unwrap();
    drop(catalog);

    let catalog = place.open();
    let after = catalog.load().unwrap();
    assert_eq!(after, before);
    assert_eq!(after.position, Some(41));
    let mut rows: Vec<Change> = Vec::new();
    rows.extend(after.streams.into_iter().map(Change::PutStream));
    rows.extend(after.partitions.into_iter().map(Change::PutPartition));
    rows.extend(after.chunks.into_iter().map(Change::PutChunk));
    rows.extend(after.garbage.into_iter().map(Change::AddGarbage));
    rows.extend(after.intents.into_iter().map(Change::PutIntent));
    rows.extend(after.tombstones.into_iter().map(Change::PutTombstone));
    rows.extend(after.meta.into_iter().map(Change::PutMeta));
    rows.extend(after.fields.into_iter().map(Change::PutField));
    assert_eq!(rows, sample());
    assert_eq!(catalog.integrity_check(Check::Full).unwrap(), []);
    assert_eq!(catalog.meta("cluster_id").unwrap().as_deref(), Some("b2c3"));
    assert_eq!(catalog.meta("nothing").unwrap(), None);
    let fields = catalog.fields(stream_id(1)).unwrap();
    assert_eq!(fields.len(), 2);
    assert_eq!(catalog.fields(stream_id(2)).unwrap(), []);
    catalog.close().unwrap();
}

#[test]
fn the_last_write_of_a_key_wins() {
    let mut renamed = stream(1, "renamed");
    renamed.partitions = 9;
    let mut reason = garbage("a", 9);
    reason.reason = garbage_reason::EXPIRED.to_owned();
    let mut indexed = chunk(1, 1, 2, 50);
    indexed.index_path = Some("x.index".to_owned());
    let mut moved = intent(1, 2, 3);
    moved.object_path = "elsewhere".to_owned();
    let snapshot = load_after(&[
        Change::PutStream(stream(1, "a")),
        Change::PutStream(renamed.clone()),
        Change::PutPartition(partition(1, 0, 1)),
        Change::PutPartition(partition(1, 0, 2)),
        Change::PutChunk(chunk(1, 1, 0, 0)),
        Change::PutChunk(indexed.clone()),
        Change::AddGarbage(garbage("a", 1)),
        Change::AddGarbage(reason.clone()),
        Change::PutIntent(intent(1, 1, 0)),
        Change::PutIntent(moved.clone()),
        Change::PutTombstone(tombstone(5, "a")),
        Change::PutTombstone(tombstone(5, "b")),
        Change::PutMeta(meta("k", "1")),
        Change::PutMeta(meta("k", "2")),
        Change::PutField(field(1, 0, "a")),
        Change::PutField(field(1, 0, "b")),
    ]);
    let wanted = Snapshot {
        position: None,
        streams: vec![renamed],
        partitions: vec![partition(1, 0, 2)],
        chunks: vec![indexed],
        garbage: vec![reason],
        intents: vec![moved],
        tombstones: vec![tombstone(5, "b")],
        meta: vec![meta("k", "2")],
        fields: vec![field(1, 0, "b")],
    };
    assert_eq!(snapshot, wanted);
}

#[test]
fn what_is_removed_is_gone_and_may_be_removed_again() {
    let mut changes = sample();
    let removals = [
        Change::RemoveStream(stream_id(1)),
        Change::RemoveChunk(chunk_id(1)),
        Change::RemoveGarbage("default/old.parquet".to_owned()),
        Change::RemoveIntent(chunk_id(9)),
        Change::RemoveTombstone(stream_id(8)),
    ];
    changes.extend(removals.iter().cloned());
    changes.extend(removals);
    let snapshot = load_after(&changes);
    let all = load_after(&sample());
    let wanted = Snapshot {
        position: None,
        streams: vec![stream(2, "größe-ログ")],
        partitions: vec![partition(2, 0, 0)],
        chunks: all.chunks.into_iter().skip(1).collect(),
        meta: all.meta,
        ..Snapshot::default()
    };
    assert_eq!(snapshot, wanted);
}

#[test]
fn a_name_belongs_to_the_stream_that_took_it_last() {
    let snapshot =
        load_after(&[Change::PutStream(stream(1, "audit")), Change::PutStream(stream(2, "audit"))]);
    assert_eq!(snapshot.streams, [stream(2, "audit")]);

    let mut other = stream(3, "audit");
    other.tenant = "other".to_owned();
    let snapshot =
        load_after(&[Change::PutStream(stream(1, "audit")), Change::PutStream(other.clone())]);
    assert_eq!(snapshot.streams, [stream(1, "audit"), other]);
}

#[test]
fn an_applied_position_is_not_applied_again() {
    let mut catalog = Catalog::open_in_memory().unwrap();
    assert_eq!(catalog.applied_position().unwrap(), None);
    let put = |value: &str| [Change::PutMeta(meta("k", value))];
    assert_eq!(catalog.apply(0, &put("0")).unwrap(), Applied::Written);
    assert_eq!(catalog.applied_position().unwrap(), Some(0));
    assert_eq!(catalog.apply(10, &put("10")).unwrap(), Applied::Written);
    for position in [0, 9, 10] {
        assert_eq!(catalog.apply(position, &put("x")).unwrap(), Applied::Already);
    }
    assert_eq!(catalog.meta("k").unwrap().as_deref(), Some("10"));
    assert_eq!(catalog.apply(12, &[]).unwrap(), Applied::Written);
    let greatest = i64::MAX as u64;
    assert_eq!(catalog.apply(greatest, &[]).unwrap(), Applied::Written);
    assert_eq!(catalog.applied_position().unwrap(), Some(greatest));
    let error = catalog.apply(greatest + 1, &[]).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }));
}

#[test]
fn changes_are_applied_together_or_not_at_all() {
    let mut beyond = chunk(1, 1, 0, 0);
    beyond.raw_bytes = u64::MAX;
    let mut backwards = chunk(1, 1, 0, 0);
    backwards.next_offset = backwards.base_offset;
    let mut negative = partition(1, 0, 0);
    negative.start_offset = -1;
    let mut long = stream(1, "long");
    long.config_json = "x".repeat(crate::cell::TEXT_BYTES_MAX + 1);
    let refused = [
        (Change::PutChunk(beyond), "raw_bytes"),
        (Change::PutChunk(backwards), "next_offset"),
        (Change::PutPartition(negative), "start_offset"),
        (Change::PutStream(long), "16777216"),
        (Change::PutMeta(meta("catalog.applied_position", "1")), "its own"),
    ];
    for (change, word) in refused {
        let mut catalog = Catalog::open_in_memory().unwrap();
        catalog.apply(1, &[]).unwrap();
        let before = catalog.load().unwrap();
        let mut changes = sample();
        changes.push(change);
        let error = catalog.apply(2, &changes).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(catalog.load().unwrap(), before);
        catalog.apply(2, &sample()).unwrap();
        assert_eq!(catalog.applied_position().unwrap(), Some(2));
    }
}

#[test]
fn a_full_file_refuses_and_goes_on_when_there_is_room() {
    let place = Place::new();
    let mut catalog = place.open();
    catalog.apply(1, &sample()).unwrap();
    let before = catalog.load().unwrap();
    let limit = |catalog: &Catalog, pages: i64| {
        let got: i64 = catalog
            .connection
            .pragma_update_and_check(None, "max_page_count", pages, |row| row.get(0))
            .unwrap();
        got
    };
    let full = limit(&catalog, 1);
    let many: Vec<Change> =
        (0..5_000).map(|number| Change::PutPartition(partition(1, number, 0))).collect();
    let error = catalog.apply(2, &many).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert_eq!(catalog.load().unwrap(), before);

    limit(&catalog, full + 10_000);
    assert_eq!(catalog.apply(2, &many).unwrap(), Applied::Written);
    assert_eq!(catalog.load().unwrap().partitions.len(), 5_001);
}

#[test]
fn a_held_file_is_busy() {
    let place = Place::new();
    let mut catalog = place.open();
    catalog.apply(1, &sample()).unwrap();
    let options = Options { busy_timeout_ms: 1, ..Options::default() };
    let error = Catalog::open(&place.file, options.clone()).unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error}");
    drop(catalog);
    Catalog::open(&place.file, options).unwrap();
}

#[test]
fn a_missing_or_empty_file_is_not_taken_for_a_new_catalog() {
    let place = Place::new();
    let existing = Options { create: false, ..Options::default() };
    let error = Catalog::open(&place.file, existing.clone()).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert!(!place.file.exists());
    std::fs::write(&place.file, b"").unwrap();
    let error = Catalog::open(&place.file, existing.clone()).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    place.open().close().unwrap();
    Catalog::open(&place.file, existing).unwrap();
}

#[test]
fn a_newer_file_is_refused_and_left_alone() {
    let place = Place::new();
    let mut catalog = place.open();
    catalog.apply(1, &sample()).unwrap();
    catalog.connection.execute("INSERT INTO schema_version VALUES (99, 'later')", ()).unwrap();
    drop(catalog);
    let before = std::fs::read(&place.file).unwrap();
    let error = Catalog::open(&place.file, Options::default()).unwrap_err();
    assert!(matches!(error, Error::Version { .. }));
    let Error::Version { found, known, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!((*found, *known), (99, crate::SCHEMA_VERSION));
    assert!(error.to_string().contains("start the newer program"));
    assert_eq!(std::fs::read(&place.file).unwrap(), before);
}

#[test]
fn ten_thousand_partitions_apply_and_load_quickly() {
    let place = Place::new();
    let mut catalog = place.open();
    let mut wide = stream(1, "wide");
    wide.partitions = 10_000;
    let mut changes = vec![Change::PutStream(wide)];
    changes.extend((0..10_000).map(|number| Change::PutPartition(partition(1, number, 0))));
    // Unoptimised and on a shared machine; a statement prepared each time or a
    // transaction a row would take many times this.
    let bound = Duration::from_secs(2);

    let start = Instant::now();
    catalog.apply(1, &changes).unwrap();
    let inserted = start.elapsed();
    let start = Instant::now();
    catalog.apply(2, &changes).unwrap();
    let updated = start.elapsed();
    let start = Instant::now();
    let snapshot = catalog.load().unwrap();
    let loaded = start.elapsed();
    assert_eq!(snapshot.partitions.len(), 10_000);
    for took in [inserted, updated, loaded] {
        assert!(took < bound, "{inserted:?} {updated:?} {loaded:?}");
    }
}

#[test]
fn a_catalog_moves_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Catalog>();
    is_send::<Error>();
}

#[test]
fn commits_are_synced_through_a_write_ahead_log() {
    let place = Place::new();
    let catalog = place.open();
    let pragma = |name: &str| -> String {
        catalog
            .connection
            .pragma_query_value(None, name, |row| {
                Ok(match row.get_ref(0)? {
                    rusqlite::types::ValueRef::Integer(value) => value.to_string(),
                    other => other.as_str()?.to_owned(),
                })
            })
            .unwrap()
    };
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("synchronous"), "2");
    assert_eq!(pragma("foreign_keys"), "1");
    assert_eq!(pragma("busy_timeout"), "5000");
    assert_eq!(pragma("locking_mode"), "exclusive");
}

#[test]
fn errors_say_what_to_do() {
    use aquifer_types::ErrorKind;
    use rusqlite::ffi;

    let path = PathBuf::from("c");
    let of = |code| {
        let source = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        Error::from_sqlite(&path, source).kind()
    };
    assert_eq!(of(ffi::SQLITE_BUSY), ErrorKind::Unavailable);
    assert_eq!(of(ffi::SQLITE_LOCKED), ErrorKind::Unavailable);
    assert_eq!(of(ffi::SQLITE_IOERR_FSYNC), ErrorKind::Unavailable);
    assert_eq!(of(ffi::SQLITE_FULL), ErrorKind::StorageFull);
    assert_eq!(of(ffi::SQLITE_CORRUPT), ErrorKind::Damaged);
    assert_eq!(of(ffi::SQLITE_NOTADB), ErrorKind::Damaged);
    assert_eq!(of(ffi::SQLITE_IOERR_SHORT_READ), ErrorKind::Damaged);
    assert_eq!(of(ffi::SQLITE_CONSTRAINT_CHECK), ErrorKind::Internal);
    let missing = Error::Missing { path: path.clone() };
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let (found, known) = (2, 1);
    let newer = Error::Version { path, found, known };
    assert_eq!(newer.kind(), ErrorKind::Unsupported);
}
