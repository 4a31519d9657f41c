//! Batches rendered as JSON once for all tails that follow them.
//!
//! A cache of bounded size; what is not in it is rendered again. Offsets name
//! their records for ever, so an entry is never stale.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use aquifer_stream::Block;
use aquifer_types::{Offset, PartitionIndex, StreamId};
use parking_lot::Mutex;

use crate::render;

/// Where a batch is: its stream, partition and first offset.
pub(crate) type Key = (StreamId, PartitionIndex, Offset);

/// The records of one block, each as JSON.
#[derive(Debug)]
pub(crate) struct Rendered {
    json: Vec<u8>,
    /// Each record's offset and the end of its JSON.
    ends: Vec<(Offset, usize)>,
    /// The first record that is left out behind them.
    left: Option<Offset>,
}

impl Rendered {
    /// The records of a block from `from` on, until their JSON has `bytes_max`
    /// bytes; one of them at least.
    pub(crate) fn of_block(
        partition: PartitionIndex,
        block: &Block,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Self, aquifer_stream::Error> {
        let mut json = Vec::new();
        let mut ends = Vec::new();
        let left = block.visit_from(from, |record| {
            if json.len() >= bytes_max {
                return ControlFlow::Break(record.offset);
            }
            render::record(&mut json, partition, &record);
            ends.push((record.offset, json.len()));
            ControlFlow::Continue(())
        })?;
        Ok(Self { json, ends, left })
    }

    /// Where it goes on; none where the block ends with it.
    pub(crate) const fn left(&self) -> Option<Offset> {
        self.left
    }

    /// The records from `from` on: offset and JSON.
    pub(crate) fn records_from(&self, from: Offset) -> impl Iterator<Item = (Offset, &[u8])> {
        let first = self.ends.partition_point(|(offset, _)| *offset < from);
        let mut begin = match first.checked_sub(1).and_then(|before| self.ends.get(before)) {
            Some((_, end)) => *end,
            None => 0,
        };
        self.ends.get(first..).unwrap_or_default().iter().map(move |(offset, end)| {
            let json = self.json.get(begin..*end).unwrap_or_default();
            begin = *end;
            (*offset, json)
        })
    }

    fn bytes(&self) -> usize {
        self.json.capacity() + self.ends.capacity() * size_of::<(Offset, usize)>()
    }
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<Key, (u64, Arc<Rendered>)>,
    /// By the time of entry: the oldest go first, since tails move on.
    by_age: BTreeMap<u64, Key>,
    next_age: u64,
    bytes: usize,
}

/// The cache. Concurrent tails that miss the same batch may render it twice.
#[derive(Debug)]
pub(crate) struct RenderedCache {
    bytes_max: usize,
    entries: Mutex<Entries>,
}

impl RenderedCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, entries: Mutex::default() }
    }

    /// A whole batch that was rendered before.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Rendered>> {
        self.entries.lock().by_key.get(key).map(|(_, rendered)| Arc::clone(rendered))
    }

    /// Keeps a whole batch that was rendered.
    pub(crate) fn insert(&self, key: Key, rendered: &Arc<Rendered>) {
        let bytes = rendered.bytes();
        if bytes > self.bytes_max / 2 {
            return;
        }
        let mut entries = self.entries.lock();
        let age = entries.next_age;
        entries.next_age += 1;
        if let Some((before, old)) = entries.by_key.insert(key, (age, Arc::clone(rendered))) {
            entries.by_age.remove(&before);
            entries.bytes -= old.bytes();
        }
        entries.by_age.insert(age, key);
        entries.bytes += bytes;
        while entries.bytes > self.bytes_max {
            let Some((_, oldest)) = entries.by_age.pop_first() else { break };
            if let Some((_, old)) = entries.by_key.remove(&oldest) {
                entries.bytes -= old.bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::{BatchBuilder, Epoch, Timestamp};

    use super::*;

    fn block(base: i64) -> Block {
        let mut builder = BatchBuilder::new(Offset(base), Epoch(1));
        for _ in 0..3 {
            builder.push(Timestamp(1), None, &[], Some(b"v"));
        }
        Block::Batch(builder.finish())
    }

    fn key(base: i64) -> Key {
        (StreamId::from_bytes([1; 16]), PartitionIndex(0), Offset(base))
    }

    fn rendered(base: i64, from: i64, bytes_max: usize) -> Arc<Rendered> {
        let block = block(base);
        Arc::new(Rendered::of_block(PartitionIndex(0), &block, Offset(from), bytes_max).unwrap())
    }

    fn offsets(rendered: &Rendered, from: i64) -> Vec<i64> {
        let records = rendered.records_from(Offset(from));
        records
            .map(|(offset, json)| {
                let record: serde_json::Value = serde_json::from_slice(json).unwrap();
                assert_eq!(record["offset"], offset.0);
                offset.0
            })
            .collect()
    }

    #[test]
    fn a_batch_is_rendered_once_and_read_from_anywhere() {
        let cache = RenderedCache::new(1 << 20);
        assert!(cache.get(&key(10)).is_none());
        cache.insert(key(10), &rendered(10, 0, 1 << 20));
        for from in [0, 11, 12, 99] {
            let rendered = cache.get(&key(10)).unwrap();
            assert_eq!(offsets(&rendered, from), (from.max(10)..13).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_piece_ends_before_a_record() {
        for (from, bytes_max, expected, left) in [
            (0, 1, vec![10], Some(11)),
            (11, 1, vec![11], Some(12)),
            (12, 1, vec![12], None),
            (11, 1 << 20, vec![11, 12], None),
        ] {
            let rendered = rendered(10, from, bytes_max);
            assert_eq!(offsets(&rendered, 0), expected);
            assert_eq!(rendered.left(), left.map(Offset));
        }
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let cache = RenderedCache::new(4096);
        for base in 0..1000 {
            cache.insert(key(base * 3), &rendered(base * 3, 0, 1 << 20));
            assert!(cache.entries.lock().bytes <= 4096);
        }
        let entries = cache.entries.lock();
        assert_eq!(entries.by_key.len(), entries.by_age.len());
        assert!(entries.by_key.len() > 2 && entries.by_key.len() < 100);
        assert!(entries.by_key.contains_key(&key(999 * 3)));
        let bytes: usize = entries.by_key.values().map(|(_, rendered)| rendered.bytes()).sum();
        assert_eq!(entries.bytes, bytes);
    }
}
