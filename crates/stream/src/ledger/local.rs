//! The ledger of one machine.
//!
//! Callers decide their commits themselves, one at a time, under a lock, into
//! the group that is being assembled ([`Core`]); the writer's thread takes that
//! group whenever the disk is free ([`super::writer`]), so the next one is
//! assembled while the last one syncs, and as large as what is waiting. The
//! publisher answers ([`super::publisher`]), the keeper does what can wait
//! ([`super::keeper`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aquifer_env::{Clock, Disk, tasks};
use aquifer_journal::{FileId, JournalReader, Maintenance};
use aquifer_types::{CommitId, GroupSequence, Timestamp};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::document::DocumentKind;
use super::event::{Operation, Outcome, Resolution};
use super::hot_state::{HotState, Undo};
use super::keeper::{CatalogQueue, Keeper};
use super::publisher::PublishQueue;
use super::recovery::Recovery;
use super::sequencer::{Assembly, Commit, Committed, Reply, Sequencer};
use super::writer::Writer;
use crate::Error;
use crate::index::Index;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::steady::SteadyClock;

/// What callers and the writer share under one lock.
pub(crate) struct Core {
    pub(crate) sequencer: Sequencer,
    pub(crate) assembly: Assembly,
    /// Commits that did not fit into the group that is being assembled.
    pub(crate) backlog: VecDeque<(Commit, Reply)>,
    /// How to take back the group that is being written.
    pub(crate) in_flight: Vec<Undo>,
    /// Whether somebody writes a group, or is about to.
    pub(super) is_writing: bool,
    /// How many groups were taken to be written.
    pub(super) groups_taken: u64,
    pub(crate) is_stopping: bool,
    pub(crate) wants_snapshot: bool,
}

/// What all parts of the ledger share.
pub(crate) struct Shared {
    pub(crate) options: Arc<Options>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) index: Arc<Index>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) core: Mutex<Core>,
    /// Tells the writer that there is something to write.
    pub(crate) work: Condvar,
    pub(crate) publishing: PublishQueue,
    /// Where callers are answered; none in tests without one.
    pub(super) runtime: Option<tokio::runtime::Handle>,
    pub(crate) catalog: CatalogQueue,
    pub(crate) maintenance: Maintenance,
    /// The first group in each journal file.
    pub(crate) first_sequences: Mutex<BTreeMap<FileId, GroupSequence>>,
    /// The state behind a synced group, for the keeper to store.
    pub(crate) snapshot: Mutex<Option<(HotState, GroupSequence)>>,
    pub(crate) journal_bytes: AtomicU64,
    pub(crate) journal_bytes_written: AtomicU64,
    pub(crate) last_synced: AtomicU64,
    /// Appends are refused: the disk is full.
    pub(crate) is_disk_full: AtomicBool,
    /// Why the journal cannot be written, while it cannot.
    pub(crate) failure: Mutex<Option<Error>>,
    /// The last write failed in a way that leaves open what a crash would find.
    pub(crate) is_unsettled: AtomicBool,
}

/// How often, and how many times, a journal that cannot be written is asked
/// again what became of a commit.
const RESOLVE_PAUSE: Duration = Duration::from_millis(20);
const RESOLVE_TRIES_MAX: usize = 1_500;

/// A commit in the queue; it is decided whether or not somebody waits for it.
#[derive(Debug)]
pub(crate) struct Submitted(oneshot::Receiver<Result<Committed, Error>>);

impl Submitted {
    /// Waits until it is durable or refused.
    pub(crate) async fn committed(self) -> Result<Committed, Error> {
        self.0.await.unwrap_or(Err(Error::Stopping))
    }
}

/// The ledger of one machine; cheap to clone.
#[derive(Clone)]
pub(crate) struct LocalLedger {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
    permits: Arc<Semaphore>,
    reader: JournalReader,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl std::fmt::Debug for LocalLedger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalLedger").finish_non_exhaustive()
    }
}

impl Core {
    /// Decides a commit into the group, or lets it wait for the next one.
    pub(super) fn add(&mut self, commit: Commit, reply: Reply, now: Timestamp) {
        if self.is_stopping {
            // Dropping the reply tells the caller.
            return;
        }
        // Whoever comes makes room of what there is, in the order of arrival.
        self.backlog.push_back((commit, reply));
        self.drain_backlog(now);
    }

    fn has_room(&self, commit: &Commit) -> bool {
        let group = &self.assembly.group;
        group.is_empty()
            || group.len_bytes() as usize + commit.payload_bytes()
                <= self.sequencer.options.group_bytes_max
    }

