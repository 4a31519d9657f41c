//! Figure `spill`: appends at a fixed rate, open loop, alone and beside a
//! statement that does not fit into memory.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use aquifer_testkit::{Multiplied, load_records};
use serde_json::{Value, json};
use ureq::Agent;

use super::feed::{Lane, feed, settle};
use super::http::{Http, TEXT};
use super::load::{Shape, closed_loops};
use super::measure::{Latencies, Table, figure, median};
use super::{Context, numbers, seconds};
use crate::e2e::client::Client;
use crate::e2e::server::{Options, Server};

const SAMPLE: &str = "apache_access.log";
/// What a statement reads and sorts out.
const WIDE: &str = "wide";
/// Every offset is another one, so that all records are to be kept.
const STATEMENT: &str = "SELECT count(*) AS n FROM (SELECT _value, _offset, count(*) AS n \
    FROM wide GROUP BY 1, 2) v WHERE n > 1";
/// What it may hold; it reads many times as much.
const MEMORY_BYTES: u64 = 128 << 20;
const PARTITIONS: u32 = 16;
const SHAPE: Shape = Shape {
    connections: 32,
    batch_records: 64,
    record_bytes: 1024,
    duration: Duration::from_secs(5),
};
/// Kept of the stream that is appended to, a partition.
const RETAINED_BYTES: u64 = 128 << 20;
/// The statement has begun to spill by then.
const SPILL_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const RETRY_AFTER: Duration = Duration::from_millis(20);
const ANSWER_MAX: Duration = Duration::from_secs(600);

/// One run at the fixed rate.
struct Paced {
    /// From the time at which a request was due.
    latencies: Latencies,
    acked_bytes: u64,
    refused: u64,
    spilled_bytes: f64,
}

pub(super) fn run(context: &Context) -> Result<String> {
    let duration = seconds(context.pick(6, 30, 30));
    let pairs = context.pick(2, 5, 5);
    let disk = disk_rate(context)?;
    let directory = context.temporary("spill")?;
    let spill = directory.path().join("spill");
    let options = options(context, directory.path(), &spill)?;
    let server = Server::start(&options)?;
    let client = server.client();
    let bytes = context.bytes(300_000_000, 3_000_000_000, 3_000_000_000);
    fill(context, &client, bytes)?;
    let highest = highest(context, &client)?;
    let offered = (disk / 2.0).min(highest / 2.0);
    println!(
        "the disk takes {} MB/s, the server {} MB/s, offered are {}",
        figure(disk / 1e6),
        figure(highest / 1e6),
        figure(offered / 1e6)
    );
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Each is first in turn.
        for is_beside in [pair % 2 == 1, pair % 2 == 0] {
            let run = paced(&client, &spill, offered, duration, is_beside)?;
            let runs = if is_beside { &mut beside } else { &mut alone };
            runs.push(run);
        }
    }
    let ratios: Vec<f64> = alone
        .iter_mut()
        .zip(&mut beside)
        .map(|(alone, beside)| {
            beside.latencies.quantile_ms(0.99) / alone.latencies.quantile_ms(0.99)
        })
        .collect();
    let mut table = Table::new(&["", "MB/s", "p50 ms", "p99 ms", "refused", "GB spilled at once"]);
    for (name, runs) in [("alone", &mut alone), ("beside a spilling statement", &mut beside)] {
        let acked = runs.iter().map(|run| run.acked_bytes as f64 / duration.as_secs_f64() / 1e6);
        table.row(&[
            name,
            &figure(median(acked)),
            &figure(median(runs.iter_mut().map(|run| run.latencies.quantile_ms(0.5)))),
            &figure(median(runs.iter_mut().map(|run| run.latencies.quantile_ms(0.99)))),
            &runs.iter().map(|run| run.refused).sum::<u64>().to_string(),
            &figure(median(runs.iter().map(|run| run.spilled_bytes / 1e9))),
        ]);
    }
    let ratio = median(ratios);
    let by = if disk <= highest {
        "the disk"
    } else {
        "the server over HTTP, which is less than the disk"
    };
    Ok(format!(
        "{}\np99 beside the statement by p99 alone **{}×** (goal: 2×; {}; {pairs} pairs of {} s). \
         Offered are {} MB/s, half of what {by} takes at most: a plain loop of writes and syncs \
         came to {} MB/s, {} connections that wait for each answer to {} MB/s over HTTP, both \
         measured right before. Requests of {} KiB are due at fixed times, and their latency counts \
         from these. The statement groups {} GB of records by value and offset, in {} MiB of memory, and \
         is asked again when it is done; it spills to the disk of the journal. Server with its \
         default configuration otherwise, tiering and indexes included.\n",
        table.into_text(),
        figure(ratio),
        if ratio <= 2.0 { "reached" } else { "missed" },
        duration.as_secs(),
        figure(offered / 1e6),
        figure(disk / 1e6),
        SHAPE.connections,
        figure(highest / 1e6),
        (SHAPE.batch_records * SHAPE.record_bytes) >> 10,
        figure(bytes as f64 / 1e9),
        MEMORY_BYTES >> 20,
    ))
}

fn options(context: &Context, directory: &Path, spill: &Path) -> Result<Options> {
    Ok(context.server(directory)?.with_settings(&[
        &format!("query.spill_directory={}", spill.display()),
        &format!("query.memory_bytes_max={MEMORY_BYTES}"),
        &format!("query.question_memory_bytes_max={MEMORY_BYTES}"),
        "store.chunk_grace_ms=5000",
        "store.retention_interval_ms=1000",
    ]))
}

