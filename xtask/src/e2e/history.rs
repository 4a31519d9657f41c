//! The checker: what writers were told against what a later read finds.
//!
//! The server returns the order, so the check is linear. Per partition: an
//! offset has one content for ever; what was acknowledged is there exactly
//! once, at its offset; what was refused is nowhere; what is unknown is there
//! once and whole or not at all, and its fate is settled by the first read
//! after the recovery; offsets have no gaps; a writer's order is kept; what a
//! reader saw stays.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Display, Formatter};
use std::time::Instant;

use crate::e2e::client::Outcome;

/// Violations that are listed before the rest is only counted.
const VIOLATIONS_MAX: usize = 20;

/// Writers from this number on write large records.
pub(crate) const LARGE_WRITERS: u32 = 1 << 16;

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The name of one record: its writer and its number in the writer's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Id {
    pub(crate) writer: u32,
    pub(crate) sequence: u64,
}

impl Display for Id {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "w{}-{}", self.writer, self.sequence)
    }
}

impl Id {
    /// A JSON line that names the record and fills it with bytes that follow
    /// from its name, so that damage shows; up to half a KiB, or 64 KiB from
    /// [`LARGE_WRITERS`] on.
    pub(crate) fn line(self) -> String {
        let mut state = (u64::from(self.writer) << 40) ^ self.sequence ^ 0x5851_f42d_4c95_7f2d;
        let mut draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 32
        };
        let words_max = if self.writer < LARGE_WRITERS { 64 } else { 8192 };
        let words = draw() % words_max;
        let mut line = format!(r#"{{"id":"{self}","filling":""#);
        line.reserve(words as usize * 8 + 2);
        for _ in 0..words {
            let word = draw();
            line.extend((0..8).map(|at| DIGITS[(word >> (4 * at)) as usize & 15] as char));
        }
        line.push_str("\"}");
        line
    }

    /// The record that `line` names, if every byte is as it was written.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let rest = line.strip_prefix(r#"{"id":"w"#)?;
        let (name, _) = rest.split_once('"')?;
        let (writer, sequence) = name.split_once('-')?;
        let id = Self { writer: writer.parse().ok()?, sequence: sequence.parse().ok()? };
        (id.line() == line).then_some(id)
    }
}

/// One append request of a writer: consecutive records for one partition.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) partition: u32,
    pub(crate) first: Id,
    pub(crate) count: u64,
    pub(crate) outcome: Outcome,
    /// When the outcome was known.
    pub(crate) known: Instant,
}

/// A record that a reader saw while writers were at work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) id: Id,
}

/// What a stream's class lets happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Nothing acknowledged is lost, and offsets have no gaps.
    Strict,
    /// Nothing acknowledged is lost; a restart may leave a gap.
    Gaps,
    /// A restart may lose what was acknowledged last (see
    /// [`History::forgets_since`]), and leaves a gap there: an offset that was
    /// given once is never given again.
    Forgetful,
}

/// All that is known about a stream that is never truncated.
#[derive(Debug)]
pub(crate) struct History {
    rules: Rules,
    /// Only what was acknowledged later than this may be lost.
    kept_until: Option<Instant>,
    /// Per partition, the record at each offset.
    log: Vec<BTreeMap<u64, Id>>,
    /// Who was told to have an offset, whether or not it is still there.
    given: HashMap<(u32, u64), Id>,
    places: HashMap<Id, (u32, u64)>,
    /// Per partition, the end of what the last check had seen.
    settled: Vec<u64>,
    /// Since the last check.
    attempts: Vec<Attempt>,
    seen: Vec<Seen>,
    counts: Counts,
    violations: Vec<String>,
    violations_left_out: usize,
}

/// What a history has checked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acked: u64,
    pub(crate) refused: u64,
    pub(crate) unknown_present: u64,
    pub(crate) unknown_absent: u64,
    /// Acknowledged and lost, where that is allowed.
    pub(crate) forgotten: u64,
}

impl History {
    pub(crate) fn new(partitions: u32) -> Self {
        Self::with_rules(partitions, Rules::Strict)
    }

