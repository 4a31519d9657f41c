//! The newest groups of the journal, kept in memory as they were written.
//!
//! A tailing reader takes its batches out of here without a copy. It is one
//! window over the journal, so keeping it within its budget is dropping the
//! oldest group. The memory of dropped groups that no reader holds is kept for
//! the next ones, a few at most.

use std::collections::BTreeMap;

use aquifer_journal::FileId;
use bytes::Bytes;
use parking_lot::Mutex;

/// Dropped groups whose memory is kept: one is assembled, one is written, and
/// some wait to be published.
const SPARES_MAX: usize = 4;

#[derive(Debug)]
pub(crate) struct TailCache {
    bytes_max: usize,
    groups: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    by_place: BTreeMap<(FileId, u64), Held>,
    /// The memory of all groups.
    bytes: usize,
    spares: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Held {
    group: Bytes,
    memory: usize,
}

impl Window {
    /// Keeps the memory of a dropped group if nobody else holds it and it is
    /// worth it: small groups are copies of their own size.
    fn reuse(&mut self, dropped: Held) {
        let is_own = dropped.memory > dropped.group.len();
        if is_own && self.spares.len() < SPARES_MAX && dropped.group.is_unique() {
            self.spares.push(Vec::from(dropped.group));
        }
    }
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, groups: Mutex::default() }
    }

    /// Adds a group that keeps `memory` bytes from other uses.
    pub(crate) fn add(&self, file: FileId, position: u64, group: Bytes, memory: usize) {
        let mut window = self.groups.lock();
        window.bytes += memory;
        let held = Held { group, memory };
        if let Some(old) = window.by_place.insert((file, position), held) {
            window.bytes -= old.memory;
        }
        while window.bytes > self.bytes_max {
            let Some((_, oldest)) = window.by_place.pop_first() else { break };
            window.bytes -= oldest.memory;
            window.reuse(oldest);
        }
    }

    /// The memory of a group that was dropped, if it has at least `capacity`
    /// bytes.
    pub(crate) fn take_spare(&self, capacity: usize) -> Option<Vec<u8>> {
        self.groups.lock().spares.pop().filter(|spare| spare.capacity() >= capacity)
    }

    /// The bytes at a place of the journal, if their group is still here.
    pub(crate) fn get(&self, file: FileId, position: u64, len: usize) -> Option<Bytes> {
        let window = self.groups.lock();
        let ((of, start), Held { group, .. }) =
            window.by_place.range(..=(file, position)).next_back()?;
        if *of != file {
            return None;
        }
        let at = usize::try_from(position - start).ok()?;
        let end = at.checked_add(len)?;
        (end <= group.len()).then(|| group.slice(at..end))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.groups.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_found_in_its_group_until_the_group_is_dropped() {
        let cache = TailCache::new(8);
        cache.add(FileId(1), 4096, Bytes::from_static(b"abcd"), 4);
        cache.add(FileId(2), 4096, Bytes::from_static(b"efgh"), 4);
        assert_eq!(cache.get(FileId(1), 4097, 2).as_deref(), Some(&b"bc"[..]));
        assert_eq!(cache.get(FileId(1), 4099, 2), None, "beyond its group");
        assert_eq!(cache.get(FileId(2), 0, 2), None, "before any group of its file");
        cache.add(FileId(2), 8192, Bytes::from_static(b"ij"), 2);
        assert_eq!(cache.get(FileId(1), 4097, 2), None, "dropped");
        assert_eq!(cache.get(FileId(2), 8192, 2).as_deref(), Some(&b"ij"[..]));
        assert_eq!(cache.bytes(), 6);
    }
    #[test]
    fn memory_of_dropped_groups_is_used_again_unless_a_reader_holds_it() {
        let cache = TailCache::new(100);
        let add = |number: u64, memory: usize| {
            let mut group = Vec::with_capacity(memory);
            group.extend_from_slice(&[number as u8; 40]);
            cache.add(FileId(1), number * 4096, Bytes::from(group), memory);
        };
        add(1, 90);
        let held = cache.get(FileId(1), 4096, 40).unwrap();
        add(2, 90);
        assert_eq!(cache.take_spare(90), None, "a reader holds it");
        assert_eq!(held, [1; 40].as_slice());
        add(3, 90);
        assert!(cache.take_spare(90).is_some_and(|spare| spare.capacity() >= 90));
        assert_eq!(cache.take_spare(90), None, "there was one");
        add(4, 90);
        assert_eq!(cache.take_spare(1000), None, "too small");
        for number in 5..20 {
            add(number, 90);
        }
        let spares = std::iter::from_fn(|| cache.take_spare(90)).count();
        assert_eq!(spares, SPARES_MAX);
    }
}
