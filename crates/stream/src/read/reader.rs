//! What every read stands on: the index, the journal's files, tier 2, the
//! caches.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use aquifer_env::store::TierStore;
use aquifer_env::{Clock, tasks};
use aquifer_journal::{FileId, JournalReader, PinnedFile};
use aquifer_types::{Batch, Offset, Record, Timestamp};
use bytes::{Bytes, BytesMut};

use super::object::from_chunk;
use super::{ChunkCache, Cursor, Lease, Leases};
use crate::Error;
use crate::api::{Block, Isolation, Position};
use crate::index::{Index, PartitionLog, TailEntry};

/// Shared by all views and cursors.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) index: Arc<Index>,
    pub(crate) journal: JournalReader,
    pub(crate) store: TierStore,
    pub(crate) cache: Arc<ChunkCache>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) clock: Arc<dyn Clock>,
    /// About how many bytes of a chunk are decoded at once.
    pub(crate) window_bytes: usize,
}

impl Reader {
    /// On the monotonic clock.
    pub(crate) fn now_ns(&self) -> u64 {
        self.clock.monotonic_ns()
    }

    pub(crate) fn lease(&self) -> Lease {
        self.leases.take(self.now_ns())
    }

    /// Reads batches of the tail. `None`: a journal file went meanwhile, the
    /// caller looks again at what covers its position.
    pub(crate) async fn read_tail(
        &self,
        entries: &[TailEntry],
    ) -> Result<Option<Vec<Batch>>, Error> {
        let mut found: Vec<Option<Bytes>> = entries
            .iter()
            .map(|entry| self.index.tail_cache.get(entry.file, entry.position, entry.len as usize))
            .collect();
        let missing: Vec<(usize, TailEntry)> = entries
            .iter()
            .enumerate()
            .filter(|(at, _)| found.get(*at).is_some_and(Option::is_none))
            .map(|(at, entry)| (at, *entry))
            .collect();
        if !missing.is_empty() {
            let journal = self.journal.clone();
            let Some(read) = tasks::run_blocking(move || read_files(&journal, &missing)).await?
            else {
                return Ok(None);
            };
            for (at, bytes) in read {
                if let Some(slot) = found.get_mut(at) {
                    *slot = Some(bytes);
                }
            }
        }
        let mut batches = Vec::with_capacity(entries.len());
        for (entry, bytes) in entries.iter().zip(found) {
            batches.push(checked(entry, bytes.unwrap_or_default())?);
        }
        Ok(Some(batches))
    }

    /// The offset that a position means now.
    pub(crate) async fn resolve(
        self: &Arc<Self>,
        log: &Arc<PartitionLog>,
        at: Position,
        isolation: Isolation,
    ) -> Result<Offset, Error> {
        let (start, end) = log.with(|state| {
            let end = match isolation {
                Isolation::Committed => state.stable(),
                Isolation::Uncommitted => state.end,
            };
            (state.start, end)
        });
        match at {
            Position::Earliest => Ok(start),
            Position::Latest => Ok(end),
            Position::Offset(offset) => Ok(offset),
            Position::Time(timestamp) => {
                let found = self.find_time(log, timestamp, start, end).await?;
                Ok(found.map_or(end, |(offset, _)| offset))
            }
        }
    }

    /// The first record with `timestamp` or a later one before `end`, and its
    /// own time.
    pub(crate) async fn find_time(
        self: &Arc<Self>,
        log: &Arc<PartitionLog>,
        timestamp: Timestamp,
        start: Offset,
        end: Offset,
    ) -> Result<Option<(Offset, Timestamp)>, Error> {
        let lease = Arc::new(self.lease());
        let chunks = log.with(|state| state.chunks.clone());
        let mut from = start;
        for chunk in chunks.iter().filter(|chunk| chunk.next > start) {
            from = from.max(chunk.next);
            if chunk.max_timestamp.is_none_or(|max| max < timestamp) {
                continue;
            }
            let reader = self.cache.open(&self.store, chunk).await?;
            // A chunk that the start cuts through is searched row by row.
            if chunk.base < start {
                let mut cursor =
                    Cursor::new(self.clone(), lease.clone(), log.clone(), start, chunk.next);
                if let Some(found) = scan(&mut cursor, timestamp, start).await? {
                    return Ok(Some(found));
                }
            } else if let Some(found) = reader.find_time(timestamp).await.map_err(from_chunk)? {
                return Ok(Some(found).filter(|(offset, _)| *offset < end));
            }
        }
        let candidate = log.with(|state| {
            let tail = state.tail.range(state.tail_at(from)..);
            tail.into_iter().find(|entry| entry.max_timestamp >= timestamp).map(|e| e.base)
        });
        let Some(candidate) = candidate.filter(|base| *base < end) else { return Ok(None) };
        let from = candidate.max(start);
        let mut cursor = Cursor::new(self.clone(), lease, log.clone(), from, end);
        scan(&mut cursor, timestamp, from).await
    }

    /// A walk with a lease of its own.
    pub(crate) fn cursor(
        self: &Arc<Self>,
        log: &Arc<PartitionLog>,
        from: Offset,
        end: Offset,
    ) -> Cursor {
        Cursor::new(self.clone(), Arc::new(self.lease()), log.clone(), from, end)
    }
}

