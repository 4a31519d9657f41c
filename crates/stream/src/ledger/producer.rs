//! Idempotent producers: what each of them appended last to a partition.
//!
//! As in Kafka, the last five batches of a producer are remembered, so that a
//! repetition gets its first answer again; an unknown producer may start at any
//! sequence.

use std::collections::{HashMap, VecDeque};

use aquifer_types::{
    BatchHeader, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::api::Appended;

const BATCHES_KEPT: usize = 5;

/// The producers of one partition. Most partitions have none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Producers(
    #[expect(clippy::box_collection, reason = "most partitions have none: 8 bytes, not 48")]
    Option<Box<HashMap<ProducerId, Producer>>>,
);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Producer {
    pub(crate) epoch: ProducerEpoch,
    pub(crate) last_used: Timestamp,
    pub(crate) batches: VecDeque<ProducerBatch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProducerBatch {
    first: Sequence,
    last: Sequence,
    base_offset: Offset,
    count: u32,
}

#[cfg(test)]
impl ProducerBatch {
    /// The sequence that follows it.
    pub(crate) fn next(&self) -> Sequence {
        self.last.plus(1)
    }
}

/// How to take [`Producers::record`] back.
#[derive(Debug)]
pub(crate) struct ProducerUndo(ProducerId, Option<Producer>);

impl Producer {
    /// Of its newest record.
    pub(crate) fn last_sequence(&self) -> Sequence {
        self.batches.back().map_or(Sequence(-1), |batch| batch.last)
    }

    /// Behind its newest batch.
    pub(crate) fn end_offset(&self) -> Option<Offset> {
        self.batches.back().map(|batch| batch.base_offset.plus(batch.count.into()))
    }
}

impl Producers {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |producers| producers.len())
    }

    pub(crate) fn contains(&self, id: ProducerId) -> bool {
        self.0.as_ref().is_some_and(|producers| producers.contains_key(&id))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.0.iter().flat_map(|producers| producers.iter().map(|(id, producer)| (*id, producer)))
    }

    pub(crate) fn restore(&mut self, id: ProducerId, producer: Producer) {
        self.0.get_or_insert_default().insert(id, producer);
    }

    /// Whether a batch is new (`None`), or where it was appended before.
    pub(crate) fn check(
        &self,
        batch: &BatchHeader,
        partition: PartitionIndex,
    ) -> Result<Option<Appended>, Error> {
        let Some(id) = batch.producer_id else { return Ok(None) };
        let Some(producer) = self.0.as_ref().and_then(|producers| producers.get(&id)) else {
            return Ok(None);
        };
        let (partition_number, sequence) = (partition.get(), batch.base_sequence.get());
        if batch.producer_epoch < producer.epoch {
            return Err(Error::ProducerFenced {
                producer: id.get(),
                current: producer.epoch.get(),
                sent: batch.producer_epoch.get(),
            });
        }
        let out_of_order = |expected: Sequence| Error::OutOfOrderSequence {
            producer: id.get(),
            partition: partition_number,
            sequence,
            expected: expected.get(),
        };
        if batch.producer_epoch > producer.epoch {
            return if sequence == 0 { Ok(None) } else { Err(out_of_order(Sequence(0))) };
        }
        let (first, last) = (batch.base_sequence, batch.last_sequence());
        if let Some(known) = producer.batches.iter().find(|b| b.first == first && b.last == last) {
            return Ok(Some(Appended {
                partition,
                base_offset: known.base_offset,
                count: known.count,
            }));
        }
        let Some(newest) = producer.batches.back() else { return Ok(None) };
        let expected = newest.last.plus(1);
        if first == expected {
            return Ok(None);
        }
        // Less than half the circle behind the newest: stored long ago.
        let behind = i64::from(newest.last.get()) - i64::from(first.get());
        if (0..i64::from(i32::MAX) / 2).contains(&behind) {
            return Err(Error::DuplicateSequence {
                producer: id.get(),
                partition: partition_number,
                sequence,
            });
        }
        Err(out_of_order(expected))
    }

    pub(crate) fn record(
        &mut self,
        batch: &BatchHeader,
        appended: Timestamp,
    ) -> Option<ProducerUndo> {
        // A marker has no sequence.
        let id = batch.producer_id.filter(|_| !batch.is_control)?;
        let producers = self.0.get_or_insert_default();
        let old = producers.get(&id).cloned();
        let producer = producers.entry(id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            last_used: appended,
            batches: VecDeque::with_capacity(1),
        });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.pop_front();
        }
        producer.last_used = appended;
        producer.batches.push_back(ProducerBatch {
            first: batch.base_sequence,
            last: batch.last_sequence(),
            base_offset: batch.base_offset,
            count: batch.record_count,
        });
        Some(ProducerUndo(id, old))
    }

    pub(crate) fn undo(&mut self, undo: ProducerUndo) {
        let producers = self.0.get_or_insert_default();
        match undo.1 {
            Some(producer) => producers.insert(undo.0, producer),
            None => producers.remove(&undo.0),
        };
        if producers.is_empty() {
            self.0 = None;
        }
    }

    /// Forgets producers that were not used since `before`. Replay may remember
    /// them a little longer, which changes no answer that was given.
    pub(crate) fn forget_idle(&mut self, before: Timestamp) {
        if let Some(producers) = &mut self.0 {
            producers.retain(|_, producer| producer.last_used >= before);
            if producers.is_empty() {
                self.0 = None;
            }
        }
    }

    /// Forgets producers that were not used since `before`, those that were not
    /// used for longest first, until `kept_max` are left: many programs are a new
    /// producer each time that they start.
    pub(crate) fn make_room(&mut self, before: Timestamp, kept_max: usize) {
        let Some(producers) = &mut self.0 else { return };
        let excess = producers.len().saturating_sub(kept_max);
        if excess == 0 {
            return;
        }
        let idle = producers.iter().map(|(id, producer)| (producer.last_used, *id));
        let idle = idle.filter(|(last_used, _)| *last_used < before);
        for id in longest_idle(idle, excess).collect::<Vec<_>>() {
            producers.remove(&id);
        }
        if producers.is_empty() {
            self.0 = None;
        }
    }
}

