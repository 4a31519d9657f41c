//! Transactions in the scripts: what is done, what the model expects of it, and
//! what readers may see.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_types::{
    Batch, BatchBuilder, Offset, Partition, ProducerEpoch, ProducerId, Sequence, TenantName,
    Timestamp, TransactionalId,
};

use super::model::Model;
use super::script::{Dice, Kind, group};
use crate::api::{NewTransactional, PositionNote};
use crate::index::{PartitionState, TailEntry};
use crate::ledger::event::{Operation, Outcome};
use crate::ledger::hot_state::HotState;

/// A transactional id as the answers tell of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    producer: ProducerId,
    epoch: ProducerEpoch,
    /// What the open transaction includes.
    open: Option<BTreeSet<Partition>>,
}

type ById = BTreeMap<TransactionalId, Known>;

/// What stands for a marker where batches are told apart by their content.
const ABORT: u64 = u64::MAX;
const COMMIT: u64 = u64::MAX - 1;

/// The content of a control batch.
pub(super) fn content_of_marker(batch: &Batch) -> Option<u64> {
    let marker = batch.marker().expect("a marker that decodes")?;
    Some(if marker.is_commit { COMMIT } else { ABORT })
}

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

fn id(dice: &Dice) -> TransactionalId {
    TransactionalId::new(["sink-0", "sink-1", "sink-2"][dice.below(3) as usize]).expect("a name")
}

impl Kind {
    pub(super) fn is_of_transactions(self) -> bool {
        matches!(
            self,
            Self::InitProducer
                | Self::Enlist
                | Self::AppendOpen
                | Self::Pend
                | Self::End
                | Self::Expire
        )
    }
}

/// An operation of `kind` that meets the state, or misses it now and then.
pub(super) fn operation(
    kind: Kind,
    hot: &HotState,
    partitions: &[Partition],
    dice: &Dice,
) -> Option<Operation> {
    if kind == Kind::AppendOpen {
        return append(hot, partitions, dice);
    }
    let transactional = id(dice);
    let known = hot.transactions.get(&(tenant(), transactional.clone()));
    let current = known.map_or((ProducerId(99), ProducerEpoch(0)), |k| (k.producer, k.epoch));
    let older = ProducerEpoch(current.1.get() - 1);
    let producer = if dice.one_in(12) { (current.0, older) } else { current };
    let is_init = kind == Kind::InitProducer || known.is_none() && !dice.one_in(8);
    let position = |dice: &Dice| {
        let at = *dice.pick(partitions)?;
        Some((at, Offset(dice.below(100) as i64), PositionNote::default()))
    };
    Some(match kind {
        _ if is_init => Operation::InitProducer {
            tenant: tenant(),
            transactional: (!dice.one_in(10)).then(|| NewTransactional {
                id: transactional,
                timeout_ms: 1_000,
                expected: dice.one_in(4).then_some(producer),
            }),
        },
        Kind::Enlist if dice.one_in(4) => {
            Operation::AddGroup { tenant: tenant(), transactional, producer, group: group(dice) }
        }
        Kind::Enlist => Operation::AddPartitions {
            tenant: tenant(),
            transactional,
            producer,
            partitions: (0..1 + dice.below(3))
                .filter_map(|_| dice.pick(partitions))
                .copied()
                .collect(),
        },
        Kind::Pend => Operation::CommitPositionsInTransaction {
            tenant: tenant(),
            transactional,
            producer,
            group: group(dice),
            positions: vec![position(dice)?],
        },
        Kind::End => {
            let is_commit = dice.one_in(2);
            Operation::EndTransaction { tenant: tenant(), transactional, producer, is_commit }
        }
        Kind::Expire => Operation::ExpireTransaction { tenant: tenant(), transactional, producer },
        _ => return None,
    })
}

