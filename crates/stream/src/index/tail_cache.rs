//! The newest groups of the journal, kept in memory as they were written.
//!
//! A tailing reader takes its batches out of here without a copy. It is one
//! window over the journal, so keeping it within its budget is dropping the
//! oldest group.

use std::collections::BTreeMap;

use aquifer_journal::FileId;
use bytes::Bytes;
use parking_lot::Mutex;

#[derive(Debug)]
pub(crate) struct TailCache {
    bytes_max: usize,
    groups: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    by_place: BTreeMap<(FileId, u64), Bytes>,
    bytes: usize,
}

impl TailCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, groups: Mutex::default() }
    }

    pub(crate) fn add(&self, file: FileId, position: u64, group: Bytes) {
        let mut window = self.groups.lock();
        window.bytes += group.len();
        if let Some(old) = window.by_place.insert((file, position), group) {
            window.bytes -= old.len();
        }
        while window.bytes > self.bytes_max {
            let Some((_, oldest)) = window.by_place.pop_first() else { break };
            window.bytes -= oldest.len();
        }
    }

    /// The bytes at a place of the journal, if their group is still here.
    pub(crate) fn get(&self, file: FileId, position: u64, len: usize) -> Option<Bytes> {
        let window = self.groups.lock();
        let ((of, start), group) = window.by_place.range(..=(file, position)).next_back()?;
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
        cache.add(FileId(1), 4096, Bytes::from_static(b"abcd"));
        cache.add(FileId(2), 4096, Bytes::from_static(b"efgh"));
        assert_eq!(cache.get(FileId(1), 4097, 2).as_deref(), Some(&b"bc"[..]));
        assert_eq!(cache.get(FileId(1), 4099, 2), None, "beyond its group");
        assert_eq!(cache.get(FileId(2), 0, 2), None, "before any group of its file");
        cache.add(FileId(2), 8192, Bytes::from_static(b"ij"));
        assert_eq!(cache.get(FileId(1), 4097, 2), None, "dropped");
        assert_eq!(cache.get(FileId(2), 8192, 2).as_deref(), Some(&b"ij"[..]));
        assert_eq!(cache.bytes(), 6);
    }
}