async fn scan(
    cursor: &mut Cursor,
    timestamp: Timestamp,
    from: Offset,
) -> Result<Option<(Offset, Timestamp)>, Error> {
    const WINDOW_BYTES: usize = 1 << 20;
    loop {
        let blocks = cursor.next(WINDOW_BYTES).await?;
        if blocks.is_empty() {
            return Ok(None);
        }
        for block in &blocks {
            let mut records = Vec::new();
            block.records_from(from, &mut records)?;
            if let Some(found) = records.iter().find(|record| record.timestamp >= timestamp) {
                return Ok(Some((found.offset, found.timestamp)));
            }
        }
    }
}

/// Reads batches from their files, neighbours in one go, into one piece of
/// memory: what waits for its client holds no more than its own bytes, and not
/// what lay between, and one thread's allocator is not left with a block for
/// each batch that another thread frees.
fn read_files(
    journal: &JournalReader,
    missing: &[(usize, TailEntry)],
) -> Result<Option<Vec<(usize, Bytes)>>, Error> {
    let wanted: usize = missing.iter().map(|(_, entry)| entry.len as usize).sum();
    let mut all = BytesMut::with_capacity(wanted);
    let mut pins: HashMap<FileId, PinnedFile> = HashMap::new();
    let mut rest = missing;
    while let Some((_, first)) = rest.first() {
        let (run, end) = neighbours(rest);
        let pin = match pins.entry(first.file) {
            std::collections::hash_map::Entry::Occupied(pin) => pin.into_mut(),
            std::collections::hash_map::Entry::Vacant(slot) => match journal.pin(first.file)? {
                Some(pin) => slot.insert(pin),
                None => return Ok(None),
            },
        };
        let bytes = pin.read(first.position, end - first.position)?;
        let (these, others) = rest.split_at(run);
        if run == missing.len() && bytes.len() == wanted {
            return Ok(Some(cut_up(bytes, missing)));
        }
        for (_, entry) in these {
            let from = (entry.position - first.position) as usize;
            all.extend_from_slice(&bytes[from..from + entry.len as usize]);
        }
        rest = others;
    }
    Ok(Some(cut_up(all.freeze(), missing)))
}

/// How many entries are read with the first one, and where the last of them
/// ends.
fn neighbours(entries: &[(usize, TailEntry)]) -> (usize, u64) {
    /// Neighbours with less between them are read together.
    const HOLE_BYTES_MAX: u64 = 16 << 10;
    let mut of_run: Option<(FileId, u64)> = None;
    let mut run = 0;
    for (_, entry) in entries {
        if let Some((file, end)) = of_run {
            let is_near = entry.position >= end && entry.position - end <= HOLE_BYTES_MAX;
            if entry.file != file || !is_near {
                break;
            }
        }
        of_run = Some((entry.file, entry.position + u64::from(entry.len)));
        run += 1;
    }
    (run, of_run.map_or(0, |(_, end)| end))
}

/// The batches, which lie in `all` one behind the other.
fn cut_up(mut all: Bytes, entries: &[(usize, TailEntry)]) -> Vec<(usize, Bytes)> {
    entries.iter().map(|(at, entry)| (*at, all.split_to(entry.len as usize))).collect()
}

/// The batch in `bytes`, if it is the one that the index means.
pub(super) fn checked(entry: &TailEntry, bytes: Bytes) -> Result<Batch, Error> {
    let damaged = |why: String| Error::Damaged {
        at: format!("journal file {} at {}", entry.file, entry.position),
        why,
    };
    let batch = Batch::read(bytes).map_err(|error| damaged(error.to_string()))?;
    if batch.header().base_offset != entry.base || batch.header().next_offset() != entry.next {
        return Err(damaged(format!(
            "the batch has offsets {} to {}, expected {} to {}",
            batch.header().base_offset,
            batch.header().next_offset(),
            entry.base,
            entry.next
        )));
    }
    Ok(batch)
}

impl Block {
    /// Adds the block's records from `from` on to `records`.
    ///
    /// # Errors
    /// [`Error::Damaged`] where a stored batch cannot be decoded.
    pub fn records_from(&self, from: Offset, records: &mut Vec<Record>) -> Result<(), Error> {
        self.visit_from(from, |record| {
            records.push(record);
            ControlFlow::<()>::Continue(())
        })?;
        Ok(())
    }

    /// Hands the block's records from `from` on to `each`, one by one, until it
    /// breaks off: a batch of a few KiB can hold millions of them. What it broke
    /// off with, if it did.
    ///
    /// # Errors
    /// [`Error::Damaged`] where a stored batch cannot be decoded.
    pub fn visit_from<B>(
        &self,
        from: Offset,
        mut each: impl FnMut(Record) -> ControlFlow<B>,
    ) -> Result<Option<B>, Error> {
        let mut visit = |record: Record| match record.offset >= from {
            true => each(record).break_value(),
            false => None,
        };
        match self {
            Self::Batch(batch) if batch.header().is_control => Ok(None),
            Self::Batch(batch) => {
                for record in batch.records(DECOMPRESSED_BYTES_MAX)? {
                    if let Some(broken_off) = visit(record?) {
                        return Ok(Some(broken_off));
                    }
                }
                Ok(None)
            }
            Self::Rows(rows) => Ok(rows.records().find_map(visit)),
        }
    }

    /// The first offset behind the block.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        match self {
            Self::Batch(batch) => batch.header().next_offset(),
            Self::Rows(rows) => rows.last_offset().map_or(Offset::ZERO, |last| last.plus(1)),
        }
    }

    /// About the bytes of its records.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.bytes().len(),
            Self::Rows(rows) => rows.raw_bytes() as usize,
        }
    }
}

/// What is stored was let in under `batch_decompressed_bytes_max`, whose bound
/// this is.
const DECOMPRESSED_BYTES_MAX: usize = 1 << 30;
