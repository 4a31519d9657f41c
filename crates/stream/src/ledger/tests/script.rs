//! What is done to a ledger: steps that a seed makes up, chosen by the state
//! that they meet.

use aquifer_env::{Random, SeededRandom};
use aquifer_types::{
    Batch, BatchBuilder, ChunkId, CommitId, Epoch, GroupName, LeaseName, LeaseToken, Offset,
    Partition, PartitionIndex, ProducerEpoch, ProducerId, Sequence, StreamClass, StreamConfig,
    StreamConfigChange, StreamId, StreamName, StreamPath, TenantName, Timestamp,
};
use uuid::Uuid;

use super::driver::Driver;
use super::transactions;
use crate::api::{NewStream, PositionNote};
use crate::chunk_meta::ChunkMeta;
use crate::ledger::document::{DocumentExpectation, DocumentKey, DocumentKind};
use crate::ledger::event::Operation;
use crate::ledger::hot_state::HotState;
use crate::ledger::leases::Precondition;
use crate::ledger::sequencer::{Commit, Idempotency};

const NAMES: [&str; 4] = ["audit", "bills", "clicks", "debug"];

/// The kind of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Create,
    Alter,
    Grow,
    Delete,
    Append,
    AppendKeyed,
    AppendRefused,
    Truncate,
    Tier,
    Intend,
    Abandon,
    Compact,
    Index,
    Collect,
    Ceilings,
    Positions,
    DeleteGroup,
    PutDocument,
    DeleteDocument,
    Repeat,
    Resolve,
    Acquire,
    Renew,
    GiveBack,
    AppendLeased,
    InitProducer,
    Enlist,
    AppendOpen,
    Pend,
    End,
    Expire,
    Relocate,
    Write,
    WriteBehind,
    Flush,
    Idle,
    Keep,
    Release,
    Snapshot,
    /// The wall clock jumps.
    Jump,
    Stop,
    Kill,
}

/// How often each kind is drawn.
const WEIGHTS: [(Kind, u64); 42] = [
    (Kind::Create, 6),
    (Kind::Alter, 2),
    (Kind::Grow, 2),
    (Kind::Delete, 3),
    (Kind::Append, 24),
    (Kind::AppendKeyed, 8),
    (Kind::AppendRefused, 3),
    (Kind::Truncate, 5),
    (Kind::Tier, 10),
    (Kind::Intend, 2),
    (Kind::Abandon, 2),
    (Kind::Compact, 4),
    (Kind::Index, 3),
    (Kind::Collect, 3),
    (Kind::Ceilings, 2),
    (Kind::Positions, 3),
    (Kind::DeleteGroup, 2),
    (Kind::PutDocument, 4),
    (Kind::DeleteDocument, 2),
    (Kind::Repeat, 4),
    (Kind::Resolve, 4),
    (Kind::Acquire, 3),
    (Kind::Renew, 2),
    (Kind::GiveBack, 1),
    (Kind::AppendLeased, 4),
    (Kind::InitProducer, 3),
    (Kind::Enlist, 9),
    (Kind::AppendOpen, 16),
    (Kind::Pend, 3),
    (Kind::End, 7),
    (Kind::Expire, 1),
    (Kind::Relocate, 6),
    (Kind::Write, 14),
    (Kind::WriteBehind, 6),
    (Kind::Flush, 8),
    (Kind::Idle, 4),
    (Kind::Keep, 8),
    (Kind::Release, 5),
    (Kind::Snapshot, 4),
    (Kind::Jump, 2),
    (Kind::Stop, 2),
    (Kind::Kill, 1),
];

/// A step: its kind, and where its choices come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) seed: u64,
}

/// `len` steps, beginning with two streams.
pub(super) fn script(seed: u64, len: usize) -> Vec<Step> {
    let random = SeededRandom::new(seed);
    let total: u64 = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let drawn = (0..len).map(|_| {
        let mut at = random.next_u64() % total;
        for (kind, weight) in WEIGHTS {
            if at < weight {
                return kind;
            }
            at -= weight;
        }
        Kind::Append
    });
    let first = [Kind::Create, Kind::Create, Kind::Append];
    let kinds: Vec<Kind> = first.into_iter().chain(drawn).collect();
    kinds.into_iter().map(|kind| Step { kind, seed: random.next_u64() }).collect()
}

pub(super) struct Dice(SeededRandom);

impl Dice {
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.0.next_u64() % bound.max(1)
    }

    pub(super) fn one_in(&self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    pub(super) fn pick<'a, T>(&self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len() as u64) as usize)
    }

    fn uuid(&self) -> Uuid {
        aquifer_env::uuid_v4(&self.0)
    }
}