    pub(crate) fn with_rules(partitions: u32, rules: Rules) -> Self {
        Self {
            rules,
            kept_until: None,
            log: vec![BTreeMap::new(); partitions as usize],
            given: HashMap::new(),
            places: HashMap::new(),
            settled: Vec::new(),
            attempts: Vec::new(),
            seen: Vec::new(),
            counts: Counts::default(),
            violations: Vec::new(),
            violations_left_out: 0,
        }
    }

    /// Adds what writers and readers found out since the last check.
    pub(crate) fn record(&mut self, attempts: Vec<Attempt>, seen: Vec<Seen>) {
        self.attempts.extend(attempts);
        self.seen.extend(seen);
    }

    /// What was acknowledged before `moment` must be there at the next checks.
    pub(crate) fn forgets_since(&mut self, moment: Instant) {
        self.kept_until = Some(moment);
    }

    /// The first offset of `partition` that no check has read.
    pub(crate) fn checked_to(&self, partition: u32) -> u64 {
        self.log.get(partition as usize).map_or(0, end_of)
    }

    /// The end of what writers were acknowledged in `partition` and what readers
    /// saw there since the last check.
    pub(crate) fn given_to(&self, partition: u32) -> u64 {
        let acked =
            self.attempts.iter().filter(|of| of.partition == partition).map(
                |attempt| match attempt.outcome {
                    Outcome::Acked { base_offset, count } => base_offset + count,
                    _ => 0,
                },
            );
        let seen = self.seen.iter().filter(|of| of.partition == partition);
        acked.chain(seen.map(|seen| seen.offset + 1)).max().unwrap_or(0)
    }

    /// Counts in records over all checks so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes the answer of a read of `partition` from offset `from` (at most
    /// [`History::checked_to`]) up to its end, as (offset, value) pairs.
    pub(crate) fn read<'a>(
        &mut self,
        partition: u32,
        from: u64,
        records: impl IntoIterator<Item = (u64, &'a str)>,
    ) {
        let mut expected = from;
        for (offset, value) in records {
            if offset < expected || (offset > expected && self.rules == Rules::Strict) {
                self.violation(format!(
                    "{partition}: offset {offset} follows where {expected} should"
                ));
            } else {
                self.still_there(partition, expected, offset);
            }
            expected = offset + 1;
            let Some(id) = Id::of_line(value) else {
                self.violation(format!("{partition}@{offset}: damaged value {value:.80}"));
                continue;
            };
            match self.at(partition, offset) {
                Some(before) if before == id => {}
                Some(before) => {
                    self.violation(format!("{partition}@{offset}: was {before}, is {id} now"));
                }
                None => self.place(partition, offset, id),
            }
        }
        if expected < self.checked_to(partition) {
            let end = self.checked_to(partition);
            self.violation(format!("{partition}: ends at {expected}, it ended at {end} before"));
        }
    }

    /// Takes records that must be as they were up to [`History::checked_to`],
    /// where some at the end may have been lost for a reason that is known, and
    /// others may follow.
    pub(crate) fn same<'a>(
        &mut self,
        partition: u32,
        records: impl IntoIterator<Item = (u64, &'a str)>,
    ) {
        for (offset, value) in records {
            let before = self.at(partition, offset);
            let id = Id::of_line(value);
            let is_new = offset >= self.checked_to(partition) && id.is_some();
            if !is_new && (before.is_none() || id != before) {
                self.violation(format!("{partition}@{offset}: was {before:?}, is {value:.80} now"));
            }
        }
    }

