//! Leases on chunks: while one that is older than a chunk's removal lives, the
//! chunk's object stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// All leases that were not given back.
#[derive(Debug)]
pub(crate) struct Leases {
    live: Mutex<Live>,
    lease_ns: u64,
}

#[derive(Debug, Default)]
struct Live {
    next: u64,
    /// When each was taken, on the monotonic clock.
    taken: BTreeMap<u64, u64>,
}

/// A lease; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    id: u64,
    leases: Arc<Leases>,
}

impl Leases {
    pub(crate) fn new(lease_ms: u64) -> Arc<Self> {
        let lease_ns = lease_ms.saturating_mul(1_000_000);
        Arc::new(Self { live: Mutex::default(), lease_ns })
    }

    pub(crate) fn take(self: &Arc<Self>, now_ns: u64) -> Lease {
        let mut live = self.live.lock();
        let id = live.next;
        live.next += 1;
        live.taken.insert(id, now_ns);
        Lease { id, leases: self.clone() }
    }

    /// When the oldest lease that has not expired was taken.
    pub(crate) fn oldest(&self, now_ns: u64) -> Option<u64> {
        let live = self.live.lock();
        let lasts = |taken_ns: &u64| now_ns.saturating_sub(*taken_ns) < self.lease_ns;
        live.taken.values().copied().filter(lasts).min()
    }

    pub(crate) fn count(&self) -> usize {
        self.live.lock().taken.len()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.live.lock().taken.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lease_counts_until_it_expires_or_is_given_back() {
        let leases = Leases::new(100);
        let ns = |ms: u64| ms * 1_000_000;
        assert_eq!(leases.oldest(ns(0)), None);
        let first = leases.take(ns(10));
        let _second = leases.take(ns(50));
        assert_eq!(leases.oldest(ns(60)), Some(ns(10)));
        assert_eq!(leases.oldest(ns(110)), Some(ns(50)), "the first expired");
        drop(first);
        assert_eq!(leases.oldest(ns(60)), Some(ns(50)));
        assert_eq!(leases.count(), 1);
    }
}
