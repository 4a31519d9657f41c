//! The ledger without threads.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use aquifer_catalog::{Catalog, Change, Check, Snapshot};
use aquifer_env::{Clock, CrashChoice, Disk, FaultyDisk, MockClock, Random, SeededRandom};
use aquifer_types::{Batch, StreamClass, Timestamp};
use parking_lot::Mutex;

use super::model::{Model, content_of};
use super::transactions::check_visible;
use crate::Error;
use crate::ledger::hot_state::HotState;
use crate::ledger::local::Parts;
use crate::ledger::recovery;
use crate::ledger::sequencer::{Commit, Committed};
use crate::metrics::Metrics;
use crate::options::Options;

type Results = Arc<Mutex<BTreeMap<u64, Result<Committed, Error>>>>;

pub(super) struct Driver {
    pub(super) disk: FaultyDisk,
    pub(super) clock: Arc<MockClock>,
    options: Arc<Options>,
    /// The running ledger; none before a start, or after one that failed.
    pub(super) parts: Option<Parts>,
    /// What the catalog may hold after a crash; the last is what it holds.
    catalogs: Vec<Snapshot>,
    pub(super) model: Model,
    results: Results,
    /// Commits that were given in and not yet decided, oldest first.
    waiting: VecDeque<(u64, Commit)>,
    /// The state behind the last group that was written.
    settled: HotState,
    added: u64,
    /// Whether the disk may refuse without having crashed.
    pub(super) is_faulty: bool,
}

pub(super) fn options() -> Options {
    Options {
        data: PathBuf::from("/data"),
        journal_file_bytes: 24 << 10,
        group_bytes_max: 8 << 10,
        commit_bytes_max: 64 << 10,
        disk_reserve_bytes: 8 << 10,
        tail_cache_bytes_max: 16 << 10,
        ..Options::default()
    }
}

impl Driver {
    pub(super) fn new(disk: FaultyDisk) -> Self {
        Self {
            disk,
            clock: Arc::new(MockClock::new(1_700_000_000_000)),
            options: Arc::new(options()),
            parts: None,
            catalogs: vec![Snapshot::default()],
            model: Model::default(),
            results: Results::default(),
            waiting: VecDeque::new(),
            settled: HotState::default(),
            added: 0,
            is_faulty: false,
        }
    }

    /// Sets limits before the first start.
    pub(super) fn limit(&mut self, change: impl FnOnce(&mut Options)) {
        change(Arc::make_mut(&mut self.options));
    }

    /// Goes on with what a power cut left; the catalog is at some state that it
    /// had since its log was folded in last.
    pub(super) fn after_crash(&self, choice: CrashChoice) -> Self {
        let mut catalogs = self.catalogs.clone();
        let kept = match choice {
            CrashChoice::LoseAll => 1,
            CrashChoice::KeepAll => catalogs.len(),
            CrashChoice::Subset(seed) | CrashChoice::Random(seed) => {
                1 + SeededRandom::new(seed).next_u64() as usize % catalogs.len()
            }
        };
        catalogs.truncate(kept);
        Self {
            disk: self.disk.crash(choice),
            clock: self.clock.clone(),
            options: self.options.clone(),
            parts: None,
            catalogs,
            model: self.model.clone(),
            results: Results::default(),
            waiting: VecDeque::new(),
            settled: HotState::default(),
            added: self.added,
            is_faulty: false,
        }
    }

    /// The process dies; the page cache and the catalog stay.
    pub(super) fn kill(&mut self) {
        self.parts = None;
        self.waiting.clear();
    }

