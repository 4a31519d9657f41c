//! Whoever has the journal: takes what was assembled, writes it, syncs it and
//! hands it on to be published.
//!
//! That is the writer's thread where callers wait side by side. A caller that
//! finds the journal idle writes its own group ([`Writer::write_here`]), because
//! waking another thread and being woken by it would cost a lone caller more
//! than half of a sync. `is_writing` says that somebody does, and changes under
//! the core's lock only; the order of groups is that of holding the writer.
//!
//! A crash before the sync leaves nothing that anybody was told of; after it,
//! everything of the group. When writing fails, what was decided on top of the
//! failed group is taken back and answered, before anything else is decided.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aquifer_env::tasks::{self, Priority};
use aquifer_journal::{Durability, FileId, GroupBuilder, Journal, Written};
use aquifer_types::GroupSequence;
use bytes::Bytes;
use parking_lot::Mutex;

use super::local::{Core, Shared};
use super::publisher::{Held, Publication};
use super::recovery::from_journal;
use super::sequencer::Assembly;
use crate::Error;

/// Without work for this long, a sync mark is written.
const IDLE_MARK: Duration = Duration::from_millis(200);
/// The longest pause before a journal that failed is settled again.
const SETTLE_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Groups below this part of the largest are copied for the cache, so that a
/// small group does not hold the memory of a large one.
const COPIED_PART: usize = 4;

