//! Many small chunks in a row become one.
//!
//! A run of chunks that are side by side, all smaller than half a chunk's target,
//! of the same generation and with times of the same clock, is merged up to the
//! target; so every record is written anew only a few times, however slowly it
//! comes. Announce, read, put, commit, as in [`super::upload`], and a crash leaves
//! the same: the inputs, and an announced object that goes; or the output, and
//! inputs that are garbage.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aquifer_chunk::{ChunkEncoder, ChunkSpec, ReadOptions};
use aquifer_types::{ChunkId, Epoch, Offset, Timestamp, TimestampType};
use futures::StreamExt;

use super::Tier;
use super::newest::Keep;
use super::upload::{Encoded, aside, flushed, meta};
use crate::Error;
use crate::chunk_meta::ChunkMeta;
use crate::index::{ChunkList, PartitionLog, StreamIndex};
use crate::ledger::Operation;
use crate::read::from_chunk;

/// Before chunks are merged somebody has looked for a newer owner within this
/// time.
pub(super) const OWNER_CHECK_MS: u64 = 1_000;
/// A round of tiering is held up by compaction for at most about this long.
pub(super) const ROUND_MS_MAX: u64 = 2_000;

/// Chunks that are to become one.
pub(super) struct Run {
    pub(super) stream: Arc<StreamIndex>,
    pub(super) log: Arc<PartitionLog>,
    pub(super) chunks: Vec<Arc<ChunkMeta>>,
    /// Which of their records stay; all of them where it is absent.
    pub(super) keep: Option<Arc<Keep>>,
}

impl Tier {
    /// Merges the runs that there are, for a while.
    pub(super) async fn compact_due(&self) -> Result<(), Error> {
        let changes = self.reader.index.changes();
        if self.is_journal_pressed() || self.compacted.load(Ordering::Relaxed) == changes {
            return Ok(());
        }
        let clock = &self.environment.clock;
        let started_ns = clock.monotonic_ns();
        let mut result = Ok(());
        for run in self.find_runs() {
            if clock.monotonic_ns().saturating_sub(started_ns) / 1_000_000 > ROUND_MS_MAX {
                return result;
            }
            self.owner.check_lately(OWNER_CHECK_MS).await?;
            if let Err(error) = self.compact(&run).await {
                if matches!(error, Error::Damaged { .. } | Error::Unsupported(_)) {
                    tracing::error!(%error, "chunks cannot be merged and are left as they are");
                    self.unmergeable.lock().extend(run.chunks.iter().map(|chunk| chunk.id));
                }
                result = Err(error);
            }
        }
        if result.is_ok() {
            self.compacted.store(changes, Ordering::Relaxed);
        }
        result
    }

    fn find_runs(&self) -> Vec<Run> {
        let unmergeable = self.unmergeable.lock();
        let mut runs = Vec::new();
        for stream in self.reader.index.all_streams() {
            let target = stream.config().chunk_target_bytes;
            for log in stream.partitions().iter() {
                let list = log.with(|state| state.chunks.clone());
                let count_min = self.options.compaction_chunks_min;
                let chunks = find_run(&list, target, count_min, &unmergeable);
                runs.extend(chunks.map(|chunks| Run {
                    stream: stream.clone(),
                    log: log.clone(),
                    chunks,
                    keep: None,
                }));
            }
        }
        runs
    }

    /// Puts one chunk in the place of a run and returns it; `None` where the run
    /// was truncated or deleted meanwhile.
    pub(super) async fn compact(&self, run: &Run) -> Result<Option<ChunkMeta>, Error> {
        // The inputs stay while they are read, even when they are truncated.
        let _lease = self.reader.lease();
        let compacted = self.marks_of_run(run).await?;
        let Some(spec) = self.merged_spec(run, compacted) else { return Ok(None) };
        let id = spec.chunk_id;
        self.announce(&spec).await?;
        let result = async {
            let encoded = self.merge(spec, run).await?;
            self.put(&encoded).await?;
            Ok(encoded)
        };
        let encoded = match result.await {
            Ok(encoded) => encoded,
            Err(error) => {
                self.give_up(id).await;
                return Err(error);
            }
        };
        let removed: Vec<ChunkId> = run.chunks.iter().map(|chunk| chunk.id).collect();
        let count = removed.len() as u64;
        let added = meta(&encoded);
        let operation = Operation::ReplaceChunks { removed, added: added.clone() };
        match self.commit(operation).await {
            Ok(_) => {
                self.metrics.chunks_compacted.inc_by(count);
                Ok(Some(added))
            }
            Err(error) => {
                self.give_up(id).await;
                // The stream was truncated or deleted meanwhile.
                if matches!(error, Error::Overtaken(_)) { Ok(None) } else { Err(error) }
            }
        }
    }

