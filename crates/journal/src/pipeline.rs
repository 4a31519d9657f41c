//! Threads for a [`Journal`]: groups go in over a short queue, and each is
//! answered, in order, when it is durable.
//!
//! While one group is written and synced, the submitter assembles the next. If
//! several are waiting, they share a sync. When something fails, every group
//! that was submitted on top of it is refused as not written, until the
//! submitter has taken note with [`PipelineHandle::reset`]; so nothing is ever
//! written that was decided on the strength of something lost.
//!
//! Two threads: `journal` writes and syncs and runs the callbacks;
//! `journal-files` prepares and releases files. A crash leaves behind what
//! [`Journal`] says.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use aquifer_env::Clock;
use aquifer_env::tasks::spawn_thread;
use aquifer_types::GroupSequence;
use parking_lot::Mutex;

use crate::error::Error;
use crate::group::GroupBuilder;
use crate::journal::{Journal, Maintenance};
use crate::prepare::Preparer;
use crate::reader::JournalReader;
use crate::{Durability, FileId, Written};

/// How many emptied groups are kept for reuse.
const SPARE_GROUPS_MAX: usize = 4;

/// How the threads are to work.
#[derive(Clone)]
pub struct PipelineOptions {
    /// How many submitted groups may wait; at least 1. Default 1.
    pub queue_groups_max: usize,
    /// Waiting groups join a sync until it covers this much. Default 1 MiB.
    pub coalesce_bytes_max: u64,
    /// A relaxed group is synced at the latest after this. Default 100.
    pub relaxed_sync_ms_max: u64,
    /// After this long without a group a sync mark is written; 0 for never.
    /// Default 100.
    pub idle_ms: u64,
    /// Groups that grew beyond this are not kept for reuse. Default 4 MiB.
    pub spare_group_bytes_max: usize,
    /// Is told of every sync, on the journal's thread: how long it took, and how
    /// many bytes it made durable.
    pub on_sync: Option<OnSync>,
    /// Is told of every failure on the journal's thread, before the groups
    /// concerned are answered; also when no answer is due.
    pub on_failure: Option<OnFailure>,
}

/// See [`PipelineOptions::on_sync`].
pub type OnSync = Arc<dyn Fn(Duration, u64) + Send + Sync>;
/// See [`PipelineOptions::on_failure`].
pub type OnFailure = Arc<dyn Fn(&Error, Resume) + Send + Sync>;

impl Default for PipelineOptions {
    fn default() -> PipelineOptions {
        PipelineOptions {
            queue_groups_max: 1,
            coalesce_bytes_max: 1 << 20,
            relaxed_sync_ms_max: 100,
            idle_ms: 100,
            spare_group_bytes_max: 4 << 20,
            on_sync: None,
            on_failure: None,
        }
    }
}

impl fmt::Debug for PipelineOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineOptions")
            .field("queue_groups_max", &self.queue_groups_max)
            .field("coalesce_bytes_max", &self.coalesce_bytes_max)
            .field("relaxed_sync_ms_max", &self.relaxed_sync_ms_max)
            .field("idle_ms", &self.idle_ms)
            .finish_non_exhaustive()
    }
}

/// What remains after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resume {
    /// How many failures there were.
    pub failure: u64,
    /// The journal goes on behind this group. Every later one that was
    /// submitted is gone, or will be when the next one is durable; that includes
    /// relaxed groups which were already answered.
    pub last_kept: GroupSequence,
}

/// Counters since the start, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Groups that were written.
    pub groups: u64,
    /// Bytes of header and frames in them.
    pub bytes: u64,
    /// Syncs that succeeded.
    pub syncs: u64,
    /// Their time in all, in nanoseconds.
    pub sync_ns: u64,
    /// Failures, each answered by a reset or still waiting for one.
    pub failures: u64,
    /// Submitted groups that are waiting or being written.
    pub waiting: u64,
}

