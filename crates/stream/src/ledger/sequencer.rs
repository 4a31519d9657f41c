//! Turns commits into groups: decides each against the hot state, in the order
//! of arrival, and writes what it decided into the group that is assembled.
//!
//! No I/O and no threads here; a crash in the middle leaves nothing, because
//! nothing is told to anybody before the group is synced.

use std::borrow::Cow;
use std::sync::Arc;

use aquifer_journal::{FrameAt, GroupBuilder};
use aquifer_types::{
    Batch, CommitId, LeaseName, LeaseToken, Offset, PARTITIONS_MAX, Partition, StreamClass,
    StreamConfig, StreamId, TenantName, Timestamp,
};

use super::document::{Document, DocumentKey, DocumentKind};
use super::event::{
    AppendEvent, Event, KIND_APPEND, KIND_EVENT, KIND_RELOCATED, KeptAnswer, Operation, Outcome,
};
use super::hot_state::{HotState, Undo};
use super::leases::{HeldLease, Precondition};
use super::transact::Target;
use crate::Error;
use crate::api::{Appended, GroupPosition, PositionNote};
use crate::options::Options;
use crate::steady::SteadyClock;

/// How far ahead a relaxed partition reserves offsets.
pub(crate) const RELAXED_RESERVE: u64 = 1 << 20;

/// Several operations that happen together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Names this attempt, for whoever may have to ask what became of it.
    pub id: Option<CommitId>,
    /// What must hold when it is decided.
    pub require: Vec<Precondition>,
    /// What is to be done, in order.
    pub operations: Vec<Operation>,
    /// Makes a repetition of the same request harmless.
    pub idempotency: Option<Idempotency>,
}

impl Commit {
    /// A commit of these operations, and nothing else.
    #[must_use]
    pub fn of(operations: Vec<Operation>) -> Self {
        Self { operations, ..Self::default() }
    }
}

/// The identity of a request that may be repeated.
#[derive(Debug, Clone)]
pub struct Idempotency {
    /// Whose key it is.
    pub tenant: TenantName,
    /// The key.
    pub key: String,
    /// The stream that is appended to.
    pub stream: StreamId,
    /// A checksum of what is appended.
    pub request_checksum: u32,
}

/// What a commit came to.
#[derive(Debug, Clone)]
pub struct Committed {
    /// One for each operation.
    pub outcomes: Vec<Outcome>,
    /// When it was appended.
    pub at: Timestamp,
}

/// Told once the group that a commit was decided in is synced.
pub(crate) type Reply = Box<dyn FnOnce(Result<Committed, Error>) + Send>;

/// A fact in a group that is to be published when the group is synced.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a commit has few facts, and they live until it is published"
)]
pub(crate) enum Fact {
    Append(AppendEvent, FrameAt),
    Relocated(AppendEvent, FrameAt),
    Other(Event),
}

/// A group that is being assembled, with all that hangs on it.
pub(crate) struct Assembly {
    pub(crate) group: GroupBuilder,
    pub(crate) facts: Vec<Fact>,
    pub(crate) replies: Vec<(Reply, Result<Committed, Error>)>,
    pub(crate) undos: Vec<Undo>,
    pub(crate) must_sync: bool,
    /// The state behind this group, when a snapshot is due.
    pub(crate) snapshot: Option<Box<HotState>>,
}

impl Assembly {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            group: GroupBuilder::new(capacity),
            facts: Vec::new(),
            replies: Vec::new(),
            undos: Vec::new(),
            must_sync: false,
            snapshot: None,
        }
    }
}

/// The decisions of the ledger.
#[derive(Debug)]
pub(crate) struct Sequencer {
    pub(crate) hot: HotState,
    pub(crate) options: Arc<Options>,
    /// What leases and ages are counted by.
    pub(crate) steady: SteadyClock,
}

