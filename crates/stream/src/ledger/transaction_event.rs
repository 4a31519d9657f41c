//! What happened to transactions, and its application to the hot state.

use aquifer_types::{
    GroupName, Offset, Partition, ProducerEpoch, ProducerId, TenantName, Timestamp, TransactionalId,
};
use serde::{Deserialize, Serialize};

use super::hot_state::HotState;
use super::transactions::{EndUndo, OpenTransaction, Transactional, TransactionalKey};
use crate::api::GroupPosition;

/// A fact about producers and transactions. Batches and markers are appends of
/// their own, in the same group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum TransactionEvent {
    /// An idempotent producer got this id.
    ProducerCreated { producer: ProducerId },
    /// A transactional id has this producer from here on; none is open.
    Initialized {
        tenant: TenantName,
        id: TransactionalId,
        producer: ProducerId,
        epoch: ProducerEpoch,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<(ProducerId, ProducerEpoch)>,
        timeout_ms: u32,
        /// On the ledger's steady clock.
        at: Timestamp,
    },
    /// The transaction, which is opened where none is, includes these too.
    Enlisted {
        tenant: TenantName,
        id: TransactionalId,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        partitions: Vec<Partition>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<GroupName>,
        at: Timestamp,
    },
    /// Positions that are committed with the transaction.
    PositionsPended {
        tenant: TenantName,
        id: TransactionalId,
        group: GroupName,
        positions: Vec<(Partition, GroupPosition)>,
    },
    /// The transaction ended, with these markers.
    Ended {
        tenant: TenantName,
        id: TransactionalId,
        producer: ProducerId,
        /// The producer's epoch from here on: a higher one fences it.
        epoch: ProducerEpoch,
        is_commit: bool,
        markers: Vec<(Partition, Offset)>,
        /// On the ledger's steady clock.
        at: Timestamp,
    },
}

/// How to take an application back.
#[derive(Debug)]
pub(crate) enum TransactionUndo {
    Counter(ProducerId),
    Initialized {
        key: TransactionalKey,
        counter: ProducerId,
        old: Option<Box<Transactional>>,
    },
    Enlisted {
        key: TransactionalKey,
        /// None where it was opened.
        members: Option<Enlisted>,
        previous: Option<(ProducerId, ProducerEpoch)>,
        ended: Option<bool>,
    },
    Pended {
        key: TransactionalKey,
        group: GroupName,
        old: Vec<(Partition, Option<GroupPosition>)>,
    },
    Ended {
        key: TransactionalKey,
        open: Option<OpenTransaction>,
        epoch: ProducerEpoch,
        previous: Option<(ProducerId, ProducerEpoch)>,
        ended: Option<bool>,
        last_used: Timestamp,
        partitions: Vec<(Partition, EndUndo)>,
    },
}

/// What was not in an open transaction before.
#[derive(Debug, Default)]
pub(crate) struct Enlisted {
    partitions: Vec<Partition>,
    groups: Vec<GroupName>,
}

impl HotState {
    /// Applies a fact; `None` where it concerns what does not exist any more.
    pub(super) fn apply_transaction(
        &mut self,
        event: &TransactionEvent,
    ) -> Option<TransactionUndo> {
        match event {
            TransactionEvent::ProducerCreated { producer } => {
                Some(TransactionUndo::Counter(self.count_producer(*producer)))
            }
            TransactionEvent::Initialized {
                tenant,
                id,
                producer,
                epoch,
                previous,
                timeout_ms,
                at,
            } => {
                let key = (tenant.clone(), id.clone());
                let counter = self.count_producer(*producer);
                let new = Transactional {
                    producer: *producer,
                    epoch: *epoch,
                    previous: *previous,
                    timeout_ms: *timeout_ms,
                    last_used: *at,
                    ended: None,
                    open: None,
                };
                let old = self.transactions.put(&key, Some(new)).map(Box::new);
                Some(TransactionUndo::Initialized { key, counter, old })
            }
            TransactionEvent::Enlisted { tenant, id, partitions, groups, at } => {
                self.enlist((tenant.clone(), id.clone()), partitions, groups, *at)
            }
            TransactionEvent::PositionsPended { tenant, id, group, positions } => {
                let key = (tenant.clone(), id.clone());
                let old = self.transactions.change(&key, |entry| {
                    let pending = entry.open.as_mut()?.groups.entry(group.clone()).or_default();
                    let put = |(at, position): &(Partition, GroupPosition)| {
                        (*at, pending.insert(*at, position.clone()))
                    };
                    Some(positions.iter().map(put).collect())
                })??;
                Some(TransactionUndo::Pended { key, group: group.clone(), old })
            }
            TransactionEvent::Ended { tenant, id, producer, epoch, is_commit, markers, at } => {
                let mut partitions = Vec::new();
                for (at, marker) in markers {
                    if let Some(partition) = self.partition_mut(*at) {
                        let undo = partition.transactions.end(*producer, *marker, *is_commit);
                        partitions.extend(undo.map(|undo| (*at, undo)));
                    }
                }
                let key = (tenant.clone(), id.clone());
                self.transactions.change(&key.clone(), |entry| {
                    let open = entry.open.take();
                    TransactionUndo::Ended {
                        key,
                        open,
                        epoch: std::mem::replace(&mut entry.epoch, *epoch),
                        // A bump that fences leaves nothing to repeat.
                        previous: std::mem::take(&mut entry.previous),
                        ended: entry.ended.replace(*is_commit),
                        last_used: std::mem::replace(&mut entry.last_used, *at),
                        partitions,
                    }
                })
            }
        }
    }

