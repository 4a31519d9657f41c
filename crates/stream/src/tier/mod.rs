//! Tier 2: from the journal into Parquet, and what follows from it.
//!
//! Beside the rounds [`index`] builds search indexes of chunks. One round after the other: [`upload`] cuts chunks and puts them into the
//! store, [`relocate`] keeps what cannot be cut from holding the journal,
//! [`compact`] merges small ones, [`newest`] drops what newer records of their
//! key overtake, [`publish`] says in a manifest what is there, [`garbage`] deletes what
//! nobody needs, [`sweep`] finds what nothing knows, as long as [`owner`] allows it. A commit to the ledger is the
//! only arbiter of what exists: an upload is announced before it begins, so
//! that whatever a crash leaves in the store is known and goes.

mod compact;
mod compaction_rules;
mod garbage;
mod index;
pub(crate) mod manifest;
mod newest;
mod newest_keys;
pub(crate) mod owner;
pub(crate) mod publish;
mod relocate;
mod schema;
mod sweep;
mod upload;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aquifer_env::store::{StoreError, StoreErrorKind, TierStore};
use aquifer_types::{ChunkId, Epoch, Timestamp};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use self::index::Indexing;
use self::newest::{Marks, Newest};
use self::owner::Owner;
use self::publish::Published;
use self::sweep::Sweep;
use crate::Error;
use crate::believed_clock::BelievedClock;
use crate::ledger::{Commit, Committed, LocalLedger, Operation};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::read::Reader;
use crate::store::Environment;

/// The longest pause after a failure of tier 2.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Everything that tiering works with.
#[derive(Debug)]
pub(crate) struct Tier {
    pub(crate) options: Arc<Options>,
    pub(crate) environment: Environment,
    pub(crate) store: TierStore,
    pub(crate) ledger: LocalLedger,
    pub(crate) reader: Arc<Reader>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) epoch: Epoch,
    /// What tier 2 said when it last failed, until it works again.
    failure: Mutex<Option<String>>,
    /// Somebody waits for room in the journal.
    is_pressed: AtomicBool,
    pressed: Notify,
    lag_ms: AtomicU64,
    /// The first batch of each tail, and when it was first seen there.
    waiting: Mutex<upload::Waiting>,
    pub(crate) owner: Owner,
    /// What an earlier run announced is given up.
    has_begun: AtomicBool,
    indexing: Indexing,
    published: tokio::sync::Mutex<Published>,
    sweep: tokio::sync::Mutex<Sweep>,
    /// The changes of the index that compaction has looked at.
    compacted: AtomicU64,
    /// Chunks that compaction could not read.
    unmergeable: Mutex<HashSet<ChunkId>>,
    newest: tokio::sync::Mutex<Newest>,
    /// How far the chunks of compacted streams are clean, as they say.
    marks: Mutex<HashMap<ChunkId, Marks>>,
    believed: BelievedClock,
    /// What the last manifest says to be garbage.
    deletable: Mutex<Arc<HashSet<String>>>,
}

impl Tier {
    pub(crate) fn new(
        options: Arc<Options>,
        environment: Environment,
        store: TierStore,
        ledger: LocalLedger,
        reader: Arc<Reader>,
        metrics: Arc<Metrics>,
        epoch: Epoch,
    ) -> Self {
        let believed = BelievedClock::of_index(environment.clock.clone(), &reader.index);
        let owner = Owner::new(store.clone(), environment.clone(), epoch);
        Self {
            options,
            environment,
            store,
            ledger,
            reader,
            metrics,
            epoch,
            failure: Mutex::new(None),
            is_pressed: AtomicBool::new(false),
            pressed: Notify::new(),
            lag_ms: AtomicU64::new(0),
            waiting: Mutex::default(),
            owner,
            has_begun: AtomicBool::new(false),
            indexing: Indexing::default(),
            published: tokio::sync::Mutex::default(),
            sweep: tokio::sync::Mutex::default(),
            compacted: AtomicU64::new(u64::MAX),
            unmergeable: Mutex::default(),
            newest: tokio::sync::Mutex::default(),
            marks: Mutex::default(),
            believed,
            deletable: Mutex::default(),
        }
    }