impl Sequencer {
    /// Decides a commit and adds it to the group; its reply waits there,
    /// whatever was decided.
    pub(crate) fn add(
        &mut self,
        commit: &Commit,
        reply: Reply,
        now: Timestamp,
        assembly: &mut Assembly,
    ) {
        let (undos_before, facts_before) = (assembly.undos.len(), assembly.facts.len());
        let result = self.decide(commit, now, assembly);
        if result.is_err() {
            // Nothing of a refused commit was written: frames are pushed only
            // when all of its operations are decided.
            assembly.facts.truncate(facts_before);
            self.hot.undo(assembly.undos.drain(undos_before..));
        }
        assembly.replies.push((reply, result));
    }

    fn decide(
        &mut self,
        commit: &Commit,
        now: Timestamp,
        assembly: &mut Assembly,
    ) -> Result<Committed, Error> {
        if let Some(id) = commit.id
            && let Some(committed) = self.known_attempt(id)?
        {
            return Ok(committed);
        }
        let mut frames = Frames { facts: Vec::new(), must_sync: false };
        let committed = self.decide_new(commit, now, &mut frames, &mut assembly.undos)?;
        if let Some(id) = commit.id {
            let (outcomes, at) = (committed.outcomes.clone(), self.aged_from(now));
            let event = Event::CommitKept { id, outcomes, at };
            self.apply(event, &mut frames, &mut assembly.undos);
        }
        write_frames(frames, assembly, self.options.commit_bytes_max)?;
        Ok(committed)
    }

