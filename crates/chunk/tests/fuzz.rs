//! Chunks with arbitrary damage, and footers with damage behind right checksums.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use aquifer_chunk::{EncodeOptions, ReadOptions, verify};
use aquifer_types::Timestamp;
use bytes::Bytes;
use futures::executor::block_on;
use support::{encode, encode_with, open, read, schema_of, small_pages, spec, varied, varied_json};

/// The Parquet library's panics become errors; their messages would hide all
/// others.
fn hush_the_library() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |location| location.file());
        if !file.contains("/parquet-") && !file.contains("/arrow-") && !file.contains("/library/") {
            usual(panic);
        }
    }));
}

/// Writes the right checksum into a damaged footer.
fn repair(file: &mut [u8]) {
    let marker = b"aquifer.tail\x18\x18";
    let Some(at) = file.windows(marker.len()).rposition(|window| window == marker) else { return };
    let tail = at + marker.len();
    let digits = file.get(tail..tail + 16).map(|d| String::from_utf8_lossy(d).into_owned());
    let end = digits.and_then(|d| usize::from_str_radix(&d, 16).ok());
    let Some(end) = end.filter(|end| *end < tail && tail + 24 <= file.len()) else { return };
    file[tail + 16..tail + 24].copy_from_slice(b"00000000");
    let crc = format!("{:08x}", crc32c::crc32c(&file[end..]));
    file[tail + 16..tail + 24].copy_from_slice(crc.as_bytes());
}

#[test]
fn repairing_a_sound_chunk_changes_nothing() {
    for records in [varied(40), Vec::new()] {
        let chunk = encode(spec(100, 400), small_pages(), &records).unwrap();
        let mut bytes = chunk.bytes.to_vec();
        repair(&mut bytes);
        assert_eq!(bytes, chunk.bytes);
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let json = varied_json(40);
    [
        encode_with(spec(100, 400), small_pages(), &json, &schema_of(&json)).unwrap(),
        encode(spec(100, 400), small_pages(), &varied(40)).unwrap(),
        encode(spec(100, 400), EncodeOptions::default(), &varied(12)).unwrap(),
        encode(spec(0, 5), EncodeOptions::default(), &[]).unwrap(),
    ]
    .iter()
    .map(|chunk| chunk.bytes.to_vec())
    .collect()
}

/// What is damaged is refused, wherever it is: only the valid inputs, and what
/// differs from them where no reader looks, give records.
#[test]
fn fuzz_read_chunk() {
    let (sound, json) = (varied(40), varied_json(40));
    aquifer_testkit::fuzz("read_chunk", 0.5, &corpus(), |bytes| {
        let bytes = Bytes::copy_from_slice(bytes);
        let _ = verify("test", &bytes);
        let Ok(reader) = open(&bytes) else { return };
        let options = ReadOptions { window_bytes: 500, rows_max: 10 };
        if let Ok(records) = read(&reader, 0, options) {
            assert!(sound.starts_with(&records) || json.starts_with(&records));
        }
        if let Ok(Some((offset, timestamp))) =
            block_on(reader.find_time(Timestamp(1_700_000_000_001)))
        {
            assert!(sound.iter().any(|r| (r.offset, r.timestamp) == (offset, timestamp)));
        }
    });
}

/// A footer may be anything behind a right checksum: opening says what is wrong.
#[test]
fn fuzz_open_footer() {
    hush_the_library();
    let repair = |bytes: &mut Vec<u8>| repair(bytes);
    aquifer_testkit::fuzz_repaired("open_footer", 0.5, &corpus(), repair, |bytes| {
        let bytes = Bytes::copy_from_slice(bytes);
        if let Ok(reader) = open(&bytes) {
            assert!(reader.footer().spec().base <= reader.footer().spec().next);
        }
    });
}
