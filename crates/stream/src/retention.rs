//! Retention: records that are too old, or too many, become unreadable.
//!
//! From the start of each partition whole chunks, and behind them whole batches
//! of the journal, are passed by a truncation; their objects follow as garbage.
//! It writes nothing but such commits, so a crash leaves the start where it was
//! or where it should be.
//!
//! # Which clock is believed
//! Ages are counted from `_appended`, and nothing may go early because a clock
//! jumped. So the time is the lower of the wall clock and *the newest append
//! that the start has found, plus what a clock that never jumps has counted
//! since*: a jump forward within a run is not believed, it only postpones. After
//! the next start the newest append is the limit again, so time that the server
//! was down counts once something was appended behind it. A jump back shows in
//! the stamps of later appends: an append is never taken to be older than those
//! before it. Stamps that lie ahead of the believed time count from the moment
//! at which retention saw them, so that they do not stay for ever.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use aquifer_env::Clock;
use aquifer_types::{Offset, Partition, StreamConfig, Timestamp};

use crate::Error;
use crate::believed_clock::BelievedClock;
use crate::index::{Index, PartitionState};
use crate::ledger::{Commit, LocalLedger, Operation};
use crate::metrics::Metrics;

/// Truncations in one commit.
const TRUNCATIONS_MAX: usize = 1_000;
/// What was seen ahead of the believed time is noted this often within the
/// retention time; such records stay at most this part of it too long.
const SIGHTINGS: u64 = 16;

/// Enforces the retention of every stream.
#[derive(Debug)]
pub(crate) struct Retention {
    ledger: LocalLedger,
    index: Arc<Index>,
    metrics: Arc<Metrics>,
    clock: BelievedClock,
    sightings: HashMap<Partition, Sightings>,
}

/// At a believed time, a partition had these offsets: the oldest first.
type Sightings = VecDeque<(Timestamp, Offset)>;

