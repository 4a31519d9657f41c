//! One partition as readers see it: its offsets, its tail and its chunks.

use std::collections::VecDeque;
use std::sync::Arc;

use aquifer_journal::FileId;
use aquifer_types::{
    BatchHeader, ChunkId, Epoch, Offset, Partition, ProducerId, Timestamp, TimestampType,
};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::watchers::Watchers;
use crate::chunk_meta::ChunkMeta;
use crate::ledger::transactions::{PartitionTransactions, writer_of};

/// Where a batch of the tail lies in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TailEntry {
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    pub(crate) max_timestamp: Timestamp,
    pub(crate) appended: Timestamp,
    pub(crate) file: FileId,
    pub(crate) position: u64,
    pub(crate) len: u32,
    pub(crate) epoch: Epoch,
    pub(crate) kind: TailKind,
    pub(crate) timestamp_type: TimestampType,
}

/// What is in a batch of the tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TailKind {
    Plain,
    /// Records of this producer's transaction.
    Transactional(ProducerId),
    /// Markers.
    Control,
}

impl TailEntry {
    pub(crate) fn new(
        batch: &BatchHeader,
        appended: Timestamp,
        file: FileId,
        position: u64,
    ) -> Self {
        Self {
            base: batch.base_offset,
            next: batch.next_offset(),
            max_timestamp: batch.max_timestamp,
            appended,
            file,
            position,
            len: batch.total_bytes() as u32,
            epoch: batch.epoch,
            kind: match writer_of(batch) {
                _ if batch.is_control => TailKind::Control,
                Some(producer) => TailKind::Transactional(producer),
                None => TailKind::Plain,
            },
            timestamp_type: match batch.is_append_time {
                true => TimestampType::Append,
                false => TimestampType::Create,
            },
        }
    }

    /// The first entries that hold at most `bytes_max` together, but one at
    /// least, and the rest.
    pub(crate) fn split(entries: &[Self], bytes_max: usize) -> (&[Self], &[Self]) {
        let mut bytes = 0;
        let fits = |entry: &&Self| {
            let is_first = bytes == 0;
            bytes += entry.len as usize;
            is_first || bytes <= bytes_max
        };
        entries.split_at(entries.iter().take_while(fits).count())
    }
}

/// Live chunks in order of their offsets, side by side. Never changed, only
/// replaced.
pub(crate) type ChunkList = Arc<Vec<Arc<ChunkMeta>>>;

/// The chunk of `list` that covers `offset`, or the first one behind it.
pub(crate) fn chunk_at(list: &ChunkList, offset: Offset) -> Option<&Arc<ChunkMeta>> {
    let at = list.partition_point(|chunk| chunk.next <= offset);
    list.get(at)
}

#[derive(Debug, Default)]
pub(crate) struct PartitionState {
    pub(crate) start: Offset,
    pub(crate) tiered: Offset,
    pub(crate) end: Offset,
    /// Batches at or above the tiered offset, in order.
    pub(crate) tail: VecDeque<TailEntry>,
    pub(crate) tail_bytes: u64,
    pub(crate) chunks: ChunkList,
    pub(crate) chunk_bytes: u64,
    pub(crate) is_deleted: bool,
    pub(crate) transactions: PartitionTransactions,
}

/// A partition that is read, appended to and watched.
#[derive(Debug)]
pub(crate) struct PartitionLog {
    pub(crate) partition: Partition,
    state: Mutex<PartitionState>,
    /// The stable offset; told again whenever the end moves.
    moved: watch::Sender<Offset>,
    watchers: Watchers,
}

impl PartitionLog {
    /// An empty one that begins at `from`.
    pub(crate) fn new(partition: Partition, from: Offset) -> Self {
        let (start, tiered, end) = (from, from, from);
        let state = PartitionState { start, tiered, end, ..PartitionState::default() };
        Self {
            partition,
            state: Mutex::new(state),
            moved: watch::Sender::new(from),
            watchers: Watchers::default(),
        }
    }

