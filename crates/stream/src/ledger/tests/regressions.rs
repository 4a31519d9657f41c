//! What went wrong once, or nearly.

use std::sync::Arc;
use std::time::Duration;

use aquifer_catalog::{Catalog, Options as CatalogOptions};
use aquifer_env::{Clock, CrashChoice, Disk, FaultyDisk, MockClock};
use aquifer_journal::{Durability, FileId, GroupBuilder};
use aquifer_types::{
    Epoch, GroupName, Offset, Partition, PartitionIndex, ProducerEpoch, ProducerId, Sequence,
    StreamClass, StreamConfig, StreamId, TenantName, Timestamp,
};
use uuid::Uuid;

use super::driver::{Driver, options};
use super::script::{Producer, batch, chunk_of, one, path};
use crate::Error;
use crate::api::NewStream;
use crate::ledger::event::{Event, KIND_EVENT, Operation};
use crate::ledger::recovery::{self, Places};
use crate::ledger::sequencer::Commit;

fn id(number: u128) -> StreamId {
    StreamId(Uuid::from_u128(number))
}

fn at(number: u128) -> Partition {
    Partition::new(id(number), PartitionIndex(0))
}

fn create(number: u128, class: StreamClass) -> Commit {
    let new = NewStream {
        path: path(&format!("stream-{number}")),
        partitions: 1,
        class,
        config: StreamConfig::default(),
    };
    commit(Operation::CreateStream { id: id(number), new })
}

fn commit(operation: Operation) -> Commit {
    one(operation)
}

fn append(number: u128, content: u64) -> Commit {
    commit(Operation::Append {
        partition: at(number),
        batch: batch(content, 2, 50, None),
        expected_offset: None,
    })
}

/// A ledger with a relaxed stream 1, whose offsets are reserved, and a durable
/// stream 2.
fn two_streams() -> Driver {
    let mut driver = Driver::new(FaultyDisk::new(1));
    driver.start("empty").unwrap();
    for commit in [create(1, StreamClass::Relaxed), create(2, StreamClass::Durable)] {
        driver.add(commit);
    }
    driver.flush();
    driver.add(append(1, 100));
    driver.flush();
    driver
}

/// An appended batch of the relaxed stream that the disk loses.
fn lose_relaxed(driver: &mut Driver, content: u64) {
    driver.add(append(1, content));
    driver.flush();
    driver.disk.fail_sync(driver.disk.syncs() + 1);
    driver.idle();
}

#[test]
fn no_relaxed_offset_twice_after_a_clean_stop_and_a_power_cut() {
    let mut driver = two_streams();
    driver.stop();
    driver.start("after the stop").unwrap();
    driver.add(append(1, 101));
    driver.flush();
    let mut found = driver.after_crash(CrashChoice::LoseAll);
    found.start("after the cut").unwrap();
    found.add(append(1, 102));
    found.flush();
}

#[test]
fn no_relaxed_offset_twice_when_lost_groups_are_followed_by_a_clean_stop() {
    let mut driver = two_streams();
    lose_relaxed(&mut driver, 101);
    // Everything of an orderly stop but the snapshot, which a kill forestalls.
    driver.parts.as_mut().unwrap().writer.stop();
    driver.kill();
    driver.start("after the stop").unwrap();
    driver.add(append(1, 102));
    driver.flush();
}

#[test]
fn a_chunk_and_a_truncation_may_cover_relaxed_batches_that_the_journal_lost() {
    for is_truncated in [false, true] {
        let mut driver = two_streams();
        lose_relaxed(&mut driver, 101);
        if is_truncated {
            driver.add(commit(Operation::Truncate { partition: at(1), start: Offset(4) }));
        } else {
            let chunk = chunk_of(Uuid::from_u128(9), at(1), Offset(0), Offset(4));
            driver.add(commit(Operation::IntendUpload {
                chunk: chunk.id,
                partition: at(1),
                object_path: chunk.object_path.clone(),
            }));
            driver.add(commit(Operation::AddChunk { chunk }));
        }
        driver.flush();
        let mut found = driver.after_crash(CrashChoice::LoseAll);
        found.start("after the cut").unwrap();
    }
}

#[test]
fn numbers_of_lost_groups_are_not_taken_for_applied_ones() {
    let mut driver = two_streams();
    for content in 101..106 {
        driver.add(append(1, content));
        driver.flush();
    }
    lose_relaxed(&mut driver, 106);
    driver.idle();
    driver.idle();
    driver.keep(false);
    driver.add(create(3, StreamClass::Durable));
    driver.flush();
    driver.keep(false);
    driver.check("the catalog has the stream");
    driver.stop();
    driver.start("after the stop").unwrap();
}

