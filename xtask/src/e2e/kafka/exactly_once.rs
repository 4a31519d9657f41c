//! Scenario `kafka_exactly_once`: a worker consumes, transforms and produces in
//! transactions; it and the server are killed at random moments. What comes out
//! is what went in, once and in order.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::RngExt as _;

use super::scripts::{SCRIPT_MAX, Scripts};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;

const SCRIPT: &str = "confluent.py";

/// Rounds in the quick and in the full test. Each kills the worker, every other
/// one the server before it.
const ROUNDS: (u64, u64) = (3, 40);

/// Records that each round brings.
const ROUND_RECORDS: u64 = 400;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("kafka_exactly_once")?;
    let scripts = match Scripts::write(context, directory.path())? {
        Ok(scripts) => scripts,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let mut random = context.random(1);
    let options = context.options(directory.path()).with_fixed_kafka_port(&mut random)?;
    let mut server = Server::start(&options)?;
    let bootstrap = server.kafka()?;
    let topics = scripts.run(SCRIPT, &bootstrap, &["exactly_once_create"])?;
    let (source, target) = topics.trim().split_once(' ').context("two topics")?;

    let rounds = context.count(ROUNDS.0, ROUNDS.1);
    let mut server_kills = 0;
    for round in 0..=rounds {
        let (first, end) = (round * ROUND_RECORDS, (round + 1) * ROUND_RECORDS);
        let numbers = ["produce_numbers", source, &first.to_string(), &end.to_string()];
        scripts.run(SCRIPT, &bootstrap, &numbers)?;
        let worker = Worker::start(&scripts, &bootstrap, source, target)?;
        worker.wait().with_context(|| format!("round {round}\n{}", server.log_tail()))?;
        if round == rounds {
            let check = ["exactly_once_check", target, &end.to_string()];
            scripts.run(SCRIPT, &bootstrap, &check).with_context(|| server.log_tail())?;
            break;
        }
        // The work itself: it goes on for this long, then something dies.
        std::thread::sleep(Duration::from_millis(random.random_range(0..=400)));
        if round % 2 == 1 {
            server.kill9()?;
            server = Server::start(&options)?;
            server_kills += 1;
            std::thread::sleep(Duration::from_millis(random.random_range(0..=400)));
        }
    }
    server.stop()?;
    options.run(&["verify"]).context("aquifer verify")?;
    Ok(Report::passed(format!(
        "{} records, {rounds} kills of the worker, {server_kills} of the server",
        (rounds + 1) * ROUND_RECORDS
    )))
}

/// A process of the worker; killed when dropped, as a crash would.
struct Worker {
    child: Child,
    committed: Receiver<String>,
}

impl Worker {
    fn start(scripts: &Scripts, bootstrap: &str, source: &str, target: &str) -> Result<Self> {
        let errors = scripts.directory().join("worker.log");
        let errors = File::options().create(true).append(true).open(errors)?;
        let mut child = scripts
            .command(SCRIPT, bootstrap, &["transform", source, target, "worker"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()?;
        let (line, committed) = sync_channel(1);
        if let Some(output) = child.stdout.take() {
            // Ends with the process, whose output it must keep reading.
            std::thread::spawn(move || {
                for text in BufReader::new(output).lines().map_while(Result::ok) {
                    // The first line tells that it works; the others find the
                    // channel full.
                    let _ = line.try_send(text);
                }
            });
        }
        Ok(Self { child, committed })
    }

    /// Until its first transaction is committed.
    fn wait(&self) -> Result<()> {
        self.committed.recv_timeout(SCRIPT_MAX).context("the worker commits nothing")?;
        Ok(())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Already ended, or nobody is left to hear of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