    /// Judges all attempts since the last check by what was read since; every
    /// partition must have been read to its end. The error lists violations.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        let attempts = std::mem::take(&mut self.attempts);
        let mut last: HashMap<(u32, u32), u64> = HashMap::new();
        for attempt in &attempts {
            self.judge(attempt);
            self.judge_order(attempt, &mut last);
        }
        for seen in std::mem::take(&mut self.seen) {
            let Seen { partition, offset, id } = seen;
            self.given.insert((partition, offset), id);
            let now = self.at(partition, offset);
            if now != Some(id) && (now.is_some() || self.rules != Rules::Forgetful) {
                let now = now.map_or("nothing".to_owned(), |id| id.to_string());
                self.violation(format!(
                    "{partition}@{offset}: a reader saw {id}, now there is {now}"
                ));
            }
        }
        self.no_strangers(&attempts);
        if self.violations.is_empty() {
            return Ok(());
        }
        let mut text = self.violations.join("\n");
        if self.violations_left_out > 0 {
            text.push_str(&format!("\nand {} more", self.violations_left_out));
        }
        Err(text)
    }

    fn at(&self, partition: u32, offset: u64) -> Option<Id> {
        self.log[partition as usize].get(&offset).copied()
    }

    /// What an earlier check found from `from` to `to` must not be skipped.
    fn still_there(&mut self, partition: u32, from: u64, to: u64) {
        let skipped = self.log[partition as usize].range(from..to).next();
        if let Some((offset, id)) = skipped {
            let text = format!("{partition}@{offset}: was {id}, is gone now");
            self.violation(text);
        }
    }

    fn place(&mut self, partition: u32, offset: u64, id: Id) {
        self.log[partition as usize].insert(offset, id);
        if let Some((other, at)) = self.places.insert(id, (partition, offset)) {
            self.violation(format!("{id} is at {other}@{at} and at {partition}@{offset}"));
        }
        match self.given.insert((partition, offset), id) {
            Some(before) if before != id => {
                self.violation(format!("{partition}@{offset}: given to {before}, then to {id}"));
            }
            _ => {}
        }
    }

    fn judge(&mut self, attempt: &Attempt) {
        let Attempt { partition, first, count, outcome, known } = attempt;
        let ids: Vec<Id> = ids_of(attempt).collect();
        let places: Vec<_> = ids.iter().map(|id| self.places.get(id).copied()).collect();
        let present = places.iter().flatten().count() as u64;
        match outcome {
            Outcome::Acked { base_offset, count: stored } => {
                self.counts.acked += count;
                if stored != count {
                    self.violation(format!("{first}: {count} records sent, {stored} acknowledged"));
                }
                for (index, (id, place)) in ids.iter().zip(&places).enumerate() {
                    let expected = (*partition, base_offset + index as u64);
                    let (partition, offset) = expected;
                    let now = self.at(partition, offset);
                    let may_be_lost = self.rules == Rules::Forgetful
                        && self.kept_until.is_none_or(|until| *known >= until);
                    if place.is_none() && may_be_lost {
                        self.counts.forgotten += 1;
                        self.given.insert(expected, *id);
                        if let Some(other) = now {
                            self.violation(format!(
                                "{partition}@{offset}: given to {id}, then to {other}"
                            ));
                        }
                    } else if *place != Some(expected) {
                        self.violation(match place {
                            Some((other, at)) => format!(
                                "{id}: acknowledged at {partition}@{offset}, found at {other}@{at}"
                            ),
                            None => format!("{id}: acknowledged at {partition}@{offset}, lost"),
                        });
                    }
                }
            }
            Outcome::Definite { problem, .. } => {
                self.counts.refused += count;
                if present > 0 {
                    self.violation(format!(
                        "{first}: refused ({problem:.80}), but {present} are there"
                    ));
                }
            }
            Outcome::Indefinite { .. } if present == 0 => self.counts.unknown_absent += count,
            Outcome::Indefinite { .. } => {
                self.counts.unknown_present += count;
                let base = places[0].map_or(0, |(_, offset)| offset);
                let whole =
                    (base..).zip(&places).all(|(at, place)| *place == Some((*partition, at)));
                if !whole {
                    self.violation(format!(
                        "{first}: {present} of {count} are there, or out of order"
                    ));
                }
            }
        }
    }

    /// A writer waits for each answer, so its records lie in its order.
    fn judge_order(&mut self, attempt: &Attempt, last: &mut HashMap<(u32, u32), u64>) {
        let Some((partition, offset)) = self.places.get(&attempt.first).copied() else { return };
        let before = last.insert((attempt.first.writer, partition), offset);
        if let Some(before) = before
            && before >= offset
        {
            let first = attempt.first;
            self.violation(format!(
                "{first}: at {partition}@{offset}, below its predecessor at {before}"
            ));
        }
    }

    /// Whatever is stored was sent: by these attempts, or by older ones, whose
    /// fate was settled then.
    fn no_strangers(&mut self, attempts: &[Attempt]) {
        let sent: HashSet<Id> = attempts.iter().flat_map(ids_of).collect();
        let mut strangers = Vec::new();
        for (partition, log) in self.log.iter().enumerate() {
            let settled = self.settled.get(partition).copied().unwrap_or(0);
            for (offset, id) in log.range(settled..) {
                if !sent.contains(id) {
                    strangers.push(format!(
                        "{partition}@{offset}: {id} appeared after its fate was settled"
                    ));
                }
            }
        }
        self.settled = self.log.iter().map(end_of).collect();
        strangers.into_iter().for_each(|text| self.violation(text));
    }

    fn violation(&mut self, text: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(text);
        } else {
            self.violations_left_out += 1;
        }
    }
}

