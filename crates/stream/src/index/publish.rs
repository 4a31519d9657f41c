//! Publishing: the application of facts to what readers see, and the catalog's
//! share of them.
//!
//! Applying a fact again, in order and to the end of the journal, changes
//! nothing: the catalog may stand anywhere between the snapshot and the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aquifer_catalog::{
    Change, ChunkRow, GarbageRow, IntentRow, PartitionRow, StreamRow, TombstoneRow, garbage_reason,
};
use aquifer_journal::FileId;
use aquifer_types::{
    Epoch, GroupSequence, Offset, Partition, PartitionIndex, StreamId, Timestamp, TimestampType,
};
use parking_lot::RwLock;

use super::{Garbage, Index, PartitionLog, StreamIndex, TailEntry, Tombstone};
use crate::chunk_meta::ChunkMeta;
use crate::ledger::document::DocumentKind;
use crate::ledger::event::Event;
use crate::ledger::sequencer::Fact;
use crate::ledger::transaction_event::TransactionEvent;

impl Index {
    /// Publishes a group that was written to `file` at `position`, all of it at
    /// once for whoever takes a cut. Returns what the catalog has to be told.
    pub(crate) fn publish_group(
        &self,
        sequence: GroupSequence,
        file: FileId,
        position: u64,
        facts: &[Fact],
    ) -> Vec<Change> {
        let mut cut = self.cut.write();
        let mut changes = Vec::new();
        let mut known: HashMap<Partition, Arc<PartitionLog>> = HashMap::new();
        for fact in facts {
            match fact {
                Fact::Append(event, at) => {
                    let log = match known.get(&event.partition) {
                        Some(log) => Some(log),
                        None => self.partition(event.partition).map(|log| {
                            known.insert(event.partition, log);
                            &known[&event.partition]
                        }),
                    };
                    if let Some(log) = log {
                        // Counted first: the tierer may drop the batch at once.
                        self.files.add(file, 1);
                        let place = position + u64::from(at.payload_offset_in_group);
                        log.append(TailEntry::new(&event.batch, event.appended, file, place));
                    }
                }
                Fact::Relocated(event, at) => {
                    let Some(log) = self.partition(event.partition) else { continue };
                    let place = position + u64::from(at.payload_offset_in_group);
                    let entry = TailEntry::new(&event.batch, event.appended, file, place);
                    self.files.add(file, 1);
                    // Passed meanwhile, nothing lies there.
                    let left = log.relocate(&entry).unwrap_or(file);
                    self.files.remove([left]);
                }
                Fact::Other(event) => self.publish(event, &mut changes),
            }
        }
        *cut = sequence;
        changes
    }

