//! Decisions about producers and transactions, as Kafka's coordinator makes
//! them.
//!
//! A transaction ends in one commit: a marker in every partition that it
//! includes, the positions that waited for it, and the state after it. What is
//! let in here can be ended for certain: an end that would be too large for a
//! commit is refused when the transaction grows.

use std::borrow::Cow;

use aquifer_types::{
    BatchHeader, GroupName, Marker, Offset, Partition, ProducerEpoch, ProducerId, TenantName,
    Timestamp, TransactionalId,
};

use super::event::{Event, Operation, Outcome};
use super::hot_state::Undo;
use super::sequencer::{Frames, Sequencer};
use super::transaction_event::TransactionEvent;
use super::transactions::{OpenTransaction, Transactional, TransactionalKey};
use crate::Error;
use crate::api::{GroupPosition, NewTransactional, PositionNote};

/// More than a marker takes in a commit, its event included.
const MARKER_BYTES: usize = 512;
/// More than a position takes in a commit beside its note.
const POSITION_BYTES: usize = 256;
/// JSON writes a byte of a note with at most this many.
const NOTE_BYTES_FACTOR: usize = 6;

/// The highest epoch that a producer is given; the one above only fences.
const EPOCH_MAX: i16 = i16::MAX - 1;

type Producer = (ProducerId, ProducerEpoch);

/// What a decision writes to.
pub(super) struct Target<'f, 'a> {
    pub(super) now: Timestamp,
    pub(super) frames: &'f mut Frames<'a>,
    pub(super) undos: &'f mut Vec<Undo>,
}

fn fenced(current: Producer, sent: Producer) -> Error {
    Error::ProducerFenced { producer: sent.0.get(), current: current.1.get(), sent: sent.1.get() }
}

fn after(epoch: ProducerEpoch) -> ProducerEpoch {
    ProducerEpoch(epoch.get().saturating_add(1))
}

impl Sequencer {
    /// Decides an operation on transactions.
    pub(super) fn transact(
        &mut self,
        operation: &Operation,
        mut target: Target<'_, '_>,
    ) -> Result<Outcome, Error> {
        match operation {
            Operation::InitProducer { tenant, transactional } => {
                let (id, epoch) = match transactional {
                    None => {
                        let producer = self.hot.transactions.next_producer;
                        self.happened(TransactionEvent::ProducerCreated { producer }, &mut target);
                        (producer, ProducerEpoch(0))
                    }
                    Some(new) => self.init_transactional(tenant, new, &mut target)?,
                };
                return Ok(Outcome::Producer { id, epoch });
            }
            Operation::AddPartitions { tenant, transactional, producer, partitions } => {
                self.add_partitions(tenant, transactional, *producer, partitions, &mut target)?;
            }
            Operation::AddGroup { tenant, transactional, producer, group } => {
                self.add_group(tenant, transactional, *producer, group, &mut target)?;
            }
            Operation::CommitPositionsInTransaction {
                tenant,
                transactional,
                producer,
                group,
                positions,
            } => {
                let key = (tenant.clone(), transactional.clone());
                let event = self.pend(&key, *producer, group, positions, target.now)?;
                self.happened(event, &mut target);
            }
            Operation::EndTransaction { tenant, transactional, producer, is_commit } => {
                let key = (tenant.clone(), transactional.clone());
                let entry = self.transactional(&key, *producer)?;
                if entry.open.is_some() {
                    self.end(&key, *is_commit, producer.1, &mut target)?;
                } else if entry.ended != Some(*is_commit) {
                    return Err(Error::InvalidTransactionState(format!(
                        "transactional id {transactional} has no open transaction to {}{}",
                        if *is_commit { "commit" } else { "abort" },
                        match entry.ended {
                            Some(true) => ": the last one was committed",
                            Some(false) => ": the last one was aborted",
                            None => "",
                        }
                    )));
                }
            }
            Operation::ExpireTransaction { tenant, transactional, producer } => {
                let key = (tenant.clone(), transactional.clone());
                let is_open = self.hot.transactions.get(&key).is_some_and(|entry| {
                    (entry.producer, entry.epoch) == *producer && entry.open.is_some()
                });
                if is_open {
                    self.end(&key, false, after(producer.1), &mut target)?;
                }
            }
            _ => return Err(Error::Internal("not an operation on transactions".into())),
        }
        Ok(Outcome::Done)
    }

    fn happened(&mut self, event: TransactionEvent, target: &mut Target<'_, '_>) {
        self.apply(Event::Transaction(event), target.frames, target.undos);
    }

    /// The entry of a transactional id whose present producer is `producer`.
    fn transactional(
        &self,
        key: &TransactionalKey,
        producer: Producer,
    ) -> Result<&Transactional, Error> {
        let entry = self
            .hot
            .transactions
            .get(key)
            .ok_or_else(|| Error::TransactionalIdNotFound(key.1.to_string()))?;
        if producer.0 != entry.producer {
            return Err(Error::UnknownProducer { producer: producer.0.get() });
        }
        if producer.1 != entry.epoch {
            return Err(fenced((entry.producer, entry.epoch), producer));
        }
        Ok(entry)
    }

