//! The search index against brute force: it never misses a record, and it leaves
//! blocks out that a reader need not look at.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aquifer_chunk::{
    Candidates, EncodedIndex, Expected, IndexBuilder, IndexOptions, IndexReader, RangeRead,
    ReadOptions, TermQuery, build_index, tokens, tokens_of_text, verify_index,
};
use aquifer_testkit::rand::{Rng, RngExt, rngs::StdRng};
use aquifer_types::{ChunkId, Header, Offset, Record, Timestamp};
use bytes::Bytes;
use futures::executor::block_on;
use futures::future::BoxFuture;
use serde_json::Value;
use support::{encode, open, read_rows, small_pages, spec};

/// Small in every way, so that few records cross all bounds.
fn options() -> IndexOptions {
    IndexOptions {
        block_bytes_min: 200,
        fingerprint_bits: 6,
        occurrences_max: 1 << 20,
        fields_max: 12,
        field_terms_max: 6,
    }
}

fn build(records: &[Record], next: i64, options: IndexOptions) -> EncodedIndex {
    let chunk = encode(spec(0, next), small_pages(), records).unwrap();
    let reader = open(&chunk.bytes).unwrap();
    let mut builder = IndexBuilder::new(reader.footer(), options.clone());
    for rows in read_rows(&reader, 0, ReadOptions { window_bytes: 500, rows_max: 7 }).unwrap() {
        builder.push(&rows).unwrap();
    }
    let built = builder.finish();
    let spec = reader.footer().spec();
    let (stream_id, partition) = (spec.stream_id, spec.partition);
    let expected = Expected { stream_id, partition, base: spec.base, next: spec.next };
    let whole = build_index("test", &chunk.bytes, &expected, options.clone()).unwrap();
    assert_eq!(whole.bytes, built.bytes, "whatever the windows are");
    let other = Expected { base: spec.next, ..expected };
    assert!(build_index("test", &chunk.bytes, &other, options).is_err());
    built
}

fn chunk_id() -> ChunkId {
    spec(0, 1).chunk_id
}

fn opened(bytes: &Bytes) -> IndexReader {
    block_on(IndexReader::open(Arc::new(bytes.clone()), "test", chunk_id())).unwrap()
}

const WORDS: [&str; 12] = [
    "error",
    "Warn",
    "GET",
    "/api/v1/pods",
    "user_7",
    "10.0.0.1",
    "Größe",
    "日本語",
    "x",
    "200",
    "kube-system",
    "errors",
];
const KEYS: [&str; 6] = ["verb", "User", "status", "a.b", "名", "msg"];

fn scalar(rng: &mut StdRng) -> Value {
    match rng.random_range(0..7) {
        0 => Value::Null,
        1 => Value::Bool(rng.random()),
        2 => Value::from(rng.random_range(0..9)),
        3 => Value::from(f64::from(rng.random_range(-4..4)) / 2.0),
        4 => Value::from(format!("{:08x}", rng.next_u32())),
        5 => Value::from("two\nlines \"and\" \\quotes\\ é"),
        _ => Value::from(format!(
            "{} {}",
            WORDS[rng.random_range(0..WORDS.len())],
            WORDS[rng.random_range(0..WORDS.len())]
        )),
    }
}

fn json(rng: &mut StdRng, depth: usize) -> Value {
    let mut object = serde_json::Map::new();
    for _ in 0..rng.random_range(0..4) {
        let key = KEYS[rng.random_range(0..KEYS.len())].to_owned();
        let value = match rng.random_range(0..6) {
            0 if depth < 10 => json(rng, depth + 1),
            1 => Value::Array((0..rng.random_range(0..3)).map(|_| scalar(rng)).collect()),
            _ => scalar(rng),
        };
        object.insert(key, value);
    }
    Value::Object(object)
}

fn value(rng: &mut StdRng) -> Option<Bytes> {
    Some(match rng.random_range(0..10) {
        0 => return None,
        1 => Bytes::new(),
        2 => Bytes::from(WORDS[rng.random_range(0..WORDS.len())]),
        3 => {
            // Cut off, or with bytes that are no text.
            let mut bytes = json(rng, 0).to_string().into_bytes();
            bytes.truncate(rng.random_range(0..bytes.len()) + 1);
            bytes.push(rng.random());
            Bytes::from(bytes)
        }
        4 => Bytes::from(format!("[{},{}]", json(rng, 0), json(rng, 0))),
        5 => Bytes::from(format!("id={:016x} took {}ms", rng.next_u64(), rng.random_range(0..99))),
        _ => Bytes::from(json(rng, 0).to_string()),
    })
}

