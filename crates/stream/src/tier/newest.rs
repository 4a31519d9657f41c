//! Of each key only the newest record: compaction of streams whose policy says
//! so.
//!
//! A pass over a partition notes the newest offset of each key in what is
//! *dirty*, the chunks that no pass has been over, and then writes the chunks
//! from the first one on anew without the records that an offset of those
//! overtakes. Offsets, order and covered ranges stay; the journal, and what is
//! younger than `min.compaction.lag.ms`, is not looked at. Where the keys have
//! no room, a pass ends earlier and the next goes on there.
//!
//! Each chunk says itself how far it is clean and since when
//! ([`ChunkSpec::compacted`](aquifer_chunk::ChunkSpec)), so a start, also one
//! from tier 2 alone, goes on where the last commit was. Tombstones stay for
//! `delete.retention.ms` from then on: whoever read an older value has that
//! long to find out. A chunk is replaced as in [`super::compact`], oldest first;
//! a crash in between leaves the chunks behind it dirty, and their keys are
//! compacted again, which changes nothing.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use aquifer_chunk::{ReadOptions, Rows};
use aquifer_types::{ChunkId, Offset, Partition, Timestamp};
use futures::StreamExt;

use super::Tier;
use super::compact::{OWNER_CHECK_MS, ROUND_MS_MAX, Run, is_alike};
use super::compaction_rules::CompactionRules;
use super::newest_keys::NewestKeys;
use super::upload::aside;
use crate::Error;
use crate::chunk_meta::ChunkMeta;
use crate::index::{ChunkList, PartitionLog, StreamIndex, chunk_at};
use crate::read::from_chunk;

/// The most chunks that one takes the place of.
const GROUP_CHUNKS_MAX: usize = 1_000;
/// The most stretches, each clean since another time, that a chunk tells apart.
const MARKS_MAX: usize = 64;

/// Up to these offsets a chunk is clean, since these times.
pub(super) type Marks = Arc<[(Offset, Timestamp)]>;

/// Where compaction by key stands.
#[derive(Debug, Default)]
pub(super) struct Newest {
    pass: Option<Pass>,
    /// What is to be done next.
    due: VecDeque<Due>,
    looked_ns: Option<u64>,
    /// Partitions with a chunk that cannot be read.
    refused: HashSet<Partition>,
}

/// A partition that is worth a pass.
#[derive(Debug)]
struct Due {
    stream: Arc<StreamIndex>,
    log: Arc<PartitionLog>,
    survey: Survey,
}

/// How clean a partition is.
#[derive(Debug, Clone, Copy)]
struct Survey {
    /// Everything before is clean.
    from: Offset,
    /// From here on it is too young.
    limit: Offset,
    dirty_rows: u64,
    dirty_ratio: f64,
    is_due: bool,
}

#[derive(Debug)]
struct Pass {
    stream: Arc<StreamIndex>,
    log: Arc<PartitionLog>,
    at: Offset,
    /// Where the keys end.
    limit: Offset,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Noting(NewestKeys),
    Rewriting(Arc<Keep>),
}

/// What of some chunks is kept.
#[derive(Debug)]
pub(super) struct Keep {
    keys: NewestKeys,
    /// What is before is clean once it is written anew.
    limit: Offset,
    tombstones_before: Offset,
}

impl Keep {
    pub(super) fn filter(&self, rows: &Rows) -> Result<Rows, aquifer_chunk::Error> {
        let keep = self.keys.select(rows, self.tombstones_before);
        if keep.iter().all(|is_kept| *is_kept) { Ok(rows.clone()) } else { rows.retain(keep) }
    }
}

