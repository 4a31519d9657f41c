//! The threads around a journal: order, shared syncs, failures, shutdown.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use aquifer_env::{Clock, Disk, DiskFile, FaultyDisk, RealClock};
use aquifer_journal::pipeline::{Pipeline, PipelineHandle, PipelineOptions, Resume};
use aquifer_journal::{Durability, Error, FileId, Journal, Options, Written};
use aquifer_types::{Epoch, GroupSequence};
use common::{dir, group, path_of, read_all};

/// A disk that says what it does, and whose syncs of files can be held up.
#[derive(Debug)]
struct WatchedDisk {
    inner: FaultyDisk,
    watch: Arc<Watch>,
}

#[derive(Debug)]
struct Watch {
    events: Mutex<Sender<Event>>,
    closed: Mutex<bool>,
    changed: Condvar,
}

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Sync,
    DirSync,
}

impl Watch {
    fn tell(&self, event: Event) {
        // Not every test listens.
        let _ = self.events.lock().unwrap().send(event);
    }

    fn close(&self) {
        *self.closed.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.closed.lock().unwrap();
        while *closed {
            closed = self.changed.wait(closed).unwrap();
        }
    }
}

impl WatchedDisk {
    fn file(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(WatchedFile { inner: file?, watch: self.watch.clone() }))
    }
}

impl Disk for WatchedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(self.inner.create(path))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(self.inner.open(path))
    }
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.inner.open_read(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let result = self.inner.sync_dir(dir);
        self.watch.tell(Event::DirSync);
        result
    }
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.inner.create_dir_all(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.inner.list(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.inner.free_bytes(dir)
    }
}

#[derive(Debug)]
struct WatchedFile {
    inner: Arc<dyn DiskFile>,
    watch: Arc<Watch>,
}

impl DiskFile for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.inner.read_at(buffer, position)
    }
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.inner.write_at(bytes, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.watch.tell(Event::Sync);
        self.watch.pass();
        self.inner.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
}

struct Bench {
    disk: FaultyDisk,
    watch: Arc<Watch>,
    events: Receiver<Event>,
    pipeline: Pipeline,
    handle: PipelineHandle,
    answers: (Sender<Answer>, Receiver<Answer>),
}

type Answer = (u64, Result<Written, Error>);

/// No background files, no timers: what a test does not do does not happen.
fn quiet() -> (Options, PipelineOptions) {
    let options =
        Options { prepared_files: 0, clock: Arc::new(RealClock::new()), ..common::options() };
    let threads = PipelineOptions {
        queue_groups_max: 2,
        idle_ms: 0,
        relaxed_sync_ms_max: 3_600_000,
        ..PipelineOptions::default()
    };
    (options, threads)
}

impl Bench {
    fn new(disk: FaultyDisk, options: Options, threads: PipelineOptions) -> Bench {
        let (sender, events) = channel();
        let watch = Arc::new(Watch {
            events: Mutex::new(sender),
            closed: Mutex::new(false),
            changed: Condvar::new(),
        });
        let watched = Arc::new(WatchedDisk { inner: disk.clone(), watch: watch.clone() });
        let (journal, _) = Journal::open(watched, &dir(), options, Epoch(1)).unwrap();
        let pipeline = Pipeline::start(journal, threads).unwrap();
        let handle = pipeline.handle();
        Bench { disk, watch, events, pipeline, handle, answers: channel() }
    }

    fn quiet() -> Bench {
        let (options, threads) = quiet();
        Bench::new(FaultyDisk::new(1), options, threads)
    }

    fn submit(&self, id: u64, durability: Durability) {
        let sender = self.answers.0.clone();
        let done = move |result| sender.send((id, result)).unwrap();
        self.handle.submit(group(id, 100), durability, done);
    }