    /// Decides what was waiting for room, as far as there is some.
    pub(crate) fn drain_backlog(&mut self, now: Timestamp) {
        while let Some((commit, reply)) = self.backlog.pop_front() {
            if !self.has_room(&commit) {
                self.backlog.push_front((commit, reply));
                return;
            }
            self.sequencer.add(&commit, reply, now, &mut self.assembly);
        }
    }
}

impl Commit {
    /// About the bytes that it takes in memory and in the journal: those of its
    /// batches, and of what else may be large.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.operations
            .iter()
            .map(|operation| match operation {
                Operation::Append { batch, .. } | Operation::Relocate { batch, .. } => {
                    batch.bytes().len()
                }
                Operation::CommitPositions { positions, .. }
                | Operation::CommitPositionsInTransaction { positions, .. } => {
                    positions.iter().map(|(.., note)| note.metadata.len() + 64).sum()
                }
                Operation::PutDocument { key, value, .. } => key.name.len() + value.len(),
                Operation::CollectGarbage { object_paths } => {
                    object_paths.iter().map(|path| path.len() + 8).sum()
                }
                Operation::DiscardOrphan { object_path, .. } => object_path.len(),
                Operation::IndexChunk { index_path, .. } => index_path.len(),
                Operation::ReplaceChunks { removed, .. } => removed.len() * 40,
                Operation::SetCeilings { ceilings } => ceilings.len() * 64,
                Operation::AddPartitions { partitions, .. } => partitions.len() * 64,
                _ => 0,
            })
            .sum()
    }

    /// Whether it may use what is held back for the time when the disk is full.
    fn is_privileged(&self) -> bool {
        self.operations.iter().all(|operation| {
            // A chunk waits for the schema that it follows.
            let is_schema = matches!(
                operation,
                Operation::PutDocument { key, .. } if key.kind == DocumentKind::Schema
            );
            let is_tiering = matches!(
                operation,
                Operation::Truncate { .. }
                    | Operation::Expire { .. }
                    | Operation::DeleteStream { .. }
                    | Operation::IntendUpload { .. }
                    | Operation::AbandonUpload { .. }
                    | Operation::DiscardOrphan { .. }
                    | Operation::AddChunk { .. }
                    | Operation::ReplaceChunks { .. }
                    | Operation::IndexChunk { .. }
                    | Operation::CollectGarbage { .. }
                    | Operation::SetCeilings { .. }
                    | Operation::ResolveCommit { .. }
                    // Ends let tiering go on.
                    | Operation::EndTransaction { .. }
                    | Operation::ExpireTransaction { .. }
            );
            is_schema || is_tiering
        })
    }
}

/// Whether the journal may be written again soon.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Indefinite(_) | Error::NotWritten(_) | Error::StorageFull(_))
}

/// Ends the process when a thread of the ledger panics. Its callers would wait
/// for ever, or be told that nothing was done when it was; losing the process
/// loses nothing.
struct PanicWatch(String);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(thread = %self.0, "a thread of the ledger panicked, the process ends");
            std::process::abort();
        }
    }
}

/// The ledger before it has threads; a test drives the parts step by step.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Writer,
    pub(super) keeper: Keeper,
    pub(super) reader: JournalReader,
}

impl Parts {
    pub(super) fn new(
        recovery: Recovery,
        options: Arc<Options>,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let Recovery {
            mut hot,
            index,
            journal,
            catalog,
            snapshot_oldest,
            first_sequences,
            last_sequence,
            catalog_position,
            ..
        } = recovery;
        let steady = SteadyClock::new(clock.clone(), hot.newest_stamp());
        hot.leases.restart(steady.now());
        let maintenance = journal.maintenance();
        let reader = journal.reader();
        let shared = Arc::new(Shared {
            core: Mutex::new(Core {
                assembly: Assembly::new(options.group_bytes_max),
                sequencer: Sequencer { hot, options: options.clone(), steady },
                backlog: VecDeque::new(),
                in_flight: Vec::new(),
                is_writing: false,
                groups_taken: 0,
                is_stopping: false,
                wants_snapshot: false,
            }),
            options,
            clock,
            disk,
            index,
            metrics,
            work: Condvar::new(),
            publishing: PublishQueue::default(),
            runtime: tokio::runtime::Handle::try_current().ok(),
            catalog: CatalogQueue::new(catalog_position),
            maintenance,
            first_sequences: Mutex::new(first_sequences.into_iter().collect()),
            snapshot: Mutex::new(None),
            journal_bytes: AtomicU64::new(0),
            journal_bytes_written: AtomicU64::new(0),
            last_synced: AtomicU64::new(last_sequence.get()),
            is_disk_full: AtomicBool::new(false),
            failure: Mutex::new(None),
            is_unsettled: AtomicBool::new(false),
        });
        shared.count_journal_bytes();
        let writer = Writer::new(shared.clone(), journal);
        let keeper = Keeper::new(shared.clone(), catalog, snapshot_oldest);
        Self { shared, writer, keeper, reader }
    }
}

