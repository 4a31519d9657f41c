//! The ledger with its threads, over a disk that fails: everybody is answered,
//! what is said is true after a restart, and it goes on by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aquifer_catalog::Catalog;
use aquifer_env::{Clock, CrashChoice, Disk, FaultyDisk, RealClock, SeededRandom};
use aquifer_types::{
    Batch, Offset, Partition, PartitionIndex, StreamClass, StreamConfig, StreamId,
};
use uuid::Uuid;

use super::crash_points::cases;
use super::driver::options;
use super::model::content_of;
use super::script::{batch, chunk_of, one, path};
use crate::Error;
use crate::api::NewStream;
use crate::ledger::event::{Operation, Outcome};
use crate::ledger::local::LocalLedger;
use crate::ledger::recovery::{self, Recovery};
use crate::metrics::Metrics;
use crate::options::Options;

/// Longer than anything here may take.
const HANG: Duration = Duration::from_secs(60);
const TASKS: u64 = 24;
const APPENDS: u64 = 30;
const PARTITIONS: u32 = 3;

fn stream() -> StreamId {
    StreamId(Uuid::from_u128(7))
}

fn recover(disk: &FaultyDisk, options: &Options) -> Recovery {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    recovery::recover(&disk, &clock, options, Catalog::open_in_memory().unwrap()).unwrap()
}

fn start(disk: &FaultyDisk, options: &Options) -> LocalLedger {
    let recovery = recover(disk, options);
    let metrics = Arc::new(Metrics::register(&mut Default::default()));
    let (clock, seam) = (Arc::new(RealClock::new()), Arc::new(disk.clone()));
    LocalLedger::start(recovery, Arc::new(options.clone()), clock, seam, metrics).unwrap()
}

fn append(content: u64) -> Operation {
    Operation::Append {
        partition: Partition::new(stream(), PartitionIndex((content % 3) as u32)),
        batch: batch(content, 1, 200, None),
        expected_offset: None,
    }
}

fn options_online() -> Options {
    // No file is released: the catalog that a restart gets is empty.
    Options { snapshot_journal_bytes: 1 << 40, ..options() }
}

#[derive(Debug, Default)]
struct Answers {
    /// Content to place.
    acknowledged: BTreeMap<u64, (Partition, Offset)>,
    indefinite: BTreeSet<u64>,
    failed: BTreeSet<u64>,
}

/// Many tasks append at once; returns what each was told.
async fn append_concurrently(ledger: &LocalLedger, first: u64) -> Answers {
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let ledger = ledger.clone();
        tasks.push(tokio::spawn(async move {
            let mut answers = Vec::new();
            for number in 0..APPENDS {
                let content = first + task * APPENDS + number;
                let commit = one(append(content));
                answers.push((content, ledger.commit(commit).await));
            }
            answers
        }));
    }
    let mut answers = Answers::default();
    for task in tasks {
        for (content, answer) in task.await.unwrap() {
            match answer {
                Ok(committed) => {
                    let [Outcome::Appended(appended)] = committed.outcomes[..] else {
                        panic!("{committed:?}");
                    };
                    let at = Partition::new(stream(), appended.partition);
                    answers.acknowledged.insert(content, (at, appended.base_offset));
                }
                Err(error) if error.is_definite() => {
                    assert!(!matches!(error, Error::Stopping | Error::Internal(_)), "{error}");
                    answers.failed.insert(content);
                }
                Err(_) => {
                    answers.indefinite.insert(content);
                }
            }
        }
    }
    answers
}

