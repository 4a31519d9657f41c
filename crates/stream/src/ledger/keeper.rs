//! What can wait: the catalog, snapshots, journal files that nobody needs, and
//! room on the disk.
//!
//! The keeper applies what was published to the catalog, stores snapshots, and
//! releases journal files that lie below the oldest snapshot that is kept, the
//! catalog's position and every live batch. It prepares the next files ahead.
//! A crash at any point loses nothing: the journal still has it all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aquifer_catalog::{Catalog, Change};
use aquifer_journal::FileId;
use aquifer_types::GroupSequence;
use parking_lot::{Condvar, Mutex};

use super::event::Operation;
use super::local::Shared;
use super::recovery::Places;
use super::sequencer::Commit;
use super::snapshot;
use crate::Error;

/// How often the keeper looks without being told.
const INTERVAL: Duration = Duration::from_millis(500);
/// The longest pause before a catalog that failed is tried again.
const CATALOG_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often it is looked for what has aged, in ns.
const FORGET_INTERVAL_NS: u64 = 30_000_000_000;
/// Changes that go to the catalog in one transaction.
const CHANGES_MAX: usize = 10_000;

/// What was published and is not yet in the catalog.
pub(crate) struct CatalogQueue {
    state: Mutex<CatalogState>,
    changed: Condvar,
    /// Everything through it is in the catalog.
    applied: AtomicU64,
    /// Why it cannot be written, while it cannot.
    failure: Mutex<Option<String>>,
}

#[derive(Default)]
struct CatalogState {
    waiting: VecDeque<(GroupSequence, Vec<Change>)>,
    changes: usize,
    /// The last synced group that was published.
    published: GroupSequence,
    is_woken: bool,
    is_closed: bool,
}

impl CatalogQueue {
    pub(crate) fn new(applied: GroupSequence) -> Self {
        Self {
            state: Mutex::new(CatalogState { published: applied, ..CatalogState::default() }),
            changed: Condvar::new(),
            applied: AtomicU64::new(applied.get()),
            failure: Mutex::new(None),
        }
    }

    /// Takes in a group that was published. One that `is_synced` stands for all
    /// before it; the number of another may be given again when it is lost.
    pub(crate) fn push(&self, sequence: GroupSequence, changes: Vec<Change>, is_synced: bool) {
        let mut state = self.state.lock();
        if is_synced {
            state.published = sequence;
        }
        if changes.is_empty() {
            return;
        }
        state.changes += changes.len();
        state.waiting.push_back((sequence, changes));
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn wake(&self) {
        self.state.lock().is_woken = true;
        self.changed.notify_one();
    }

    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_one();
    }

    /// Why the catalog cannot be written, while it cannot.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Changes that wait for the catalog.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().changes
    }
}

pub(crate) struct Keeper {
    shared: Arc<Shared>,
    pub(super) catalog: Catalog,
    places: Places,
    /// Everything through it is in the oldest snapshot that is kept.
    snapshot_oldest: GroupSequence,
    /// Everything through it is in the newest snapshot of this run.
    snapshot_newest: GroupSequence,
    /// Journal bytes written when the last snapshot was asked for.
    snapshot_at_bytes: u64,
    /// After a failure the catalog is not tried before, on the monotonic clock.
    catalog_not_before_ns: u64,
    catalog_pause: Duration,
    /// When what had aged was last forgotten, on the monotonic clock.
    forgot_at_ns: u64,
    /// The disk has no room for the next file or the reserve; said once.
    is_short_of_room: bool,
}

impl Keeper {
    pub(crate) fn new(
        shared: Arc<Shared>,
        catalog: Catalog,
        snapshot_oldest: GroupSequence,
    ) -> Self {
        let places = Places::new(&shared.options);
        Self {
            shared,
            catalog,
            places,
            snapshot_oldest,
            snapshot_newest: GroupSequence(0),
            snapshot_at_bytes: 0,
            catalog_not_before_ns: 0,
            catalog_pause: INTERVAL,
            forgot_at_ns: 0,
            is_short_of_room: false,
        }
    }

    pub(crate) fn run(mut self) {
        loop {
            let is_closed = self.wait();
            self.keep_catalog(is_closed);
            self.ask_for_snapshot();
            self.store_waiting_snapshot();
            if is_closed {
                self.finish();
                return;
            }
            // First: a released file need not be made.
            self.release();
            self.keep_disk();
            self.forget_aged();
            if self.shared.maintenance.missing_files() > 0 && !self.is_short_of_room {
                self.shared.catalog.wake();
            }
        }
    }

    /// Walks over all partitions under the ledger's lock: not often.
    fn forget_aged(&mut self) {
        let now_ns = self.shared.clock.monotonic_ns();
        let is_due = now_ns.saturating_sub(self.forgot_at_ns) >= FORGET_INTERVAL_NS;
        let answers = self.shared.core.lock().sequencer.hot.answers.len();
        if is_due || answers > self.shared.options.idempotency_keys_max {
            self.forgot_at_ns = now_ns;
            self.shared.core.lock().sequencer.forget_aged();
        }
    }

