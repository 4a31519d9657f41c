//! Durable appends through the ledger beside a plain loop that writes and syncs
//! groups of the same size into files prepared in the same way.
//!
//! `cargo run --release -p aquifer-stream --example append_bench -- DIR [GIB] [PAIRS]
//! [WRITERS] [BATCH_RECORDS] [PARTITIONS]`. Both sides run in turn, five pairs
//! unless told otherwise; each line is a pair, the last one the medians.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark measures the real machine and stops where something is missing"
)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aquifer_stream::{
    AppendRequest, Environment, NewStream, Options, PartitionAppend, StreamStore, Truncation,
};
use aquifer_types::{
    Batch, BatchBuilder, PartitionIndex, StreamClass, StreamConfig, StreamName, StreamPath,
    TenantName, Timestamp,
};
use prometheus_client::registry::Registry;

const RECORD_BYTES: usize = 1024;
const FILE_BYTES: u64 = 64 << 20;
/// Files that the plain loop goes round through at most.
const FILES_MAX: u64 = 8;
/// By then as many files are there as are in use at once, and none is made any
/// more; the other side has its files from the start.
const WARM_UP_BYTES_MAX: u64 = 4 << 30;
/// What was written before a side is measured is out of the disk's way by then.
const SETTLED: Duration = Duration::from_millis(500);

struct Run {
    bytes: u64,
    seconds: f64,
    p50_ms: f64,
    p99_ms: f64,
    group_bytes: u64,
}

impl Run {
    fn rate(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e6
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "rate": self.rate(), "p50_ms": self.p50_ms, "p99_ms": self.p99_ms })
    }
}

struct Plan {
    bytes: u64,
    writers: usize,
    batch_records: usize,
    partitions: u32,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize, default: f64| -> f64 {
        arguments.get(at).map_or(default, |text| text.parse().unwrap())
    };
    let dir = Path::new(arguments.get(1).expect("a directory to work in")).to_owned();
    let plan = Plan {
        bytes: (number(2, 2.0) * (1 << 30) as f64) as u64,
        writers: number(4, 64.0) as usize,
        batch_records: number(5, 16.0) as usize,
        partitions: number(6, 16.0) as u32,
    };
    let pairs = number(3, 5.0) as usize;
    println!(
        "{} writers, {} x {RECORD_BYTES} B a batch, {} partitions, {:.1} GiB a run",
        plan.writers,
        plan.batch_records,
        plan.partitions,
        plan.bytes as f64 / (1 << 30) as f64
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut ratios = Vec::new();
    let mut rates = Vec::new();
    let mut latencies = Vec::new();
    for pair in 0..pairs {
        let ours_dir = dir.join(format!("ours-{pair}"));
        let ours = runtime.block_on(ledger(&ours_dir, &plan));
        std::fs::remove_dir_all(&ours_dir).unwrap();
        let plain_dir = dir.join(format!("plain-{pair}"));
        let plain = plain(&plain_dir, plan.bytes, ours.group_bytes);
        std::fs::remove_dir_all(&plain_dir).unwrap();
        println!(
            "ledger {:7.1} MB/s (p50 {:.3} ms, p99 {:.3} ms, groups of {} B); plain {:7.1} MB/s (p50 {:.3} ms, p99 {:.3} ms); ratio {:.3}; latency ratio p50 {:.2} p99 {:.2}",
            ours.rate(),
            ours.p50_ms,
            ours.p99_ms,
            ours.group_bytes,
            plain.rate(),
            plain.p50_ms,
            plain.p99_ms,
            ours.rate() / plain.rate(),
            ours.p50_ms / plain.p50_ms,
            ours.p99_ms / plain.p99_ms,
        );
        // The same for programs.
        println!(
            "figures {}",
            serde_json::json!({
                "ledger": ours.json(), "plain": plain.json(), "group_bytes": ours.group_bytes,
            })
        );
        ratios.push(ours.rate() / plain.rate());
        rates.push(ours.rate());
        latencies.push(ours.p99_ms);
    }
    println!(
        "median: {:.1} MB/s, p99 {:.3} ms, ratio {:.3}",
        median(rates),
        median(latencies),
        median(ratios)
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn quantile(latencies: &mut [u64], q: f64) -> f64 {
    latencies.sort_unstable();
    let at = ((latencies.len() as f64 * q) as usize).min(latencies.len() - 1);
    latencies[at] as f64 / 1e6
}

async fn ledger(dir: &Path, plan: &Plan) -> Run {
    let options = Options {
        data: dir.to_owned(),
        journal_file_bytes: FILE_BYTES,
        journal_bytes_max: 8 << 30,
        journal_partition_bytes_max: 8 << 30,
        ..Options::default()
    };
    let mut registry = Registry::with_prefix("aquifer");
    let store = StreamStore::open(options, Environment::real(), &mut registry).await.unwrap();
    let path = StreamPath::new(TenantName::default_tenant(), StreamName::new("bench").unwrap());
    let config = StreamConfig {
        chunk_target_bytes: 1 << 30,
        chunk_max_age_ms: 3_600_000,
        ..StreamConfig::default()
    };
    let new = NewStream {
        path: path.clone(),
        partitions: plan.partitions,
        class: StreamClass::Durable,
        config,
    };
    store.create_stream(new).await.unwrap();
    tokio::time::sleep(SETTLED).await;
    let value: Vec<u8> = (0..RECORD_BYTES).map(|n| (n * 31 % 251) as u8).collect();
    let mut builder = BatchBuilder::default();
    for _ in 0..plan.batch_records {
        builder.push(Timestamp(1), None, &[], Some(&value));
    }
    let batch = builder.finish();
    let batch_bytes = batch.bytes().len() as u64;
    let is_done = Arc::new(AtomicBool::new(false));
    // Releases what was written, so that files are recycled as in the long run.
    let truncating = tokio::spawn({
        let (store, path, is_done) = (store.clone(), path.clone(), is_done.clone());
        async move {
            while !is_done.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(500)).await;
                store.truncate_stream(&path, Truncation::All).await.unwrap();
            }
        }
    });
    // The other side's files are ready before its time begins; so are these.
    let warm_up_bytes = (2 * plan.bytes).min(WARM_UP_BYTES_MAX);
    drive(&store, &path, &batch, plan, warm_up_bytes / batch_bytes).await;
    let groups_before = counter(&registry, "aquifer_journal_groups_total");
    let bytes_before = counter(&registry, "aquifer_journal_written_bytes_total");
    let started = Instant::now();
    let mut latencies = drive(&store, &path, &batch, plan, plan.bytes / batch_bytes).await;
    let seconds = started.elapsed().as_secs_f64();
    is_done.store(true, Ordering::Relaxed);
    truncating.await.unwrap();
    let groups = counter(&registry, "aquifer_journal_groups_total") - groups_before;
    let written = counter(&registry, "aquifer_journal_written_bytes_total") - bytes_before;
    store.shutdown().await.unwrap();
    Run {
        bytes: latencies.len() as u64 * batch_bytes,
        seconds,
        p50_ms: quantile(&mut latencies, 0.5),
        p99_ms: quantile(&mut latencies, 0.99),
        group_bytes: (written / groups.max(1)).next_multiple_of(4096),
    }
}

/// Appends `batch` so many times through all writers; how long each took, in ns.
async fn drive(
    store: &StreamStore,
    path: &StreamPath,
    batch: &Batch,
    plan: &Plan,
    appends: u64,
) -> Vec<u64> {
    let left = Arc::new(AtomicU64::new(appends));
    let mut tasks = Vec::new();
    for writer in 0..plan.writers {
        let (store, path, batch, left) = (store.clone(), path.clone(), batch.clone(), left.clone());
        let partition = PartitionIndex(writer as u32 % plan.partitions);
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                let request = AppendRequest {
                    path: path.clone(),
                    appends: vec![PartitionAppend {
                        partition,
                        batch: batch.clone(),
                        expected_offset: None,
                    }],
                    idempotency_key: None,
                };
                let sent = Instant::now();
                store.append(request).await.unwrap();
                latencies.push(sent.elapsed().as_nanos() as u64);
            }
            latencies
        }));
    }
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.unwrap());
    }
    latencies
}

