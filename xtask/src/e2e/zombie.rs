//! Scenario `zombie`: a server stands still in the middle of its work, another
//! one recovers from the same tier 2 and goes on, and the first wakes up. What
//! it does then is neither seen by anybody who reads from the successor nor
//! does it harm what is there. And a data directory is one server's.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::e2e::client::{Client, Outcome};
use crate::e2e::history::Id;
use crate::e2e::server::{Options, Server};
use crate::e2e::{Context, eventually, tiered};
use crate::steps::Report;

/// The writers whose records are told apart: the first server's before it stands
/// still, the successor's, and the first one's after it wakes up.
const BEFORE: u32 = 1;
const SUCCESSOR: u32 = 2;
const WOKEN: u32 = 3;

const APPENDS: u64 = 20;
const APPEND_RECORDS: u64 = 50;

/// A woken server notices that it was replaced within this.
const FENCED_MAX: Duration = Duration::from_secs(20);

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("zombie")?;
    let tier2 = directory.path().join("tier2");
    let url = format!("file://{}", tier2.display());
    let old = context.options(directory.path()).with_arguments(&["--tier2", &url]);
    let server = Server::start(&old)?;
    let client = server.client();
    let config = json!({ "chunk_target_bytes": 65_536, "chunk_max_age_ms": 200 });
    client.create_stream("s", 1, config)?;
    fill(&client, BEFORE)?;
    tiered(&client, "s")?;
    let known = client.partitions("s")?[0].end_offset;
    // Not tiered, and perhaps being tiered, when it stands still.
    fill(&client, BEFORE)?;
    let pid = Pid::from_raw(i32::try_from(server.id())?).context("a process")?;
    kill_process(pid, Signal::STOP)?;

    second_is_refused(&old)?;
    let place = directory.path().join("successor");
    std::fs::create_dir(&place)?;
    let new =
        context.options(&place).with_data(place.join("data")).with_arguments(&["--tier2", &url]);
    new.run(&["recover", "--from", &url]).context("aquifer recover")?;
    let successor = Server::start(&new)?;
    let reader = successor.client();
    fill(&reader, SUCCESSOR)?;
    tiered(&reader, "s")?;
    let before = seen(&reader)?;

    kill_process(pid, Signal::CONT)?;
    // It may take appends until it knows, and after: its journal is its own.
    let _ = fill(&client, WOKEN);
    eventually(FENCED_MAX, || {
        let ready = client.readiness()?;
        let why = ready["tier2"].as_str().unwrap_or_default().to_owned();
        ensure!(why.contains("another server"), "the woken server says of tier 2: {why}");
        Ok(())
    })
    .with_context(|| server.log_tail())?;
    let objects = files(&tier2)?;
    let _ = fill(&client, WOKEN);
    client.truncate("s", 0, 1).context("truncation at the woken server")?;
    // Several rounds of tiering of either would fit in here.
    fill(&reader, SUCCESSOR)?;
    tiered(&reader, "s")?;
    let mut after = seen(&reader)?;
    let more = after.split_off(before.len());
    ensure!(after == before, "what the successor had is changed");
    ensure!(
        more.len() as u64 == APPENDS * APPEND_RECORDS
            && more.iter().all(|(_, writer)| *writer == SUCCESSOR),
        "the successor shows records that it was not given"
    );
    ensure!(
        (0..known).all(|offset| before.get(offset as usize) == Some(&(offset, BEFORE))),
        "what was tiered before is not whole"
    );
    let live: BTreeSet<String> = reader.chunks("s")?.into_iter().map(|chunk| chunk.path).collect();
    let strange: Vec<_> = files(&tier2)?
        .into_iter()
        .filter(|path| path.ends_with(".parquet") && !live.contains(path))
        .filter(|path| !objects.contains(path))
        .collect();
    // What the successor merged meanwhile is gone from its list, and goes soon.
    eventually(FENCED_MAX, || {
        let there = files(&tier2)?;
        let left: Vec<_> = strange.iter().filter(|path| there.contains(*path)).collect();
        ensure!(left.is_empty(), "put by nobody who may: {left:?}");
        Ok(())
    })?;
    for chunk in reader.chunks("s")? {
        ensure!(tier2.join(&chunk.path).exists(), "{} was deleted", chunk.path);
    }
    server.stop()?;
    successor.stop()?;
    new.run(&["verify", "--tier2", &url]).context("aquifer verify of the successor")?;
    Ok(Report::passed(format!("{} records of the successor alone", before.len() + more.len())))
}

/// The data directory is locked, even while its server stands still.
fn second_is_refused(options: &Options) -> Result<()> {
    match Server::start(options) {
        Ok(_) => bail!("two servers have one data directory"),
        Err(error) => {
            let text = format!("{error:#}");
            ensure!(text.contains("LOCK") || text.contains("in use"), "refused, but: {text}");
            Ok(())
        }
    }
}

fn fill(client: &Client, writer: u32) -> Result<()> {
    for append in 0..APPENDS {
        let lines: Vec<String> = (0..APPEND_RECORDS)
            .map(|record| Id { writer, sequence: append * APPEND_RECORDS + record }.line())
            .collect();
        match client.append("s", 0, &lines) {
            Outcome::Acked { .. } => {}
            other => bail!("writer {writer}: {other:?}"),
        }
    }
    Ok(())
}

/// Every record: its offset, and who wrote it.
fn seen(client: &Client) -> Result<Vec<(u64, u32)>> {
    let end = client.partitions("s")?[0].end_offset;
    let records = client.read_to("s", 0, 0, end)?;
    records
        .iter()
        .map(|record| {
            let id = Id::of_line(record.text()).with_context(|| format!("{record:?}"))?;
            Ok((record.offset, id.writer))
        })
        .collect()
}

/// The files below `folder`, relative to it.
fn files(folder: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(at) = open.pop() {
        for entry in std::fs::read_dir(&at)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if let Ok(name) = path.strip_prefix(folder) {
                found.insert(name.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}