    /// Looks at the state; `look` must be short, the writer may wait for it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&PartitionState) -> T) -> T {
        look(&self.state.lock())
    }

    /// Follows the stable offset of the partition; also told when the end moves
    /// without it, and when its stream is deleted.
    pub(crate) fn watch(&self) -> watch::Receiver<Offset> {
        self.moved.subscribe()
    }

    pub(super) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    pub(crate) fn append(&self, entry: TailEntry) {
        let mut state = self.state.lock();
        debug_assert!(entry.base >= state.end, "appends come in order");
        state.end = entry.next;
        state.tail_bytes += u64::from(entry.len);
        state.tail.push_back(entry);
        // In one step with the end: nobody sees it as stable in between.
        if let TailKind::Transactional(producer) = entry.kind {
            state.transactions.begin(producer, entry.base);
        }
        let stable = state.stable();
        drop(state);
        self.moved.send_replace(stable);
        self.watchers.wake();
    }

    /// The batch of `entry` lies where it says from here on. Returns in which
    /// file it lay; none where it is not in the tail.
    pub(crate) fn relocate(&self, entry: &TailEntry) -> Option<FileId> {
        let mut state = self.state.lock();
        let at = state.tail_at(entry.base);
        let known = state.tail.get_mut(at).filter(|known| known.base == entry.base)?;
        known.position = entry.position;
        Some(std::mem::replace(&mut known.file, entry.file))
    }

    /// A producer's transaction ended with the marker at `marker`.
    pub(crate) fn end_transaction(&self, producer: ProducerId, marker: Offset, is_commit: bool) {
        let mut state = self.state.lock();
        let _ = state.transactions.end(producer, marker, is_commit);
        let stable = state.stable();
        drop(state);
        self.moved.send_replace(stable);
        self.watchers.wake();
    }

    /// Wakes everybody who waits for records.
    pub(crate) fn wake(&self) {
        self.moved.send_modify(|_| ());
        self.watchers.wake();
    }

    /// Moves the end on without a record, as after an unclean start.
    pub(crate) fn skip_to(&self, end: Offset) {
        let mut state = self.state.lock();
        state.end = state.end.max(end);
        let stable = state.stable();
        drop(state);
        self.moved.send_replace(stable);
        self.watchers.wake();
    }

    /// Adds a chunk at its place and drops the tail below it; returns the files
    /// of the batches dropped. Applying it again changes nothing.
    pub(crate) fn add_chunk(&self, chunk: &ChunkMeta) -> Vec<FileId> {
        let mut state = self.state.lock();
        if chunk.next > state.start && !state.chunks.iter().any(|c| c.id == chunk.id) {
            let mut chunks = Vec::with_capacity(state.chunks.len() + 1);
            chunks.extend(state.chunks.iter().cloned());
            let at = chunks.partition_point(|other| other.base < chunk.base);
            chunks.insert(at, Arc::new(chunk.clone()));
            state.set_chunks(chunks);
        }
        state.tiered = state.tiered.max(chunk.next);
        state.end = state.end.max(chunk.next);
        state.drop_tail()
    }

    /// Puts `added` in the place of `removed`, which are returned.
    pub(crate) fn replace_chunks(
        &self,
        removed: &[ChunkId],
        added: &ChunkMeta,
    ) -> Vec<Arc<ChunkMeta>> {
        let mut state = self.state.lock();
        let (gone, mut chunks): (Vec<_>, Vec<_>) = state
            .chunks
            .iter()
            .cloned()
            .partition(|chunk| removed.contains(&chunk.id) && chunk.id != added.id);
        if added.next > state.start && !chunks.iter().any(|chunk| chunk.id == added.id) {
            let at = chunks.partition_point(|other| other.base < added.base);
            chunks.insert(at, Arc::new(added.clone()));
        }
        state.set_chunks(chunks);
        gone
    }

    /// Lets a chunk have an index. Returns the chunk as it is then, and the index
    /// that it had before, if that is another; `None` where the chunk is not
    /// there.
    pub(crate) fn set_index(
        &self,
        id: ChunkId,
        index_path: &str,
        index_bytes: u64,
    ) -> Option<(Arc<ChunkMeta>, Option<String>)> {
        let mut state = self.state.lock();
        let at = state.chunks.iter().position(|chunk| chunk.id == id)?;
        let mut chunks = state.chunks.to_vec();
        let chunk = chunks.get_mut(at)?;
        let old = chunk.index_path.clone().filter(|old| old != index_path);
        *chunk = Arc::new(ChunkMeta {
            index_path: Some(index_path.to_owned()),
            index_bytes: Some(index_bytes),
            ..(**chunk).clone()
        });
        let indexed = chunk.clone();
        state.set_chunks(chunks);
        Some((indexed, old))
    }

    /// Moves the start; returns the chunks that fell away and the files of the
    /// batches dropped.
    pub(crate) fn truncate(&self, start: Offset) -> (Vec<Arc<ChunkMeta>>, Vec<FileId>) {
        let mut state = self.state.lock();
        state.start = state.start.max(start);
        state.tiered = state.tiered.max(state.start);
        state.end = state.end.max(state.start);
        // In a replay the start may be further on already; what that leaves
        // behind is the matter of a later truncation, which says when it was.
        let (gone, kept): (Vec<_>, Vec<_>) =
            state.chunks.iter().cloned().partition(|chunk| chunk.next <= start);
        if !gone.is_empty() {
            state.set_chunks(kept);
        }
        (gone, state.drop_tail())
    }

    /// Empties the partition of a deleted stream.
    pub(crate) fn delete(&self) -> (Vec<Arc<ChunkMeta>>, Vec<FileId>) {
        let mut state = self.state.lock();
        state.is_deleted = true;
        state.start = state.end;
        state.tiered = state.end;
        let gone = state.chunks.to_vec();
        state.set_chunks(Vec::new());
        let files = state.drop_tail();
        drop(state);
        self.wake();
        (gone, files)
    }

    /// Sets what the catalog and the snapshot know, at a start.
    pub(crate) fn restore(&self, restore: impl FnOnce(&mut PartitionState)) {
        let mut state = self.state.lock();
        restore(&mut state);
        let stable = state.stable();
        drop(state);
        self.moved.send_replace(stable);
        self.watchers.wake();
    }
}