    /// Decides a commit that was not decided before.
    fn decide_new<'a>(
        &mut self,
        commit: &'a Commit,
        now: Timestamp,
        frames: &mut Frames<'a>,
        undos: &mut Vec<Undo>,
    ) -> Result<Committed, Error> {
        for condition in &commit.require {
            match condition {
                Precondition::Lease { name, token } => self.hot.leases.check_token(name, *token)?,
                Precondition::Document { key, expected } => {
                    self.hot.documents.check_expected(key, *expected)?;
                }
            }
        }
        if let Some(idempotency) = &commit.idempotency
            && let Some(committed) = self.kept_answer(idempotency)?
        {
            return Ok(committed);
        }
        // The keeper forgets the oldest beyond the limit; this is for bursts.
        let answers_max = self.options.idempotency_keys_max;
        if commit.idempotency.is_some() && self.hot.answers.len() >= 2 * answers_max {
            return Err(Error::Throttled {
                what: "the number of kept idempotency keys",
                limit: answers_max as u64,
                limit_name: "idempotency_keys_max",
            });
        }
        let mut outcomes = Vec::with_capacity(commit.operations.len());
        for operation in &commit.operations {
            outcomes.push(self.decide_one(operation, now, frames, undos)?);
        }
        if let Some(idempotency) = &commit.idempotency {
            let appends = outcomes.iter().filter_map(|outcome| match outcome {
                Outcome::Appended(appended) | Outcome::Duplicate(appended) => Some(*appended),
                _ => None,
            });
            let event = Event::AnswerKept {
                tenant: idempotency.tenant.clone(),
                key: idempotency.key.clone(),
                answer: KeptAnswer {
                    stream: idempotency.stream,
                    appends: appends.collect(),
                    at: self.aged_from(now),
                    request_checksum: idempotency.request_checksum,
                },
            };
            self.apply(event, frames, undos);
        }
        Ok(Committed { outcomes, at: now })
    }

    /// Grants a lease, or lets it go on: the fact, and the token.
    fn hold_lease(
        &self,
        name: &LeaseName,
        renewed: Option<LeaseToken>,
        ttl_ms: u64,
    ) -> Result<(Event, LeaseToken), Error> {
        let ttl_ms_max = self.options.lease_ttl_ms_max;
        if !(1..=ttl_ms_max).contains(&ttl_ms) {
            return Err(Error::Invalid(format!(
                "a lease lasts 1 to {ttl_ms_max} ms (lease_ttl_ms_max), not {ttl_ms}"
            )));
        }
        let (leases, now) = (&self.hot.leases, self.steady.now());
        let token = match renewed {
            Some(token) => {
                leases.check_token(name, token)?;
                token
            }
            None => {
                leases.check_free(name, now)?;
                let limit = self.options.leases_max;
                if leases.held.len() >= limit && !leases.held.contains_key(name) {
                    return Err(Error::Throttled {
                        what: "the number of leases",
                        limit: limit as u64,
                        limit_name: "leases_max",
                    });
                }
                leases.next_token(self.hot.epoch)
            }
        };
        let lease = HeldLease::new(token, ttl_ms, now);
        Ok((Event::LeaseHeld { name: name.clone(), lease }, token))
    }

    pub(super) fn apply<'a>(
        &mut self,
        event: Event,
        frames: &mut Frames<'a>,
        undos: &mut Vec<Undo>,
    ) {
        undos.extend(self.hot.apply(&event));
        frames.must_sync = true;
        frames.facts.push(Pending::Other(event));
    }

    fn decide_one<'a>(
        &mut self,
        operation: &'a Operation,
        now: Timestamp,
        frames: &mut Frames<'a>,
        undos: &mut Vec<Undo>,
    ) -> Result<Outcome, Error> {
        let event = match operation {
            Operation::Append { partition, batch, expected_offset } => {
                return self.append(*partition, batch, *expected_offset, now, frames, undos);
            }
            Operation::Relocate { partition, batch, appended } => {
                self.relocate(*partition, batch, *appended, frames);
                return Ok(Outcome::Done);
            }
            Operation::ResolveCommit { id } => return self.resolve(*id, now, frames, undos),
            Operation::AcquireLease { name, ttl_ms } => {
                let (event, token) = self.hold_lease(name, None, *ttl_ms)?;
                self.apply(event, frames, undos);
                return Ok(Outcome::Leased(token));
            }
            Operation::RenewLease { name, token, ttl_ms } => {
                self.hold_lease(name, Some(*token), *ttl_ms)?.0
            }
            Operation::ReleaseLease { name, token } => {
                self.hot.leases.check_token(name, *token)?;
                Event::LeaseReleased { name: name.clone() }
            }
            Operation::CreateStream { id, new } => self.create_stream(*id, new, now)?,
            Operation::AlterStream { id, change, expected } => {
                let stream = self.live(*id)?;
                if expected.as_ref().is_some_and(|expected| **expected != stream.config) {
                    return Err(Error::ConfigChanged(stream.path.clone()));
                }
                let config = change.of(&stream.config);
                check_config(&config)?;
                Event::StreamAltered { id: *id, config }
            }
            Operation::GrowStream { id, partitions } => {
                let stream = self.live(*id)?;
                let (have, from) = (stream.partitions.len() as u32, stream.partitions_from);
                if *partitions < have || *partitions > PARTITIONS_MAX {
                    return Err(Error::Invalid(format!(
                        "the stream has {have} partitions; it can have {have} to {PARTITIONS_MAX}, not {partitions}"
                    )));
                }
                self.check_partitions(u64::from(partitions - have))?;
                Event::PartitionsAdded { id: *id, partitions: *partitions, from }
            }
            Operation::DeleteStream { id } => {
                let schema = DocumentKey::of_schema(&self.live(*id)?.path.tenant, *id);
                if self.hot.documents.get(&schema).is_some() {
                    self.apply(Event::DocumentDeleted { key: schema }, frames, undos);
                }
                Event::StreamDeleted { id: *id, at: now }
            }
            Operation::Truncate { partition, start } | Operation::Expire { partition, start } => {
                let (_, hot) = self.hot.require(*partition)?;
                if *start > hot.end || *start < Offset::ZERO {
                    return Err(Error::out_of_range(*partition, *start, hot.start, hot.end));
                }
                if *start <= hot.start {
                    return Ok(Outcome::Done);
                }
                let is_expired = matches!(operation, Operation::Expire { .. });
                Event::Truncated { partition: *partition, start: *start, at: now, is_expired }
            }
            Operation::IntendUpload { chunk, partition, object_path } => {
                self.hot.require(*partition)?;
                Event::UploadIntended {
                    chunk: *chunk,
                    partition: *partition,
                    object_path: object_path.clone(),
                    at: now,
                }
            }
            Operation::AbandonUpload { chunk } => {
                let Some(intent) = self.hot.intents.get(chunk) else { return Ok(Outcome::Done) };
                Event::UploadAbandoned {
                    chunk: *chunk,
                    object_path: intent.object_path.clone(),
                    at: now,
                }
            }
            Operation::DiscardOrphan { partition, base, chunk, object_path } => {
                if !self.hot.is_orphan(*partition, *base, *chunk) {
                    return Err(Error::Overtaken(format!("{object_path} is known")));
                }
                Event::UploadAbandoned { chunk: *chunk, object_path: object_path.clone(), at: now }
            }
            Operation::AddChunk { chunk } => {
                let (_, hot) = self.hot.require(chunk.partition)?;
                self.check_intent(chunk.id)?;
                if chunk.base != hot.tiered || chunk.next > hot.stable() || chunk.next <= chunk.base
                {
                    return Err(Error::Overtaken(format!(
                        "chunk {} covers {} to {}, the tiered offset is {}, the stable one {}",
                        chunk.id,
                        chunk.base,
                        chunk.next,
                        hot.tiered,
                        hot.stable()
                    )));
                }
                Event::ChunkAdded { chunk: chunk.clone(), at: Some(now) }
            }
            Operation::ReplaceChunks { removed, added } => {
                let (_, hot) = self.hot.require(added.partition)?;
                self.check_intent(added.id)?;
                hot.check_replacement(removed, added)?;
                Event::ChunksReplaced { removed: removed.clone(), added: added.clone(), at: now }
            }
            Operation::IndexChunk { partition, base, chunk, index, index_path, index_bytes } => {
                let (_, hot) = self.hot.require(*partition)?;
                self.check_intent(*index)?;
                if hot.chunks.get(base).is_none_or(|live| live.id != *chunk) {
                    return Err(Error::Overtaken(format!("chunk {chunk} is not live any more")));
                }
                Event::ChunkIndexed {
                    partition: *partition,
                    chunk: *chunk,
                    index: *index,
                    index_path: index_path.clone(),
                    index_bytes: *index_bytes,
                    at: now,
                }
            }
            Operation::SetCeilings { ceilings } => {
                self.check_ceilings(ceilings)?;
                Event::CeilingsSet { ceilings: ceilings.clone() }
            }
            Operation::CollectGarbage { object_paths } => {
                Event::GarbageCollected { object_paths: object_paths.clone() }
            }
            // A group without positions would count against no limit.
            Operation::CommitPositions { positions, .. } if positions.is_empty() => {
                return Ok(Outcome::Done);
            }
            Operation::CommitPositions { tenant, group, positions } => {
                self.commit_positions(tenant, group, positions, now)?
            }
            Operation::PutDocument { key, value, expected } => {
                let stream = key.stream_of_view().filter(|path| self.hot.names.contains_key(path));
                if let Some(path) = stream {
                    return Err(Error::StreamExists(path));
                }
                if key.kind == DocumentKind::Schema {
                    let id = key.stream_of_schema();
                    let id = id.ok_or_else(|| Error::Invalid("a schema is a stream's".into()))?;
                    self.live(id)?;
                }
                let documents = &self.hot.documents;
                let version = documents.check_put(key, value, *expected, &self.options)?;
                let document = Arc::new(Document { value: value.clone(), version });
                self.apply(Event::DocumentPut { key: key.clone(), document }, frames, undos);
                return Ok(Outcome::Document { version });
            }
            Operation::DeleteDocument { key, expected } => {
                self.hot.documents.check_expected(key, *expected)?;
                if self.hot.documents.get(key).is_none() {
                    return Ok(Outcome::Done);
                }
                Event::DocumentDeleted { key: key.clone() }
            }
            Operation::ForgetPositions { tenant, group, partitions, committed_before } => {
                let kept = self.hot.groups.get(&(tenant.clone(), group.clone()));
                let is_due = |at: &&Partition| {
                    let position = kept.and_then(|kept| kept.get(at));
                    position.is_some_and(|of| committed_before.is_none_or(|by| of.committed < by))
                };
                let partitions: Vec<Partition> =
                    partitions.iter().filter(is_due).copied().collect();
                if partitions.is_empty() {
                    return Ok(Outcome::Done);
                }
                let (tenant, group) = (tenant.clone(), group.clone());
                Event::PositionsForgotten { tenant, group, partitions }
            }
            Operation::DeleteGroup { tenant, group } => {
                if !self.hot.groups.contains_key(&(tenant.clone(), group.clone())) {
                    return Err(Error::GroupNotFound(group.to_string()));
                }
                Event::GroupDeleted { tenant: tenant.clone(), group: group.clone() }
            }
            Operation::InitProducer { .. }
            | Operation::AddPartitions { .. }
            | Operation::AddGroup { .. }
            | Operation::CommitPositionsInTransaction { .. }
            | Operation::EndTransaction { .. }
            | Operation::ExpireTransaction { .. } => {
                return self.transact(operation, Target { now, frames, undos });
            }
        };
        self.apply(event, frames, undos);
        Ok(Outcome::Done)
    }

    fn append<'a>(
        &mut self,
        at: Partition,
        batch: &'a Batch,
        expected_offset: Option<Offset>,
        now: Timestamp,
        frames: &mut Frames<'a>,
        undos: &mut Vec<Undo>,
    ) -> Result<Outcome, Error> {
        let (_, partition) = self.hot.require(at)?;
        self.check_incarnation(batch.header())?;
        if let Some(known) = partition.producers.check(batch.header(), at.index)? {
            return Ok(Outcome::Duplicate(known));
        }
        if let Some(expected) = expected_offset
            && expected != partition.end
        {
            return Err(Error::UnexpectedOffset {
                partition: at.index.get(),
                expected,
                actual: partition.end,
            });
        }
        if batch.header().producer_id.is_some_and(|id| !partition.producers.contains(id))
            && partition.producers.len() >= self.options.producers_per_partition_max
        {
            return Err(Error::Throttled {
                what: "the number of idempotent producers of the partition",
                limit: self.options.producers_per_partition_max as u64,
                limit_name: "producers_per_partition_max",
            });
        }
        self.check_transaction(batch.header(), at)?;
        self.place(at, Cow::Borrowed(batch), now, frames, undos).map(Outcome::Appended)
    }

    /// Lets a batch that is still in the tail be written anew; what decisions are
    /// made on stays as it is.
    fn relocate<'a>(
        &self,
        partition: Partition,
        batch: &'a Batch,
        appended: Timestamp,
        frames: &mut Frames<'a>,
    ) {
        let Ok((_, hot)) = self.hot.require(partition) else { return };
        let header = *batch.header();
        if header.next_offset() > hot.tiered && header.next_offset() <= hot.end {
            let event = AppendEvent { partition, appended, batch: header };
            frames.must_sync = true;
            frames.facts.push(Pending::Relocated(event, batch));
        }
    }

    /// Gives a batch that is let in its place at the end of its partition.
    pub(super) fn place<'a>(
        &mut self,
        at: Partition,
        batch: Cow<'a, Batch>,
        now: Timestamp,
        frames: &mut Frames<'a>,
        undos: &mut Vec<Undo>,
    ) -> Result<Appended, Error> {
        let (stream, partition) = self.hot.require(at)?;
        let class = stream.class;
        let base = partition.end;
        let mut placed = *batch.header();
        placed.base_offset = base;
        placed.epoch = stream.epoch;
        let next = placed.next_offset();
        if next == Offset::MAX {
            return Err(Error::Invalid("the partition has no offsets left".into()));
        }
        let ceiling = partition.ceiling.unwrap_or(Offset::MAX);
        if next > ceiling {
            return Err(Error::Throttled {
                what: "the number of offsets reserved by the manifests in tier 2",
                limit: self.options.manifest_offsets_ahead,
                limit_name: "manifest_offsets_ahead",
            });
        }
        match class {
            StreamClass::Relaxed if next > partition.reserved => {
                let through = next.plus(RELAXED_RESERVE).min(ceiling);
                self.apply(Event::OffsetsReserved { partition: at, through }, frames, undos);
            }
            StreamClass::Relaxed => {}
            StreamClass::Durable | StreamClass::Shared => frames.must_sync = true,
        }
        let event = AppendEvent { partition: at, appended: now, batch: placed };
        undos.extend(self.hot.apply_append(&event));
        frames.facts.push(Pending::Append(event, batch));
        Ok(Appended { partition: at.index, base_offset: base, count: placed.record_count })
    }

    fn live(&self, id: StreamId) -> Result<&super::hot_state::HotStream, Error> {
        self.hot.stream(id).ok_or_else(|| Error::Overtaken("the stream is gone".into()))
    }

    fn check_intent(&self, chunk: aquifer_types::ChunkId) -> Result<(), Error> {
        if self.hot.intents.contains_key(&chunk) {
            return Ok(());
        }
        Err(Error::Overtaken(format!("the upload of chunk {chunk} was given up")))
    }

    /// Whoever recovers from a manifest gives offsets from its ceiling on: none
    /// may have been given there while it was made.
    fn check_ceilings(&self, ceilings: &[(Partition, Offset)]) -> Result<(), Error> {
        for (at, ceiling) in ceilings {
            let Ok((_, partition)) = self.hot.require(*at) else { continue };
            if partition.end > *ceiling {
                let end = partition.end;
                return Err(Error::Overtaken(format!("{at} ends at {end}, not below {ceiling}")));
            }
        }
        Ok(())
    }

    fn check_partitions(&self, more: u64) -> Result<(), Error> {
        if self.hot.partitions + more > self.options.partitions_max {
            return Err(Error::Throttled {
                what: "the number of partitions of all streams",
                limit: self.options.partitions_max,
                limit_name: "partitions_max",
            });
        }
        Ok(())
    }

    fn create_stream(
        &self,
        id: StreamId,
        new: &crate::api::NewStream,
        now: Timestamp,
    ) -> Result<Event, Error> {
        check_config(&new.config)?;
        if self.hot.names.contains_key(&new.path) {
            return Err(Error::StreamExists(new.path.clone()));
        }
        if self.hot.documents.get(&DocumentKey::of_view(&new.path)).is_some() {
            return Err(Error::ViewExists(new.path.clone()));
        }
        if self.hot.streams.len() as u64 >= self.options.streams_max {
            return Err(Error::Throttled {
                what: "the number of streams",
                limit: self.options.streams_max,
                limit_name: "streams_max",
            });
        }
        self.check_partitions(u64::from(new.partitions))?;
        Ok(Event::StreamCreated {
            id,
            path: new.path.clone(),
            partitions: new.partitions,
            class: new.class,
            config: new.config.clone(),
            created: now,
            epoch: self.hot.epoch,
        })
    }

    fn commit_positions(
        &self,
        tenant: &TenantName,
        group: &aquifer_types::GroupName,
        positions: &[(Partition, Offset, PositionNote)],
        now: Timestamp,
    ) -> Result<Event, Error> {
        let mut kept = Vec::with_capacity(positions.len());
        for (partition, offset, note) in positions {
            self.hot.require(*partition)?;
            kept.push((*partition, GroupPosition::new(*offset, note, now)));
        }
        let waiting = self.hot.transactions.pending_positions();
        if self.hot.group_positions + waiting + kept.len() > self.options.group_positions_max {
            return Err(Error::Throttled {
                what: "the number of kept group positions",
                limit: self.options.group_positions_max as u64,
                limit_name: "group_positions_max",
            });
        }
        Ok(Event::PositionsCommitted {
            tenant: tenant.clone(),
            group: group.clone(),
            positions: kept,
        })
    }

    /// The stamp of what is forgotten by age. A wall clock that was set back does
    /// not make it older than it is.
    pub(super) fn aged_from(&self, now: Timestamp) -> Timestamp {
        now.max(self.steady.now())
    }

    /// Forgets what has aged: the answers kept for idempotency keys, the outcomes
    /// of attempts, leases that ran out, idle producers and idle
    /// transactional ids.
    pub(crate) fn forget_aged(&mut self) {
        // A wall clock that jumps forgets nothing early, now or at the next start,
        // which takes its stamps for the time.
        let (now, believed) = (self.steady.now(), self.steady.believed());
        let before = |ms: u64| Timestamp(believed.get().saturating_sub_unsigned(ms));
        self.hot
            .answers
            .forget(before(self.options.idempotency_key_ms), self.options.idempotency_keys_max);
        self.hot.attempts.forget(before(self.options.commit_outcomes_ms), now);
        self.hot.leases.forget(now);
        let idle = before(self.options.producer_idle_ms_max);
        // Whoever has to finish or to repeat something does so within the longest
        // timeout; those that come next find room.
        let done = before(self.options.transaction_ms_max);
        let kept_max = |limit: usize| limit / 4 * 3;
        let producers_max = kept_max(self.options.producers_per_partition_max);
        for stream in self.hot.streams.values_mut() {
            for partition in &mut stream.partitions {
                partition.producers.forget_idle(idle);
                partition.producers.make_room(done, producers_max);
            }
        }
        let idle = before(self.options.transactional_id_idle_ms_max);
        self.hot.transactions.forget_idle(idle);
        self.hot.transactions.make_room(done, kept_max(self.options.transactional_ids_max));
    }
}

