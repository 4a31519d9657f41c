//! What became of a suite's tests, held against the list of those that must
//! pass.
//!
//! A list has a line for each test: `pass NAME`, or `excused NAME REASON` for one
//! that does not or is not run. A test that is in no list must not fail either,
//! so that a new version of a suite is looked at.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

use crate::steps::Report;

/// How a test ended; of two ends of one test the worse one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    Passed,
    Skipped,
    Failed,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Skipped => "was skipped",
            Self::Failed => "failed",
        }
    }
}

/// How the tests of a suite ended, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes(BTreeMap<String, Outcome>);

impl Outcomes {
    pub(super) fn put(&mut self, name: impl Into<String>, outcome: Outcome) {
        let worst = self.0.entry(name.into()).or_insert(outcome);
        *worst = (*worst).max(outcome);
    }
}

impl Extend<(String, Outcome)> for Outcomes {
    fn extend<T: IntoIterator<Item = (String, Outcome)>>(&mut self, outcomes: T) {
        for (name, outcome) in outcomes {
            self.put(name, outcome);
        }
    }
}

/// A suite's list.
#[derive(Debug)]
pub(super) struct List {
    /// The reason of those that are excused.
    tests: BTreeMap<&'static str, Option<&'static str>>,
}

impl List {
    pub(super) fn parse(text: &'static str) -> Result<Self> {
        let mut tests = BTreeMap::new();
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (word, rest) = line.split_once(' ').with_context(|| format!("no test: {line}"))?;
            let (name, reason) = match word {
                "pass" => (rest, None),
                "excused" => {
                    let parts = rest.split_once(' ');
                    let (name, reason) = parts.with_context(|| format!("no reason: {line}"))?;
                    (name, Some(reason))
                }
                _ => bail!("neither `pass` nor `excused`: {line}"),
            };
            ensure!(tests.insert(name, reason).is_none(), "{name} is there twice");
        }
        Ok(Self { tests })
    }

    /// The names of all tests.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.tests.keys().copied()
    }

    /// Passed and failed are the tests that must pass, and what fails though the
    /// list does not know it. Those that pass beyond the list are named.
    pub(super) fn judge(&self, outcomes: &Outcomes) -> Report {
        let mut report = Report::default();
        let mut failed = |name: &str, how: &str| {
            println!("failed: {name} {how}");
            report.failed += 1;
        };
        let mut beyond = Vec::new();
        for (name, reason) in &self.tests {
            match (reason, outcomes.0.get(*name)) {
                (None, Some(Outcome::Passed)) => report.passed += 1,
                (None, Some(outcome)) => failed(name, outcome.word()),
                (None, None) => failed(name, "was not run to its end"),
                (Some(_), Some(Outcome::Passed)) => beyond.push(*name),
                (Some(_), _) => {}
            }
        }
        for (name, outcome) in &outcomes.0 {
            match (self.tests.contains_key(name.as_str()), outcome) {
                (false, Outcome::Passed) => beyond.push(name),
                (false, Outcome::Failed) => failed(name, "failed, and is in no list"),
                _ => {}
            }
        }
        report.detail = format!("{} of {} tests", report.passed, self.tests.len());
        if !beyond.is_empty() {
            report.detail += &format!("; these pass beyond the list: {}", beyond.join(", "));
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a comment\n\npass good\npass bad\npass gone\n\
                        excused better waits for a mend\nexcused poor wants two brokers\n";

    #[test]
    fn tests_are_held_against_the_list() {
        let list = List::parse(TEXT).unwrap();
        let mut outcomes = Outcomes::default();
        for (name, outcome) in [
            ("good", Outcome::Passed),
            ("bad", Outcome::Passed),
            ("bad", Outcome::Failed),
            ("bad", Outcome::Passed),
            ("better", Outcome::Passed),
            ("poor", Outcome::Failed),
            ("new", Outcome::Failed),
            ("new_and_good", Outcome::Passed),
        ] {
            outcomes.put(name, outcome);
        }
        let report = list.judge(&outcomes);
        assert_eq!((report.passed, report.failed), (1, 3));
        let detail = "1 of 5 tests; these pass beyond the list: better, new_and_good";
        assert_eq!(report.detail, detail);
    }

    #[test]
    fn lists_that_say_nothing_are_refused() {
        for text in ["pass", "excused name", "maybe name", "pass name\npass name"] {
            assert!(List::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_lists_are_lists() {
        for text in [
            include_str!("franz_go.txt"),
            include_str!("kafka_python.txt"),
            include_str!("librdkafka.txt"),
            include_str!("rskafka.txt"),
        ] {
            let list = List::parse(text).unwrap();
            assert!(list.tests.values().any(Option::is_none));
        }
    }
}
