//! Reads that have to wait for disk or tier 2.
//!
//! They never hold an answer back: a walk through a partition runs beside the
//! requests, ahead of them, and whoever comes for its position takes what is
//! ready. A walk outlives the request that began it, so a client whose wait is
//! shorter than a remote read still gets on. All walks share one budget; those
//! that nobody came back to make room, and are let go of after a while with the
//! memory and the leases that they hold.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::Clock;
use aquifer_stream::{Block, Cursor, Error, Isolation, PartitionHandle, StreamStore, Waker};
use aquifer_types::{Batch, BatchBuilder, Epoch, Offset, Partition};
use bytes::Bytes;
use parking_lot::Mutex;

/// A walk that nobody came back to for this long makes room for another.
const IDLE_NS_MIN: u64 = 1_000_000_000;
/// A walk that has given its reader so many windows makes room for those who
/// found none: who reads for hours does not keep all others waiting.
const TURN_WINDOWS: usize = 4;
/// Fetches that wait for room; when there are more, all look again.
const STARVING_MAX: usize = 1024;
/// Rows become batches of at most this size.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The position that a walk answers next.
type Key = (Partition, Offset, bool);

/// All walks.
#[derive(Debug)]
pub(crate) struct ColdReads {
    clock: Arc<dyn Clock>,
    /// How far a walk goes ahead of its reader.
    window_bytes: usize,
    walks_max: usize,
    /// After this long without its reader a walk is let go of.
    idle_max: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    walks: HashMap<Key, Arc<Mutex<Walk>>>,
    /// Whether a task looks for idle walks; one does while there are any.
    is_swept: bool,
    /// Who found no room.
    starving: Vec<Waker>,
}

#[derive(Debug)]
struct Walk {
    ready: VecDeque<Piece>,
    ready_bytes: usize,
    /// What its readers took.
    given_bytes: usize,
    progress: Progress,
    last_used_ns: u64,
    /// Who waits at its position; several clients may read the same.
    waiting: Vec<Waker>,
}

#[derive(Debug)]
enum Progress {
    /// A task has the cursor.
    Running,
    Paused(Box<Cursor>),
    Ended(Option<Error>),
}

/// A whole batch, or an empty one in the place of a gap.
#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    next: Offset,
}

/// What is there for a reader.
#[derive(Debug)]
pub(crate) enum ColdRead {
    /// Whole batches; none where none fits.
    Batches(Vec<Bytes>),
    /// The waker is woken when there is more.
    Pending,
    Failed(Error),
}

/// A read's place and limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColdRequest<'a> {
    pub(crate) store: &'a StreamStore,
    pub(crate) partition: &'a PartitionHandle,
    /// That of its stream.
    pub(crate) epoch: Epoch,
    pub(crate) from: Offset,
    pub(crate) bytes_max: usize,
    /// The first batch is given however large it is.
    pub(crate) needs_one: bool,
    pub(crate) isolation: Isolation,
    pub(crate) waker: &'a Waker,
}

impl ColdReads {
    pub(crate) fn new(clock: Arc<dyn Clock>, options: &crate::KafkaOptions) -> Arc<Self> {
        let window_bytes = options.cold_read_bytes;
        // What is ready, what is being read, and what the cursor holds.
        let walks_max = (options.cold_reads_bytes_max / (3 * window_bytes)).max(1);
        let idle_max = Duration::from_millis(options.cold_read_idle_ms_max);
        Arc::new(Self { clock, window_bytes, walks_max, idle_max, state: Mutex::default() })
    }

    /// Takes what is ready at a position, and lets the walk there go on.
    pub(crate) fn read(self: &Arc<Self>, request: ColdRequest<'_>) -> ColdRead {
        let is_committed = request.isolation == Isolation::Committed;
        let key = (request.partition.partition(), request.from, is_committed);
        let now = self.clock.monotonic_ns();
        let mut state = self.state.lock();
        let Some(walk) = state.walks.remove(&key) else {
            if state.make_room(self.walks_max, now) {
                state.walks.insert(key, self.begin(request, now));
                if !std::mem::replace(&mut state.is_swept, true) {
                    self.sweep();
                }
            } else {
                state.starve(request.waker);
            }
            return ColdRead::Pending;
        };
        let mut inner = walk.lock();
        inner.last_used_ns = now;
        let (batches, next) = inner.take(&request);
        if batches.is_empty() {
            inner.wait(request.waker);
        } else {
            // The others begin a walk of their own where this one was.
            inner.wake();
        }
        // Its reader begins another behind it, when there is room again.
        let is_turn_over =
            !state.starving.is_empty() && inner.given_bytes >= TURN_WINDOWS * self.window_bytes;
        if is_turn_over && !batches.is_empty() {
            state.wake_starving();
            return ColdRead::Batches(batches);
        }
        if inner.ready_bytes < self.window_bytes
            && let Some(cursor) = inner.resume()
        {
            self.go_on(request, walk.clone(), cursor);
        }
        let is_over = inner.ready.is_empty() && matches!(inner.progress, Progress::Ended(_));
        let read = match &inner.progress {
            _ if !batches.is_empty() => ColdRead::Batches(batches),
            _ if !inner.ready.is_empty() => ColdRead::Batches(Vec::new()),
            Progress::Ended(Some(error)) => ColdRead::Failed(error.clone()),
            Progress::Ended(None) => {
                // It ended where nothing more was visible: look anew.
                request.waker.wake();
                ColdRead::Pending
            }
            Progress::Running | Progress::Paused(_) => ColdRead::Pending,
        };
        drop(inner);
        // An error is told once nothing stands before it.
        let is_told = matches!(read, ColdRead::Failed(_) | ColdRead::Pending);
        if is_over && (is_told || !walk.lock().has_failed()) {
            state.wake_starving();
        } else {
            state.walks.insert((key.0, next, key.2), walk);
        }
        read
    }