impl Retention {
    /// To be made before anything is appended: what is there says how far time
    /// had come.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        ledger: LocalLedger,
        index: Arc<Index>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let clock = BelievedClock::of_index(clock, &index);
        Self { ledger, index, metrics, clock, sightings: HashMap::new() }
    }

    /// Truncates what is due in every partition; returns in how many.
    pub(crate) async fn enforce(&mut self) -> Result<usize, Error> {
        let due = self.find_due();
        let mut truncated = 0;
        for some in due.chunks(TRUNCATIONS_MAX) {
            match self.commit(some.to_vec()).await {
                Ok(()) => truncated += some.len(),
                // A stream was deleted meanwhile: the others follow alone.
                Err(Error::Overtaken(_)) => {
                    for one in some {
                        match self.commit(vec![one.clone()]).await {
                            Ok(()) => truncated += 1,
                            Err(Error::Overtaken(_)) => {}
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        if truncated > 0 {
            self.metrics.retention_truncations.inc_by(truncated as u64);
            self.ledger.wake_keeper();
        }
        Ok(truncated)
    }

    fn find_due(&mut self) -> Vec<Operation> {
        let now = self.clock.now();
        let mut known = std::mem::take(&mut self.sightings);
        let mut due = Vec::new();
        for stream in self.index.all_streams() {
            let config = stream.config();
            let is_limited = config.retention_ms.is_some() || config.retention_bytes.is_some();
            if !is_limited || !config.cleanup_policy.deletes() {
                continue;
            }
            for log in stream.partitions().iter() {
                let mut sightings = known.remove(&log.partition).unwrap_or_default();
                let start = log.with(|state| {
                    if let Some(retention_ms) = config.retention_ms {
                        sight(&mut sightings, state, now, retention_ms);
                    }
                    new_start(state, &config, now, &sightings)
                });
                if !sightings.is_empty() {
                    self.sightings.insert(log.partition, sightings);
                }
                due.extend(
                    start.map(|start| Operation::Expire { partition: log.partition, start }),
                );
            }
        }
        due
    }

    async fn commit(&self, operations: Vec<Operation>) -> Result<(), Error> {
        self.ledger.commit(Commit::of(operations)).await.map(|_| ())
    }
}

/// What goes as a whole: where it ends, its bytes, and when the newest record
/// in it was appended.
fn pieces(state: &PartitionState) -> impl Iterator<Item = (Offset, u64, Option<Timestamp>)> {
    let stable = state.stable();
    let chunks =
        state.chunks.iter().map(|chunk| (chunk.next, chunk.object_bytes, chunk.max_appended));
    let tail = state.tail.iter().filter(move |entry| entry.next <= stable);
    chunks.chain(tail.map(|entry| (entry.next, u64::from(entry.len), Some(entry.appended))))
}

/// Notes what there is, where its stamps are too far ahead to count from.
fn sight(sightings: &mut Sightings, state: &PartitionState, now: Timestamp, retention_ms: u64) {
    let part = retention_ms / SIGHTINGS;
    let due = before(now, retention_ms);
    // The newest that is old enough says all that older ones say.
    while sightings.get(1).is_some_and(|(at, _)| *at <= due) {
        sightings.pop_front();
    }
    let newest = state
        .tail
        .back()
        .map(|entry| entry.appended)
        .or_else(|| state.chunks.last().and_then(|chunk| chunk.max_appended));
    let is_ahead = newest.is_some_and(|newest| newest > after(now, part));
    let is_due = sightings.back().is_none_or(|(at, _)| *at < before(now, part));
    if is_ahead && is_due {
        sightings.push_back((now, state.end));
    }
}

/// The start that the configuration asks for, where it lies behind the present
/// one.
fn new_start(
    state: &PartitionState,
    config: &StreamConfig,
    now: Timestamp,
    sightings: &Sightings,
) -> Option<Offset> {
    if state.is_deleted {
        return None;
    }
    let mut start = state.start;
    if let Some(retention_ms) = config.retention_ms {
        let due = before(now, retention_ms);
        let seen = sightings.iter().rev().find(|(at, _)| *at <= due);
        let seen = seen.map_or(Offset::ZERO, |(_, end)| *end);
        let mut newest = None;
        for (next, _, appended) in pieces(state) {
            newest = newest.max(appended);
            if newest.is_some_and(|newest| newest >= due) && next > seen {
                break;
            }
            // A chunk of aborted records alone has no age. It goes with what lies
            // behind it: a reader may stand before it, who has lost nothing yet.
            if newest.is_some() || next <= seen {
                start = start.max(next);
            }
        }
    }
    if let Some(bytes_max) = config.retention_bytes {
        let mut held = state.tail_bytes + state.chunk_bytes;
        for (next, bytes, _) in pieces(state) {
            if held <= bytes_max {
                break;
            }
            held = held.saturating_sub(bytes);
            start = start.max(next);
        }
    }
    (start > state.start).then_some(start)
}

fn before(at: Timestamp, ms: u64) -> Timestamp {
    Timestamp(at.get().saturating_sub_unsigned(ms))
}

fn after(at: Timestamp, ms: u64) -> Timestamp {
    Timestamp(at.get().saturating_add_unsigned(ms))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aquifer_env::MockClock;
    use aquifer_journal::FileId;
    use aquifer_types::{ChunkId, Epoch, PartitionIndex, StreamId};

    use super::*;
    use crate::ChunkMeta;
    use crate::index::{TailEntry, TailKind};

    const HOUR_MS: i64 = 3_600_000;

    /// Batches of ten records and 100 bytes, appended at these times.
    fn state(appended: &[i64]) -> PartitionState {
        let mut state = PartitionState::default();
        for (at, appended) in appended.iter().enumerate() {
            let base = Offset(at as i64 * 10);
            state.end = base.plus(10);
            state.tail_bytes += 100;
            state.tail.push_back(TailEntry {
                base,
                next: base.plus(10),
                max_timestamp: Timestamp(0),
                appended: Timestamp(*appended),
                file: FileId(1),
                position: 0,
                len: 100,
                epoch: Epoch(1),
                kind: TailKind::Plain,
                timestamp_type: aquifer_types::TimestampType::Create,
            });
        }
        state
    }

    fn config(retention_ms: Option<u64>, retention_bytes: Option<u64>) -> StreamConfig {
        StreamConfig { retention_ms, retention_bytes, ..StreamConfig::default() }
    }

    fn check(appended: &[i64], config: &StreamConfig, now: i64, expected: Option<i64>) {
        let start = new_start(&state(appended), config, Timestamp(now), &VecDeque::new());
        assert_eq!(start.map(Offset::get), expected, "{appended:?} at {now}");
    }

    #[test]
    fn whole_batches_go_by_age_and_by_bytes() {
        let aged = config(Some(100), None);
        check(&[0, 50, 90], &aged, 100, None);
        check(&[0, 50, 90], &aged, 101, Some(10));
        check(&[0, 50, 90], &aged, 151, Some(20));
        check(&[0, 50, 90], &aged, 10_000, Some(30));
        check(&[], &aged, 10_000, None);
        let sized = config(None, Some(250));
        check(&[0, 0], &sized, 0, None);
        check(&[0, 0, 0, 0], &sized, 0, Some(20));
        check(&[0, 50, 90], &config(Some(100), Some(250)), 151, Some(20));
    }

    /// The same, where the first batches are in chunks; those without a time are
    /// empty.
    fn check_chunks(chunks: &[Option<i64>], tail: &[i64], now: i64, expected: Option<i64>) {
        let times: Vec<_> = chunks.iter().map(|at| at.unwrap_or_default()).collect();
        let mut state = state(&[&times, tail].concat());
        let chunk = |(at, appended): (usize, &Option<i64>)| {
            Arc::new(ChunkMeta {
                id: ChunkId::from_bytes([at as u8; 16]),
                partition: Partition::new(StreamId::from_bytes([1; 16]), PartitionIndex(0)),
                base: Offset(at as i64 * 10),
                next: Offset(at as i64 * 10 + 10),
                object_path: String::new(),
                object_bytes: 100,
                checksum: String::new(),
                records: appended.map_or(0, |_| 10),
                raw_bytes: 0,
                min_timestamp: None,
                max_timestamp: None,
                max_appended: appended.map(Timestamp),
                epochs: Vec::new(),
                timestamp_type: aquifer_types::TimestampType::Create,
                generation: 0,
                schema_version: 0,
                unfit: None,
                index_path: None,
                index_bytes: None,
                key_id: None,
            })
        };
        state.set_chunks(chunks.iter().enumerate().map(chunk).collect());
        state.tail.drain(..chunks.len());
        let aged = config(Some(100), None);
        let start = new_start(&state, &aged, Timestamp(now), &VecDeque::new());
        assert_eq!(start.map(Offset::get), expected, "{chunks:?} {tail:?} at {now}");
    }

    #[test]
    fn chunks_without_records_go_with_what_is_behind_them() {
        check_chunks(&[None], &[], 1_000, None);
        check_chunks(&[None, None], &[50], 100, None);
        check_chunks(&[None, None], &[50], 151, Some(30));
        check_chunks(&[None, Some(0), None], &[50], 100, None);
        check_chunks(&[None, Some(0), None], &[50], 101, Some(30));
        check_chunks(&[None, Some(0), None, Some(60)], &[], 151, Some(30));
    }

    #[test]
    fn stamps_that_jumped_back_delete_nothing_early() {
        let aged = config(Some(100), None);
        // The clock fell back to 5 between the batches: they are not older.
        check(&[1_000, 5, 5], &aged, 1_050, None);
        check(&[1_000, 5, 5], &aged, 1_101, Some(30));
    }

    #[test]
    fn a_jump_forward_is_not_believed() {
        let clock = Arc::new(MockClock::new(10 * HOUR_MS));
        let believed = BelievedClock::new(clock.clone(), Some(Timestamp(9 * HOUR_MS)));
        assert_eq!(believed.now(), Timestamp(9 * HOUR_MS), "down time is not believed either");
        clock.set_now_ms(1_000 * HOUR_MS);
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(believed.now(), Timestamp(10 * HOUR_MS));
        clock.set_now_ms(5);
        assert_eq!(believed.now(), Timestamp(5), "a jump back postpones");
        let fresh = BelievedClock::new(clock, None);
        assert_eq!(fresh.now(), Timestamp(5));
    }

    #[test]
    fn records_stamped_ahead_age_from_when_they_were_seen() {
        let ahead = state(&[1_000_000, 1_000_000]);
        let aged = config(Some(1_600), None);
        let mut sightings = Sightings::new();
        let mut gone_at = None;
        for now in (0..10_000).step_by(50) {
            sight(&mut sightings, &ahead, Timestamp(now), 1_600);
            assert!(sightings.len() <= SIGHTINGS as usize + 2, "{}", sightings.len());
            if new_start(&ahead, &aged, Timestamp(now), &sightings).is_some() {
                gone_at = gone_at.or(Some(now));
            }
        }
        assert_eq!(gone_at, Some(1_600));
    }
}
