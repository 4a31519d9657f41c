//! Damaged files: found, named, never loaded as if they were whole.

use std::io::{Read, Seek, SeekFrom, Write};

use super::*;
use crate::{Check, Error, Snapshot};

/// A closed catalog with the sample in it, and what it loads as.
fn written() -> (Place, Snapshot) {
    let place = Place::new();
    let mut catalog = place.open();
    catalog.apply(1, &sample()).unwrap();
    let snapshot = catalog.load().unwrap();
    catalog.close().unwrap();
    (place, snapshot)
}

/// Opens, checks fully and loads.
fn read(place: &Place) -> crate::Result<(Vec<crate::Finding>, Snapshot)> {
    let catalog = Catalog::open(&place.file, Options::default())?;
    Ok((catalog.integrity_check(Check::Full)?, catalog.load()?))
}

#[test]
fn what_is_no_catalog_is_refused() {
    let place = Place::new();
    std::fs::write(&place.file, "this is not a database at all".repeat(200)).unwrap();
    let error = Catalog::open(&place.file, Options::default()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");

    let place = Place::new();
    let foreign = rusqlite::Connection::open(&place.file).unwrap();
    foreign.execute_batch("CREATE TABLE a (b)").unwrap();
    drop(foreign);
    let error = Catalog::open(&place.file, Options::default()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("not a catalog"), "{error}");
}

#[test]
fn a_truncated_file_is_corrupt() {
    let (place, _) = written();
    let length = std::fs::metadata(&place.file).unwrap().len();
    for kept in [100, 4_096, length / 2, length - 4_096] {
        let (place, _) = written();
        let file = std::fs::File::options().write(true).open(&place.file).unwrap();
        file.set_len(kept).unwrap();
        let error = read(&place).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{kept}: {error}");
    }
}

#[test]
fn a_flipped_bit_is_found_or_harmless() {
    let (place, wanted) = written();
    let length = std::fs::metadata(&place.file).unwrap().len();
    let mut file = std::fs::File::options().read(true).write(true).open(&place.file).unwrap();
    let mut found = 0;
    let mut harmless = 0;
    // A stride that meets every page at other places, and every bit number.
    for (turn, position) in (0..length).step_by(61).enumerate() {
        let mut byte = [0];
        file.seek(SeekFrom::Start(position)).unwrap();
        file.read_exact(&mut byte).unwrap();
        if byte == [0] && turn % 8 != 0 {
            // Most of a small catalog is free space; some of it is enough.
            continue;
        }
        let flipped = [byte[0] ^ (1 << (turn % 8))];
        file.seek(SeekFrom::Start(position)).unwrap();
        file.write_all(&flipped).unwrap();
        match read(&place) {
            Ok((findings, snapshot)) if findings.is_empty() => {
                assert_eq!(snapshot, wanted, "byte {position}");
                harmless += 1;
            }
            Ok(_) => found += 1,
            Err(error) => {
                let named = matches!(error, Error::Corrupt { .. } | Error::Version { .. });
                assert!(named, "byte {position}: {error:?}");
                found += 1;
            }
        }
        file.seek(SeekFrom::Start(position)).unwrap();
        file.write_all(&byte).unwrap();
    }
    assert!(found > 50, "{found} found");
    assert!(harmless > 50, "{harmless} harmless");
}

#[test]
fn a_crash_leaves_a_whole_earlier_state() {
    // What is in the file and its write-ahead log while the catalog is open is
    // what a killed process leaves; a torn log is any prefix of it.
    let place = Place::new();
    let mut catalog = place.open();
    let mut states = vec![catalog.load().unwrap()];
    for (position, change) in sample().into_iter().enumerate() {
        catalog.apply(position as u64, &[change]).unwrap();
        states.push(catalog.load().unwrap());
        if position == 5 {
            catalog.checkpoint().unwrap();
        }
    }
    let file = std::fs::read(&place.file).unwrap();
    let log = std::fs::read(log_of(&place)).unwrap();
    let mut seen = Vec::new();
    let mut reopen = |log: &[u8]| {
        let crashed = Place::new();
        std::fs::write(&crashed.file, &file).unwrap();
        std::fs::write(log_of(&crashed), log).unwrap();
        let (findings, snapshot) = read(&crashed).unwrap();
        let state = states.iter().position(|state| *state == snapshot);
        let state = state.expect("a state that was never applied");
        // Rows that refer to later ones aside, which a prefix may lack.
        assert!(findings.iter().all(|finding| finding.place != "pages"));
        assert!(state >= 6, "what was checkpointed is gone: {state}");
        seen.push(state);
        state
    };
    for cut in (0..log.len()).step_by(1_031) {
        reopen(&log[..cut]);
    }
    for position in (0..log.len()).step_by(1_031) {
        let mut damaged = log.clone();
        damaged[position] ^= 0x10;
        reopen(&damaged);
    }
    assert_eq!(reopen(&log), sample().len());
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (6..=sample().len()).collect::<Vec<_>>());
}

