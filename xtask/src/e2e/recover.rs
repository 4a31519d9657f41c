//! Scenario `recover`: the data directory is lost, tier 2 is not. What was
//! tiered comes back as it was, what was deleted does not, and no offset is
//! given twice.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::e2e::client::{Client, Outcome};
use crate::e2e::history::{History, Id};
use crate::e2e::load::{self, Writers};
use crate::e2e::server::Server;
use crate::e2e::{Context, eventually, tiered};
use crate::steps::Report;

const PARTITIONS: u32 = 2;

/// Load before and after what is tiered.
const LOAD_MS: (u64, u64) = (500, 10_000);

/// Partition 0 of the stream `truncated` starts here.
const START: u64 = 5;

/// The manifest follows a tiering round within this.
const MANIFEST_MAX: Duration = Duration::from_secs(20);

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("recover")?;
    let url = format!("file://{}", directory.path().join("tier2").display());
    let options = context.options(directory.path()).with_arguments(&["--tier2", &url]);
    let server = Server::start(&options)?;
    let client = server.client();
    let config = json!({
        "chunk_target_bytes": 65_536, "chunk_max_age_ms": 200, "retention_ms": 123_456_789,
    });
    for stream in ["load", "truncated", "deleted"] {
        client.create_stream(stream, PARTITIONS, config.clone())?;
    }
    let mut random = context.random(7);
    let mut history = History::new(PARTITIONS);
    let mut writers = Writers::new("load", PARTITIONS, 4);
    let phase = Duration::from_millis(context.count(LOAD_MS.0, LOAD_MS.1));
    let work = || {
        std::thread::sleep(phase);
        Ok(())
    };
    for (writer, stream) in [(10, "truncated"), (11, "deleted")] {
        for sequence in 0..2 * START {
            must_append(&client, stream, Id { writer, sequence })?;
        }
        tiered(&client, stream)?;
    }
    client.truncate("truncated", 0, START)?;
    client.delete_stream("deleted")?;
    writers.run(&client, &mut random, &mut history, work)?;
    load::check(&client, "load", &mut history, true)?;
    tiered(&client, "load")?;
    let safe: Vec<u64> =
        client.partitions("load")?.iter().map(|partition| partition.tiered_offset).collect();
    let described = description(&client, "load")?;
    // The manifest is written after the round that it tells of.
    let before = manifests(directory.path())?;
    writers.run(&client, &mut random, &mut history, work)?;
    load::check(&client, "load", &mut history, true)?;
    tiered(&client, "load")?;
    eventually(MANIFEST_MAX, || {
        ensure!(manifests(directory.path())? != before, "no manifest follows");
        Ok(())
    })?;
    // The machine is lost in the middle of the load: some of what it was told
    // last is in tier 2, the rest is gone, and its offsets stay taken.
    let partitions = client.partitions("load")?;
    let mut last = History::new(PARTITIONS);
    writers.run(&client, &mut random, &mut last, || {
        std::thread::sleep(phase);
        server.kill9()
    })?;
    let ends: Vec<u64> = partitions
        .iter()
        .map(|partition| partition.end_offset.max(last.given_to(partition.partition)))
        .collect();
    std::fs::remove_dir_all(options.data())?;

    let told = options.run(&["recover", "--from", &url]).context("aquifer recover")?;
    let server = Server::start(&options)?;
    let client = server.client();
    let mut recovered = 0;
    for (partition, (safe, end)) in client.partitions("load")?.iter().zip(safe.iter().zip(&ends)) {
        let number = partition.partition;
        ensure!(partition.start_offset == 0, "{partition:?} does not start at 0");
        let records = client.read_to("load", number, 0, partition.end_offset)?;
        let contiguous = (0..).zip(&records).all(|(offset, record)| record.offset == offset);
        ensure!(contiguous, "load/{number} has gaps");
        let count = records.len() as u64;
        ensure!(count >= *safe, "load/{number}: {count} records, {safe} were tiered\n{told}");
        history.same(number, records.iter().map(|record| (record.offset, record.text())));
        recovered += count;
        let id = Id { writer: 20, sequence: u64::from(number) };
        match client.append("load", number, &[id.line()]) {
            Outcome::Acked { base_offset, .. } if base_offset >= *end => {}
            other => bail!("load/{number} ended at {end}, and goes on so: {other:?}"),
        }
    }
    history.settle().map_err(|violations| anyhow::anyhow!("other records:\n{violations}"))?;
    ensure!(description(&client, "load")? == described, "the configuration is another one");
    let status = client.get_status("/v1/streams/deleted")?;
    ensure!(status == 404, "the deleted stream answers {status}");
    let start = client.partitions("truncated")?.first().map(|partition| partition.start_offset);
    ensure!(start == Some(START), "truncated at {START}, starts at {start:?}");
    server.stop()?;
    options.run(&["verify", "--tier2", &url]).context("aquifer verify after the recovery")?;
    let total: u64 = ends.iter().sum();
    Ok(Report::passed(format!("{recovered} records came back, {total} were acknowledged")))
}

fn must_append(client: &Client, stream: &str, id: Id) -> Result<()> {
    match client.append(stream, 0, &[id.line()]) {
        Outcome::Acked { .. } => Ok(()),
        other => bail!("{stream}: {other:?}"),
    }
}

/// What must survive of a stream's description.
fn description(client: &Client, stream: &str) -> Result<[Value; 4]> {
    let text = client.get_text(&format!("/v1/streams/{stream}"))?;
    let mut described: Value = serde_json::from_str(&text)?;
    Ok(["name", "id", "class", "config"].map(|field| described[field].take()))
}

/// The names of the manifests in tier 2.
fn manifests(directory: &std::path::Path) -> Result<Vec<std::ffi::OsString>> {
    let meta = directory.join("tier2/_meta");
    let entries =
        std::fs::read_dir(&meta).with_context(|| format!("cannot list {}", meta.display()))?;
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