#[derive(Debug, Default)]
struct Counters {
    groups: AtomicU64,
    bytes: AtomicU64,
    syncs: AtomicU64,
    sync_ns: AtomicU64,
    waiting: AtomicU64,
}

/// The running threads. Dropping it stops them in order.
#[derive(Debug)]
pub struct Pipeline {
    handle: PipelineHandle,
    writer: Option<JoinHandle<Result<(), Error>>>,
    files: Option<JoinHandle<()>>,
}

/// Submits groups. Cheap to clone; but one submitter at a time, since each
/// group is decided on top of the one before.
#[derive(Debug, Clone)]
pub struct PipelineHandle {
    sender: SyncSender<Command>,
    shared: Arc<Shared>,
    maintenance: Maintenance,
    preparer: Arc<Preparer>,
}

#[derive(Debug)]
struct Shared {
    /// The failure that submissions know of; equal to the last one but between
    /// a failure and the reset after it.
    accepted: AtomicU64,
    resume: Mutex<Resume>,
    spare_groups: Mutex<Vec<GroupBuilder>>,
    counters: Counters,
    reader: JournalReader,
}

enum Command {
    Submit(Submission),
    Settle(Answer<()>),
    Stop,
}

/// A callback that is called in any case: with [`Error::Closed`] if it is
/// dropped, since what it stands for was not done then.
struct Answer<T>(Option<Callback<T>>);

type Callback<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

impl<T> Answer<T> {
    fn give(mut self, result: Result<T, Error>) {
        if let Some(callback) = self.0.take() {
            callback(result);
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            callback(Err(Error::Closed));
        }
    }
}

/// A group on its way; what [`PipelineHandle::try_submit`] gives back. If it
/// is dropped, its callback is told [`Error::Closed`].
pub struct Submission {
    group: GroupBuilder,
    durability: Durability,
    done: Answer<Written>,
    knows_failure: u64,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").field("durability", &self.durability).finish_non_exhaustive()
    }
}

impl Submission {
    /// The group; the callback is dropped, so it is told [`Error::Closed`].
    #[must_use]
    pub fn into_group(self) -> GroupBuilder {
        self.group
    }
}

impl Pipeline {
    /// Starts the journal ([`Journal::start`]) and its threads.
    ///
    /// # Errors
    /// Those of [`Journal::start`], and [`Error::Disk`] if the system has no
    /// thread left.
    pub fn start(mut journal: Journal, options: PipelineOptions) -> Result<Pipeline, Error> {
        journal.start()?;
        let maintenance = journal.maintenance();
        let no_thread = Error::disk("start a thread for", maintenance.dir());
        let (preparer, files) = match Preparer::start(maintenance.clone()) {
            Ok(started) => started,
            Err(error) => return Err(no_thread(error)),
        };
        let shared = Arc::new(Shared {
            accepted: AtomicU64::new(0),
            resume: Mutex::new(Resume { failure: 0, last_kept: journal.last_written() }),
            spare_groups: Mutex::new(Vec::new()),
            counters: Counters::default(),
            reader: journal.reader(),
        });
        let (sender, receiver) = sync_channel(options.queue_groups_max.max(1));
        let writer = Writer {
            clock: journal.clock(),
            file: journal.current_file(),
            journal,
            options,
            receiver,
            shared: shared.clone(),
            preparer: preparer.clone(),
            put_off: None,
            failure: 0,
            relaxed_due_ns: None,
            idle_due_ns: None,
        };
        let started = spawn_thread("journal", move || writer.run());
        let writer = started.map_err(|error| {
            preparer.stop();
            no_thread(error)
        })?;
        let handle = PipelineHandle { sender, shared, maintenance, preparer };
        Ok(Pipeline { handle, writer: Some(writer), files: Some(files) })
    }

    /// A handle to submit through.
    #[must_use]
    pub fn handle(&self) -> PipelineHandle {
        self.handle.clone()
    }

