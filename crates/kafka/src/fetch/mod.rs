//! `Fetch`: batches out, as they lie.
//!
//! A fetch looks at all of its partitions at once. What is in memory goes out
//! from where it lies, without a copy; what is on disk or in tier 2 is read
//! beside it ([`cold`]) and answered when it is there. Where there is less than
//! the client asked for, one waiter follows all partitions until one of them
//! has more or the client's time is over.

mod answer;
mod cold;
mod sessions;
mod wanted;

use std::time::Duration;

use aquifer_stream::{
    Error, HotRead, Isolation, PartitionHandle, PartitionOffsets, StreamHandle, Waker,
};
use aquifer_types::Offset;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use tokio::sync::OwnedSemaphorePermit;

use self::answer::{FetchAnswer, PartitionAnswer};
use self::cold::{ColdRead, ColdRequest, empty_batch};
use self::sessions::Context;
use self::wanted::{Told, Wanted};
use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::error_code::error_code;
use crate::quotas::Quota;

pub(crate) use self::cold::ColdReads;
pub(crate) use self::sessions::FetchSessions;

/// The waiting time of a client that names a longer one.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// A fetch takes at most one of so many parts of the room that is left.
const BUDGET_PARTS: usize = 4;
/// The least that a fetch has room for, unless it asks for less.
const ROOM_MIN: usize = 64 << 10;

/// What holds for all partitions of a request.
struct Fetch<'a> {
    call: &'a Call,
    isolation: Isolation,
    bytes_min: usize,
    bytes_max: usize,
    wait: Duration,
    waker: Waker,
}

/// One look at all partitions.
#[derive(Default)]
struct Look {
    partitions: Vec<PartitionAnswer>,
    bytes: usize,
    has_failed: bool,
    /// Something was taken that has to be answered, or it is lost.
    has_taken: bool,
    /// More is there than the whole answer may hold: waiting adds nothing.
    is_full: bool,
}

pub(crate) async fn handle(call: &Call, request: FetchRequest) -> FetchAnswer {
    let begun = call.broker.fetch_sessions.begin(&call.principal, &request, call.version);
    let mut context = match begun {
        Ok(context) => context,
        Err(error) => {
            return FetchAnswer::failed(error);
        }
    };
    let bytes = |value: i32| usize::try_from(value).unwrap_or(0);
    let fetch = Fetch {
        call,
        isolation: match request.isolation_level {
            1 => Isolation::Committed,
            _ => Isolation::Uncommitted,
        },
        bytes_min: bytes(request.min_bytes),
        bytes_max: bytes(request.max_bytes).min(call.broker.options.fetch_bytes_max),
        wait: Duration::from_millis(request.max_wait_ms.max(0) as u64).min(WAIT_MAX),
        waker: Waker::default(),
    };
    let (look, budget) = fetch.run(&mut context).await;
    fetch.answer(context, look, budget)
}

