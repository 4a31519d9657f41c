//! What a ledger may and must hold, judged by the answers that it gave.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_types::{
    Batch, CommitId, Epoch, LeaseName, LeaseToken, Offset, Partition, ProducerId, StreamClass,
    Timestamp, TransactionalId,
};

use super::transactions::{Known, content_of_marker};
use crate::Error;
use crate::ledger::event::{Operation, Outcome, Resolution};
use crate::ledger::hot_state::HotState;
use crate::ledger::leases::Precondition;
use crate::ledger::producer::Producers;
use crate::ledger::sequencer::{Commit, Committed};

/// A batch that was seen at an offset: acknowledged, or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placed {
    content: u64,
    next: Offset,
    is_acknowledged: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    /// The state behind the last group that is certainly durable.
    floor: HotState,
    /// Other states that a crash may leave behind.
    candidates: Vec<HotState>,
    records: BTreeMap<Partition, BTreeMap<Offset, Placed>>,
    /// Where the next batch of a partition must be put.
    ends: BTreeMap<Partition, Offset>,
    classes: BTreeMap<Partition, StreamClass>,
    /// Paths of uploads whose intent was acknowledged, and those that may have
    /// been collected.
    pub(super) objects: BTreeSet<String>,
    collected: BTreeSet<String>,
    /// Acknowledged requests that may be repeated.
    pub(super) repeatable: Vec<(Commit, Committed)>,
    /// Attempts that were acknowledged, and those that are said to be absent.
    done: BTreeSet<CommitId>,
    absent: BTreeSet<CommitId>,
    /// Who holds what, as acknowledged, and the highest token.
    leases: BTreeMap<LeaseName, LeaseToken>,
    last_token: LeaseToken,
    /// Transactional ids, and the producer ids that were given.
    pub(super) transactional: BTreeMap<TransactionalId, Known>,
    pub(super) producers_below: ProducerId,
    pub(super) ends_of_transactions: u64,
    epoch: Epoch,
    /// Whether something durable bears the epoch.
    is_epoch_used: bool,
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
}

fn is_append(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Appended(_) | Outcome::Duplicate(_))
}

/// The number in the value of a batch's first record.
pub(super) fn content_of(batch: &Batch) -> u64 {
    if let Some(marker) = content_of_marker(batch) {
        return marker;
    }
    let records = batch.to_records(1 << 20).expect("a batch that decodes");
    let value = records[0].value.as_ref().expect("a value");
    u64::from_le_bytes(value[..8].try_into().expect("eight bytes"))
}

/// The state without what may differ after a crash: offsets and producers of
/// relaxed partitions, the epoch, and when leases run out.
fn comparable(hot: &HotState) -> HotState {
    let mut hot = hot.clone();
    hot.epoch = Epoch(0);
    hot.leases.restart(Timestamp(0));
    for stream in hot.streams.values_mut() {
        stream.epoch = Epoch(0);
        if stream.class == StreamClass::Relaxed {
            for partition in &mut stream.partitions {
                partition.end = Offset::ZERO;
                partition.reserved = Offset::ZERO;
                partition.producers = Producers::default();
                partition.transactions = Default::default();
            }
        }
    }
    hot
}

/// What is in one state and not in the other.
fn difference(possible: &HotState, found: &HotState) -> String {
    let lines = |hot: &HotState| -> Vec<String> {
        let mut lines = vec![
            format!("names {:?}", hot.names),
            format!("groups {:?}, {} positions", hot.groups, hot.group_positions),
            format!("documents {:?}", hot.documents),
            format!("partitions {}", hot.partitions),
            format!("answers {:?}", hot.answers),
            format!("attempts {:?}", hot.attempts),
            format!("leases {:?}", hot.leases),
            format!("transactions {:?}", hot.transactions),
        ];
        lines.extend(hot.intents.iter().map(|intent| format!("intent {intent:?}")));
        for (at, stream, partition) in hot.all_partitions() {
            lines.push(format!("{at} of {:?} {:?}: {partition:?}", stream.path, stream.config));
        }
        lines
    };
    let (possible, found) = (lines(possible), lines(found));
    let missing = possible.iter().filter(|line| !found.contains(line)).map(|l| format!("- {l}"));
    let more = found.iter().filter(|line| !possible.contains(line)).map(|l| format!("+ {l}"));
    missing.chain(more).collect::<Vec<_>>().join("\n")
}

impl Model {
    /// The group was synced: a crash leaves `hot` behind.
    pub(super) fn durable(&mut self, hot: &HotState) {
        self.floor = hot.clone();
        self.candidates.clear();
    }

