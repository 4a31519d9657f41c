//! Batches that were written anew are found wherever the power is cut, and when
//! the file in which they lay first is gone.

use aquifer_env::{CrashChoice, FaultyDisk};
use aquifer_types::{
    Batch, Offset, Partition, PartitionIndex, StreamClass, StreamConfig, StreamId,
};
use uuid::Uuid;

use super::driver::Driver;
use super::script::{batch, chunk_of, one, path};
use crate::api::NewStream;
use crate::ledger::event::Operation;
use crate::ledger::sequencer::Commit;

fn at(index: u32) -> Partition {
    Partition::new(StreamId(Uuid::from_u128(1)), PartitionIndex(index))
}

fn append(index: u32, content: u64, bytes: usize) -> Commit {
    let batch = batch(content, 1, bytes, None);
    one(Operation::Append { partition: at(index), batch, expected_offset: None })
}

/// Writes the tail of partition 0 anew.
fn relocate(driver: &mut Driver) {
    let Some(parts) = &driver.parts else { return };
    let Some(log) = parts.shared.index.partition(at(0)) else { return };
    let tail = log.with(|state| state.tail.clone());
    let operations: Option<Vec<_>> = tail
        .iter()
        .map(|entry| {
            let file = parts.reader.pin(entry.file).ok()??;
            let bytes = file.read(entry.position, entry.len.into()).ok()?;
            let batch = Batch::read(bytes).unwrap();
            Some(Operation::Relocate { partition: at(0), batch, appended: entry.appended })
        })
        .collect();
    let Some(operations) = operations else {
        assert!(driver.disk.is_crashed(), "a batch cannot be read");
        return;
    };
    driver.add(Commit::of(operations));
    driver.flush();
}

/// Partition 0 keeps its first batches for ever, partition 1 flows by. Returns
/// whether the first file of the journal is gone.
fn flow(driver: &mut Driver, rounds: u64) -> bool {
    driver.start("empty").unwrap_or(());
    let new = NewStream {
        path: path("audit"),
        partitions: 2,
        class: StreamClass::Durable,
        config: StreamConfig::default(),
    };
    driver.add(one(Operation::CreateStream { id: at(0).stream, new }));
    driver.flush();
    for content in 0..3 {
        driver.add(append(0, content, 500));
    }
    driver.flush();
    let file = |driver: &Driver| driver.parts.as_ref()?.shared.maintenance.files().first().copied();
    let first = file(driver);
    for round in 0..rounds {
        driver.add(append(1, 100 + round, 7_000));
        if round == 1 {
            // Behind what is relocated, and before it in the journal.
            driver.add(append(0, 50, 500));
        }
        driver.flush();
        relocate(driver);
        let base = Offset(round as i64);
        let id = Uuid::from_u128(1_000 + u128::from(round));
        let chunk = chunk_of(id, at(1), base, base.plus(1));
        let intent = Operation::IntendUpload {
            chunk: chunk.id,
            partition: at(1),
            object_path: chunk.object_path.clone(),
        };
        driver.add(Commit::of(vec![intent, Operation::AddChunk { chunk }]));
        driver.want_snapshot();
        driver.flush();
        driver.keep(true);
        if driver.disk.is_crashed() {
            return false;
        }
        driver.check("after a round");
    }
    first != file(driver)
}

#[test]
fn what_was_relocated_is_found_when_its_first_file_is_gone() {
    let mut driver = Driver::new(FaultyDisk::new(1));
    assert!(flow(&mut driver, 12), "the first file stays");
    driver.kill();
    driver.start("after a kill").unwrap();
    let parts = driver.parts.as_ref().unwrap();
    let tail = parts.shared.index.partition(at(0)).unwrap().with(|state| state.tail.clone());
    let bases: Vec<_> = tail.iter().map(|entry| entry.base.get()).collect();
    assert_eq!(bases, [0, 1, 2, 3], "in order, each once");
}

#[test]
fn the_power_is_cut_anywhere_while_batches_are_relocated() {
    let mut rehearsal = Driver::new(FaultyDisk::with_sector_bytes(2, 4096));
    flow(&mut rehearsal, 10);
    let operations = rehearsal.disk.operations();
    assert!(operations > 100);
    for nth in 1..=operations {
        let mut driver = Driver::new(FaultyDisk::with_sector_bytes(2, 4096));
        driver.disk.crash_at(nth);
        flow(&mut driver, 10);
        for choice in [CrashChoice::LoseAll, CrashChoice::KeepAll, CrashChoice::Random(nth)] {
            let what = format!("crash at {nth}, {choice:?}");
            let mut found = driver.after_crash(choice);
            found.start(&what).unwrap_or_else(|error| panic!("{what}: {error}"));
            relocate(&mut found);
            found.check(&what);
        }
    }
    println!("{operations} crash points");
}
