//! Measures the search index on real data: `index_bench <folder of data sets> [MiB]`.
//!
//! The data sets are multiplied and become chunks as in `chunk_bench`. Printed
//! for each: what part of the records' bytes its chunks and its indexes take,
//! blocks and different terms of a chunk, MB (10⁶ bytes of keys and values) per
//! second of processor time of one core for building from rows and for tokenising
//! alone, bytes that are read to open an index and to look a word up, and in how
//! many of 1,000 blocks a word is looked for in vain that is in none.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measuring program: real time, real files"
)]

mod volume;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aquifer_chunk::{
    ChunkReader, EncodeOptions, IndexBuilder, IndexOptions, IndexReader, RangeRead, ReadOptions,
    Rows, TermQuery, tokens,
};
use aquifer_types::Offset;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::executor::block_on;
use futures::future::BoxFuture;
use volume::{encode, multiply, processor_seconds, sets};

const LOOKED_UP: u64 = 2000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("the folder of the data sets");
    let bytes = arguments.next().map_or(128, |text| text.parse::<usize>().unwrap()) << 20;
    println!(
        "{:22} {:>7} {:>7} {:>6} {:>8} {:>7} {:>7} {:>7} {:>7} {:>8}",
        "data",
        "chunk%",
        "index%",
        "blocks",
        "terms",
        "build",
        "tokens",
        "open",
        "lookup",
        "in vain"
    );
    let (mut raw, mut index) = (0, 0);
    for (name, records) in sets(&folder) {
        let (set_raw, set_index) = measure(&name, &records, bytes);
        raw += set_raw;
        index += set_index;
    }
    println!("{:22} {:>7} {:>7.2}", "all", "", 100.0 * index as f64 / raw as f64);
}

/// Counts what is read.
struct Counting(Bytes, AtomicU64);

impl RangeRead for Counting {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, std::io::Result<Bytes>> {
        self.1.fetch_add(range.end - range.start, Ordering::Relaxed);
        self.0.read(range)
    }

    fn size(&self) -> u64 {
        self.0.len() as u64
    }
}

fn measure(name: &str, records: &[Vec<u8>], bytes: usize) -> (usize, usize) {
    let volume = multiply(records, bytes);
    let chunks = encode(&volume, &EncodeOptions::default());
    let mut seconds = 0.0;
    let mut tokenising = 0.0;
    let (mut size, mut blocks, mut terms) = (0, 0, 0);
    let (mut opening, mut looking, mut vain) = (0, 0, 0);
    for chunk in &chunks {
        let reader =
            block_on(ChunkReader::open(Arc::new(chunk.bytes.clone()), "bench", None)).unwrap();
        let rows = reader.read(Offset(0), ReadOptions::default());
        let rows: Vec<Rows> = block_on(rows.try_collect()).unwrap();
        let from = processor_seconds();
        let mut builder = IndexBuilder::new(reader.footer(), IndexOptions::default());
        rows.iter().for_each(|rows| builder.push(rows).unwrap());
        let index = builder.finish();
        seconds += processor_seconds() - from;
        let from = processor_seconds();
        let mut count = 0_u64;
        for record in rows.iter().flat_map(Rows::records) {
            let parts = record.key.iter().chain(&record.value);
            parts.for_each(|part| tokens(part, |token| count += token.text.len() as u64));
        }
        assert!(count > 0);
        tokenising += processor_seconds() - from;
        size += index.bytes.len();
        blocks += index.blocks;
        terms += index.terms.unwrap();
        let source = Arc::new(Counting(index.bytes, AtomicU64::new(0)));
        let id = reader.footer().spec().chunk_id;
        let reader = block_on(IndexReader::open(source.clone(), "bench", id)).unwrap();
        opening += source.1.swap(0, Ordering::Relaxed);
        for n in 0..LOOKED_UP {
            let query = TermQuery::Word(format!("absent{n}"));
            vain += block_on(reader.find(&query)).unwrap().blocks.count();
        }
        looking += source.1.load(Ordering::Relaxed);
    }
    let count = chunks.len() as u64;
    let raw = volume.raw_bytes as f64;
    let chunk_bytes: usize = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
    println!(
        "{name:22} {:>7.2} {:>7.2} {:>6} {:>8} {:>7.0} {:>7.0} {:>7} {:>7} {:>8.3}",
        100.0 * chunk_bytes as f64 / raw,
        100.0 * size as f64 / raw,
        blocks as u64 / count,
        terms / count,
        raw / 1e6 / seconds,
        raw / 1e6 / tokenising,
        opening / count,
        looking / count / LOOKED_UP,
        1000.0 * vain as f64 / (blocks as f64 * LOOKED_UP as f64),
    );
    (volume.raw_bytes, size)
}