    fn wait(&self) -> bool {
        let queue = &self.shared.catalog;
        let mut state = queue.state.lock();
        if state.waiting.is_empty() && !state.is_woken && !state.is_closed {
            queue.changed.wait_for(&mut state, INTERVAL);
        }
        state.is_woken = false;
        state.is_closed
    }

    /// Applies what waits; after a failure not at once again.
    pub(super) fn keep_catalog(&mut self, is_last: bool) {
        let now_ns = self.shared.clock.monotonic_ns();
        if now_ns < self.catalog_not_before_ns && !is_last {
            return;
        }
        match self.apply_catalog() {
            Ok(()) => {
                self.catalog_pause = INTERVAL;
                if self.shared.catalog.failure.lock().take().is_some() {
                    tracing::info!("the catalog can be written again");
                }
            }
            Err(error) => {
                let pause_ns = u64::try_from(self.catalog_pause.as_nanos()).unwrap_or(u64::MAX);
                self.catalog_not_before_ns = now_ns.saturating_add(pause_ns);
                self.catalog_pause = (self.catalog_pause * 2).min(CATALOG_PAUSE_MAX);
                if self.shared.catalog.failure.lock().replace(error.to_string()).is_none() {
                    tracing::error!(%error, "the catalog could not be written, it is tried again");
                }
            }
        }
    }

    /// Applies what waits, a transaction for all of it.
    pub(super) fn apply_catalog(&mut self) -> Result<(), Error> {
        let queue = &self.shared.catalog;
        loop {
            let mut state = queue.state.lock();
            let mut taken = Vec::new();
            let mut changes = 0;
            while changes < CHANGES_MAX
                && let Some((sequence, some)) = state.waiting.pop_front()
            {
                changes += some.len();
                taken.push((sequence, some));
            }
            // With nothing left, the catalog stands where publishing stands.
            let through = match state.waiting.front() {
                Some((next, _)) => GroupSequence(next.get() - 1),
                None => state.published,
            };
            drop(state);
            let is_due = !taken.is_empty() || self.lags_by_a_file(through);
            if !is_due {
                return Ok(());
            }
            let all: Vec<Change> = taken.iter().flat_map(|(_, some)| some.clone()).collect();
            if let Err(error) = self.catalog.apply(through.get(), &all) {
                let mut state = queue.state.lock();
                for entry in taken.into_iter().rev() {
                    state.waiting.push_front(entry);
                }
                return Err(Error::Catalog(error.to_string()));
            }
            queue.state.lock().changes -= changes;
            queue.applied.store(through.get(), Ordering::Release);
            if taken.is_empty() {
                return Ok(());
            }
        }
    }

    /// Whether the catalog's position alone keeps a journal file.
    fn lags_by_a_file(&self, through: GroupSequence) -> bool {
        let applied = GroupSequence(self.shared.catalog.applied.load(Ordering::Acquire));
        if through <= applied {
            return false;
        }
        let firsts = self.shared.first_sequences.lock();
        firsts.values().any(|first| *first > applied && *first <= through)
    }

    pub(super) fn ask_for_snapshot(&mut self) {
        let written = self.shared.journal_bytes_written.load(Ordering::Relaxed);
        let options = &self.shared.options;
        // Two snapshots lie within the journal's limit, however small it is.
        let interval = options.snapshot_journal_bytes.min(options.journal_bytes_max / 8);
        if written - self.snapshot_at_bytes >= interval {
            self.snapshot_at_bytes = written;
            self.shared.core.lock().wants_snapshot = true;
        } else if self.pinned_by_snapshots() >= interval {
            self.cut_snapshot();
        }
    }

    /// Bytes of journal files that nothing but the snapshots' age keeps. They
    /// grow over many short runs, and when everything is tiered while the
    /// journal is too full for more.
    fn pinned_by_snapshots(&self) -> u64 {
        let applied = self.shared.catalog.applied.load(Ordering::Acquire);
        let live = self.shared.index.files.oldest();
        let sizes: BTreeMap<_, _> = self.shared.maintenance.files().into_iter().collect();
        let firsts: Vec<_> = self.shared.first_sequences.lock().clone().into_iter().collect();
        let mut pinned = 0;
        for pair in firsts.windows(2) {
            let [(file, _), (_, next_first)] = pair else { continue };
            if next_first.get() > applied + 1 || live.is_some_and(|live| *file >= live) {
                break;
            }
            if next_first.get() > self.snapshot_oldest.get() + 1 {
                pinned += sizes.get(file).copied().unwrap_or(0);
            }
        }
        pinned
    }