impl LocalLedger {
    /// Begins to serve from what was recovered.
    pub(crate) fn start(
        recovery: Recovery,
        options: Arc<Options>,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let permits = Arc::new(Semaphore::new(options.commit_queue_bytes_max));
        let Parts { shared, writer, keeper, reader } =
            Parts::new(recovery, options, clock, disk, metrics);
        let writer = Arc::new(Mutex::new(writer));
        let (publisher, writing) = (shared.clone(), (writer.clone(), shared.clone()));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let thread = name.to_owned();
            let watched = move || {
                let watch = PanicWatch(thread);
                work();
                drop(watch);
            };
            tasks::spawn_thread(name, watched)
                .map_err(|error| Error::Start(format!("cannot start thread {name}: {error}")))
        };
        let threads = vec![
            spawn("aq-journal", Box::new(move || Writer::run(&writing.0, &writing.1)))?,
            spawn("aq-publish", Box::new(move || publisher.run_publisher()))?,
            spawn("aq-keeper", Box::new(move || keeper.run()))?,
        ];
        Ok(Self { shared, writer, permits, reader, threads: Arc::new(Mutex::new(threads)) })
    }

    /// Does all operations of a commit, or none; answers when that is durable.
    ///
    /// # Errors
    /// [`Error`] says whether certainly nothing was done
    /// ([`Error::is_definite`]).
    pub(crate) async fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        let bytes = self.admit(&commit)?;
        let permit = self.permits.clone().acquire_many_owned(bytes).await;
        let (reply, submitted) = Self::reply(permit.map_err(|_| Error::Stopping)?);
        self.submit(commit, reply);
        submitted.committed().await
    }

    /// Puts commits that stand each on its own into the queue, in their order
    /// and, where there is room for all, at once. None of them can be resolved
    /// later by its id.
    pub(crate) async fn submit_each(
        &self,
        commits: Vec<Result<Commit, Error>>,
    ) -> Vec<Result<Submitted, Error>> {
        let mut submitted = Vec::with_capacity(commits.len());
        let mut ready = Vec::with_capacity(commits.len());
        for commit in commits {
            let admitted = commit.and_then(|commit| Ok((self.admit(&commit)?, commit)));
            let (bytes, commit) = match admitted {
                Ok(admitted) => admitted,
                Err(error) => {
                    submitted.push(Err(error));
                    continue;
                }
            };
            let permits = self.permits.clone();
            let permit = match permits.clone().try_acquire_many_owned(bytes) {
                Ok(permit) => Ok(permit),
                Err(_) => {
                    // What is ready makes room when it is written.
                    self.add_each(std::mem::take(&mut ready));
                    permits.acquire_many_owned(bytes).await
                }
            };
            submitted.push(match permit {
                Ok(permit) => {
                    let (reply, waiting) = Self::reply(permit);
                    ready.push((commit, reply));
                    Ok(waiting)
                }
                Err(_) => Err(Error::Stopping),
            });
        }
        self.add_each(ready);
        submitted
    }

    fn add_each(&self, ready: Vec<(Commit, Reply)>) {
        if ready.is_empty() {
            return;
        }
        let now = self.shared.now();
        let mut core = self.shared.core.lock();
        for (commit, reply) in ready {
            core.add(commit, reply, now);
        }
        let is_idle = !core.is_writing;
        drop(core);
        // Never written here: the caller has more to put behind it.
        if is_idle {
            self.shared.work.notify_one();
        }
    }

    /// Whether a commit may stand in the queue, and how much of it it takes.
    fn admit(&self, commit: &Commit) -> Result<u32, Error> {
        let bytes = commit.payload_bytes() + 256;
        let options = &self.shared.options;
        if bytes > options.commit_bytes_max {
            return Err(Error::TooLarge {
                what: "the request".into(),
                size: bytes as u64,
                limit: options.commit_bytes_max as u64,
                limit_name: "commit_bytes_max",
            });
        }
        if self.shared.is_disk_full.load(Ordering::Acquire) && !commit.is_privileged() {
            return Err(Error::StorageFull("free space, or truncate streams".into()));
        }
        self.shared.check_catalog(commit)?;
        Ok(u32::try_from(bytes.min(options.commit_queue_bytes_max)).unwrap_or(u32::MAX))
    }

    fn reply(permit: OwnedSemaphorePermit) -> (Reply, Submitted) {
        let (sender, receiver) = oneshot::channel();
        let reply: Reply = Box::new(move |result| {
            drop(permit);
            let _ = sender.send(result);
        });
        (reply, Submitted(receiver))
    }

    /// Decides a commit and sees to it that its group is written: here, if the
    /// journal is idle.
    fn submit(&self, commit: Commit, reply: Reply) {
        let now = self.shared.now();
        let mut core = self.shared.core.lock();
        core.add(commit, reply, now);
        // Whoever writes looks for what waits before it leaves the journal.
        let is_idle = !core.is_writing;
        let is_my_turn = is_idle && core.assembly.must_sync && tasks::can_block_here();
        core.is_writing |= is_my_turn;
        drop(core);
        if is_my_turn {
            tasks::block_here(|| {
                let watch = PanicWatch("of a caller".to_owned());
                self.writer.lock().write_here();
                drop(watch);
            });
        } else if is_idle {
            self.shared.work.notify_one();
        }
    }

    /// What became of a commit that bears an id, whose answer was lost or
    /// indefinite. One that is not there is fenced: it is refused should it
    /// still come, after a restart as well.
    ///
    /// # Errors
    /// What keeps the journal from being written, after half a minute.
    pub(crate) async fn resolve(&self, id: CommitId) -> Result<Resolution, Error> {
        let mut tries = 0;
        loop {
            let asked = Commit::of(vec![Operation::ResolveCommit { id }]);
            match self.commit(asked).await {
                Ok(Committed { outcomes, .. }) => match outcomes.into_iter().next() {
                    Some(Outcome::Resolved(resolution)) => return Ok(resolution),
                    other => return Err(Error::Internal(format!("resolved to {other:?}"))),
                },
                // Asking twice does no harm.
                Err(error) if is_passing(&error) && tries < RESOLVE_TRIES_MAX => tries += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(RESOLVE_PAUSE).await;
        }
    }

    /// Reads the journal's files.
    pub(crate) fn reader(&self) -> JournalReader {
        self.reader.clone()
    }

    /// Looks at the state that decisions are made on; it may be ahead of what is
    /// durable.
    pub(crate) fn with_hot<T>(&self, look: impl FnOnce(&HotState) -> T) -> T {
        look(&self.shared.core.lock().sequencer.hot)
    }

    /// Bytes of the journal's files.
    pub(crate) fn journal_bytes(&self) -> u64 {
        self.shared.journal_bytes.load(Ordering::Relaxed)
    }

    /// Why appends are refused, while they are.
    pub(crate) fn failure(&self) -> Option<Error> {
        if self.shared.is_disk_full.load(Ordering::Acquire) {
            return Some(Error::StorageFull("free space, or truncate streams".into()));
        }
        self.shared.failure.lock().clone()
    }

    /// The oldest journal file that has to stay for its records.
    pub(crate) fn oldest_live_file(&self) -> Option<FileId> {
        self.shared.index.files.oldest()
    }

    /// Why the catalog cannot be written, while it cannot.
    pub(crate) fn catalog_failure(&self) -> Option<String> {
        self.shared.catalog.failure()
    }

    /// How many of the journal's files lie before the oldest that has to stay for
    /// its records.
    pub(crate) fn files_before_live(&self) -> usize {
        let live = self.oldest_live_file();
        let firsts = self.shared.first_sequences.lock();
        firsts.keys().take_while(|file| live.is_some_and(|live| **file < live)).count()
    }

    /// Changes that the catalog has not applied.
    pub(crate) fn catalog_changes_waiting(&self) -> usize {
        self.shared.catalog.len()
    }

    /// Lets the keeper look at once for files to be released.
    pub(crate) fn wake_keeper(&self) {
        self.shared.catalog.wake();
    }

    /// Finishes what was taken in, marks the journal as clean and stops.
    pub(crate) async fn stop(&self) {
        self.shared.core.lock().is_stopping = true;
        self.shared.work.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        tasks::run_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the ledger panicked");
                }
            }
        })
        .await;
    }
}

impl Shared {
    /// Refuses what would add to the changes that the catalog does not take.
    pub(super) fn check_catalog(&self, commit: &Commit) -> Result<(), Error> {
        let (waiting, limit) = (self.catalog.len(), self.options.catalog_changes_max);
        if waiting < limit || !commit.operations.iter().any(Operation::is_in_catalog) {
            return Ok(());
        }
        self.catalog.wake();
        let slow = "it takes them more slowly than they come".to_owned();
        Err(Error::CatalogBehind {
            waiting: waiting as u64,
            limit: limit as u64,
            why: self.catalog.failure().unwrap_or(slow),
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    pub(crate) fn count_journal_bytes(&self) {
        let bytes = self.maintenance.files().iter().map(|(_, bytes)| bytes).sum();
        self.journal_bytes.store(bytes, Ordering::Relaxed);
    }
}
