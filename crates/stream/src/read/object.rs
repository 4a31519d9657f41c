//! Chunks' bytes: blocks of objects, fetched by ranges and kept in one cache
//! with one budget for the whole process.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use aquifer_chunk::{ChunkReader, Expected, Footer, RangeRead};
use aquifer_env::store::{StoreErrorKind, TierStore};
use aquifer_types::ChunkId;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::Error;
use crate::chunk_meta::ChunkMeta;

/// What is fetched and cached at once.
const BLOCK_BYTES: u64 = 1 << 20;
/// How far a reader that goes straight on is fetched ahead.
const AHEAD_BYTES: u64 = 4 << 20;
/// One part in this many of the budget is for footers.
const FOOTERS_PART: usize = 8;

#[derive(Debug, Clone)]
struct BlockWeight;

impl Weighter<(ChunkId, u64), Bytes> for BlockWeight {
    fn weight(&self, _: &(ChunkId, u64), block: &Bytes) -> u64 {
        block.len().max(1) as u64
    }
}

#[derive(Debug, Clone)]
struct FooterWeight;

impl Weighter<ChunkId, Arc<Footer>> for FooterWeight {
    fn weight(&self, _: &ChunkId, footer: &Arc<Footer>) -> u64 {
        footer.memory_bytes().max(1) as u64
    }
}

/// Blocks and footers of chunks.
#[derive(Debug)]
pub(crate) struct ChunkCache {
    blocks: Cache<(ChunkId, u64), Bytes, BlockWeight>,
    footers: Cache<ChunkId, Arc<Footer>, FooterWeight>,
}

impl ChunkCache {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        let footers = (bytes_max / FOOTERS_PART).max(1);
        let blocks = (bytes_max - bytes_max / FOOTERS_PART).max(1);
        let block_count = (blocks / BLOCK_BYTES as usize).max(16);
        Arc::new(Self {
            blocks: Cache::with_weighter(block_count, blocks as u64, BlockWeight),
            footers: Cache::with_weighter(1024, footers as u64, FooterWeight),
        })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.weight() + self.footers.weight()
    }

    /// Opens a chunk, through its cached footer where there is one.
    pub(crate) async fn open(
        self: &Arc<Self>,
        store: &TierStore,
        chunk: &ChunkMeta,
    ) -> Result<ChunkReader, Error> {
        let source = Arc::new(ObjectSource {
            store: store.clone(),
            cache: self.clone(),
            id: chunk.id,
            path: chunk.object_path.clone(),
            size: chunk.object_bytes,
            recent_ends: Mutex::default(),
        });
        if let Some(footer) = self.footers.get(&chunk.id) {
            return Ok(ChunkReader::with_footer(source, footer));
        }
        let expected = Expected {
            stream_id: chunk.partition.stream,
            partition: chunk.partition.index,
            base: chunk.base,
            next: chunk.next,
        };
        let reader = ChunkReader::open(source, chunk.object_path.as_str(), Some(&expected))
            .await
            .map_err(from_chunk)?;
        self.footers.insert(chunk.id, reader.footer().clone());
        Ok(reader)
    }
}

struct ObjectSource {
    store: TierStore,
    cache: Arc<ChunkCache>,
    id: ChunkId,
    path: String,
    size: u64,
    /// Where the last reads ended: a read that begins there is sequential.
    recent_ends: Mutex<VecDeque<u64>>,
}

impl RangeRead for ObjectSource {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(self.read_blocks(range))
    }

    fn size(&self) -> u64 {
        self.size
    }
}

impl ObjectSource {
    async fn read_blocks(&self, range: Range<u64>) -> io::Result<Bytes> {
        if range.start > range.end || range.end > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let first = range.start / BLOCK_BYTES;
        let last = (range.end - 1) / BLOCK_BYTES;
        let ahead = if self.is_sequential(&range) { AHEAD_BYTES / BLOCK_BYTES } else { 0 };
        let mut blocks = Vec::with_capacity((last - first + 1) as usize);
        for block in first..=last {
            let bytes = match self.cache.blocks.get(&(self.id, block)) {
                Some(bytes) => bytes,
                None => {
                    let end = last.max(block + ahead).min((self.size - 1) / BLOCK_BYTES);
                    self.fetch(block, end).await?
                }
            };
            blocks.push(bytes);
        }
        let from = (range.start - first * BLOCK_BYTES) as usize;
        let len = (range.end - range.start) as usize;
        if let [only] = blocks.as_slice() {
            return part(only, from, from + len);
        }
        let mut joined = BytesMut::with_capacity(len);
        for (at, block) in blocks.iter().enumerate() {
            let start = if at == 0 { from } else { 0 };
            let end = (len - joined.len() + start).min(block.len());
            joined.extend_from_slice(&part(block, start, end)?);
        }
        Ok(joined.freeze())
    }

    /// Fetches the blocks from `first` on that are missing, through `last` at
    /// most, in one request; returns the first.
    async fn fetch(&self, first: u64, last: u64) -> io::Result<Bytes> {
        let mut end = first;
        while end < last && self.cache.blocks.peek(&(self.id, end + 1)).is_none() {
            end += 1;
        }
        let range = first * BLOCK_BYTES..((end + 1) * BLOCK_BYTES).min(self.size);
        let bytes = self.store.get_range(&self.path, range).await.map_err(|error| {
            let kind = match error.kind {
                StoreErrorKind::NotFound => io::ErrorKind::NotFound,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, error)
        })?;
        let mut asked = None;
        let mut rest = bytes;
        for block in first..=end {
            let own = rest.split_to(rest.len().min(BLOCK_BYTES as usize));
            // A copy of its own, or one cached block keeps the whole answer.
            let own = if first == end { own } else { Bytes::copy_from_slice(&own) };
            asked.get_or_insert_with(|| own.clone());
            self.cache.blocks.insert((self.id, block), own);
        }
        asked.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn is_sequential(&self, range: &Range<u64>) -> bool {
        const KEPT: usize = 8;
        let mut ends = self.recent_ends.lock();
        let found = ends.iter().position(|end| *end == range.start);
        if let Some(at) = found {
            ends.remove(at);
        } else if ends.len() == KEPT {
            ends.pop_front();
        }
        ends.push_back(range.end);
        found.is_some()
    }
}

fn part(block: &Bytes, start: usize, end: usize) -> io::Result<Bytes> {
    if start > end || end > block.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(block.slice(start..end))
}

/// The chunk crate's errors as the store says them.
pub(crate) fn from_chunk(error: aquifer_chunk::Error) -> Error {
    match error.kind() {
        aquifer_types::ErrorKind::Damaged => {
            Error::Damaged { at: "a chunk".into(), why: error.to_string() }
        }
        aquifer_types::ErrorKind::Unsupported => Error::Unsupported(error.to_string()),
        _ => Error::Tier2(error.to_string()),
    }
}
