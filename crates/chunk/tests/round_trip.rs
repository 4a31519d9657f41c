//! What goes into a chunk comes out of it, from every place.

mod support;

use aquifer_chunk::{
    ChunkEncoder, ChunkSpec, EncodeOptions, Error, Expected, ReadOptions, Rows, schema, verify,
};
use aquifer_types::{
    Batch, Epoch, ErrorKind, Header, Offset, PartitionIndex, Record, StreamId, Timestamp,
};
use bytes::Bytes;
use futures::executor::block_on;
use proptest::prelude::*;
use support::{batches, encode, open, read, read_rows, small_pages, spec, varied};

const SMALL: ReadOptions = ReadOptions { window_bytes: 600, rows_max: 13 };

#[test]
fn records_come_back_from_every_offset() {
    let records = varied(150);
    let chunk = encode(spec(90, 400), small_pages(), &records).unwrap();
    let reader = open(&chunk.bytes).unwrap();
    assert!(reader.footer().parquet().num_row_groups() > 2);
    let one_by_one = ReadOptions { window_bytes: 1, rows_max: 1 };
    for (options, step) in [(SMALL, 3), (ReadOptions::default(), 1), (one_by_one, 40)] {
        for from in (85..300).step_by(step) {
            let expected: Vec<Record> =
                records.iter().filter(|r| r.offset.0 >= from).cloned().collect();
            assert_eq!(read(&reader, from, options).unwrap(), expected, "from {from}, {options:?}");
        }
    }
    for rows in read_rows(&reader, 0, SMALL).unwrap() {
        assert!(rows.len() <= 13 && !rows.is_empty());
        assert_eq!(rows.record_batch().schema(), schema());
    }
    let report = verify("test", &chunk.bytes).unwrap();
    assert_eq!(report.spec, spec(90, 400));
    assert_eq!(report.stats, chunk.stats);
    assert_eq!(report.checksum, chunk.checksum);
    assert_eq!(chunk.stats.records, 150);
    let raw: usize = records.iter().map(Record::payload_bytes).sum();
    assert_eq!(chunk.stats.raw_bytes, raw as u64);
    assert_eq!(chunk.stats.max_appended, Some(Timestamp(1000 + 149 / 7)));
}

#[test]
fn times_are_found_as_by_looking_at_all() {
    let mut records = varied(90);
    let chunk = encode(spec(100, 400), small_pages(), &records).unwrap();
    let reader = open(&chunk.bytes).unwrap();
    let mut times: Vec<i64> = records.iter().map(|r| r.timestamp.0).collect();
    times.extend([i64::MIN, i64::MAX, 0, 1_700_000_000_000]);
    for at in times.iter().flat_map(|t| [t.saturating_sub(1), *t, t.saturating_add(1)]) {
        let expected = records
            .iter()
            .find(|r| r.timestamp.0 >= at.min(i64::MAX / 1000))
            .map(|r| (r.offset, r.timestamp));
        assert_eq!(block_on(reader.find_time(Timestamp(at))).unwrap(), expected, "{at}");
    }
    records.retain(|r| r.timestamp.0 < 1_700_000_000_000);
    let reader = open(&encode(spec(100, 400), small_pages(), &records).unwrap().bytes).unwrap();
    assert_eq!(block_on(reader.find_time(Timestamp(1_700_000_000_000))).unwrap(), None);
}

#[test]
fn a_range_without_records_is_a_chunk() {
    let chunk = encode(spec(5, 50), EncodeOptions::default(), &[]).unwrap();
    let report = verify("test", &chunk.bytes).unwrap();
    assert_eq!(report.stats.records, 0);
    assert_eq!(report.stats.max_timestamp, None);
    let reader = open(&chunk.bytes).unwrap();
    assert_eq!(reader.footer().spec().next, Offset(50));
    assert_eq!(read(&reader, 0, SMALL).unwrap(), []);
    assert_eq!(block_on(reader.find_time(Timestamp(i64::MIN))).unwrap(), None);
}

#[test]
fn control_batches_leave_a_gap() {
    let records = varied(3);
    let mut encoder = ChunkEncoder::new(spec(100, 200), EncodeOptions::default()).unwrap();
    encoder.push_batch(&batches(&records, 3)[0], Timestamp(1)).unwrap();
    let mut control = batches(&varied(20)[19..], 1)[0].bytes().to_vec();
    control[22] |= 0x20;
    let crc = crc32c::crc32c(&control[21..]);
    control[17..21].copy_from_slice(&crc.to_be_bytes());
    let control = Batch::read(control.into()).unwrap();
    assert!(control.header().is_control);
    encoder.push_batch(&control, Timestamp(1)).unwrap();
    let reader = open(&encoder.finish().unwrap().bytes).unwrap();
    assert_eq!(read(&reader, 0, SMALL).unwrap(), records);
}