    /// Works until it is dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let interval = Duration::from_millis(self.options.tier_interval_ms);
        let mut pause = interval;
        let mut is_started = false;
        loop {
            let result = async {
                if !is_started {
                    self.begin().await?;
                    is_started = true;
                }
                self.round().await
            };
            match result.await {
                Ok(()) => pause = interval,
                Err(error @ Error::Fenced(_)) => {
                    tracing::error!(%error, "tiering has stopped");
                    self.metrics.tier_fenced.set(1);
                    *self.failure.lock() = Some(error.to_string());
                    return;
                }
                Err(error) => {
                    self.failed(&error);
                    pause = (pause * 2).min(PAUSE_MAX).max(interval);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.pressed.notified(), if pause == interval => {}
            }
        }
    }

    /// What comes before the first round.
    async fn begin(&self) -> Result<(), Error> {
        // The epoch is claimed only when no later start can have it again.
        self.commit(Operation::CollectGarbage { object_paths: Vec::new() }).await?;
        self.owner.claim().await?;
        self.give_up_old_uploads().await?;
        self.has_begun.store(true, Ordering::Release);
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// One round of everything; a step that fails does not keep the others back.
    async fn round(self: &Arc<Self>) -> Result<(), Error> {
        let mut result = self.upload_due().await;
        if !is_fenced(&result) {
            result = result.and(self.relocate_stuck().await);
        }
        if !is_fenced(&result) {
            result = result.and(self.compact_due().await);
        }
        if !is_fenced(&result) {
            result = result.and(self.keep_newest_due().await);
        }
        if !is_fenced(&result) {
            result = result.and(self.publish_manifest().await);
        }
        if !is_fenced(&result) {
            result = result.and(self.collect_garbage().await);
        }
        if !is_fenced(&result) {
            result = result.and(self.sweep_orphans().await);
        }
        if result.is_ok() {
            self.worked();
        }
        result
    }

    /// Asks for room in the journal.
    pub(crate) fn press(&self) {
        self.is_pressed.store(true, Ordering::Relaxed);
        self.pressed.notify_one();
    }

    /// Age of the oldest record that is only in the journal, as the last round
    /// saw it.
    pub(crate) fn lag_ms(&self) -> u64 {
        self.lag_ms.load(Ordering::Relaxed)
    }

    /// What tier 2 said when it last failed, until it works again.
    pub(crate) fn last_failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Why the journal is full, for whoever is refused.
    pub(crate) fn why_behind(&self) -> String {
        if let Some(failure) = self.ledger.catalog_failure() {
            return format!("journal files stay until the catalog has what is in them: {failure}");
        }
        match self.last_failure() {
            Some(failure) => format!("tier 2 fails: {failure}"),
            None => "tier 2 takes them more slowly than they come".into(),
        }
    }

    fn failed(&self, error: &Error) {
        self.metrics.tier_failures.inc();
        let mut failure = self.failure.lock();
        if failure.is_none() {
            tracing::warn!(%error, "tiering failed, it is tried again");
        }
        *failure = Some(error.to_string());
    }

    fn worked(&self) {
        if self.failure.lock().take().is_some() {
            tracing::info!("tier 2 works again");
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.environment.clock.now_ms())
    }

    fn new_chunk_id(&self) -> ChunkId {
        ChunkId(aquifer_env::uuid_v4(&*self.environment.random))
    }

    async fn put_once(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        put_once(&self.store, path, bytes).await
    }

    async fn commit(&self, operation: Operation) -> Result<Committed, Error> {
        self.ledger.commit(Commit::of(vec![operation])).await
    }
}

/// Puts an object under a name that is never used again. Where the answer is
/// lost, looks whether the object is there and the same.
pub(crate) async fn put_once(store: &TierStore, path: &str, bytes: Bytes) -> Result<(), Error> {
    match store.put_new(path, bytes.clone()).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_definite() && error.kind != StoreErrorKind::AlreadyExists => {
            Err(from_store(error))
        }
        Err(error) => match store.get(path).await {
            Ok(found) if found == bytes => Ok(()),
            Ok(_) => Err(Error::Tier2(format!("{path} holds other bytes: {error}"))),
            Err(_) => Err(from_store(error)),
        },
    }
}

fn is_fenced(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Fenced(_)))
}

/// The store's errors as the stream store says them.
pub(crate) fn from_store(error: StoreError) -> Error {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    Error::Tier2(text)
}
