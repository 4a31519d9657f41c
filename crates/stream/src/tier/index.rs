//! Search indexes beside chunks, built when nothing else is waiting.
//!
//! The newest chunk without one is read, its index built and put under a name that
//! was never used, and one commit lets the chunk have it. The upload is announced
//! like a chunk's, so a crash leaves an announced object that the next start gives
//! up, or a chunk with its index. A chunk counts without an index, and while one is
//! missing searches read the chunk instead.
//!
//! It works beside the rounds of tiering, on a thread of low priority for each
//! chunk, and stops while the journal is pressed.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aquifer_chunk::{EncodedIndex, Expected, IndexName, IndexOptions, ObjectName, build_index};
use aquifer_env::store::StoreErrorKind;
use aquifer_types::{ChunkId, ChunkIndex, Timestamp};
use futures::StreamExt;
use parking_lot::Mutex;

use super::compact::OWNER_CHECK_MS;
use super::upload::aside;
use super::{PAUSE_MAX, Tier, from_store};
use crate::Error;
use crate::chunk_meta::ChunkMeta;
use crate::ledger::Operation;
use crate::read::from_chunk;

/// The most chunks that are looked at between two looks for newer ones.
const ROUND_CHUNKS_MAX: usize = 16;

/// What indexing knows beside the ledger.
#[derive(Debug, Default)]
pub(super) struct Indexing {
    /// Indexes that are being put or committed.
    open: Mutex<HashSet<String>>,
    /// Chunks that cannot be read as they are.
    unreadable: Mutex<HashSet<ChunkId>>,
}

impl Indexing {
    /// Whether an index is being put or committed. Whoever does not find it here
    /// and asks for its chunk then, sees the index there if it was committed.
    pub(super) fn is_open(&self, path: &str) -> bool {
        self.open.lock().contains(path)
    }
}

/// An index that is being put; until it is dropped nobody takes it for an orphan.
struct Open<'a>(&'a Indexing, String);

impl<'a> Open<'a> {
    fn new(indexing: &'a Indexing, path: String) -> Self {
        indexing.open.lock().insert(path.clone());
        Self(indexing, path)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.lock().remove(&self.1);
    }
}

impl Tier {
    /// Builds what is missing, until it is dropped or tiering is fenced.
    pub(crate) async fn run_indexing(self: Arc<Self>) {
        let interval = Duration::from_millis(self.options.tier_interval_ms);
        let mut pause = interval;
        let mut seen = None;
        loop {
            // A wait comes first: an earlier run's uploads are given up meanwhile.
            tokio::time::sleep(pause).await;
            let changes = self.reader.index.changes();
            if seen == Some(changes) || !self.has_begun() || self.is_journal_pressed() {
                continue;
            }
            match self.index_due().await {
                Ok(is_done) => {
                    pause = interval;
                    seen = is_done.then_some(changes);
                }
                Err(Error::Fenced(_)) => return,
                Err(error) => {
                    tracing::debug!(%error, "indexes could not be built, it is tried again");
                    self.metrics.index_failures.inc();
                    pause = (pause * 2).min(PAUSE_MAX).max(interval);
                }
            }
        }
    }

    /// Builds some of what is missing; whether that was all.
    async fn index_due(self: &Arc<Self>) -> Result<bool, Error> {
        let due = self.find_unindexed();
        if due.is_empty() {
            return Ok(true);
        }
        let is_all = due.len() <= ROUND_CHUNKS_MAX;
        let mut indexes = futures::stream::iter(due.into_iter().take(ROUND_CHUNKS_MAX))
            .map(|chunk| {
                let tier = self.clone();
                async move { tier.index_within_budget(&chunk).await }
            })
            .buffer_unordered(self.options.index_concurrency);
        let mut result = Ok(is_all);
        while let Some(indexed) = indexes.next().await {
            // One chunk's failure does not keep the others back.
            if let Err(error) = indexed
                && !matches!(result, Err(Error::Fenced(_)))
            {
                result = Err(error);
            }
        }
        drop(indexes);
        self.find_unindexed();
        // What was passed over is looked for again.
        result.map(|is_all| is_all && !self.is_journal_pressed())
    }

    /// The chunks without an index that should have one, the newest first.
    fn find_unindexed(&self) -> Vec<Arc<ChunkMeta>> {
        let unreadable = self.indexing.unreadable.lock();
        let mut due = Vec::new();
        for stream in self.reader.index.all_streams() {
            if stream.config().index == ChunkIndex::None {
                continue;
            }
            for log in stream.partitions().iter() {
                let list = log.with(|state| state.chunks.clone());
                let is_due = |chunk: &&Arc<ChunkMeta>| {
                    chunk.index_path.is_none()
                        && chunk.raw_bytes >= self.options.index_chunk_bytes_min
                        && !unreadable.contains(&chunk.id)
                };
                due.extend(list.iter().filter(is_due).cloned());
            }
        }
        let bytes: u64 = due.iter().map(|chunk| chunk.raw_bytes).sum();
        self.metrics.unindexed_chunks.set(i64::try_from(due.len()).unwrap_or(i64::MAX));
        self.metrics.unindexed_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let newest = |chunk: &Arc<ChunkMeta>| chunk.max_timestamp.unwrap_or(Timestamp(i64::MIN));
        due.sort_by_key(|chunk| std::cmp::Reverse((newest(chunk), chunk.id)));
        due
    }

