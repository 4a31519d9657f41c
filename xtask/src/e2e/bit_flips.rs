//! Scenario `bit_flips`: one bit of one file of a stopped server's data is
//! flipped. `aquifer verify` finds it, or it changes nothing; a server started
//! on it refuses, answers an error, or serves the right bytes, and never
//! forgets a record in silence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rand::RngExt;
use serde_json::json;

use crate::e2e::client::Client;
use crate::e2e::history::{History, Id};
use crate::e2e::load::{self, Writers};
use crate::e2e::server::{Options, Server};
use crate::e2e::{Context, tiered};
use crate::steps::Report;
use crate::workspace::run_quietly;

const PARTITIONS: u32 = 2;

/// Flips in the quick and in the full test.
const FLIPS: (u64, u64) = (30, 1_000);

/// Load before and after the tiering, so that both journal and chunks hold
/// records that are nowhere else.
const LOAD: Duration = Duration::from_millis(400);

/// The records of each partition by offset.
type Content = Vec<BTreeMap<u64, Id>>;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("bit_flips")?;
    let options = context.options(directory.path());
    let content = prepare(context, &options)?;
    let mut random = context.random(6);
    let files = files_with_data(options.data())?;
    ensure!(!files.is_empty(), "there are no files below {}", options.data().display());
    let (mut found, mut harmless, mut refused) = (0u64, 0u64, 0u64);
    let flips = context.count(FLIPS.0, FLIPS.1);
    for _ in 0..flips {
        let file = &files[random.random_range(0..files.len())];
        let trial = directory.path().join("trial");
        // A server changes its data even where it only starts.
        run_quietly(Command::new("cp").arg("-a").arg(options.data()).arg(&trial))?;
        let trial_options = context.options(directory.path()).with_data(trial.clone());
        let damage = flip(&trial.join(file), &mut random)?;
        let place = format!("{}, {damage}, seed {}", file.display(), context.seed);

        let verified = trial_options.run(&["verify"]);
        match &verified {
            Ok(_) => harmless += 1,
            Err(error) => {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let text = format!("{error:#}");
                ensure!(text.contains(&*name), "verify does not name {place}:\n{text}");
                ensure!(!text.contains("panicked"), "verify panicked at {place}:\n{text}");
                found += 1;
            }
        }
        match Server::start(&trial_options) {
            Ok(server) => {
                serves_nothing_wrong(&server.client(), &content, verified.is_ok())
                    .with_context(|| format!("{place}\n{}", server.log_tail()))?;
                server.kill9()?;
            }
            Err(error) if verified.is_ok() => {
                return Err(error.context(format!("verify is content, the start is not: {place}")));
            }
            Err(_) => refused += 1,
        }
        std::fs::remove_dir_all(&trial)?;
    }
    ensure!(found > 0, "no flip of {flips} was found, so nothing was tested");
    Ok(Report::passed(format!(
        "{flips} flips in {} files: {found} found, {harmless} harmless, {refused} starts refused",
        files.len()
    )))
}

/// A stopped server's data with records in chunks and in the journal.
fn prepare(context: &Context, options: &Options) -> Result<Content> {
    let server = Server::start(options)?;
    let client = server.client();
    let mut random = context.random(5);
    for (stream, age_ms) in [("cold", 200), ("load", 3_600_000)] {
        let config = json!({ "chunk_target_bytes": 65_536, "chunk_max_age_ms": age_ms });
        client.create_stream(stream, PARTITIONS, config)?;
        let mut history = History::new(PARTITIONS);
        let mut writers = Writers::new(stream, PARTITIONS, 2);
        writers.run(&client, &mut random, &mut history, || {
            std::thread::sleep(LOAD);
            Ok(())
        })?;
        load::check(&client, stream, &mut history, true)?;
        if stream == "cold" {
            tiered(&client, stream)?;
        }
    }
    let content = read_all(&client)?;
    server.stop()?;
    Ok(content)
}

/// Partitions of both streams, one after the other.
fn each_partition() -> impl Iterator<Item = (&'static str, u32)> {
    ["cold", "load"].into_iter().flat_map(|stream| (0..PARTITIONS).map(move |at| (stream, at)))
}

fn read_all(client: &Client) -> Result<Content> {
    let mut content = Vec::new();
    for (stream, number) in each_partition() {
        let partitions = client.partitions(stream)?;
        let end = partitions.get(number as usize).context("a partition is missing")?.end_offset;
        let mut records = BTreeMap::new();
        for record in client.read_to(stream, number, 0, end)? {
            let id = Id::of_line(record.text())
                .with_context(|| format!("{stream}/{number}@{}: wrong bytes", record.offset))?;
            records.insert(record.offset, id);
        }
        content.push(records);
    }
    Ok(content)
}

/// A file's path below `data`, for each file that is not empty.
fn files_with_data(data: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![data.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if metadata.len() > 0 {
                found.push(entry.path().strip_prefix(data)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Flips a bit among the file's bytes, more often one where data is than one
/// in the zeros of a preallocated file.
fn flip(path: &Path, random: &mut rand::rngs::StdRng) -> Result<String> {
    let mut bytes = std::fs::read(path)?;
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
    let limit = if random.random_range(0..8) == 0 { bytes.len() } else { last + 1 };
    let position = random.random_range(0..limit);
    let bit = random.random_range(0..8u32);
    bytes[position] ^= 1 << bit;
    std::fs::write(path, bytes)?;
    Ok(format!("byte {position}, bit {bit}"))
}

/// `whole` where verify found nothing: then everything must be there.
fn serves_nothing_wrong(client: &Client, content: &Content, whole: bool) -> Result<()> {
    if whole {
        let now = read_all(client)?;
        ensure!(now == *content, "verify is content, but other records are served");
        return Ok(());
    }
    for ((stream, number), expected) in each_partition().zip(content) {
        let Ok(partitions) = client.partitions(stream) else { continue };
        let partition = partitions.get(number as usize).context("a partition is missing")?;
        let end = expected.keys().next_back().map_or(0, |last| last + 1);
        ensure!(
            partition.end_offset == end && partition.start_offset == 0,
            "{stream}/{number} was 0 to {end} and is {} to {}",
            partition.start_offset,
            partition.end_offset
        );
        let mut position = 0;
        while position < end {
            // An error is an honest answer; what is behind it may be fine.
            let Ok(page) = client.read(stream, number, position) else { break };
            for record in &page.records {
                let id = Id::of_line(record.text());
                if id.is_none() || id != expected.get(&record.offset).copied() {
                    bail!("{stream}/{number}@{}: wrong bytes are served", record.offset);
                }
            }
            let known = expected.range(position..page.next_offset).count();
            ensure!(
                known == page.records.len(),
                "{stream}/{number}: {known} records from {position} to {}, {} are served",
                page.next_offset,
                page.records.len()
            );
            ensure!(page.next_offset > position, "{stream}/{number}: stands still at {position}");
            position = page.next_offset;
        }
    }
    Ok(())
}
