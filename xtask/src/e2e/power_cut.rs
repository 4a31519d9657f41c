//! Scenarios `power_cut` and `power_cut_relaxed`: the file system under the data directory loses
//! everything that was not synced, under load, over and over. Class `durable`
//! loses nothing acknowledged, class `relaxed` gives no offset twice.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rand::RngExt;
use serde_json::json;

use crate::e2e::Context;
use crate::e2e::history::{History, Rules};
use crate::e2e::load::{self, Writers};
use crate::e2e::mount::{self, Mount};
use crate::e2e::server::Server;
use crate::steps::Report;

const PARTITIONS: u32 = 4;
const WRITERS: u32 = 4;

/// Cuts in the quick and in the full test.
const CUTS: (u64, u64) = (3, 50);

/// Size of the file system: room for the journal's files and all chunks.
const DISK_BYTES: u64 = 2 << 30;

/// How long clients go on after the cut: whatever is acknowledged then was
/// acknowledged without a disk.
const AFTERMATH: Duration = Duration::from_millis(50);

/// Class `relaxed` may forget what was acknowledged this long before the cut:
/// `relaxed_sync_ms_max`, and time for the sync itself on a busy machine.
const FORGETS: Duration = Duration::from_millis(500);

/// Streams of class `durable`.
pub(crate) fn run(context: &Context) -> Result<Report> {
    run_class(context, "durable", Rules::Strict)
}

/// Streams of class `relaxed`.
pub(crate) fn run_relaxed(context: &Context) -> Result<Report> {
    run_class(context, "relaxed", Rules::Forgetful)
}

fn run_class(context: &Context, class: &str, rules: Rules) -> Result<Report> {
    if let Some(reason) = mount::impossible() {
        return Ok(Report::could_not_run(reason));
    }
    let directory = context.directory("power_cut")?;
    let mut disk = match Mount::ext4(directory.path(), DISK_BYTES) {
        Ok(disk) => disk,
        Err(error) => return Ok(Report::could_not_run(format!("{error:#}"))),
    };
    let options = context.options(directory.path()).with_data(disk.path().join("data"));
    let mut random = context.random(2);
    let mut history = History::with_rules(PARTITIONS, rules);
    let mut writers = Writers::new("load", PARTITIONS, WRITERS);
    let cuts = context.count(CUTS.0, CUTS.1);
    // Long enough to see what class `relaxed` does not sync in time.
    let moments_ms = if rules == Rules::Strict { 50..=800 } else { 700..=2_000 };

    let mut server = Server::start(&options)?;
    // Tiering syncs the journal on its way; class `relaxed` has to do without.
    let config = match rules {
        Rules::Strict => json!({ "chunk_target_bytes": 65_536, "chunk_max_age_ms": 250 }),
        _ => json!({ "chunk_target_bytes": 1 << 30, "chunk_max_age_ms": 3_600_000 }),
    };
    server.client().create(&json!({
        "name": "load", "partitions": PARTITIONS, "class": class, "config": config,
    }))?;
    for cut in 1..=cuts {
        let moment = Duration::from_millis(random.random_range(moments_ms.clone()));
        let client = server.client();
        let cut_at = writers.run(&client, &mut random, &mut history, || {
            // The load itself runs for this long, then goes on without a disk.
            std::thread::sleep(moment);
            let cut_at = Instant::now();
            disk.cut_power()?;
            std::thread::sleep(AFTERMATH);
            server.kill9()?;
            Ok(cut_at)
        })?;
        history.forgets_since(cut_at.checked_sub(FORGETS).unwrap_or(cut_at));
        disk.remount()?;
        server = Server::start(&options).with_context(|| format!("restart {cut}"))?;
        load::check(&server.client(), "load", &mut history, true)
            .with_context(|| format!("cut {cut} of {cuts}, seed {}", context.seed))?;
    }
    server.stop()?;
    options.run(&["verify"]).context("aquifer verify after the last cut")?;
    let counts = history.counts();
    if counts.acked == 0 {
        bail!("no real test: {counts:?}");
    }
    Ok(Report::passed(format!(
        "{cuts} cuts, {} acked, {} of them forgotten, {} refused, {} unknown of which {} present",
        counts.acked,
        counts.forgotten,
        counts.refused,
        counts.unknown_present + counts.unknown_absent,
        counts.unknown_present,
    )))
}