pub(super) fn path(name: &str) -> StreamPath {
    StreamPath::new(TenantName::default_tenant(), StreamName::new(name).expect("a name"))
}

pub(super) fn group(dice: &Dice) -> GroupName {
    GroupName::new(["readers", "writers"][dice.below(2) as usize]).expect("a name")
}

fn document(dice: &Dice) -> DocumentKey {
    let kinds = [DocumentKind::User, DocumentKind::Group];
    let name = ["ann", "bob"][dice.below(2) as usize];
    DocumentKey::new(TenantName::default_tenant(), kinds[dice.below(2) as usize], name)
}

/// Any of the expectations, those that hold more often than those that do not.
fn expectation(hot: &HotState, dice: &Dice) -> DocumentExpectation {
    let key = document(dice);
    match (dice.below(3), hot.documents.get(&key)) {
        (0, None) => DocumentExpectation::Absent,
        (0, Some(document)) => DocumentExpectation::Version(document.version),
        (1, _) if dice.one_in(3) => DocumentExpectation::Version(1),
        _ => DocumentExpectation::Any,
    }
}

fn lease(dice: &Dice) -> LeaseName {
    LeaseName::new(["coordinator", "sweeper"][dice.below(2) as usize]).expect("a name")
}

/// A grant that is in force, or one of the last that is not.
fn grant(hot: &HotState, dice: &Dice) -> Option<Precondition> {
    let name = lease(dice);
    let newest = match dice.below(3) {
        0 => hot.leases.last_token.get(),
        _ => hot.leases.held.get(&name)?.token.get(),
    };
    let token = LeaseToken(newest.saturating_sub(dice.below(4) / 3));
    Some(Precondition::Lease { name, token })
}

