//! Reading through the one read path, cold and hot.
//!
//! `read_bench cold DIR SAMPLE MIB [RUNS]`: fills a stream with records made
//! from the sample (`aquifer_testkit::Multiplied`), waits until all of it is in
//! chunks of a `file://` tier 2, opens the store anew and reads all chunks
//! through a view, one cursor, one thread: MB of record bytes a second, and a
//! second of processor time of the whole process. Files may be in the
//! system's page cache, nothing is in ours.
//!
//! `read_bench tail DIR SECONDS READERS MB_PER_SECOND`: one paced writer, and
//! readers that each follow all of it with long polls. Behind is the time from
//! the call that appended a record to a reader's having it.
//!
//! The last line of each is `figures` and a JSON object.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark measures the real machine and stops where something is missing"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aquifer_stream::{
    AppendRequest, Block, Environment, Form, Isolation, NewStream, Options, PartitionAppend,
    Position, ReadRequest, StreamStore,
};
use aquifer_testkit::{Multiplied, load_records};
use aquifer_types::{
    BatchBuilder, Offset, PartitionIndex, StreamClass, StreamConfig, StreamName, StreamPath,
    TenantName, Timestamp,
};
use prometheus_client::registry::Registry;
use serde_json::json;

/// Batches as a producer that lingers sends them.
const BATCH_BYTES: usize = 256 << 10;
/// What a cursor is asked for at a time.
const READ_BYTES: usize = 8 << 20;
/// Records of the tail, each with the time of its sending in front.
const TAIL_RECORD_BYTES: usize = 1024;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match arguments.as_slice() {
        ["cold", dir, sample, mib, rest @ ..] => {
            let runs = rest.first().map_or(5, |runs| runs.parse().unwrap());
            let bytes = mib.parse::<u64>().unwrap() << 20;
            runtime.block_on(fill(Path::new(dir), Path::new(sample), bytes));
            drop(runtime);
            cold(Path::new(dir), runs);
        }
        ["tail", dir, seconds, readers, rate] => {
            let duration = Duration::from_secs(seconds.parse().unwrap());
            let rate = rate.parse::<f64>().unwrap() * 1e6;
            runtime.block_on(tail(Path::new(dir), duration, readers.parse().unwrap(), rate));
        }
        _ => {
            panic!("read_bench cold DIR SAMPLE MIB [RUNS] | tail DIR SECONDS READERS MB_PER_SECOND")
        }
    }
}

fn path() -> StreamPath {
    StreamPath::new(TenantName::default_tenant(), StreamName::new("bench").unwrap())
}

async fn open(dir: &Path) -> StreamStore {
    let options = Options { data: dir.to_owned(), tier_interval_ms: 50, ..Options::default() };
    StreamStore::open(options, Environment::real(), &mut Registry::default()).await.unwrap()
}

async fn create(store: &StreamStore, config: StreamConfig) {
    let new = NewStream { path: path(), partitions: 1, class: StreamClass::Durable, config };
    store.create_stream(new).await.unwrap();
}

async fn append(store: &StreamStore, builder: BatchBuilder) {
    let appends = vec![PartitionAppend {
        partition: PartitionIndex(0),
        batch: builder.finish(),
        expected_offset: None,
    }];
    loop {
        let request =
            AppendRequest { path: path(), appends: appends.clone(), idempotency_key: None };
        match store.append(request).await {
            Ok(_) => return,
            // Tiering is behind.
            Err(error) => {
                let after = error.retry_after().unwrap_or_else(|| panic!("{error}"));
                tokio::time::sleep(after.min(Duration::from_millis(100))).await;
            }
        }
    }
}

/// Puts `bytes` bytes of values into chunks.
async fn fill(dir: &Path, sample: &Path, bytes: u64) {
    let store = open(dir).await;
    create(&store, StreamConfig { chunk_max_age_ms: 1_000, ..StreamConfig::default() }).await;
    let sample = load_records(sample).unwrap();
    let mut builder = BatchBuilder::default();
    let mut filled = 0;
    for (number, value) in Multiplied::new(&sample, 7).enumerate() {
        if filled >= bytes {
            break;
        }
        filled += value.len() as u64;
        builder.push(Timestamp(1_760_000_000_000 + number as i64), None, &[], Some(&value));
        if builder.bytes() >= BATCH_BYTES {
            append(&store, std::mem::take(&mut builder)).await;
        }
    }
    if !builder.is_empty() {
        append(&store, builder).await;
    }
    loop {
        let description = store.describe_stream(&path()).unwrap();
        if description.partitions.iter().all(|of| of.tiered_offset == of.end_offset) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.shutdown().await.unwrap();
}

fn cold(dir: &Path, runs: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut figures = Vec::new();
    for as_records in [false, true].repeat(runs) {
        let (bytes, records, wall, processor) = runtime.block_on(async {
            let store = open(dir).await;
            let view = store.view(&[path()], Isolation::Committed).unwrap();
            let (partition, _) = view.cuts().next().unwrap();
            let mut cursor = view.read(partition, Offset(0)).unwrap();
            let (from, started) = (processor_seconds(), Instant::now());
            let (mut bytes, mut records) = (0, 0_u64);
            loop {
                let blocks = cursor.next(READ_BYTES).await.unwrap();
                if blocks.is_empty() {
                    break;
                }
                for block in blocks {
                    let Block::Rows(rows) = block else { panic!("not all of it is in chunks") };
                    if as_records {
                        for record in rows.records() {
                            bytes += record.value.map_or(0, |value| value.len() as u64);
                            records += 1;
                        }
                    } else {
                        bytes += rows.raw_bytes();
                        records += rows.len() as u64;
                    }
                }
            }
            let taken = (started.elapsed().as_secs_f64(), processor_seconds() - from);
            drop(view);
            store.shutdown().await.unwrap();
            (bytes, records, taken.0, taken.1)
        });
        let (wall, core) = (bytes as f64 / 1e6 / wall, bytes as f64 / 1e6 / processor);
        let form = if as_records { "records" } else { "rows" };
        println!("{form}: {records} of them, {wall:.0} MB/s, {core:.0} MB/s a core");
        figures.push(json!({ "form": form, "wall": wall, "core": core, "bytes": bytes }));
    }
    println!("figures {}", json!({ "runs": figures }));
}

/// How long the threads of this process have run.
fn processor_seconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let nanos = threads.map(|thread| {
        let text = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        text.split(' ').next().unwrap().parse::<f64>().unwrap()
    });
    nanos.sum::<f64>() / 1e9
}