#[test]
fn the_catalog_is_never_ahead_of_what_a_power_cut_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let open = |nth: u64| {
        let file = directory.path().join(format!("{nth}.sqlite"));
        Catalog::open(file, CatalogOptions::default()).unwrap()
    };
    let clock: Arc<dyn Clock> = Arc::new(MockClock::new(1));
    let mut completed = false;
    for nth in 1..40 {
        let mut driver = Driver::new(FaultyDisk::new(1));
        driver.start("empty").unwrap();
        // The process dies between the write and the sync; the group is in the
        // page cache. Then the power goes.
        let created = Event::StreamCreated {
            id: id(1),
            path: path("late"),
            partitions: 1,
            class: StreamClass::Durable,
            config: StreamConfig::default(),
            created: Timestamp(1),
            epoch: Epoch(1),
        };
        let mut group = GroupBuilder::new(64);
        group.push(KIND_EVENT, &serde_json::to_vec(&created).unwrap(), &[]).unwrap();
        let parts = driver.parts.as_mut().unwrap();
        parts.writer.journal.write(&mut group, Durability::Sync).unwrap();
        driver.kill();
        driver.disk.crash_at(driver.disk.operations() + nth);
        let disk: Arc<dyn Disk> = Arc::new(driver.disk.clone());
        let first = recovery::recover(&disk, &clock, &options(), open(nth));
        if let Ok(recovery) = &first {
            assert_eq!(recovery.hot.streams.len(), 1, "the group was in the page cache");
            completed = true;
        }
        drop(first);
        let disk: Arc<dyn Disk> = Arc::new(driver.disk.crash(CrashChoice::LoseAll));
        let found = recovery::recover(&disk, &clock, &options(), open(nth));
        assert!(found.is_ok(), "cut at {nth}: {:?}", found.err().map(|e| e.to_string()));
    }
    assert!(completed, "no start was whole");
}

#[test]
fn chunks_that_were_truncated_between_catalog_and_snapshot_become_garbage() {
    let mut driver = two_streams();
    driver.add(append(2, 200));
    driver.add(append(2, 201));
    // An earlier truncation, which is replayed over the snapshot's later start.
    driver.add(commit(Operation::Truncate { partition: at(2), start: Offset(1) }));
    let chunk = chunk_of(Uuid::from_u128(9), at(2), Offset(1), Offset(2));
    driver.flush();
    driver.add(commit(Operation::IntendUpload {
        chunk: chunk.id,
        partition: at(2),
        object_path: chunk.object_path.clone(),
    }));
    driver.add(commit(Operation::AddChunk { chunk }));
    driver.flush();
    driver.keep(false);
    driver.want_snapshot();
    driver.add(commit(Operation::Truncate { partition: at(2), start: Offset(2) }));
    driver.flush();
    driver.parts.as_mut().unwrap().keeper.store_waiting_snapshot();
    // The catalog did not hear of the truncation, the snapshot did.
    let mut found = driver.after_crash(CrashChoice::KeepAll);
    found.start("after the cut").unwrap();
}

#[test]
fn a_known_producer_goes_on_where_no_new_one_is_let_in() {
    let mut driver = Driver::new(FaultyDisk::new(1));
    driver.limit(|options| options.producers_per_partition_max = 1);
    driver.start("empty").unwrap();
    driver.add(create(1, StreamClass::Durable));
    let mut content = 0;
    let mut produce = |driver: &mut Driver, producer: i64, sequence: i32| {
        content += 1;
        let producer = Producer {
            id: ProducerId(producer),
            epoch: ProducerEpoch(0),
            sequence: Sequence(sequence),
        };
        driver.add(commit(Operation::Append {
            partition: at(1),
            batch: batch(content, 1, 9, Some(producer)),
            expected_offset: None,
        }));
        driver.flush();
        (driver.model.acknowledged, driver.model.refused)
    };
    assert_eq!(produce(&mut driver, 7, 0), (2, 0));
    assert_eq!(produce(&mut driver, 8, 0), (2, 1), "one too many");
    assert_eq!(produce(&mut driver, 7, 1), (3, 1), "known");
    assert_eq!(produce(&mut driver, 7, 1), (4, 1), "repeated");
}

#[test]
fn a_ceiling_that_offsets_have_passed_meanwhile_is_refused() {
    let mut driver = two_streams();
    let ceiling_of = |driver: &Driver| driver.hot().require(at(1)).unwrap().1.ceiling;
    let end = driver.hot().require(at(1)).unwrap().1.end;
    let set = |ceiling| commit(Operation::SetCeilings { ceilings: vec![(at(1), ceiling)] });
    driver.add(append(1, 300));
    driver.add(set(end));
    driver.flush();
    assert_eq!(ceiling_of(&driver), None, "a manifest would give {end} again");
    assert_eq!(driver.model.refused, 1);
    let end = driver.hot().require(at(1)).unwrap().1.end;
    driver.add(set(end));
    driver.flush();
    assert_eq!(ceiling_of(&driver), Some(end));
}