pub(crate) struct Writer {
    shared: Arc<Shared>,
    pub(super) journal: Journal,
    spare: Option<GroupBuilder>,
    /// A synced group that is handed on once the next one is written: then the
    /// disk has work while its callers are woken, who want the processor.
    synced: Option<Publication>,
    /// The last group with facts in it: sync marks have numbers of their own.
    last_written: u64,
    /// The file whose first group is known to the keeper.
    noted_file: Option<FileId>,
    /// Since when there is a group that is written and not synced.
    unsynced_since_ns: Option<u64>,
    /// Whether relaxed groups that were answered are lost: then the stop is not
    /// clean, so that the next start gives none of their offsets again.
    has_lost: bool,
    /// After a failure nothing is settled before, on the monotonic clock, but at
    /// a stop.
    settle_not_before_ns: u64,
    settle_pause: Duration,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, journal: Journal) -> Self {
        let last_written = shared.last_synced.load(Ordering::Acquire);
        Self {
            shared,
            journal,
            spare: None,
            synced: None,
            last_written,
            noted_file: None,
            unsynced_since_ns: None,
            has_lost: false,
            settle_not_before_ns: 0,
            settle_pause: IDLE_MARK,
        }
    }

    /// The writer's thread: until the ledger stops and nothing waits.
    pub(crate) fn run(writer: &Mutex<Self>, shared: &Shared) {
        // Whoever it wakes should not keep it from writing the next group.
        tasks::set_priority(Priority::High);
        let mut unsynced_bytes = 0;
        loop {
            match shared.wait_for_turn(unsynced_bytes > 0) {
                Turn::Write => {
                    let mut writer = writer.lock();
                    let mut next = writer.take();
                    while let Some(assembly) = next {
                        next = writer.write(assembly, true);
                    }
                    unsynced_bytes = writer.journal.unsynced_bytes();
                }
                Turn::Settle => {
                    let mut writer = writer.lock();
                    writer.settle(false);
                    unsynced_bytes = writer.journal.unsynced_bytes();
                    shared.end_turn(&mut shared.core.lock());
                }
                Turn::Stop => return writer.lock().stop(),
            }
        }
    }

    /// Writes one group from the thread of a caller that found
    /// nobody writing and said that it does.
    pub(crate) fn write_here(&mut self) {
        match self.take() {
            Some(assembly) => {
                let _ = self.write(assembly, false);
            }
            None => self.shared.end_turn(&mut self.shared.core.lock()),
        }
    }

    pub(super) fn stop(&mut self) {
        // What was published is in the journal: the mark says that it is whole.
        self.settle(true);
        self.shared.publishing.close();
    }

    /// The next group, if anything waits.
    pub(super) fn take(&mut self) -> Option<Assembly> {
        let shared = self.shared.clone();
        let mut core = shared.core.lock();
        self.take_from(&mut core)
    }

    fn take_from(&mut self, core: &mut Core) -> Option<Assembly> {
        if core.assembly.replies.is_empty() && !core.backlog.is_empty() {
            core.drain_backlog(self.shared.now());
        }
        if core.assembly.replies.is_empty() {
            return None;
        }
        let fresh = Assembly { group: self.spare(), ..Assembly::new(0) };
        let mut assembly = std::mem::replace(&mut core.assembly, fresh);
        core.in_flight = std::mem::take(&mut assembly.undos);
        core.groups_taken += 1;
        if core.wants_snapshot && assembly.must_sync {
            core.wants_snapshot = false;
            // Everything decided so far is in this group or before it.
            let hot = core.sequencer.hot.clone();
            assembly.snapshot = Some(Box::new(hot));
        }
        Some(assembly)
    }

    /// An empty group, in memory that was used before where there is some: fresh
    /// memory of this size is given out by the system page by page.
    fn spare(&mut self) -> GroupBuilder {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let capacity = self.shared.options.group_bytes_max;
        match self.shared.index.tail_cache.take_spare(capacity) {
            Some(buffer) => GroupBuilder::reusing(buffer),
            None => GroupBuilder::new(capacity),
        }
    }

    /// Makes certain what is only written, and says so.
    pub(super) fn settle(&mut self, is_clean: bool) {
        let now_ns = self.shared.clock.monotonic_ns();
        if now_ns < self.settle_not_before_ns && !is_clean {
            return;
        }
        match self.journal.settle().and_then(|()| self.journal.sync()) {
            Ok(()) => {
                self.note_synced();
                self.recovered();
            }
            Err(error) => {
                let pause_ns = u64::try_from(self.settle_pause.as_nanos()).unwrap_or(u64::MAX);
                self.settle_not_before_ns = now_ns.saturating_add(pause_ns);
                self.settle_pause = (self.settle_pause * 2).min(SETTLE_PAUSE_MAX);
                self.forget_unsynced();
                if self.shared.failure.lock().replace(from_journal(error.clone())).is_none() {
                    tracing::error!(%error, "the journal could not be synced");
                }
                return;
            }
        }
        if let Err(error) = self.journal.write_sync_mark(is_clean && !self.has_lost) {
            self.forget_unsynced();
            tracing::error!(%error, "the journal could not be marked");
        }
        self.note_file(self.journal.last_written());
    }

    fn note_synced(&mut self) {
        self.shared.last_synced.store(self.last_written, Ordering::Release);
        self.unsynced_since_ns = None;
    }

    /// After a failure: what was written and not synced may be void, its numbers
    /// are free.
    fn forget_unsynced(&mut self) {
        let kept = self.journal.last_written().get();
        if self.last_written > kept {
            tracing::warn!(from = kept + 1, to = self.last_written, "relaxed groups are lost");
            self.has_lost = true;
            self.last_written = kept;
        }
        if self.journal.unsynced_bytes() == 0 {
            self.unsynced_since_ns = None;
        }
    }

    /// Tells the keeper of a file that was begun.
    fn note_file(&mut self, first: GroupSequence) {
        let file = self.journal.current_file();
        if file == self.noted_file {
            return;
        }
        self.noted_file = file;
        if let Some(file) = file {
            self.shared.first_sequences.lock().entry(file).or_insert(first);
            self.shared.count_journal_bytes();
            self.shared.catalog.wake();
        }
    }

    /// Writing works: what failed before is certainly not in the journal.
    fn recovered(&mut self) {
        self.settle_not_before_ns = 0;
        self.settle_pause = IDLE_MARK;
        self.shared.is_unsettled.store(false, Ordering::Release);
        if self.shared.is_disk_full.load(Ordering::Acquire) {
            return;
        }
        if self.shared.failure.lock().take().is_some() {
            tracing::info!("the journal can be written again");
        }
    }

    /// Writes a group and hands it on. Then it takes the next one if `goes_on`
    /// and one waits; otherwise it leaves the journal to others.
    pub(super) fn write(&mut self, mut assembly: Assembly, goes_on: bool) -> Option<Assembly> {
        let shared = self.shared.clone();
        let bytes = assembly.group.len_bytes();
        let written = if assembly.group.is_empty() {
            self.hand_on_synced();
            Ok(None)
        } else {
            self.write_group(&mut assembly).map(Some)
        };
        let publication = match written {
            Ok(written) => {
                shared.metrics.groups.inc();
                shared.metrics.journal_bytes_written.inc_by(bytes);
                self.publication(assembly, written)
            }
            Err(error) => {
                self.forget_unsynced();
                self.failed(assembly, from_journal(error))
            }
        };
        // Once a group: callers on all cores want this lock.
        let mut core = shared.core.lock();
        core.in_flight.clear();
        let next = if goes_on { self.take_from(&mut core) } else { None };
        if next.is_some() {
            self.synced = Some(publication);
            return next;
        }
        shared.end_turn(&mut core);
        drop(core);
        shared.hand_on(publication, false);
        None
    }

    fn hand_on_synced(&mut self) {
        if let Some(publication) = self.synced.take() {
            self.shared.hand_on(publication, true);
        }
    }

    fn write_group(&mut self, assembly: &mut Assembly) -> Result<Written, aquifer_journal::Error> {
        let started = self.shared.clock.monotonic_ns();
        let durability = if assembly.must_sync { Durability::Sync } else { Durability::Relaxed };
        let written = self.journal.write(&mut assembly.group, durability);
        self.hand_on_synced();
        let written = written?;
        let unsynced_since = *self.unsynced_since_ns.get_or_insert(started);
        let unsynced_ms = started.saturating_sub(unsynced_since) / 1_000_000;
        if assembly.must_sync || unsynced_ms >= self.shared.options.relaxed_sync_ms_max {
            self.journal.sync()?;
            self.last_written = written.sequence.get();
            self.note_synced();
        }
        self.last_written = written.sequence.get();
        let elapsed = self.shared.clock.monotonic_ns().saturating_sub(started);
        self.shared.metrics.sync_seconds.observe(elapsed as f64 / 1e9);
        self.shared.journal_bytes_written.fetch_add(assembly.group.len_bytes(), Ordering::Relaxed);
        self.note_file(written.sequence);
        if assembly.must_sync {
            self.recovered();
        }
        Ok(written)
    }

    fn publication(&mut self, assembly: Assembly, written: Option<Written>) -> Publication {
        let Assembly { mut group, facts, replies, snapshot, must_sync: is_synced, .. } = assembly;
        let held = if written.is_some() {
            let copy_below = self.shared.options.group_bytes_max / COPIED_PART;
            if (group.len_bytes() as usize) < copy_below {
                let bytes = Bytes::copy_from_slice(group.bytes());
                group.clear();
                self.spare = Some(group);
                Held { memory: bytes.len(), bytes }
            } else {
                let memory = group.capacity();
                Held { memory, bytes: group.into_bytes() }
            }
        } else {
            self.spare = Some(group);
            Held::default()
        };
        if let (Some(hot), Some(written)) = (snapshot, written) {
            *self.shared.snapshot.lock() = Some((*hot, written.sequence));
            self.shared.catalog.wake();
        }
        Publication { written, is_synced, group: held, facts, replies }
    }

    /// Answers everybody of a group that could not be written, and of the one
    /// that was decided on top of it.
    fn failed(&mut self, assembly: Assembly, error: Error) -> Publication {
        tracing::error!(%error, "the journal could not be written");
        let mut core = self.shared.core.lock();
        let behind = std::mem::replace(
            &mut core.assembly,
            Assembly::new(self.shared.options.group_bytes_max),
        );
        core.sequencer.hot.undo(behind.undos.into_iter());
        let in_flight = std::mem::take(&mut core.in_flight);
        core.sequencer.hot.undo(in_flight.into_iter());
        drop(core);
        if !error.is_definite() {
            self.shared.is_unsettled.store(true, Ordering::Release);
        }
        let is_full = matches!(error, Error::StorageFull(_));
        if is_full {
            self.shared.is_disk_full.store(true, Ordering::Release);
            self.shared.catalog.wake();
        }
        *self.shared.failure.lock() = Some(error.clone());
        let above = if error.is_definite() {
            error.clone()
        } else {
            Error::NotWritten(format!("the group before failed: {error}"))
        };
        let answers = |replies: Vec<_>, failure: Error| -> Vec<_> {
            replies
                .into_iter()
                .map(|(reply, result): (super::sequencer::Reply, Result<_, Error>)| {
                    // A refusal stands only if what it was decided on stands.
                    let _ = result;
                    (reply, Err(failure.clone()))
                })
                .collect()
        };
        let mut replies = answers(assembly.replies, error);
        replies.extend(answers(behind.replies, above));
        Publication {
            written: None,
            is_synced: false,
            group: Held::default(),
            facts: Vec::new(),
            replies,
        }
    }
}