impl Tier {
    /// Goes on with what is due, for a while.
    pub(super) async fn keep_newest_due(&self) -> Result<(), Error> {
        let clock = &self.environment.clock;
        let started_ns = clock.monotonic_ns();
        let mut newest = self.newest.lock().await;
        while !self.is_journal_pressed()
            && clock.monotonic_ns().saturating_sub(started_ns) / 1_000_000 <= ROUND_MS_MAX
        {
            let pass = match newest.pass.take() {
                Some(pass) => Some(pass),
                None => self.next_pass(&mut newest).await?,
            };
            let Some(mut pass) = pass else { return Ok(()) };
            self.owner.check_lately(OWNER_CHECK_MS).await?;
            match self.step(&mut pass).await {
                Ok(true) => newest.pass = Some(pass),
                Ok(false) => {}
                Err(error) => {
                    newest.refuse_if_damaged(pass.log.partition, &error);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn next_pass(&self, newest: &mut Newest) -> Result<Option<Pass>, Error> {
        let now_ns = self.environment.clock.monotonic_ns();
        let interval_ns = self.options.compaction_interval_ms.saturating_mul(1_000_000);
        let is_early = |looked: u64| now_ns.saturating_sub(looked) < interval_ns;
        if newest.due.is_empty() && !newest.looked_ns.is_some_and(is_early) {
            newest.looked_ns = Some(now_ns);
            self.look(newest).await?;
        }
        let Some(Due { stream, log, survey }) = newest.due.pop_front() else { return Ok(None) };
        let bytes_max = self.options.compaction_keys_bytes_max;
        let keys = NewestKeys::new(bytes_max, survey.dirty_rows, &*self.environment.random);
        let (at, limit, phase) = (survey.from, survey.limit, Phase::Noting(keys));
        Ok(Some(Pass { stream, log, at, limit, phase }))
    }

    /// Finds what is due, the dirtiest first.
    async fn look(&self, newest: &mut Newest) -> Result<(), Error> {
        let now = self.believed.now();
        let (mut live, mut dirtiest) = (HashSet::new(), 0.0_f64);
        let mut failure = None;
        for stream in self.reader.index.all_streams() {
            let config = stream.config();
            if !config.cleanup_policy.compacts() {
                continue;
            }
            let rules = CompactionRules::of(&config);
            for log in stream.partitions().iter() {
                let list = log.with(|state| state.chunks.clone());
                live.extend(list.iter().map(|chunk| chunk.id));
                if newest.refused.contains(&log.partition) {
                    continue;
                }
                let _lease = self.reader.lease();
                let clean_to = match self.clean_to(&list).await {
                    Ok(clean_to) => clean_to,
                    Err(_) if !is_current(log, &list) => continue,
                    Err(error) => {
                        // One that cannot be read now keeps no other.
                        newest.refuse_if_damaged(log.partition, &error);
                        failure = Some(error);
                        continue;
                    }
                };
                let survey = survey(&list, clean_to, &rules, config.chunk_max_age_ms, now);
                dirtiest = dirtiest.max(survey.dirty_ratio);
                if survey.is_due {
                    newest.due.push_back(Due { stream: stream.clone(), log: log.clone(), survey });
                }
            }
        }
        let dirtier = |a: &Due, b: &Due| b.survey.dirty_ratio.total_cmp(&a.survey.dirty_ratio);
        newest.due.make_contiguous().sort_by(dirtier);
        self.metrics.compaction_dirty_percent.set((dirtiest * 100.0).round() as i64);
        self.marks.lock().retain(|id, _| live.contains(id));
        failure.map_or(Ok(()), Err)
    }

    /// Up to where a partition is clean, from its first chunk on.
    async fn clean_to(&self, list: &ChunkList) -> Result<Offset, Error> {
        for chunk in list.iter() {
            let end = self.marks(chunk).await?.last().map_or(chunk.base, |(next, _)| *next);
            if end < chunk.next {
                return Ok(end);
            }
        }
        Ok(list.last().map_or(Offset::ZERO, |chunk| chunk.next))
    }

    /// Up to where tombstones have stayed for long enough.
    async fn tombstones_before(
        &self,
        list: &ChunkList,
        rules: &CompactionRules,
    ) -> Result<Offset, Error> {
        let due = self.believed.now().get().saturating_sub_unsigned(rules.delete_retention_ms);
        let mut before = Offset::ZERO;
        for chunk in list.iter() {
            let mut end = chunk.base;
            for (next, at) in self.marks(chunk).await?.iter() {
                if at.get() > due {
                    return Ok(before);
                }
                (before, end) = (*next, *next);
            }
            if end < chunk.next {
                break;
            }
        }
        Ok(before)
    }

    /// How far a chunk is clean.
    async fn marks(&self, chunk: &ChunkMeta) -> Result<Marks, Error> {
        // What tiering wrote is dirty; its footer need not be read.
        if chunk.generation == 0 {
            return Ok(Marks::default());
        }
        if let Some(marks) = self.marks.lock().get(&chunk.id) {
            return Ok(marks.clone());
        }
        let reader = self.reader.cache.open(&self.store, chunk).await?;
        let marks: Marks = reader.footer().spec().compacted.clone().into();
        self.marks.lock().insert(chunk.id, marks.clone());
        Ok(marks)
    }

    /// How far the chunk is clean that a run becomes.
    pub(super) async fn marks_of_run(&self, run: &Run) -> Result<Vec<(Offset, Timestamp)>, Error> {
        let mut joined = Vec::new();
        if !run.stream.config().cleanup_policy.compacts() {
            return Ok(joined);
        }
        let (Some(first), Some(last)) = (run.chunks.first(), run.chunks.last()) else {
            return Ok(joined);
        };
        let mut end = first.base;
        for chunk in &run.chunks {
            let marks = self.marks(chunk).await?;
            end = marks.last().map_or(end, |(next, _)| *next);
            joined.extend(marks.iter().copied());
            if end < chunk.next {
                break;
            }
        }
        let limit = run.keep.as_ref().map_or(end, |keep| keep.limit.min(last.next));
        if limit > end {
            joined.push((limit, self.believed.now()));
        }
        Ok(thinned(joined))
    }

    /// One chunk of a pass; whether there is more.
    async fn step(&self, pass: &mut Pass) -> Result<bool, Error> {
        let config = pass.stream.config();
        let (list, is_deleted) = pass.log.with(|state| (state.chunks.clone(), state.is_deleted));
        if is_deleted || !config.cleanup_policy.compacts() {
            return Ok(false);
        }
        let _lease = self.reader.lease();
        let result = match std::mem::replace(&mut pass.phase, Phase::Noting(NewestKeys::none())) {
            Phase::Noting(keys) => self.note(pass, &list, keys).await.map(|()| true),
            Phase::Rewriting(keep) => {
                pass.phase = Phase::Rewriting(keep.clone());
                self.rewrite(pass, &list, keep, config.chunk_target_bytes).await
            }
        };
        match result {
            // It was truncated meanwhile; what is left is looked at anew.
            Err(error) if !matches!(error, Error::Fenced(_)) && !is_current(&pass.log, &list) => {
                Ok(false)
            }
            other => other,
        }
    }

    /// Notes the keys of one chunk.
    async fn note(
        &self,
        pass: &mut Pass,
        list: &ChunkList,
        mut keys: NewestKeys,
    ) -> Result<(), Error> {
        let limit = pass.limit;
        if let Some(chunk) = chunk_at(list, pass.at).filter(|chunk| chunk.base < limit) {
            let mut windows = self.rows(chunk, pass.at).await?;
            while let Some(rows) = windows.next().await {
                let rows = rows.map_err(from_chunk)?.before(limit);
                let full_at;
                (keys, full_at) = aside(move || {
                    let full_at = keys.add(&rows);
                    (keys, full_at)
                })
                .await?;
                if let Some(full_at) = full_at {
                    pass.limit = full_at;
                    break;
                }
            }
            pass.at = chunk.next;
        } else {
            pass.at = limit;
        }
        if pass.at < pass.limit {
            pass.phase = Phase::Noting(keys);
            return Ok(());
        }
        let rules = CompactionRules::of(&pass.stream.config());
        let tombstones_before = self.tombstones_before(list, &rules).await?;
        // The last record stays, whatever it is.
        let last = Offset(pass.log.with(|state| state.tiered).get().saturating_sub(1));
        let tombstones_before = tombstones_before.min(last);
        pass.at = Offset::ZERO;
        pass.phase =
            Phase::Rewriting(Arc::new(Keep { keys, limit: pass.limit, tombstones_before }));
        Ok(())
    }

    /// Writes the next chunks anew, where that changes something.
    async fn rewrite(
        &self,
        pass: &mut Pass,
        list: &ChunkList,
        keep: Arc<Keep>,
        target: u64,
    ) -> Result<bool, Error> {
        let chunks = group(list, pass.at, pass.limit, target);
        let Some(last) = chunks.last() else { return Ok(false) };
        pass.at = last.next;
        let is_mergeable = chunks.len() > 1 && chunks.iter().any(|chunk| chunk.records == 0);
        let run = Run { stream: pass.stream.clone(), log: pass.log.clone(), chunks, keep: None };
        let clean_to = self.marks_of_run(&run).await?.last().map(|(next, _)| *next);
        let end = run.chunks.last().map(|chunk| chunk.next.min(pass.limit));
        if clean_to >= end && !is_mergeable && !self.removes(&run.chunks, &keep).await? {
            return Ok(true);
        }
        let run = Run { keep: Some(keep), ..run };
        let sum = |of: fn(&ChunkMeta) -> u64| run.chunks.iter().map(|chunk| of(chunk)).sum::<u64>();
        let (records, bytes) = (sum(|chunk| chunk.records), sum(|chunk| chunk.raw_bytes));
        let Some(added) = self.compact(&run).await? else { return Ok(false) };
        let metrics = &self.metrics;
        metrics.compaction_records_removed.inc_by(records.saturating_sub(added.records));
        metrics.compaction_bytes_removed.inc_by(bytes.saturating_sub(added.raw_bytes));
        Ok(true)
    }

    /// Whether any of the records of these chunks goes.
    async fn removes(&self, chunks: &[Arc<ChunkMeta>], keep: &Arc<Keep>) -> Result<bool, Error> {
        for chunk in chunks {
            let mut windows = self.rows(chunk, chunk.base).await?;
            while let Some(rows) = windows.next().await {
                let rows = rows.map_err(from_chunk)?;
                let keep = keep.clone();
                let all_stay = aside(move || {
                    keep.keys.select(&rows, keep.tombstones_before).iter().all(|stays| *stays)
                });
                if !all_stay.await? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn rows(
        &self,
        chunk: &ChunkMeta,
        from: Offset,
    ) -> Result<futures::stream::BoxStream<'static, Result<Rows, aquifer_chunk::Error>>, Error>
    {
        let reader = self.reader.cache.open(&self.store, chunk).await?;
        let window_bytes = self.reader.window_bytes;
        let options = ReadOptions { window_bytes, ..ReadOptions::default() };
        Ok(reader.read(from.max(chunk.base), options))
    }
}

impl Newest {
    fn refuse_if_damaged(&mut self, partition: Partition, error: &Error) {
        if matches!(error, Error::Damaged { .. } | Error::Unsupported(_)) {
            tracing::error!(%error, %partition, "a partition cannot be compacted by key");
            self.refused.insert(partition);
        }
    }
}

/// Whether all chunks of `list` are live.
fn is_current(log: &PartitionLog, list: &ChunkList) -> bool {
    log.with(|state| {
        let live: HashMap<ChunkId, ()> = state.chunks.iter().map(|chunk| (chunk.id, ())).collect();
        !state.is_deleted && list.iter().all(|chunk| live.contains_key(&chunk.id))
    })
}

fn survey(
    list: &ChunkList,
    clean_to: Offset,
    rules: &CompactionRules,
    chunk_max_age_ms: u64,
    now: Timestamp,
) -> Survey {
    let is_older = |chunk: &ChunkMeta, ms: u64| {
        let due = now.get().saturating_sub_unsigned(ms);
        chunk.max_appended.is_none_or(|appended| appended.get() <= due)
    };
    let (mut clean_bytes, mut dirty_bytes, mut dirty_rows) = (0_u64, 0_u64, 0);
    let (mut limit, mut is_overdue) = (clean_to, false);
    for chunk in list.iter() {
        if chunk.next <= clean_to {
            clean_bytes += chunk.object_bytes;
            continue;
        }
        if !is_older(chunk, rules.lag_ms_min) {
            break;
        }
        // Its oldest record is about so much older than its newest.
        is_overdue |= is_older(chunk, rules.lag_ms_max.saturating_sub(chunk_max_age_ms));
        dirty_bytes += chunk.object_bytes;
        dirty_rows += chunk.records;
        limit = chunk.next;
    }
    let dirty_ratio = dirty_bytes as f64 / (clean_bytes + dirty_bytes).max(1) as f64;
    let is_due = limit > clean_to && (is_overdue || dirty_ratio >= rules.dirty_ratio_min);
    Survey { from: clean_to, limit, dirty_rows, dirty_ratio, is_due }
}

/// The chunks from `at` on that fit into one, of those that begin before
/// `limit`.
fn group(list: &ChunkList, at: Offset, limit: Offset, target: u64) -> Vec<Arc<ChunkMeta>> {
    let start = list.partition_point(|chunk| chunk.next <= at);
    let mut group: Vec<Arc<ChunkMeta>> = Vec::new();
    let (mut bytes, mut timestamp_type) = (0, None);
    for chunk in list.iter().skip(start).take_while(|chunk| chunk.base < limit) {
        bytes += chunk.raw_bytes;
        let is_beside = group.last().is_none_or(|last| last.next == chunk.base)
            && is_alike(chunk, &mut timestamp_type);
        let is_full = bytes > target || group.len() >= GROUP_CHUNKS_MAX;
        if !group.is_empty() && (is_full || !is_beside) {
            break;
        }
        group.push(chunk.clone());
    }
    group
}

/// Marks of which none can be left out, or as many as are kept: then the oldest
/// are taken to be as young as those behind them.
fn thinned(marks: Vec<(Offset, Timestamp)>) -> Vec<(Offset, Timestamp)> {
    let mut kept: Vec<(Offset, Timestamp)> = Vec::new();
    for (next, at) in marks {
        match kept.last_mut() {
            Some(last) if last.1 == at => last.0 = next,
            _ => kept.push((next, at)),
        }
    }
    let surplus = kept.len().saturating_sub(MARKS_MAX);
    let youngest = kept.iter().take(surplus + 1).map(|(_, at)| *at).max();
    kept.drain(..surplus);
    if let (Some(first), Some(youngest)) = (kept.first_mut(), youngest) {
        first.1 = youngest;
    }
    kept
}