impl Fetch<'_> {
    /// Looks until there is enough or the time is over.
    async fn run(&self, context: &mut Context) -> (Look, Option<OwnedSemaphorePermit>) {
        let deadline = tokio::time::sleep(self.wait);
        tokio::pin!(deadline);
        // Who asks for no partition, as to end a session, waits for nothing.
        let mut is_over = self.wait.is_zero() || context.wanted.len() == 0;
        let mut watch = None;
        loop {
            let (room, budget) = self.budget().await;
            let mut look = self.look(context, room);
            if look.is_due(self.bytes_min.min(room)) || is_over {
                let spare = room.saturating_sub(look.bytes);
                return (look, budget.and_then(|budget| without(budget, spare)));
            }
            // What was read is read again, with what comes: nothing is held
            // while nobody knows for how long.
            drop((std::mem::take(&mut look.partitions), budget));
            if watch.is_none() {
                let partitions = context.wanted.iter().filter_map(Wanted::partition);
                watch = Some(self.call.store().watch_partitions(&self.waker, partitions));
                continue;
            }
            tokio::select! {
                () = self.waker.woken() => {}
                () = &mut deadline => is_over = true,
            }
        }
    }

    /// Room in memory for as much as will be read at most: what the client asks
    /// for, or a part of what is left, so that some who take their answers slowly
    /// leave something for all others.
    async fn budget(&self) -> (usize, Option<OwnedSemaphorePermit>) {
        let budget = &self.call.broker.fetch_budget;
        let share = (budget.available_permits() / BUDGET_PARTS).max(ROOM_MIN);
        let room = self.bytes_max.min(share);
        let permits = u32::try_from(room).unwrap_or(u32::MAX);
        (room, budget.clone().acquire_many_owned(permits).await.ok())
    }

    fn look(&self, context: &mut Context, room: usize) -> Look {
        let mut look = Look::default();
        for wanted in context.wanted.iter_mut() {
            let answer = match self.look_at(wanted, &mut look, room) {
                Ok(answer) => answer,
                Err(error) => PartitionAnswer::failed(wanted.topic.clone(), wanted.index, error),
            };
            look.has_failed |= answer.error.is_some();
            look.bytes += answer.bytes();
            look.partitions.push(answer);
        }
        look
    }

    fn look_at(
        &self,
        wanted: &mut Wanted,
        look: &mut Look,
        room: usize,
    ) -> Result<PartitionAnswer, ResponseError> {
        let (stream, partition) = wanted.find(self.call)?;
        let name = stream.path().name.as_str();
        if !self.call.allows(Action::Read, Resource::Stream(name)) {
            return Err(ResponseError::TopicAuthorizationFailed);
        }
        check_epoch(&stream, wanted.leader_epoch)?;
        let offsets = partition.offsets();
        let mut found = Found::records(Vec::new(), Offset(wanted.offset));
        let room = room.saturating_sub(look.bytes);
        if look.bytes == 0 || room > 0 {
            let bytes_max = wanted.bytes_max.min(room);
            let from = Offset(wanted.offset);
            found = self.read((&stream, &partition), from, bytes_max, look)?;
            let is_cut = found.next < offsets.visible(self.isolation);
            look.is_full |= is_cut && room <= wanted.bytes_max;
        }
        let PartitionOffsets { start, stable, end, .. } = offsets;
        Ok(PartitionAnswer {
            topic: wanted.topic.clone(),
            index: wanted.index,
            error: None,
            high_watermark: end.get(),
            last_stable: stable.get(),
            log_start: start.get(),
            aborted: (self.isolation == Isolation::Committed).then_some(found.aborted),
            records: found.records,
        })
    }

    fn read(
        &self,
        (stream, partition): (&StreamHandle, &PartitionHandle),
        from: Offset,
        bytes_max: usize,
        look: &mut Look,
    ) -> Result<Found, ResponseError> {
        let (store, epoch) = (self.call.store(), stream.epoch());
        let needs_one = look.bytes == 0;
        let hot = store.read_hot(partition, from, bytes_max, needs_one, self.isolation);
        match hot.map_err(|error| failed(&error))? {
            HotRead::Batches { batches, next_offset, .. }
                if batches.is_empty() && next_offset > from =>
            {
                // A gap, maybe to the end: it moves the client on.
                let gap = empty_batch(from, next_offset, epoch);
                Ok(Found::records(vec![gap], next_offset))
            }
            HotRead::Batches { batches, next_offset, aborted } => {
                let aborted =
                    aborted.iter().map(|of| (of.producer_id.get(), of.first_offset.get()));
                let records = batches.into_iter().map(|batch| batch.bytes().clone());
                let (records, aborted) = (records.collect(), aborted.collect());
                Ok(Found { records, next: next_offset, aborted })
            }
            HotRead::Cold => {
                let (isolation, waker) = (self.isolation, &self.waker);
                let request = ColdRequest {
                    store,
                    partition,
                    epoch,
                    from,
                    bytes_max,
                    needs_one,
                    isolation,
                    waker,
                };
                match self.call.broker.cold_reads.read(request) {
                    ColdRead::Batches(batches) => {
                        look.has_taken |= !batches.is_empty();
                        // A walk leaves aborted records out.
                        Ok(Found::records(batches, from))
                    }
                    // What is there is not known yet.
                    ColdRead::Pending => Ok(Found::records(Vec::new(), Offset::MAX)),
                    ColdRead::Failed(error) => Err(failed(&error)),
                }
            }
        }
    }

    fn answer(
        &self,
        mut context: Context,
        look: Look,
        budget: Option<OwnedSemaphorePermit>,
    ) -> FetchAnswer {
        let mut partitions = look.partitions;
        if context.session_id != 0 {
            let is_incremental = context.is_incremental;
            let pairs = context.wanted.iter_mut().zip(&partitions);
            let told: Vec<bool> =
                pairs.map(|(wanted, answer)| wanted.tell(answer) || !is_incremental).collect();
            let served = partitions.iter().filter(|answer| !answer.records.is_empty());
            let served: Vec<_> = served.map(|of| (of.topic.clone(), of.index)).collect();
            context.wanted.served(served);
            let mut told = told.into_iter();
            partitions.retain(|_| told.next().unwrap_or(true));
        }
        let session_id = context.session_id;
        let bytes = partitions.iter().map(PartitionAnswer::bytes).sum();
        let throttle_ms = self.call.throttle(Quota::ConsumerByteRate, bytes);
        FetchAnswer { error: None, throttle_ms, session_id, partitions, budget }
    }
}

