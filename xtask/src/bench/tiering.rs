//! Figure `tiering`: appends of real data at an offered rate, open loop, with
//! tiering and without; then the highest rate that tiering keeps up with.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use aquifer_testkit::{Multiplied, load_records};
use serde_json::json;

use super::http::{Http, NDJSON, TEXT, request};
use super::measure::{Latencies, Table, figure, median};
use super::{Context, seconds};
use crate::e2e::questions::ticks_of;
use crate::e2e::server::{Options, Server};

/// One kind of data a partition.
const SAMPLES: [&str; 4] =
    ["apache_access.log", "auth.log", "github_events.ndjson", "nginx_plus.ndjson"];
const CONNECTIONS: usize = 8;
/// Lines of about so many bytes are one request.
const REQUEST_BYTES: usize = 256 << 10;
const OFFERED: f64 = 100e6;
/// The default of a stream.
const CHUNK_TARGET_BYTES: f64 = (64 << 20) as f64;
/// Kept of a partition, in bytes of records: half an hour of the offered rate
/// would fill the disk of many a machine.
const RETAINED_BYTES: u64 = 8 << 30;
/// A rate counts as sustained if so much of it was acknowledged in its time.
const SUSTAINED: f64 = 0.97;
const SAMPLE_EVERY: Duration = Duration::from_millis(200);
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// Of what the system counts processor time in.
const TICKS_PER_SECOND: f64 = 100.0;

/// The requests of each connection.
pub(super) struct Volume(Vec<Vec<Vec<u8>>>);

pub(super) struct Paced {
    pub(super) rate: f64,
    latencies: Latencies,
    refused: u64,
    untiered_max: f64,
    pub(super) untiered_end: f64,
    /// Bytes of records whose chunks had no search index yet at the end.
    pub(super) unindexed_end: f64,
    lag_ms_max: f64,
    /// What the server took of the processors, for everything that it did.
    pub(super) processor_seconds: f64,
    pub(super) wall_seconds: f64,
}

impl Paced {
    pub(super) fn is_sustained(&self, offered: f64) -> bool {
        self.rate >= SUSTAINED * offered
            && self.untiered_end < 2.0 * CHUNK_TARGET_BYTES * SAMPLES.len() as f64
    }
}

pub(super) fn run(context: &Context) -> Result<String> {
    let volume = volume(context)?;
    let short = seconds(context.pick(4, 20, 20));
    let long = seconds(context.pick(10, 60, 30 * 60));
    let pairs = context.pick(2, 5, 5);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        without.push(paced(context, &volume, false, OFFERED, short)?);
        with.push(paced(context, &volume, true, OFFERED, short)?);
    }
    let ratio = median(with.iter_mut().zip(&mut without).map(|(with, without)| {
        with.latencies.quantile_ms(0.99) / without.latencies.quantile_ms(0.99)
    }));
    let mut table = Table::new(&["", "MB/s", "p50 ms", "p99 ms"]);
    for (name, runs) in [("without tiering", &mut without), ("with tiering", &mut with)] {
        table.row(&[
            name,
            &figure(median(runs.iter().map(|run| run.rate / 1e6))),
            &figure(median(runs.iter_mut().map(|run| run.latencies.quantile_ms(0.5)))),
            &figure(median(runs.iter_mut().map(|run| run.latencies.quantile_ms(0.99)))),
        ]);
    }
    let mut steady = paced(context, &volume, true, OFFERED, long)?;
    let highest = highest(context, &volume, steady.is_sustained(OFFERED))?;
    let highest = highest.map_or_else(
        || "none of the rates that were tried".to_owned(),
        |rate| format!("{} MB/s", figure(rate / 1e6)),
    );
    Ok(format!(
        "{}\np99 with tiering by p99 without **{}×** (goal: 1.5×; {pairs} pairs of {} s).\n\n\
         {} s at the offered rate: {} MB/s were acknowledged (p99 {} ms, {} requests refused and \
         sent again); at most **{} chunk targets** a partition were not yet in chunks (goal: 2), {} \
         at the end; the oldest record that was only in the journal was {} s old at most.\n\n\
         Highest rate that was sustained: **{highest}** ({} s each; {SUSTAINED} of the rate \
         acknowledged, less than two chunk targets a partition left).\n\n\
         Offered are {} MB/s of lines in requests of {} KiB, open loop, over {CONNECTIONS} \
         connections from another process on the same cores; {} partitions, one kind of multiplied \
         data each ({}), chunks of 64 MiB into a directory on the same disk.\n",
        table.into_text(),
        figure(ratio),
        short.as_secs(),
        long.as_secs(),
        figure(steady.rate / 1e6),
        figure(steady.latencies.quantile_ms(0.99)),
        steady.refused,
        figure(targets(steady.untiered_max)),
        figure(targets(steady.untiered_end)),
        figure(steady.lag_ms_max / 1e3),
        step(context).as_secs(),
        OFFERED / 1e6,
        REQUEST_BYTES >> 10,
        SAMPLES.len(),
        SAMPLES.join(", "),
    ))
}