fn end_of(log: &BTreeMap<u64, Id>) -> u64 {
    log.last_key_value().map_or(0, |(last, _)| last + 1)
}

fn ids_of(attempt: &Attempt) -> impl Iterator<Item = Id> + use<> {
    let Id { writer, sequence } = attempt.first;
    (sequence..sequence + attempt.count).map(move |sequence| Id { writer, sequence })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(sequence: u64, count: u64, outcome: Outcome) -> Attempt {
        let first = Id { writer: 1, sequence };
        Attempt { partition: 0, first, count, outcome, known: Instant::now() }
    }

    fn acked(sequence: u64, count: u64, base_offset: u64) -> Attempt {
        attempt(sequence, count, Outcome::Acked { base_offset, count })
    }

    fn unknown(sequence: u64, count: u64) -> Attempt {
        attempt(sequence, count, Outcome::Indefinite { status: 0, problem: "reset".to_owned() })
    }

    fn refused(sequence: u64) -> Attempt {
        attempt(sequence, 1, Outcome::Definite { status: 507, problem: "full".to_owned() })
    }

    /// One check of partition 0, which holds `stored` from offset 0.
    fn check_with(
        history: &mut History,
        attempts: Vec<Attempt>,
        stored: &[u64],
    ) -> Result<(), String> {
        history.record(attempts, Vec::new());
        let lines: Vec<String> =
            stored.iter().map(|sequence| Id { writer: 1, sequence: *sequence }.line()).collect();
        history.read(0, 0, (0..).zip(lines.iter().map(String::as_str)));
        history.settle()
    }

    fn check(attempts: Vec<Attempt>, stored: &[u64]) -> Result<(), String> {
        check_with(&mut History::new(1), attempts, stored)
    }

    #[track_caller]
    fn fails(done: Result<(), String>, part: &str) {
        let text = done.expect_err(part);
        assert!(text.contains(part), "{part} is not in\n{text}");
    }

    #[test]
    fn lines_name_their_record_and_show_damage() {
        for sequence in 0..200 {
            let id = Id { writer: 3, sequence };
            let line = id.line();
            assert_eq!(Id::of_line(&line), Some(id));
            assert_eq!(Id::of_line(&line.replace("filling", "fillinh")), None);
            assert_eq!(Id::of_line(&line[..line.len() - 1]), None);
        }
    }

    #[test]
    fn good_histories_pass() {
        check(vec![], &[]).unwrap();
        check(vec![acked(0, 2, 0), acked(2, 1, 2)], &[0, 1, 2]).unwrap();
        check(vec![acked(0, 1, 0), unknown(1, 2)], &[0]).unwrap();
        check(vec![acked(0, 1, 0), unknown(1, 2)], &[0, 1, 2]).unwrap();
        check(vec![refused(0), acked(1, 1, 0)], &[1]).unwrap();
    }

    #[test]
    fn each_violation_is_found() {
        fails(check(vec![acked(0, 2, 0)], &[0]), "w1-1: acknowledged at 0@1, lost");
        fails(check(vec![acked(0, 1, 0), acked(1, 1, 1)], &[1, 0]), "found at");
        fails(check(vec![acked(0, 1, 0)], &[0, 0]), "w1-0 is at 0@0 and at 0@1");
        fails(check(vec![refused(0)], &[0]), "refused (full), but 1 are there");
        fails(check(vec![unknown(0, 2)], &[0]), "1 of 2 are there");
        fails(check(vec![unknown(0, 2)], &[1, 0]), "out of order");
        fails(check(vec![unknown(0, 1), unknown(1, 1)], &[1, 0]), "below its predecessor");
        fails(check(vec![], &[5]), "w1-5 appeared");
    }

    #[test]
    fn time_changes_nothing_that_was_settled() {
        let after = |stored: &[u64]| {
            let mut history = History::new(1);
            check_with(&mut history, vec![acked(0, 2, 0), unknown(2, 1)], &[0, 1]).unwrap();
            check_with(&mut history, vec![acked(3, 1, 2)], stored)
        };
        after(&[0, 1, 3]).unwrap();
        fails(after(&[0, 1, 2]), "w1-2 appeared after its fate was settled");
        fails(after(&[0]), "ends at 1, it ended at 2 before");
        fails(after(&[1, 0, 3]), "0@0: was w1-0, is w1-1 now");
    }

    #[test]
    fn a_class_lets_happen_what_it_says() {
        let line = |sequence| Id { writer: 1, sequence }.line();
        let check = |rules, lost: &[u64], stored: &[(u64, u64)]| {
            let mut history = History::with_rules(1, rules);
            check_with(&mut history, vec![acked(0, 2, 0)], &[0, 1]).unwrap();
            let attempts = lost.iter().map(|sequence| acked(*sequence, 1, *sequence));
            history.record(attempts.collect(), Vec::new());
            for (offset, sequence) in stored {
                if *offset >= 100 {
                    history.record(vec![acked(*sequence, 1, *offset)], Vec::new());
                }
            }
            let lines: Vec<_> = stored.iter().map(|(offset, id)| (*offset, line(*id))).collect();
            history.read(0, 0, lines.iter().map(|(offset, line)| (*offset, line.as_str())));
            history.settle()
        };
        let after_a_gap = [(0, 0), (1, 1), (100, 9)];
        fails(check(Rules::Strict, &[], &after_a_gap), "offset 100 follows");
        check(Rules::Gaps, &[], &after_a_gap).unwrap();
        fails(check(Rules::Gaps, &[2], &after_a_gap), "w1-2: acknowledged at 0@2, lost");
        check(Rules::Forgetful, &[2], &after_a_gap).unwrap();
        fails(check(Rules::Forgetful, &[], &[(0, 0), (100, 9)]), "0@1: was w1-1, is gone now");
        fails(check(Rules::Forgetful, &[2], &[(0, 0), (1, 1), (2, 9)]), "0@2: given to w1-2");

        let mut history = History::with_rules(1, Rules::Forgetful);
        let old = acked(0, 1, 0);
        history.forgets_since(Instant::now());
        fails(check_with(&mut history, vec![old], &[]), "w1-0: acknowledged at 0@0, lost");
    }

    #[test]
    fn gaps_damage_and_vanished_sights_are_found() {
        let line = |sequence| Id { writer: 1, sequence }.line();
        let (zero, one) = (line(0), line(1));
        let mut history = History::new(1);
        history.record(vec![acked(0, 2, 0)], Vec::new());
        history.read(0, 0, [(0, zero.as_str()), (2, one.as_str())]);
        fails(history.settle(), "offset 2 follows where 1 should");

        let mut history = History::new(1);
        history.read(0, 0, [(0, "{}")]);
        fails(history.settle(), "damaged value");

        let mut history = History::new(1);
        let id = Id { writer: 1, sequence: 1 };
        history.record(
            vec![acked(0, 1, 0), unknown(1, 1)],
            vec![Seen { partition: 0, offset: 1, id }],
        );
        history.read(0, 0, [(0, zero.as_str())]);
        fails(history.settle(), "a reader saw w1-1, now there is nothing");
    }
}
