//! Measures the columns of fields on real data: `shred_bench <folder of data
//! sets> [MiB]`, data sets as in `chunk_bench`.
//!
//! Printed for each data set: fields of its schema; MB (10⁶ bytes of keys and
//! values) per second of processor time of one core for finding the fields, for
//! looking for more of them once they are known, for making columns, for
//! encoding without and with them; and how many times as large chunks are with
//! them.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measuring program: real time, real files"
)]

mod volume;

use aquifer_chunk::{ChunkEncoder, EncodeOptions, EncodedChunk, FieldWalk, Rows, Shredder};
use aquifer_types::{PartitionIndex, StreamSchema, Timestamp};
use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;
use volume::{Volume, encode, encode_by, multiply, processor_seconds, sets};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().expect("the folder of the data sets");
    let bytes = arguments.next().map_or(128, |text| text.parse::<usize>().unwrap()) << 20;
    println!(
        "{:22} {:>7} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7}",
        "data", "fields", "unfit", "find", "look", "shred", "encode", "with", "larger"
    );
    for (name, records) in sets(&folder) {
        measure(&name, &multiply(&records, bytes));
    }
}

fn values(volume: &Volume) -> Vec<ArrayRef> {
    let rows = volume.batches.iter().map(|batch| {
        let rows = Rows::from_batches(PartitionIndex(0), [(batch, Timestamp(0))], usize::MAX);
        rows.unwrap().record_batch().column_by_name("_value").unwrap().clone()
    });
    rows.collect()
}

fn walk(values: &[ArrayRef], schema: &StreamSchema) -> StreamSchema {
    let mut walk = FieldWalk::under(schema);
    for values in values {
        values.as_binary::<i32>().iter().for_each(|value| walk.look(value));
    }
    walk.extend(schema)
}

fn measure(name: &str, volume: &Volume) {
    let rate = |from: f64| volume.raw_bytes as f64 / 1e6 / (processor_seconds() - from);
    let values = values(volume);
    let from = processor_seconds();
    let schema = walk(&values, &StreamSchema::default());
    let find = rate(from);
    let from = processor_seconds();
    assert_eq!(walk(&values, &schema), schema);
    let look = rate(from);
    let mut shredder = Shredder::new(&schema);
    let from = processor_seconds();
    for values in &values {
        shredder.shred(values).unwrap();
    }
    let shred = rate(from);
    let options = EncodeOptions::default();
    let from = processor_seconds();
    let plain = encode(volume, &options);
    let encode = rate(from);
    let from = processor_seconds();
    let with =
        encode_by(volume, |spec| ChunkEncoder::looking(spec, options.clone(), &schema).unwrap());
    let encode_with = rate(from);
    let size =
        |chunks: &[EncodedChunk]| chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
    let unfit: u64 = with.iter().filter_map(|chunk| chunk.stats.unfit).sum();
    println!(
        "{name:22} {:>7} {unfit:>7} {find:>8.0} {look:>8.0} {shred:>8.0} {encode:>8.0} {encode_with:>8.0} {:>7.3}",
        schema.fields().len(),
        size(&with) as f64 / size(&plain) as f64,
    );
}
