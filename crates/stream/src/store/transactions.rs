//! Producers and transactions, as the doors ask for them.

use std::collections::{BTreeSet, HashMap};

use aquifer_types::{
    Epoch, GroupName, Offset, Partition, PartitionIndex, ProducerEpoch, ProducerId, StreamPath,
    TenantName, TransactionalId,
};

use super::StreamStore;
use super::groups::check_position;
use crate::Error;
use crate::api::{NewTransactional, ProducerDescription, TransactionDescription, TransactionState};
use crate::index::PartitionState;
use crate::ledger::transactions::{Transactional, TransactionalKey};
use crate::ledger::{Operation, Outcome};

/// When open transactions were first seen, on a clock that never jumps. A
/// transaction is told from a later one of the same id by its producer's epoch
/// and by when it was opened.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    seen: HashMap<(TransactionalKey, Seen), u64>,
}

type Seen = (ProducerId, ProducerEpoch, i64);

impl StreamStore {
    /// Gives a producer its id and epoch. A transactional id that is known gets
    /// the next epoch, which fences whoever had it, and its open transaction is
    /// aborted.
    ///
    /// # Errors
    /// [`Error::TransactionTimeoutTooLong`]; [`Error::ProducerFenced`] where
    /// another one than the expected producer has the id.
    pub async fn init_producer(
        &self,
        tenant: &TenantName,
        transactional: Option<NewTransactional>,
    ) -> Result<(ProducerId, ProducerEpoch), Error> {
        let operation = Operation::InitProducer { tenant: tenant.clone(), transactional };
        let committed = self.commit(vec![operation]).await?;
        match committed.outcomes[..] {
            [Outcome::Producer { id, epoch }] => Ok((id, epoch)),
            _ => Err(Error::Internal("no producer came of it".into())),
        }
    }

    /// Lets a producer's transaction include partitions; opens it where none is
    /// open.
    ///
    /// # Errors
    /// [`Error::TransactionalIdNotFound`], [`Error::UnknownProducer`],
    /// [`Error::ProducerFenced`]; where a partition does not exist.
    pub async fn add_partitions(
        &self,
        tenant: &TenantName,
        transactional: &TransactionalId,
        producer: (ProducerId, ProducerEpoch),
        partitions: Vec<Partition>,
    ) -> Result<(), Error> {
        let (tenant, transactional) = (tenant.clone(), transactional.clone());
        let operation = Operation::AddPartitions { tenant, transactional, producer, partitions };
        self.commit(vec![operation]).await.map(|_| ())
    }

    /// Lets a producer's transaction include a group; opens it where none is
    /// open.
    ///
    /// # Errors
    /// As [`StreamStore::add_partitions`].
    pub async fn add_group(
        &self,
        tenant: &TenantName,
        transactional: &TransactionalId,
        producer: (ProducerId, ProducerEpoch),
        group: &GroupName,
    ) -> Result<(), Error> {
        let (tenant, transactional) = (tenant.clone(), transactional.clone());
        let group = group.clone();
        let operation = Operation::AddGroup { tenant, transactional, producer, group };
        self.commit(vec![operation]).await.map(|_| ())
    }

    /// Commits positions of a group when, and if, the open transaction is
    /// committed; it includes the group.
    ///
    /// # Errors
    /// As [`StreamStore::add_partitions`]; [`Error::InvalidTransactionState`]
    /// where no open transaction includes the group.
    pub async fn commit_positions_in_transaction(
        &self,
        tenant: &TenantName,
        transactional: &TransactionalId,
        producer: (ProducerId, ProducerEpoch),
        group: &GroupName,
        positions: Vec<(Partition, Offset, String)>,
    ) -> Result<(), Error> {
        for (_, offset, metadata) in &positions {
            check_position(*offset, metadata)?;
        }
        let operation = Operation::CommitPositionsInTransaction {
            tenant: tenant.clone(),
            transactional: transactional.clone(),
            producer,
            group: group.clone(),
            positions: super::groups::noted(positions),
        };
        self.commit(vec![operation]).await.map(|_| ())
    }

    /// Commits or aborts the open transaction. The same end can be repeated
    /// until the next transaction is opened.
    ///
    /// # Errors
    /// As [`StreamStore::add_partitions`]; [`Error::InvalidTransactionState`]
    /// where none is open, or the last one ended the other way.
    pub async fn end_transaction(
        &self,
        tenant: &TenantName,
        transactional: &TransactionalId,
        producer: (ProducerId, ProducerEpoch),
        is_commit: bool,
    ) -> Result<(), Error> {
        let (tenant, transactional) = (tenant.clone(), transactional.clone());
        let operation = Operation::EndTransaction { tenant, transactional, producer, is_commit };
        self.commit(vec![operation]).await.map(|_| ())
    }