fn records(rng: &mut StdRng, count: usize) -> Vec<Record> {
    let mut offset = 0;
    let word = |rng: &mut StdRng| Bytes::from(WORDS[rng.random_range(0..WORDS.len())]);
    (0..count)
        .map(|_| {
            offset += rng.random_range(1..4);
            Record {
                offset: Offset(offset),
                timestamp: Timestamp(rng.random_range(-5..1 << 40)),
                key: rng.random_bool(0.5).then(|| word(rng)),
                headers: (0..rng.random_range(0..2))
                    .map(|_| Header {
                        key: word(rng),
                        value: rng.random_bool(0.5).then(|| word(rng)),
                    })
                    .collect(),
                value: value(rng),
            }
        })
        .collect()
}

fn parts(record: &Record) -> impl Iterator<Item = &Bytes> {
    let headers = record.headers.iter();
    let headers = headers.flat_map(|header| std::iter::once(&header.key).chain(&header.value));
    record.key.iter().chain(&record.value).chain(headers)
}

fn has_token(record: &Record, is_wanted: impl Fn(&str) -> bool) -> bool {
    let mut found = false;
    for part in parts(record) {
        tokens(part, |token| found |= is_wanted(std::str::from_utf8(token.text).unwrap()));
    }
    found
}

/// Whether a scalar at `path` is wanted; by a parser of its own.
fn has_field(record: &Record, path: &str, is_wanted: &dyn Fn(&Value) -> bool) -> bool {
    fn walk(value: &Value, at: &str, path: &str, is_wanted: &dyn Fn(&Value) -> bool) -> bool {
        match value {
            Value::Object(object) => object.iter().any(|(key, value)| {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                walk(value, &at, path, is_wanted)
            }),
            Value::Array(items) => items.iter().any(|item| walk(item, at, path, is_wanted)),
            scalar => at == path && is_wanted(scalar),
        }
    }
    let value = record.value.as_ref().and_then(|value| serde_json::from_slice(value).ok());
    value.is_some_and(|value: Value| value.is_object() && walk(&value, "", path, is_wanted))
}

fn matches(query: &TermQuery, record: &Record) -> bool {
    match query {
        TermQuery::Anything => true,
        TermQuery::Word(word) => has_token(record, |token| token == word),
        TermQuery::Prefix(start) => has_token(record, |token| token.starts_with(start.as_str())),
        TermQuery::FieldExists(path) => has_field(record, path, &|_| true),
        TermQuery::FieldWord(path, word) => has_field(record, path, &|scalar| match scalar {
            Value::String(text) => tokens_of_text(text).contains(word),
            Value::Bool(flag) => word == if *flag { "true" } else { "false" },
            Value::Null => word == "null",
            _ => false,
        }),
        TermQuery::FieldNumber(path, number) => {
            has_field(record, path, &|scalar| scalar.as_f64() == Some(*number))
        }
        TermQuery::All(queries) => queries.iter().all(|query| matches(query, record)),
        TermQuery::Any(queries) => queries.iter().any(|query| matches(query, record)),
    }
}

fn query(rng: &mut StdRng, records: &[Record], depth: usize) -> TermQuery {
    let record = &records[rng.random_range(0..records.len())];
    let mut known = vec!["absent".to_owned()];
    for part in parts(record) {
        tokens(part, |token| known.push(String::from_utf8(token.text.to_vec()).unwrap()));
    }
    let word = known[rng.random_range(0..known.len())].clone();
    let path = match rng.random_range(0..4) {
        0 => format!("{}.{}", KEYS[rng.random_range(0..6)], KEYS[rng.random_range(0..6)]),
        1 => [KEYS[rng.random_range(0..6)]; 9].join("."),
        2 => "nowhere".to_owned(),
        _ => KEYS[rng.random_range(0..6)].to_owned(),
    };
    match rng.random_range(0..if depth < 3 { 9 } else { 6 }) {
        0 => TermQuery::Anything,
        1 => TermQuery::Word(word),
        2 => {
            let count = rng.random_range(1..8);
            TermQuery::Prefix(word.chars().take(count).collect())
        }
        3 => TermQuery::FieldExists(path),
        4 => TermQuery::FieldWord(path, word),
        5 => TermQuery::FieldNumber(path, f64::from(rng.random_range(-4..9)) / 2.0),
        6 => TermQuery::All((0..3).map(|_| query(rng, records, depth + 1)).collect()),
        7 => TermQuery::Any((0..2).map(|_| query(rng, records, depth + 1)).collect()),
        _ => TermQuery::All(Vec::new()),
    }
}