    /// Publishes a fact other than an append.
    pub(crate) fn publish(&self, event: &Event, changes: &mut Vec<Change>) {
        if is_in_manifest(event) {
            self.changes.fetch_add(1, Ordering::Release);
        }
        match event {
            Event::StreamCreated { .. }
            | Event::StreamAltered { .. }
            | Event::PartitionsAdded { .. }
            | Event::StreamDeleted { .. } => {
                self.publish_stream(event, changes);
                // Behind the change: who sees this number sees the change too.
                self.shapes.fetch_add(1, Ordering::Release);
            }
            Event::Truncated { partition, start, at, is_expired } => {
                let Some(log) = self.partition(*partition) else { return };
                let (gone, files) = log.truncate(*start);
                self.files.remove(files);
                let reason = match is_expired {
                    true => garbage_reason::EXPIRED,
                    false => garbage_reason::TRUNCATED,
                };
                for chunk in gone {
                    self.discard(&chunk, *at, reason, changes);
                }
                changes.push(partition_row(&log));
            }
            Event::UploadIntended { chunk, partition, object_path, at } => {
                changes.push(Change::PutIntent(IntentRow {
                    chunk_id: chunk.0,
                    stream_id: partition.stream.0,
                    partition: partition.index.get() as i32,
                    object_path: object_path.clone(),
                    created_ms: at.get(),
                }));
            }
            Event::UploadAbandoned { chunk, object_path, at } => {
                changes.push(Change::RemoveIntent(chunk.0));
                // A put whose answer was lost may still arrive: the grace time
                // lets it arrive first.
                let garbage = self.due(*at, garbage_reason::ABANDONED);
                self.add_garbage(object_path.clone(), garbage, changes);
            }
            Event::ChunkAdded { chunk, at } => {
                changes.push(Change::RemoveIntent(chunk.id.0));
                let Some(log) = self.partition(chunk.partition) else { return };
                self.files.remove(log.add_chunk(chunk));
                let at = at.or(chunk.max_appended).unwrap_or_default();
                self.put_or_discard(&log, chunk, at, changes);
                changes.push(partition_row(&log));
            }
            Event::ChunksReplaced { removed, added, at } => {
                changes.push(Change::RemoveIntent(added.id.0));
                let Some(log) = self.partition(added.partition) else { return };
                for chunk in log.replace_chunks(removed, added) {
                    self.discard(&chunk, *at, garbage_reason::REPLACED, changes);
                }
                self.put_or_discard(&log, added, *at, changes);
            }
            Event::ChunkIndexed { partition, chunk, index, index_path, index_bytes, at } => {
                changes.push(Change::RemoveIntent(index.0));
                let Some(log) = self.partition(*partition) else { return };
                if let Some((indexed, old)) = log.set_index(*chunk, index_path, *index_bytes) {
                    changes.push(chunk_row(&indexed));
                    // A replay may have taken it for one that was replaced.
                    if self.garbage.lock().remove(index_path).is_some() {
                        changes.push(Change::RemoveGarbage(index_path.clone()));
                    }
                    if let Some(old) = old {
                        let garbage = self.due(*at, garbage_reason::REPLACED);
                        self.add_garbage(old, garbage, changes);
                    }
                } else if !self.garbage.lock().contains_key(index_path) {
                    // In a replay the chunk may be gone already: what took it away
                    // did not know of this index, or the catalog does not. Where
                    // it was deleted since, the replay comes to that too.
                    let garbage = self.due(*at, garbage_reason::REPLACED);
                    self.add_garbage(index_path.clone(), garbage, changes);
                }
            }
            Event::GarbageCollected { object_paths } => {
                let mut garbage = self.garbage.lock();
                for path in object_paths {
                    garbage.remove(path);
                    changes.push(Change::RemoveGarbage(path.clone()));
                }
            }
            Event::PositionsCommitted { tenant, group, positions } => {
                self.groups.write().commit(tenant, group, positions);
            }
            Event::GroupDeleted { tenant, group } => self.groups.write().delete(tenant, group),
            Event::PositionsForgotten { tenant, group, partitions } => {
                self.groups.write().forget(tenant, group, partitions);
            }
            Event::DocumentPut { key, document } => {
                let _ = self.documents.write().put(key, document.clone());
                self.document_changed(key.kind);
            }
            Event::DocumentDeleted { key } => {
                let _ = self.documents.write().delete(key);
                self.document_changed(key.kind);
            }
            Event::OffsetsSkipped { partition, end } => {
                if let Some(log) = self.partition(*partition) {
                    log.skip_to(*end);
                }
            }
            Event::Transaction(TransactionEvent::Ended {
                producer, is_commit, markers, ..
            }) => {
                for (at, marker) in markers {
                    if let Some(log) = self.partition(*at) {
                        log.end_transaction(*producer, *marker, *is_commit);
                    }
                }
            }
            Event::AnswerKept { .. }
            | Event::CommitKept { .. }
            | Event::CommitFenced { .. }
            | Event::LeaseHeld { .. }
            | Event::LeaseReleased { .. }
            | Event::CeilingsSet { .. }
            | Event::OffsetsReserved { .. }
            | Event::Transaction(_) => {}
        }
    }

    fn document_changed(&self, kind: DocumentKind) {
        let of_kind = self.kinds_changed.get(&kind);
        for changed in of_kind.into_iter().chain([&self.documents_changed]) {
            changed.send_modify(|count| *count += 1);
        }
    }

