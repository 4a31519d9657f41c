//! Bytes from outside never panic, and what is accepted can be read again.

use aquifer_testkit::fuzz;
use aquifer_types::batch::split_batches;
use aquifer_types::{Batch, BatchBuilder, BatchLimits, Compression, Header, Timestamp};
use bytes::Bytes;

const LIMITS: BatchLimits =
    BatchLimits { decompressed_bytes_max: 1 << 16, record_bytes_max: 1 << 12 };

fn corpus() -> Vec<Vec<u8>> {
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        .into_iter()
        .map(|compression| {
            let mut builder = BatchBuilder::default().compression(compression);
            let header = Header { key: Bytes::from_static(b"h"), value: None };
            for n in 0..5_i64 {
                builder.push(Timestamp(n), Some(b"key"), std::slice::from_ref(&header), Some(b"v"));
            }
            builder.finish().bytes().to_vec()
        })
        .collect()
}

#[test]
fn fuzz_batch() {
    fuzz("batch", 2.0, &corpus(), |bytes| {
        let Ok(batches) = split_batches(Bytes::copy_from_slice(bytes)) else { return };
        for batch in batches {
            if let Ok(batch) = Batch::accept(batch, LIMITS) {
                let records = batch.to_records(LIMITS.decompressed_bytes_max);
                assert_eq!(records.map(|r| r.len()), Ok(batch.header().record_count as usize));
            }
        }
    });
}

/// Past the checksum: it is repaired, so that the records are reached.
#[test]
fn fuzz_records_behind_a_valid_checksum() {
    fuzz("records", 2.0, &corpus(), |bytes| {
        let mut bytes = bytes.to_vec();
        if bytes.len() < 61 {
            return;
        }
        let length = (bytes.len() - 12) as u32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        let checksum = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
        if let Ok(batch) = Batch::accept(bytes.into(), LIMITS) {
            let records = batch.to_records(LIMITS.decompressed_bytes_max);
            assert_eq!(records.map(|r| r.len()), Ok(batch.header().record_count as usize));
        }
    });
}