#[test]
fn no_record_is_missed() {
    let mut rng = aquifer_testkit::rng_from_env();
    let rounds = if aquifer_testkit::is_full_test() { 400 } else { 40 };
    let (mut pruned, mut hits) = (0, 0);
    for round in 0..rounds {
        let count = rng.random_range(1..150);
        let records = records(&mut rng, count);
        let next = records.last().unwrap().offset.0 + 1;
        let limits = match round % 8 {
            0 => IndexOptions { occurrences_max: 50, ..options() },
            1 => IndexOptions { fields_max: 2, ..options() },
            2 => IndexOptions { fingerprint_bits: 0, ..options() },
            3 => IndexOptions { field_terms_max: 1000, fields_max: 1000, ..options() },
            _ => options(),
        };
        let index = build(&records, next, limits);
        let report = verify_index("test", &index.bytes).unwrap();
        assert_eq!((report.blocks, report.terms), (index.blocks, index.terms));
        let reader = opened(&index.bytes);
        check_blocks(&reader, &records);
        for _ in 0..60 {
            let query = query(&mut rng, &records, 0);
            let Candidates { blocks, is_known } = block_on(reader.find(&query)).unwrap();
            assert!(is_known || blocks.count() == index.blocks, "{query:?}");
            for (at, block) in reader.blocks().iter().enumerate() {
                let rows = block.rows.start as usize..block.rows.end as usize;
                let hit = records[rows].iter().find(|record| matches(&query, record));
                hits += u64::from(hit.is_some());
                pruned += u64::from(!blocks.contains(at));
                assert!(
                    hit.is_none() || blocks.contains(at),
                    "{query:?} misses {hit:?} in block {at} of {}",
                    index.blocks
                );
            }
        }
    }
    println!("{hits} blocks had hits, {pruned} were left out");
    assert!(hits > 1_000 && pruned > 1_000, "it says nothing");
}

fn check_blocks(reader: &IndexReader, records: &[Record]) {
    let mut row = 0;
    for block in reader.blocks() {
        assert_eq!(block.rows.start, row);
        row = block.rows.end;
        let own = &records[block.rows.start as usize..row as usize];
        let bytes: usize = own.iter().flat_map(parts).map(Bytes::len).sum();
        assert_eq!(block.raw_bytes, bytes as u64);
        assert_eq!(Some(block.first_offset), own.first().map(|record| record.offset));
        assert_eq!(Some(block.last_offset), own.last().map(|record| record.offset));
        assert_eq!(Some(block.min_timestamp), own.iter().map(|record| record.timestamp).min());
        assert_eq!(Some(block.max_timestamp), own.iter().map(|record| record.timestamp).max());
    }
    assert_eq!(row, records.len() as u64);
}

/// Counts what is read.
struct Counting(Bytes, AtomicU64);

impl RangeRead for Counting {
    fn read(&self, range: std::ops::Range<u64>) -> BoxFuture<'_, std::io::Result<Bytes>> {
        self.1.fetch_add(range.end - range.start, Ordering::Relaxed);
        self.0.read(range)
    }

    fn size(&self) -> u64 {
        self.0.len() as u64
    }
}

#[test]
fn a_word_costs_a_small_read_and_names_few_blocks() {
    let mut rng = aquifer_testkit::rng_from_env();
    let id = |n: u64| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let seed: u64 = rng.random();
    let records: Vec<Record> = (0..20_000)
        .map(|n: u64| Record {
            offset: Offset(n as i64),
            timestamp: Timestamp(n as i64),
            key: None,
            headers: Vec::new(),
            value: Some(Bytes::from(format!("request {} done", id(seed ^ n)))),
        })
        .collect();
    let limits = IndexOptions { block_bytes_min: 10_000, ..IndexOptions::default() };
    let index = build(&records, 20_000, limits);
    assert!(index.blocks > 40, "{}", index.blocks);
    let source = Arc::new(Counting(index.bytes.clone(), AtomicU64::new(0)));
    let reader = block_on(IndexReader::open(source.clone(), "test", chunk_id())).unwrap();
    let opening = source.1.swap(0, Ordering::Relaxed);
    assert!(opening <= 16 << 10, "{opening}");
    let (mut found, mut false_hits) = (0, 0);
    for n in 0..1000 {
        let word = |n| TermQuery::Word(id(n));
        found += block_on(reader.find(&word(seed ^ (n * 20)))).unwrap().blocks.count();
        false_hits += block_on(reader.find(&word(!seed ^ n))).unwrap().blocks.count();
    }
    let a_query = source.1.load(Ordering::Relaxed) / 2000;
    println!("{a_query} bytes a query, {found} blocks for 1000 ids, {false_hits} in vain");
    assert!((1000..1020).contains(&found) && false_hits < 20, "{found}, {false_hits}");
    assert!(a_query < 6_000, "{a_query}");
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let mut rng = aquifer_testkit::rng_from_env();
    let records = records(&mut rng, 60);
    let next = records.last().unwrap().offset.0 + 1;
    let index = build(&records, next, options()).bytes;
    for at in 0..index.len() {
        let mut bytes = index.to_vec();
        bytes[at] ^= 1 << rng.random_range(0..8);
        assert!(verify_index("test", &Bytes::from(bytes)).is_err(), "byte {at}");
        assert!(verify_index("test", &index.slice(..at)).is_err(), "cut at {at}");
    }
    let other = ChunkId::from_bytes([0; 16]);
    assert!(block_on(IndexReader::open(Arc::new(index), "test", other)).is_err());
}

