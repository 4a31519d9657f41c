//! The state that decisions are made on: everything that the next commit may
//! depend on, and nothing that only readers need.
//!
//! The writer decides speculatively, on top of groups that are not synced yet,
//! so every application leaves an [`Undo`] behind; replay and roll-back use the
//! same code as serving does.

use std::collections::{BTreeMap, HashMap};

use aquifer_types::{
    ChunkId, Epoch, GroupName, Offset, Partition, PartitionIndex, ProducerId, StreamClass,
    StreamConfig, StreamId, StreamPath, TenantName, Timestamp,
};

use super::answers::{Answers, AnswersUndo};
use super::attempts::{Attempt, AttemptUndo, Attempts};
use super::document::{DocumentUndo, Documents};
use super::event::{AppendEvent, Event};
use super::leases::{LeaseTable, LeaseUndo};
use super::producer::Producers;
use super::transaction_event::TransactionUndo;
use super::transactions::{
    OpenTransaction, PartitionTransactions, TransactionalKey, Transactions, writer_of,
};
use crate::Error;
use crate::api::{AbortedTransaction, GroupPosition};
use crate::chunk_meta::ChunkMeta;

/// The positions of one group.
pub(crate) type Positions = BTreeMap<Partition, GroupPosition>;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HotState {
    /// The highest epoch that was given: that of the start, raised with every
    /// stream that is deleted, so that who takes its name is above it.
    pub(crate) epoch: Epoch,
    pub(crate) streams: HashMap<StreamId, HotStream>,
    pub(crate) names: BTreeMap<StreamPath, StreamId>,
    pub(crate) groups: BTreeMap<(TenantName, GroupName), Positions>,
    pub(crate) group_positions: usize,
    pub(crate) partitions: u64,
    pub(crate) answers: Answers,
    pub(crate) attempts: Attempts,
    pub(crate) documents: Documents,
    pub(crate) leases: LeaseTable,
    pub(crate) intents: BTreeMap<ChunkId, Intent>,
    pub(crate) transactions: Transactions,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HotStream {
    pub(crate) path: StreamPath,
    pub(crate) class: StreamClass,
    pub(crate) config: StreamConfig,
    pub(crate) created: Timestamp,
    /// What its appends bear: the epoch of the start, or that in which it was
    /// created since. Not stored: the next start is above all of them.
    pub(crate) epoch: Epoch,
    pub(crate) partitions: Vec<HotPartition>,
    /// Where partitions that are added begin. Of a stream that was recovered
    /// from tier 2 there may have been some that no manifest tells of.
    pub(crate) partitions_from: Offset,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HotPartition {
    pub(crate) start: Offset,
    pub(crate) tiered: Offset,
    pub(crate) end: Offset,
    /// Where a relaxed partition goes on after an unclean start.
    pub(crate) reserved: Offset,
    /// No offset from here on is given; none before a manifest knows the
    /// partition.
    pub(crate) ceiling: Option<Offset>,
    pub(crate) chunks: BTreeMap<Offset, HotChunk>,
    pub(crate) producers: Producers,
    pub(crate) transactions: PartitionTransactions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HotChunk {
    pub(crate) id: ChunkId,
    pub(crate) next: Offset,
}

/// An upload that was announced and neither committed nor given up.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Intent {
    pub(crate) partition: Partition,
    pub(crate) object_path: String,
    pub(crate) at: Timestamp,
}

/// How to take an application back.
#[derive(Debug)]
pub(crate) enum Undo {
    Append {
        partition: Partition,
        end: Offset,
        producer: Option<super::producer::ProducerUndo>,
        /// Whose transaction begins here.
        begun: Option<ProducerId>,
    },
    StreamCreated(StreamId),
    StreamDeleted {
        id: StreamId,
        stream: Box<HotStream>,
        epoch: Epoch,
        groups: BTreeMap<(TenantName, GroupName), Positions>,
        stripped: Stripped,
    },
    Config(StreamId, Box<StreamConfig>),
    PartitionCount(StreamId, usize),
    Start {
        partition: Partition,
        start: Offset,
        tiered: Offset,
        chunks: Vec<(Offset, HotChunk)>,
        passed: Vec<AbortedTransaction>,
    },
    Intent(ChunkId, Option<Intent>),
    ChunkAdded {
        chunk: (ChunkId, Option<Intent>),
        at: Partition,
        base: Offset,
        tiered: Offset,
        passed: Vec<AbortedTransaction>,
    },
    ChunksReplaced {
        chunk: (ChunkId, Option<Intent>),
        at: Partition,
        base: Offset,
        removed: Vec<(Offset, HotChunk)>,
    },
    Group(TenantName, GroupName, Option<Positions>),
    GroupDeleted(TenantName, GroupName, Option<Positions>, Stripped),
    Answer(AnswersUndo),
    Attempt(AttemptUndo),
    Document(DocumentUndo),
    Lease(LeaseUndo),
    Ceilings(Vec<(Partition, Option<Offset>)>),
    Reserved(Partition, Offset),
    End(Partition, Offset),
    Transaction(TransactionUndo),
}

/// Open transactions as they were before something in them was deleted.
type Stripped = Vec<(TransactionalKey, OpenTransaction)>;

impl HotState {
    /// Begins an epoch that is above all that were given.
    pub(crate) fn begin(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        for stream in self.streams.values_mut() {
            stream.epoch = epoch;
        }
    }

    pub(crate) fn stream(&self, id: StreamId) -> Option<&HotStream> {
        self.streams.get(&id)
    }

    pub(super) fn partition_mut(&mut self, at: Partition) -> Option<&mut HotPartition> {
        self.streams.get_mut(&at.stream)?.partitions.get_mut(at.index.get() as usize)
    }

    /// The stream of a partition that a request names, or the error for it.
    pub(crate) fn require(&self, at: Partition) -> Result<(&HotStream, &HotPartition), Error> {
        let stream =
            self.stream(at.stream).ok_or_else(|| Error::Overtaken("the stream is gone".into()))?;
        let partition = stream.partitions.get(at.index.get() as usize).ok_or_else(|| {
            Error::PartitionNotFound {
                path: stream.path.clone(),
                partitions: stream.partitions.len() as u32,
                partition: at.index.get(),
            }
        })?;
        Ok((stream, partition))
    }

    /// Applies an append. Of an unknown partition nothing is applied: its stream
    /// was deleted later in the journal that is being replayed.
    pub(crate) fn apply_append(&mut self, event: &AppendEvent) -> Option<Undo> {
        let partition = self.partition_mut(event.partition)?;
        let end = partition.end;
        partition.end = partition.end.max(event.batch.next_offset());
        let producer = partition.producers.record(&event.batch, event.appended);
        let begun = writer_of(&event.batch)
            .filter(|writer| partition.transactions.begin(*writer, event.batch.base_offset));
        Some(Undo::Append { partition: event.partition, end, producer, begun })
    }

    /// Applies a fact; `None` where it concerns what does not exist any more.
    pub(crate) fn apply(&mut self, event: &Event) -> Option<Undo> {
        match event {
            Event::StreamCreated { id, path, partitions, class, config, created, epoch } => {
                // In a replay that has not seen what raised it.
                self.epoch = self.epoch.max(*epoch);
                self.streams.insert(
                    *id,
                    HotStream {
                        path: path.clone(),
                        class: *class,
                        config: config.clone(),
                        created: *created,
                        epoch: *epoch,
                        partitions: vec![HotPartition::default(); *partitions as usize],
                        partitions_from: Offset::ZERO,
                    },
                );
                self.names.insert(path.clone(), *id);
                self.partitions += u64::from(*partitions);
                Some(Undo::StreamCreated(*id))
            }
            Event::StreamAltered { id, config } => {
                let stream = self.streams.get_mut(id)?;
                let old = std::mem::replace(&mut stream.config, config.clone());
                Some(Undo::Config(*id, Box::new(old)))
            }
            Event::PartitionsAdded { id, partitions, from } => {
                let stream = self.streams.get_mut(id)?;
                let old = stream.partitions.len();
                let new = (*partitions as usize).max(old);
                let (start, tiered, end) = (*from, *from, *from);
                let empty = HotPartition { start, tiered, end, ..HotPartition::default() };
                stream.partitions.resize(new, empty);
                self.partitions += (new - old) as u64;
                Some(Undo::PartitionCount(*id, old))
            }
            Event::StreamDeleted { id, .. } => {
                let stream = self.streams.remove(id)?;
                self.names.remove(&stream.path);
                self.partitions -= stream.partitions.len() as u64;
                let groups = self.groups.clone();
                for positions in self.groups.values_mut() {
                    positions.retain(|partition, _| partition.stream != *id);
                }
                self.groups.retain(|_, positions| !positions.is_empty());
                self.count_positions();
                let stripped = self.transactions.forget_stream(*id);
                let (epoch, stream) = (self.epoch, Box::new(stream));
                self.epoch = epoch.next();
                Some(Undo::StreamDeleted { id: *id, stream, epoch, groups, stripped })
            }
            Event::Truncated { partition: at, start, .. } => {
                let partition = self.partition_mut(*at)?;
                let undo_start = partition.start;
                let undo_tiered = partition.tiered;
                partition.start = partition.start.max(*start);
                partition.tiered = partition.tiered.max(partition.start);
                // Only a replay moves the end here: relaxed batches may be lost.
                partition.end = partition.end.max(partition.start);
                let gone: Vec<_> = partition
                    .chunks
                    .iter()
                    .take_while(|(_, chunk)| chunk.next <= partition.start)
                    .map(|(base, chunk)| (*base, *chunk))
                    .collect();
                for (base, _) in &gone {
                    partition.chunks.remove(base);
                }
                let passed = partition.transactions.pass(partition.tiered);
                Some(Undo::Start {
                    partition: *at,
                    start: undo_start,
                    tiered: undo_tiered,
                    chunks: gone,
                    passed,
                })
            }
            Event::UploadIntended { chunk, partition, object_path, at } => {
                let intent =
                    Intent { partition: *partition, object_path: object_path.clone(), at: *at };
                Some(Undo::Intent(*chunk, self.intents.insert(*chunk, intent)))
            }
            Event::UploadAbandoned { chunk, .. } => {
                Some(Undo::Intent(*chunk, self.intents.remove(chunk)))
            }
            Event::ChunkAdded { chunk, .. } => {
                let intent = (chunk.id, self.intents.remove(&chunk.id));
                let partition = self.partition_mut(chunk.partition)?;
                let tiered = partition.tiered;
                partition.tiered = partition.tiered.max(chunk.next);
                // Only a replay moves the end here: relaxed batches may be lost.
                partition.end = partition.end.max(chunk.next);
                partition.chunks.insert(chunk.base, HotChunk { id: chunk.id, next: chunk.next });
                let passed = partition.transactions.pass(partition.tiered);
                Some(Undo::ChunkAdded {
                    chunk: intent,
                    at: chunk.partition,
                    base: chunk.base,
                    tiered,
                    passed,
                })
            }
            Event::ChunksReplaced { removed, added, .. } => {
                let intent = (added.id, self.intents.remove(&added.id));
                let partition = self.partition_mut(added.partition)?;
                let gone: Vec<_> = partition
                    .chunks
                    .range(added.base..added.next)
                    .filter(|(_, chunk)| removed.contains(&chunk.id))
                    .map(|(base, chunk)| (*base, *chunk))
                    .collect();
                for (base, _) in &gone {
                    partition.chunks.remove(base);
                }
                partition.chunks.insert(added.base, HotChunk { id: added.id, next: added.next });
                Some(Undo::ChunksReplaced {
                    chunk: intent,
                    at: added.partition,
                    base: added.base,
                    removed: gone,
                })
            }
            Event::ChunkIndexed { index, .. } => {
                Some(Undo::Intent(*index, self.intents.remove(index)))
            }
            Event::GarbageCollected { .. } => None,
            Event::PositionsCommitted { tenant, group, positions } => {
                let name = (tenant.clone(), group.clone());
                let old = self.groups.get(&name).cloned();
                let kept = self.groups.entry(name).or_default();
                let before = kept.len();
                kept.extend(positions.iter().map(|(at, position)| (*at, position.clone())));
                self.group_positions += kept.len() - before;
                Some(Undo::Group(tenant.clone(), group.clone(), old))
            }
            Event::GroupDeleted { tenant, group } => {
                let old = self.groups.remove(&(tenant.clone(), group.clone()));
                self.group_positions -= old.as_ref().map_or(0, BTreeMap::len);
                let stripped = self.transactions.forget_group(tenant, group);
                Some(Undo::GroupDeleted(tenant.clone(), group.clone(), old, stripped))
            }
            Event::PositionsForgotten { tenant, group, partitions } => {
                let name = (tenant.clone(), group.clone());
                let old = self.groups.get(&name).cloned();
                if let Some(kept) = self.groups.get_mut(&name) {
                    let before = kept.len();
                    kept.retain(|at, _| !partitions.contains(at));
                    self.group_positions -= before - kept.len();
                    if kept.is_empty() {
                        self.groups.remove(&name);
                    }
                }
                Some(Undo::Group(name.0, name.1, old))
            }
            Event::DocumentPut { key, document } => {
                Some(Undo::Document(self.documents.put(key, document.clone())))
            }
            Event::DocumentDeleted { key } => Some(Undo::Document(self.documents.delete(key))),
            Event::AnswerKept { tenant, key, answer } => {
                Some(Undo::Answer(self.answers.keep(tenant, key, answer.clone())))
            }
            Event::CommitKept { id, outcomes, at } => {
                let attempt = Attempt { at: *at, outcomes: Some(outcomes.clone()) };
                Some(Undo::Attempt(self.attempts.keep(*id, attempt)))
            }
            Event::CommitFenced { id, at } => {
                let attempt = Attempt { at: *at, outcomes: None };
                Some(Undo::Attempt(self.attempts.keep(*id, attempt)))
            }
            Event::LeaseHeld { name, lease } => Some(Undo::Lease(self.leases.hold(name, *lease))),
            Event::LeaseReleased { name } => Some(Undo::Lease(self.leases.release(name))),
            Event::CeilingsSet { ceilings } => {
                let mut old = Vec::with_capacity(ceilings.len());
                for (at, ceiling) in ceilings {
                    if let Some(partition) = self.partition_mut(*at) {
                        old.push((*at, partition.ceiling.replace(*ceiling)));
                    }
                }
                Some(Undo::Ceilings(old))
            }
            Event::OffsetsReserved { partition: at, through } => {
                let partition = self.partition_mut(*at)?;
                let old = std::mem::replace(&mut partition.reserved, *through);
                Some(Undo::Reserved(*at, old))
            }
            Event::OffsetsSkipped { partition: at, end } => {
                let partition = self.partition_mut(*at)?;
                let old = partition.end;
                partition.end = partition.end.max(*end);
                Some(Undo::End(*at, old))
            }
            Event::Transaction(event) => self.apply_transaction(event).map(Undo::Transaction),
        }
    }

    /// Takes applications back, the last one first.
    pub(crate) fn undo(&mut self, undos: impl DoubleEndedIterator<Item = Undo>) {
        for undo in undos.rev() {
            self.undo_one(undo);
        }
    }

    fn undo_one(&mut self, undo: Undo) {
        match undo {
            Undo::Append { partition, end, producer, begun } => {
                if let Some(partition) = self.partition_mut(partition) {
                    partition.end = end;
                    if let Some(begun) = begun {
                        partition.transactions.unbegin(begun);
                    }
                    if let Some(producer) = producer {
                        partition.producers.undo(producer);
                    }
                }
            }
            Undo::StreamCreated(id) => {
                if let Some(stream) = self.streams.remove(&id) {
                    self.names.remove(&stream.path);
                    self.partitions -= stream.partitions.len() as u64;
                }
            }
            Undo::StreamDeleted { id, stream, epoch, groups, stripped } => {
                self.epoch = epoch;
                self.transactions.unstrip(stripped);
                self.names.insert(stream.path.clone(), id);
                self.partitions += stream.partitions.len() as u64;
                self.streams.insert(id, *stream);
                self.groups = groups;
                self.count_positions();
            }
            Undo::Config(id, config) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    stream.config = *config;
                }
            }
            Undo::PartitionCount(id, count) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    self.partitions -= (stream.partitions.len() - count) as u64;
                    stream.partitions.truncate(count);
                }
            }
            Undo::Start { partition, start, tiered, chunks, passed } => {
                if let Some(partition) = self.partition_mut(partition) {
                    partition.transactions.unpass(passed);
                    partition.start = start;
                    partition.tiered = tiered;
                    partition.chunks.extend(chunks);
                }
            }
            Undo::Intent(chunk, Some(intent)) => {
                self.intents.insert(chunk, intent);
            }
            Undo::Intent(chunk, None) => {
                self.intents.remove(&chunk);
            }
            Undo::ChunkAdded { chunk: (id, intent), at, base, tiered, passed } => {
                self.intents.extend(intent.map(|intent| (id, intent)));
                if let Some(partition) = self.partition_mut(at) {
                    partition.transactions.unpass(passed);
                    partition.chunks.remove(&base);
                    partition.tiered = tiered;
                }
            }
            Undo::ChunksReplaced { chunk: (id, intent), at, base, removed } => {
                self.intents.extend(intent.map(|intent| (id, intent)));
                if let Some(partition) = self.partition_mut(at) {
                    partition.chunks.remove(&base);
                    partition.chunks.extend(removed);
                }
            }
            Undo::Group(tenant, group, old) => self.undo_group((tenant, group), old),
            Undo::GroupDeleted(tenant, group, old, stripped) => {
                self.transactions.unstrip(stripped);
                self.undo_group((tenant, group), old);
            }
            Undo::Answer(undo) => self.answers.undo(undo),
            Undo::Attempt(undo) => self.attempts.undo(undo),
            Undo::Document(undo) => self.documents.undo(undo),
            Undo::Lease(undo) => self.leases.undo(undo),
            Undo::Ceilings(ceilings) => {
                for (at, ceiling) in ceilings.into_iter().rev() {
                    if let Some(partition) = self.partition_mut(at) {
                        partition.ceiling = ceiling;
                    }
                }
            }
            Undo::Reserved(partition, reserved) => {
                if let Some(partition) = self.partition_mut(partition) {
                    partition.reserved = reserved;
                }
            }
            Undo::End(partition, end) => {
                if let Some(partition) = self.partition_mut(partition) {
                    partition.end = end;
                }
            }
            Undo::Transaction(undo) => self.undo_transaction(undo),
        }
    }

    fn undo_group(&mut self, name: (TenantName, GroupName), old: Option<Positions>) {
        match old {
            Some(old) => self.groups.insert(name, old),
            None => self.groups.remove(&name),
        };
        self.count_positions();
    }

    pub(crate) fn count_positions(&mut self) {
        self.group_positions = self.groups.values().map(BTreeMap::len).sum();
    }

    /// Whether no upload and no live chunk is meant by an object's name, and
    /// none can be: what it would cover is tiered, or its stream is gone.
    pub(crate) fn is_orphan(&self, at: Partition, base: Offset, chunk: ChunkId) -> bool {
        if self.intents.contains_key(&chunk) {
            return false;
        }
        let Some(stream) = self.stream(at.stream) else { return true };
        stream.partitions.get(at.index.get() as usize).is_some_and(|partition| {
            let is_live = partition.chunks.get(&base).is_some_and(|live| live.id == chunk);
            !is_live && base < partition.tiered
        })
    }

    /// The newest stamp of what is forgotten by age.
    pub(crate) fn newest_stamp(&self) -> Option<Timestamp> {
        let answers = self.answers.iter().map(|(_, _, answer)| answer.at);
        let attempts = self.attempts.iter().map(|(_, attempt)| attempt.at);
        let producers = self
            .all_partitions()
            .flat_map(|(_, _, partition)| partition.producers.iter().map(|(_, p)| p.last_used));
        let transactional = self.transactions.iter().map(|(_, entry)| entry.last_used);
        answers.chain(attempts).chain(producers).chain(transactional).max()
    }

    /// Every partition, with its stream.
    pub(crate) fn all_partitions(
        &self,
    ) -> impl Iterator<Item = (Partition, &HotStream, &HotPartition)> {
        self.streams.iter().flat_map(|(id, stream)| {
            stream.partitions.iter().enumerate().map(move |(index, partition)| {
                (Partition::new(*id, PartitionIndex(index as u32)), stream, partition)
            })
        })
    }
}

impl HotPartition {
    /// The first offset that an open transaction hides; the end without one.
    pub(crate) fn stable(&self) -> Offset {
        self.transactions.stable(self.start, self.end)
    }

    /// Checks that `removed` lie in a row and that `added` covers just them.
    pub(crate) fn check_replacement(
        &self,
        removed: &[ChunkId],
        added: &ChunkMeta,
    ) -> Result<(), Error> {
        let mut at = added.base;
        let mut found = 0;
        for (base, chunk) in self.chunks.range(added.base..added.next) {
            if *base != at || !removed.contains(&chunk.id) {
                break;
            }
            at = chunk.next;
            found += 1;
        }
        if found != removed.len() || at != added.next || found == 0 {
            return Err(Error::Overtaken("the chunks to be replaced are not live any more".into()));
        }
        Ok(())
    }
}
