//! Who may write to tier 2.
//!
//! Each start has an epoch above all earlier ones of its data directory and
//! claims the object `_owner/<epoch, 10 digits>` before it writes anything else.
//! Whoever finds a newer claim, or its own epoch claimed by somebody else, is
//! *fenced*: it puts and deletes nothing any more. So a data directory that was
//! recovered elsewhere, copied, or pointed at a tier 2 that is not its own cannot
//! harm the one in force.
//!
//! A claim is made once the epoch is durable in the journal, so no later start
//! has the same epoch; a crash between the two leaves an epoch without a claim.
//! A server that stood still between a check and a put or delete may still do
//! that one thing: names are never used twice, and a delete concerns what was
//! garbage for the grace time.

use std::sync::atomic::{AtomicU64, Ordering};

use aquifer_env::store::TierStore;
use aquifer_types::Epoch;
use bytes::Bytes;

use super::from_store;
use crate::Error;
use crate::store::Environment;

/// The folder of the claims.
pub(crate) const FOLDER: &str = "_owner";
/// Older claims that are kept, for people to see.
const CLAIMS_KEPT: usize = 10;
/// Claims deleted at once, so that a start is not held up.
const CLAIMS_DELETED_MAX: usize = 100;

/// One server's claim.
#[derive(Debug)]
pub(crate) struct Owner {
    store: TierStore,
    environment: Environment,
    epoch: Epoch,
    content: Bytes,
    /// When nobody newer was seen last, on the monotonic clock.
    checked_ns: AtomicU64,
}

/// The path of an epoch's claim.
pub(crate) fn path_of(epoch: Epoch) -> String {
    format!("{FOLDER}/{:010}", epoch.get())
}

fn epoch_of(path: &str) -> Option<Epoch> {
    let digits = path.strip_prefix(FOLDER)?.strip_prefix('/')?;
    (digits.len() == 10).then(|| digits.parse().ok().map(Epoch)).flatten()
}

/// The epochs that were claimed, in order.
pub(crate) async fn claimed(store: &TierStore) -> Result<Vec<Epoch>, Error> {
    let entries = store.list(FOLDER).await.map_err(from_store)?;
    let mut epochs: Vec<Epoch> = entries.iter().filter_map(|e| epoch_of(&e.path)).collect();
    epochs.sort();
    Ok(epochs)
}

impl Owner {
    pub(crate) fn new(store: TierStore, environment: Environment, epoch: Epoch) -> Self {
        let server = aquifer_env::uuid_v4(&*environment.random);
        let claimed_ms = environment.clock.now_ms();
        let content = serde_json::json!({ "server": server, "claimed_ms": claimed_ms });
        let content = Bytes::from(format!("{content}\n"));
        Self { store, environment, epoch, content, checked_ns: AtomicU64::new(0) }
    }

    /// Claims the epoch. Asking again after a lost answer is fine.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Tier2`].
    pub(crate) async fn claim(&self) -> Result<(), Error> {
        let older = self.older().await?;
        let path = path_of(self.epoch);
        if let Err(error) = self.store.put_new(&path, self.content.clone()).await {
            if error.is_definite() {
                return Err(from_store(error));
            }
            match self.store.get(&path).await {
                Ok(found) if found == self.content => {}
                Ok(found) => return Err(self.fenced(self.epoch, &found)),
                Err(_) => return Err(from_store(error)),
            }
        }
        let superfluous = older.len().saturating_sub(CLAIMS_KEPT).min(CLAIMS_DELETED_MAX);
        for epoch in older.iter().take(superfluous) {
            // A store that deletes nothing is claimed all the same.
            if let Err(error) = self.store.delete(&path_of(*epoch)).await {
                tracing::warn!(%error, %epoch, "an old claim could not be deleted");
                break;
            }
        }
        Ok(())
    }

    /// Looks whether nobody newer has come.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Tier2`].
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let now_ns = self.environment.clock.monotonic_ns();
        self.older().await?;
        self.checked_ns.store(now_ns.max(1), Ordering::Relaxed);
        Ok(())
    }

    /// As [`Owner::check`], unless that was done within `age_ms_max`.
    pub(crate) async fn check_lately(&self, age_ms_max: u64) -> Result<(), Error> {
        let checked_ns = self.checked_ns.load(Ordering::Relaxed);
        let age_ns = self.environment.clock.monotonic_ns().saturating_sub(checked_ns);
        if checked_ns > 0 && age_ns / 1_000_000 <= age_ms_max {
            return Ok(());
        }
        self.check().await
    }

    /// The claims of older epochs; an error where there is a newer one.
    async fn older(&self) -> Result<Vec<Epoch>, Error> {
        let mut epochs = claimed(&self.store).await?;
        if let Some(newest) = epochs.last().copied().filter(|newest| *newest > self.epoch) {
            let content = self.store.get(&path_of(newest)).await.unwrap_or_default();
            return Err(self.fenced(newest, &content));
        }
        epochs.retain(|epoch| *epoch < self.epoch);
        Ok(epochs)
    }

    fn fenced(&self, by: Epoch, content: &[u8]) -> Error {
        let who: String = String::from_utf8_lossy(content).trim().chars().take(200).collect();
        Error::Fenced(format!(
            "{} belongs to epoch {by} of another server ({who}), this one has epoch {}: \
             nothing is tiered from here any more; stop this server, or give it a tier 2 of its own",
            self.store, self.epoch
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aquifer_env::{Fault, FaultyStore, MockClock, RealDisk, SeededRandom};

    use super::*;

    fn owner(store: &TierStore, epoch: u32, seed: u64) -> Owner {
        let environment = Environment {
            disk: Arc::new(RealDisk::new()),
            clock: Arc::new(MockClock::new(5)),
            random: Arc::new(SeededRandom::new(seed)),
            tier2: None,
        };
        Owner::new(store.clone(), environment, Epoch(epoch))
    }

    #[tokio::test]
    async fn an_old_claim_that_cannot_be_deleted_keeps_nobody_from_claiming() {
        let inner = TierStore::in_memory();
        for epoch in 1..=CLAIMS_KEPT as u32 + 1 {
            owner(&inner, epoch, 1).claim().await.unwrap();
        }
        let faulty = FaultyStore::new(&inner, 1);
        // It lists, puts and deletes.
        faulty.plan(3, Fault::Refused);
        let newest = owner(&faulty.store(), 20, 1);
        newest.claim().await.unwrap();
        assert_eq!(faulty.injected(Fault::Refused), 1);
        newest.check().await.unwrap();
    }

    #[tokio::test]
    async fn the_newest_claim_fences_all_others() {
        let store = TierStore::in_memory();
        let first = owner(&store, 1, 1);
        first.claim().await.unwrap();
        first.claim().await.unwrap();
        first.check().await.unwrap();
        assert!(matches!(owner(&store, 1, 2).claim().await, Err(Error::Fenced(_))), "a copy");
        let second = owner(&store, 2, 1);
        second.claim().await.unwrap();
        assert!(matches!(first.check().await, Err(Error::Fenced(_))));
        assert!(matches!(first.claim().await, Err(Error::Fenced(_))));
        second.check().await.unwrap();
        for epoch in 3..20 {
            owner(&store, epoch, 1).claim().await.unwrap();
        }
        let kept = claimed(&store).await.unwrap();
        assert_eq!((kept.first(), kept.last()), (Some(&Epoch(9)), Some(&Epoch(19))));
    }
}
