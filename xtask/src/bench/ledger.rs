//! Figures `ledger`, `http` and `lone`: what the journal's disk would give a
//! plain loop, and what is left of it through the ledger and through HTTP.

use anyhow::Result;
use serde_json::json;

use super::http::Http;
use super::load::{Shape, closed_loops};
use super::measure::{Table, figure, median};
use super::{Context, number, numbers, seconds};
use crate::e2e::server::Server;

const WRITERS: usize = 64;
const RECORD_BYTES: usize = 1024;
const BATCH_RECORDS: usize = 16;
const PARTITIONS: u32 = 16;

pub(super) fn ledger(context: &Context) -> Result<String> {
    let directory = context.temporary("ledger")?;
    let gib = context.pick("0.25", "2", "10");
    let pairs = context.pairs().to_string();
    let figures = context.example(
        "append_bench",
        &[&directory.path().to_string_lossy(), gib, &pairs, "64", "16", "16"],
    )?;
    let mut table = Table::new(&["", "MB/s", "p50 ms", "p99 ms"]);
    for (side, name) in [("ledger", "ledger"), ("plain", "plain loop")] {
        let mut cells = vec![name.to_owned()];
        for field in ["rate", "p50_ms", "p99_ms"] {
            cells.push(figure(median(numbers(&figures, &format!("/{side}/{field}"))?)));
        }
        table.row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let ratio = ratios(&figures, "rate")?;
    let group_kib = median(numbers(&figures, "/group_bytes")?) / 1024.0;
    Ok(format!(
        "{}\nRatio of the rates **{}** (goal: at least 0.85). {WRITERS} writers, {BATCH_RECORDS} \
         records of {RECORD_BYTES} B in an append, {PARTITIONS} partitions, {gib} GiB a run, {} \
         pairs; groups of {} KiB in the median, on both sides. A writer's latency is that of its \
         append, the loop's that of one group.\n",
        table.into_text(),
        figure(ratio),
        figures.len(),
        figure(group_kib),
    ))
}

/// The median over the pairs of the ledger's field by the loop's.
fn ratios(figures: &[serde_json::Value], field: &str) -> Result<f64> {
    let ledger = numbers(figures, &format!("/ledger/{field}"))?;
    let plain = numbers(figures, &format!("/plain/{field}"))?;
    Ok(median(ledger.iter().zip(&plain).map(|(ledger, plain)| ledger / plain)))
}

pub(super) fn http(context: &Context) -> Result<String> {
    let shape = Shape {
        connections: WRITERS,
        batch_records: BATCH_RECORDS,
        record_bytes: RECORD_BYTES,
        duration: seconds(context.pick(3, 10, 30)),
    };
    let gib = context.pick("0.25", "1", "4");
    let (mut rates, mut p50s, mut p99s) = (Vec::new(), Vec::new(), Vec::new());
    let mut others = Vec::new();
    for _ in 0..context.pairs() {
        let directory = context.temporary("http")?;
        let server = Server::start(&context.server(directory.path())?)?;
        let client = server.client();
        client.create_stream("bench", PARTITIONS, json!({}))?;
        let mut run = closed_loops(shape, Http::of_shape(client.url(), PARTITIONS, shape)?)?;
        drop(server);
        rates.push(run.rate());
        p50s.push(run.p50_ms());
        p99s.push(run.p99_ms());
        let directory = context.temporary("ledger")?;
        let arguments = [&directory.path().to_string_lossy(), gib, "1", "64", "16", "16"];
        others.extend(context.example("append_bench", &arguments)?);
    }
    let ledger_rates = numbers(&others, "/ledger/rate")?;
    let mut table = Table::new(&["", "MB/s", "p50 ms", "p99 ms"]);
    table.row(&[
        "HTTP, NDJSON",
        &figure(median(rates.clone())),
        &figure(median(p50s)),
        &figure(median(p99s)),
    ]);
    table.row(&[
        "ledger, in process",
        &figure(median(ledger_rates.clone())),
        &figure(median(numbers(&others, "/ledger/p50_ms")?)),
        &figure(median(numbers(&others, "/ledger/p99_ms")?)),
    ]);
    let ratio = median(rates.iter().zip(&ledger_rates).map(|(http, ledger)| http / ledger));
    Ok(format!(
        "{}\nRatio **{}** (goal: 0.6, or 200 MB/s). The load comes from another process over \
         loopback on the same cores: {WRITERS} connections, {BATCH_RECORDS} records of \
         {RECORD_BYTES} B in a request, {PARTITIONS} partitions, {} s a run, {} pairs; the server \
         runs with its default configuration, tiering included.\n",
        table.into_text(),
        figure(ratio),
        shape.duration.as_secs(),
        rates.len(),
    ))
}

pub(super) fn lone(context: &Context) -> Result<String> {
    let gib = context.pick("0.002", "0.01", "0.05");
    let shape = Shape {
        connections: 1,
        batch_records: 1,
        record_bytes: RECORD_BYTES,
        duration: seconds(context.pick(2, 5, 20)),
    };
    let mut figures = Vec::new();
    let (mut p50s, mut p99s) = (Vec::new(), Vec::new());
    for _ in 0..context.pairs() {
        let directory = context.temporary("lone")?;
        let arguments = [&directory.path().to_string_lossy(), gib, "1", "1", "1", "1"];
        figures.extend(context.example("append_bench", &arguments)?);
        let directory = context.temporary("lone")?;
        let server = Server::start(&context.server(directory.path())?)?;
        let client = server.client();
        client.create_stream("bench", 1, json!({}))?;
        let mut run = closed_loops(shape, Http::of_shape(client.url(), 1, shape)?)?;
        p50s.push(run.p50_ms());
        p99s.push(run.p99_ms());
    }
    let mut table = Table::new(&["", "p50 ms", "p99 ms"]);
    let median_of = |pointer: &str| Ok::<_, anyhow::Error>(median(numbers(&figures, pointer)?));
    for (side, name) in [("plain", "bare write and fdatasync"), ("ledger", "ledger, in process")] {
        let p50 = figure(median_of(&format!("/{side}/p50_ms"))?);
        let p99 = figure(median_of(&format!("/{side}/p99_ms"))?);
        table.row(&[name, &p50, &p99]);
    }
    table.row(&["HTTP", &figure(median(p50s)), &figure(median(p99s))]);
    let group_bytes = figures.first().map_or(Ok(0.0), |pair| number(pair, "group_bytes"))?;
    Ok(format!(
        "{}\nLedger by bare write: median **{}×**, p99 **{}×** (goal: 1.5×). One writer, one \
         record of {RECORD_BYTES} B at a time; a bare write is of the {group_bytes} B that such a \
         group takes in the journal, into a file that was written and synced before; {} pairs.\n",
        table.into_text(),
        figure(ratios(&figures, "p50_ms")?),
        figure(ratios(&figures, "p99_ms")?),
        figures.len(),
    ))
}
