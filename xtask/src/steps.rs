//! Runs named steps, goes on after a failure, and sums up at the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};

/// What a step that did not break has to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Counts and figures for the summary line.
    pub(crate) detail: String,
    /// Checks that passed and failed; a step without own counts is one.
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// What this machine did not allow, one sentence each.
    pub(crate) gaps: Vec<String>,
}

impl Report {
    /// One check that passed.
    pub(crate) fn passed(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), passed: 1, ..Self::default() }
    }

    /// Nothing was checked, for `reason`.
    pub(crate) fn could_not_run(reason: impl Into<String>) -> Self {
        Self { gaps: vec![reason.into()], ..Self::default() }
    }

    /// The same, with a part that could not run.
    pub(crate) fn with_gap(mut self, reason: impl Into<String>) -> Self {
        self.gaps.push(reason.into());
        self
    }
}

/// Runs steps one after the other and keeps their outcomes.
#[derive(Debug)]
pub(crate) struct Runner {
    started: Instant,
    done: Vec<Done>,
}

#[derive(Debug)]
struct Done {
    name: &'static str,
    took: Duration,
    outcome: Result<Report>,
}

impl Runner {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), done: Vec::new() }
    }

    /// Runs one step; an error or a panic is a failure of that step alone.
    pub(crate) fn step(&mut self, name: &'static str, step: impl FnOnce() -> Result<Report>) {
        println!("── {name}");
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(step))
            .unwrap_or_else(|_| Err(anyhow!("panicked; its message is above")));
        if let Err(error) = &outcome {
            println!("{name} failed: {error:#}");
        }
        self.done.push(Done { name, took: started.elapsed(), outcome });
    }

    /// Prints the summary, the line `N passed, N failed` last; true if nothing
    /// failed.
    pub(crate) fn finish(&self) -> bool {
        let (lines, good) = self.summary();
        println!("\n{}", lines.join("\n"));
        good
    }

    fn summary(&self) -> (Vec<String>, bool) {
        let (mut lines, mut gaps, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        let (mut passed, mut failed) = (0, 0);
        for Done { name, took, outcome } in &self.done {
            let (word, detail) = match outcome {
                Ok(report) => {
                    passed += report.passed;
                    failed += report.failed;
                    gaps.extend(
                        report.gaps.iter().map(|gap| format!("could not run: {name}: {gap}")),
                    );
                    (word_for(report), report.detail.clone())
                }
                Err(error) => {
                    failed += 1;
                    errors.push(format!("failed: {name}: {}", first_lines(error)));
                    ("FAILED", String::new())
                }
            };
            let line = format!("{word:<7} {:>7.1} s  {name:<16} {detail}", took.as_secs_f64());
            lines.push(line.trim_end().to_owned());
        }
        lines.append(&mut errors);
        lines.append(&mut gaps);
        lines.push(format!("total {:.1} s", self.started.elapsed().as_secs_f64()));
        lines.push(format!("{passed} passed, {failed} failed"));
        (lines, failed == 0)
    }
}

fn word_for(report: &Report) -> &'static str {
    match report {
        Report { failed: 1.., .. } => "FAILED",
        Report { passed: 1.., .. } => "ok",
        _ => "skipped",
    }
}

/// The summary repeats only the beginning of an error; all of it was printed
/// where it happened.
fn first_lines(error: &Error) -> String {
    const LINES_MAX: usize = 5;
    let text = format!("{error:#}");
    let mut lines: Vec<&str> = text.lines().take(LINES_MAX).collect();
    if text.lines().count() > LINES_MAX {
        lines.push("…");
    }
    lines.join("\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_do_not_stop_later_steps_and_are_counted() {
        let mut runner = Runner::start();
        runner.step("good", || Ok(Report::passed("3 things")));
        runner.step("bad", || Err(anyhow!("broken\nhere")));
        runner.step("worse", || panic!("planted"));
        runner.step("counted", || Ok(Report { passed: 7, failed: 2, ..Report::default() }));
        runner.step("absent", || Ok(Report::could_not_run("no root")));
        runner.step("half", || Ok(Report::passed("").with_gap("no network")));
        let (lines, good) = runner.summary();
        let text = lines.join("\n");
        assert!(!good);
        assert_eq!(lines.last().unwrap(), "9 passed, 4 failed");
        for part in [
            "ok ",
            "3 things",
            "failed: bad: broken\n    here",
            "failed: worse: panicked",
            "could not run: absent: no root",
            "could not run: half: no network",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(lines[4].starts_with("skipped"), "{text}");
    }
}