/// A batch of an open transaction; now and then one that is refused.
fn append(hot: &HotState, partitions: &[Partition], dice: &Dice) -> Option<Operation> {
    let open: Vec<_> = hot.transactions.iter_open().collect();
    let (_, known, open) = dice.pick(&open)?;
    let listed: Vec<Partition> = open.partitions.iter().copied().collect();
    let is_wrong = dice.one_in(10);
    let at = *dice.pick(if is_wrong { partitions } else { &listed })?;
    let (_, partition) = hot.require(at).ok()?;
    let before = partition.producers.iter().find(|(id, _)| *id == known.producer);
    let next = before
        .filter(|(_, producer)| producer.epoch == known.epoch)
        .and_then(|(_, producer)| Some(producer.batches.back()?.next()));
    let mut builder =
        BatchBuilder::default().producer(known.producer, known.epoch, next.unwrap_or(Sequence(0)));
    if !dice.one_in(15) {
        builder = builder.transactional();
    }
    let mut value = dice.below(u64::MAX / 2).to_le_bytes().to_vec();
    value.resize(8 + dice.below(2_000) as usize, 7);
    for _ in 0..1 + dice.below(3) {
        builder.push(Timestamp(1), None, &[], Some(&value));
    }
    Some(Operation::Append { partition: at, batch: builder.finish(), expected_offset: None })
}

impl Model {
    /// Takes note of an operation on transactions that was acknowledged.
    pub(super) fn transacted(&mut self, operation: &Operation, outcome: &Outcome) {
        match operation {
            Operation::InitProducer { transactional, .. } => {
                let Outcome::Producer { id, epoch } = outcome else { panic!("{outcome:?}") };
                let Some(new) = transactional else {
                    self.check_fresh(*id);
                    return;
                };
                let known = self.transactional.get(&new.id).cloned();
                match &known {
                    Some(known) if known.producer == *id => assert!(*epoch >= known.epoch),
                    _ => self.check_fresh(*id),
                }
                if known.is_some_and(|known| known.open.is_some()) {
                    self.ended(&new.id, false);
                }
                let now = Known { producer: *id, epoch: *epoch, open: None };
                self.transactional.insert(new.id.clone(), now);
            }
            Operation::AddPartitions { transactional, partitions, producer, .. } => {
                let known = self.current(transactional, *producer);
                if !partitions.is_empty() {
                    known.open.get_or_insert_default().extend(partitions);
                }
            }
            Operation::AddGroup { transactional, producer, .. } => {
                self.current(transactional, *producer).open.get_or_insert_default();
            }
            Operation::CommitPositionsInTransaction { transactional, producer, .. } => {
                assert!(self.current(transactional, *producer).open.is_some());
            }
            Operation::EndTransaction { transactional, producer, is_commit, .. } => {
                let is_repeated = self.current(transactional, *producer).open.is_none();
                if !is_repeated {
                    self.ended(transactional, *is_commit);
                }
            }
            Operation::ExpireTransaction { transactional, producer, .. } => {
                let Some(known) = self.transactional.get_mut(transactional) else { return };
                if (known.producer, known.epoch) == *producer && known.open.is_some() {
                    known.epoch = ProducerEpoch(known.epoch.get() + 1);
                    self.ended(transactional, false);
                }
            }
            Operation::DeleteStream { id } => {
                for open in self.transactional.values_mut().filter_map(|k| k.open.as_mut()) {
                    open.retain(|at| at.stream != *id);
                }
            }
            Operation::Append { batch, .. } => {
                let header = batch.header();
                if *outcome != Outcome::Done && header.is_transactional {
                    let is_open = self
                        .transactional
                        .values()
                        .any(|known| Some(known.producer) == header.producer_id);
                    assert!(is_open, "a transactional batch of nobody");
                }
            }
            _ => {}
        }
    }

    fn check_fresh(&mut self, id: ProducerId) {
        assert!(id >= self.producers_below, "producer {id} was given before");
        self.producers_below = ProducerId(id.get() + 1);
    }

