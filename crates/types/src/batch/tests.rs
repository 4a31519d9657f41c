use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{Header, ProducerEpoch, ProducerId, Sequence, Timestamp};

const LIMITS: BatchLimits =
    BatchLimits { decompressed_bytes_max: 1 << 20, record_bytes_max: 1 << 16 };

fn sample(compression: Compression) -> Batch {
    let mut builder = BatchBuilder::default()
        .producer(ProducerId(7), ProducerEpoch(1), Sequence(40))
        .compression(compression);
    let headers = [
        Header { key: Bytes::from_static(b"trace"), value: Some(Bytes::from_static(b"ab")) },
        Header { key: Bytes::from_static(b""), value: None },
    ];
    builder.push(Timestamp(1_700_000_000_000), Some(b"k"), &headers, Some(b"value"));
    builder.push(Timestamp(1_700_000_000_100), None, &[], Some(b""));
    builder.push(Timestamp(1_699_999_999_999), Some(b""), &[], None);
    builder.finish()
}

#[test]
fn a_built_batch_is_accepted_and_gives_its_records_back() {
    for compression in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let batch = Batch::accept(sample(compression).bytes().clone(), LIMITS).unwrap();
        assert_eq!(batch.header().max_timestamp, Timestamp(1_700_000_000_100));
        assert_eq!(batch.header().producer_id, Some(ProducerId(7)));
        let placed = batch.placed(Offset(100), Epoch(3));
        let records = Batch::read(placed.bytes().clone()).unwrap().to_records(1 << 20).unwrap();
        assert_eq!(records.len(), 3, "{compression:?}");
        assert_eq!(records[0].offset, Offset(100));
        assert_eq!(records[0].headers.len(), 2);
        assert_eq!(records[1].value.as_deref(), Some(&b""[..]));
        assert_eq!(records[1].key, None);
        assert_eq!(records[2].key.as_deref(), Some(&b""[..]));
        assert_eq!(records[2].value, None);
        assert_eq!(records[2].timestamp, Timestamp(1_699_999_999_999));
    }
}

#[test]
fn the_golden_batch_stays_as_it_is() {
    let hex: String =
        sample(Compression::None).bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        include_str!("../../tests/golden/batch_v2.hex").trim(),
        "the bytes of a batch changed: that breaks every journal"
    );
}

#[test]
fn every_flipped_bit_is_noticed_or_lies_outside_the_checksum() {
    let batch = sample(Compression::None);
    for bit in 0..batch.bytes().len() * 8 {
        let mut bytes = batch.bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let outside = bit / 8 < 8 || (12..16).contains(&(bit / 8));
        let read = Batch::read(bytes.into());
        if !outside {
            assert!(read.is_err(), "bit {bit}");
        }
    }
}

#[test]
fn a_wrong_maximum_timestamp_is_corrected() {
    let batch = sample(Compression::Lz4);
    let mut bytes = BytesMut::from(&batch.bytes()[..]);
    header::set_max_timestamp(&mut bytes, Timestamp(-1));
    let accepted = Batch::accept(bytes.freeze(), LIMITS).unwrap();
    assert_eq!(accepted.bytes(), batch.bytes());
}

#[test]
fn a_bomb_is_refused_before_it_is_allocated() {
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let mut builder = BatchBuilder::default().compression(compression);
        builder.push(Timestamp(0), None, &[], Some(&vec![0; 4 << 20]));
        let error = Batch::accept(builder.finish().bytes().clone(), LIMITS).unwrap_err();
        assert_eq!(error, BatchError::TooLarge { limit: 1 << 20 }, "{compression:?}");
    }
}

#[test]
fn a_record_over_the_limit_is_named() {
    let mut builder = BatchBuilder::default();
    builder.push(Timestamp(0), None, &[], Some(b"small"));
    builder.push(Timestamp(0), None, &[], Some(&vec![0; 70_000]));
    let error = Batch::accept(builder.finish().bytes().clone(), LIMITS).unwrap_err();
    assert_eq!(error, BatchError::RecordTooLarge { index: 1, bytes: 70_000, limit: 1 << 16 });
}

#[test]
fn a_false_count_is_refused() {
    for (count, why) in [(2, "bytes follow"), (4, "no varint")] {
        let batch = sample(Compression::None);
        let mut header = *batch.header();
        header.record_count = count;
        header.last_offset_delta = count - 1;
        let mut bytes = header.encode(batch.records_bytes()).to_vec();
        bytes.extend_from_slice(batch.records_bytes());
        let error = Batch::accept(bytes.into(), LIMITS).unwrap_err().to_string();
        assert!(error.contains("malformed"), "{count}: {error} ({why})");
    }
}

#[test]
fn batches_behind_each_other_are_split() {
    let one = sample(Compression::None);
    let mut both = one.bytes().to_vec();
    both.extend_from_slice(sample(Compression::Zstd).bytes());
    assert_eq!(split_batches(both.clone().into()).unwrap().len(), 2);
    both.pop();
    assert!(split_batches(both.into()).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Batch::accept(bytes.into(), LIMITS);
    }

    #[test]
    fn damaged_records_never_panic(at in 61_usize..140, value: u8) {
        let batch = sample(Compression::None);
        let mut records = batch.records_bytes().to_vec();
        let at = (at - 61) % records.len();
        records[at] = value;
        let mut bytes = batch.header().encode(&records).to_vec();
        bytes.extend_from_slice(&records);
        let _ = Batch::accept(bytes.into(), LIMITS);
    }

    #[test]
    fn records_survive(
        records in prop::collection::vec(
            (
                any::<i64>(),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..200)),
            ),
            1..20,
        ),
        codec in 0_usize..5,
    ) {
        let codec = [
            Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4,
            Compression::Zstd,
        ][codec];
        let mut builder = BatchBuilder::default().compression(codec);
        for (timestamp, key, value) in &records {
            builder.push(Timestamp(*timestamp), key.as_deref(), &[], value.as_deref());
        }
        let batch = Batch::accept(builder.finish().bytes().clone(), LIMITS).unwrap();
        let read = batch.to_records(1 << 20).unwrap();
        prop_assert_eq!(read.len(), records.len());
        for (read, (timestamp, key, value)) in read.iter().zip(&records) {
            prop_assert_eq!(read.timestamp, Timestamp(*timestamp));
            prop_assert_eq!(read.key.as_deref(), key.as_deref());
            prop_assert_eq!(read.value.as_deref(), value.as_deref());
        }
    }
}
