//! Scenarios `kill9` and `kill9_relaxed`: the process dies at random moments
//! under load, over and over on the same data; some deaths fall into the
//! recovery itself. Losing the process loses nothing in either class.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::RngExt;
use serde_json::json;

use crate::e2e::history::{History, Rules};
use crate::e2e::load::{self, Writers};
use crate::e2e::server::{Server, Starting};
use crate::e2e::{Context, tiered};
use crate::steps::Report;

const PARTITIONS: u32 = 4;
const WRITERS: u32 = 4;

/// Rounds in the quick and in the full test.
const ROUNDS: (u64, u64) = (10, 200);

const ROUNDS_RELAXED: (u64, u64) = (5, 100);

/// Every so many rounds everything is read again, not only what is new.
const READ_ALL_EVERY: u64 = 10;

/// Load after the last restart: every partition gets some of it.
const LAST_LOAD: Duration = Duration::from_millis(500);

/// Streams of class `durable`.
pub(crate) fn run(context: &Context) -> Result<Report> {
    run_class(context, "durable", Rules::Strict, ROUNDS)
}

/// Streams of class `relaxed`.
pub(crate) fn run_relaxed(context: &Context) -> Result<Report> {
    run_class(context, "relaxed", Rules::Gaps, ROUNDS_RELAXED)
}

fn run_class(context: &Context, class: &str, rules: Rules, rounds: (u64, u64)) -> Result<Report> {
    let directory = context.directory("kill9")?;
    let options = context.options(directory.path());
    let mut random = context.random(1);
    let mut history = History::with_rules(PARTITIONS, rules);
    let mut writers = Writers::new("load", PARTITIONS, WRITERS);
    let rounds = context.count(rounds.0, rounds.1);
    let mut recovery_max = Duration::ZERO;
    let mut kills = 0;

    let mut server = Server::start(&options)?;
    // Small and young chunks, so that deaths fall into tiering too.
    let config = json!({ "chunk_target_bytes": 65_536, "chunk_max_age_ms": 250 });
    server.client().create(&json!({
        "name": "load", "partitions": PARTITIONS, "class": class, "config": config,
    }))?;
    for round in 1..=rounds {
        let moment = Duration::from_millis(random.random_range(50..=800));
        let client = server.client();
        let at_load = server;
        writers.run(&client, &mut random, &mut history, || {
            // The load itself: it runs for this long, then the process dies.
            std::thread::sleep(moment);
            at_load.kill9()
        })?;
        kills += 1;
        if random.random_range(0..5) == 0 {
            let starting = Starting::spawn(&options)?;
            std::thread::sleep(Duration::from_millis(random.random_range(0..60)));
            starting.kill9();
            kills += 1;
        }
        let started = Instant::now();
        server = Server::start(&options).with_context(|| format!("restart {round}"))?;
        recovery_max = recovery_max.max(started.elapsed());
        let all = round % READ_ALL_EVERY == 0 || round == rounds;
        load::check(&server.client(), "load", &mut history, all)
            .with_context(|| format!("round {round} of {rounds}, seed {}", context.seed))?;
    }

    // Cold: everything out of chunks alone. The offsets that a restart left out
    // come to tier 2 with the records behind them.
    writers.run(&server.client(), &mut random, &mut history, || {
        std::thread::sleep(LAST_LOAD);
        Ok(())
    })?;
    load::check(&server.client(), "load", &mut history, false)?;
    tiered(&server.client(), "load")?;
    load::check(&server.client(), "load", &mut history, true).context("after tiering")?;
    let chunks: u64 =
        server.client().partitions("load")?.iter().map(|partition| partition.chunks).sum();
    server.stop()?;
    let verified = options.run(&["verify"]).context("aquifer verify after the last round")?;

    // A run that proved nothing must not pass.
    let counts = history.counts();
    if counts.acked == 0 || chunks == 0 || counts.unknown_present + counts.unknown_absent == 0 {
        bail!("no real test: {counts:?}, {chunks} chunks\n{verified}");
    }
    Ok(Report::passed(format!(
        "{kills} kills, {} acked, {} unknown of which {} present, {chunks} chunks, slowest start {} ms",
        counts.acked,
        counts.unknown_present + counts.unknown_absent,
        counts.unknown_present,
        recovery_max.as_millis(),
    )))
}