    /// What a start comes to, and nothing of what it must come to.
    pub(super) fn start_raw(&mut self) -> Result<HotState, Error> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let clock: Arc<dyn Clock> = self.clock.clone();
        let state = self.catalogs.last().expect("a state");
        recovery::recover(&disk, &clock, &self.options, catalog_of(state))
            .map(|recovery| recovery.hot)
    }

    pub(super) fn start(&mut self, what: &str) -> Result<(), Error> {
        self.start_unchecked(what)?;
        self.check(what);
        Ok(())
    }

    /// A start, without a look at what readers see.
    pub(super) fn start_unchecked(&mut self, what: &str) -> Result<(), Error> {
        self.kill();
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let clock: Arc<dyn Clock> = self.clock.clone();
        let state = self.catalogs.last().expect("a state");
        let recovery = match recovery::recover(&disk, &clock, &self.options, catalog_of(state)) {
            Ok(recovery) => recovery,
            Err(error) => {
                let text = error.to_string();
                let is_wrong = ["INV-", "journal begins", "journal ends", "internal"];
                assert!(
                    (self.disk.is_crashed() || self.is_faulty)
                        && !is_wrong.iter().any(|wrong| text.contains(wrong)),
                    "{what}: the start was refused: {error}"
                );
                return Err(error);
            }
        };
        let epoch = recovery.report.epoch;
        let metrics = Arc::new(Metrics::register(&mut Default::default()));
        let parts = Parts::new(recovery, self.options.clone(), clock, disk, metrics);
        self.catalogs.push(parts.keeper.catalog.load().expect("rows"));
        let hot = parts.shared.core.lock().sequencer.hot.clone();
        self.parts = Some(parts);
        self.model.recovered(&hot, epoch, what);
        self.settled = hot;
        Ok(())
    }

    pub(super) fn hot(&self) -> HotState {
        let parts = self.parts.as_ref().expect("a running ledger");
        parts.shared.core.lock().sequencer.hot.clone()
    }

    /// Decides a commit; its answer comes when its group is written.
    pub(super) fn add(&mut self, commit: Commit) {
        let Some(parts) = &self.parts else { return };
        let (number, results) = (self.added, self.results.clone());
        self.added += 1;
        self.waiting.push_back((number, commit.clone()));
        let reply = Box::new(move |result| {
            assert!(results.lock().insert(number, result).is_none(), "answered twice");
        });
        let now = Timestamp(self.clock.now_ms());
        parts.shared.core.lock().add(commit, reply, now);
    }

    /// Writes one group; `behind` is decided while it is written.
    pub(super) fn write(&mut self, behind: Vec<Commit>) {
        let Some(parts) = &mut self.parts else { return };
        {
            let core = parts.shared.core.lock();
            if core.assembly.replies.is_empty() && core.backlog.is_empty() {
                return;
            }
        }
        let assembly = parts.writer.take().expect("a group");
        let expected = parts.shared.core.lock().sequencer.hot.clone();
        let decided: Vec<_> = assembly.replies.iter().map(|(_, decided)| decided.clone()).collect();
        let (must_sync, is_empty) = (assembly.must_sync, assembly.group.is_empty());
        assert_eq!(is_empty, assembly.facts.is_empty());
        for commit in behind {
            self.add(commit);
        }
        let Some(parts) = &mut self.parts else { return };
        let behind = parts.shared.core.lock().assembly.replies.len();
        let next = parts.writer.write(assembly, false);
        assert!(next.is_none());
        // The keeper may look before the publisher comes to it.
        parts.keeper.apply_catalog().expect("a catalog in memory");
        parts.shared.publish_waiting();
        let mut results = std::mem::take(&mut *self.results.lock());
        let mut failure = None;
        for decided in decided {
            let (number, commit) = self.waiting.pop_front().expect("a commit");
            let result = results.remove(&number).expect("an answer");
            match (decided, result) {
                (Ok(decided), Ok(committed)) => {
                    assert_eq!(decided.outcomes, committed.outcomes);
                    self.model.perhaps(&commit);
                    self.model.acknowledge(commit, &committed, &expected);
                }
                (Err(decided), Err(error)) if decided.to_string() == error.to_string() => {
                    self.model.refuse(&error);
                }
                (_, Err(error)) => {
                    self.model.failed += 1;
                    if !error.is_definite() {
                        self.model.perhaps(&commit);
                    }
                    failure = Some(error);
                }
                (Err(decided), Ok(_)) => panic!("a refusal became an answer: {decided}"),
            }
        }
        let hot = parts.shared.core.lock().sequencer.hot.clone();
        if let Some(error) = failure {
            assert!(!is_empty || self.disk.is_crashed(), "nothing was written, yet: {error}");
            for _ in 0..behind {
                let (number, _) = self.waiting.pop_front().expect("a commit");
                let error = results.remove(&number).expect("an answer").expect_err("a failure");
                assert!(error.is_definite(), "behind a failure: {error}");
            }
            assert!(hot == self.settled, "the state was not taken back: {error}");
            if !error.is_definite() {
                self.model.possible(&expected);
            }
        } else {
            if must_sync {
                self.model.durable(&expected);
                self.model.use_epoch();
            } else if !is_empty {
                self.model.possible(&expected);
            }
            self.settled = expected;
        }
        assert!(results.is_empty(), "answered before it was written: {results:?}");
    }

    /// Writes until nobody waits.
    pub(super) fn flush(&mut self) {
        while !self.waiting.is_empty() && self.parts.is_some() && !self.disk.is_crashed() {
            self.write(Vec::new());
        }
    }

    pub(super) fn idle(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        parts.writer.settle(false);
        let is_sound = parts.shared.failure.lock().is_none();
        if is_sound && parts.writer.journal.unsynced_bytes() == 0 && !self.disk.is_crashed() {
            self.model.durable(&self.settled.clone());
        }
    }

    /// What the keeper does.
    pub(super) fn keep(&mut self, is_releasing: bool) {
        let Some(parts) = &mut self.parts else { return };
        let result = parts.keeper.apply_catalog();
        result.expect("a catalog in memory");
        self.catalogs.push(parts.keeper.catalog.load().expect("rows"));
        parts.keeper.ask_for_snapshot();
        parts.keeper.store_waiting_snapshot();
        parts.keeper.keep_disk();
        if is_releasing {
            let before = (self.disk.operations(), self.disk.is_crashed());
            parts.keeper.release();
            if (self.disk.operations(), self.disk.is_crashed()) != before {
                // The catalog's log was folded in before.
                self.catalogs.drain(..self.catalogs.len() - 1);
            }
        }
    }

    pub(super) fn want_snapshot(&mut self) {
        let Some(parts) = &self.parts else { return };
        parts.shared.core.lock().wants_snapshot = true;
    }

    /// An orderly stop.
    pub(super) fn stop(&mut self) {
        self.flush();
        let Some(parts) = &mut self.parts else { return };
        parts.writer.stop();
        parts.shared.publish_waiting();
        let is_sound = parts.shared.failure.lock().is_none();
        if is_sound && parts.writer.journal.unsynced_bytes() == 0 && !self.disk.is_crashed() {
            self.model.durable(&self.settled.clone());
        }
        self.keep(false);
        let Some(parts) = &mut self.parts else { return };
        parts.keeper.finish();
        self.kill();
    }

    /// Checks that readers see what was decided, that the bytes are what was
    /// appended, and that the catalog agrees. Nothing may be waiting.
    pub(super) fn check(&mut self, what: &str) {
        let Some(parts) = &self.parts else { return };
        let hot = parts.shared.core.lock().sequencer.hot.clone();
        let index = &parts.shared.index;
        let mut known = BTreeMap::new();
        let mut tails = Vec::new();
        let mut oldest = None;
        for (at, stream, partition) in hot.all_partitions() {
            let published =
                index.stream(&stream.path).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(published.id, at.stream, "{what}: another stream has the name");
            assert_eq!(*published.config(), stream.config, "{what}");
            assert_eq!(published.partitions().len(), stream.partitions.len(), "{what}");
            let log = index.partition(at).unwrap_or_else(|| panic!("{what}: {at} is not seen"));
            let (seen, chunks, tail) = log.with(|state| {
                let seen = (state.start, state.tiered, state.end);
                (seen, state.chunks.clone(), state.tail.clone())
            });
            assert_eq!(seen, (partition.start, partition.tiered, partition.end), "{what}: {at}");
            let decided: Vec<_> = partition
                .chunks
                .iter()
                .map(|(base, chunk)| (*base, chunk.next, chunk.id))
                .collect();
            let seen: Vec<_> = chunks.iter().map(|c| (c.base, c.next, c.id)).collect();
            assert_eq!(seen, decided, "{what}: chunks of {at}");
            for chunk in chunks.iter() {
                for path in std::iter::once(&chunk.object_path).chain(&chunk.index_path) {
                    assert_eq!(known.insert(path.clone(), "live"), None, "{what}: {path}");
                }
            }
            let mut found = Vec::new();
            let mut batches = Vec::new();
            for entry in &tail {
                oldest = Some(oldest.map_or(entry.file, |oldest| entry.file.min(oldest)));
                let file = parts.reader.pin(entry.file).expect("a file");
                let file = file.unwrap_or_else(|| {
                    panic!("{what}: {at}: journal file {} of {} is gone", entry.file, entry.base)
                });
                let bytes = file.read(entry.position, entry.len.into()).expect("bytes");
                if let Some(cached) = index.tail_cache.get(entry.file, entry.position, bytes.len())
                {
                    assert!(cached == bytes, "{what}: {at}: the cache holds other bytes");
                }
                let batch = Batch::read(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(batch.header().base_offset, entry.base, "{what}: {at}");
                found.push((entry.base, entry.next, content_of(&batch)));
                batches.push((*entry, batch));
            }
            log.with(|state| {
                assert_eq!(state.transactions, partition.transactions, "{what}: {at}");
                let is_relaxed = stream.class == StreamClass::Relaxed;
                check_visible(at, state, &batches, is_relaxed, what);
            });
            tails.push((at, found));
        }
        assert_eq!(index.all_streams().len(), hot.streams.len(), "{what}: streams that are gone");
        assert_eq!(index.groups.read().0, hot.groups, "{what}: groups");
        assert_eq!(*index.documents.read(), hot.documents, "{what}: documents");
        assert_eq!(index.files.oldest(), oldest, "{what}: the oldest file with live batches");
        for intent in hot.intents.values() {
            assert_eq!(known.insert(intent.object_path.clone(), "intended"), None, "{what}");
        }
        for path in index.garbage.lock().keys() {
            let before = known.insert(path.clone(), "garbage");
            assert_eq!(before, None, "{what}: {path} is garbage");
        }
        self.model.check_objects(&known, what);
        self.model.check_transactions(&hot, what);
        for (at, found) in tails {
            self.model.check_tail(at, &hot, &found, what);
        }
        if parts.shared.catalog.len() == 0 {
            self.check_catalog(&hot, &known, what);
        }
    }

    fn check_catalog(&self, hot: &HotState, known: &BTreeMap<String, &'static str>, what: &str) {
        let Some(parts) = &self.parts else { return };
        let catalog = &parts.keeper.catalog;
        // The check of every row takes longer than all the rest together.
        if self.added.is_multiple_of(5) {
            let findings = catalog.integrity_check(Check::Full).expect("a check");
            assert!(findings.is_empty(), "{what}: {findings:?}");
        }
        let rows = catalog.load().expect("rows");
        let mut listed = BTreeMap::new();
        let of_chunks =
            rows.chunks.iter().flat_map(|row| [Some(&row.object_path), row.index_path.as_ref()]);
        listed.extend(of_chunks.flatten().map(|path| (path.clone(), "live")));
        listed.extend(rows.intents.iter().map(|row| (row.object_path.clone(), "intended")));
        listed.extend(rows.garbage.iter().map(|row| (row.object_path.clone(), "garbage")));
        assert_eq!(&listed, known, "{what}: the catalog's objects");
        assert_eq!(rows.streams.len(), hot.streams.len(), "{what}: the catalog's streams");
        assert_eq!(
            rows.partitions.len() as u64,
            hot.partitions,
            "{what}: the catalog's partitions"
        );
        for row in &rows.streams {
            let stream = hot.stream(aquifer_types::StreamId(row.stream_id)).expect("a stream");
            assert_eq!(row.partitions as usize, stream.partitions.len(), "{what}");
            let config = serde_json::to_string(&stream.config).expect("text");
            assert_eq!(row.config_json, config, "{what}");
        }
        for row in &rows.partitions {
            let stream = hot.stream(aquifer_types::StreamId(row.stream_id)).expect("a stream");
            let partition = &stream.partitions[row.partition as usize];
            assert_eq!(row.start_offset, partition.start.get(), "{what}: start in the catalog");
            assert_eq!(row.tiered_offset, partition.tiered.get(), "{what}: tiered in the catalog");
        }
    }
}

/// A catalog in memory that holds `state`.
fn catalog_of(state: &Snapshot) -> Catalog {
    let unchecked = aquifer_catalog::Options { check: None, ..Default::default() };
    let mut catalog = Catalog::open(":memory:", unchecked).expect("a catalog");
    let mut changes = Vec::new();
    changes.extend(state.streams.iter().cloned().map(Change::PutStream));
    changes.extend(state.partitions.iter().cloned().map(Change::PutPartition));
    changes.extend(state.chunks.iter().cloned().map(Change::PutChunk));
    changes.extend(state.garbage.iter().cloned().map(Change::AddGarbage));
    changes.extend(state.intents.iter().cloned().map(Change::PutIntent));
    changes.extend(state.tombstones.iter().cloned().map(Change::PutTombstone));
    if let Some(position) = state.position {
        catalog.apply(position, &changes).expect("rows");
    }
    catalog
}