    fn merged_spec(&self, run: &Run, compacted: Vec<(Offset, Timestamp)>) -> Option<ChunkSpec> {
        let (first, last) = (run.chunks.first()?, run.chunks.last()?);
        let spec = self.spec(&run.stream, &run.log, first.base, last.next, epochs(&run.chunks));
        let highest = |of: fn(&ChunkMeta) -> u32| run.chunks.iter().map(|c| of(c)).max();
        let mut with_records = run.chunks.iter().filter(|chunk| chunk.records > 0);
        let timestamp_type = with_records.next().map(|chunk| chunk.timestamp_type);
        Some(ChunkSpec {
            generation: highest(|chunk| chunk.generation)?.saturating_add(1),
            timestamp_type: timestamp_type.unwrap_or_default(),
            replaces: run.chunks.iter().map(|chunk| chunk.id).collect(),
            compacted,
            ..spec
        })
    }

    async fn merge(&self, spec: ChunkSpec, run: &Run) -> Result<Encoded, Error> {
        // A schema only grows: what was looked at once needs no second look.
        let schema = self.reader.index.schema(&run.stream).map_or(0, |at| at.schema.version());
        let is_looked_at =
            run.chunks.iter().all(|chunk| (1..=schema).contains(&chunk.schema_version));
        let encoder = self.encoder(&run.stream, spec, is_looked_at)?;
        let mut encoder = self.push_run(encoder, run).await?;
        if let Some(walk) = encoder.take_outgrown() {
            self.count_fields(&encoder);
            let spec = encoder.spec().clone();
            drop(encoder);
            let next = self.next_encoder(&run.stream, spec, walk).await?;
            encoder = self.push_run(next, run).await?;
        }
        self.finish(encoder).await
    }

    /// Reads the rows of the run, a window at a time, into one chunk.
    async fn push_run(&self, mut encoder: ChunkEncoder, run: &Run) -> Result<ChunkEncoder, Error> {
        // What was truncated is not carried on.
        let start = run.log.with(|state| state.start);
        for chunk in &run.chunks {
            let reader = self.reader.cache.open(&self.store, chunk).await?;
            let options =
                ReadOptions { window_bytes: self.reader.window_bytes, ..ReadOptions::default() };
            let mut windows = reader.read(chunk.base.max(start), options);
            while let Some(rows) = windows.next().await {
                let rows = rows.map_err(from_chunk)?;
                let keep = run.keep.clone();
                encoder = aside(move || {
                    let rows = keep.map_or_else(|| Ok(rows.clone()), |keep| keep.filter(&rows))?;
                    encoder.push_rows(&rows)?;
                    Ok(encoder)
                })
                .await?
                .map_err(from_chunk)?;
            }
        }
        flushed(encoder).await
    }
}

/// The first run of a partition that is long enough, cut at the target.
fn find_run(
    list: &ChunkList,
    target: u64,
    count_min: usize,
    unmergeable: &HashSet<ChunkId>,
) -> Option<Vec<Arc<ChunkMeta>>> {
    let is_small =
        |chunk: &ChunkMeta| chunk.raw_bytes < target / 2 && !unmergeable.contains(&chunk.id);
    let mut rest = list.as_slice();
    while let Some(first) = rest.first() {
        let (mut next, mut timestamp_type) = (first.base, None);
        let length = rest
            .iter()
            .take_while(|chunk| {
                let is_beside = chunk.base == next;
                next = chunk.next;
                is_beside
                    && chunk.generation == first.generation
                    && is_alike(chunk, &mut timestamp_type)
                    && is_small(chunk)
            })
            .count();
        let (run, behind) = rest.split_at(length.max(1));
        rest = behind;
        if length < count_min {
            continue;
        }
        let mut bytes = 0;
        let fitting = run.iter().take_while(|chunk| {
            bytes += chunk.raw_bytes;
            bytes <= target
        });
        let chosen: Vec<_> = fitting.cloned().collect();
        if chosen.len() > 1 {
            return Some(chosen);
        }
    }
    None
}