    fn init_transactional(
        &mut self,
        tenant: &TenantName,
        new: &NewTransactional,
        target: &mut Target<'_, '_>,
    ) -> Result<Producer, Error> {
        let timeout_ms_max = self.options.transaction_ms_max;
        if new.timeout_ms == 0 || u64::from(new.timeout_ms) > timeout_ms_max {
            return Err(Error::TransactionTimeoutTooLong {
                timeout_ms: u64::from(new.timeout_ms),
                limit: timeout_ms_max,
            });
        }
        let key = (tenant.clone(), new.id.clone());
        let fresh = (self.hot.transactions.next_producer, ProducerEpoch(0));
        let known = self.hot.transactions.get(&key);
        let Some(known) = known else {
            self.check_count(
                self.hot.transactions.len(),
                self.options.transactional_ids_max,
                "the number of transactional ids",
                "transactional_ids_max",
            )?;
            self.initialize(key, fresh, None, new.timeout_ms, target);
            return Ok(fresh);
        };
        let current = (known.producer, known.epoch);
        if let Some(expected) = new.expected
            && expected != current
        {
            // The answer to the same request was lost.
            return if known.previous == Some(expected) && known.open.is_none() {
                Ok(current)
            } else {
                Err(fenced(current, expected))
            };
        }
        let is_exhausted = current.1.get() >= EPOCH_MAX;
        if known.open.is_some() {
            self.end(&key, false, after(current.1), target)?;
        }
        let next = if is_exhausted { fresh } else { (current.0, after(current.1)) };
        self.initialize(key, next, new.expected, new.timeout_ms, target);
        Ok(next)
    }

    fn initialize(
        &mut self,
        (tenant, id): TransactionalKey,
        (producer, epoch): Producer,
        previous: Option<Producer>,
        timeout_ms: u32,
        target: &mut Target<'_, '_>,
    ) {
        let at = self.steady.now();
        let event =
            TransactionEvent::Initialized { tenant, id, producer, epoch, previous, timeout_ms, at };
        self.happened(event, target);
    }

    fn add_partitions(
        &mut self,
        tenant: &TenantName,
        transactional: &TransactionalId,
        producer: Producer,
        partitions: &[Partition],
        target: &mut Target<'_, '_>,
    ) -> Result<(), Error> {
        let key = (tenant.clone(), transactional.clone());
        let open = self.transactional(&key, producer)?.open.as_ref();
        let mut new = Vec::new();
        for at in partitions {
            let (stream, _) = self.hot.require(*at)?;
            if stream.path.tenant != *tenant {
                return Err(Error::StreamNotFound(stream.path.clone()));
            }
            if !open.is_some_and(|open| open.partitions.contains(at)) && !new.contains(at) {
                new.push(*at);
            }
        }
        self.check_members(open, new.len())?;
        if !new.is_empty() {
            let (id, tenant, at) = (key.1, key.0, target.now);
            let event =
                TransactionEvent::Enlisted { tenant, id, partitions: new, groups: Vec::new(), at };
            self.happened(event, target);
        }
        Ok(())
    }

    fn add_group(
        &mut self,
        tenant: &TenantName,
        transactional: &TransactionalId,
        producer: Producer,
        group: &GroupName,
        target: &mut Target<'_, '_>,
    ) -> Result<(), Error> {
        let key = (tenant.clone(), transactional.clone());
        let open = self.transactional(&key, producer)?.open.as_ref();
        if open.is_some_and(|open| open.groups.contains_key(group)) {
            return Ok(());
        }
        self.check_members(open, 1)?;
        let (id, tenant, at) = (key.1, key.0, target.now);
        let groups = vec![group.clone()];
        let event = TransactionEvent::Enlisted { tenant, id, partitions: Vec::new(), groups, at };
        self.happened(event, target);
        Ok(())
    }

    /// Whether the transaction may open, or grow by `more`.
    fn check_members(&self, open: Option<&OpenTransaction>, more: usize) -> Result<(), Error> {
        let options = &self.options;
        if open.is_none() && more > 0 {
            self.check_count(
                self.hot.transactions.open_len(),
                options.transactions_open_max,
                "the number of open transactions",
                "transactions_open_max",
            )?;
        }
        let limit =
            options.transaction_partitions_max.min(options.commit_bytes_max / 2 / MARKER_BYTES);
        let members = open.map_or(0, OpenTransaction::members) + more;
        if more > 0 && members > limit {
            return Err(Error::Invalid(format!(
                "a transaction includes at most {limit} partitions and groups (transaction_partitions_max), this one would have {members}"
            )));
        }
        Ok(())
    }

    fn check_count(
        &self,
        count: usize,
        limit: usize,
        what: &'static str,
        limit_name: &'static str,
    ) -> Result<(), Error> {
        if count < limit {
            return Ok(());
        }
        Err(Error::Throttled { what, limit: limit as u64, limit_name })
    }

