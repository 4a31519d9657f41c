//! A walk through one partition.

use std::fmt;
use std::sync::Arc;

use aquifer_chunk::{ReadOptions, Rows};
use aquifer_types::{Offset, Timestamp};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::object::from_chunk;
use super::{Lease, Reader};
use crate::Error;
use crate::api::{Block, Form};
use crate::chunk_meta::ChunkMeta;
use crate::index::{PartitionLog, TailEntry, chunk_at};

/// How often a plan may be overtaken by tiering before that is a bug.
const PLANS_MAX: usize = 1_000;

/// Walks a partition from an offset to the end of a cut. Holds at most a few
/// windows of a chunk in memory.
pub struct Cursor {
    reader: Arc<Reader>,
    lease: Arc<Lease>,
    log: Arc<PartitionLog>,
    at: Offset,
    end: Offset,
    form: Form,
    /// Whether a batch of the journal was given.
    has_given_tail: bool,
    /// When each batch that was given last was appended.
    appended: Vec<Timestamp>,
    /// Whether a chunk was opened that compaction had written.
    has_opened_compacted: bool,
    chunk: Option<OpenChunk>,
}

struct OpenChunk {
    meta: Arc<ChunkMeta>,
    rows: BoxStream<'static, Result<Rows, aquifer_chunk::Error>>,
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("partition", &self.log.partition)
            .field("at", &self.at)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// What covers a position.
enum Plan {
    Chunk(Arc<ChunkMeta>),
    Tail(Vec<TailEntry>),
    /// Nothing up to here.
    Gap(Offset),
    /// Nothing more can be given in one go.
    Stop,
}

impl Cursor {
    pub(crate) fn new(
        reader: Arc<Reader>,
        lease: Arc<Lease>,
        log: Arc<PartitionLog>,
        from: Offset,
        end: Offset,
    ) -> Self {
        let form = Form::Records;
        Self {
            reader,
            lease,
            log,
            at: from,
            end,
            form,
            has_given_tail: false,
            appended: Vec::new(),
            has_opened_compacted: false,
            chunk: None,
        }
    }

    /// Gives batches of the journal in this form. For [`Form::Raw`] the walk ends
    /// where tiering overtakes it: rows of chunks lack the markers that batches
    /// of the journal before them may need.
    pub(crate) fn with_form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// Where the walk stands: everything before it was given or is a gap.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.at
    }

    /// When each of the batches was appended that were given last, in their
    /// order; rows have it as a column.
    #[must_use]
    pub fn appended(&self) -> &[Timestamp] {
        &self.appended
    }

    /// Whether rows came out of a chunk that compaction had written. Of a stream
    /// that is compacted by key it may lack records that the cut has.
    #[must_use]
    pub const fn has_opened_compacted(&self) -> bool {
        self.has_opened_compacted
    }

    /// The next blocks, about `bytes_max` bytes of them and at least one; none
    /// at the end of the cut. The first block may begin before the position.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] where the partition's start has passed the
    /// position, [`Error::Damaged`], [`Error::Tier2`]. The cursor can be asked
    /// again.
    pub async fn next(&mut self, bytes_max: usize) -> Result<Vec<Block>, Error> {
        let (mut plans, mut planned_at) = (0, self.at);
        self.appended.clear();
        while plans < PLANS_MAX {
            if self.at > planned_at {
                (plans, planned_at) = (0, self.at);
            }
            plans += 1;
            if self.chunk.is_some() {
                if let Some(rows) = self.next_rows().await? {
                    return Ok(vec![Block::Rows(rows)]);
                }
                continue;
            }
            if self.at >= self.end {
                return Ok(Vec::new());
            }
            match self.plan(bytes_max)? {
                Plan::Gap(to) => self.at = to.min(self.end).max(self.at),
                Plan::Stop => return Ok(Vec::new()),
                Plan::Chunk(meta) => self.open(meta, bytes_max).await?,
                Plan::Tail(entries) => {
                    let Some(batches) = self.reader.read_tail(&entries).await? else {
                        // The journal file is gone: a chunk covers it by now.
                        continue;
                    };
                    if let Some(last) = batches.last() {
                        self.at = last.header().next_offset();
                        self.has_given_tail = true;
                    }
                    self.appended.extend(entries.iter().map(|entry| entry.appended));
                    return Ok(batches.into_iter().map(Block::Batch).collect());
                }
            }
        }
        Err(Error::Internal(format!(
            "INV-02: nothing covers offset {} of {}",
            self.at, self.log.partition
        )))
    }

