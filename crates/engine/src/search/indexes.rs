//! Indexes beside chunks, as all searches of the process read them.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use aquifer_chunk::{IndexHead, IndexReader, RangeRead};
use aquifer_env::{StoreErrorKind, TierStore};
use aquifer_stream::ChunkMeta;
use bytes::Bytes;
use futures::future::BoxFuture;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::Usage;

/// About how many heads are expected in the cache; a hint, not a limit.
const HEADS_EXPECTED: usize = 1024;

/// An index's name is never used again, so that what was read of it stays right.
type Heads = Cache<String, Arc<IndexHead>, HeadWeight>;

#[derive(Debug, Clone)]
struct HeadWeight;

impl Weighter<String, Arc<IndexHead>> for HeadWeight {
    fn weight(&self, path: &String, head: &Arc<IndexHead>) -> u64 {
        (path.len() + head.memory_bytes()).max(1) as u64
    }
}

/// Indexes in tier 2.
pub(crate) struct IndexAccess {
    store: TierStore,
    heads: Heads,
}

impl fmt::Debug for IndexAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexAccess").field("store", &self.store).finish_non_exhaustive()
    }
}

impl IndexAccess {
    /// Reads `store`, and keeps heads of at most `index_cache_bytes_max`.
    pub(crate) fn new(store: TierStore, index_cache_bytes_max: u64) -> Arc<Self> {
        let heads = Cache::with_weighter(HEADS_EXPECTED, index_cache_bytes_max.max(1), HeadWeight);
        Arc::new(Self { store, heads })
    }

    /// Opens a chunk's index; nothing where it has none, or where it cannot be
    /// read: the chunk is searched without it then.
    pub(super) async fn open(&self, chunk: &ChunkMeta, usage: &Arc<Usage>) -> Option<IndexReader> {
        let path = chunk.index_path.as_deref()?;
        let opened = self.try_open(chunk, path, usage).await;
        if let Err(error) = &opened {
            tracing::warn!(%error, path, "a search index cannot be used");
        }
        opened.ok()
    }

    async fn try_open(
        &self,
        chunk: &ChunkMeta,
        path: &str,
        usage: &Arc<Usage>,
    ) -> Result<IndexReader, aquifer_chunk::Error> {
        let object = |size| {
            let (store, path, usage) = (self.store.clone(), path.to_owned(), usage.clone());
            Arc::new(Object { store, path, size, usage })
        };
        if let Some(head) = self.heads.get(path) {
            return Ok(IndexReader::with_head(object(head.size()), head));
        }
        let size = match self.store.head(path).await {
            Ok(size) => size,
            Err(error) => {
                let source = from_store(error);
                return Err(aquifer_chunk::Error::Read { object: path.into(), source });
            }
        };
        let reader = IndexReader::open(object(size), path, chunk.id).await?;
        self.heads.insert(path.to_owned(), reader.head().clone());
        Ok(reader)
    }
}

/// The object of an index.
struct Object {
    store: TierStore,
    path: String,
    size: u64,
    usage: Arc<Usage>,
}

impl RangeRead for Object {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Bytes>> {
        Box::pin(async move {
            let bytes = range.end.saturating_sub(range.start);
            let read = self.store.get_range(&self.path, range).await.map_err(from_store)?;
            self.usage.add_bytes(bytes);
            Ok(read)
        })
    }

    fn size(&self) -> u64 {
        self.size
    }
}

fn from_store(error: aquifer_env::StoreError) -> io::Error {
    let kind = match error.kind {
        StoreErrorKind::NotFound => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
