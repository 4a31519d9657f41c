//! What the keeper, a start and the index keep, and say of it.

use std::sync::Arc;
use std::time::Duration;

use aquifer_catalog::{Catalog, Change, Options as CatalogOptions, garbage_reason};
use aquifer_env::{Clock, CrashChoice, Disk, FaultyDisk, MockClock};
use aquifer_types::{
    ChunkId, Offset, Partition, PartitionIndex, StreamClass, StreamConfig, StreamId, Timestamp,
};
use uuid::Uuid;

use super::driver::{Driver, options};
use super::script::{batch, chunk_of, one, path};
use crate::Error;
use crate::api::NewStream;
use crate::index::Index;
use crate::ledger::event::{Event, Operation};
use crate::ledger::local::Parts;
use crate::ledger::recovery::{self, Places};
use crate::ledger::sequencer::Commit;
use crate::ledger::snapshot;
use crate::metrics::Metrics;
use crate::options::Options;

fn id(number: u128) -> StreamId {
    StreamId(Uuid::from_u128(number))
}

fn at(number: u128) -> Partition {
    Partition::new(id(number), PartitionIndex(0))
}

fn create(number: u128, partitions: u32, class: StreamClass) -> Commit {
    let path = path(&format!("stream-{number}"));
    let new = NewStream { path, partitions, class, config: StreamConfig::default() };
    one(Operation::CreateStream { id: id(number), new })
}

fn append(number: u128, content: u64) -> Commit {
    one(Operation::Append {
        partition: at(number),
        batch: batch(content, 2, 50, None),
        expected_offset: None,
    })
}

/// A ledger with a stream, written to `disk`.
fn driver(class: StreamClass) -> Driver {
    let mut driver = Driver::new(FaultyDisk::new(1));
    driver.start("empty").unwrap();
    driver.add(create(1, 1, class));
    driver.add(append(1, 100));
    driver.flush();
    driver
}

#[test]
fn a_catalog_that_takes_nothing_stops_metadata_alone_and_goes_on_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalog.sqlite");
    drop(Catalog::open(&file, CatalogOptions::default()).unwrap());
    // The file cannot grow, as on a full disk.
    let full = CatalogOptions { pages_max: Some(1), ..CatalogOptions::default() };
    let options = Arc::new(Options { catalog_changes_max: 2_000, ..options() });
    let clock = Arc::new(MockClock::new(1));
    let seam: Arc<dyn Clock> = clock.clone();
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(1));
    let catalog = Catalog::open(&file, full).unwrap();
    let recovery = recovery::recover(&disk, &seam, &options, catalog).unwrap();
    let metrics = Arc::new(Metrics::register(&mut Default::default()));
    let mut parts = Parts::new(recovery, options, seam, disk, metrics);
    let mut done = 0;
    let commit = |parts: &mut Parts, commit: Commit| {
        parts.shared.check_catalog(&commit)?;
        let now = parts.shared.now();
        parts.shared.core.lock().add(commit, Box::new(|result| drop(result.unwrap())), now);
        let group = parts.writer.take().unwrap();
        let _ = parts.writer.write(group, false);
        parts.shared.publish_waiting();
        Ok::<_, Error>(())
    };
    let refused = loop {
        if let Err(error) = commit(&mut parts, create(done + 1, 99, StreamClass::Durable)) {
            break error;
        }
        done += 1;
        parts.keeper.keep_catalog(false);
        assert!(done < 1_000, "nothing is refused");
    };
    let failure = parts.shared.catalog.failure().expect("a failure that is named");
    assert!(failure.contains("no space is left for catalog"), "{failure}");
    assert!(matches!(refused, Error::CatalogBehind { .. }), "{refused}");
    assert!(refused.to_string().contains(&failure) && refused.is_definite(), "{refused}");
    let waiting = parts.shared.catalog.len();
    assert!((2_000..2_200).contains(&waiting), "{waiting} changes wait");
    commit(&mut parts, append(1, 7)).unwrap();
    assert_eq!(parts.shared.catalog.len(), waiting, "an append needs no catalog");

    parts.keeper.catalog = Catalog::open_in_memory().unwrap();
    parts.keeper.catalog = Catalog::open(&file, CatalogOptions::default()).unwrap();
    parts.keeper.keep_catalog(false);
    assert_eq!(parts.shared.catalog.len(), waiting, "it is not tried at every turn");
    clock.advance(Duration::from_secs(10));
    parts.keeper.keep_catalog(false);
    assert_eq!((parts.shared.catalog.len(), parts.shared.catalog.failure()), (0, None));
    commit(&mut parts, create(done + 1, 99, StreamClass::Durable)).unwrap();
    let rows = parts.keeper.catalog.load().unwrap();
    assert_eq!(rows.streams.len() as u128, done, "each is there");
}