    /// A transactional id and its transaction, as the last decision left them.
    ///
    /// # Errors
    /// [`Error::TransactionalIdNotFound`].
    pub fn describe_transaction(
        &self,
        tenant: &TenantName,
        id: &TransactionalId,
    ) -> Result<TransactionDescription, Error> {
        let key = (tenant.clone(), id.clone());
        self.inner.ledger.with_hot(|hot| {
            let entry = hot
                .transactions
                .get(&key)
                .ok_or_else(|| Error::TransactionalIdNotFound(id.to_string()))?;
            let mut described = describe(id, entry);
            if let Some(open) = &entry.open {
                let named = open.partitions.iter().filter_map(|at| {
                    hot.stream(at.stream).map(|stream| (stream.path.clone(), at.index))
                });
                described.partitions = named.collect();
                described.groups = open.groups.keys().cloned().collect();
            }
            Ok(described)
        })
    }

    /// The producer that a transactional id has now, as the last decision left
    /// it.
    #[must_use]
    pub fn transactional_producer(
        &self,
        tenant: &TenantName,
        id: &TransactionalId,
    ) -> Option<ProducerId> {
        let key = (tenant.clone(), id.clone());
        self.inner.ledger.with_hot(|hot| Some(hot.transactions.get(&key)?.producer))
    }

    /// The transactional ids of a tenant, without what their transactions
    /// include.
    #[must_use]
    pub fn list_transactions(&self, tenant: &TenantName) -> Vec<TransactionDescription> {
        self.inner.ledger.with_hot(|hot| {
            let of_tenant = hot.transactions.iter().filter(|((of, _), _)| of == tenant);
            of_tenant.map(|((_, id), entry)| describe(id, entry)).collect()
        })
    }

    /// The producers that appended to a partition and are not forgotten, as the
    /// last decision left them.
    ///
    /// # Errors
    /// Where the stream or partition does not exist.
    pub fn describe_producers(
        &self,
        path: &StreamPath,
        partition: PartitionIndex,
    ) -> Result<Vec<ProducerDescription>, Error> {
        let at = self.inner.index.stream(path)?.partition(partition)?.partition;
        self.inner.ledger.with_hot(|hot| {
            let Ok((_, partition)) = hot.require(at) else {
                return Err(Error::StreamNotFound(path.clone()));
            };
            let mut described: Vec<_> = partition
                .producers
                .iter()
                .map(|(id, producer)| ProducerDescription {
                    producer: id,
                    epoch: producer.epoch,
                    last_sequence: producer.last_sequence(),
                    last_used: producer.last_used,
                    transaction_start: partition.transactions.open_at(id),
                })
                .collect();
            described.sort_by_key(|producer| producer.producer);
            Ok(described)
        })
    }

    /// The partitions whose positions of a group may be about to change: some
    /// wait for the end of a transaction, or what was decided is not durable yet.
    /// The positions of all others, read behind this, are as new as the last
    /// transaction that was ended before.
    #[must_use]
    pub fn pending_positions(
        &self,
        tenant: &TenantName,
        group: &GroupName,
    ) -> Vec<(StreamPath, PartitionIndex)> {
        let key = (tenant.clone(), group.clone());
        let (mut pending, decided) = self.inner.ledger.with_hot(|hot| {
            let open = hot.transactions.iter_open().filter(|((of, _), ..)| of == tenant);
            let partitions = open.filter_map(|(_, _, open)| open.groups.get(group));
            let pending: BTreeSet<Partition> =
                partitions.flat_map(|positions| positions.keys().copied()).collect();
            (pending, hot.groups.get(&key).cloned().unwrap_or_default())
        });
        let groups = self.inner.index.groups.read();
        let durable = groups.get(tenant, group);
        let of = |at: &Partition| durable.and_then(|positions| positions.get(at));
        pending.extend(
            decided.iter().filter(|(at, position)| of(at) != Some(*position)).map(|(at, _)| *at),
        );
        drop(groups);
        let mut named: Vec<_> = pending
            .iter()
            .filter_map(|at| Some((self.stream_path(at.stream)?, at.index)))
            .collect();
        named.sort();
        named
    }