impl PartitionState {
    /// The first offset that an open transaction hides; the end while there are
    /// none.
    pub(crate) fn stable(&self) -> Offset {
        self.transactions.stable(self.start, self.end)
    }

    /// Whether a batch of the tail holds no records that count.
    pub(crate) fn is_hidden(&self, entry: &TailEntry) -> bool {
        match entry.kind {
            TailKind::Plain => false,
            TailKind::Transactional(producer) => self.transactions.is_aborted(producer, entry.base),
            TailKind::Control => true,
        }
    }

    /// The first offset of a record that is in the journal only; the end where
    /// there is none. A gap in front of it is in no chunk, and needs none.
    pub(crate) fn first_untiered(&self) -> Offset {
        self.tail.front().map_or(self.end, |first| first.base.max(self.tiered))
    }

    pub(crate) fn set_chunks(&mut self, chunks: Vec<Arc<ChunkMeta>>) {
        self.chunk_bytes = chunks.iter().map(|chunk| chunk.object_bytes).sum();
        self.chunks = Arc::new(chunks);
    }

    /// Drops the batches, and the aborted transactions, that a chunk or the
    /// start has passed.
    pub(crate) fn drop_tail(&mut self) -> Vec<FileId> {
        let _ = self.transactions.pass(self.tiered);
        let mut files = Vec::new();
        while let Some(first) = self.tail.front() {
            if first.next > self.tiered {
                break;
            }
            self.tail_bytes -= u64::from(first.len);
            files.push(first.file);
            self.tail.pop_front();
        }
        files
    }

    /// Adds a batch that was found in the journal, at its place in the tail:
    /// what was relocated comes late, and may come again. Returns whether it is
    /// kept, and in which file it was found before.
    pub(crate) fn find(&mut self, entry: TailEntry) -> (bool, Option<FileId>) {
        self.end = self.end.max(entry.next);
        if entry.next <= self.tiered {
            return (false, None);
        }
        let at = match self.tail.back() {
            Some(last) if last.base >= entry.base => self.tail_at(entry.base),
            _ => self.tail.len(),
        };
        if let Some(known) = self.tail.get_mut(at).filter(|known| known.base == entry.base) {
            return (true, Some(std::mem::replace(known, entry).file));
        }
        self.tail_bytes += u64::from(entry.len);
        self.tail.insert(at, entry);
        (true, None)
    }

    /// The position in the tail of the batch that holds `offset`, or of the
    /// first one behind it.
    pub(crate) fn tail_at(&self, offset: Offset) -> usize {
        self.tail.partition_point(|entry| entry.next <= offset)
    }
}
