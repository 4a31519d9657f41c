//! Transactions: who may write them, what is open, and what was aborted.
//!
//! Two views of the same thing. [`Transactions`] knows every transactional id
//! with its producer and what its open transaction includes; decisions about
//! them are made on it. [`PartitionTransactions`] knows, for one partition,
//! which producers have written to it in an open transaction and which offsets
//! belong to aborted ones; the stable offset comes from it, in the hot state
//! and in the index alike.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aquifer_types::{
    BatchHeader, GroupName, Offset, Partition, ProducerEpoch, ProducerId, StreamId, TenantName,
    Timestamp, TransactionalId,
};
use serde::{Deserialize, Serialize};

use super::hot_state::Positions;
use super::producer::longest_idle;
use crate::api::AbortedTransaction;

/// A transactional id, within its tenant.
pub(crate) type TransactionalKey = (TenantName, TransactionalId);

/// All transactional ids that are kept, and the counter of producer ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Transactions {
    /// The id that the next producer gets.
    pub(crate) next_producer: ProducerId,
    by_id: BTreeMap<TransactionalKey, Transactional>,
    by_producer: HashMap<ProducerId, TransactionalKey>,
    /// Those with an open transaction.
    open: BTreeSet<TransactionalKey>,
    /// Positions that wait for the end of a transaction.
    pending_positions: usize,
}

/// A transactional id and its producer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transactional {
    pub(crate) producer: ProducerId,
    pub(crate) epoch: ProducerEpoch,
    /// What it was before the last bump that its producer asked for by name
    /// (KIP-360), so that the same request can be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<(ProducerId, ProducerEpoch)>,
    pub(crate) timeout_ms: u32,
    /// When it was initialised, or its last transaction ended, on the ledger's
    /// steady clock: a clock that jumps forgets nothing early.
    pub(crate) last_used: Timestamp,
    /// How this epoch's last transaction ended, so that the same end can be
    /// repeated; none while one is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) open: Option<OpenTransaction>,
}

/// What an open transaction includes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenTransaction {
    pub(crate) started: Timestamp,
    pub(crate) partitions: BTreeSet<Partition>,
    /// Groups, with the positions that are committed when it is.
    #[serde(with = "group_pairs")]
    pub(crate) groups: BTreeMap<GroupName, Positions>,
}

impl OpenTransaction {
    pub(crate) fn pending_positions(&self) -> usize {
        self.groups.values().map(BTreeMap::len).sum()
    }

    /// Partitions and groups together.
    pub(crate) fn members(&self) -> usize {
        self.partitions.len() + self.groups.len()
    }
}

impl Transactions {
    pub(crate) fn get(&self, key: &TransactionalKey) -> Option<&Transactional> {
        self.by_id.get(key)
    }

    /// The transactional id that a producer belongs to, if it has one.
    pub(crate) fn of_producer(&self, id: ProducerId) -> Option<&Transactional> {
        self.by_producer.get(&id).and_then(|key| self.by_id.get(key))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TransactionalKey, &Transactional)> {
        self.by_id.iter()
    }