/// A batch that can be told from every other by `content`.
pub(super) fn batch(content: u64, records: u64, bytes: usize, producer: Option<Producer>) -> Batch {
    let mut builder = BatchBuilder::default();
    if let Some(producer) = producer {
        builder = builder.producer(producer.id, producer.epoch, producer.sequence);
    }
    let mut value = content.to_le_bytes().to_vec();
    value.resize(8 + bytes, content as u8);
    for _ in 0..records {
        builder.push(Timestamp(1), None, &[], Some(&value));
    }
    builder.finish()
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Producer {
    pub(super) id: ProducerId,
    pub(super) epoch: ProducerEpoch,
    pub(super) sequence: Sequence,
}

pub(super) fn one(operation: Operation) -> Commit {
    Commit::of(vec![operation])
}

impl Driver {
    /// Does steps until the power is off.
    pub(super) fn run(&mut self, script: &[Step]) {
        for (number, step) in script.iter().enumerate() {
            if self.disk.is_crashed() {
                return;
            }
            if self.parts.is_none() && self.start(&format!("before step {number}")).is_err() {
                continue;
            }
            self.do_one(*step);
        }
        if !self.disk.is_crashed() && self.parts.is_some() {
            self.flush();
            if !self.disk.is_crashed() {
                self.check("at the end of the script");
            }
        }
    }

    pub(super) fn do_one(&mut self, step: Step) {
        self.clock.advance(std::time::Duration::from_millis(7));
        let dice = Dice(SeededRandom::new(step.seed));
        match step.kind {
            Kind::Write => self.write(Vec::new()),
            Kind::WriteBehind => {
                let count = 1 + dice.below(3);
                let behind = (0..count).filter_map(|_| self.append(&dice, false)).collect();
                self.write(behind);
            }
            Kind::Flush => {
                self.flush();
                if self.parts.is_some() && !self.disk.is_crashed() {
                    self.check("after a flush");
                }
            }
            Kind::Idle => {
                self.flush();
                self.idle();
            }
            Kind::Keep => self.keep(false),
            Kind::Release => self.keep(true),
            Kind::Snapshot => self.want_snapshot(),
            Kind::Jump => {
                const HOUR_MS: i64 = 3_600_000;
                const TEN_YEARS_MS: i64 = 87_600 * HOUR_MS;
                let jumps = [0, HOUR_MS, -HOUR_MS, TEN_YEARS_MS, -TEN_YEARS_MS];
                let jump = dice.pick(&jumps).copied().unwrap_or_default();
                self.clock.set_now_ms(1_700_000_000_000 + jump);
            }
            Kind::Stop => self.stop(),
            Kind::Kill => self.kill(),
            Kind::Tier => {
                for commit in self.tier(&dice, true) {
                    self.add(commit);
                }
            }
            Kind::Intend => {
                for commit in self.tier(&dice, false) {
                    self.add(commit);
                }
            }
            Kind::Repeat => {
                let Some((commit, _)) = dice.pick(&self.model.repeatable) else { return };
                if commit.idempotency.is_some() {
                    self.add(Commit { id: None, ..commit.clone() });
                } else if commit.id.is_some() {
                    self.add(commit.clone());
                }
            }
            kind => {
                if let Some(commit) = self.commit(kind, &dice) {
                    self.add(commit);
                }
            }
        }
    }

    fn commit(&mut self, kind: Kind, dice: &Dice) -> Option<Commit> {
        let hot = self.hot();
        let streams: Vec<_> = hot.names.values().copied().collect();
        let mut partitions: Vec<_> = hot.all_partitions().map(|(at, ..)| at).collect();
        partitions.sort_unstable();
        let operation = match kind {
            _ if kind.is_of_transactions() => {
                transactions::operation(kind, &hot, &partitions, dice)?
            }
            Kind::Relocate => return self.relocate(&partitions, dice),
            Kind::Append => return self.append(dice, false),
            Kind::AppendKeyed => return self.append(dice, true),
            Kind::AppendRefused => {
                let mut commit = self.append(dice, false)?;
                let at = *dice.pick(&partitions)?;
                let end = hot.require(at).ok()?.1.end;
                commit.operations.push(Operation::Append {
                    partition: at,
                    batch: batch(dice.below(u64::MAX), 1, 10, None),
                    expected_offset: Some(end.plus(1_000)),
                });
                return Some(commit);
            }
            Kind::Create => Operation::CreateStream {
                id: StreamId(dice.uuid()),
                new: NewStream {
                    path: path(dice.pick(&NAMES)?),
                    partitions: 1 + dice.below(2) as u32,
                    class: match dice.below(3) {
                        0 => StreamClass::Relaxed,
                        _ => StreamClass::Durable,
                    },
                    config: StreamConfig::default(),
                },
            },
            Kind::Alter => Operation::AlterStream {
                id: *dice.pick(&streams)?,
                change: StreamConfigChange {
                    retention_bytes: Some(Some(1 + dice.below(1_000))),
                    ..StreamConfigChange::default()
                },
                expected: None,
            },
            Kind::Grow => {
                let id = *dice.pick(&streams)?;
                let have = hot.stream(id)?.partitions.len() as u32;
                Operation::GrowStream { id, partitions: have + dice.below(2) as u32 }
            }
            Kind::Delete => Operation::DeleteStream { id: *dice.pick(&streams)? },
            Kind::Truncate => {
                let at = *dice.pick(&partitions)?;
                let (_, partition) = hot.require(at).ok()?;
                let range = partition.end.since(partition.start);
                Operation::Truncate {
                    partition: at,
                    start: partition.start.plus(dice.below(range + 2)),
                }
            }
            Kind::Abandon => {
                let chunks: Vec<_> = hot.intents.keys().copied().collect();
                Operation::AbandonUpload { chunk: *dice.pick(&chunks)? }
            }
            Kind::Compact => return self.compact(&hot, &partitions, dice),
            Kind::Index => return self.index(&hot, &partitions, dice),
            Kind::Collect => {
                let index = &self.parts.as_ref()?.shared.index;
                let garbage: Vec<_> = index.garbage.lock().keys().cloned().collect();
                Operation::CollectGarbage { object_paths: vec![dice.pick(&garbage)?.clone()] }
            }
            Kind::Ceilings => {
                let at = *dice.pick(&partitions)?;
                let end = hot.require(at).ok()?.1.end;
                Operation::SetCeilings { ceilings: vec![(at, end.plus(5 + dice.below(50)))] }
            }
            Kind::Positions => Operation::CommitPositions {
                tenant: TenantName::default_tenant(),
                group: group(dice),
                positions: vec![(
                    *dice.pick(&partitions)?,
                    Offset(dice.below(100) as i64),
                    PositionNote::default(),
                )],
            },
            Kind::Acquire => {
                Operation::AcquireLease { name: lease(dice), ttl_ms: 1 + dice.below(300) }
            }
            Kind::Renew | Kind::GiveBack => {
                let Precondition::Lease { name, token } = grant(&hot, dice)? else { return None };
                match kind {
                    Kind::Renew => Operation::RenewLease { name, token, ttl_ms: 100 },
                    _ => Operation::ReleaseLease { name, token },
                }
            }
            Kind::AppendLeased => {
                let require = vec![grant(&hot, dice)?];
                return Some(Commit { require, ..self.append(dice, false)? });
            }
            Kind::Resolve => {
                let known: Vec<_> = hot.attempts.iter().map(|(id, _)| id).collect();
                let unknown = CommitId(dice.uuid());
                let id = if dice.one_in(3) { unknown } else { *dice.pick(&known)? };
                Operation::ResolveCommit { id }
            }
            Kind::PutDocument => Operation::PutDocument {
                key: document(dice),
                value: "x".repeat(dice.below(40) as usize),
                expected: expectation(&hot, dice),
            },
            Kind::DeleteDocument => {
                Operation::DeleteDocument { key: document(dice), expected: expectation(&hot, dice) }
            }
            Kind::DeleteGroup if dice.one_in(2) => Operation::ForgetPositions {
                tenant: TenantName::default_tenant(),
                group: group(dice),
                partitions: partitions.iter().copied().filter(|_| dice.one_in(2)).collect(),
                committed_before: None,
            },
            Kind::DeleteGroup => {
                Operation::DeleteGroup { tenant: TenantName::default_tenant(), group: group(dice) }
            }
            _ => return None,
        };
        Some(one(operation))
    }

    /// An append of one to three batches.
    fn append(&mut self, dice: &Dice, is_keyed: bool) -> Option<Commit> {
        let hot = self.hot();
        let mut partitions: Vec<_> = hot.all_partitions().map(|(at, ..)| at).collect();
        partitions.sort_unstable();
        let mut operations = Vec::new();
        let mut checksum = 0;
        let mut stream = None;
        for _ in 0..1 + dice.below(3) {
            let at = *dice.pick(&partitions)?;
            let (_, partition) = hot.require(at).ok()?;
            let bytes = match dice.below(8) {
                0 => 3_000 + dice.below(9_000) as usize,
                _ => dice.below(500) as usize,
            };
            let content = dice.below(u64::MAX);
            let is_first = operations.is_empty();
            let producer = (is_first && dice.one_in(3)).then(|| {
                // Far from those that the ledger gives.
                let id = ProducerId(1_000_000 + dice.below(2) as i64);
                let known = partition.producers.iter().find(|(known, _)| *known == id);
                let next = known.and_then(|(_, p)| Some((p.epoch, p.batches.back()?.next())));
                let (epoch, sequence) = next.unwrap_or((ProducerEpoch(0), Sequence(0)));
                match dice.below(8) {
                    0 => Producer {
                        id,
                        epoch: ProducerEpoch(epoch.get() + 1),
                        sequence: Sequence(0),
                    },
                    _ => Producer { id, epoch, sequence },
                }
            });
            let records = 1 + dice.below(3);
            let batch = batch(content, records, bytes / records as usize, producer);
            checksum = crc32c::crc32c_append(checksum, batch.bytes());
            let expected_offset = (is_first && dice.one_in(4)).then_some(partition.end);
            stream.get_or_insert(at.stream);
            operations.push(Operation::Append { partition: at, batch, expected_offset });
        }
        let idempotency = is_keyed.then(|| Idempotency {
            tenant: TenantName::default_tenant(),
            key: format!("key-{}", dice.below(u64::MAX)),
            stream: stream.expect("a stream"),
            request_checksum: checksum,
        });
        let id = dice.one_in(3).then(|| CommitId(dice.uuid()));
        Some(Commit { id, operations, idempotency, require: Vec::new() })
    }

    /// Some batches of a tail are written anew: mostly the first ones.
    fn relocate(&self, partitions: &[Partition], dice: &Dice) -> Option<Commit> {
        let at = *dice.pick(partitions)?;
        let parts = self.parts.as_ref()?;
        let tail = parts.shared.index.partition(at)?.with(|state| state.tail.clone());
        let from = if dice.one_in(3) { dice.below(tail.len() as u64) as usize } else { 0 };
        let some = tail.iter().skip(from).take(1 + dice.below(4) as usize);
        let operations: Vec<_> = some
            .map(|entry| {
                let file = parts.reader.pin(entry.file).ok()??;
                let bytes = file.read(entry.position, entry.len.into()).ok()?;
                let batch = Batch::read(bytes).expect("a batch");
                Some(Operation::Relocate { partition: at, batch, appended: entry.appended })
            })
            .collect::<Option<_>>()?;
        (!operations.is_empty()).then(|| Commit::of(operations))
    }

    /// An intent, and the chunk if it `is_added` at once.
    fn tier(&mut self, dice: &Dice, is_added: bool) -> Vec<Commit> {
        let hot = self.hot();
        let mut partitions: Vec<_> = hot.all_partitions().map(|(at, ..)| at).collect();
        partitions.sort_unstable();
        let Some(at) = dice.pick(&partitions).copied() else { return Vec::new() };
        let Some(parts) = &self.parts else { return Vec::new() };
        let Some(log) = parts.shared.index.partition(at) else { return Vec::new() };
        let (base, nexts) = log.with(|state| {
            // Now and then more than is stable, which is refused.
            let stable = if dice.one_in(10) { state.end } else { state.stable() };
            let nexts = state.tail.iter().map(|entry| entry.next).filter(|next| *next <= stable);
            (state.tiered, nexts.collect::<Vec<_>>())
        });
        let Some(next) = dice.pick(&nexts).copied() else { return Vec::new() };
        let chunk = chunk(dice, at, base, next);
        let intent = Operation::IntendUpload {
            chunk: chunk.id,
            partition: at,
            object_path: chunk.object_path.clone(),
        };
        let mut commits = vec![one(intent)];
        if is_added {
            commits.push(one(Operation::AddChunk { chunk }));
        }
        commits
    }

    /// An index of a live chunk, or of one that is not there; the intent is now
    /// and then missing. Both are refused.
    fn index(&self, hot: &HotState, partitions: &[Partition], dice: &Dice) -> Option<Commit> {
        let has_chunks =
            |at: &&Partition| hot.require(**at).is_ok_and(|(_, p)| !p.chunks.is_empty());
        let with_chunks: Vec<_> = partitions.iter().filter(has_chunks).copied().collect();
        let at = *dice.pick(&with_chunks)?;
        let chunks: Vec<_> = hot.require(at).ok()?.1.chunks.iter().collect();
        let (base, chunk) = dice.pick(&chunks).copied()?;
        let index = ChunkId(dice.uuid());
        let index_path = format!("{}/p{}/{base}-{index}.index", at.stream, at.index);
        let intent = Operation::IntendUpload {
            chunk: index,
            partition: at,
            object_path: index_path.clone(),
        };
        let add = Operation::IndexChunk {
            partition: at,
            base: if dice.one_in(12) { base.plus(1) } else { *base },
            chunk: chunk.id,
            index,
            index_path,
            index_bytes: 10,
        };
        let operations = if dice.one_in(12) { vec![add] } else { vec![intent, add] };
        Some(Commit::of(operations))
    }

    fn compact(&self, hot: &HotState, partitions: &[Partition], dice: &Dice) -> Option<Commit> {
        let at = *dice
            .pick(partitions)
            .filter(|at| hot.require(**at).is_ok_and(|(_, p)| p.chunks.len() > 1))
            .or_else(|| {
                partitions
                    .iter()
                    .find(|at| hot.require(**at).is_ok_and(|(_, p)| p.chunks.len() > 1))
            })?;
        let (_, partition) = hot.require(at).ok()?;
        let chunks: Vec<_> = partition.chunks.iter().collect();
        let from = dice.below(chunks.len() as u64 - 1) as usize;
        let taken = &chunks[from..from + 2];
        let added = chunk(dice, at, *taken[0].0, taken[1].1.next);
        let operations = vec![
            Operation::IntendUpload {
                chunk: added.id,
                partition: at,
                object_path: added.object_path.clone(),
            },
            Operation::ReplaceChunks {
                removed: taken.iter().map(|(_, chunk)| chunk.id).collect(),
                added,
            },
        ];
        Some(Commit::of(operations))
    }
}

fn chunk(dice: &Dice, at: Partition, base: Offset, next: Offset) -> ChunkMeta {
    chunk_of(dice.uuid(), at, base, next)
}

/// What the ledger is told of a chunk that nobody wrote.
pub(super) fn chunk_of(id: Uuid, at: Partition, base: Offset, next: Offset) -> ChunkMeta {
    let id = ChunkId(id);
    ChunkMeta {
        id,
        partition: at,
        base,
        next,
        object_path: format!("{}/p{}/{base}-{id}.parquet", at.stream, PartitionIndex(at.index.0)),
        object_bytes: 100,
        checksum: "crc32c:00000000".into(),
        records: next.since(base),
        raw_bytes: 10,
        min_timestamp: Some(Timestamp(1)),
        max_timestamp: Some(Timestamp(1)),
        max_appended: Some(Timestamp(1)),
        epochs: vec![(Epoch(1), base)],
        generation: 0,
        schema_version: 0,
        unfit: None,
        timestamp_type: aquifer_types::TimestampType::Create,
        index_path: None,
        index_bytes: None,
        key_id: None,
    }
}