fn counter(registry: &Registry, name: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok())
        .map_or(0, |value| value as u64)
}

/// Writes groups of `group_bytes` one after the other, each synced, round and
/// round through files that were written and synced before.
fn plain(dir: &Path, bytes: u64, group_bytes: u64) -> Run {
    std::fs::create_dir_all(dir).unwrap();
    // No more than are used: a disk that still digests what was prepared would
    // be held against this side.
    let files = bytes.div_ceil(FILE_BYTES).clamp(1, FILES_MAX);
    let files: Vec<File> = (0..files)
        .map(|n| {
            let file = File::create_new(dir.join(n.to_string())).unwrap();
            let zeros = vec![0; 1 << 20];
            for at in 0..FILE_BYTES >> 20 {
                file.write_all_at(&zeros, at << 20).unwrap();
            }
            file.sync_all().unwrap();
            file
        })
        .collect();
    std::thread::sleep(SETTLED);
    let group: Vec<u8> = (0..group_bytes as usize).map(|n| (n * 31 % 251) as u8).collect();
    let mut latencies = Vec::new();
    let started = Instant::now();
    let (mut file, mut at, mut done) = (0, 0, 0);
    while done < bytes {
        if at + group_bytes > FILE_BYTES {
            file = (file + 1) % files.len();
            at = 0;
        }
        let sent = Instant::now();
        files[file].write_all_at(&group, at).unwrap();
        files[file].sync_data().unwrap();
        latencies.push(sent.elapsed().as_nanos() as u64);
        at += group_bytes;
        done += group_bytes;
    }
    let seconds = started.elapsed().as_secs_f64();
    Run {
        bytes: done,
        seconds,
        p50_ms: quantile(&mut latencies, 0.5),
        p99_ms: quantile(&mut latencies, 0.99),
        group_bytes,
    }
}