/// What the writer's thread is to do.
enum Turn {
    Write,
    Settle,
    Stop,
}

impl Shared {
    /// Leaves the journal to whoever comes next.
    fn end_turn(&self, core: &mut Core) {
        core.is_writing = false;
        let is_waiting = !core.assembly.replies.is_empty() || !core.backlog.is_empty();
        if is_waiting || core.is_stopping {
            self.work.notify_one();
        }
    }

    /// Waits until there is something to do for the writer's thread, and takes
    /// the journal for it.
    fn wait_for_turn(&self, is_unsynced: bool) -> Turn {
        let wait = if is_unsynced {
            IDLE_MARK.min(Duration::from_millis(self.options.relaxed_sync_ms_max))
        } else {
            IDLE_MARK
        };
        let mut core = self.core.lock();
        loop {
            if !core.is_writing {
                if !core.assembly.replies.is_empty() || !core.backlog.is_empty() {
                    core.is_writing = true;
                    return Turn::Write;
                }
                if core.is_stopping {
                    core.is_writing = true;
                    return Turn::Stop;
                }
            }
            let taken = core.groups_taken;
            let timed_out = self.work.wait_for(&mut core, wait).timed_out();
            let is_idle = !core.is_writing && core.assembly.replies.is_empty();
            // Callers may have written meanwhile, without telling this thread.
            let is_quiet = is_unsynced || taken == core.groups_taken;
            if timed_out && is_idle && is_quiet && core.backlog.is_empty() && !core.is_stopping {
                core.is_writing = true;
                return Turn::Settle;
            }
        }
    }
}
