//! Scenario `sync_faults`: the n-th sync of the real process fails with EIO, or
//! is where it dies. A failed sync is never taken for a good one, and appends
//! resume without a restart.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::RngExt;
use serde_json::json;

use crate::e2e::client::{Client, Outcome};
use crate::e2e::history::{Attempt, History, Id};
use crate::e2e::load::{self, Writers};
use crate::e2e::server::Server;
use crate::e2e::{Context, eventually};
use crate::steps::Report;

const PARTITIONS: u32 = 4;
const WRITERS: u32 = 4;

/// Rounds of each kind in the quick and in the full test.
const ROUNDS: (u64, u64) = (4, 100);

/// The fault hits a thread's sync between 1 and two to this power, early ones
/// as often as late ones.
const SYNC_POWER_MAX: u32 = 7;

/// A round's load.
const LOAD: Duration = Duration::from_millis(700);

/// Appends resume within this after a failed sync.
const RESUME_MAX: Duration = Duration::from_secs(20);

/// The writer of the single records that ask whether appends resumed.
const PROBE: u32 = WRITERS;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let strace = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    if !strace.is_ok_and(|status| status.success()) {
        return Ok(Report::could_not_run("strace is not installed"));
    }
    let directory = context.directory("sync_faults")?;
    let options = context.options(directory.path());
    let trace = directory.path().join("trace");
    let mut random = context.random(4);
    let mut history = History::new(PARTITIONS);
    let mut writers = Writers::new("load", PARTITIONS, WRITERS);
    let mut probes = 0;
    let (mut failed, mut killed) = (0, 0);

    let server = Server::start(&options)?;
    let config = json!({ "chunk_target_bytes": 65_536, "chunk_max_age_ms": 250 });
    server.client().create_stream("load", PARTITIONS, config)?;
    server.stop()?;
    let rounds = 2 * context.count(ROUNDS.0, ROUNDS.1);
    for round in 0..rounds {
        let fault = if round % 2 == 0 { "error=EIO" } else { "signal=SIGKILL" };
        let most = 1u64 << random.random_range(0..=SYNC_POWER_MAX);
        let inject =
            format!("inject=fsync,fdatasync:{fault}:when={}", random.random_range(1..=most));
        let trace_path = trace.to_string_lossy();
        // With -D strace is the child, and the server keeps the process id.
        let traced = options.clone().with_wrapper(&[
            "strace",
            "-D",
            "-f",
            "-qq",
            "-o",
            &trace_path,
            "-e",
            "trace=fsync,fdatasync",
            "-e",
            &inject,
        ]);
        // A fault during the start may end the start, never the data.
        let started = Server::start(&traced);
        let at_start = started.is_err();
        if let Ok(mut server) = started {
            let client = server.client();
            writers.run(&client, &mut random, &mut history, || {
                // The load lasts this long; the fault falls somewhere into it.
                std::thread::sleep(LOAD);
                Ok(())
            })?;
            if fault == "error=EIO" {
                resume(&client, &mut probes, &mut history)
                    .with_context(|| format!("round {round}, {inject}\n{}", server.log_tail()))?;
            }
            killed += u64::from(fault != "error=EIO" && server.has_ended()?);
            server.kill9()?;
        }
        killed += u64::from(fault != "error=EIO" && at_start);
        let text = std::fs::read_to_string(&trace).unwrap_or_default();
        failed += u64::from(text.contains("(INJECTED)"));

        let server = Server::start(&options).with_context(|| format!("restart after {inject}"))?;
        load::check(&server.client(), "load", &mut history, true)
            .with_context(|| format!("after {inject}, seed {}", context.seed))?;
        server.stop()?;
    }
    options.run(&["verify"])?;
    let counts = history.counts();
    if failed == 0 || killed == 0 || counts.acked == 0 {
        bail!("no real test: {failed} syncs failed, {killed} killed, {counts:?}");
    }
    Ok(Report::passed(format!(
        "{rounds} rounds, {failed} syncs failed, {} acked, {} unknown of which {} present",
        counts.acked,
        counts.unknown_present + counts.unknown_absent,
        counts.unknown_present,
    )))
}

/// Appends single records until one is acknowledged, in the same process.
fn resume(client: &Client, probes: &mut u64, history: &mut History) -> Result<()> {
    eventually(RESUME_MAX, || {
        let first = Id { writer: PROBE, sequence: *probes };
        *probes += 1;
        let outcome = client.append("load", 0, &[first.line()]);
        let acked = matches!(outcome, Outcome::Acked { .. });
        let told = format!("{outcome:?}");
        let known = Instant::now();
        let attempt = Attempt { partition: 0, first, count: 1, outcome, known };
        history.record(vec![attempt], Vec::new());
        if !acked {
            bail!("appends do not resume: {told}");
        }
        Ok(())
    })
}
