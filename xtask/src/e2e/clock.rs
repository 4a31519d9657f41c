//! Scenario `clock`: the system's clock jumps by hours and by years, both ways,
//! and stands still, under load and over a kill -9 each. No offset, no order and
//! no acknowledged record depends on it; only retention by age follows it.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::client::Client;
use super::history::History;
use super::load::{self, Writers};
use super::server::{Options, Server};
use super::{Context, eventually, tiered};
use crate::debian::Unpacked;
use crate::steps::Report;

const PARTITIONS: u32 = 2;
const WRITERS: u32 = 4;

/// Before each kill and after it.
const LOAD: Duration = Duration::from_millis(400);

/// A stream whose records are kept for half an hour.
const AGED: &str = "aged";
const AGED_MS: u64 = 30 * 60 * 1000;
/// Retention runs once a second here.
const RETENTION_MAX: Duration = Duration::from_secs(20);

const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;
/// A jump is told from the real clock, and from another jump, by this.
const TOLERANCE: i64 = HOUR / 4;

/// What the clock shows.
#[derive(Debug, Clone, Copy)]
enum Clock {
    /// Seconds ahead of the real one.
    Ahead(i64),
    /// This second since 1970, for ever.
    Frozen(i64),
}

const CLOCKS: [Clock; 8] = [
    Clock::Ahead(0),
    Clock::Ahead(HOUR),
    Clock::Ahead(-HOUR),
    Clock::Ahead(10 * YEAR),
    Clock::Ahead(-10 * YEAR),
    Clock::Frozen(1_700_000_000),
    Clock::Frozen(1_900_000_000),
    Clock::Ahead(0),
];

impl Clock {
    /// As libfaketime reads it.
    fn set(self, file: &Path) -> Result<()> {
        let text = match self {
            Self::Ahead(seconds) => format!("{seconds:+}"),
            Self::Frozen(seconds) => seconds.to_string(),
        };
        // Replaced, not rewritten: the server reads it at each look at the clock.
        let next = file.with_extension("next");
        std::fs::write(&next, text)?;
        Ok(std::fs::rename(&next, file)?)
    }

    fn shows(self) -> Result<i64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().cast_signed();
        Ok(match self {
            Self::Ahead(seconds) => now + seconds,
            Self::Frozen(seconds) => seconds,
        })
    }
}

pub(crate) fn run(context: &Context) -> Result<Report> {
    let unpacked = match Unpacked::packages(&context.workspace.target, "libfaketime", &[]) {
        Ok(unpacked) => unpacked,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let library = unpacked.find("libfaketimeMT.so.1").context("no libfaketimeMT.so.1")?;
    let directory = context.directory("clock")?;
    let file = directory.path().join("clock");
    let options = context
        .options(directory.path())
        .with_variable("LD_PRELOAD", &library.to_string_lossy())
        .with_variable("FAKETIME_TIMESTAMP_FILE", &file.to_string_lossy())
        .with_variable("FAKETIME_FMT", "%s")
        .with_variable("FAKETIME_NO_CACHE", "1")
        // As the system does it: a set clock leaves the monotonic one alone.
        .with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .with_variable("NO_FAKE_STAT", "1");
    CLOCKS[0].set(&file)?;
    // First, while no record bears a time that is yet to come.
    let mut server = ages(Server::start(&options)?, &options, &file)?;
    let config = json!({
        "chunk_target_bytes": 65_536, "chunk_max_age_ms": 250, "retention_ms": null,
    });
    server.client().create_stream("s", PARTITIONS, config)?;

    let mut random = context.random(8);
    let mut history = History::new(PARTITIONS);
    let mut writers = Writers::new("s", PARTITIONS, WRITERS);
    for clock in CLOCKS {
        let judge =
            |server: &Server| format!("{clock:?}, seed {}\n{}", context.seed, server.log_tail());
        clock.set(&file)?;
        let client = server.client();
        let at_load = server;
        writers.run(&client, &mut random, &mut history, || {
            // The load itself: it runs for this long, then the process dies.
            std::thread::sleep(LOAD);
            at_load.kill9()
        })?;
        server = Server::start(&options).with_context(|| format!("a start with {clock:?}"))?;
        let client = server.client();
        load::check(&client, "s", &mut history, true).with_context(|| judge(&server))?;
        writers.run(&client, &mut random, &mut history, || {
            std::thread::sleep(LOAD);
            Ok(())
        })?;
        load::check(&client, "s", &mut history, true).with_context(|| judge(&server))?;
        tiered(&client, "s").with_context(|| judge(&server))?;
        load::check(&client, "s", &mut history, true).with_context(|| judge(&server))?;
        shows(&server, clock).with_context(|| judge(&server))?;
    }
    server.stop()?;
    options.run(&["verify"]).context("aquifer verify after the last jump")?;
    let counts = history.counts();
    ensure!(counts.acked > 0, "no real test: {counts:?}");
    Ok(Report::passed(format!("{} clocks, {} acked", CLOCKS.len(), counts.acked)))
}

/// The newest record's time is what the clock shows: the jump has arrived.
fn shows(server: &Server, clock: Clock) -> Result<()> {
    let client = server.client();
    let end = client.partitions("s")?[0].end_offset;
    let records = client.read_to("s", 0, end - 1, end)?;
    let is = records.last().context("no record")?.timestamp / 1000;
    let expected = clock.shows()?;
    ensure!((is - expected).abs() < TOLERANCE, "the newest record is of {is}, not {expected}");
    Ok(())
}

/// A jump ahead deletes nothing while the server runs. The next start believes
/// what records say that were appended since: what is too old for them goes then,
/// and offsets go on.
fn ages(server: Server, options: &Options, file: &Path) -> Result<Server> {
    let client = server.client();
    let append = |client: &Client, stream: &str| {
        client.append_json(stream, &json!({ "records": [{ "value": "a value" }] }))
    };
    let ends = |client: &Client, stream: &str| -> Result<(u64, u64)> {
        let partition = client.partitions(stream)?[0].clone();
        Ok((partition.start_offset, partition.end_offset))
    };
    let config = json!({ "chunk_max_age_ms": 250, "retention_ms": AGED_MS });
    client.create_stream(AGED, 1, config)?;
    append(&client, AGED)?;
    tiered(&client, AGED)?;
    Clock::Ahead(HOUR).set(file)?;
    append(&client, AGED)?;
    tiered(&client, AGED)?;
    // Retention by bytes tells that a round of it has run since the jump.
    client.create_stream("b", 1, json!({ "chunk_max_age_ms": 250, "retention_bytes": 1 }))?;
    for _ in 0..2 {
        append(&client, "b")?;
        tiered(&client, "b")?;
    }
    eventually(RETENTION_MAX, || {
        let (start, _) = ends(&client, "b")?;
        ensure!(start > 0, "retention by bytes keeps everything");
        Ok(())
    })?;
    ensure!(ends(&client, AGED)? == (0, 2), "{AGED} is {:?}", ends(&client, AGED)?);
    server.kill9()?;
    let server = Server::start(options)?;
    let client = server.client();
    eventually(RETENTION_MAX, || {
        let is = ends(&client, AGED)?;
        ensure!(is == (1, 2), "{AGED} is {is:?}");
        Ok(())
    })?;
    append(&client, AGED)?;
    ensure!(ends(&client, AGED)? == (1, 3), "{AGED} is {:?}", ends(&client, AGED)?);
    Ok(server)
}