    /// Lets go of idle walks, until there are none at all.
    fn sweep(self: &Arc<Self>) {
        let reads = Arc::downgrade(self);
        let idle_max = self.idle_max;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(idle_max).await;
                let Some(reads) = reads.upgrade() else { return };
                let now = reads.clock.monotonic_ns();
                let mut state = reads.state.lock();
                state.drop_idle(idle_max, now);
                if state.walks.is_empty() {
                    state.is_swept = false;
                    return;
                }
            }
        });
    }

    fn begin(self: &Arc<Self>, request: ColdRequest<'_>, now: u64) -> Arc<Mutex<Walk>> {
        let end = request.partition.offsets().visible(request.isolation);
        let cursor = request.store.cursor(request.partition, request.from, end);
        let walk = Arc::new(Mutex::new(Walk {
            ready: VecDeque::new(),
            ready_bytes: 0,
            given_bytes: 0,
            progress: Progress::Running,
            last_used_ns: now,
            waiting: vec![request.waker.clone()],
        }));
        self.go_on(request, walk.clone(), Box::new(cursor));
        walk
    }

    fn go_on(&self, request: ColdRequest<'_>, walk: Arc<Mutex<Walk>>, mut cursor: Box<Cursor>) {
        let (store, partition) = (request.store.clone(), request.partition.clone());
        let (window_bytes, epoch) = (self.window_bytes, request.epoch);
        let clock = self.clock.clone();
        tokio::spawn(async move {
            loop {
                let at = cursor.position();
                let read = match cursor.next(window_bytes).await {
                    Ok(blocks) => blocks,
                    Err(error) => break walk.lock().pause(Progress::Ended(Some(error)), &*clock),
                };
                if read.is_empty() {
                    let mut walk = walk.lock();
                    walk.push_gap(at, cursor.position(), epoch);
                    break walk.pause(Progress::Ended(None), &*clock);
                }
                let mut batches = Vec::with_capacity(read.len());
                for block in read {
                    into_batches(block, &store, &partition, &mut batches);
                }
                let mut walk = walk.lock();
                batches.into_iter().for_each(|batch| walk.push(&batch));
                if walk.ready_bytes >= window_bytes {
                    break walk.pause(Progress::Paused(cursor), &*clock);
                }
                walk.wake();
            }
        });
    }
}

/// A batch goes out as it lies; rows become plain batches.
fn into_batches(
    block: Block,
    store: &StreamStore,
    partition: &PartitionHandle,
    batches: &mut Vec<Batch>,
) {
    match block {
        Block::Batch(batch) => batches.push(batch),
        Block::Rows(rows) => {
            let first = rows.first_offset().unwrap_or(Offset::ZERO);
            let (epochs, timestamp_type) = store.chunk_epochs(partition, first);
            let epoch_of = |offset: Offset| {
                let at = epochs.partition_point(|(_, first)| *first <= offset);
                at.checked_sub(1).and_then(|at| epochs.get(at)).map_or(Epoch(0), |(e, _)| *e)
            };
            batches.extend(rows.to_batches(&epoch_of, timestamp_type, BATCH_BYTES_MAX));
        }
    }
}

/// A batch without records that leads its reader from `from` to `next`, as
/// Kafka's log keeps one where compaction left nothing.
pub(crate) fn empty_batch(from: Offset, next: Offset, epoch: Epoch) -> Bytes {
    let mut builder = BatchBuilder::new(from, epoch);
    let through = next.since(from).saturating_sub(1).min(i32::MAX as u64 - 1);
    builder.cover_through(through as u32);
    builder.finish().bytes().clone()
}

impl State {
    /// Whether one more walk may begin.
    fn make_room(&mut self, walks_max: usize, now: u64) -> bool {
        if self.walks.len() < walks_max {
            return true;
        }
        let idle = self.walks.iter().filter_map(|(key, walk)| {
            let walk = walk.lock();
            walk.is_idle(IDLE_NS_MIN, now).then_some((walk.last_used_ns, *key))
        });
        let Some((_, oldest)) = idle.min_by_key(|(used, _)| *used) else { return false };
        self.walks.remove(&oldest);
        true
    }