    /// Stores a snapshot where nothing is being written, and otherwise lets the
    /// writer cut one.
    fn cut_snapshot(&mut self) {
        let mut core = self.shared.core.lock();
        // Read under the lock: every fact of the state is in a group through it,
        // but for relaxed appends, which are replayed to no effect.
        let synced = GroupSequence(self.shared.last_synced.load(Ordering::Acquire));
        if !core.in_flight.is_empty() || !core.assembly.replies.is_empty() {
            core.wants_snapshot = true;
            return;
        }
        if synced <= self.snapshot_newest {
            // It is the one before that keeps them, and appends may wait for the
            // room: the next one is cut behind a fact that says nothing.
            let nothing = Operation::CollectGarbage { object_paths: Vec::new() };
            core.add(Commit::of(vec![nothing]), Box::new(|_| ()), self.shared.now());
            drop(core);
            self.shared.work.notify_one();
            return;
        }
        let hot = core.sequencer.hot.clone();
        drop(core);
        self.store_snapshot(&hot, synced);
    }

    /// Stores the snapshot that the writer cut, if it did.
    pub(super) fn store_waiting_snapshot(&mut self) {
        let snapshot = self.shared.snapshot.lock().take();
        if let Some((hot, sequence)) = snapshot {
            self.store_snapshot(&hot, sequence);
        }
    }

    fn store_snapshot(&mut self, hot: &super::hot_state::HotState, sequence: GroupSequence) {
        match snapshot::write(&*self.shared.disk, &self.places.ledger, hot, sequence) {
            Ok(oldest) => {
                self.snapshot_oldest = oldest;
                self.snapshot_newest = sequence;
            }
            Err(error) => tracing::error!(%error, "the snapshot could not be stored"),
        }
    }

    /// The last snapshot of an orderly stop, so that the next start is short.
    pub(super) fn finish(&mut self) {
        let (hot, sequence) = {
            let core = self.shared.core.lock();
            let sequence = GroupSequence(self.shared.last_synced.load(Ordering::Acquire));
            (core.sequencer.hot.clone(), sequence)
        };
        if sequence.get() > 0 {
            self.store_snapshot(&hot, sequence);
        }
        if let Err(error) = self.catalog.checkpoint() {
            tracing::warn!(%error, "the catalog's log could not be folded in");
        }
    }

    /// Prepares a journal file if one is missing; when the disk is full gives the reserve up, and
    /// takes it back when there is room.
    pub(super) fn keep_disk(&mut self) {
        let maintenance = &self.shared.maintenance;
        // One at a time: while appends take files as fast as they are made, the
        // journal's old ones must be released all the same.
        let error = maintenance.prepare_next().err();
        let is_full = self.shared.is_disk_full.load(Ordering::Acquire);
        let result = match error {
            None => maintenance.fill_reserve(),
            Some(failed) => Err(failed),
        };
        match result {
            Ok(()) => {
                if self.shared.is_disk_full.swap(false, Ordering::AcqRel) {
                    *self.shared.failure.lock() = None;
                    tracing::info!("the disk has room again: appends are taken");
                }
                self.is_short_of_room = false;
            }
            Err(error) if !self.is_short_of_room => {
                self.is_short_of_room = true;
                tracing::warn!(%error, "no room is left to prepare a journal file and the reserve");
            }
            Err(error) => tracing::debug!(%error, "there is still no room"),
        }
        if is_full && self.shared.is_disk_full.load(Ordering::Acquire) {
            match self.shared.maintenance.release_reserve() {
                Ok(true) => {
                    tracing::warn!("the disk is full: its reserve goes to tiering and truncation");
                    self.shared.catalog.wake();
                }
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the reserve cannot be released"),
            }
        }
    }

    /// Gives journal files up that nobody needs.
    pub(super) fn release(&mut self) {
        let applied = GroupSequence(self.shared.catalog.applied.load(Ordering::Acquire));
        let needed = applied.min(self.snapshot_oldest);
        let live = self.shared.index.files.oldest();
        // A file is needed unless the next one begins at or below what follows
        // the snapshot and the catalog.
        let mut through: Option<FileId> = None;
        let firsts = self.shared.first_sequences.lock().clone();
        let files: Vec<_> = firsts.into_iter().collect();
        for pair in files.windows(2) {
            let [(file, _), (_, next_first)] = pair else { continue };
            if next_first.get() > needed.get() + 1 || live.is_some_and(|live| *file >= live) {
                break;
            }
            through = Some(*file);
        }
        let Some(through) = through else { return };
        if let Err(error) = self.catalog.checkpoint() {
            tracing::warn!(%error, "the catalog's log could not be folded in");
            return;
        }
        match self.shared.maintenance.release_through(through) {
            Ok(_) => {
                self.shared.first_sequences.lock().retain(|file, _| *file > through);
                self.shared.count_journal_bytes();
            }
            Err(error) => tracing::warn!(%error, "journal files could not be released"),
        }
    }
}