/// Whether a chunk's times come from the same clock as those of the ones before
/// it, which `known` tells of. Those of a chunk without records come from any.
pub(super) fn is_alike(chunk: &ChunkMeta, known: &mut Option<TimestampType>) -> bool {
    chunk.records == 0 || *known.get_or_insert(chunk.timestamp_type) == chunk.timestamp_type
}

fn epochs(chunks: &[Arc<ChunkMeta>]) -> Vec<(Epoch, Offset)> {
    let mut epochs: Vec<(Epoch, Offset)> = Vec::new();
    for (epoch, first) in chunks.iter().flat_map(|chunk| chunk.epochs.iter().copied()) {
        if epochs.last().is_none_or(|(last, _)| *last < epoch) {
            epochs.push((epoch, first));
        }
    }
    epochs
}

#[cfg(test)]
mod tests {
    use aquifer_types::{Partition, PartitionIndex, StreamId};

    use super::*;

    /// Chunks of ten offsets: (generation, raw bytes).
    fn list(chunks: &[(u32, u64)]) -> ChunkList {
        let chunk = |(at, (generation, raw_bytes)): (usize, &(u32, u64))| {
            Arc::new(ChunkMeta {
                id: ChunkId::from_bytes([at as u8; 16]),
                partition: Partition::new(StreamId::from_bytes([1; 16]), PartitionIndex(0)),
                base: Offset(at as i64 * 10),
                next: Offset(at as i64 * 10 + 10),
                object_path: String::new(),
                object_bytes: 1,
                checksum: String::new(),
                records: 10,
                raw_bytes: *raw_bytes,
                min_timestamp: None,
                max_timestamp: None,
                max_appended: None,
                epochs: vec![(Epoch(at as u32 / 2), Offset(at as i64 * 10))],
                generation: *generation,
                schema_version: 0,
                unfit: None,
                timestamp_type: aquifer_types::TimestampType::Create,
                index_path: None,
                index_bytes: None,
                key_id: None,
            })
        };
        Arc::new(chunks.iter().enumerate().map(chunk).collect())
    }

    #[test]
    fn runs_are_of_small_neighbours_of_one_generation() {
        let check = |chunks: &[(u32, u64)], expected: Option<(i64, i64)>| {
            let run = find_run(&list(chunks), 100, 3, &HashSet::new());
            let range = run.map(|run| (run[0].base.get(), run.last().unwrap().next.get()));
            assert_eq!(range, expected, "{chunks:?}");
        };
        check(&[], None);
        check(&[(0, 10), (0, 10)], None);
        check(&[(0, 10), (0, 10), (0, 10)], Some((0, 30)));
        check(&[(0, 10), (0, 50), (0, 10), (0, 10)], None);
        check(&[(1, 10), (1, 10), (0, 10), (0, 10), (0, 10)], Some((20, 50)));
        check(&[(0, 49), (0, 49), (0, 49), (0, 49)], Some((0, 20)));
        check(&[(0, 90), (0, 1), (0, 1), (0, 1), (0, 90)], Some((10, 40)));
        let with_gap: ChunkList = Arc::new(
            list(&[(0, 1), (0, 1), (0, 1), (0, 1)])
                .iter()
                .filter(|chunk| chunk.base.get() != 10)
                .cloned()
                .collect(),
        );
        assert!(find_run(&with_gap, 100, 3, &HashSet::new()).is_none());
        let mut mixed = list(&[(0, 1); 8]).to_vec();
        for chunk in &mut mixed[1..] {
            let timestamp_type = TimestampType::Append;
            *chunk = Arc::new(ChunkMeta { timestamp_type, ..(**chunk).clone() });
        }
        mixed[4] = Arc::new(ChunkMeta { records: 0, ..(*mixed[0]).clone() });
        mixed[4] =
            Arc::new(ChunkMeta { base: Offset(40), next: Offset(50), ..(*mixed[4]).clone() });
        let run = find_run(&Arc::new(mixed), 100, 3, &HashSet::new()).unwrap();
        assert_eq!((run.len(), run[0].base), (7, Offset(10)), "one clock");
        let bad = HashSet::from([ChunkId::from_bytes([1; 16])]);
        assert!(find_run(&list(&[(0, 1), (0, 1), (0, 1)]), 100, 3, &bad).is_none());
    }

    #[test]
    fn epochs_are_joined_in_order() {
        let list = list(&[(0, 1), (0, 1), (0, 1)]);
        let expected = vec![(Epoch(0), Offset(0)), (Epoch(1), Offset(20))];
        assert_eq!(epochs(&list), expected);
    }
}
