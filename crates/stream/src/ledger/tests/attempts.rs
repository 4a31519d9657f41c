//! Commits under an id of their caller's: what became of them is known over
//! restarts, and what is said to be absent stays so.

use std::sync::Arc;

use aquifer_catalog::Catalog;
use aquifer_env::{Clock, CrashChoice, Disk, FaultyDisk, MockClock};
use aquifer_types::{
    CommitId, ErrorKind, Offset, Partition, PartitionIndex, StreamClass, StreamConfig, StreamId,
};
use uuid::Uuid;

use super::driver::options;
use super::script::{batch, path};
use crate::Error;
use crate::api::{Appended, NewStream};
use crate::ledger::event::{Operation, Outcome, Resolution};
use crate::ledger::local::LocalLedger;
use crate::ledger::recovery;
use crate::ledger::sequencer::{Commit, Committed};
use crate::metrics::Metrics;
use crate::options::Options;

fn stream() -> StreamId {
    StreamId(Uuid::from_u128(7))
}

fn id(number: u128) -> CommitId {
    CommitId(Uuid::from_u128(number))
}

/// A ledger on `disk`. No file is released, so an empty catalog will do.
fn start(disk: &FaultyDisk, change: impl FnOnce(&mut Options)) -> LocalLedger {
    let mut options = Options { snapshot_journal_bytes: 1 << 40, ..options() };
    change(&mut options);
    let seam: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock: Arc<dyn Clock> = Arc::new(MockClock::new(1_700_000_000_000));
    let catalog = Catalog::open_in_memory().unwrap();
    let recovery = recovery::recover(&seam, &clock, &options, catalog).unwrap();
    let metrics = Arc::new(Metrics::register(&mut Default::default()));
    LocalLedger::start(recovery, Arc::new(options), clock, seam, metrics).unwrap()
}

async fn create(ledger: &LocalLedger) {
    let new = NewStream {
        path: path("audit"),
        partitions: 1,
        class: StreamClass::Durable,
        config: StreamConfig::default(),
    };
    let create = Operation::CreateStream { id: stream(), new };
    ledger.commit(Commit::of(vec![create])).await.unwrap();
}

async fn append_as(ledger: &LocalLedger, number: u128) -> Result<Committed, Error> {
    let append = Operation::Append {
        partition: Partition::new(stream(), PartitionIndex(0)),
        batch: batch(number as u64, 1, 10, None),
        expected_offset: None,
    };
    ledger.commit(Commit { id: Some(id(number)), ..Commit::of(vec![append]) }).await
}

fn at(base: i64) -> Appended {
    Appended { partition: PartitionIndex(0), base_offset: Offset(base), count: 1 }
}

#[tokio::test]
async fn what_became_of_a_commit_is_known_after_kills_and_snapshots() {
    let disk = FaultyDisk::new(1);
    let ledger = start(&disk, |_| ());
    create(&ledger).await;
    for number in 1..=2 {
        let committed = append_as(&ledger, number).await.unwrap();
        assert_eq!(committed.outcomes, [Outcome::Appended(at(number as i64 - 1))]);
    }
    assert_eq!(ledger.resolve(id(9)).await.unwrap(), Resolution::Absent);
    let mut disk = disk;
    // Killed, cut off, and stopped, which leaves a snapshot.
    for life in 0..3 {
        let next = match life {
            0 => disk.crash(CrashChoice::KeepAll),
            1 => disk.crash(CrashChoice::LoseAll),
            _ => {
                let ledger = start(&disk, |_| ());
                ledger.stop().await;
                disk.clone()
            }
        };
        disk = next;
        let ledger = start(&disk, |_| ());
        for number in 1..=2 {
            let committed = Resolution::Committed(vec![Outcome::Appended(at(number as i64 - 1))]);
            assert_eq!(ledger.resolve(id(number)).await.unwrap(), committed, "life {life}");
            let again = append_as(&ledger, number).await.unwrap();
            assert_eq!(again.outcomes, [Outcome::Duplicate(at(number as i64 - 1))]);
        }
        let refused = append_as(&ledger, 9).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Fenced, "life {life}: {refused}");
        assert!(refused.is_definite());
        assert_eq!(ledger.resolve(id(9)).await.unwrap(), Resolution::Absent);
        let end = ledger.with_hot(|hot| hot.require(at_zero()).unwrap().1.end);
        assert_eq!(end, Offset(2), "nothing was appended twice or late");
        ledger.stop().await;
    }
}

fn at_zero() -> Partition {
    Partition::new(stream(), PartitionIndex(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_sync_failed_is_resolved_one_way_and_stays_so() {
    let (mut committed, mut absent) = (0, 0);
    for nth in 1..12 {
        let disk = FaultyDisk::new(nth);
        let ledger = start(&disk, |_| ());
        create(&ledger).await;
        disk.fail_sync(disk.syncs() + 1 + nth % 3);
        let mut told = Vec::new();
        for number in 1..=4 {
            told.push((number, append_as(&ledger, number).await));
        }
        let mut resolved = Vec::new();
        for (number, told) in told {
            let resolution = ledger.resolve(id(number)).await.unwrap();
            match (&told, &resolution) {
                (Ok(_), Resolution::Absent) => panic!("{number} was acknowledged"),
                (Err(error), Resolution::Committed(_)) if error.is_definite() => {
                    panic!("{number} was refused: {error}")
                }
                (_, Resolution::Committed(_)) => committed += 1,
                (_, Resolution::Absent) => absent += 1,
            }
            resolved.push((number, resolution));
        }
        let ledger = start(&disk.crash(CrashChoice::LoseAll), |_| ());
        for (number, resolution) in resolved {
            assert_eq!(ledger.resolve(id(number)).await.unwrap(), resolution, "{number}");
        }
    }
    assert!(committed > 0 && absent > 0, "{committed} committed, {absent} absent");
}

#[tokio::test]
async fn beyond_the_limit_attempts_are_refused_and_none_is_forgotten() {
    let disk = FaultyDisk::new(1);
    let ledger = start(&disk, |options| options.commit_outcomes_max = 4);
    create(&ledger).await;
    for number in 1..=2 {
        append_as(&ledger, number).await.unwrap();
    }
    let refused = append_as(&ledger, 3).await.unwrap_err();
    let is_named = matches!(refused, Error::Throttled { limit_name: "commit_outcomes_max", .. });
    assert!(is_named, "{refused}");
    let known = ledger.resolve(id(1)).await.unwrap();
    assert_eq!(known, Resolution::Committed(vec![Outcome::Appended(at(0))]));
    for number in 11..15 {
        assert_eq!(ledger.resolve(id(number)).await.unwrap(), Resolution::Absent);
    }
    let refused = ledger.resolve(id(15)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Throttled, "{refused}");
    assert_eq!(ledger.resolve(id(11)).await.unwrap(), Resolution::Absent, "known");
    ledger.stop().await;
}
