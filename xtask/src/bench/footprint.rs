//! Figures `idle` and `recovery`: memory and time of a start.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Context;
use super::http::Http;
use super::load::{Shape, closed_loops};
use super::measure::{Table, figure, median};
use super::tiering::metric;
use crate::e2e::server::{Options, Server};

/// What a start allocates for a moment is given back by then.
const SETTLED: Duration = Duration::from_secs(2);

/// Streams and partitions of each.
const SHAPES: [(usize, u32); 3] = [(0, 0), (1, 10_000), (1_000, 10)];

pub(super) fn idle(context: &Context) -> Result<String> {
    let mut table = Table::new(&["", "start s", "resident MB"]);
    for (streams, partitions) in SHAPES {
        let directory = context.temporary("idle")?;
        let options = context.server(directory.path())?;
        let server = Server::start(&options)?;
        let client = server.client();
        for stream in 0..streams {
            client.create_stream(&format!("s{stream}"), partitions, json!({}))?;
        }
        server.stop()?;
        let (mut starts, mut residents) = (Vec::new(), Vec::new());
        for _ in 0..context.pairs() {
            let started = Instant::now();
            let server = Server::start(&options)?;
            starts.push(started.elapsed().as_secs_f64());
            std::thread::sleep(SETTLED);
            residents.push(resident_bytes(server.id())? / 1e6);
            server.stop()?;
        }
        let name = match streams {
            0 => "empty server".to_owned(),
            1 => format!("1 stream with {partitions} idle partitions"),
            _ => format!("{streams} streams with {partitions} idle partitions each"),
        };
        table.row(&[&name, &figure(median(starts)), &figure(median(residents))]);
    }
    Ok(format!(
        "{}\nGoals: an empty server below 60 MB; 10,000 idle partitions below 200 MB, started \
         within 1 s. From the start of the process until `/readyz` answers 200; resident memory \
         {} s later; {} starts.\n",
        table.into_text(),
        SETTLED.as_secs(),
        context.pairs(),
    ))
}

pub(super) fn resident_bytes(process: u32) -> Result<f64> {
    status_bytes(process, "VmRSS")
}

/// The most that was resident at once.
pub(super) fn peak_bytes(process: u32) -> Result<f64> {
    status_bytes(process, "VmHWM")
}

fn status_bytes(process: u32, name: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib = kib.with_context(|| format!("no {name}"))?;
    Ok(kib.trim().parse::<f64>()? * 1024.0)
}

pub(super) fn recovery(context: &Context) -> Result<String> {
    let gib = context.pick(0.125, 1.0, 4.0);
    let directory = context.temporary("recovery")?;
    let options = context.server(directory.path())?.with_settings(&[
        "store.journal_bytes_max=17179869184",
        "store.journal_partition_bytes_max=17179869184",
    ]);
    let empty = median_start(context, &options)?;
    let server = Server::start(&options)?;
    let client = server.client();
    // Nothing is tiered: all of it is to be read again.
    let config = json!({ "chunk_target_bytes": 1 << 30, "chunk_max_age_ms": 3_600_000 });
    client.create_stream("bench", 16, config)?;
    let shape = Shape {
        connections: 32,
        batch_records: 64,
        record_bytes: 1024,
        duration: Duration::from_millis(500),
    };
    let written = loop {
        closed_loops(shape, Http::of_shape(client.url(), 16, shape)?)?;
        let metrics = client.get_text("/metrics")?;
        let written = metric(&metrics, "aquifer_journal_written_bytes_total")?;
        if written >= gib * (1 << 30) as f64 {
            break written / (1 << 30) as f64;
        }
    };
    server.kill9()?;
    let start = median_start(context, &options)?;
    let mut table = Table::new(&["journal GiB", "start s", "empty start s", "s a GiB"]);
    let each = (start - empty) / written;
    table.row(&[&figure(written), &figure(start), &figure(empty), &figure(each)]);
    Ok(format!(
        "{}\nGoal: at most 5 s a GiB. The server is killed (`kill -9`) with all of the journal \
         untiered; from the start of the process until `/readyz` answers 200; {} starts, each \
         killed again. The files are in the system's page cache.\n",
        table.into_text(),
        context.pairs(),
    ))
}

fn median_start(context: &Context, options: &Options) -> Result<f64> {
    let mut starts = Vec::new();
    for _ in 0..context.pairs() {
        let started = Instant::now();
        let server = Server::start(options)?;
        starts.push(started.elapsed().as_secs_f64());
        server.kill9()?;
    }
    Ok(median(starts))
}
