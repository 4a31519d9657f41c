//! Appends that stand on their own, handed to the ledger together.
//!
//! A request to many partitions is one submission and one wait, but each of its
//! appends is decided for itself: one that is refused fails no other.

use aquifer_types::{Batch, Timestamp};

use super::StreamStore;
use super::handle::PartitionHandle;
use crate::Error;
use crate::api::Appended;
use crate::ledger::{Commit, Operation, Outcome, Submitted};

/// One append of [`StreamStore::submit_each`].
#[derive(Debug, Clone)]
pub struct EachAppend {
    /// Where it goes.
    pub partition: PartitionHandle,
    /// Validated.
    pub batch: Batch,
}

/// What became of one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EachAppended {
    /// Its place; a duplicate's is that of the first time.
    pub appended: Appended,
    /// When the server took it.
    pub at: Timestamp,
    /// Whether it had been appended before.
    pub is_duplicate: bool,
}

/// Appends that stand in the ledger's queue, in their order.
#[derive(Debug)]
pub struct SubmittedAppends {
    store: StreamStore,
    waiting: Vec<Result<Submitted, Error>>,
    bytes: u64,
    started_ns: u64,
}

impl StreamStore {
    /// Puts appends into the ledger's queue, in order; whoever submits after
    /// this has returned stands behind them. What becomes of them is told by
    /// [`SubmittedAppends::answers`]; they are done whether or not that is asked.
    pub async fn submit_each(&self, appends: Vec<EachAppend>) -> SubmittedAppends {
        let started_ns = self.inner.environment.clock.monotonic_ns();
        let is_full = self.check_journal().err();
        let mut bytes = 0;
        let mut commits = Vec::with_capacity(appends.len());
        for EachAppend { partition, batch } in appends {
            let checked = match &is_full {
                Some(error) => Err(error.clone()),
                None => self.check_each(&partition, &batch),
            };
            commits.push(checked.map(|()| {
                bytes += batch.bytes().len() as u64;
                let partition = partition.partition();
                let operations =
                    vec![Operation::Append { partition, batch, expected_offset: None }];
                Commit::of(operations)
            }));
        }
        let waiting = self.inner.ledger.submit_each(commits).await;
        SubmittedAppends { store: self.clone(), waiting, bytes, started_ns }
    }

    fn check_each(&self, partition: &PartitionHandle, batch: &Batch) -> Result<(), Error> {
        if batch.header().is_control || batch.header().record_count == 0 {
            return Err(Error::Invalid("a batch to append has records".into()));
        }
        self.check_backlog(partition.log())
    }
}

impl SubmittedAppends {
    /// Waits until everything is durable, as the classes of the streams say, or
    /// refused; answers one for each append, in their order.
    pub async fn answers(self) -> Vec<Result<EachAppended, Error>> {
        let Self { store, waiting, bytes, started_ns } = self;
        let metrics = &store.inner.metrics;
        let mut answers = Vec::with_capacity(waiting.len());
        for submitted in waiting {
            let committed = match submitted {
                Ok(submitted) => submitted.committed().await,
                Err(error) => Err(error),
            };
            let answer = committed.and_then(|committed| {
                let (appended, is_duplicate) = match committed.outcomes.first() {
                    Some(Outcome::Appended(appended)) => (*appended, false),
                    Some(Outcome::Duplicate(appended)) => (*appended, true),
                    _ => return Err(Error::Internal("an append without an outcome".into())),
                };
                Ok(EachAppended { appended, at: committed.at, is_duplicate })
            });
            match &answer {
                Ok(answer) => metrics.append_records.inc_by(u64::from(answer.appended.count)),
                Err(_) => metrics.append_failures.inc(),
            };
            answers.push(answer);
        }
        metrics.appends.inc();
        metrics.append_bytes.inc_by(bytes);
        let now = store.inner.environment.clock.monotonic_ns();
        metrics.append_seconds.observe(now.saturating_sub(started_ns) as f64 / 1e9);
        answers
    }
}