    fn drop_idle(&mut self, idle_max: Duration, now: u64) {
        let idle_ns = u64::try_from(idle_max.as_nanos()).unwrap_or(u64::MAX);
        let before = self.walks.len();
        self.walks.retain(|_, walk| !walk.lock().is_idle(idle_ns, now));
        if self.walks.len() < before {
            self.wake_starving();
        }
    }

    fn starve(&mut self, waker: &Waker) {
        if self.starving.last().is_some_and(|last| last.is(waker)) {
            return;
        }
        if self.starving.len() >= STARVING_MAX {
            self.wake_starving();
        }
        self.starving.push(waker.clone());
    }

    fn wake_starving(&mut self) {
        self.starving.drain(..).for_each(|waker| waker.wake());
    }
}

impl Walk {
    fn push(&mut self, batch: &Batch) {
        let bytes = batch.bytes().clone();
        self.ready_bytes += bytes.len();
        self.ready.push_back(Piece { bytes, next: batch.header().next_offset() });
    }

    /// One that is under way is not: it holds its memory until it has paused.
    fn is_idle(&self, idle_ns: u64, now: u64) -> bool {
        !matches!(self.progress, Progress::Running)
            && now.saturating_sub(self.last_used_ns) >= idle_ns
    }

    fn push_gap(&mut self, from: Offset, next: Offset, epoch: Epoch) {
        if next > from {
            let bytes = empty_batch(from, next, epoch);
            self.ready_bytes += bytes.len();
            self.ready.push_back(Piece { bytes, next });
        }
    }

    /// Whoever waits for it has as long to come as after a read.
    fn pause(&mut self, progress: Progress, clock: &dyn Clock) {
        self.progress = progress;
        self.last_used_ns = clock.monotonic_ns();
        self.wake();
    }

    fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|other| other.is(waker)) {
            self.waiting.push(waker.clone());
        }
    }

    fn wake(&mut self) {
        self.waiting.drain(..).for_each(|waker| waker.wake());
    }

    fn resume(&mut self) -> Option<Box<Cursor>> {
        match std::mem::replace(&mut self.progress, Progress::Running) {
            Progress::Paused(cursor) => Some(cursor),
            other => {
                self.progress = other;
                None
            }
        }
    }

    fn has_failed(&self) -> bool {
        matches!(self.progress, Progress::Ended(Some(_)))
    }

    /// What fits, and the position behind it.
    fn take(&mut self, request: &ColdRequest<'_>) -> (Vec<Bytes>, Offset) {
        let (mut batches, mut bytes, mut next) = (Vec::new(), 0, request.from);
        while let Some(piece) = self.ready.front() {
            let is_first = request.needs_one && batches.is_empty();
            if !is_first && bytes + piece.bytes.len() > request.bytes_max {
                break;
            }
            let Some(piece) = self.ready.pop_front() else { break };
            bytes += piece.bytes.len();
            next = piece.next;
            batches.push(piece.bytes);
        }
        self.ready_bytes -= bytes;
        self.given_bytes += bytes;
        (batches, next)
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::{PartitionIndex, StreamId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn walks_that_nobody_comes_back_to_are_let_go_of() {
        const SECOND: u64 = 1_000_000_000;
        let partition = Partition::new(StreamId(Uuid::nil()), PartitionIndex(0));
        let walk = |progress, last_used_ns| Walk {
            ready: VecDeque::new(),
            ready_bytes: 0,
            given_bytes: 0,
            progress,
            last_used_ns,
            waiting: Vec::new(),
        };
        let mut state = State::default();
        for (at, walk) in [
            walk(Progress::Running, 0),
            walk(Progress::Ended(None), 5 * SECOND),
            walk(Progress::Ended(None), 6 * SECOND),
        ]
        .into_iter()
        .enumerate()
        {
            let key = (partition, Offset(at as i64), false);
            state.walks.insert(key, Arc::new(Mutex::new(walk)));
        }
        let mut left = |now| {
            state.drop_idle(Duration::from_secs(10), now);
            let mut left: Vec<_> = state.walks.keys().map(|(_, offset, _)| offset.get()).collect();
            left.sort_unstable();
            left
        };
        assert_eq!(left(14 * SECOND), [0, 1, 2]);
        assert_eq!(left(15 * SECOND), [0, 2]);
        assert_eq!(left(1_000 * SECOND), [0], "it is under way");
    }

    #[test]
    fn a_gap_is_a_batch_without_records_that_ends_before_the_next() {
        for (from, next) in [(7, 8), (7, 1_000), (0, i64::from(i32::MAX))] {
            let batch = Batch::read(empty_batch(Offset(from), Offset(next), Epoch(3))).unwrap();
            assert_eq!(batch.header().base_offset, Offset(from));
            assert_eq!(batch.header().next_offset(), Offset(next));
            assert_eq!(batch.to_records(1 << 10), Ok(Vec::new()));
        }
        // A wider gap takes several.
        let batch = Batch::read(empty_batch(Offset(0), Offset::MAX, Epoch(3))).unwrap();
        assert_eq!(batch.header().next_offset(), Offset(i64::from(i32::MAX)));
    }
}