/// Bytes a second of a plain loop of writes and syncs, as the journal's are.
fn disk_rate(context: &Context) -> Result<f64> {
    let directory = context.temporary("disk")?;
    let gib = context.pick("0.25", "2", "2");
    let arguments = [&directory.path().to_string_lossy(), gib, "3", "64", "16", "16"];
    let figures = context.example("append_bench", &arguments)?;
    Ok(median(numbers(&figures, "/plain/rate")?) * 1e6)
}

fn fill(context: &Context, client: &Client, bytes: u64) -> Result<()> {
    const LANES: u32 = 2;
    let sample = load_records(&context.sample(SAMPLE)?)?;
    client.create_stream(WIDE, LANES, json!({ "index": "none" }))?;
    let lanes = (0..LANES).map(|partition| Lane {
        stream: WIDE,
        partition,
        kind: TEXT,
        records: Box::new(Multiplied::new(&sample, u64::from(partition))),
        bytes_max: bytes / u64::from(LANES),
        seen: None,
    });
    feed(client.url(), lanes.collect())?;
    settle(client, &[WIDE])?;
    client.create_stream("bench", PARTITIONS, json!({ "retention_bytes": RETAINED_BYTES }))
}

/// Bytes a second that are acknowledged to connections that always have a
/// request under way.
fn highest(context: &Context, client: &Client) -> Result<f64> {
    let shape = Shape { duration: seconds(context.pick(3, 10, 10)), ..SHAPE };
    let run = closed_loops(shape, Http::of_shape(client.url(), PARTITIONS, shape)?)?;
    Ok(run.rate() * 1e6)
}

/// Offers `offered` bytes a second for `duration`.
fn paced(
    client: &Client,
    spill: &Path,
    offered: f64,
    duration: Duration,
    is_beside: bool,
) -> Result<Paced> {
    let connections = Http::of_shape(client.url(), PARTITIONS, SHAPE)?;
    let (is_over, asked, spilled) =
        (AtomicBool::new(false), AtomicUsize::new(0), AtomicU64::new(0));
    let mut paced = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                spilled.fetch_max(bytes_below(spill), Ordering::Relaxed);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        let asking =
            is_beside.then(|| scope.spawn(|| ask(client.url(), duration, &is_over, &asked)));
        let run = || {
            // What is measured is its spilling, not its start.
            let begun = Instant::now();
            while is_beside && spilled.load(Ordering::Relaxed) == 0 {
                ensure!(begun.elapsed() < SPILL_MAX, "the statement does not spill");
                ensure!(!asking.as_ref().is_some_and(|of| of.is_finished()), "it is not asked");
                std::thread::sleep(LOOK_EVERY);
            }
            open_loop(connections, offered, duration)
        };
        let run = run();
        is_over.store(true, Ordering::Relaxed);
        let asked = asking.map(std::thread::ScopedJoinHandle::join);
        asked.transpose().map_err(|_| anyhow!("the asking thread panicked"))?.transpose()?;
        run
    })?;
    paced.spilled_bytes = spilled.into_inner() as f64;
    println!(
        "beside {is_beside}: p50 {:.2} ms, p99 {:.2} ms, {} refused, {:.2} GB spilled, {} statements",
        paced.latencies.quantile_ms(0.5),
        paced.latencies.quantile_ms(0.99),
        paced.refused,
        paced.spilled_bytes / 1e9,
        asked.into_inner(),
    );
    Ok(paced)
}

/// Of all files in a folder and those in it; they come and go meanwhile.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(of).sum()
}

/// Asks the statement again and again until it is over; the last one is ended by
/// its own limit.
fn ask(url: &str, duration: Duration, is_over: &AtomicBool, asked: &AtomicUsize) -> Result<()> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(ANSWER_MAX))
        .build()
        .into();
    let until = Instant::now() + SPILL_MAX + duration;
    while !is_over.load(Ordering::Relaxed) {
        asked.fetch_add(1, Ordering::Relaxed);
        let left = until.saturating_duration_since(Instant::now()).min(2 * duration);
        let limit = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        let body = json!({ "sql": STATEMENT, "limits": { "time_ms_max": limit } });
        let mut answer = agent.post(format!("{url}/v1/sql")).send_json(body)?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string()?;
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        let is_late = problem["type"].as_str().is_some_and(|of| of.ends_with("query-time"));
        ensure!(status == 200 || is_late, "{status}: {text}");
    }
    Ok(())
}

fn open_loop(connections: Vec<Http>, offered: f64, duration: Duration) -> Result<Paced> {
    let (due_bytes, acked, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let started = Instant::now();
    let send = |mut connection: Http| -> Result<Latencies> {
        let mut latencies = Latencies::default();
        loop {
            let bytes = connection.next_bytes() as u64;
            let before = due_bytes.fetch_add(bytes, Ordering::Relaxed);
            let due = Duration::from_secs_f64(before as f64 / offered);
            if due >= duration || started.elapsed() >= 2 * duration {
                return Ok(latencies);
            }
            std::thread::sleep(due.saturating_sub(started.elapsed()));
            loop {
                match connection.send()? {
                    (200..300, _) => break,
                    (429 | 503, _) => {
                        refused.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(RETRY_AFTER);
                    }
                    (status, body) => bail!("{status}: {body}"),
                }
            }
            latencies.push(started.elapsed().saturating_sub(due));
            acked.fetch_add(bytes, Ordering::Relaxed);
        }
    };
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> =
            connections.into_iter().map(|connection| scope.spawn(|| send(connection))).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut latencies = Latencies::default();
    for result in results {
        latencies.extend(result.map_err(|_| anyhow!("a connection's thread panicked"))??);
    }
    Ok(Paced {
        latencies,
        acked_bytes: acked.into_inner(),
        refused: refused.into_inner(),
        spilled_bytes: 0.0,
    })
}
