//! A store that is away, slow, or loses its answers. For tests only (feature
//! `faulty`).
//!
//! Calls are counted from 1 in the order in which they begin; what befalls each
//! is fixed by the seed, the rates and its number.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Backend, StoreEntry, StoreError, TierStore};
use crate::random::{Random, SeededRandom};

/// How many other tasks may go first while a call is slow, at most.
const SLOW_YIELDS_MAX: u64 = 100;

/// What may befall a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Refused at the door: not done, and an error.
    Refused,
    /// Done or not, as the seed says, and an error.
    TimedOut,
    /// Done, and an error.
    AnswerLost,
    /// Waits until [`FaultyStore::release_stalled`], then is done.
    Stalled,
    /// Lets other tasks go first, then is done.
    Slow,
}

/// How many of a thousand calls each fault befalls; together at most 1,000.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// [`Fault::Refused`].
    pub refused: u64,
    /// [`Fault::TimedOut`].
    pub timed_out: u64,
    /// [`Fault::AnswerLost`].
    pub answer_lost: u64,
    /// [`Fault::Stalled`].
    pub stalled: u64,
    /// [`Fault::Slow`].
    pub slow: u64,
}

impl FaultRates {
    fn pick(&self, mut drawn: u64) -> Option<Fault> {
        let rates = [
            (self.refused, Fault::Refused),
            (self.timed_out, Fault::TimedOut),
            (self.answer_lost, Fault::AnswerLost),
            (self.stalled, Fault::Stalled),
            (self.slow, Fault::Slow),
        ];
        for (rate, fault) in rates {
            if drawn < rate {
                return Some(fault);
            }
            drawn -= rate;
        }
        None
    }
}

/// Control over a [`TierStore`] that fails. Clones control the same store.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    backend: Arc<dyn Backend>,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct Faults {
    plan: Mutex<Plan>,
    stalled: watch::Sender<u64>,
    released: watch::Sender<u64>,
}

#[derive(Debug)]
struct Plan {
    seed: u64,
    rates: FaultRates,
    planned: HashMap<u64, Fault>,
    down: bool,
    calls: u64,
    injected: HashMap<Fault, u64>,
}

impl FaultyStore {
    /// A store over `inner` that is faultless until told otherwise.
    pub fn new(inner: &TierStore, seed: u64) -> FaultyStore {
        let plan = Plan {
            seed,
            rates: FaultRates::default(),
            planned: HashMap::new(),
            down: false,
            calls: 0,
            injected: HashMap::new(),
        };
        let faults = Faults {
            plan: Mutex::new(plan),
            stalled: watch::Sender::new(0),
            released: watch::Sender::new(0),
        };
        FaultyStore { backend: inner.backend.clone(), faults: Arc::new(faults) }
    }

    /// The failing store behind the seam.
    pub fn store(&self) -> TierStore {
        TierStore::of(FaultyBackend { inner: self.backend.clone(), faults: self.faults.clone() })
    }

    /// How often what happens from now on.
    pub fn set_rates(&self, rates: FaultRates) {
        self.faults.plan.lock().rates = rates;
    }

    /// Lets call number `nth` (counted by [`FaultyStore::calls`]) meet `fault`,
    /// whatever the rates.
    pub fn plan(&self, nth: u64, fault: Fault) {
        self.faults.plan.lock().planned.insert(nth, fault);
    }

    /// Takes the store away, or back: meanwhile every call is refused.
    pub fn set_down(&self, down: bool) {
        self.faults.plan.lock().down = down;
    }

    /// Calls so far; a list counts once.
    pub fn calls(&self) -> u64 {
        self.faults.plan.lock().calls
    }

    /// How often a fault has happened so far; a test run in which what it is
    /// about stays zero proves nothing.
    pub fn injected(&self, fault: Fault) -> u64 {
        self.faults.plan.lock().injected.get(&fault).copied().unwrap_or(0)
    }

