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

mod volume;

use std::sync::Arc;

use aquifer_chunk::{ChunkReader, EncodeOptions, ReadOptions, TimestampType, verify};
use aquifer_types::{Epoch, Offset};
use bytes::Bytes;
use futures::StreamExt;
use futures::executor::block_on;
use volume::{encode, multiply, processor_seconds, sets};

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
    for (name, records) in sets(&folder) {
        measure(&name, &records, bytes, &options);
    }
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