#[test]
fn records_out_of_place_are_refused() {
    let check = |spec: ChunkSpec, records: &[Record]| {
        encode(spec, EncodeOptions::default(), records).map(|_| ()).map_err(|e| e.to_string())
    };
    let mut records = varied(9);
    assert!(check(spec(101, 400), &records).unwrap_err().contains("record 100"));
    let last = records[8].offset.0;
    assert!(check(spec(100, last), &records).unwrap_err().contains(&format!("record {last}")));
    assert_eq!(check(spec(100, last + 1), &records), Ok(()));
    records.swap(3, 8);
    assert!(batches(&records[7..], 1).len() == 2);
    let mut encoder = ChunkEncoder::new(spec(100, 400), EncodeOptions::default()).unwrap();
    let one = &batches(&records, 1);
    encoder.push_batch(&one[3], Timestamp(0)).unwrap();
    let error = encoder.push_batch(&one[8], Timestamp(0)).unwrap_err();
    assert!(matches!(error, Error::OutOfOrder { .. }), "{error}");
}

#[test]
fn a_chunk_of_another_range_is_not_taken_for_this_one() {
    let chunk = encode(spec(100, 400), EncodeOptions::default(), &varied(5)).unwrap();
    let reader = open(&chunk.bytes).unwrap();
    let right = Expected {
        stream_id: StreamId::from_bytes([7; 16]),
        partition: PartitionIndex(3),
        base: Offset(100),
        next: Offset(400),
    };
    reader.footer().check(&right).unwrap();
    for wrong in [
        Expected { stream_id: StreamId::from_bytes([6; 16]), ..right },
        Expected { partition: PartitionIndex(4), ..right },
        Expected { base: Offset(99), ..right },
        Expected { next: Offset(401), ..right },
    ] {
        let error = reader.footer().check(&wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().starts_with("chunk test is damaged"), "{error}");
    }
}

#[test]
fn compaction_keeps_rows_as_they_are() {
    let records = varied(60);
    let (left, right) = records.split_at(31);
    let border = right[0].offset.0;
    let mut encoder = ChunkEncoder::new(spec(100, 400), small_pages()).unwrap();
    for (base, next, part) in [(100, border, left), (border, 400, right)] {
        let chunk = encode(spec(base, next), small_pages(), part).unwrap();
        for rows in read_rows(&open(&chunk.bytes).unwrap(), 0, SMALL).unwrap() {
            encoder.push_rows(&rows).unwrap();
        }
    }
    let mut foreign = spec(100, 400);
    foreign.partition = PartitionIndex(1);
    let merged = encoder.finish().unwrap();
    let reader = open(&merged.bytes).unwrap();
    assert_eq!(read(&reader, 0, SMALL).unwrap(), records);
    let rows = read_rows(&reader, 0, ReadOptions::default()).unwrap();
    let appended: Vec<i64> = rows.iter().flat_map(Rows::appended).map(|t| t.0).collect();
    let expected = (0..31).chain(0..29).map(|n| 1000 + n / 7).collect::<Vec<i64>>();
    assert_eq!(appended, expected);
    let mut encoder = ChunkEncoder::new(foreign, small_pages()).unwrap();
    assert!(matches!(encoder.push_rows(&rows[0]), Err(Error::Mismatch { .. })));
}

#[test]
fn rows_become_plain_batches_within_epochs_and_bytes() {
    let records = varied(80);
    let rows = Rows::from_batches(
        PartitionIndex(3),
        batches(&records, 9).iter().map(|batch| (batch, Timestamp(5))),
        1 << 20,
    )
    .unwrap();
    assert_eq!(rows.records().collect::<Vec<_>>(), records);
    assert_eq!(rows.appended().max(), Some(Timestamp(5)));
    let spec = spec(100, 400);
    for bytes_max in [0, 300, 1 << 20] {
        let made = rows.to_batches(
            &|offset| spec.epoch_of(offset),
            aquifer_chunk::TimestampType::Create,
            bytes_max,
        );
        let mut back = Vec::new();
        for batch in &made {
            let header = batch.header();
            assert!(header.producer_id.is_none() && !header.is_transactional);
            assert!(header.record_count == 1 || batch.bytes().len() <= bytes_max);
            assert_eq!(header.epoch, if header.base_offset.0 < 104 { Epoch(2) } else { Epoch(5) });
            assert_eq!(header.epoch, spec.epoch_of(header.last_offset()));
            back.extend(Batch::read(batch.bytes().clone()).unwrap().to_records(1 << 20).unwrap());
        }
        assert_eq!(back, records, "{bytes_max}");
        assert_eq!(made.len(), if bytes_max == 0 { 80 } else { made.len() });
    }
    let apart = [varied(1)[0].clone(), Record { offset: Offset(1 << 40), ..varied(1)[0].clone() }];
    let rows = Rows::from_batches(
        PartitionIndex(0),
        batches(&apart, 1).iter().map(|batch| (batch, Timestamp(0))),
        1 << 20,
    )
    .unwrap();
    assert_eq!(
        rows.to_batches(&|_| Epoch(0), aquifer_chunk::TimestampType::Create, 1 << 20).len(),
        2
    );
}

