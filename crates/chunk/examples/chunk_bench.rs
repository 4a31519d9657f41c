//! Measures chunks on real data: `chunk_bench <folder of data sets> [MiB] [level]`.
//!
//! A data set is a file of lines, or a folder of files that are one record
//! each, multiplied to the wanted size (`aquifer_testkit::Multiplied`).
//! Each record has a timestamp that grows by some milliseconds, a third has a
//! key, none has headers, which NDJSON lines do not have either.
//!
//! Printed for each data set: the chunk's bytes against zstd-3 of the same
//! lines as one stream, and MB (10⁶ bytes of keys and values) per second of
//! processor time of one core for encoding, for reading as records, and for reading as batches.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measuring program: real time, real files"
)]

use std::sync::Arc;

use aquifer_chunk::{
    ChunkEncoder, ChunkReader, ChunkSpec, EncodeOptions, EncodedChunk, ReadOptions, TimestampType,
    verify,
};
use aquifer_testkit::rand::rngs::StdRng;
use aquifer_testkit::rand::{RngExt, SeedableRng};
use aquifer_testkit::{Multiplied, load_records};
use aquifer_types::{
    Batch, BatchBuilder, ChunkId, Epoch, Offset, PartitionIndex, StreamId, StreamName, TenantName,
    Timestamp,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::executor::block_on;

/// Chunks of this many bytes of records, as tiering makes them by default.
const CHUNK_BYTES: usize = 64 << 20;
const BATCH_BYTES: usize = 256 << 10;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("the folder of the data sets");
    let bytes = arguments.next().map_or(128, |text| text.parse::<usize>().unwrap()) << 20;
    let mut options = EncodeOptions::default();
    if let Some(level) = arguments.next() {
        options.zstd_level = level.parse().unwrap();
    }
    println!("zstd level {}, {} MiB a data set", options.zstd_level, bytes >> 20);
    println!(
        "{:22} {:>9} {:>7} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8}",
        "data", "record B", "raw/chk", "raw/z3", "chk/z3", "encode", "records", "batches", "verify"
    );
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let records = load_records(&path).unwrap();
        if !records.is_empty() {
            measure(&path.file_name().unwrap().to_string_lossy(), &records, bytes, &options);
        }
    }
}

/// How long this thread has run: what others do on the machine counts less.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

struct Volume {
    batches: Vec<Batch>,
    ndjson: Vec<u8>,
    records: usize,
    raw_bytes: usize,
}

fn multiply(records: &[Vec<u8>], bytes: usize) -> Volume {
    let mut random = StdRng::seed_from_u64(7);
    let mut volume = Volume { batches: Vec::new(), ndjson: Vec::new(), records: 0, raw_bytes: 0 };
    let mut builder = BatchBuilder::new(Offset(0), Epoch(1));
    let mut ms = 1_760_000_000_000_i64;
    for value in Multiplied::new(records, 7) {
        ms += random.random_range(0..20);
        let key = (volume.records.is_multiple_of(3))
            .then(|| format!("node-{}", random.random_range(0..200)));
        builder.push(Timestamp(ms), key.as_deref().map(str::as_bytes), &[], Some(&value));
        volume.ndjson.extend_from_slice(&value);
        volume.ndjson.push(b'\n');
        volume.records += 1;
        volume.raw_bytes += value.len() + key.map_or(0, |key| key.len());
        if builder.bytes() >= BATCH_BYTES {
            let next = volume.records as i64;
            let full = std::mem::replace(&mut builder, BatchBuilder::new(Offset(next), Epoch(1)));
            volume.batches.push(full.finish());
            if volume.raw_bytes >= bytes {
                break;
            }
        }
    }
    volume
}

fn encode(volume: &Volume, options: &EncodeOptions) -> Vec<EncodedChunk> {
    let mut chunks = Vec::new();
    let mut batches = volume.batches.iter().peekable();
    while let Some(first) = batches.peek() {
        let base = first.header().base_offset;
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(batch) = batches.next_if(|_| bytes < CHUNK_BYTES) {
            bytes += batch.bytes().len();
            taken.push(batch);
        }
        let next = taken.last().map_or(base, |batch| batch.header().next_offset());
        let spec = ChunkSpec {
            tenant: TenantName::default_tenant(),
            stream: StreamName::new("bench").unwrap(),
            stream_id: StreamId::from_bytes([1; 16]),
            partition: PartitionIndex(0),
            base,
            next,
            epochs: vec![(Epoch(1), base)],
            generation: 0,
            replaces: Vec::new(),
            schema_version: 0,
            chunk_id: ChunkId::from_bytes([2; 16]),
            timestamp_type: TimestampType::Create,
            compacted: Vec::new(),
        };
        let mut encoder = ChunkEncoder::new(spec, options.clone()).unwrap();
        for batch in taken {
            encoder.push_batch(batch, batch.header().max_timestamp).unwrap();
        }
        chunks.push(encoder.finish().unwrap());
    }
    chunks
}

/// Reads all chunks and returns how many records `take` counted.
fn read(chunks: &[Bytes], take: impl Fn(&aquifer_chunk::Rows) -> usize) -> usize {
    let mut sum = 0;
    for bytes in chunks {
        let source = Arc::new(bytes.clone());
        let reader = block_on(ChunkReader::open(source, "bench", None)).unwrap();
        let mut rows = reader.read(Offset(0), ReadOptions::default());
        while let Some(rows) = block_on(rows.next()) {
            sum += take(&rows.unwrap());
        }
    }
    sum
}

fn measure(name: &str, records: &[Vec<u8>], bytes: usize, options: &EncodeOptions) {
    let volume = multiply(records, bytes);
    let rate = |from: f64| volume.raw_bytes as f64 / 1e6 / (processor_seconds() - from);
    // The stream that the chunks are held against: the same lines, zstd-3.
    let zstd = zstd::stream::encode_all(&volume.ndjson[..], 3).unwrap().len();
    let from = processor_seconds();
    let encoded = encode(&volume, options);
    let encode = rate(from);
    let chunks: Vec<Bytes> = encoded.iter().map(|chunk| chunk.bytes.clone()).collect();
    let size: usize = chunks.iter().map(Bytes::len).sum();
    let from = processor_seconds();
    let count = read(&chunks, |rows| {
        rows.records().map(|record| usize::from(record.value.is_some())).sum()
    });
    let as_records = rate(from);
    assert_eq!(count, volume.records);
    let from = processor_seconds();
    let count = read(&chunks, |rows| {
        let batches = rows.to_batches(&|_| Epoch(1), TimestampType::Create, 1 << 20);
        batches.iter().map(|batch| batch.header().record_count as usize).sum()
    });
    let as_batches = rate(from);
    assert_eq!(count, volume.records);
    let from = processor_seconds();
    let found: u64 = chunks.iter().map(|chunk| verify("bench", chunk).unwrap().stats.records).sum();
    let verified = rate(from);
    assert_eq!(found, volume.records as u64);
    println!(
        "{name:22} {:>9} {:>7.2} {:>7.2} {:>7.3} {encode:>8.0} {as_records:>8.0} {as_batches:>8.0} {verified:>8.0}",
        volume.raw_bytes / volume.records,
        volume.raw_bytes as f64 / size as f64,
        volume.ndjson.len() as f64 / zstd as f64,
        size as f64 / zstd as f64,
    );
}