    /// Writes what was submitted, syncs, marks the shutdown as clean and ends
    /// the threads. Groups that are submitted later are refused.
    ///
    /// # Errors
    /// Of the last mark, or [`Error::Closed`] if a thread had panicked. What was
    /// answered as durable is, either way.
    pub fn shutdown(mut self) -> Result<(), Error> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), Error> {
        // A writer that is gone needs no telling.
        let _ = self.handle.sender.send(Command::Stop);
        self.handle.preparer.stop();
        let written = self.writer.take().map_or(Ok(Ok(())), JoinHandle::join);
        let prepared = self.files.take().map_or(Ok(()), JoinHandle::join);
        match (written, prepared) {
            (Ok(result), Ok(())) => result,
            _ => Err(Error::Closed),
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        if self.writer.is_some()
            && let Err(error) = self.stop()
        {
            tracing::warn!(%error, "journal not shut down in order");
        }
    }
}

impl PipelineHandle {
    /// An empty group, from memory that was used before if there is any.
    #[must_use]
    pub fn group(&self, capacity: usize) -> GroupBuilder {
        let spare = self.shared.spare_groups.lock().pop();
        spare.unwrap_or_else(|| GroupBuilder::new(capacity))
    }

    /// Submits a group; blocks while `queue_groups_max` are waiting. `done` is
    /// called in the order of submission: for [`Durability::Sync`] after the
    /// sync, for [`Durability::Relaxed`] after the write. Its error says whether
    /// it is definite; after any error those submitted behind are refused with
    /// [`Error::Behind`] until [`PipelineHandle::reset`].
    pub fn submit(
        &self,
        group: GroupBuilder,
        durability: Durability,
        done: impl FnOnce(Result<Written, Error>) + Send + 'static,
    ) {
        let submission = self.submission(group, durability, done);
        self.shared.counters.waiting.fetch_add(1, Ordering::Relaxed);
        if self.sender.send(Command::Submit(submission)).is_err() {
            self.shared.counters.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Submits a group if the queue has room, and otherwise gives it back; it
    /// may be handed to [`PipelineHandle::resubmit`]. Never blocks.
    ///
    /// # Errors
    /// The submission itself.
    pub fn try_submit(
        &self,
        group: GroupBuilder,
        durability: Durability,
        done: impl FnOnce(Result<Written, Error>) + Send + 'static,
    ) -> Result<(), Submission> {
        self.resubmit(self.submission(group, durability, done))
    }

    /// Tries again what [`PipelineHandle::try_submit`] gave back.
    ///
    /// # Errors
    /// The submission itself.
    pub fn resubmit(&self, submission: Submission) -> Result<(), Submission> {
        let waiting = &self.shared.counters.waiting;
        waiting.fetch_add(1, Ordering::Relaxed);
        let Err(error) = self.sender.try_send(Command::Submit(submission)) else {
            return Ok(());
        };
        waiting.fetch_sub(1, Ordering::Relaxed);
        match error {
            TrySendError::Full(Command::Submit(submission)) => Err(submission),
            // Dropped, and so answered.
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Ok(()),
        }
    }

    fn submission(
        &self,
        group: GroupBuilder,
        durability: Durability,
        done: impl FnOnce(Result<Written, Error>) + Send + 'static,
    ) -> Submission {
        let knows_failure = self.shared.accepted.load(Ordering::Acquire);
        Submission { group, durability, done: Answer(Some(Box::new(done))), knows_failure }
    }

    /// Takes note of every failure so far; groups submitted from here on are
    /// written again. The submitter has rolled back to
    /// [`Resume::last_kept`] when it submits the next one.
    pub fn reset(&self) -> Resume {
        let resume = *self.shared.resume.lock();
        self.shared.accepted.fetch_max(resume.failure, Ordering::AcqRel);
        resume
    }

    /// Makes certain that what failed stays absent ([`Journal::settle`]); `done`
    /// is called on the journal's thread.
    pub fn settle(&self, done: impl FnOnce(Result<(), Error>) + Send + 'static) {
        // If the thread is gone, the command is dropped, and so answered.
        let _ = self.sender.send(Command::Settle(Answer(Some(Box::new(done)))));
    }

    /// Lets the files up to this one be given up, in the background. See
    /// [`Maintenance::release_through`].
    pub fn release_through(&self, file: FileId) {
        self.preparer.release_through(file);
    }

    /// Reads payloads.
    #[must_use]
    pub fn reader(&self) -> JournalReader {
        self.shared.reader.clone()
    }

    /// Files and reserve.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        self.maintenance.clone()
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            groups: read(&counters.groups),
            bytes: read(&counters.bytes),
            syncs: read(&counters.syncs),
            sync_ns: read(&counters.sync_ns),
            failures: self.shared.resume.lock().failure,
            waiting: read(&counters.waiting),
        }
    }
}