/// Bytes of all partitions in chunk targets of one.
pub(super) fn targets(untiered: f64) -> f64 {
    untiered / CHUNK_TARGET_BYTES / SAMPLES.len() as f64
}

pub(super) fn step(context: &Context) -> Duration {
    seconds(context.pick(5, 30, 60))
}

/// Goes up from the offered rate while that is sustained, else down until one
/// is.
fn highest(context: &Context, volume: &Volume, is_offered_good: bool) -> Result<Option<f64>> {
    let factor = if is_offered_good { 1.25 } else { 0.8 };
    let (mut rate, mut best) = (OFFERED, is_offered_good.then_some(OFFERED));
    for _ in 0..context.pick(3, 8, 8) {
        rate *= factor;
        let run = paced(context, volume, true, rate, step(context))?;
        let is_good = run.is_sustained(rate);
        println!(
            "{:.0} MB/s offered: {:.1} MB/s, {:.2} chunk targets left",
            rate / 1e6,
            run.rate / 1e6,
            targets(run.untiered_end)
        );
        if is_good {
            best = Some(rate);
        }
        if is_good != is_offered_good {
            break;
        }
    }
    Ok(best)
}

/// Lines for each connection, so many that no chunk has one twice.
pub(super) fn volume(context: &Context) -> Result<Volume> {
    let bytes = context.pick(16_usize, 64, 64) << 20;
    let mut samples = Vec::new();
    for name in SAMPLES {
        samples.push(load_records(&context.sample(name)?)?);
    }
    let made = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let kind = number % SAMPLES.len();
                let sample = &samples[kind];
                scope.spawn(move || requests(number, SAMPLES[kind], sample, bytes))
            })
            .collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let made: Result<Vec<_>, _> = made.into_iter().collect();
    made.map(Volume).map_err(|_| anyhow!("making the data panicked"))
}

fn requests(number: usize, name: &str, sample: &[Vec<u8>], bytes: usize) -> Vec<Vec<u8>> {
    let kind = if name.ends_with(".ndjson") { NDJSON } else { TEXT };
    let (mut requests, mut made, mut body) = (Vec::new(), 0, Vec::new());
    for line in Multiplied::new(sample, number as u64) {
        body.extend(line);
        body.push(b'\n');
        if body.len() >= REQUEST_BYTES {
            made += body.len();
            requests.push(request("bench", (number % SAMPLES.len()) as u32, kind, &body));
            body.clear();
            if made >= bytes {
                break;
            }
        }
    }
    requests
}

fn options(context: &Context, directory: &std::path::Path) -> Result<Options> {
    Ok(context.server(directory)?.with_settings(&[
        "store.journal_bytes_max=8589934592",
        "store.journal_partition_bytes_max=2147483648",
    ]))
}