    fn answer(&self) -> Answer {
        self.answers.1.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn event(&self) -> Event {
        self.events.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    /// Waits for a sync to begin.
    fn sync_begins(&self) {
        while self.event() != Event::Sync {}
    }

    fn written(&self, id: u64) -> Written {
        let (answered, result) = self.answer();
        assert_eq!(answered, id);
        result.unwrap()
    }

    fn recovered(&self) -> Vec<(u64, u64)> {
        let (_, recovered) = common::open(&self.disk, 2).unwrap();
        read_all(&recovered).unwrap().into_iter().filter(|(_, id)| *id != 0).collect()
    }
}

/// For what has no event to wait for; gives up after 20 seconds.
fn wait_until(reached: impl Fn() -> bool) {
    let clock = RealClock::new();
    while !reached() {
        assert!(clock.monotonic_ns() < 20_000_000_000, "it never happened");
        std::thread::yield_now();
    }
}

#[test]
fn groups_are_answered_in_order_and_a_shutdown_is_clean() {
    let bench = Bench::quiet();
    for id in 1..=50 {
        bench.submit(id, if id % 5 == 0 { Durability::Relaxed } else { Durability::Sync });
    }
    for id in 1..=50 {
        assert_eq!(bench.written(id).sequence, GroupSequence(id));
    }
    let stats = bench.handle.stats();
    assert_eq!((stats.groups, stats.waiting, stats.failures), (50, 0, 0));
    assert!(stats.syncs >= 1 && stats.bytes > 50 * 100);
    bench.pipeline.shutdown().unwrap();
    let (_, recovered) = common::open(&bench.disk, 2).unwrap();
    assert!(recovered.is_clean_shutdown());
    assert_eq!(read_all(&recovered).unwrap().len(), 50);
    let sender = bench.answers.0.clone();
    bench.handle.submit(group(9, 1), Durability::Sync, move |result| {
        sender.send((9, result)).unwrap();
    });
    assert!(matches!(bench.answers.1.recv().unwrap(), (9, Err(Error::Closed))));
}

#[test]
fn waiting_groups_share_a_sync() {
    let bench = Bench::quiet();
    bench.submit(1, Durability::Sync);
    bench.written(1);
    while bench.events.try_recv().is_ok() {}
    bench.watch.close();
    bench.submit(2, Durability::Sync);
    bench.sync_begins();
    bench.submit(3, Durability::Sync);
    bench.submit(4, Durability::Relaxed);
    // The queue is full now.
    let given_back = bench.handle.try_submit(group(5, 1), Durability::Sync, |result| {
        assert!(matches!(result, Err(Error::Closed)));
    });
    assert!(!given_back.unwrap_err().into_group().is_empty());
    assert_eq!(bench.handle.stats().waiting, 2);
    assert!(bench.answers.1.try_recv().is_err());
    bench.watch.open();
    for id in 2..=4 {
        bench.written(id);
    }
    bench.sync_begins();
    assert!(bench.events.try_recv().is_err(), "three groups, two syncs");
}

#[test]
fn after_a_failed_sync_nothing_built_on_it_is_written() {
    let bench = Bench::quiet();
    bench.submit(1, Durability::Sync);
    bench.written(1);
    while bench.events.try_recv().is_ok() {}
    bench.watch.close();
    bench.disk.fail_sync(bench.disk.syncs() + 1);
    bench.submit(2, Durability::Sync);
    bench.sync_begins();
    bench.submit(3, Durability::Sync);
    bench.submit(4, Durability::Relaxed);
    bench.watch.open();
    let (id, result) = bench.answer();
    let error = result.unwrap_err();
    assert!(id == 2 && !error.is_definite(), "{error}");
    for wanted in [3, 4] {
        let (id, result) = bench.answer();
        let error = result.unwrap_err();
        assert_eq!(id, wanted);
        assert!(matches!(error, Error::Behind { failure: 1 }) && error.is_definite(), "{error}");
    }
    // Still nothing, until the submitter has taken note.
    bench.submit(5, Durability::Sync);
    assert!(matches!(bench.answer(), (5, Err(Error::Behind { .. }))));
    assert_eq!(bench.handle.reset(), Resume { failure: 1, last_kept: GroupSequence(1) });
    bench.submit(6, Durability::Sync);
    assert_eq!(bench.written(6).sequence, GroupSequence(2));
    assert_eq!(bench.recovered(), vec![(1, 1), (2, 6)]);
}

#[test]
fn settling_makes_the_failed_absent() {
    let bench = Bench::quiet();
    bench.submit(1, Durability::Sync);
    bench.written(1);
    bench.disk.fail_sync(bench.disk.syncs() + 1);
    bench.submit(2, Durability::Sync);
    assert!(bench.answer().1.is_err());
    assert_eq!(bench.recovered(), vec![(1, 1), (2, 2)]);
    let sender = bench.answers.0.clone();
    bench.handle.settle(move |result| {
        result.unwrap();
        sender.send((0, Err(Error::Closed))).unwrap();
    });
    assert_eq!(bench.answer().0, 0);
    assert_eq!(bench.recovered(), vec![(1, 1)]);
}

#[test]
fn a_full_disk_needs_no_restart() {
    let (options, threads) = quiet();
    let disk = FaultyDisk::new(1);
    disk.set_capacity(30 << 10);
    let bench = Bench::new(disk, options, threads);
    let mut kept = 0;
    let error = loop {
        bench.submit(kept + 1, Durability::Sync);
        match bench.answer().1 {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full { .. }) && error.is_definite() && kept == 5, "{error}");
    for _ in 0..3 {
        assert_eq!(bench.handle.reset().last_kept, GroupSequence(kept));
        bench.submit(kept + 1, Durability::Sync);
        assert!(matches!(bench.answer().1, Err(Error::Full { .. })));
    }
    bench.disk.set_capacity(u64::MAX);
    bench.handle.reset();
    bench.submit(kept + 1, Durability::Sync);
    bench.written(kept + 1);
    assert_eq!(bench.recovered().len() as u64, kept + 1);
}

#[test]
fn a_relaxed_group_is_answered_before_its_sync_which_follows() {
    let (options, threads) = quiet();
    let (sender, synced) = channel();
    let threads = PipelineOptions {
        relaxed_sync_ms_max: 1,
        on_sync: Some(Arc::new(move |_, bytes| sender.send(bytes).unwrap())),
        ..threads
    };
    let bench = Bench::new(FaultyDisk::new(1), options, threads);
    bench.watch.close();
    // Making the file needs a sync, too.
    bench.watch.open();
    bench.submit(1, Durability::Relaxed);
    bench.written(1);
    assert_eq!(synced.recv_timeout(Duration::from_secs(20)).unwrap(), 4096);
    bench.watch.close();
    bench.submit(2, Durability::Relaxed);
    bench.written(2);
    bench.watch.open();
    assert_eq!(synced.recv_timeout(Duration::from_secs(20)).unwrap(), 4096);
}

#[test]
fn relaxed_groups_that_are_lost_after_their_answer_are_told_of() {
    let (options, threads) = quiet();
    let (sender, failures) = channel();
    let threads = PipelineOptions {
        relaxed_sync_ms_max: 1,
        on_failure: Some(Arc::new(move |error: &Error, resume| {
            sender.send((error.is_definite(), resume)).unwrap();
        })),
        ..threads
    };
    let bench = Bench::new(FaultyDisk::new(1), options, threads);
    bench.submit(1, Durability::Sync);
    bench.written(1);
    bench.disk.fail_sync(bench.disk.syncs() + 1);
    bench.submit(2, Durability::Relaxed);
    bench.written(2);
    let told = failures.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(told, (false, Resume { failure: 1, last_kept: GroupSequence(1) }));
    bench.submit(3, Durability::Relaxed);
    assert!(matches!(bench.answer(), (3, Err(Error::Behind { .. }))));
    assert_eq!(bench.handle.reset(), told.1);
    bench.submit(4, Durability::Sync);
    assert_eq!(bench.written(4).sequence, GroupSequence(2));
}

#[test]
fn a_mark_follows_when_idle() {
    let (options, threads) = quiet();
    let threads = PipelineOptions { idle_ms: 1, ..threads };
    let bench = Bench::new(FaultyDisk::new(1), options, threads);
    bench.submit(1, Durability::Sync);
    let written = bench.written(1);
    // The file is made, the group synced, and then the mark.
    for _ in 0..3 {
        bench.sync_begins();
    }
    let sender = bench.answers.0.clone();
    bench.handle.settle(move |_| sender.send((0, Err(Error::Closed))).unwrap());
    assert_eq!(bench.answer().0, 0);
    // With the mark, damage to the group is known for what it is.
    bench.disk.corrupt(&path_of(written.file.0), written.position + 70, 0).unwrap();
    assert!(matches!(common::open(&bench.disk, 2), Err(Error::Damaged { .. })));
}

#[test]
fn files_are_prepared_and_released_in_the_background() {
    let (options, threads) = quiet();
    let options = Options { prepared_files: 2, ..options };
    let bench = Bench::new(FaultyDisk::new(1), options, threads);
    wait_until(|| bench.handle.maintenance().missing_files() == 0);
    assert_eq!(bench.disk.files().len(), 2);
    for id in 1..=20 {
        bench.submit(id, Durability::Sync);
        bench.written(id);
    }
    let files = bench.handle.maintenance().files();
    assert!(files.len() >= 4);
    let newest = files.last().unwrap().0;
    bench.handle.release_through(FileId(newest.0 - 1));
    wait_until(|| bench.handle.maintenance().files().len() == 1);
    assert_eq!(bench.handle.maintenance().files()[0].0, newest);
    let pinned = bench.handle.reader().pin(newest).unwrap().unwrap();
    assert_eq!(pinned.read(0, 4).unwrap()[..], *b"AQJF");
    bench.pipeline.shutdown().unwrap();
}

#[test]
fn group_memory_is_used_again() {
    let bench = Bench::quiet();
    bench.submit(1, Durability::Sync);
    bench.written(1);
    bench.submit(2, Durability::Sync);
    bench.written(2);
    let group = bench.handle.group(0);
    assert!(group.is_empty() && group.len_bytes() == 64);
}