#[test]
fn a_journal_that_cannot_be_synced_is_not_tried_at_every_turn() {
    let mut driver = driver(StreamClass::Relaxed);
    driver.add(append(1, 101));
    driver.flush();
    let syncs = driver.disk.syncs();
    for nth in 1..10_000 {
        driver.disk.fail_sync(syncs + nth);
    }
    let turns = 100;
    for _ in 0..turns {
        driver.idle();
        driver.clock.advance(Duration::from_millis(50));
    }
    let tried = driver.disk.syncs() - syncs;
    assert!((2..40).contains(&tried), "{tried} syncs in {turns} turns");
}

#[test]
fn an_old_snapshot_keeps_no_journal_where_nothing_more_is_written() {
    let mut driver = Driver::new(FaultyDisk::new(1));
    driver.limit(|options| options.snapshot_journal_bytes = 64 << 10);
    driver.start("empty").unwrap();
    driver.add(create(1, 1, StreamClass::Durable));
    // The keeper is held up meanwhile.
    for content in 0..100 {
        driver.add(append(1, content));
        driver.flush();
    }
    driver.add(one(Operation::Truncate { partition: at(1), start: Offset(200) }));
    driver.flush();
    let files = |driver: &Driver| driver.parts.as_ref().unwrap().shared.maintenance.files().len();
    assert!(files(&driver) > 10);
    for _ in 0..8 {
        driver.keep(true);
        let parts = driver.parts.as_mut().unwrap();
        if let Some(assembly) = parts.writer.take() {
            assert!(parts.writer.write(assembly, false).is_none());
            parts.shared.publish_waiting();
        }
    }
    assert!(files(&driver) < 5, "{} files are left", files(&driver));
}

#[test]
fn a_damaged_snapshot_is_none_of_those_that_are_kept() {
    let mut driver = driver(StreamClass::Durable);
    let folder = Places::new(&options()).ledger;
    let store = |driver: &mut Driver, content: u64| {
        driver.want_snapshot();
        driver.add(append(1, content));
        driver.flush();
        driver.parts.as_mut().unwrap().keeper.store_waiting_snapshot();
        snapshot::list(&driver.disk, &folder).unwrap()
    };
    store(&mut driver, 101);
    let kept = store(&mut driver, 102);
    assert_eq!(kept.len(), snapshot::SNAPSHOTS_KEPT);
    driver.disk.corrupt(&kept[0].1, 40, 3).unwrap();
    driver.kill();
    driver.start("with a damaged snapshot").unwrap();
    let left = snapshot::list(&driver.disk, &folder).unwrap();
    assert_eq!(left, kept[1..], "the whole one stays");
    // Nothing that the whole one needs may go before there are two again.
    driver.keep(true);
    let disk: Arc<dyn Disk> = Arc::new(driver.disk.clone());
    let found = snapshot::read_newest(&disk, &folder).unwrap();
    assert_eq!((found.sequence, found.oldest.get()), (kept[1].0, 0));
    let kept = store(&mut driver, 103);
    assert_eq!(kept.len(), snapshot::SNAPSHOTS_KEPT);
    driver.disk.corrupt(&kept[0].1, 40, 3).unwrap();
    driver.kill();
    driver.start("with another damaged snapshot").unwrap();
}

