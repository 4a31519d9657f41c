//! Suites that outsiders wrote to test Kafka or their own client, each against a
//! fresh server: `kafka_rskafka`, `kafka_librdkafka`, `kafka_franz_go` and
//! `kafka_suite_python`.
//!
//! They are fetched by their languages' package managers into `target/suites`
//! and built there; nothing of them is in the repository but the lists beside
//! this file, which say of each test whether it has to pass (`verdict.rs`).
//! docs/kafka-suites.md tells what they found.

mod franz_go;
mod kafka_python;
mod librdkafka;
mod rskafka;
mod source;
mod verdict;

pub(crate) use franz_go::run as franz_go;
pub(crate) use kafka_python::run as kafka_python;
pub(crate) use librdkafka::run as librdkafka;
pub(crate) use rskafka::run as rskafka;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::workspace::{Ended, run_to_end};

/// A command's output, whatever its status: that of a suite says only that some
/// test failed, and which one is in the output. It is kept in `log`.
fn output_of(command: &mut Command, limit: Duration, log: &Path) -> Result<String> {
    let Ended { text, errors, status } = run_to_end(command, limit)?;
    let all = format!("{text}\n── standard error\n{errors}");
    std::fs::write(log, all).with_context(|| format!("cannot write {}", log.display()))?;
    if status.is_none() {
        println!("not done within {limit:?}, killed; its output is in {}", log.display());
    }
    Ok(text)
}

/// Runs what prepares a suite; an error holds the end of its output.
fn prepare(command: &mut Command, limit: Duration) -> Result<()> {
    const LINES_MAX: usize = 20;
    let Ended { text, errors, status } = run_to_end(command, limit)?;
    if status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    let said: Vec<&str> = text.lines().chain(errors.lines()).collect();
    let end = said[said.len().saturating_sub(LINES_MAX)..].join("\n");
    bail!("{:?} did not succeed\n{end}", command.get_program())
}

/// The first of `programs` that this machine does not have.
fn absent<'a>(programs: &[&'a str]) -> Option<&'a str> {
    programs
        .iter()
        .copied()
        .find(|program| Command::new(program).arg("--version").output().is_err())
}