/// Everything that a restart finds, as content to place.
fn found(disk: &FaultyDisk, options: &Options) -> BTreeMap<u64, (Partition, Offset)> {
    let recovery = recover(disk, options);
    let reader = recovery.journal.reader();
    let mut found = BTreeMap::new();
    for (at, _, partition) in recovery.hot.all_partitions() {
        let tail = recovery.index.partition(at).unwrap().with(|state| state.tail.clone());
        let mut due = Offset::ZERO;
        for entry in tail {
            assert_eq!(entry.base, due, "{at}: no gap");
            due = entry.next;
            let file = reader.pin(entry.file).unwrap().unwrap();
            let bytes = file.read(entry.position, entry.len.into()).unwrap();
            let content = content_of(&Batch::read(bytes).unwrap());
            assert_eq!(found.insert(content, (at, entry.base)), None, "{content} is there twice");
        }
        assert_eq!(due, partition.end);
    }
    found
}

fn check(answers: &[Answers], found: &BTreeMap<u64, (Partition, Offset)>) {
    for answers in answers {
        for (content, place) in &answers.acknowledged {
            assert_eq!(found.get(content), Some(place), "acknowledged {content}");
        }
        for content in &answers.failed {
            assert!(!found.contains_key(content), "{content} was certainly not appended");
        }
        let all = answers.acknowledged.len() + answers.failed.len() + answers.indefinite.len();
        assert_eq!(all as u64, TASKS * APPENDS, "everybody is answered");
    }
}

