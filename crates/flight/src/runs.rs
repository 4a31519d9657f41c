//! The statements that run, so that a client can cancel one by its ticket.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::login::Owner;
use crate::tickets::RunId;

/// What runs; no more than there are calls. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs {
    of: Arc<Mutex<HashMap<(Owner, RunId), Entry>>>,
}

#[derive(Debug)]
struct Entry {
    /// How often it was cancelled.
    cancels: watch::Sender<u64>,
    /// The calls that fetch it.
    calls: usize,
}

/// One call that fetches a statement's rows; it leaves when it is dropped.
#[derive(Debug)]
pub(crate) struct Run {
    runs: Runs,
    key: (Owner, RunId),
    cancelled: watch::Receiver<u64>,
}

impl Runs {
    /// Takes a place.
    pub(crate) fn enter(&self, owner: Owner, id: RunId) -> Run {
        let key = (owner, id);
        let mut of = self.of.lock();
        let entry = of
            .entry(key.clone())
            .or_insert_with(|| Entry { cancels: watch::channel(0).0, calls: 0 });
        entry.calls += 1;
        let cancelled = entry.cancels.subscribe();
        drop(of);
        Run { runs: self.clone(), key, cancelled }
    }

    /// Cancels what the owner runs under this id; whether anything did.
    pub(crate) fn cancel(&self, owner: &Owner, id: RunId) -> bool {
        let of = self.of.lock();
        let Some(entry) = of.get(&(owner.clone(), id)) else { return false };
        entry.cancels.send_modify(|count| *count += 1);
        true
    }
}

impl Run {
    /// Returns when a cancel comes, or came.
    pub(crate) async fn cancelled(&mut self) {
        // The sender lives as long as this.
        let _ = self.cancelled.wait_for(|count| *count > 0).await;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut of = self.runs.of.lock();
        if let Some(entry) = of.get_mut(&self.key) {
            entry.calls -= 1;
            if entry.calls == 0 {
                of.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_cancel_reaches_its_owners_calls_and_no_others() {
        let runs = Runs::default();
        let (alice, bob) = (Owner::of_user("alice"), Owner::of_user("bob"));
        let (one, two) = (RunId([1; 16]), RunId([2; 16]));
        assert!(!runs.cancel(&alice, one));
        let mut first = runs.enter(alice.clone(), one);
        let mut second = runs.enter(alice.clone(), one);
        let mut other = runs.enter(bob.clone(), one);
        let mut another = runs.enter(alice.clone(), two);
        assert!(runs.cancel(&alice, one));
        first.cancelled().await;
        second.cancelled().await;
        for run in [&mut other, &mut another] {
            let late = tokio::time::timeout(Duration::from_millis(1), run.cancelled()).await;
            assert!(late.is_err());
        }
        drop((first, second));
        assert!(!runs.cancel(&alice, one));
        // What is asked anew was not cancelled.
        let mut anew = runs.enter(alice, one);
        let late = tokio::time::timeout(Duration::from_millis(1), anew.cancelled()).await;
        assert!(late.is_err());
        drop((other, another, anew));
        assert!(runs.of.lock().is_empty());
    }
}
