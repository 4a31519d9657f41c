//! Leases on chunks: while one that is older than a chunk's removal lives, the
//! chunk's object stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use aquifer_types::Timestamp;
use parking_lot::Mutex;

/// All leases that were not given back.
#[derive(Debug)]
pub(crate) struct Leases {
    live: Mutex<Live>,
    lease_ms: u64,
}

#[derive(Debug, Default)]
struct Live {
    next: u64,
    taken: BTreeMap<u64, Timestamp>,
}

/// A lease; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    id: u64,
    leases: Arc<Leases>,
}

impl Leases {
    pub(crate) fn new(lease_ms: u64) -> Arc<Self> {
        Arc::new(Self { live: Mutex::default(), lease_ms })
    }

    pub(crate) fn take(self: &Arc<Self>, now: Timestamp) -> Lease {
        let mut live = self.live.lock();
        let id = live.next;
        live.next += 1;
        live.taken.insert(id, now);
        Lease { id, leases: self.clone() }
    }

    /// When the oldest lease that has not expired was taken.
    pub(crate) fn oldest(&self, now: Timestamp) -> Option<Timestamp> {
        let expired = Timestamp(now.get().saturating_sub_unsigned(self.lease_ms));
        let live = self.live.lock();
        live.taken.values().copied().filter(|taken| *taken > expired).min()
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
        assert_eq!(leases.oldest(Timestamp(0)), None);
        let first = leases.take(Timestamp(10));
        let _second = leases.take(Timestamp(50));
        assert_eq!(leases.oldest(Timestamp(60)), Some(Timestamp(10)));
        assert_eq!(leases.oldest(Timestamp(110)), Some(Timestamp(50)), "the first expired");
        drop(first);
        assert_eq!(leases.oldest(Timestamp(60)), Some(Timestamp(50)));
        assert_eq!(leases.count(), 1);
    }
}