    pub(crate) fn iter_open(
        &self,
    ) -> impl Iterator<Item = (&TransactionalKey, &Transactional, &OpenTransaction)> {
        self.open.iter().filter_map(|key| {
            let transactional = self.by_id.get(key)?;
            Some((key, transactional, transactional.open.as_ref()?))
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn open_len(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn pending_positions(&self) -> usize {
        self.pending_positions
    }

    /// Puts a whole entry, or none, in the place of what is there, which is
    /// returned.
    pub(crate) fn put(
        &mut self,
        key: &TransactionalKey,
        new: Option<Transactional>,
    ) -> Option<Transactional> {
        let old = self.by_id.remove(key);
        if let Some(old) = &old {
            self.by_producer.remove(&old.producer);
            self.pending_positions -=
                old.open.as_ref().map_or(0, OpenTransaction::pending_positions);
        }
        self.open.remove(key);
        if let Some(new) = new {
            if let Some(open) = &new.open {
                self.open.insert(key.clone());
                self.pending_positions += open.pending_positions();
            }
            self.by_producer.insert(new.producer, key.clone());
            self.by_id.insert(key.clone(), new);
        }
        old
    }

    /// Changes the open transaction of an entry, which it may begin or end.
    pub(crate) fn change<T>(
        &mut self,
        key: &TransactionalKey,
        change: impl FnOnce(&mut Transactional) -> T,
    ) -> Option<T> {
        let entry = self.by_id.get_mut(key)?;
        let pending = |entry: &Transactional| {
            entry.open.as_ref().map_or(0, OpenTransaction::pending_positions)
        };
        let before = pending(entry);
        let result = change(entry);
        self.pending_positions = self.pending_positions - before + pending(entry);
        if entry.open.is_some() {
            self.open.insert(key.clone());
        } else {
            self.open.remove(key);
        }
        Some(result)
    }

    /// Takes out of every open transaction what `is_gone`; returns those that
    /// were changed as they were.
    fn strip(
        &mut self,
        concerns: impl Fn(&TransactionalKey, &OpenTransaction) -> bool,
        strip: impl Fn(&mut OpenTransaction),
    ) -> Vec<(TransactionalKey, OpenTransaction)> {
        let concerned: Vec<_> = self
            .iter_open()
            .filter(|(key, _, open)| concerns(key, open))
            .map(|(key, _, open)| (key.clone(), open.clone()))
            .collect();
        for (key, _) in &concerned {
            self.change(key, |entry| entry.open.as_mut().map(&strip));
        }
        concerned
    }

    /// The stream is deleted: open transactions go on without it.
    pub(crate) fn forget_stream(
        &mut self,
        id: StreamId,
    ) -> Vec<(TransactionalKey, OpenTransaction)> {
        let is_of = move |at: &Partition| at.stream == id;
        self.strip(
            |_, open| {
                open.partitions.iter().any(is_of)
                    || open.groups.values().any(|positions| positions.keys().any(is_of))
            },
            |open| {
                open.partitions.retain(|at| !is_of(at));
                for positions in open.groups.values_mut() {
                    positions.retain(|at, _| !is_of(at));
                }
            },
        )
    }

    /// The group is deleted: what waits for it is dropped.
    pub(crate) fn forget_group(
        &mut self,
        tenant: &TenantName,
        group: &GroupName,
    ) -> Vec<(TransactionalKey, OpenTransaction)> {
        self.strip(
            |key, open| key.0 == *tenant && open.groups.get(group).is_some_and(|p| !p.is_empty()),
            |open| {
                open.groups.get_mut(group).map(BTreeMap::clear);
            },
        )
    }

    /// Takes back what was stripped.
    pub(crate) fn unstrip(&mut self, stripped: Vec<(TransactionalKey, OpenTransaction)>) {
        for (key, open) in stripped {
            self.change(&key, |entry| entry.open = Some(open));
        }
    }

    /// Forgets ids without an open transaction that were not used since
    /// `before`. Replay may remember them a little longer, which changes no
    /// answer that was given.
    pub(crate) fn forget_idle(&mut self, before: Timestamp) {
        let idle: Vec<_> = self
            .by_id
            .iter()
            .filter(|(_, entry)| entry.open.is_none() && entry.last_used < before)
            .map(|(key, _)| key.clone())
            .collect();
        for key in idle {
            let _ = self.put(&key, None);
        }
    }

    /// Forgets ids without an open transaction that were not used since
    /// `before`, those that were not used for longest first, until `kept_max`
    /// are left. Programs that take a new id with each transaction would fill
    /// the limit long before their first id is idle for long.
    pub(crate) fn make_room(&mut self, before: Timestamp, kept_max: usize) {
        let excess = self.by_id.len().saturating_sub(kept_max);
        if excess == 0 {
            return;
        }
        let idle = self
            .by_id
            .iter()
            .filter(|(_, entry)| entry.open.is_none() && entry.last_used < before)
            .map(|(key, entry)| (entry.last_used, key));
        let keys: Vec<_> = longest_idle(idle, excess).cloned().collect();
        for key in keys {
            let _ = self.put(&key, None);
        }
    }
}

/// The transactions of one partition. Most partitions have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct PartitionTransactions(Option<Box<InPartition>>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "InPartitionBody", into = "InPartitionBody")]
struct InPartition {
    /// The first offset of each producer's open transaction.
    open: BTreeMap<ProducerId, Offset>,
    /// The lowest of them.
    lowest: Option<Offset>,
    /// By producer and the offset of the marker: the first offset. Those of one
    /// producer lie behind each other.
    aborted: BTreeMap<(ProducerId, Offset), Offset>,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct InPartitionBody {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    open: Vec<(ProducerId, Offset)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    aborted: Vec<AbortedTransaction>,
}

/// How to take [`PartitionTransactions::end`] back.
#[derive(Debug)]
pub(crate) struct EndUndo {
    producer: ProducerId,
    marker: Offset,
    first: Offset,
}

/// The producer whose transaction a batch of records is a part of.
pub(crate) fn writer_of(batch: &BatchHeader) -> Option<ProducerId> {
    batch.producer_id.filter(|_| batch.is_transactional && !batch.is_control)
}

impl PartitionTransactions {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    fn settle(&mut self) {
        if let Some(inner) = &mut self.0 {
            inner.lowest = inner.open.values().min().copied();
            if inner.open.is_empty() && inner.aborted.is_empty() {
                self.0 = None;
            }
        }
    }

    /// A batch of `producer`'s open transaction lies at `at`. Returns whether it
    /// is the first.
    pub(crate) fn begin(&mut self, producer: ProducerId, at: Offset) -> bool {
        let inner = self.0.get_or_insert_default();
        if inner.open.contains_key(&producer) {
            return false;
        }
        inner.open.insert(producer, at);
        inner.lowest = Some(inner.lowest.map_or(at, |lowest| lowest.min(at)));
        true
    }

    /// Takes [`PartitionTransactions::begin`] back, where it was the first.
    pub(crate) fn unbegin(&mut self, producer: ProducerId) {
        if let Some(inner) = &mut self.0 {
            inner.open.remove(&producer);
        }
        self.settle();
    }

    /// The producer's transaction ended with the marker at `marker`; `None`
    /// where it had written nothing.
    pub(crate) fn end(
        &mut self,
        producer: ProducerId,
        marker: Offset,
        is_commit: bool,
    ) -> Option<EndUndo> {
        let inner = self.0.as_mut()?;
        let first = inner.open.remove(&producer)?;
        if !is_commit {
            inner.aborted.insert((producer, marker), first);
        }
        self.settle();
        Some(EndUndo { producer, marker, first })
    }

    pub(crate) fn unend(&mut self, undo: &EndUndo) {
        let inner = self.0.get_or_insert_default();
        inner.aborted.remove(&(undo.producer, undo.marker));
        inner.open.insert(undo.producer, undo.first);
        self.settle();
    }

    /// Forgets aborted transactions that lie wholly below `tiered`, and returns
    /// them.
    pub(crate) fn pass(&mut self, tiered: Offset) -> Vec<AbortedTransaction> {
        let Some(inner) = &mut self.0 else { return Vec::new() };
        let is_passed = |marker: Offset| marker < tiered;
        if !inner.aborted.keys().any(|(_, marker)| is_passed(*marker)) {
            return Vec::new();
        }
        let (gone, kept): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut inner.aborted)
            .into_iter()
            .partition(|((_, marker), _)| is_passed(*marker));
        inner.aborted = kept;
        self.settle();
        gone.into_iter().map(aborted_of).collect()
    }

    pub(crate) fn unpass(&mut self, gone: Vec<AbortedTransaction>) {
        if !gone.is_empty() {
            let inner = self.0.get_or_insert_default();
            inner.aborted.extend(gone.into_iter().map(entry_of));
        }
    }

    /// The first offset that an open transaction hides, between `start` and
    /// `end`; the end without one.
    pub(crate) fn stable(&self, start: Offset, end: Offset) -> Offset {
        let lowest = self.0.as_ref().and_then(|inner| inner.lowest);
        lowest.map_or(end, |lowest| lowest.max(start).min(end))
    }

    /// Whether the batch of `producer`'s transaction at `at` was aborted.
    pub(crate) fn is_aborted(&self, producer: ProducerId, at: Offset) -> bool {
        let Some(inner) = &self.0 else { return false };
        let next = inner.aborted.range((producer, at)..).next();
        next.is_some_and(|((of, _), first)| *of == producer && *first <= at)
    }

    /// The aborted transactions with a marker at or behind `from`, by their
    /// first offset.
    pub(crate) fn aborted_from(&self, from: Offset) -> Vec<AbortedTransaction> {
        let Some(inner) = &self.0 else { return Vec::new() };
        let mut aborted: Vec<_> = inner
            .aborted
            .iter()
            .filter(|((_, marker), _)| *marker >= from)
            .map(|(key, first)| aborted_of((*key, *first)))
            .collect();
        aborted.sort_by_key(|aborted| (aborted.first_offset, aborted.last_offset));
        aborted
    }

    /// Where each open transaction begins.
    #[cfg(test)]
    pub(crate) fn open(&self) -> impl Iterator<Item = (ProducerId, Offset)> {
        self.0.iter().flat_map(|inner| inner.open.iter().map(|(of, first)| (*of, *first)))
    }

    /// Where a producer's open transaction begins.
    pub(crate) fn open_at(&self, producer: ProducerId) -> Option<Offset> {
        self.0.as_ref().and_then(|inner| inner.open.get(&producer).copied())
    }
}

fn aborted_of(
    ((producer_id, last_offset), first_offset): ((ProducerId, Offset), Offset),
) -> AbortedTransaction {
    AbortedTransaction { producer_id, first_offset, last_offset }
}

fn entry_of(aborted: AbortedTransaction) -> ((ProducerId, Offset), Offset) {
    ((aborted.producer_id, aborted.last_offset), aborted.first_offset)
}

impl From<InPartition> for InPartitionBody {
    fn from(inner: InPartition) -> Self {
        Self {
            open: inner.open.into_iter().collect(),
            aborted: inner.aborted.into_iter().map(aborted_of).collect(),
        }
    }
}

impl From<InPartitionBody> for InPartition {
    fn from(body: InPartitionBody) -> Self {
        let open: BTreeMap<_, _> = body.open.into_iter().collect();
        Self {
            lowest: open.values().min().copied(),
            open,
            aborted: body.aborted.into_iter().map(entry_of).collect(),
        }
    }
}

/// Positions as pairs: a partition cannot be a key in JSON.
mod group_pairs {
    use std::collections::BTreeMap;

    use aquifer_types::{GroupName, Partition};
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Positions;
    use crate::api::GroupPosition;

    pub(super) fn serialize<S: Serializer>(
        groups: &BTreeMap<GroupName, Positions>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let pairs = groups.iter().map(|(group, of)| (group, of.iter().collect::<Vec<_>>()));
        serializer.collect_seq(pairs)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<GroupName, Positions>, D::Error> {
        type Pairs = Vec<(GroupName, Vec<(Partition, GroupPosition)>)>;
        let pairs = Pairs::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(group, of)| (group, of.into_iter().collect())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ProducerId = ProducerId(1);
    const B: ProducerId = ProducerId(2);

    fn check(of: &PartitionTransactions, stable: i64, hidden: &[(ProducerId, i64)]) {
        assert_eq!(of.stable(Offset(0), Offset(100)), Offset(stable), "{of:?}");
        for producer in [A, B] {
            for at in 0..100 {
                let expected = hidden.contains(&(producer, at));
                assert_eq!(of.is_aborted(producer, Offset(at)), expected, "{producer} {at}");
            }
        }
    }

    /// Ids 0 to 9, used at that time; those that are divisible by four are open.
    fn ten_ids() -> Transactions {
        let mut all = Transactions::default();
        for number in 0..10 {
            let open = OpenTransaction::default();
            let entry = Transactional {
                producer: ProducerId(number),
                epoch: ProducerEpoch(0),
                previous: None,
                timeout_ms: 1,
                last_used: Timestamp(number),
                ended: None,
                open: (number % 4 == 0).then_some(open),
            };
            let id = TransactionalId::new(&number.to_string()).unwrap();
            all.put(&(TenantName::default_tenant(), id), Some(entry));
        }
        all
    }

    #[test]
    fn room_is_made_of_what_is_idle_for_longest() {
        let check = |before: i64, kept_max: usize, kept: &[i64]| {
            let mut all = ten_ids();
            all.make_room(Timestamp(before), kept_max);
            let left: Vec<_> = all.iter().map(|(_, entry)| entry.producer.get()).collect();
            assert_eq!(left, kept, "before {before}, at most {kept_max}");
            assert!(
                (0..10)
                    .all(|id| { all.of_producer(ProducerId(id)).is_some() == kept.contains(&id) })
            );
        };
        let all = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        check(10, 20, &all);
        check(10, 10, &all);
        check(10, 9, &[0, 2, 3, 4, 5, 6, 7, 8, 9]);
        check(10, 6, &[0, 4, 6, 7, 8, 9]);
        check(3, 6, &[0, 3, 4, 5, 6, 7, 8, 9]);
        check(0, 0, &all);
        check(10, 0, &[0, 4, 8]);
    }

    #[test]
    fn the_stable_offset_is_the_first_of_the_earliest_open_one() {
        let mut of = PartitionTransactions::default();
        check(&of, 100, &[]);
        assert!(of.begin(A, Offset(10)));
        assert!(of.begin(B, Offset(11)));
        assert!(!of.begin(A, Offset(12)));
        check(&of, 10, &[]);
        assert_eq!(of.stable(Offset(20), Offset(30)), Offset(20), "never below the start");
        assert_eq!(of.stable(Offset(0), Offset(5)), Offset(5), "never above the end");
        let undo = of.end(A, Offset(13), false).unwrap();
        let aborted = [(A, 10), (A, 11), (A, 12), (A, 13)];
        check(&of, 11, &aborted);
        of.unend(&undo);
        check(&of, 10, &[]);
        let _ = of.end(A, Offset(13), false);
        let _ = of.end(B, Offset(14), true);
        assert!(of.begin(A, Offset(15)));
        check(&of, 15, &aborted);
        let listed = of.aborted_from(Offset(13));
        assert_eq!(listed.len(), 1);
        assert!(of.aborted_from(Offset(14)).is_empty());
        let text = serde_json::to_string(&of).unwrap();
        assert_eq!(serde_json::from_str::<PartitionTransactions>(&text).unwrap(), of);
        assert!(of.pass(Offset(13)).is_empty(), "its marker is still in the tail");
        let gone = of.pass(Offset(14));
        assert_eq!(gone, listed);
        check(&of, 15, &[]);
        of.unpass(gone);
        check(&of, 15, &aborted);
        let _ = of.pass(Offset(14));
        of.unbegin(A);
        assert!(of.is_empty());
        assert!(of.end(A, Offset(99), false).is_none(), "nothing was written");
        assert!(of.is_empty());
    }
}