    /// Something durable bears the epoch: the next start needs another.
    pub(super) fn use_epoch(&mut self) {
        self.is_epoch_used = true;
    }

    /// A crash may leave `hot` behind.
    pub(super) fn possible(&mut self, hot: &HotState) {
        self.candidates.push(hot.clone());
    }

    /// Takes note of an acknowledgement, and checks it against earlier ones.
    pub(super) fn acknowledge(&mut self, commit: Commit, committed: &Committed, hot: &HotState) {
        self.acknowledged += 1;
        assert_eq!(
            committed.outcomes.iter().filter(|outcome| is_append(outcome)).count(),
            commit.operations.iter().filter(|o| matches!(o, Operation::Append { .. })).count(),
        );
        self.know(&commit, committed);
        let mut appends = committed.outcomes.iter().filter(|outcome| is_append(outcome));
        let mut has_appends = false;
        for (operation, outcome) in commit.operations.iter().zip(&committed.outcomes) {
            self.transacted(operation, outcome);
            match operation {
                Operation::Append { partition, batch, expected_offset } => {
                    has_appends = true;
                    let content = content_of(batch);
                    match appends.next().expect("an outcome") {
                        Outcome::Appended(appended) => {
                            assert_eq!(appended.count, batch.header().record_count);
                            let base = appended.base_offset;
                            let due = self.ends.get(partition).copied().unwrap_or_default();
                            assert_eq!(base, due, "{partition}: offsets are contiguous");
                            assert!(expected_offset.is_none_or(|expected| expected == base));
                            let next = base.plus(appended.count.into());
                            self.ends.insert(*partition, next);
                            self.place(*partition, base, next, content, true);
                            if let Some(stream) = hot.stream(partition.stream) {
                                self.classes.insert(*partition, stream.class);
                            }
                        }
                        Outcome::Duplicate(appended) => {
                            let placed = self
                                .records
                                .get(partition)
                                .and_then(|of| of.get(&appended.base_offset))
                                .unwrap_or_else(|| panic!("{partition}: duplicate of nothing"));
                            // A producer's sequence may come again with other bytes.
                            if batch.header().producer_id.is_none() {
                                assert_eq!(placed.content, content, "a duplicate's first answer");
                            }
                        }
                        _ => unreachable!(),
                    }
                }
                Operation::IntendUpload { object_path, .. } => {
                    self.objects.insert(object_path.clone());
                }
                _ => {}
            }
        }
        if has_appends {
            self.repeatable.push((commit, committed.clone()));
        }
    }

    /// An attempt that is said to be absent is never done, nor the other way
    /// round.
    fn know(&mut self, commit: &Commit, committed: &Committed) {
        if let Some(id) = commit.id {
            assert!(!self.absent.contains(&id), "{id} was said to be absent");
            if !self.done.insert(id) {
                // The first answer again, whatever holds now.
                return;
            }
        }
        for condition in &commit.require {
            let Precondition::Lease { name, token } = condition else { continue };
            assert_eq!(self.leases.get(name), Some(token), "done under a stale token of {name}");
        }
        for (operation, outcome) in commit.operations.iter().zip(&committed.outcomes) {
            match (operation, outcome) {
                (Operation::AcquireLease { name, .. }, Outcome::Leased(token)) => {
                    assert!(*token > self.last_token, "{token} after {}", self.last_token);
                    self.last_token = *token;
                    self.leases.insert(name.clone(), *token);
                }
                (Operation::RenewLease { name, token, .. }, _) => {
                    assert_eq!(self.leases.get(name), Some(token));
                }
                (Operation::ReleaseLease { name, token }, _) => {
                    assert_eq!(self.leases.remove(name), Some(*token));
                }
                _ => {}
            }
            let Operation::ResolveCommit { id } = operation else { continue };
            match outcome {
                Outcome::Resolved(Resolution::Absent) => {
                    assert!(!self.done.contains(id), "{id} was acknowledged");
                    self.absent.insert(*id);
                }
                Outcome::Resolved(Resolution::Committed(_)) => {
                    assert!(!self.absent.contains(id), "{id} was said to be absent");
                }
                other => panic!("{id} resolved to {other:?}"),
            }
        }
    }

    /// The commit may have been done.
    pub(super) fn perhaps(&mut self, commit: &Commit) {
        for operation in &commit.operations {
            if let Operation::CollectGarbage { object_paths } = operation {
                self.collected.extend(object_paths.iter().cloned());
            }
        }
    }

