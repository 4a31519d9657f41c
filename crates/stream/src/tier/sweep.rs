//! Objects of tier 2 that nothing knows.
//!
//! A server that stood still may put an object long after it was given up and
//! deleted. So one stream's folder after the other is listed, and an object of a
//! chunk or an index that is neither announced, live nor garbage becomes garbage;
//! then it goes as all garbage goes, listed in a manifest and after the grace
//! time.
//!
//! What cannot be proved to be this store's is never touched: objects that are
//! not named as those are, of streams that this ledger neither has nor had, of
//! offsets that are not tiered yet, and of streams that were recovered from
//! tier 2, which left some alone for a person to look at. The ledger decides
//! each, so that no upload is overtaken. A crash leaves orphans for the next run.

use std::collections::HashMap;

use aquifer_chunk::{IndexName, ObjectName};
use aquifer_types::{ChunkId, Offset, Partition, StreamId, StreamPath};
use futures::TryStreamExt;

use super::{Tier, from_store};
use crate::Error;
use crate::ledger::Operation;

/// Objects that are judged at once, under the ledger's lock.
const JUDGED_MAX: usize = 1_000;
/// Orphans that are remembered until they are old enough.
const ORPHANS_MAX: usize = 10_000;

/// How far the sweep has come.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// The next folder is not looked at before, on the monotonic clock.
    not_before_ns: u64,
    last: Option<StreamId>,
    /// When each orphan was seen first, on the monotonic clock.
    seen: HashMap<String, u64>,
}

/// An object that is named as a chunk or an index.
struct Named {
    object_path: String,
    partition: Partition,
    base: Offset,
    /// The chunk's id, or the index's own.
    id: ChunkId,
    is_index: bool,
}

impl Named {
    fn parse(object_path: String) -> Option<Self> {
        let chunk = object_path.parse::<ObjectName>().ok().map(|name| (name.chunk_id, name));
        let is_index = chunk.is_none();
        let index = || object_path.parse::<IndexName>().ok();
        let (id, name) = chunk.or_else(|| index().map(|name| (ChunkId(name.id), name.chunk)))?;
        let partition = Partition::new(name.stream_id, name.partition);
        Some(Self { object_path, partition, base: name.base, id, is_index })
    }
}

impl Tier {
    /// Looks at one stream's folder where that is due.
    pub(super) async fn sweep_orphans(&self) -> Result<(), Error> {
        let mut sweep = self.sweep.lock().await;
        let now_ns = self.environment.clock.monotonic_ns();
        if now_ns < sweep.not_before_ns {
            return Ok(());
        }
        let pause_ns = self.options.orphan_interval_ms.saturating_mul(1_000_000);
        sweep.not_before_ns = now_ns.saturating_add(pause_ns);
        let Some((id, path)) = self.next_stream(sweep.last) else {
            sweep.last = None;
            return Ok(());
        };
        let orphans = self.find_orphans(id, &path).await?;
        sweep.last = Some(id);
        let folder = format!("{}/", folder(id, &path));
        let age_ns = self.options.orphan_age_ms.saturating_mul(1_000_000);
        let mut seen = HashMap::new();
        let mut due = Vec::new();
        for orphan in orphans {
            let since_ns = sweep.seen.get(&orphan.object_path).copied().unwrap_or(now_ns);
            if now_ns.saturating_sub(since_ns) >= age_ns {
                due.push(orphan);
            } else {
                seen.insert(orphan.object_path, since_ns);
            }
        }
        // What is no orphan any more is forgotten.
        sweep.seen.retain(|path, _| !path.starts_with(&folder));
        let room = ORPHANS_MAX.saturating_sub(sweep.seen.len());
        sweep.seen.extend(seen.into_iter().take(room));
        self.discard_orphans(due).await
    }

    async fn discard_orphans(&self, due: Vec<Named>) -> Result<(), Error> {
        if due.is_empty() {
            return Ok(());
        }
        self.owner.check().await?;
        for Named { object_path, partition, base, id, .. } in due {
            tracing::info!(object_path, "nothing knows this object: it is garbage");
            let operation = Operation::DiscardOrphan { partition, base, chunk: id, object_path };
            match self.commit(operation).await {
                Ok(_) => self.metrics.orphans_found.inc(),
                // It is known by now.
                Err(Error::Overtaken(_)) => 0,
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    /// The stream whose folder follows, live or deleted, in the order of ids.
    fn next_stream(&self, last: Option<StreamId>) -> Option<(StreamId, StreamPath)> {
        let index = &self.reader.index;
        let is_next = |id: &StreamId| last.is_none_or(|last| *id > last);
        let deleted = index
            .tombstones
            .lock()
            .range(..)
            .map(|(id, t)| (*id, t.path.clone()))
            .find(|(id, _)| is_next(id));
        let live = self.ledger.with_hot(|hot| {
            let judged = hot
                .streams
                .iter()
                .filter(|(id, stream)| is_next(id) && stream.partitions_from == Offset::ZERO);
            judged.min_by_key(|(id, _)| **id).map(|(id, stream)| (*id, stream.path.clone()))
        });
        live.into_iter().chain(deleted).min_by_key(|(id, _)| *id)
    }

    async fn find_orphans(&self, id: StreamId, path: &StreamPath) -> Result<Vec<Named>, Error> {
        let mut entries = self.store.list_stream(&folder(id, path)).try_ready_chunks(JUDGED_MAX);
        let mut orphans = Vec::new();
        while let Some(some) = entries.try_next().await.map_err(|error| from_store(error.1))? {
            let names = some.into_iter().filter_map(|entry| Named::parse(entry.path));
            let names: Vec<Named> = names.filter(|name| name.partition.stream == id).collect();
            let unknown = self.ledger.with_hot(|hot| {
                let is_orphan = |name: &Named| hot.is_orphan(name.partition, name.base, name.id);
                names.into_iter().filter(is_orphan).collect::<Vec<_>>()
            });
            // The ledger's state does not say which chunk has which index.
            let unknown: Vec<Named> =
                unknown.into_iter().filter(|name| !name.is_index || !self.is_used(name)).collect();
            let garbage = self.reader.index.garbage.lock();
            let is_new = |name: &Named| !garbage.contains_key(&name.object_path);
            orphans.extend(unknown.into_iter().filter(is_new));
            if orphans.len() >= ORPHANS_MAX {
                break;
            }
        }
        Ok(orphans)
    }
}

impl Tier {
    /// Whether an index is a live chunk's, or about to be. Asked in this order
    /// nothing escapes between the two.
    fn is_used(&self, index: &Named) -> bool {
        if self.indexing.is_open(&index.object_path) {
            return true;
        }
        let Some(log) = self.reader.index.partition(index.partition) else { return false };
        log.with(|state| {
            let at = state.chunks.partition_point(|chunk| chunk.base < index.base);
            let chunk = state.chunks.get(at);
            chunk.and_then(|chunk| chunk.index_path.as_ref()) == Some(&index.object_path)
        })
    }
}

fn folder(id: StreamId, path: &StreamPath) -> String {
    format!("{}/{}-{id}", path.tenant, path.name)
}