#[test]
fn a_commit_that_is_too_large_is_refused_alone_and_whole() {
    let mut driver = two_streams();
    let positions = |count: usize, note: String| {
        commit(Operation::CommitPositions {
            tenant: TenantName::default_tenant(),
            group: GroupName::new("readers").unwrap(),
            positions: vec![(at(2), Offset(0), note.into()); count],
        })
    };
    let (acknowledged, before) = (driver.model.acknowledged, driver.hot());
    // Six bytes in JSON for each in memory.
    driver.add(positions(1, "\u{1}".repeat(200_000)));
    driver.flush();
    assert_eq!((driver.model.refused, driver.model.failed), (1, 0));
    assert!(driver.hot() == before);
    driver.add(append(2, 200));
    driver.add(positions(1, "\u{1}".repeat(100_000)));
    driver.add(append(2, 201));
    driver.flush();
    assert_eq!((driver.model.refused, driver.model.failed), (2, 0), "the others are written");
    assert_eq!(driver.model.acknowledged, acknowledged + 2);
}

#[test]
fn relaxed_groups_are_synced_in_time_under_load_too() {
    let mut driver = two_streams();
    let every_ms = options().relaxed_sync_ms_max;
    for content in 0..20 {
        driver.add(append(1, 1_000 + content));
        driver.flush();
        let syncs = driver.disk.syncs();
        driver.clock.advance(Duration::from_millis(every_ms));
        driver.add(append(1, 2_000 + content));
        driver.flush();
        assert!(driver.disk.syncs() > syncs, "nothing was synced for {every_ms} ms");
    }
}

#[test]
fn a_file_that_begins_with_a_mark_is_known_to_the_keeper() {
    let mut driver = two_streams();
    lose_relaxed(&mut driver, 101);
    driver.idle();
    driver.add(append(2, 200));
    driver.flush();
    let parts = driver.parts.as_ref().unwrap();
    let current = parts.writer.journal.current_file();
    let known: Vec<FileId> = parts.shared.first_sequences.lock().keys().copied().collect();
    assert!(current.is_some_and(|file| known.contains(&file)), "{current:?} of {known:?}");
}

#[test]
fn a_snapshot_that_finds_no_room_leaves_nothing_behind() {
    let mut driver = two_streams();
    let places = Places::new(&options());
    driver.want_snapshot();
    driver.add(append(2, 200));
    driver.flush();
    let used: u64 = driver
        .disk
        .files()
        .iter()
        .map(|file| driver.disk.read_file(file).unwrap().len() as u64)
        .sum();
    driver.disk.set_capacity(used + 10);
    driver.parts.as_mut().unwrap().keeper.store_waiting_snapshot();
    let left: Vec<_> =
        driver.disk.files().into_iter().filter(|file| file.starts_with(&places.ledger)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn many_short_lives_do_not_fill_the_journal() {
    let mut driver = Driver::new(FaultyDisk::new(1));
    driver.limit(|options| options.snapshot_journal_bytes = 48 << 10);
    driver.start("empty").unwrap();
    driver.add(create(1, StreamClass::Durable));
    let mut most = 0;
    for life in 0..40u64 {
        driver.add(append(1, life));
        driver.flush();
        let parts = driver.parts.as_ref().unwrap();
        let log = parts.shared.index.partition(at(1)).unwrap();
        let (base, next) = log.with(|state| (state.tiered, state.end));
        let chunk = chunk_of(Uuid::from_u128(100 + u128::from(life)), at(1), base, next);
        driver.add(commit(Operation::IntendUpload {
            chunk: chunk.id,
            partition: at(1),
            object_path: chunk.object_path.clone(),
        }));
        driver.add(commit(Operation::AddChunk { chunk }));
        driver.flush();
        driver.keep(true);
        let parts = driver.parts.as_ref().unwrap();
        most = most.max(parts.shared.maintenance.files().len());
        driver = driver.after_crash(CrashChoice::LoseAll);
        driver.start(&format!("life {life}")).unwrap();
    }
    assert!(most < 12, "{most} journal files");
}

#[test]
fn what_a_newer_version_wrote_is_not_called_damaged() {
    for (kind, meta) in [(2, &b"{\"event\":\"stream_merged\",\"id\":7}"[..]), (9, b"")] {
        let mut driver = two_streams();
        let parts = driver.parts.as_mut().unwrap();
        let mut group = GroupBuilder::new(64);
        group.push(kind, meta, &[]).unwrap();
        parts.writer.journal.write(&mut group, Durability::Sync).unwrap();
        parts.writer.journal.sync().unwrap();
        let mut found = driver.after_crash(CrashChoice::LoseAll);
        let error = found.start_raw().unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error}");
    }
}