    /// How many calls wait for [`FaultyStore::release_stalled`] now.
    pub fn stalled(&self) -> u64 {
        *self.faults.stalled.borrow()
    }

    /// Waits until at least `count` calls are stalled.
    pub async fn wait_for_stalled(&self, count: u64) {
        let mut stalled = self.faults.stalled.subscribe();
        // The sender lives as long as this handle.
        let _ = stalled.wait_for(|stalled| *stalled >= count).await;
    }

    /// Lets every stalled call go on; they are done after all.
    pub fn release_stalled(&self) {
        self.faults.released.send_modify(|released| *released += 1);
    }
}

impl Plan {
    /// The fault of the call that begins now, and its luck.
    fn next(&mut self) -> (Option<Fault>, u64) {
        self.calls += 1;
        let mixed = SeededRandom::new(self.seed).next_u64();
        let random = SeededRandom::new(mixed.wrapping_add(self.calls));
        let (drawn, luck) = (random.next_u64() % 1_000, random.next_u64());
        let fault = match (self.down, self.planned.remove(&self.calls)) {
            (true, _) => Some(Fault::Refused),
            (false, Some(fault)) => Some(fault),
            (false, None) => self.rates.pick(drawn),
        };
        if let Some(fault) = fault {
            *self.injected.entry(fault).or_default() += 1;
        }
        (fault, luck)
    }
}

/// A call that is counted as stalled as long as it lives.
struct Stall<'a>(&'a watch::Sender<u64>);

impl<'a> Stall<'a> {
    fn begin(count: &'a watch::Sender<u64>) -> Stall<'a> {
        count.send_modify(|stalled| *stalled += 1);
        Stall(count)
    }
}

impl Drop for Stall<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|stalled| *stalled -= 1);
    }
}

impl Faults {
    async fn call<T>(
        &self,
        path: &str,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let (fault, luck) = self.plan.lock().next();
        match fault {
            None => work.await,
            Some(Fault::Refused) => Err(StoreError::unavailable(path, "injected: 503")),
            Some(Fault::TimedOut) => {
                if luck.is_multiple_of(2) {
                    let _ = work.await;
                }
                Err(StoreError::unavailable(path, "injected: no answer in time"))
            }
            Some(Fault::AnswerLost) => {
                let _ = work.await;
                Err(StoreError::unavailable(path, "injected: connection reset"))
            }
            Some(Fault::Stalled) => {
                // Subscribed before it is counted, so that no release is missed.
                let mut released = self.released.subscribe();
                let stall = Stall::begin(&self.stalled);
                let _ = released.changed().await;
                drop(stall);
                work.await
            }
            Some(Fault::Slow) => {
                for _ in 0..luck % SLOW_YIELDS_MAX + 1 {
                    tokio::task::yield_now().await;
                }
                work.await
            }
        }
    }
}

#[derive(Debug)]
struct FaultyBackend {
    inner: Arc<dyn Backend>,
    faults: Arc<Faults>,
}

impl fmt::Display for FaultyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl Backend for FaultyBackend {
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.faults.call(path, self.inner.put_new(path, bytes)).await
    }

    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.faults.call(path, self.inner.put(path, bytes)).await
    }

    async fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        self.faults.call(path, self.inner.get(path)).await
    }

    async fn get_ranges(
        &self,
        path: &str,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>, StoreError> {
        self.faults.call(path, self.inner.get_ranges(path, ranges)).await
    }

    async fn head(&self, path: &str) -> Result<u64, StoreError> {
        self.faults.call(path, self.inner.head(path)).await
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.faults.call(path, self.inner.delete(path)).await
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<StoreEntry, StoreError>> {
        let (faults, inner) = (self.faults.clone(), self.inner.clone());
        let folder = folder.to_owned();
        let listed = async move { faults.call(&folder, async { Ok(inner.list(&folder)) }).await };
        stream::once(listed).try_flatten().boxed()
    }
}
