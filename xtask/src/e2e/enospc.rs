//! Scenario `enospc`: a full disk refuses appends with 507, serves reads, and
//! takes appends again once there is room, in the same process.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::e2e::client::{Client, Outcome};
use crate::e2e::history::{Attempt, History, Id, LARGE_WRITERS};
use crate::e2e::mount::{self, Mount};
use crate::e2e::server::Server;
use crate::e2e::{Context, eventually, load};
use crate::steps::Report;

/// Small enough to fill in seconds, large enough for the journal's files.
const DISK_BYTES: u64 = 192 << 20;

/// Records in one append: about 256 KiB.
const APPEND_RECORDS: u64 = 8;

/// Appends after which the disk must have been full.
const APPENDS_MAX: u64 = 10_000;

/// Refusals in a row that count as full: tiering and recycling may make room
/// in between.
const REFUSALS: u64 = 20;

/// Room that was made is noticed within this.
const RESUME_MAX: Duration = Duration::from_secs(30);

pub(crate) fn run(context: &Context) -> Result<Report> {
    if let Some(reason) = mount::impossible() {
        return Ok(Report::could_not_run(reason));
    }
    let directory = context.directory("enospc")?;
    let disk = match Mount::memory(directory.path(), DISK_BYTES) {
        Ok(disk) => disk,
        Err(error) => return Ok(Report::could_not_run(format!("{error:#}"))),
    };
    let options = context.options(directory.path()).with_data(disk.path().join("data"));
    let server = Server::start(&options)?;
    let client = server.client();
    client.create_stream("filler", 1, json!({ "chunk_max_age_ms": 500 }))?;
    client.create_stream("other", 1, json!({}))?;

    let mut history = History::new(1);
    let mut next = 0;
    fill(&client, &mut next, &mut history)?;
    let refused = history.counts();
    check_refusal(&client)?;

    // Reads go on, and every acknowledged record is there.
    load::check(&client, "filler", &mut history, true).context("while the disk is full")?;
    ensure!(client.get_status("/healthz")? == 200, "a full disk must not look dead");

    // Room comes from truncation alone, without a restart.
    let end = history.checked_to(0);
    client.truncate("filler", 0, end).context("truncation on a full disk")?;
    let start = client.partitions("filler")?.first().map(|partition| partition.start_offset);
    ensure!(start == Some(end), "truncated at {end}, but it starts at {start:?}");
    eventually(RESUME_MAX, || {
        let lines = vec![Id { writer: 1, sequence: 0 }.line()];
        match client.append("other", 0, &lines) {
            Outcome::Acked { .. } => Ok(()),
            outcome => bail!("appends do not resume: {outcome:?}"),
        }
    })
    .with_context(|| server.log_tail())?;
    let resumed = append(&client, &mut next);
    let Outcome::Acked { base_offset, .. } = resumed.outcome else {
        bail!("an append after the truncation: {:?}", resumed.outcome);
    };
    ensure!(base_offset >= end, "offset {base_offset} is given twice: the end was {end}");
    server.stop()?;
    options.run(&["verify"]).context("aquifer verify after a full disk")?;
    let counts = history.counts();
    ensure!(counts.refused > refused.refused, "nothing was refused");
    Ok(Report::passed(format!("{} acked, {} refused, then resumed", counts.acked, counts.refused)))
}

/// A program learns from the answer what is wrong, and when to come again.
fn check_refusal(client: &Client) -> Result<()> {
    let line = "x".repeat(256 << 10);
    for _ in 0..APPENDS_MAX {
        // Where there is room meanwhile, the condition keeps it from being done.
        let path = "/v1/streams/filler/records?partition=0&expected_offset=999999999999";
        let Some(refusal) = client.post(path, "text/plain", &line)? else {
            bail!("an append was done whose condition does not hold");
        };
        if refusal.status == 409 {
            continue;
        }
        ensure!(
            refusal.status == 507
                && refusal.kind == "urn:aquifer:problem:storage-full"
                && refusal.retry_after.is_some_and(|seconds| seconds > 0)
                && refusal.media_type == "application/problem+json"
                && refusal.next.contains("truncate"),
            "{refusal:?}"
        );
        return Ok(());
    }
    bail!("nothing is refused any more")
}

/// Appends until the disk is full; any other refusal is an error.
fn fill(client: &Client, next: &mut u64, history: &mut History) -> Result<()> {
    let mut refusals = 0;
    for _ in 0..APPENDS_MAX {
        let attempt = append(client, next);
        match &attempt.outcome {
            Outcome::Acked { .. } => refusals = 0,
            Outcome::Definite { status: 507, .. } => refusals += 1,
            other => bail!("a full disk must answer 507: {other:?}"),
        }
        history.record(vec![attempt], Vec::new());
        if refusals == REFUSALS {
            return Ok(());
        }
    }
    bail!("the disk of {DISK_BYTES} bytes was not full after {APPENDS_MAX} appends")
}

fn append(client: &Client, next: &mut u64) -> Attempt {
    let first = Id { writer: LARGE_WRITERS, sequence: *next };
    *next += APPEND_RECORDS;
    let lines: Vec<String> =
        (first.sequence..*next).map(|sequence| Id { sequence, ..first }.line()).collect();
    let outcome = client.append("filler", 0, &lines);
    Attempt { partition: 0, first, count: APPEND_RECORDS, outcome, known: Instant::now() }
}
