//! The format as the first version wrote it: it is read for ever, and written
//! byte for byte until the format, or zstd, has another version.

#![allow(clippy::disallowed_methods, reason = "a test writes what differs to a file")]

mod support;

use aquifer_chunk::{ReadOptions, verify};
use bytes::Bytes;
use support::{encode, open, read, small_pages, spec, varied};

const GOLDEN: &[u8] = include_bytes!("golden/chunk-v1.parquet");

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
fn the_golden_chunk_is_written() {
    let chunk = encode(spec(90, 400), small_pages(), &varied(90)).unwrap();
    if chunk.bytes != GOLDEN {
        let path = std::env::temp_dir().join("chunk-v1.parquet");
        std::fs::write(&path, &chunk.bytes).unwrap();
        panic!(
            "chunks are written otherwise than by version 1: a change of the format needs a new \
             version and a golden file beside the old one; where only the compressor's version \
             changed, replace the golden file by {}",
            path.display()
        );
    }
}