/// The thread that owns the journal.
struct Writer {
    journal: Journal,
    options: PipelineOptions,
    clock: Arc<dyn Clock>,
    receiver: Receiver<Command>,
    shared: Arc<Shared>,
    preparer: Arc<Preparer>,
    /// What was received while looking for more groups, and is none.
    put_off: Option<Command>,
    /// How many failures there were.
    failure: u64,
    /// The file at the last look.
    file: Option<FileId>,
    relaxed_due_ns: Option<u64>,
    idle_due_ns: Option<u64>,
}

/// A group that was written, and answered after the sync.
type Waiting = Vec<(Written, Answer<Written>)>;

impl Writer {
    fn run(mut self) -> Result<(), Error> {
        loop {
            match self.receive() {
                Ok(Command::Submit(submission)) => self.write_all(submission),
                Ok(Command::Settle(done)) => {
                    let settled = self.journal.settle();
                    done.give(settled);
                }
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.do_what_is_due();
        }
        self.sync(&mut Waiting::new());
        let marked = self.journal.write_sync_mark(true);
        if let Err(error) = &marked {
            tracing::warn!(%error, "the journal's clean mark was not written");
        }
        marked
    }

    fn receive(&mut self) -> Result<Command, RecvTimeoutError> {
        if let Some(command) = self.put_off.take() {
            return Ok(command);
        }
        match [self.relaxed_due_ns, self.idle_due_ns].into_iter().flatten().min() {
            None => self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due_ns) => {
                let left_ns = due_ns.saturating_sub(self.clock.monotonic_ns());
                self.receiver.recv_timeout(Duration::from_nanos(left_ns))
            }
        }
    }

    /// Writes a group and those waiting behind it, up to a limit, and syncs
    /// once if one of them is to be durable.
    fn write_all(&mut self, first: Submission) {
        let mut waiting = Waiting::new();
        let mut next = Some(first);
        while let Some(submission) = next.take() {
            self.write(submission, &mut waiting);
            let enough = self.journal.unsynced_bytes() >= self.options.coalesce_bytes_max;
            if waiting.is_empty() || enough {
                break;
            }
            match self.receiver.try_recv() {
                Ok(Command::Submit(submission)) => next = Some(submission),
                Ok(command) => self.put_off = Some(command),
                Err(_) => {}
            }
        }
        if !waiting.is_empty() {
            self.sync(&mut waiting);
        }
        let now_ns = self.clock.monotonic_ns();
        self.relaxed_due_ns = match self.journal.last_written() > self.journal.synced_through() {
            true => self.relaxed_due_ns.or(Some(after(now_ns, self.options.relaxed_sync_ms_max))),
            false => None,
        };
        let idle_ms = self.options.idle_ms;
        self.idle_due_ns = (idle_ms > 0).then(|| after(now_ns, idle_ms));
        if self.journal.current_file() != self.file {
            self.file = self.journal.current_file();
            self.preparer.poke();
        }
    }

