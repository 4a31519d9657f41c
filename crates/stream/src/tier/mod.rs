//! Tier 2: from the journal into Parquet, and what follows from it.
//!
//! One round after the other: [`upload`] cuts chunks and puts them into the
//! store, [`garbage`] deletes what nobody needs. A commit to the ledger is the
//! only arbiter of what exists: an upload is announced before it begins, so
//! that whatever a crash leaves in the store is known and goes.

mod garbage;
mod upload;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aquifer_env::store::{StoreError, TierStore};
use aquifer_types::{ChunkId, Epoch, Timestamp};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Error;
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
                    self.give_up_old_uploads().await?;
                    is_started = true;
                }
                self.round().await
            };
            match result.await {
                Ok(()) => pause = interval,
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

    /// One round of everything.
    async fn round(self: &Arc<Self>) -> Result<(), Error> {
        self.upload_due().await?;
        self.collect_garbage().await
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

    async fn commit(&self, operation: Operation) -> Result<Committed, Error> {
        let id = aquifer_types::CommitId(aquifer_env::uuid_v4(&*self.environment.random));
        self.ledger.commit(Commit { id, operations: vec![operation], idempotency: None }).await
    }
}

/// The store's errors as the stream store says them.
fn from_store(error: StoreError) -> Error {
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