    fn plan(&self, bytes_max: usize) -> Result<Plan, Error> {
        self.log.with(|state| {
            if state.is_deleted {
                return Err(Error::StreamDeleted(self.log.partition.stream));
            }
            if self.at < state.start {
                let partition = self.log.partition;
                return Err(Error::out_of_range(partition, self.at, state.start, state.end));
            }
            if self.at < state.tiered && self.form == Form::Raw && self.has_given_tail {
                return Ok(Plan::Stop);
            }
            if self.at < state.tiered {
                return Ok(match chunk_at(&state.chunks, self.at) {
                    Some(chunk) if chunk.base <= self.at => Plan::Chunk(chunk.clone()),
                    Some(chunk) => Plan::Gap(chunk.base),
                    None => Plan::Gap(state.tiered),
                });
            }
            let mut bytes = 0;
            let mut entries = Vec::new();
            for entry in state.tail.range(state.tail_at(self.at)..) {
                // Cuts lie at the boundaries of batches.
                if entry.base >= self.end || (bytes > 0 && bytes + entry.len as usize > bytes_max) {
                    break;
                }
                if self.form == Form::Records && state.is_hidden(entry) {
                    continue;
                }
                bytes += entry.len as usize;
                entries.push(*entry);
            }
            Ok(if entries.is_empty() { Plan::Gap(self.end) } else { Plan::Tail(entries) })
        })
    }

    async fn open(&mut self, meta: Arc<ChunkMeta>, bytes_max: usize) -> Result<(), Error> {
        let reader = match self.reader.cache.open(&self.reader.store, &meta).await {
            Ok(reader) => reader,
            // Replaced and deleted since it was planned: planned anew.
            Err(_) if !self.is_live(&meta) => return Ok(()),
            Err(error) => return Err(error),
        };
        let options = ReadOptions {
            window_bytes: bytes_max.clamp(64 << 10, self.reader.window_bytes),
            ..ReadOptions::default()
        };
        let rows = reader.read(self.at, options);
        self.has_opened_compacted |= meta.generation > 0;
        self.chunk = Some(OpenChunk { meta, rows });
        Ok(())
    }

    async fn next_rows(&mut self) -> Result<Option<Rows>, Error> {
        let Some(chunk) = &mut self.chunk else { return Ok(None) };
        match chunk.rows.next().await {
            Some(Ok(rows)) => {
                let rows = rows.before(self.end);
                match rows.last_offset() {
                    Some(last) => {
                        self.at = last.plus(1);
                        Ok(Some(rows))
                    }
                    None => {
                        self.at = self.end;
                        self.chunk = None;
                        Ok(None)
                    }
                }
            }
            Some(Err(error)) => {
                let meta = chunk.meta.clone();
                let is_replaced = !self.is_live(&meta);
                self.chunk = None;
                // A chunk that was replaced after the lease expired is planned
                // anew; any other failure is the caller's to know.
                if is_replaced { Ok(None) } else { Err(from_chunk(error)) }
            }
            None => {
                self.at = self.at.max(chunk.meta.next.min(self.end));
                self.chunk = None;
                Ok(None)
            }
        }
    }

    fn is_live(&self, meta: &ChunkMeta) -> bool {
        let _ = &self.lease;
        self.log.with(|state| state.chunks.iter().any(|chunk| chunk.id == meta.id))
    }
}