    /// Aborts the transactions whose declared time is over, and fences their
    /// producers; returns how many. Time counts from when this run first saw a
    /// transaction, on a clock that never jumps, so that none is aborted early.
    ///
    /// # Errors
    /// As the ledger's.
    pub async fn expire_transactions(&self) -> Result<usize, Error> {
        let mut expiry = self.inner.expiry.lock().await;
        let now_ns = self.inner.environment.clock.monotonic_ns();
        let mut before = std::mem::take(&mut expiry.seen);
        let mut due = Vec::new();
        self.inner.ledger.with_hot(|hot| {
            for (key, entry, open) in hot.transactions.iter_open() {
                let seen = (key.clone(), (entry.producer, entry.epoch, open.started.get()));
                let since_ns = before.remove(&seen).unwrap_or(now_ns);
                let elapsed_ms = now_ns.saturating_sub(since_ns) / 1_000_000;
                if elapsed_ms >= u64::from(entry.timeout_ms) {
                    due.push((key.clone(), (entry.producer, entry.epoch)));
                }
                expiry.seen.insert(seen, since_ns);
            }
        });
        let (mut expired, mut failure) = (0, None);
        for ((tenant, transactional), producer) in due {
            tracing::info!(%tenant, %transactional, "the transaction's time is over, it is aborted");
            let operation = Operation::ExpireTransaction { tenant, transactional, producer };
            // One that has no room for its markers yet keeps no other open.
            match self.commit(vec![operation]).await {
                Ok(_) => expired += 1,
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(expired), Err)
    }

    /// The largest epoch up to `epoch` that a partition knows, and the offset
    /// where it ends. Where all are larger, `epoch` itself and the earliest
    /// offset.
    ///
    /// # Errors
    /// Where the stream or partition does not exist.
    pub fn offset_for_epoch(
        &self,
        path: &StreamPath,
        partition: PartitionIndex,
        epoch: Epoch,
    ) -> Result<(Epoch, Offset), Error> {
        let stream = self.inner.index.stream(path)?;
        let log = stream.partition(partition)?;
        let current = stream.epoch();
        Ok(log.with(|state| match epoch_end(state, epoch) {
            // Nothing may be appended in the present epoch yet.
            (_, end) if end == state.end && epoch >= current => (current, end),
            (Some(known), end) => (known, end),
            (None, start) => (epoch, start),
        }))
    }
}

/// The largest known epoch up to `asked`, and where it ends.
fn epoch_end(state: &PartitionState, asked: Epoch) -> (Option<Epoch>, Offset) {
    let in_chunks = state.chunks.iter().flat_map(|chunk| chunk.epochs.iter().copied());
    let mut known = None;
    for (epoch, first) in in_chunks {
        if epoch > asked {
            return (known, first.max(state.start));
        }
        known = known.max(Some(epoch));
    }
    // Epochs never go back in the tail.
    let behind = state.tail.partition_point(|entry| entry.epoch <= asked);
    let last = behind.checked_sub(1).and_then(|at| state.tail.get(at));
    known = known.max(last.map(|entry| entry.epoch));
    let end = state.tail.get(behind).map_or(state.end, |entry| entry.base.max(state.start));
    (known, end)
}

fn describe(id: &TransactionalId, entry: &Transactional) -> TransactionDescription {
    TransactionDescription {
        transactional: id.clone(),
        producer: (entry.producer, entry.epoch),
        state: match (&entry.open, entry.ended) {
            (Some(_), _) => TransactionState::Ongoing,
            (None, Some(true)) => TransactionState::Committed,
            (None, Some(false)) => TransactionState::Aborted,
            (None, None) => TransactionState::Empty,
        },
        timeout_ms: entry.timeout_ms,
        started: entry.open.as_ref().map(|open| open.started),
        partitions: Vec::new(),
        groups: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aquifer_journal::FileId;
    use aquifer_types::{ChunkId, StreamId, Timestamp};

    use super::*;
    use crate::chunk_meta::ChunkMeta;
    use crate::index::{TailEntry, TailKind};

    fn entry(base: i64, epoch: u32) -> TailEntry {
        TailEntry {
            base: Offset(base),
            next: Offset(base + 10),
            max_timestamp: Timestamp(0),
            appended: Timestamp(0),
            file: FileId(1),
            position: 0,
            len: 100,
            epoch: Epoch(epoch),
            kind: TailKind::Plain,
            timestamp_type: aquifer_types::TimestampType::Create,
        }
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let mut state = PartitionState { end: Offset(40), ..PartitionState::default() };
        state.tail.extend([entry(10, 3), entry(20, 3), entry(30, 7)]);
        state.start = Offset(10);
        let check = |state: &PartitionState, asked: u32, known: Option<u32>, end: i64| {
            let expected = (known.map(Epoch), Offset(end));
            assert_eq!(epoch_end(state, Epoch(asked)), expected, "{asked}");
        };
        check(&state, 2, None, 10);
        check(&state, 3, Some(3), 30);
        check(&state, 6, Some(3), 30);
        check(&state, 7, Some(7), 40);
        check(&state, 9, Some(7), 40);
        let chunk = ChunkMeta {
            id: ChunkId::from_bytes([1; 16]),
            partition: Partition::new(StreamId::from_bytes([1; 16]), PartitionIndex(0)),
            base: Offset(0),
            next: Offset(10),
            object_path: String::new(),
            object_bytes: 1,
            checksum: String::new(),
            records: 10,
            raw_bytes: 1,
            min_timestamp: None,
            max_timestamp: None,
            max_appended: None,
            epochs: vec![(Epoch(1), Offset(0)), (Epoch(2), Offset(5))],
            generation: 0,
            schema_version: 0,
            unfit: None,
            timestamp_type: aquifer_types::TimestampType::Create,
            index_path: None,
            index_bytes: None,
            key_id: None,
        };
        state.start = Offset::ZERO;
        state.set_chunks(vec![Arc::new(chunk)]);
        check(&state, 0, None, 0);
        check(&state, 1, Some(1), 5);
        check(&state, 2, Some(2), 10);
        check(&state, 3, Some(3), 30);
    }
}