async fn tail(dir: &Path, duration: Duration, readers: usize, rate: f64) {
    let store = open(dir).await;
    create(&store, StreamConfig::default()).await;
    let begun = Instant::now();
    let is_over = Arc::new(AtomicBool::new(false));
    let sent_records = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..readers {
        let (store, is_over) = (store.clone(), is_over.clone());
        tasks.push(tokio::spawn(async move {
            let mut behind_ns = Vec::new();
            let mut at = Offset(0);
            while !is_over.load(Ordering::Relaxed) {
                let request = ReadRequest {
                    path: path(),
                    partition: PartitionIndex(0),
                    from: Position::Offset(at),
                    bytes_max: 1 << 20,
                    wait: Duration::from_millis(500),
                    isolation: Isolation::Committed,
                    form: Form::Records,
                };
                let answer = store.read(request).await.unwrap();
                let now = begun.elapsed().as_nanos() as u64;
                for block in &answer.blocks {
                    // The first record of a batch is the one that waited longest.
                    let Block::Batch(batch) = block else { continue };
                    let record = batch.records(64 << 20).unwrap().next().unwrap().unwrap();
                    let sent = record.value.unwrap();
                    let sent = u64::from_le_bytes(sent[..8].try_into().unwrap());
                    behind_ns.push(now.saturating_sub(sent));
                }
                at = answer.next_offset;
            }
            (at, behind_ns)
        }));
    }
    // A writer that appends every 5 ms what is due by then.
    let mut writing = tokio::time::interval(Duration::from_millis(5));
    let filler = [b'x'; TAIL_RECORD_BYTES - 8];
    while begun.elapsed() < duration {
        writing.tick().await;
        let due = (begun.elapsed().as_secs_f64() * rate / TAIL_RECORD_BYTES as f64) as u64;
        let count = due.saturating_sub(sent_records.load(Ordering::Relaxed)).min(4096);
        if count == 0 {
            continue;
        }
        let mut builder = BatchBuilder::default();
        let now = (begun.elapsed().as_nanos() as u64).to_le_bytes();
        let value = [&now[..], &filler].concat();
        for _ in 0..count {
            builder.push(Timestamp(1), None, &[], Some(&value));
        }
        append(&store, builder).await;
        sent_records.fetch_add(count, Ordering::Relaxed);
    }
    let seconds = begun.elapsed().as_secs_f64();
    // All that is to be read was read within the last polls, or is behind.
    tokio::time::sleep(Duration::from_millis(500)).await;
    is_over.store(true, Ordering::Relaxed);
    let sent = sent_records.load(Ordering::Relaxed);
    let (mut behind, mut read) = (Vec::new(), Vec::new());
    for task in tasks {
        let (at, nanos) = task.await.unwrap();
        read.push(at.0 as u64);
        behind.extend(nanos);
    }
    behind.sort_unstable();
    let quantile = |q: f64| {
        let at = ((behind.len() as f64 * q) as usize).min(behind.len().saturating_sub(1));
        behind.get(at).map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
    };
    let in_rate = (sent as usize * TAIL_RECORD_BYTES) as f64 / seconds / 1e6;
    let out_rate = read.iter().sum::<u64>() as f64 * TAIL_RECORD_BYTES as f64 / seconds / 1e6;
    let slowest = read.iter().min().copied().unwrap_or(0);
    println!(
        "{in_rate:.1} MB/s in, {out_rate:.0} MB/s out, behind p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms, slowest read {slowest} of {sent}",
        quantile(0.5),
        quantile(0.99),
        quantile(1.0)
    );
    println!(
        "figures {}",
        json!({
            "in": in_rate, "out": out_rate, "p50_ms": quantile(0.5), "p99_ms": quantile(0.99),
            "max_ms": quantile(1.0), "sent": sent, "slowest": slowest, "readers": readers,
        })
    );
    store.shutdown().await.unwrap();
}