/// Appends again and again until it works.
async fn until_it_works(ledger: &LocalLedger, content: u64) {
    for try_number in 0.. {
        let commit = one(append(content + try_number));
        if ledger.commit(commit).await.is_ok() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Runs with a fault from `fault` on, and once more after it.
async fn with_fault(fault: impl Fn(&FaultyDisk), mend: impl Fn(&FaultyDisk)) -> Vec<Answers> {
    let disk = FaultyDisk::new(1);
    let options = options_online();
    let ledger = start(&disk, &options);
    let new = NewStream {
        path: path("audit"),
        partitions: PARTITIONS,
        class: StreamClass::Durable,
        config: StreamConfig::default(),
    };
    let create = Operation::CreateStream { id: stream(), new };
    ledger.commit(one(create)).await.unwrap();
    fault(&disk);
    let during = append_concurrently(&ledger, 0).await;
    mend(&disk);
    until_it_works(&ledger, 1 << 40).await;
    // Health does not need a restart either.
    while ledger.failure().is_some() {
        tokio::task::yield_now().await;
    }
    let after = append_concurrently(&ledger, 1 << 20).await;
    assert_eq!(after.acknowledged.len() as u64, TASKS * APPENDS, "it goes on as if nothing was");
    ledger.stop().await;
    let answers = vec![during, after];
    check(&answers, &found(&disk, &options));
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_fail_while_many_append() {
    for distance in [1, 2, 5] {
        let fault = |disk: &FaultyDisk| {
            for nth in 0..4 {
                disk.fail_sync(disk.syncs() + distance * (1 + nth));
            }
        };
        let answers = tokio::time::timeout(HANG, with_fault(fault, |_| ())).await.expect("a hang");
        assert!(!answers[0].indefinite.is_empty(), "no sync failed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_fail_while_many_append() {
    for distance in [1, 3] {
        let fault = |disk: &FaultyDisk| {
            for nth in 0..4 {
                disk.fail_write(disk.writes() + distance * (1 + nth), ErrorKind::Other);
            }
        };
        let answers = tokio::time::timeout(HANG, with_fault(fault, |_| ())).await.expect("a hang");
        let failed = answers[0].indefinite.len() + answers[0].failed.len();
        assert!(failed > 0, "no write failed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_takes_appends_again_when_there_is_room() {
    let fault = |disk: &FaultyDisk| disk.set_capacity(120 << 10);
    let mend = |disk: &FaultyDisk| disk.set_capacity(u64::MAX);
    let answers = tokio::time::timeout(HANG, with_fault(fault, mend)).await.expect("a hang");
    assert!(!answers[0].failed.is_empty(), "the disk was never full");
    assert!(answers[0].indefinite.is_empty(), "a full disk is a definite refusal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_answers_everybody() {
    let disk = FaultyDisk::new(1);
    let options = options_online();
    let ledger = start(&disk, &options);
    let new = NewStream {
        path: path("audit"),
        partitions: PARTITIONS,
        class: StreamClass::Durable,
        config: StreamConfig::default(),
    };
    let create = Operation::CreateStream { id: stream(), new };
    ledger.commit(one(create)).await.unwrap();
    let tasks: Vec<_> = (0..200u64)
        .map(|content| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let commit = one(append(content));
                (content, ledger.commit(commit).await)
            })
        })
        .collect();
    tokio::task::yield_now().await;
    tokio::time::timeout(HANG, ledger.stop()).await.expect("a hang");
    let mut acknowledged = BTreeSet::new();
    for task in tasks {
        let (content, answer) = tokio::time::timeout(HANG, task).await.expect("a hang").unwrap();
        match answer {
            Ok(_) => assert!(acknowledged.insert(content)),
            Err(error) => assert!(matches!(error, Error::Stopping), "{error}"),
        }
    }
    let found: BTreeSet<u64> = found(&disk, &options).into_keys().collect();
    assert_eq!(found, acknowledged, "stopping means that nothing was done");
}

/// What was ever seen at an offset, over all lives of a ledger.
#[derive(Debug, Default)]
struct World {
    seen: BTreeMap<(Partition, Offset), u64>,
    durable: BTreeMap<(Partition, Offset), u64>,
    ends: BTreeMap<Partition, Offset>,
}

impl World {
    fn see(&mut self, at: Partition, base: Offset, content: u64) {
        let before = self.seen.insert((at, base), content);
        assert!(before.is_none_or(|before| before == content), "{at}: {base} was given twice");
    }

    fn acknowledge(&mut self, at: Partition, base: Offset, content: u64, is_relaxed: bool) {
        self.see(at, base, content);
        if !is_relaxed {
            self.durable.insert((at, base), content);
        }
        let end = self.ends.entry(at).or_default();
        *end = (*end).max(base.plus(1));
    }

    /// Checks what a start found.
    fn check(&mut self, recovery: &Recovery) {
        let reader = recovery.journal.reader();
        for (at, stream, partition) in recovery.hot.all_partitions() {
            let end = self.ends.get(&at).copied().unwrap_or_default();
            assert!(partition.end >= end, "{at} of {}: {} after {end}", stream.path, partition.end);
            let log = recovery.index.partition(at).unwrap();
            let mut found = BTreeMap::new();
            for entry in log.with(|state| state.tail.clone()) {
                let file = reader.pin(entry.file).unwrap().expect("a file with live batches");
                let bytes = file.read(entry.position, entry.len.into()).unwrap();
                let content = content_of(&Batch::read(bytes).unwrap());
                self.see(at, entry.base, content);
                found.insert(entry.base, content);
            }
            for ((of, base), content) in &self.durable {
                if *of == at && *base >= partition.tiered {
                    assert_eq!(found.get(base), Some(content), "{at}: {base} is gone");
                }
            }
        }
    }
}

const DURABLE: u32 = 2;
const RELAXED: u128 = 8;

/// One life of a ledger: appends, chunks, snapshots, released files, a failing
/// sync, and a power cut or a stop. Returns the disk of the next one.
async fn live(
    world: &Arc<parking_lot::Mutex<World>>,
    disk: &FaultyDisk,
    catalog: &Path,
    life: u64,
) -> FaultyDisk {
    let options = Options { snapshot_journal_bytes: 32 << 10, ..options() };
    let seam: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let opened = Catalog::open(catalog, aquifer_catalog::Options::default()).unwrap();
    let recovery = recovery::recover(&seam, &clock, &options, opened).unwrap();
    world.lock().check(&recovery);
    let index = recovery.index.clone();
    let metrics = Arc::new(Metrics::register(&mut Default::default()));
    let ledger = LocalLedger::start(recovery, Arc::new(options), clock, seam, metrics).unwrap();
    for (id, class) in [
        (stream(), StreamClass::Durable),
        (StreamId(Uuid::from_u128(RELAXED)), StreamClass::Relaxed),
    ] {
        let new = NewStream {
            path: path(&format!("of-{}", class.name())),
            partitions: DURABLE,
            class,
            config: StreamConfig::default(),
        };
        let created = ledger.commit(one(Operation::CreateStream { id, new })).await;
        assert!(created.is_ok() || life > 0, "{created:?}");
    }
    disk.fail_sync(disk.syncs() + 20 + life * 3);
    let found: Arc<parking_lot::Mutex<Option<FaultyDisk>>> = Arc::default();
    let is_done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let tierer = tokio::spawn({
        let (ledger, index, is_done) = (ledger.clone(), index, is_done.clone());
        async move {
            let dice = SeededRandom::new(1_000 + life);
            let mut chunks = 0;
            while !is_done.load(std::sync::atomic::Ordering::Relaxed) {
                for log in index.all_streams().iter().flat_map(|s| s.partitions().to_vec()) {
                    let (base, next) = log.with(|s| (s.tiered, s.tail.back().map(|e| e.next)));
                    let Some(next) = next else { continue };
                    let chunk = chunk_of(aquifer_env::uuid_v4(&dice), log.partition, base, next);
                    let intent = Operation::IntendUpload {
                        chunk: chunk.id,
                        partition: log.partition,
                        object_path: chunk.object_path.clone(),
                    };
                    let add = Operation::AddChunk { chunk };
                    if ledger.commit(one(intent)).await.is_ok() {
                        chunks += u64::from(ledger.commit(one(add)).await.is_ok());
                    }
                }
                ledger.wake_keeper();
                tokio::task::yield_now().await;
            }
            chunks
        }
    });
    let mut tasks = Vec::new();
    for task in 0..12u64 {
        let (ledger, world, found, disk) =
            (ledger.clone(), world.clone(), found.clone(), disk.clone());
        tasks.push(tokio::spawn(async move {
            for number in 0..60 {
                let content = (life << 32) + (task << 16) + number;
                let is_relaxed = task % 3 == 0;
                let id = if is_relaxed { StreamId(Uuid::from_u128(RELAXED)) } else { stream() };
                let at = Partition::new(id, PartitionIndex((content % 2) as u32));
                let operation = Operation::Append {
                    partition: at,
                    batch: batch(content, 1, 300, None),
                    expected_offset: None,
                };
                let answer = ledger.commit(one(operation)).await;
                if let Ok(committed) = answer
                    && let [Outcome::Appended(appended)] = committed.outcomes[..]
                {
                    world.lock().acknowledge(at, appended.base_offset, content, is_relaxed);
                }
                if task == 0 && number == 40 && !life.is_multiple_of(4) {
                    *found.lock() = Some(disk.crash(CrashChoice::Random(life)));
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    is_done.store(true, std::sync::atomic::Ordering::Relaxed);
    let chunks = tierer.await.unwrap();
    ledger.stop().await;
    let next = found.lock().take().unwrap_or_else(|| disk.crash(CrashChoice::LoseAll));
    println!("life {life}: {chunks} chunks, {} files", next.files().len());
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_lives_with_power_cuts_chunks_snapshots_and_released_files() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = directory.path().join("catalog.sqlite");
    let world = Arc::new(parking_lot::Mutex::new(World::default()));
    let mut disk = FaultyDisk::new(3);
    for life in 0..cases(8) {
        let next = live(&world, &disk, &catalog, life);
        disk = tokio::time::timeout(HANG, next).await.expect("a hang");
    }
    let world = world.lock();
    println!("{} batches seen, {} of them durable", world.seen.len(), world.durable.len());
    assert!(world.durable.len() > 500);
}