/// What one partition has.
struct Found {
    records: Vec<Bytes>,
    /// Where the client goes on behind them.
    next: Offset,
    /// Producer ids and first offsets of aborted transactions among them.
    aborted: Vec<(i64, i64)>,
}

impl Found {
    fn records(records: Vec<Bytes>, next: Offset) -> Self {
        Self { records, next, aborted: Vec::new() }
    }
}

impl Look {
    /// Whether it is to be answered before the client's time is over.
    fn is_due(&self, bytes_min: usize) -> bool {
        self.has_failed || self.has_taken || self.is_full || self.bytes >= bytes_min
    }
}

impl Wanted {
    /// Whether an answer tells the client anything that it does not know.
    fn tell(&mut self, answer: &PartitionAnswer) -> bool {
        let told = Told { high_watermark: answer.high_watermark, log_start: answer.log_start };
        let is_news =
            self.told != Some(told) || answer.error.is_some() || !answer.records.is_empty();
        // An error that is over is news, too.
        self.told = answer.error.is_none().then_some(told);
        is_news
    }
}

/// Whether the client's idea of who leads the stream's partitions is that of now.
pub(crate) fn check_epoch(stream: &StreamHandle, leader_epoch: i32) -> Result<(), ResponseError> {
    let now = i64::from(stream.epoch().get());
    match i64::from(leader_epoch) {
        known if known < 0 || known == now => Ok(()),
        older if older < now => Err(ResponseError::FencedLeaderEpoch),
        _ => Err(ResponseError::UnknownLeaderEpoch),
    }
}

fn failed(error: &Error) -> ResponseError {
    match error {
        Error::Overtaken(_) => ResponseError::UnknownTopicOrPartition,
        // It is read again: by then tier 2 may answer.
        Error::Tier2(_) => ResponseError::KafkaStorageError,
        error => error_code(error),
    }
}

/// Gives back what was not used.
fn without(mut budget: OwnedSemaphorePermit, spare: usize) -> Option<OwnedSemaphorePermit> {
    let spare = spare.min(budget.num_permits());
    drop(budget.split(spare));
    (budget.num_permits() > 0).then_some(budget)
}