#[test]
fn garbage_says_why_and_since_when() {
    let mut driver = driver(StreamClass::Durable);
    let chunk = chunk_of(Uuid::from_u128(9), at(1), Offset(0), Offset(2));
    let object_path = chunk.object_path.clone();
    driver.add(one(Operation::IntendUpload {
        chunk: chunk.id,
        partition: at(1),
        object_path: object_path.clone(),
    }));
    driver.add(one(Operation::AddChunk { chunk: chunk.clone() }));
    driver.add(one(Operation::Expire { partition: at(1), start: Offset(2) }));
    driver.flush();
    let now = Timestamp(driver.clock.now_ms());
    driver.keep(false);
    for life in ["now", "after a start"] {
        let parts = driver.parts.as_ref().unwrap();
        let garbage = parts.shared.index.garbage.lock().get(&object_path).cloned().unwrap();
        assert_eq!((garbage.reason, garbage.since), (garbage_reason::EXPIRED, now), "{life}");
        driver.stop();
        driver.start(life).unwrap();
    }

    // In a replay the start may be further on than the chunk that is added.
    let index = Index::new(1 << 20, 50);
    let mut changes = Vec::new();
    for event in [
        Event::StreamCreated {
            id: id(1),
            path: path("a"),
            partitions: 1,
            class: StreamClass::Durable,
            config: StreamConfig::default(),
            created: Timestamp(1),
            epoch: aquifer_types::Epoch(1),
        },
        Event::Truncated {
            partition: at(1),
            start: Offset(5),
            at: Timestamp(900),
            is_expired: false,
        },
        Event::ChunkAdded { chunk: chunk.clone(), at: Some(Timestamp(700)) },
    ] {
        index.publish(&event, &mut changes);
    }
    let garbage = index.garbage.lock().get(&object_path).cloned().unwrap();
    assert_eq!((garbage.since, garbage.due), (Timestamp(700), Timestamp(750)));
}

#[test]
fn an_index_whose_chunk_is_gone_is_garbage() {
    let index = Index::new(1 << 20, 50);
    let mut changes = Vec::new();
    let path_of_index = "default/a/p0/9-12.index".to_owned();
    let indexed = Event::ChunkIndexed {
        partition: at(1),
        chunk: ChunkId(Uuid::from_u128(9)),
        index: ChunkId(Uuid::from_u128(12)),
        index_path: path_of_index.clone(),
        index_bytes: 7,
        at: Timestamp(700),
    };
    // The snapshot that a replay begins with has seen the chunk's end already.
    for event in [
        Event::StreamCreated {
            id: id(1),
            path: path("a"),
            partitions: 1,
            class: StreamClass::Durable,
            config: StreamConfig::default(),
            created: Timestamp(1),
            epoch: aquifer_types::Epoch(1),
        },
        indexed.clone(),
    ] {
        index.publish(&event, &mut changes);
    }
    let found = |index: &Index| index.garbage.lock().get(&path_of_index).cloned();
    let garbage = found(&index).unwrap();
    assert_eq!((garbage.since, garbage.due), (Timestamp(700), Timestamp(750)));
    let told = |changes: &[Change]| {
        let is_it = |change: &&Change| matches!(change, Change::AddGarbage(row) if row.object_path == path_of_index);
        changes.iter().filter(is_it).count()
    };
    assert_eq!(told(&changes), 1);
    // What is known of it is not told anew, and it goes once.
    index.publish(&indexed, &mut changes);
    assert_eq!(told(&changes), 1);
    index.publish(
        &Event::GarbageCollected { object_paths: vec![path_of_index.clone()] },
        &mut changes,
    );
    assert!(found(&index).is_none());
}

#[test]
fn a_gap_at_the_end_is_no_record_that_waits_for_tier_2() {
    let mut driver = driver(StreamClass::Relaxed);
    let chunk = chunk_of(Uuid::from_u128(9), at(1), Offset(0), Offset(2));
    driver.add(one(Operation::IntendUpload {
        chunk: chunk.id,
        partition: at(1),
        object_path: chunk.object_path.clone(),
    }));
    driver.add(one(Operation::AddChunk { chunk }));
    driver.flush();
    let mut found = driver.after_crash(CrashChoice::LoseAll);
    found.start("after the cut").unwrap();
    let look = |driver: &Driver| {
        let log = driver.parts.as_ref().unwrap().shared.index.partition(at(1)).unwrap();
        log.with(|state| (state.tiered, state.first_untiered(), state.end))
    };
    let (tiered, untiered, end) = look(&found);
    assert!(tiered < end, "offsets were passed over");
    assert_eq!(untiered, end);
    found.add(append(1, 200));
    found.flush();
    let (_, untiered, after) = look(&found);
    assert_eq!((untiered, after), (end, end.plus(2)), "the record behind the gap waits");
}