#[test]
fn slices_count_their_own_bytes() {
    let records = varied(40);
    let rows = Rows::from_batches(
        PartitionIndex(0),
        batches(&records, 40).iter().map(|batch| (batch, Timestamp(0))),
        1 << 20,
    )
    .unwrap();
    let bytes = |records: &[Record]| records.iter().map(|r| r.payload_bytes() as u64).sum::<u64>();
    for start in 0..42 {
        for length in 0..42 {
            let slice = rows.slice(start, length);
            let expected = &records[start.min(40)..(start + length).min(40)];
            assert_eq!(slice.records().collect::<Vec<_>>(), expected);
            assert_eq!(slice.raw_bytes(), bytes(expected));
            let again = Rows::try_new(slice.record_batch().clone()).unwrap();
            assert_eq!(again.stats(), slice.stats());
        }
    }
    let at = records[20].offset;
    assert_eq!(rows.starting_at(at).first_offset(), Some(at));
    assert_eq!(rows.before(at).last_offset(), Some(records[19].offset));
}

#[test]
fn header_keys_that_are_no_text_are_mended_and_times_saturate() {
    let record = Record {
        offset: Offset(100),
        timestamp: Timestamp(i64::MAX - 5),
        key: None,
        headers: vec![Header { key: Bytes::from_static(b"a\xffb"), value: None }],
        value: None,
    };
    let chunk = encode(spec(100, 101), EncodeOptions::default(), &[record]).unwrap();
    let read = read(&open(&chunk.bytes).unwrap(), 0, SMALL).unwrap();
    assert_eq!(read[0].headers[0].key, "a\u{fffd}b".as_bytes());
    assert_eq!(read[0].timestamp, Timestamp(i64::MAX / 1000));
    assert_eq!(chunk.stats.max_timestamp, Some(Timestamp(i64::MAX / 1000)));
    verify("test", &chunk.bytes).unwrap();
}

#[test]
fn windows_are_bounded_however_large_the_records_are() {
    let part = |n: i64, bytes: usize| Some(Bytes::from(vec![n as u8; bytes]));
    let records: Vec<Record> = (0..60)
        .map(|n| Record {
            offset: Offset(n),
            timestamp: Timestamp(n),
            key: if n % 20 == 3 { part(n, 200_000) } else { part(n, 3) },
            headers: if n % 20 == 5 {
                // One value for many: small in the dictionary, large in memory.
                vec![Header { key: Bytes::from_static(b"h"), value: part(1, 60_000) }; 4]
            } else {
                Vec::new()
            },
            value: if n % 10 == 7 { part(n, 300_000) } else { part(n, 1000) },
        })
        .collect();
    let chunk = encode(spec(0, 60), EncodeOptions::default(), &records).unwrap();
    let reader = open(&chunk.bytes).unwrap();
    let largest = records.iter().map(Record::payload_bytes).max().unwrap() as u64;
    for window_bytes in [1, 64 << 10, 1 << 20] {
        let options = ReadOptions { window_bytes, rows_max: 1000 };
        let rows = read_rows(&reader, 0, options).unwrap();
        let most = rows.iter().map(Rows::raw_bytes).max().unwrap();
        // Within a page only the average is known.
        assert!(most <= 2 * window_bytes as u64 + 2 * largest, "{most} for {window_bytes}");
        assert_eq!(rows.iter().flat_map(Rows::records).collect::<Vec<_>>(), records);
    }
}

fn blob(max: usize) -> impl Strategy<Value = Option<Bytes>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from))
}

prop_compose! {
    fn record()(
        gap in prop_oneof![6 => Just(1_i64), 1 => 2_i64..50],
        ms in prop_oneof![1_600_000_000_000_i64..1_800_000_000_000, -(1_i64 << 60)..1_i64 << 60, Just(-1)],
        key in blob(20),
        headers in prop::collection::vec(("\\PC{0,6}", blob(12)), 0..4),
        value in blob(120),
    ) -> Record {
        let headers = headers
            .into_iter()
            .map(|(key, value)| Header { key: Bytes::from(key), value })
            .collect();
        Record { offset: Offset(gap), timestamp: Timestamp(ms), key, headers, value }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_records_survive(
        mut records in prop::collection::vec(record(), 0..60),
        from in 0_i64..200,
        window_bytes in 1_usize..2000,
    ) {
        let mut offset = 10;
        for record in &mut records {
            offset += record.offset.0;
            record.offset = Offset(offset);
        }
        let chunk = encode(spec(10, offset + 5), small_pages(), &records).unwrap();
        let report = verify("test", &chunk.bytes).unwrap();
        prop_assert_eq!(report.stats.records, records.len() as u64);
        for record in &mut records {
            let ms = &mut record.timestamp.0;
            *ms = (*ms).clamp(-(i64::MAX / 1000), i64::MAX / 1000);
        }
        let reader = open(&chunk.bytes).unwrap();
        let options = ReadOptions { window_bytes, rows_max: 17 };
        let expected: Vec<Record> = records.into_iter().filter(|r| r.offset.0 >= from).collect();
        prop_assert_eq!(read(&reader, from, options).unwrap(), expected);
    }
}