    fn current(
        &mut self,
        id: &TransactionalId,
        producer: (ProducerId, ProducerEpoch),
    ) -> &mut Known {
        let known = self.transactional.get_mut(id).expect("a known id");
        assert_eq!((known.producer, known.epoch), producer, "a fenced producer was let in");
        known
    }

    /// Every partition that the transaction included has a marker from here on.
    fn ended(&mut self, id: &TransactionalId, is_commit: bool) {
        self.ends_of_transactions += 1;
        let known = self.transactional.get_mut(id).expect("a known id");
        for at in known.open.take().expect("an open transaction") {
            let base = self.end_of(at);
            self.set_end(at, base.plus(1));
            let content = if is_commit { COMMIT } else { ABORT };
            self.place(at, base, base.plus(1), content, true);
        }
    }

    /// Goes on from what a start found.
    pub(super) fn recovered_transactions(&mut self, hot: &HotState) {
        assert!(hot.transactions.next_producer >= self.producers_below, "the counter went back");
        self.producers_below = hot.transactions.next_producer;
        self.transactional = known_of(hot);
    }

    /// Checks that the answers agree with what decisions are made on.
    pub(super) fn check_transactions(&self, hot: &HotState, what: &str) {
        assert_eq!(self.transactional, known_of(hot), "{what}: transactions");
        let pending: usize =
            hot.transactions.iter_open().map(|(_, _, open)| open.pending_positions()).sum();
        assert_eq!(hot.transactions.pending_positions(), pending, "{what}");
        assert_eq!(hot.transactions.open_len(), hot.transactions.iter_open().count(), "{what}");
    }
}

fn known_of(hot: &HotState) -> ById {
    let known = hot.transactions.iter().map(|((_, id), entry)| {
        let open = entry.open.as_ref().map(|open| open.partitions.clone());
        (id.clone(), Known { producer: entry.producer, epoch: entry.epoch, open })
    });
    known.collect()
}

/// Checks what readers see of a partition's tail against the bytes of its
/// markers: what is below the stable offset and not hidden is what was not
/// written in a transaction, or in one that was committed.
pub(super) fn check_visible(
    at: Partition,
    state: &PartitionState,
    tail: &[(TailEntry, Batch)],
    is_relaxed: bool,
    what: &str,
) {
    let mut open: BTreeMap<ProducerId, Vec<Offset>> = BTreeMap::new();
    let mut visible: BTreeSet<Offset> = BTreeSet::new();
    for (entry, batch) in tail {
        let header = batch.header();
        match (batch.marker().expect("a marker that decodes"), header.producer_id) {
            (Some(marker), _) => {
                let ended = open.remove(&marker.producer).unwrap_or_default();
                if marker.is_commit {
                    visible.extend(ended);
                }
            }
            (None, Some(producer)) if header.is_transactional => {
                open.entry(producer).or_default().push(entry.base);
            }
            _ => {
                visible.insert(entry.base);
            }
        }
    }
    for (producer, first) in state.transactions.open() {
        // Its first batches may be truncated, or lost where that is allowed.
        let is_there = open.remove(&producer).is_some_and(|bases| bases.first() == Some(&first));
        assert!(
            is_there || is_relaxed || first < state.start,
            "{what}: {at}: {producer} at {first}"
        );
    }
    assert!(open.is_empty(), "{what}: {at}: {open:?} are not known to be open");
    let lowest = state.transactions.open().map(|(_, first)| first).min();
    let stable = lowest.map_or(state.end, |first| first.max(state.start));
    assert_eq!(state.stable(), stable, "{what}: {at}: the stable offset");
    // The start may be moved into a batch.
    let is_below = |base: Offset| base.max(state.start) < stable;
    visible.retain(|base| is_below(*base));
    let seen: BTreeSet<Offset> = state
        .tail
        .iter()
        .filter(|entry| is_below(entry.base) && !state.is_hidden(entry))
        .map(|entry| entry.base)
        .collect();
    assert_eq!(seen, visible, "{what}: {at}: what committed readers see");
}
