//! The format as the first version wrote it: it is read for ever, and written
//! byte for byte until the format, or zstd, has another version.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test writes what differs to a file"
)]

mod support;

use aquifer_chunk::{ReadOptions, verify};
use bytes::Bytes;
use support::{encode, encode_with, open, read, schema_of, small_pages, spec, varied, varied_json};

const GOLDEN: &[u8] = include_bytes!("golden/chunk-v1.parquet");
/// With columns for the fields of values.
const GOLDEN_FIELDS: &[u8] = include_bytes!("golden/chunk-v1-fields.parquet");

#[test]
fn the_golden_chunk_is_read() {
    let golden = Bytes::from_static(GOLDEN);
    let report = verify("golden", &golden).unwrap();
    assert_eq!(report.spec, spec(90, 400));
    assert_eq!(report.stats.records, 90);
    assert!(report.row_groups > 1);
    assert_eq!(read(&open(&golden).unwrap(), 0, ReadOptions::default()).unwrap(), varied(90));
}

#[test]
fn the_golden_chunk_with_fields_is_read() {
    let golden = Bytes::from_static(GOLDEN_FIELDS);
    let records = varied_json(90);
    let report = verify("golden", &golden).unwrap();
    assert_eq!((report.stats.records, report.stats.unfit), (90, Some(24)));
    let reader = open(&golden).unwrap();
    assert_eq!(reader.footer().schema(), Some(&schema_of(&records)));
    assert_eq!(read(&reader, 0, ReadOptions::default()).unwrap(), records);
}

#[test]
fn the_golden_chunks_are_written() {
    let chunk = encode(spec(90, 400), small_pages(), &varied(90)).unwrap();
    check_written("chunk-v1.parquet", &chunk.bytes, GOLDEN);
    let records = varied_json(90);
    let chunk = encode_with(spec(90, 400), small_pages(), &records, &schema_of(&records)).unwrap();
    check_written("chunk-v1-fields.parquet", &chunk.bytes, GOLDEN_FIELDS);
}

fn check_written(name: &str, bytes: &Bytes, golden: &[u8]) {
    if bytes != golden {
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        panic!(
            "chunks are written otherwise than by version 1: a change of the format needs a new \
             version and a golden file beside the old one; where only the compressor's version \
             changed, replace the golden file by {}",
            path.display()
        );
    }
}