    fn pend(
        &self,
        key: &TransactionalKey,
        producer: Producer,
        group: &GroupName,
        positions: &[(Partition, Offset, PositionNote)],
        now: Timestamp,
    ) -> Result<TransactionEvent, Error> {
        let entry = self.transactional(key, producer)?;
        let Some(open) = entry.open.as_ref().filter(|open| open.groups.contains_key(group)) else {
            return Err(Error::InvalidTransactionState(format!(
                "transactional id {} has no open transaction that includes group {group}",
                key.1
            )));
        };
        let mut kept = Vec::with_capacity(positions.len());
        for (partition, offset, note) in positions {
            let (stream, _) = self.hot.require(*partition)?;
            if stream.path.tenant != key.0 {
                return Err(Error::StreamNotFound(stream.path.clone()));
            }
            kept.push((*partition, GroupPosition::new(*offset, note, now)));
        }
        let have = self.hot.group_positions + self.hot.transactions.pending_positions();
        let limit = self.options.group_positions_max;
        self.check_count(
            have + kept.len(),
            limit.saturating_add(1),
            "the number of kept group positions",
            "group_positions_max",
        )?;
        let bytes_of = |note: &str| POSITION_BYTES + NOTE_BYTES_FACTOR * note.len();
        let pending = open.groups.values().flat_map(|positions| positions.values());
        let bytes: usize = pending.map(|position| bytes_of(&position.metadata)).sum();
        let more: usize = kept.iter().map(|(_, position)| bytes_of(&position.metadata)).sum();
        let size = (bytes + more) as u64;
        let limit = (self.options.commit_bytes_max / 2) as u64;
        if size > limit {
            return Err(Error::TooLarge {
                what: "what waits for the end of the transaction".into(),
                size,
                limit,
                limit_name: "half of commit_bytes_max",
            });
        }
        Ok(TransactionEvent::PositionsPended {
            tenant: key.0.clone(),
            id: key.1.clone(),
            group: group.clone(),
            positions: kept,
        })
    }

    /// Ends the open transaction of an entry; `epoch` is the producer's from
    /// here on.
    fn end(
        &mut self,
        key: &TransactionalKey,
        is_commit: bool,
        epoch: ProducerEpoch,
        target: &mut Target<'_, '_>,
    ) -> Result<(), Error> {
        let Some(entry) = self.hot.transactions.get(key) else { return Ok(()) };
        let Some(open) = &entry.open else { return Ok(()) };
        let producer = entry.producer;
        let partitions: Vec<Partition> = open.partitions.iter().copied().collect();
        let groups: Vec<_> = open
            .groups
            .iter()
            .filter(|(_, positions)| is_commit && !positions.is_empty())
            .map(|(group, of)| (group.clone(), of.iter().map(|(a, p)| (*a, p.clone())).collect()))
            .collect();
        let coordinator_epoch = i32::try_from(self.hot.epoch.get()).unwrap_or(i32::MAX);
        let marker = Marker { producer, epoch, is_commit, coordinator_epoch }.to_batch(target.now);
        let mut markers = Vec::with_capacity(partitions.len());
        for at in partitions {
            let batch = Cow::Owned(marker.clone());
            let placed = self.place(at, batch, target.now, target.frames, target.undos)?;
            markers.push((at, placed.base_offset));
        }
        for (group, positions) in groups {
            let tenant = key.0.clone();
            let event = Event::PositionsCommitted { tenant, group, positions };
            self.apply(event, target.frames, target.undos);
        }
        let (tenant, id) = key.clone();
        let at = self.steady.now();
        let event = TransactionEvent::Ended { tenant, id, producer, epoch, is_commit, markers, at };
        self.happened(event, target);
        Ok(())
    }

    /// Whether a transactional producer, if it is one, is the present one.
    pub(super) fn check_incarnation(&self, batch: &BatchHeader) -> Result<(), Error> {
        let Some(id) = batch.producer_id else { return Ok(()) };
        let Some(entry) = self.hot.transactions.of_producer(id) else { return Ok(()) };
        if batch.producer_epoch != entry.epoch {
            return Err(fenced((id, entry.epoch), (id, batch.producer_epoch)));
        }
        Ok(())
    }

    /// Whether a new batch fits the open transaction of its producer, or the
    /// absence of one.
    pub(super) fn check_transaction(
        &self,
        batch: &BatchHeader,
        at: Partition,
    ) -> Result<(), Error> {
        let entry = batch.producer_id.and_then(|id| self.hot.transactions.of_producer(id));
        let open = entry.and_then(|entry| entry.open.as_ref());
        let why = match (batch.is_transactional, open) {
            (false, None) => return Ok(()),
            (true, Some(open)) if open.partitions.contains(&at) => return Ok(()),
            (true, Some(_)) => "the open transaction does not include the partition",
            (true, None) => "the batch's producer has no open transaction",
            (false, Some(_)) => "the batch is not a part of its producer's open transaction",
        };
        Err(Error::InvalidTransactionState(format!("partition {}: {why}", at.index)))
    }
}