/// The `count` of `idle`, each with its last use, that were not used for longest.
pub(super) fn longest_idle<K>(
    idle: impl Iterator<Item = (Timestamp, K)>,
    count: usize,
) -> impl Iterator<Item = K> {
    let mut idle: Vec<_> = idle.collect();
    if count < idle.len() {
        idle.select_nth_unstable_by_key(count, |(last_used, _)| *last_used);
        idle.truncate(count);
    }
    idle.into_iter().map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use aquifer_types::{BatchBuilder, Epoch};

    use super::*;

    fn batch(epoch: i16, first: i32, count: usize, at: i64) -> BatchHeader {
        let mut builder =
            BatchBuilder::default().producer(ProducerId(9), ProducerEpoch(epoch), Sequence(first));
        for _ in 0..count {
            builder.push(Timestamp(0), None, &[], Some(b"v"));
        }
        *builder.finish().placed(Offset(at), Epoch(1)).header()
    }

    fn check(producers: &Producers, batch: &BatchHeader) -> String {
        match producers.check(batch, PartitionIndex(0)) {
            Ok(None) => "new".into(),
            Ok(Some(appended)) => format!("duplicate of {}", appended.base_offset),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn sequences_are_checked_as_kafka_checks_them() {
        let mut producers = Producers::default();
        assert_eq!(check(&producers, &batch(0, 77, 1, 0)), "new", "unknown: any start");
        for (first, count, at) in [(0, 2, 0), (2, 1, 2), (3, 1, 3), (4, 1, 4), (5, 1, 5), (6, 1, 6)]
        {
            assert_eq!(check(&producers, &batch(0, first, count, at)), "new");
            let _ = producers.record(&batch(0, first, count, at), Timestamp(at));
        }
        assert_eq!(check(&producers, &batch(0, 2, 1, 9)), "duplicate of 2");
        assert!(check(&producers, &batch(0, 0, 2, 9)).contains("older than its last five"));
        assert!(check(&producers, &batch(0, 9, 1, 9)).contains("7 was due"));
        assert_eq!(check(&producers, &batch(1, 0, 1, 9)), "new");
        assert!(check(&producers, &batch(1, 3, 1, 9)).contains("0 was due"));
        let undo = producers.record(&batch(1, 0, 1, 7), Timestamp(9)).unwrap();
        assert!(check(&producers, &batch(0, 7, 1, 9)).contains("a newer instance took over"));
        producers.undo(undo);
        assert_eq!(check(&producers, &batch(0, 7, 1, 9)), "new");
        producers.forget_idle(Timestamp(6));
        assert_eq!(producers.len(), 1);
        producers.forget_idle(Timestamp(7));
        assert_eq!(producers.len(), 0);
    }
    #[test]
    fn room_is_made_of_who_is_idle_for_longest() {
        let check = |before: i64, kept_max: usize, kept: &[i64]| {
            let mut producers = Producers::default();
            for id in 0..6 {
                let mut of = batch(0, 0, 1, 0);
                of.producer_id = Some(ProducerId(id));
                // The later ones are idle for longer.
                let _ = producers.record(&of, Timestamp(10 - id));
            }
            producers.make_room(Timestamp(before), kept_max);
            let left: Vec<_> = (0..6)
                .filter(|id| {
                    producers.0.as_ref().is_some_and(|of| of.contains_key(&ProducerId(*id)))
                })
                .collect();
            assert_eq!(left, kept, "before {before}, at most {kept_max}");
        };
        check(100, 6, &[0, 1, 2, 3, 4, 5]);
        check(100, 4, &[0, 1, 2, 3]);
        check(7, 1, &[0, 1, 2, 3]);
        check(5, 1, &[0, 1, 2, 3, 4, 5]);
        check(100, 0, &[]);
    }
}