    fn publish_stream(&self, event: &Event, changes: &mut Vec<Change>) {
        match event {
            Event::StreamCreated { id, path, partitions, class, config, created, epoch } => {
                let stream = Arc::new(StreamIndex {
                    id: *id,
                    path: path.clone(),
                    class: *class,
                    created: *created,
                    epoch: AtomicU32::new(epoch.get()),
                    config: RwLock::new(Arc::new(config.clone())),
                    partitions: RwLock::new(Arc::new(new_partitions(
                        *id,
                        0,
                        *partitions,
                        Offset::ZERO,
                    ))),
                    schema: parking_lot::Mutex::default(),
                });
                let mut streams = self.streams.write();
                // In replay it may be known from the catalog already.
                let stream = streams.by_id.entry(*id).or_insert(stream).clone();
                streams.by_path.insert(path.clone(), stream.clone());
                drop(streams);
                changes.push(stream_row(&stream, *epoch));
                changes.extend(stream.partitions().iter().map(|log| partition_row(log)));
            }
            Event::StreamAltered { id, config } => {
                let Some(stream) = self.stream_by_id(*id) else { return };
                *stream.config.write() = Arc::new(config.clone());
                changes.push(stream_row(&stream, Epoch(0)));
            }
            Event::PartitionsAdded { id, partitions, from } => {
                let Some(stream) = self.stream_by_id(*id) else { return };
                let mut logs = stream.partitions.write();
                let have = logs.len() as u32;
                if *partitions > have {
                    let mut more = logs.to_vec();
                    more.extend(new_partitions(*id, have, *partitions, *from));
                    *logs = Arc::new(more);
                }
                drop(logs);
                changes.push(stream_row(&stream, Epoch(0)));
                // All of them: in a replay the snapshot may know the new ones
                // while the catalog does not.
                changes.extend(stream.partitions().iter().map(|log| partition_row(log)));
            }
            Event::StreamDeleted { id, at } => {
                self.groups.write().forget_stream(*id);
                let mut streams = self.streams.write();
                let Some(stream) = streams.by_id.remove(id) else { return };
                if streams.by_path.get(&stream.path).is_some_and(|named| named.id == *id) {
                    streams.by_path.remove(&stream.path);
                }
                drop(streams);
                for log in stream.partitions().iter() {
                    let (chunks, files) = log.delete();
                    self.files.remove(files);
                    for chunk in chunks {
                        self.discard(&chunk, *at, garbage_reason::STREAM_DELETED, changes);
                    }
                }
                let tombstone = Tombstone { id: *id, path: stream.path.clone(), at: *at };
                self.tombstones.lock().insert(*id, tombstone);
                changes.push(Change::RemoveStream(id.0));
                changes.push(Change::PutTombstone(TombstoneRow {
                    stream_id: id.0,
                    tenant: stream.path.tenant.to_string(),
                    name: stream.path.name.to_string(),
                    deleted_ms: at.get(),
                }));
            }
            _ => {}
        }
    }

    /// Puts a chunk into the catalog; in a replay the start may have passed it
    /// already, and then it is garbage.
    fn put_or_discard(
        &self,
        log: &PartitionLog,
        chunk: &ChunkMeta,
        at: Timestamp,
        changes: &mut Vec<Change>,
    ) {
        if log.with(|state| state.chunks.iter().any(|live| live.id == chunk.id)) {
            changes.push(chunk_row(chunk));
        } else if self.garbage.lock().contains_key(&chunk.object_path) {
            // What took it away is known already, and says why and since when.
            changes.push(Change::RemoveChunk(chunk.id.0));
        } else {
            self.discard(chunk, at, garbage_reason::TRUNCATED, changes);
        }
    }

    /// Takes a chunk out of the catalog; its objects go after the grace time.
    fn discard(
        &self,
        chunk: &ChunkMeta,
        at: Timestamp,
        reason: &'static str,
        changes: &mut Vec<Change>,
    ) {
        changes.push(Change::RemoveChunk(chunk.id.0));
        for path in std::iter::once(&chunk.object_path).chain(&chunk.index_path) {
            self.add_garbage(path.clone(), self.due(at, reason), changes);
        }
    }

    fn due(&self, since: Timestamp, reason: &'static str) -> Garbage {
        let due = Timestamp(since.get().saturating_add_unsigned(self.chunk_grace_ms));
        Garbage { since, due, reason, counted_ns: None }
    }

    pub(crate) fn add_garbage(&self, path: String, garbage: Garbage, changes: &mut Vec<Change>) {
        changes.push(Change::AddGarbage(GarbageRow {
            object_path: path.clone(),
            reason: garbage.reason.into(),
            since_ms: garbage.since.get(),
            due_ms: garbage.due.get(),
        }));
        self.garbage.lock().insert(path, garbage);
    }
}

