//! Figure `kafka-librdkafka`: the load program of librdkafka, the client that
//! those of C, Python, Go, .NET and Node stand on.
//!
//! It is built on first use, from the sources in a crate that cargo fetches.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::tools::RECORD_BYTES;
use super::{Bench, SIDES, Side, duration, rounds, verdict};
use crate::bench::Context;
use crate::bench::measure::{Table, figure, median};
use crate::workspace::{run_quietly, run_within};

const CRATE: &str = "rdkafka-sys";
const VERSION: &str = "4.10.0+2.12.1";
const RELEASE: &str = "2.12.1";
/// What the measurement does not need, and another machine may not have.
const CONFIGURE: [&str; 6] = [
    "--disable-ssl",
    "--disable-gssapi",
    "--disable-curl",
    "--disable-zstd",
    "--disable-lz4-ext",
    "--disable-c11threads",
];
const RUN_MAX: Duration = Duration::from_secs(300);
const PARTITIONS: [u32; 2] = [1, 16];
/// How many records tell the rate from which the measured run has its length. The
/// program may wait for a second at its end: few would tell little.
const WARM_UP: u64 = 500_000;
const GOAL: f64 = 2.0;

pub(in crate::bench) fn run(context: &Context) -> Result<String> {
    let program = built(context, &context.workspace.target.join("tools/librdkafka"))?;
    let bench = Bench::start(context, "kafka-librdkafka", &[])?;
    let mut table = Table::new(&[
        "partitions",
        "Aquifer MB/s",
        "Kafka, synced MB/s",
        "Kafka, default MB/s",
        "by synced",
        "by default",
    ]);
    let mut worst = f64::INFINITY;
    for partitions in PARTITIONS {
        let mut runs = Vec::new();
        for round in rounds(context) {
            let mut rates = [0.0; 3];
            for side in round {
                rates[side as usize] = produce(context, &bench, &program, side, partitions)?;
            }
            println!("{partitions} partitions: {rates:.1?} MB/s");
            runs.push(rates);
        }
        let by = |other: Side| {
            let ratios =
                runs.iter().map(|rates| rates[Side::Aquifer as usize] / rates[other as usize]);
            median(ratios)
        };
        worst = worst.min(by(Side::Synced));
        let mut cells = vec![partitions.to_string()];
        let of = |side: Side| median(runs.iter().map(|rates| rates[side as usize]));
        cells.extend(SIDES.map(|side| figure(of(side))));
        cells.extend([Side::Synced, Side::Default].map(|side| figure(by(side))));
        table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    Ok(format!(
        "{}\nGoal: at least {GOAL} times Kafka with `flush.messages=1`; the least is **{}**, {}. \
         `rdkafka_performance` of librdkafka {RELEASE} with its defaults and `acks=all`, one \
         producer, uncompressed records of {RECORD_BYTES} B, each run of about {} s after one of \
         {WARM_UP} records, into a topic of its own after a `sync` of the machine. {} rounds, \
         another side first in each; medians, and of the ratios within a round.\n",
        table.into_text(),
        figure(worst),
        verdict(worst >= GOAL),
        duration(context),
        rounds(context).count(),
    ))
}

fn produce(
    context: &Context,
    bench: &Bench,
    program: &Path,
    side: Side,
    partitions: u32,
) -> Result<f64> {
    let topic = bench.create(side, partitions, json!({}))?;
    run_quietly(&mut Command::new("sync"))?;
    let send = |records: u64| {
        let mut command = Command::new(program);
        command.args(["-P", "-q", "-a", "-1", "-b", bench.bootstrap(side), "-t", &topic]);
        command.args(["-s", &RECORD_BYTES.to_string(), "-c", &records.to_string()]);
        let text = run_within(&mut command, RUN_MAX)?;
        records_per_second(&text, records).with_context(|| format!("it printed {text}"))
    };
    let records = send(WARM_UP)? * duration(context);
    let rate = send(records as u64)? * RECORD_BYTES as f64 / 1e6;
    bench.delete(side, &topic)?;
    Ok(rate)
}

/// From the last summary: `…, 9 delivered (…) in 9ms: 9 msgs/s and …`.
fn records_per_second(text: &str, records: u64) -> Result<f64> {
    let summary = text.lines().rfind(|line| line.contains(" messages produced "));
    let summary = summary.context("no summary")?;
    let before = |unit: &str| {
        let (before, _) = summary.split_once(unit)?;
        before.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let delivered = before(" delivered ").context("nothing is said of deliveries")?;
    ensure!(delivered as u64 == records, "{delivered} of {records} records were acknowledged");
    before(" msgs/s ").context("no rate")
}

/// Builds the program, or finds it built.
fn built(context: &Context, folder: &Path) -> Result<PathBuf> {
    let source = folder.join(RELEASE);
    let program = source.join("examples/rdkafka_performance");
    if program.is_file() {
        return Ok(program);
    }
    println!("building librdkafka {RELEASE} in {}", source.display());
    std::fs::create_dir_all(folder)?;
    let fetched = fetched(context, folder)?;
    run_quietly(Command::new("cp").arg("-r").arg(&fetched).arg(&source))?;
    // It comes configured for a build of another kind.
    run_quietly(Command::new("./configure").args(CONFIGURE).current_dir(&source))?;
    for (part, target) in [("src", "librdkafka.a"), ("examples", "rdkafka_performance")] {
        run_quietly(Command::new("make").args(["-C", part, target]).current_dir(&source))?;
    }
    ensure!(program.is_file(), "{} was not built", program.display());
    Ok(program)
}

/// The sources, fetched by cargo as a dependency of an empty package.
fn fetched(context: &Context, folder: &Path) -> Result<PathBuf> {
    let package = folder.join("fetch");
    std::fs::create_dir_all(package.join("src"))?;
    std::fs::write(package.join("src/lib.rs"), "")?;
    let manifest = package.join("Cargo.toml");
    std::fs::write(
        &manifest,
        format!(
            "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
             [dependencies]\n{CRATE} = {{ version = \"={VERSION}\", default-features = false }}\n\
             [workspace]\n"
        ),
    )?;
    let mut command = context.workspace.cargo("metadata --format-version 1 --manifest-path");
    let metadata: Value = serde_json::from_str(&run_quietly(command.arg(&manifest))?)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let of_crate = packages.iter().find(|package| package["name"] == CRATE);
    let manifest = of_crate.and_then(|package| package["manifest_path"].as_str());
    let manifest = manifest.with_context(|| format!("cargo did not fetch {CRATE}"))?;
    Ok(Path::new(manifest).with_file_name("librdkafka"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_summary_counts() {
        let line = |sent: u32, rate: u32| {
            format!(
                "% {sent} messages produced (1 bytes), {sent} delivered (offset 0, 0 failed) in \
                 9ms: {rate} msgs/s and 1.00 MB/s, 0 produce failures, 0 in queue, no compression\n"
            )
        };
        let text = line(10, 5) + &line(30, 7);
        assert_eq!(records_per_second(&text, 30).ok(), Some(7.0));
        assert!(records_per_second(&text, 31).is_err());
        assert!(records_per_second("", 0).is_err());
    }
}
