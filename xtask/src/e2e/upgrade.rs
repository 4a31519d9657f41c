//! Scenario `upgrade`: data directories that earlier format versions wrote are
//! opened, and go on.
//!
//! Each is `xtask/fixtures/data-v<N>.tar.gz`, written once by
//! `cargo xtask fixture N` with the release that introduced a format, and never
//! changed afterwards. All hold the same streams, so that one check fits all.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use crate::e2e::client::{Client, Outcome};
use crate::e2e::history::Id;
use crate::e2e::server::{Options, Server};
use crate::e2e::{Context, tiered};
use crate::steps::Report;
use crate::workspace::run_quietly;

const PARTITIONS: u32 = 2;
const APPENDS: u64 = 5;
const APPEND_RECORDS: u64 = 20;

/// The streams of a fixture: name, writer, largest age of a chunk in ms, and
/// the offset that partition 0 was truncated to.
const STREAMS: [(&str, u32, u64, u64); 3] =
    [("cold", 0, 100, 0), ("hot", 1, 3_600_000, 0), ("truncated", 2, 100, 30)];

/// A stream that was deleted and must not come back.
const DELETED: &str = "deleted";

pub(crate) fn run(context: &Context) -> Result<Report> {
    let fixtures = fixtures(&context.workspace.root)?;
    ensure!(!fixtures.is_empty(), "there is no xtask/fixtures/data-v*.tar.gz");
    for fixture in &fixtures {
        let directory = context.directory("upgrade")?;
        run_quietly(Command::new("tar").arg("-xzf").arg(fixture).arg("-C").arg(directory.path()))?;
        opens(&context.options(directory.path()))
            .with_context(|| format!("{}", fixture.display()))?;
    }
    Ok(Report::passed(format!("{} data directories", fixtures.len())))
}

/// Writes the fixture of format version `version` with the current binary.
pub(crate) fn write_fixture(context: &Context, version: u32) -> Result<PathBuf> {
    let directory = context.workspace.root.join("xtask/fixtures");
    std::fs::create_dir_all(&directory)?;
    let fixture = directory.join(format!("data-v{version}.tar.gz"));
    if fixture.exists() {
        bail!("{} exists; a fixture is never changed", fixture.display());
    }
    let scratch = context.directory("fixture")?;
    let options = context.options(scratch.path());
    let server = Server::start(&options)?;
    let client = server.client();
    for (stream, writer, age_ms, start) in STREAMS {
        fill(&client, stream, writer, age_ms)?;
        if age_ms < 1_000 {
            tiered(&client, stream)?;
        }
        if start > 0 {
            client.truncate(stream, 0, start)?;
        }
    }
    fill(&client, DELETED, 9, 100)?;
    client.delete_stream(DELETED)?;
    server.stop()?;
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(&fixture).arg("-C").arg(scratch.path()).arg("data");
    run_quietly(&mut tar)?;
    Ok(fixture)
}

fn fixtures(root: &Path) -> Result<Vec<PathBuf>> {
    let directory = root.join("xtask/fixtures");
    let entries = std::fs::read_dir(&directory)
        .with_context(|| format!("cannot list {}", directory.display()))?;
    let mut found = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    found.retain(|path| path.to_string_lossy().ends_with(".tar.gz"));
    found.sort();
    Ok(found)
}

fn fill(client: &Client, stream: &str, writer: u32, age_ms: u64) -> Result<()> {
    let config = json!({
        "chunk_target_bytes": 65_536, "chunk_max_age_ms": age_ms, "retention_ms": null,
    });
    client.create_stream(stream, PARTITIONS, config)?;
    for partition in 0..PARTITIONS {
        for append in 0..APPENDS {
            let from = append * APPEND_RECORDS;
            must_append(client, stream, partition, writer, from, APPEND_RECORDS)?;
        }
    }
    Ok(())
}

/// The records of partition `p` are those of writer `100 * writer + p`, and
/// their sequences are their offsets.
fn id(writer: u32, partition: u32, sequence: u64) -> Id {
    Id { writer: 100 * writer + partition, sequence }
}

fn must_append(
    client: &Client,
    stream: &str,
    partition: u32,
    writer: u32,
    from: u64,
    count: u64,
) -> Result<()> {
    let lines: Vec<String> =
        (from..from + count).map(|sequence| id(writer, partition, sequence).line()).collect();
    match client.append(stream, partition, &lines) {
        Outcome::Acked { base_offset, .. } if base_offset == from => Ok(()),
        other => bail!("{stream}/{partition}: {other:?}, not at {from}"),
    }
}

fn opens(options: &Options) -> Result<()> {
    options.run(&["verify"]).context("aquifer verify before the first start")?;
    let server = Server::start(options)?;
    goes_on(&server.client()).with_context(|| server.log_tail())?;
    server.stop()?;
    options.run(&["verify"]).context("aquifer verify after it")?;
    Ok(())
}

fn goes_on(client: &Client) -> Result<()> {
    let end = APPENDS * APPEND_RECORDS;
    let status = client.get_status(&format!("/v1/streams/{DELETED}"))?;
    ensure!(status == 404, "the deleted stream answers {status}");
    for (stream, writer, _, start_of_first) in STREAMS {
        for partition in client.partitions(stream)? {
            let number = partition.partition;
            let start = if number == 0 { start_of_first } else { 0 };
            ensure!(
                (partition.start_offset, partition.end_offset) == (start, end),
                "{stream}: {partition:?} was {start} to {end}"
            );
            must_append(client, stream, number, writer, end, 1)?;
            let records = client.read_to(stream, number, start, end + 1)?;
            let found: Vec<_> =
                records.iter().map(|record| (record.offset, Id::of_line(record.text()))).collect();
            let expected: Vec<_> =
                (start..=end).map(|offset| (offset, Some(id(writer, number, offset)))).collect();
            ensure!(found == expected, "{stream}/{number} holds other records");
        }
    }
    Ok(())
}