/// Whether a fact changes what a manifest says, apart from ends, which may
/// wait.
fn is_in_manifest(event: &Event) -> bool {
    !matches!(
        event,
        Event::UploadIntended { .. }
            | Event::AnswerKept { .. }
            | Event::CommitKept { .. }
            | Event::CommitFenced { .. }
            | Event::LeaseHeld { .. }
            | Event::LeaseReleased { .. }
            | Event::CeilingsSet { .. }
            | Event::OffsetsReserved { .. }
            | Event::OffsetsSkipped { .. }
            // Of transactional ids it says little that another may not wait for.
            | Event::Transaction(_)
    )
}

fn new_partitions(id: StreamId, first: u32, behind: u32, from: Offset) -> Vec<Arc<PartitionLog>> {
    (first..behind)
        .map(|index| Arc::new(PartitionLog::new(Partition::new(id, PartitionIndex(index)), from)))
        .collect()
}

fn stream_row(stream: &StreamIndex, epoch: Epoch) -> Change {
    Change::PutStream(StreamRow {
        stream_id: stream.id.0,
        tenant: stream.path.tenant.to_string(),
        name: stream.path.name.to_string(),
        partitions: stream.partitions().len() as i32,
        class: stream.class.name().into(),
        config_json: serde_json::to_string(&*stream.config()).unwrap_or_default(),
        created_ms: stream.created.get(),
        epoch: epoch.get().into(),
    })
}

fn partition_row(log: &PartitionLog) -> Change {
    let (start, tiered) = log.with(|state| (state.start, state.tiered));
    Change::PutPartition(PartitionRow {
        stream_id: log.partition.stream.0,
        partition: log.partition.index.get() as i32,
        start_offset: start.get(),
        tiered_offset: tiered.get(),
        epoch: 0,
    })
}

/// What a chunk's row has in its metadata.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct ChunkMetadata {
    epochs: Vec<(Epoch, Offset)>,
    #[serde(default, skip_serializing_if = "TimestampType::is_default")]
    timestamp_type: TimestampType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unfit: Option<u64>,
}

impl ChunkMetadata {
    fn of(chunk: &ChunkMeta) -> Self {
        Self {
            epochs: chunk.epochs.clone(),
            timestamp_type: chunk.timestamp_type,
            unfit: chunk.unfit,
        }
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The columns of a chunk; what has none is in its metadata.
pub(crate) fn chunk_row(chunk: &ChunkMeta) -> Change {
    Change::PutChunk(ChunkRow {
        chunk_id: chunk.id.0,
        stream_id: chunk.partition.stream.0,
        partition: chunk.partition.index.get() as i32,
        base_offset: chunk.base.get(),
        next_offset: chunk.next.get(),
        object_path: chunk.object_path.clone(),
        object_bytes: chunk.object_bytes,
        record_count: chunk.records,
        raw_bytes: chunk.raw_bytes,
        min_timestamp: chunk.min_timestamp.map(Timestamp::get),
        max_timestamp: chunk.max_timestamp.map(Timestamp::get),
        max_appended: chunk.max_appended.map_or(0, Timestamp::get),
        generation: chunk.generation,
        schema_version: chunk.schema_version,
        checksum: chunk.checksum.clone(),
        metadata_json: ChunkMetadata::of(chunk).to_json(),
        index_path: chunk.index_path.clone(),
        index_bytes: chunk.index_bytes,
        key_id: chunk.key_id.clone(),
    })
}

/// The chunk that a row of the catalog describes.
pub(crate) fn chunk_of_row(row: ChunkRow) -> ChunkMeta {
    let metadata: ChunkMetadata = serde_json::from_str(&row.metadata_json).unwrap_or_default();
    ChunkMeta {
        id: aquifer_types::ChunkId(row.chunk_id),
        partition: Partition::new(StreamId(row.stream_id), PartitionIndex(row.partition as u32)),
        base: Offset(row.base_offset),
        next: Offset(row.next_offset),
        object_path: row.object_path,
        object_bytes: row.object_bytes,
        checksum: row.checksum,
        records: row.record_count,
        raw_bytes: row.raw_bytes,
        min_timestamp: row.min_timestamp.map(Timestamp),
        max_timestamp: row.max_timestamp.map(Timestamp),
        max_appended: (row.record_count > 0).then_some(Timestamp(row.max_appended)),
        epochs: metadata.epochs,
        generation: row.generation,
        schema_version: row.schema_version,
        unfit: metadata.unfit,
        timestamp_type: metadata.timestamp_type,
        index_path: row.index_path,
        index_bytes: row.index_bytes,
        key_id: row.key_id,
    }
}