    pub(super) fn refuse(&mut self, error: &Error) {
        self.refused += 1;
        assert!(!matches!(error, Error::Internal(_)), "{error}");
    }

    /// Where the next batch of a partition must be put.
    pub(super) fn end_of(&self, at: Partition) -> Offset {
        self.ends.get(&at).copied().unwrap_or_default()
    }

    pub(super) fn set_end(&mut self, at: Partition, end: Offset) {
        self.ends.insert(at, end);
    }

    /// A batch is, or was, at an offset: for ever.
    pub(super) fn place(
        &mut self,
        at: Partition,
        base: Offset,
        next: Offset,
        content: u64,
        is_acknowledged: bool,
    ) {
        let of = self.records.entry(at).or_default();
        if let Some(known) = of.get_mut(&base) {
            assert!(
                known.content == content && known.next == next,
                "{at}: offset {base} names batch {} and batch {content}",
                known.content
            );
            known.is_acknowledged |= is_acknowledged;
            return;
        }
        if let Some((before, known)) = of.range(..base).next_back() {
            assert!(known.next <= base, "{at}: {base} lies in the batch at {before}");
        }
        if let Some((after, _)) = of.range(base..).next() {
            assert!(next <= *after, "{at}: the batch at {base} reaches over {after}");
        }
        of.insert(base, Placed { content, next, is_acknowledged });
    }

    /// Whether a start may find this state.
    pub(super) fn may_be(&self, hot: &HotState) -> bool {
        let found = comparable(hot);
        let mut states = std::iter::once(&self.floor).chain(&self.candidates);
        states.any(|possible| comparable(possible) == found)
    }

    /// Checks what a start found, and goes on from there.
    pub(super) fn recovered(&mut self, hot: &HotState, epoch: Epoch, what: &str) {
        let is_used = std::mem::take(&mut self.is_epoch_used);
        assert!(
            epoch > self.epoch || !is_used && epoch == self.epoch,
            "{what}: epoch {epoch} after {}",
            self.epoch
        );
        assert_eq!(hot.epoch, epoch);
        self.epoch = epoch;
        let found = comparable(hot);
        if !self.may_be(hot) {
            let states = std::iter::once(&self.floor).chain(&self.candidates);
            let differences: Vec<String> =
                states.map(|state| difference(&comparable(state), &found)).collect();
            panic!("{what}: found another state\n{}", differences.join("\nor\n"));
        }
        for (at, stream, partition) in hot.all_partitions() {
            if stream.class == StreamClass::Relaxed {
                let given = self.records.get(&at).and_then(|of| of.last_key_value());
                let given = given.map_or(Offset::ZERO, |(_, placed)| placed.next);
                assert!(
                    partition.end >= given,
                    "{what}: {at} goes on at {}, offsets below {given} were given",
                    partition.end
                );
            }
            self.ends.insert(at, partition.end);
        }
        let found = hot.leases.held.iter().map(|(name, held)| (name.clone(), held.token));
        self.leases = found.collect();
        assert!(hot.leases.last_token >= self.last_token, "{what}: tokens are given again");
        self.recovered_transactions(hot);
        // What was neither acknowledged nor found does not exist.
        self.durable(hot);
    }

    /// Checks a durable partition's tail, `found` as (base, next, content).
    pub(super) fn check_tail(
        &mut self,
        at: Partition,
        hot: &HotState,
        found: &[(Offset, Offset, u64)],
        what: &str,
    ) {
        let (stream, partition) = hot.require(at).expect("a partition");
        for (base, next, content) in found {
            self.place(at, *base, *next, *content, false);
        }
        if stream.class == StreamClass::Relaxed {
            return;
        }
        let mut due = partition.tiered;
        for (base, next, _) in found {
            assert!(
                *base == due || (due == partition.tiered && *base < due && *next > due),
                "{what}: {at}: a gap before {base}, {due} was due"
            );
            due = *next;
        }
        assert_eq!(due, partition.end, "{what}: {at}: the tail ends early");
        let of = self.records.entry(at).or_default();
        for (base, placed) in of.iter() {
            if placed.is_acknowledged && placed.next > partition.tiered {
                assert!(
                    found.contains(&(*base, placed.next, placed.content)),
                    "{what}: {at}: the acknowledged batch at {base} is gone"
                );
            }
        }
    }

    /// Every object that was ever announced is live, announced or garbage.
    pub(super) fn check_objects(&self, known: &BTreeMap<String, &'static str>, what: &str) {
        for path in &self.objects {
            assert!(
                known.contains_key(path) || self.collected.contains(path),
                "{what}: object {path} is forgotten"
            );
        }
    }
}