#[test]
fn a_chunk_without_rows_has_an_index() {
    let index = build(&[], 10, options());
    assert_eq!((index.blocks, index.raw_bytes), (0, 0));
    let found = block_on(opened(&index.bytes).find(&TermQuery::Word("a".into()))).unwrap();
    assert!(found.blocks.is_empty());
    verify_index("test", &index.bytes).unwrap();
}

/// Damage with right checksums must be an error or an answer, never a panic.
#[test]
fn fuzz_index() {
    let mut rng = aquifer_testkit::rng_from_env();
    let records = records(&mut rng, 60);
    let next = records.last().unwrap().offset.0 + 1;
    let sample = build(&records, next, options()).bytes;
    let queries: Vec<TermQuery> = (0..8).map(|_| query(&mut rng, &records, 0)).collect();
    aquifer_testkit::fuzz("index", 0.5, &[sample.to_vec()], |bytes| {
        let mut bytes = bytes.to_vec();
        repair(&mut bytes);
        let bytes = Bytes::from(bytes);
        let _ = verify_index("test", &bytes);
        let open = block_on(IndexReader::open(Arc::new(bytes), "test", chunk_id()));
        if let Ok(reader) = open {
            for query in &queries {
                let _ = block_on(reader.find(query));
            }
        }
    });
}

/// Writes the right checksums of head and trailer.
fn repair(file: &mut [u8]) {
    let Some(trailer) = file.len().checked_sub(32) else { return };
    let number =
        |file: &[u8], at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let start = number(file, trailer);
    if start <= trailer {
        let bytes = (trailer - start) as u32;
        file[trailer + 8..trailer + 12].copy_from_slice(&bytes.to_le_bytes());
        let checksum = crc32c::crc32c(&file[start..trailer]);
        file[trailer + 12..trailer + 16].copy_from_slice(&checksum.to_le_bytes());
    }
    let checksum = crc32c::crc32c(&file[trailer..trailer + 24]);
    file[trailer + 24..trailer + 28].copy_from_slice(&checksum.to_le_bytes());
}

const GOLDEN: &[u8] = include_bytes!("golden/index-v1.index");

fn golden_records() -> Vec<Record> {
    let value = |n: i64| match n % 4 {
        0 => format!(r#"{{"verb":"get","n":{n},"user":{{"name":"J\u00f6rg {n}"}}}}"#),
        1 => format!("line {n} of a log: GET /index.html"),
        2 => r#"{"cut":"off"#.to_owned(),
        _ => format!(r#"{{"list":[true,null,{n}.5]}}"#),
    };
    (0..60)
        .map(|n| Record {
            offset: Offset(n * 2),
            timestamp: Timestamp(1_700_000_000_000 + n * 10 - n % 3 * 25),
            key: (n % 2 == 0).then(|| Bytes::from(format!("key-{n}"))),
            headers: Vec::new(),
            value: Some(Bytes::from(value(n))),
        })
        .collect()
}

#[test]
fn the_golden_index_is_read_and_written() {
    let golden = Bytes::from_static(GOLDEN);
    let index = build(&golden_records(), 200, options());
    if index.bytes != golden {
        let path = std::env::temp_dir().join("index-v1.index");
        #[allow(clippy::disallowed_methods, reason = "a test writes what differs to a file")]
        std::fs::write(&path, &index.bytes).unwrap();
        panic!(
            "indexes are written otherwise than by version 1: a change of the format needs a new \
             version and a golden file beside the old one; {}",
            path.display()
        );
    }
    let reader = opened(&golden);
    let check = |query: TermQuery, rows: &[u64]| {
        let found = block_on(reader.find(&query)).unwrap().blocks;
        for row in rows {
            let at = reader.blocks().iter().position(|block| block.rows.contains(row)).unwrap();
            assert!(found.contains(at), "{query:?}");
        }
    };
    check(TermQuery::Word("jörg".into()), &[0, 4, 56]);
    check(TermQuery::FieldNumber("n".into(), 8.0), &[8]);
    check(TermQuery::FieldWord("list".into(), "true".into()), &[3, 59]);
    check(TermQuery::Prefix("inde".into()), &[1, 57]);
}