    fn write(&mut self, submission: Submission, waiting: &mut Waiting) {
        let Submission { mut group, durability, done, knows_failure } = submission;
        let counters = &self.shared.counters;
        counters.waiting.fetch_sub(1, Ordering::Relaxed);
        if knows_failure != self.failure {
            let failure = self.failure;
            self.sync(waiting);
            done.give(Err(Error::Behind { failure }));
            return self.keep(group);
        }
        match self.journal.write(&mut group, durability) {
            Ok(written) => {
                counters.groups.fetch_add(1, Ordering::Relaxed);
                counters.bytes.fetch_add(group.len_bytes(), Ordering::Relaxed);
                match durability {
                    Durability::Relaxed if waiting.is_empty() => done.give(Ok(written)),
                    _ => waiting.push((written, done)),
                }
            }
            Err(error) => {
                // Those before it are in the journal if the error is definite,
                // and their fate must be known before this one is answered.
                if error.is_definite() {
                    self.sync(waiting);
                }
                self.fail(&error);
                self.answer(waiting, &error);
                done.give(Err(error));
            }
        }
        self.keep(group);
    }

    /// Syncs and answers.
    fn sync(&mut self, waiting: &mut Waiting) {
        let bytes = self.journal.unsynced_bytes();
        let started_ns = self.clock.monotonic_ns();
        match self.journal.sync() {
            Ok(()) => {
                if bytes > 0 {
                    let took_ns = self.clock.monotonic_ns().saturating_sub(started_ns);
                    self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
                    self.shared.counters.sync_ns.fetch_add(took_ns, Ordering::Relaxed);
                    if let Some(on_sync) = &self.options.on_sync {
                        on_sync(Duration::from_nanos(took_ns), bytes);
                    }
                }
                for (written, done) in waiting.drain(..) {
                    done.give(Ok(written));
                }
            }
            Err(error) => {
                self.fail(&error);
                self.answer(waiting, &error);
            }
        }
        self.relaxed_due_ns = None;
    }

    /// Answers after a failure: some may have been synced before it.
    fn answer(&self, waiting: &mut Waiting, error: &Error) {
        let synced_through = self.journal.synced_through();
        for (written, done) in waiting.drain(..) {
            match written.sequence <= synced_through {
                true => done.give(Ok(written)),
                false => done.give(Err(error.clone())),
            }
        }
    }

    /// Refuses from now on what was assembled without knowing of this.
    fn fail(&mut self, error: &Error) {
        self.failure += 1;
        let resume = Resume { failure: self.failure, last_kept: self.journal.last_written() };
        *self.shared.resume.lock() = resume;
        tracing::warn!(%error, last_kept = resume.last_kept.0, "journal write failed");
        if let Some(on_failure) = &self.options.on_failure {
            on_failure(error, resume);
        }
    }

    fn do_what_is_due(&mut self) {
        let now_ns = self.clock.monotonic_ns();
        if self.relaxed_due_ns.is_some_and(|due_ns| due_ns <= now_ns) {
            self.sync(&mut Waiting::new());
        }
        if self.idle_due_ns.is_some_and(|due_ns| due_ns <= now_ns) {
            self.idle_due_ns = None;
            self.sync(&mut Waiting::new());
            // Everything is durable or failed already, so nothing but the mark
            // can be lost here.
            if let Err(error) = self.journal.write_sync_mark(false) {
                tracing::warn!(%error, "journal sync mark not written");
            }
        }
    }

    /// Keeps a group's memory for the next.
    fn keep(&self, mut group: GroupBuilder) {
        let mut spare = self.shared.spare_groups.lock();
        let small = group.capacity() <= self.options.spare_group_bytes_max;
        if small && spare.len() < SPARE_GROUPS_MAX {
            group.clear();
            spare.push(group);
        }
    }
}

fn after(now_ns: u64, ms: u64) -> u64 {
    now_ns.saturating_add(ms.saturating_mul(1_000_000))
}