fn check_config(config: &StreamConfig) -> Result<(), Error> {
    config.validate().map_err(|error| Error::Invalid(error.to_string()))
}

/// What one commit will write, once all of it is decided.
pub(super) struct Frames<'a> {
    facts: Vec<Pending<'a>>,
    must_sync: bool,
}

enum Pending<'a> {
    Append(AppendEvent, Cow<'a, Batch>),
    Relocated(AppendEvent, &'a Batch),
    Other(Event),
}

/// Room that the journal leaves above the largest group and the largest commit.
pub(crate) const GROUP_BYTES_MARGIN: usize = 1 << 20;
/// More than a frame takes beside its meta and payload.
const FRAME_BYTES: usize = 32;

/// Writes all frames of a commit, or refuses it before the first.
fn write_frames(
    frames: Frames<'_>,
    assembly: &mut Assembly,
    commit_bytes_max: usize,
) -> Result<(), Error> {
    let internal = |error: &dyn std::fmt::Display| Error::Internal(error.to_string());
    let mut metas = Vec::new();
    let mut bytes = 0;
    for pending in &frames.facts {
        bytes += FRAME_BYTES;
        match pending {
            Pending::Append(event, batch) => bytes += event.encode().len() + batch.bytes().len(),
            Pending::Relocated(event, batch) => {
                bytes += event.encode().len() + batch.bytes().len();
            }
            Pending::Other(event) => {
                let meta = serde_json::to_vec(event).map_err(|error| internal(&error))?;
                bytes += meta.len();
                metas.push(meta);
            }
        }
    }
    if bytes > commit_bytes_max + GROUP_BYTES_MARGIN / 2 {
        return Err(Error::TooLarge {
            what: "the commit".into(),
            size: bytes as u64,
            limit: commit_bytes_max as u64,
            limit_name: "commit_bytes_max",
        });
    }
    let mut metas = metas.into_iter();
    for pending in frames.facts {
        match pending {
            Pending::Append(event, batch) => {
                let header = batch.placed_header(event.batch.base_offset, event.batch.epoch);
                let at = assembly
                    .group
                    .push(KIND_APPEND, &event.encode(), &[&header, batch.records_bytes()])
                    .map_err(|error| internal(&error))?;
                assembly.facts.push(Fact::Append(event, at));
            }
            Pending::Relocated(event, batch) => {
                let at = assembly
                    .group
                    .push(KIND_RELOCATED, &event.encode(), &[batch.bytes()])
                    .map_err(|error| internal(&error))?;
                assembly.facts.push(Fact::Relocated(event, at));
            }
            Pending::Other(event) => {
                let meta = metas.next().unwrap_or_default();
                assembly.group.push(KIND_EVENT, &meta, &[]).map_err(|error| internal(&error))?;
                assembly.facts.push(Fact::Other(event));
            }
        }
    }
    assembly.must_sync |= frames.must_sync;
    Ok(())
}
