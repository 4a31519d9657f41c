//! Who can be cancelled: a client gets a number and a secret when it is logged
//! in, and shows both on a connection of their own to have its statement ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aquifer_env::Random;
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;
use tokio::sync::watch;

/// The connections that are logged in; no more than there are connections.
/// Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cancels {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: AtomicU32,
    of: Mutex<HashMap<u32, Entry>>,
}

#[derive(Debug)]
struct Entry {
    secret: u32,
    /// How often it was cancelled.
    sender: watch::Sender<u64>,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Cancellable {
    cancels: Cancels,
    pub(crate) process: u32,
    pub(crate) secret: u32,
    receiver: watch::Receiver<u64>,
}

impl Cancels {
    /// Takes a place.
    pub(crate) fn enter(&self, random: &dyn Random) -> Cancellable {
        let mut bytes = [0; 4];
        random.fill(&mut bytes);
        let secret = u32::from_ne_bytes(bytes);
        let (sender, receiver) = watch::channel(0);
        let mut of = self.inner.of.lock();
        let process = loop {
            // Positive, as a process's number is; a place may be taken still
            // when all numbers have been given once.
            let process = self.inner.last.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff;
            if process != 0 && !of.contains_key(&process) {
                break process;
            }
        };
        of.insert(process, Entry { secret, sender });
        drop(of);
        Cancellable { cancels: self.clone(), process, secret, receiver }
    }

    /// Cancels what the connection runs, if the secret is its own.
    pub(crate) fn cancel(&self, process: u32, secret: u32) -> bool {
        let of = self.inner.of.lock();
        let Some(entry) = of.get(&process) else { return false };
        let fits = bool::from(entry.secret.to_ne_bytes().ct_eq(&secret.to_ne_bytes()));
        if fits {
            entry.sender.send_modify(|count| *count += 1);
        }
        fits
    }
}

impl Cancellable {
    /// Forgets what was cancelled before now.
    pub(crate) fn begin(&mut self) {
        self.receiver.mark_unchanged();
    }

    /// Returns when a cancel comes.
    pub(crate) async fn cancelled(&mut self) {
        // The sender lives as long as this.
        let _ = self.receiver.changed().await;
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        self.cancels.inner.of.lock().remove(&self.process);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aquifer_env::SeededRandom;

    use super::*;

    #[tokio::test]
    async fn only_the_secret_cancels_and_only_what_runs() {
        let (cancels, random) = (Cancels::default(), SeededRandom::new(1));
        let mut one = cancels.enter(&random);
        let two = cancels.enter(&random);
        assert_ne!((one.process, one.secret), (two.process, two.secret));
        assert!(!cancels.cancel(one.process, one.secret ^ 1));
        assert!(!cancels.cancel(99, one.secret));
        assert!(cancels.cancel(one.process, one.secret));
        one.cancelled().await;
        assert!(cancels.cancel(one.process, one.secret));
        one.begin();
        let late = tokio::time::timeout(Duration::from_millis(1), one.cancelled()).await;
        assert!(late.is_err());
        drop((one, two));
        assert!(cancels.inner.of.lock().is_empty());
    }
}