fn log_of(place: &Place) -> PathBuf {
    place.file.with_extension("db-wal")
}

#[test]
fn a_changed_value_is_found_by_its_checksum() {
    let changed = [
        ("UPDATE partitions SET tiered_offset = 201", "partitions"),
        ("UPDATE chunks SET max_timestamp = NULL", "chunks"),
        ("UPDATE streams SET tenant = 'defaulu'", "streams"),
        ("UPDATE garbage SET due_ms = 0", "garbage"),
        ("UPDATE intents SET object_path = 'x'", "intents"),
        ("UPDATE tombstones SET deleted_ms = 0", "tombstones"),
        ("UPDATE meta SET value = '2'", "meta"),
        ("UPDATE fields SET type = 'int'", "fields"),
        // A key's parts in each other's place.
        ("UPDATE streams SET tenant = name, name = tenant", "streams"),
    ];
    for (statement, table) in changed {
        let mut catalog = Catalog::open_in_memory().unwrap();
        catalog.apply(1, &sample()).unwrap();
        catalog.connection.execute(statement, ()).unwrap();
        let findings = catalog.integrity_check(Check::Full).unwrap();
        assert!(
            findings.iter().any(|finding| finding.place == table
                && finding.what.contains("checksum does not match")),
            "{statement}: {findings:?}"
        );
        let error = catalog.load().unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(table), "{error}");
    }
}

#[test]
fn a_changed_schema_is_found() {
    let (place, _) = written();
    let other = rusqlite::Connection::open(&place.file).unwrap();
    other.execute_batch("DROP INDEX garbage_by_due").unwrap();
    drop(other);
    let error = Catalog::open(&place.file, Options::default()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }));
    assert!(error.to_string().contains("garbage_by_due"), "{error}");
}

/// Applies changes that the ledger should never have made to the sample.
fn check(changes: &[Change], wanted: &[&str]) {
    let mut catalog = Catalog::open_in_memory().unwrap();
    catalog.apply(1, &sample()).unwrap();
    catalog.apply(2, changes).unwrap();
    let findings = catalog.integrity_check(Check::Full).unwrap();
    let places: Vec<_> = findings.iter().map(|finding| finding.place).collect();
    assert_eq!(places, wanted, "{findings:#?}");
    assert_eq!(catalog.integrity_check(Check::Quick).unwrap(), []);
}

#[test]
fn references_are_followed() {
    check(&[], &[]);
    check(&[Change::PutPartition(partition(1, 4, 0))], &["partitions"]);
    check(&[Change::PutPartition(partition(7, 0, 0))], &["partitions"]);
    check(&[Change::PutField(field(7, 0, "a"))], &["fields"]);
    check(&[Change::PutIntent(intent(5, 7, 0))], &["intents"]);
    check(&[Change::PutChunk(chunk(5, 7, 0, 0))], &["chunks"]);
    // What a deleted stream leaves behind is still to be collected.
    check(&[Change::PutIntent(intent(5, 8, 0))], &[]);
    check(&[Change::PutChunk(chunk(5, 8, 0, 0))], &[]);
    check(&[Change::PutTombstone(tombstone(2, "alive"))], &["tombstones"]);
    // A gap, an overlap, and an end that is not the tiered offset.
    check(&[Change::PutChunk(chunk(2, 1, 0, 101))], &["chunks", "partitions"]);
    check(&[Change::PutChunk(chunk(5, 1, 0, 50))], &["chunks", "chunks"]);
    check(&[Change::PutPartition(partition(1, 1, 99))], &["partitions"]);
    check(&[Change::RemoveChunk(chunk_id(1))], &[]);
    let live = chunk(1, 1, 0, 0).object_path;
    check(&[Change::AddGarbage(garbage(&live, 0))], &["garbage"]);
    let mut twin = chunk(5, 1, 0, 200);
    twin.object_path = live;
    check(&[Change::PutChunk(twin), Change::PutPartition(partition(1, 0, 300))], &["chunks"]);
}