    /// Builds an index, and waits until that was not more than may be built in
    /// the time.
    async fn index_within_budget(&self, chunk: &ChunkMeta) -> Result<(), Error> {
        if self.is_journal_pressed() {
            return Ok(());
        }
        // A round may take long: a successor is noticed within it.
        self.owner.check_lately(OWNER_CHECK_MS).await?;
        let clock = &self.environment.clock;
        let started_ns = clock.monotonic_ns();
        if let Err(error) = self.index_chunk(chunk).await {
            match error {
                Error::Damaged { .. } | Error::Unsupported(_) => {
                    tracing::error!(%error, "a chunk cannot be indexed: searches will read it");
                    self.indexing.unreadable.lock().insert(chunk.id);
                }
                // It was truncated, merged or deleted meanwhile.
                Error::Overtaken(_) => return Ok(()),
                error => return Err(error),
            }
        }
        let a_second =
            self.options.index_bytes_per_second_max / self.options.index_concurrency as u64;
        let due_ns = u128::from(chunk.raw_bytes) * 1_000_000_000 / u128::from(a_second.max(1));
        let spent_ns = clock.monotonic_ns().saturating_sub(started_ns);
        let rest_ns = u64::try_from(due_ns).unwrap_or(u64::MAX).saturating_sub(spent_ns);
        tokio::time::sleep(Duration::from_nanos(rest_ns)).await;
        Ok(())
    }

    async fn index_chunk(&self, chunk: &ChunkMeta) -> Result<(), Error> {
        // The chunk's object stays while it is read.
        let _lease = self.reader.lease();
        let name: ObjectName = chunk.object_path.parse().map_err(from_chunk)?;
        let index = self.new_chunk_id();
        let index_path = IndexName { chunk: name, id: index.0 }.to_string();
        let EncodedIndex { bytes, raw_bytes, .. } = self.build_index(chunk).await?;
        let _open = Open::new(&self.indexing, index_path.clone());
        self.commit(Operation::IntendUpload {
            chunk: index,
            partition: chunk.partition,
            object_path: index_path.clone(),
        })
        .await?;
        let index_bytes = bytes.len() as u64;
        let result = async {
            self.put_once(&index_path, bytes).await?;
            self.commit(Operation::IndexChunk {
                partition: chunk.partition,
                base: chunk.base,
                chunk: chunk.id,
                index,
                index_path,
                index_bytes,
            })
            .await
        };
        if let Err(error) = result.await {
            self.give_up(index).await;
            return Err(error);
        }
        self.metrics.chunks_indexed.inc();
        self.metrics.index_bytes_written.inc_by(index_bytes);
        self.metrics.index_raw_bytes.inc_by(raw_bytes);
        Ok(())
    }

    /// Reads a chunk, past the cache of those who read, and builds its index. Like
    /// its encoding, that takes the memory of the whole object.
    async fn build_index(&self, chunk: &ChunkMeta) -> Result<EncodedIndex, Error> {
        let object = chunk.object_path.clone();
        let bytes = match self.store.get(&object).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind == StoreErrorKind::NotFound && self.is_live(chunk) => {
                let why = "the object is not there".to_owned();
                return Err(Error::Damaged { at: object, why });
            }
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                return Err(Error::Overtaken(format!("{object} is not live any more")));
            }
            Err(error) => return Err(from_store(error)),
        };
        let expected = Expected {
            stream_id: chunk.partition.stream,
            partition: chunk.partition.index,
            base: chunk.base,
            next: chunk.next,
        };
        let clock = self.environment.clock.clone();
        let (built, spent_ns) = aside(move || {
            let started_ns = clock.monotonic_ns();
            let built = build_index(object, &bytes, &expected, IndexOptions::default());
            (built, clock.monotonic_ns().saturating_sub(started_ns))
        })
        .await?;
        self.metrics.index_build_seconds.observe(spent_ns as f64 / 1e9);
        built.map_err(from_chunk)
    }

    fn is_live(&self, chunk: &ChunkMeta) -> bool {
        let log = self.reader.index.partition(chunk.partition);
        log.is_some_and(|log| log.with(|state| state.chunks.iter().any(|of| of.id == chunk.id)))
    }
}