/// Offers `offered` bytes a second to a fresh server for `duration`.
pub(super) fn paced(
    context: &Context,
    volume: &Volume,
    is_tiered: bool,
    offered: f64,
    duration: Duration,
) -> Result<Paced> {
    let directory = context.temporary("tiering")?;
    let server = Server::start(&options(context, directory.path())?)?;
    let client = server.client();
    let config = if is_tiered {
        json!({ "retention_bytes": RETAINED_BYTES })
    } else {
        json!({ "chunk_target_bytes": 1 << 30, "chunk_max_age_ms": 3_600_000 })
    };
    client.create_stream("bench", SAMPLES.len() as u32, config)?;
    let connections: Vec<Http> = volume
        .0
        .iter()
        .map(|requests| Http::with_requests(client.url(), requests.clone()))
        .collect::<Result<_>>()?;
    let (offered_bytes, acked, refused) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let started = Instant::now();
    let send = |mut connection: Http| -> Result<Latencies> {
        let mut latencies = Latencies::default();
        loop {
            let bytes = connection.next_bytes() as u64;
            let before = offered_bytes.fetch_add(bytes, Ordering::Relaxed);
            let due = Duration::from_secs_f64(before as f64 / offered);
            if due >= duration || started.elapsed() >= duration {
                return Ok(latencies);
            }
            std::thread::sleep(due.saturating_sub(started.elapsed()));
            let sent = Instant::now();
            match connection.send()? {
                (200..300, _) => {
                    latencies.push(sent.elapsed());
                    acked.fetch_add(bytes, Ordering::Relaxed);
                }
                (429 | 503, _) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(RETRY_AFTER);
                }
                (status, body) => bail!("{status}: {body}"),
            }
        }
    };
    let watch = || -> Result<[f64; 4]> {
        let [mut untiered_max, mut untiered_end, mut lag_ms_max, mut unindexed_end] = [0.0_f64; 4];
        while !is_over.load(Ordering::Relaxed) {
            let metrics = client.get_text("/metrics")?;
            untiered_end = metric(&metrics, "aquifer_untiered_bytes")?;
            untiered_max = untiered_max.max(untiered_end);
            lag_ms_max = lag_ms_max.max(metric(&metrics, "aquifer_tiering_lag_ms")?);
            unindexed_end = metric(&metrics, "aquifer_unindexed_bytes")?;
            std::thread::sleep(SAMPLE_EVERY);
        }
        Ok([untiered_max, untiered_end, lag_ms_max, unindexed_end])
    };
    let (results, wall, watched) = std::thread::scope(|scope| {
        let watching = scope.spawn(watch);
        let threads: Vec<_> =
            connections.into_iter().map(|connection| scope.spawn(|| send(connection))).collect();
        let results: Vec<_> =
            threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        let wall = started.elapsed();
        is_over.store(true, Ordering::Relaxed);
        (results, wall, watching.join())
    });
    let mut latencies = Latencies::default();
    for result in results {
        latencies.extend(result.map_err(|_| anyhow!("a connection's thread panicked"))??);
    }
    let [untiered_max, untiered_end, lag_ms_max, unindexed_end] =
        watched.map_err(|_| anyhow!("the watching thread panicked"))??;
    Ok(Paced {
        rate: acked.into_inner() as f64 / wall.max(duration).as_secs_f64(),
        latencies,
        refused: refused.into_inner(),
        untiered_max,
        untiered_end,
        unindexed_end,
        lag_ms_max,
        processor_seconds: ticks_of(server.id())? as f64 / TICKS_PER_SECOND,
        wall_seconds: wall.as_secs_f64(),
    })
}

/// The value of a metric without labels.
pub(super) fn metric(metrics: &str, name: &str) -> Result<f64> {
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
    let value = line.and_then(|line| line.split(' ').nth(1)).and_then(|value| value.parse().ok());
    value.with_context(|| format!("no metric {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let text = "# TYPE a gauge\na_total 1\na 2.5\n";
        assert_eq!(metric(text, "a").unwrap(), 2.5);
        assert!(metric(text, "a_to").is_err());
    }
}