    /// Lets the counter stand behind `producer`; returns where it stood.
    fn count_producer(&mut self, producer: ProducerId) -> ProducerId {
        let counter = &mut self.transactions.next_producer;
        let old = *counter;
        *counter = old.max(ProducerId(producer.get().saturating_add(1)));
        old
    }

    fn enlist(
        &mut self,
        key: TransactionalKey,
        partitions: &[Partition],
        groups: &[GroupName],
        at: Timestamp,
    ) -> Option<TransactionUndo> {
        // A stream may be gone when this is replayed.
        let partitions: Vec<Partition> =
            partitions.iter().copied().filter(|at| self.require(*at).is_ok()).collect();
        self.transactions.change(&key.clone(), |entry| {
            let was_open = entry.open.is_some();
            let open = entry
                .open
                .get_or_insert_with(|| OpenTransaction { started: at, ..Default::default() });
            let mut new = Enlisted::default();
            for partition in partitions {
                if open.partitions.insert(partition) {
                    new.partitions.push(partition);
                }
            }
            for group in groups {
                if !open.groups.contains_key(group) {
                    open.groups.insert(group.clone(), Default::default());
                    new.groups.push(group.clone());
                }
            }
            TransactionUndo::Enlisted {
                key,
                members: was_open.then_some(new),
                previous: std::mem::take(&mut entry.previous),
                ended: std::mem::take(&mut entry.ended),
            }
        })
    }

    pub(super) fn undo_transaction(&mut self, undo: TransactionUndo) {
        match undo {
            TransactionUndo::Counter(counter) => self.transactions.next_producer = counter,
            TransactionUndo::Initialized { key, counter, old } => {
                let _ = self.transactions.put(&key, old.map(|old| *old));
                self.transactions.next_producer = counter;
            }
            TransactionUndo::Enlisted { key, members, previous, ended } => {
                self.transactions.change(&key, |entry| {
                    match (members, &mut entry.open) {
                        (Some(new), Some(open)) => {
                            for partition in &new.partitions {
                                open.partitions.remove(partition);
                            }
                            for group in &new.groups {
                                open.groups.remove(group);
                            }
                        }
                        (_, open) => *open = None,
                    }
                    entry.previous = previous;
                    entry.ended = ended;
                });
            }
            TransactionUndo::Pended { key, group, old } => {
                self.transactions.change(&key, |entry| {
                    let pending = entry.open.as_mut()?.groups.get_mut(&group)?;
                    for (at, position) in old.into_iter().rev() {
                        match position {
                            Some(position) => pending.insert(at, position),
                            None => pending.remove(&at),
                        };
                    }
                    Some(())
                });
            }
            TransactionUndo::Ended { key, open, epoch, previous, ended, last_used, partitions } => {
                for (at, undo) in partitions.iter().rev() {
                    if let Some(partition) = self.partition_mut(*at) {
                        partition.transactions.unend(undo);
                    }
                }
                self.transactions.change(&key, |entry| {
                    entry.open = open;
                    entry.epoch = epoch;
                    entry.previous = previous;
                    entry.ended = ended;
                    entry.last_used = last_used;
                });
            }
        }
    }
}
