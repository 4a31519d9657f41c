//! Damaged bytes are noticed, and never become records.

mod support;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use aquifer_chunk::{ChunkReader, EncodeOptions, Error, RangeRead, ReadOptions, verify};
use aquifer_testkit::rand::rngs::StdRng;
use aquifer_testkit::rand::{RngExt, SeedableRng};
use aquifer_types::{ErrorKind, Offset, Record, Timestamp};
use bytes::Bytes;
use futures::executor::block_on;
use futures::future::BoxFuture;
use support::{encode, open, read, small_pages, spec, varied};

/// All records, or the first error on the way to them.
fn read_all(bytes: &Bytes, options: ReadOptions) -> Result<Vec<Record>, Error> {
    read(&open(bytes)?, 0, options)
}

fn flipped(bytes: &Bytes, bit: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes.into()
}

#[test]
fn every_flipped_bit_is_noticed() {
    for records in [varied(40), Vec::new()] {
        let chunk = encode(spec(100, 400), EncodeOptions::default(), &records).unwrap();
        let options = ReadOptions::default();
        assert_eq!(read_all(&chunk.bytes, options).unwrap(), records);
        for bit in 0..chunk.bytes.len() * 8 {
            let damaged = flipped(&chunk.bytes, bit);
            // Without rows there is nothing to read but the footer.
            if !records.is_empty() || bit >= 32 {
                let error = read_all(&damaged, options).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Damaged, "bit {bit}: {error}");
            }
            let error = verify("test", &damaged).unwrap_err();
            assert!(error.to_string().contains("chunk test is damaged"), "bit {bit}: {error}");
        }
    }
}

#[test]
fn flipped_bits_of_a_larger_chunk_never_become_records() {
    let mut random = StdRng::seed_from_u64(11);
    let records: Vec<Record> = (0..400)
        .map(|n| {
            let value: Vec<u8> = (0..1024).map(|_| random.random()).collect();
            Record {
                offset: Offset(100 + n),
                timestamp: Timestamp(n),
                key: None,
                headers: Vec::new(),
                value: Some(value.into()),
            }
        })
        .collect();
    let page_rows = EncodeOptions { page_bytes: 16 << 10, ..EncodeOptions::default() };
    let chunk = encode(spec(100, 500), page_rows, &records).unwrap();
    assert!(chunk.bytes.len() > 6 * 65_536, "{}", chunk.bytes.len());
    let options = ReadOptions { window_bytes: 64 << 10, rows_max: 1000 };
    for _ in 0..300 {
        let bit = random.random_range(0..chunk.bytes.len() * 8);
        let damaged = flipped(&chunk.bytes, bit);
        let error = read_all(&damaged, options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "bit {bit}: {error}");
        assert!(verify("test", &damaged).is_err());
        // What does not touch the damaged block is read as ever.
        let from = random.random_range(100..500);
        if let Ok(found) = open(&damaged).and_then(|reader| read(&reader, from, options)) {
            assert_eq!(found, records[from as usize - 100..], "bit {bit}, from {from}");
        }
    }
}

#[test]
fn every_cut_is_noticed() {
    let chunk = encode(spec(100, 400), small_pages(), &varied(20)).unwrap();
    for length in 0..chunk.bytes.len() {
        let cut = chunk.bytes.slice(..length);
        let error = read_all(&cut, ReadOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged, "{length}: {error}");
        assert!(verify("test", &cut).is_err(), "{length}");
    }
    let longer = [&chunk.bytes[..], b"x"].concat().into();
    assert!(read_all(&longer, ReadOptions::default()).is_err());
}

/// A store that answers otherwise than it should.
struct Wrong {
    bytes: Bytes,
    answer: fn(Bytes) -> io::Result<Bytes>,
}

impl RangeRead for Wrong {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Bytes>> {
        let part = self.bytes.slice(range.start as usize..range.end as usize);
        let is_footer = range.end == self.bytes.len() as u64;
        let answer = if is_footer { Ok(part) } else { (self.answer)(part) };
        Box::pin(futures::future::ready(answer))
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

#[test]
fn a_store_that_fails_says_so() {
    let value = |n: i64| {
        let mut random = StdRng::seed_from_u64(n as u64);
        (0..8000).map(|_| random.random()).collect::<Vec<u8>>()
    };
    let mut records = varied(20);
    for (n, record) in records.iter_mut().enumerate() {
        record.value = Some(value(n as i64).into());
    }
    let chunk = encode(spec(100, 400), EncodeOptions::default(), &records).unwrap();
    assert!(chunk.bytes.len() > 100_000);
    let check = |answer: fn(Bytes) -> io::Result<Bytes>, kind: ErrorKind| {
        let source = Arc::new(Wrong { bytes: chunk.bytes.clone(), answer });
        let reader = block_on(ChunkReader::open(source, "test", None)).unwrap();
        let error = read(&reader, 0, ReadOptions::default()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    };
    check(|_| Err(io::ErrorKind::TimedOut.into()), ErrorKind::Unavailable);
    check(|_| Err(io::ErrorKind::NotFound.into()), ErrorKind::NotFound);
    check(|part| Ok(part.slice(1..)), ErrorKind::Damaged);
    check(|part| Ok(part.iter().rev().copied().collect()), ErrorKind::Damaged);
}

#[test]
fn keys_that_look_like_the_footer_do_not_mislead() {
    let mut records = varied(3);
    for record in &mut records {
        record.key =
            Some(Bytes::from_static(b"aquifer.tail\x18\x18ffffffffffffffff00000000\0\x15PAR1"));
    }
    let chunk = encode(spec(100, 400), EncodeOptions::default(), &records).unwrap();
    assert_eq!(read_all(&chunk.bytes, ReadOptions::default()).unwrap(), records);
    verify("test", &chunk.bytes).unwrap();
}
