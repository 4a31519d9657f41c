//! Batches rendered as JSON once for all tails that follow them.
//!
//! A cache of bounded size; what is not in it is rendered again. Offsets name
//! their records for ever, so an entry is never stale.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aquifer_types::{Batch, Offset, PartitionIndex, Record, StreamId};
use parking_lot::Mutex;

use crate::render;

/// Where a batch is: its stream, partition and first offset.
type Key = (StreamId, PartitionIndex, Offset);

/// The records of one batch, each as JSON.
#[derive(Debug)]
pub(crate) struct Rendered {
    json: Vec<u8>,
    /// Each record's offset and the end of its JSON.
    ends: Vec<(Offset, usize)>,
}

impl Rendered {
    pub(crate) fn of_records(partition: PartitionIndex, records: &[Record]) -> Self {
        let mut json = Vec::new();
        let mut ends = Vec::with_capacity(records.len());
        for record in records {
            render::record(&mut json, partition, record);
            ends.push((record.offset, json.len()));
        }
        Self { json, ends }
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

    /// A whole batch, rendered now or before.
    pub(crate) fn batch<E>(
        &self,
        stream: StreamId,
        partition: PartitionIndex,
        batch: &Batch,
        records: impl FnOnce() -> Result<Vec<Record>, E>,
    ) -> Result<Arc<Rendered>, E> {
        let key = (stream, partition, batch.header().base_offset);
        if let Some((_, rendered)) = self.entries.lock().by_key.get(&key) {
            return Ok(Arc::clone(rendered));
        }
        let rendered = Arc::new(Rendered::of_records(partition, &records()?));
        self.insert(key, &rendered);
        Ok(rendered)
    }

    fn insert(&self, key: Key, rendered: &Arc<Rendered>) {
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
    use std::convert::Infallible;

    use aquifer_types::{BatchBuilder, Epoch, Timestamp};

    use super::*;

    fn batch(base: i64) -> Batch {
        let mut builder = BatchBuilder::new(Offset(base), Epoch(1));
        for _ in 0..3 {
            builder.push(Timestamp(1), None, &[], Some(b"v"));
        }
        builder.finish()
    }

    #[test]
    fn a_batch_is_rendered_once_and_read_from_anywhere() {
        let cache = RenderedCache::new(1 << 20);
        let stream = StreamId::from_bytes([1; 16]);
        let mut times = 0;
        for from in [0, 11, 12, 99] {
            let batch = batch(10);
            let rendered = cache
                .batch(stream, PartitionIndex(0), &batch, || {
                    times += 1;
                    Ok::<_, Infallible>(batch.to_records(1 << 20).unwrap())
                })
                .unwrap();
            let offsets: Vec<_> = rendered
                .records_from(Offset(from))
                .map(|(offset, json)| {
                    let record: serde_json::Value = serde_json::from_slice(json).unwrap();
                    assert_eq!(record["offset"], offset.0);
                    offset.0
                })
                .collect();
            assert_eq!(offsets, (from.max(10)..13).collect::<Vec<_>>());
        }
        assert_eq!(times, 1);
    }

    #[test]
    fn the_oldest_go_when_it_is_full() {
        let cache = RenderedCache::new(4096);
        let stream = StreamId::from_bytes([1; 16]);
        for base in 0..1000 {
            let batch = batch(base * 3);
            let records = || Ok::<_, Infallible>(batch.to_records(1 << 20).unwrap());
            cache.batch(stream, PartitionIndex(0), &batch, records).unwrap();
            assert!(cache.entries.lock().bytes <= 4096);
        }
        let entries = cache.entries.lock();
        assert_eq!(entries.by_key.len(), entries.by_age.len());
        assert!(entries.by_key.len() > 2 && entries.by_key.len() < 100);
        assert!(entries.by_key.contains_key(&(stream, PartitionIndex(0), Offset(999 * 3))));
        let bytes: usize = entries.by_key.values().map(|(_, rendered)| rendered.bytes()).sum();
        assert_eq!(entries.bytes, bytes);
    }
}
