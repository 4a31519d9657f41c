//! What is found in chunks, indexes and tails, against a look at every record.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aquifer_chunk::{
    ChunkEncoder, ChunkReader, ChunkSpec, EncodeOptions, IndexBuilder, IndexOptions, IndexReader,
    ReadOptions, Rows, TimestampType,
};
use aquifer_testkit::rand::rngs::StdRng;
use aquifer_testkit::rand::{RngExt, SeedableRng, seq::IndexedRandom};
use aquifer_types::{
    Batch, BatchBuilder, ChunkId, Epoch, Header, Offset, PartitionIndex, Record, StreamId,
    StreamName, TenantName, Timestamp,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use super::*;
use crate::{Matcher, Query, Scratch};

const NOW: Timestamp = Timestamp(1_000_000);

/// A stream: each partition's chunks, indexed or not, and its tail.
#[derive(Default)]
struct Stream {
    parts: Parts,
    chunks: Vec<(ChunkReader, Option<IndexReader>)>,
    tails: Vec<Vec<(Offset, PartitionRows)>>,
    /// All records that count.
    records: Vec<(PartitionIndex, Record)>,
    blocks_read: AtomicU64,
}

#[async_trait]
impl Source for Stream {
    type TailRows = PartitionRows;

    async fn chunk(&self, chunk: usize) -> Result<ChunkReader, Failure> {
        self.blocks_read.fetch_add(1, Ordering::Relaxed);
        Ok(self.chunks[chunk].0.clone())
    }

    async fn index(&self, chunk: usize) -> Result<Option<IndexReader>, Failure> {
        Ok(self.chunks[chunk].1.clone())
    }

    async fn tail(&self, tail: usize, from: Offset) -> Result<TailBlock<PartitionRows>, Failure> {
        let block = self.tails[tail].iter().find(|(next, _)| *next > from);
        let (next, rows) = block.cloned().unwrap_or_else(|| panic!("nothing at {from}"));
        Ok(TailBlock { rows, next })
    }
}

const WORDS: [&str; 14] = [
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
    "\u{212A}elvin",
    "a\\nb",
];

fn value(rng: &mut StdRng) -> Option<Bytes> {
    let mut word = || (*WORDS.choose(rng).unwrap()).to_owned();
    let (a, b) = (word(), word());
    let text = match rng.random_range(0..8) {
        0 => return None,
        // A name too long for any query, which must not pass for another's.
        7 => format!("{{\"a\":{{\"{}\":\"{a}\"}},\"n\":1}}", "x".repeat(5000)),
        1 => String::new(),
        2 => format!("{a} {b} rare{}", rng.random_range(0..200)),
        3 => format!("{{\"a\":\"{a}\",\"n\":{},\"b\":{{\"c\":\"{b}\"}}", rng.random_range(0..5)),
        4 => format!("[{{\"a\":\"{a}\"}},\"{b}\"]"),
        _ => format!(
            "{{\"a\":\"{a} {b}\",\"n\":{},\"b\":{{\"c\":[\"{b}\",null,{}.0]}},\"ok\":{},\"id\":\"{:08x}\"}}",
            rng.random_range(-3..600),
            rng.random_range(0..9),
            rng.random::<bool>(),
            rng.random_range(0..1000_u32),
        ),
    };
    Some(Bytes::from(text))
}

fn record(rng: &mut StdRng, offset: i64, clock: i64) -> Record {
    // Mostly in order, sometimes far off, often equal.
    let timestamp = match rng.random_range(0..10) {
        0 => rng.random_range(-5..2000),
        1..=5 => clock,
        _ => clock + rng.random_range(-20..20),
    };
    Record {
        offset: Offset(offset),
        timestamp: Timestamp(timestamp),
        key: match rng.random_range(0..3) {
            0 => None,
            _ => Some(Bytes::from(format!("user-{}", rng.random_range(0..6)))),
        },
        headers: (0..rng.random_range(0..3))
            .map(|_| Header {
                key: Bytes::from_static(if rng.random() { b"trace" } else { b"Env" }),
                value: value(rng).filter(|_| rng.random()),
            })
            .collect(),
        value: value(rng),
    }
}

fn batch(records: &[Record]) -> Batch {
    let base = records[0].offset;
    let mut builder = BatchBuilder::new(base, Epoch(1));
    for record in records {
        builder.push_at(
            u32::try_from(record.offset.since(base)).unwrap(),
            record.timestamp,
            record.key.as_deref(),
            &record.headers,
            record.value.as_deref(),
        );
    }
    builder.finish()
}

async fn chunk(
    partition: PartitionIndex,
    (base, next): (i64, i64),
    records: &[Record],
    is_indexed: bool,
    number: usize,
) -> (ChunkReader, Option<IndexReader>) {
    let chunk_id = ChunkId::from_bytes([number as u8 + 1; 16]);
    let spec = ChunkSpec {
        tenant: TenantName::default_tenant(),
        stream: StreamName::new("logs").unwrap(),
        stream_id: StreamId::from_bytes([7; 16]),
        partition,
        base: Offset(base),
        next: Offset(next),
        epochs: vec![(Epoch(1), Offset(base))],
        generation: 0,
        replaces: Vec::new(),
        schema_version: 1,
        chunk_id,
        timestamp_type: TimestampType::Create,
        compacted: Vec::new(),
    };
    let options = EncodeOptions {
        row_group_bytes_max: 4096,
        page_bytes: 256,
        page_rows_max: 5,
        dictionary_bytes_max: 64,
        ..EncodeOptions::default()
    };
    let mut encoder = ChunkEncoder::new(spec, options).unwrap();
    for records in records.chunks(7) {
        encoder.push_batch(&batch(records), Timestamp(0)).unwrap();
    }
    let bytes = encoder.finish().unwrap().bytes;
    let reader = ChunkReader::open(Arc::new(bytes), "test", None).await.unwrap();
    if !is_indexed {
        return (reader, None);
    }
    let options = IndexOptions { block_bytes_min: 300, ..IndexOptions::default() };
    let mut builder = IndexBuilder::new(reader.footer(), options);
    let mut rows = reader.read(Offset::ZERO, ReadOptions::default());
    while let Some(rows) = rows.next().await {
        builder.push(&rows.unwrap()).unwrap();
    }
    let index = Arc::new(builder.finish().bytes);
    (reader, Some(IndexReader::open(index, "test", chunk_id).await.unwrap()))
}

impl Stream {
    async fn random(rng: &mut StdRng) -> Self {
        let mut stream = Self::default();
        for partition in 0..rng.random_range(1..4) {
            let partition = PartitionIndex(partition);
            let mut offset = 10;
            let mut all = Vec::new();
            for clock in 0..rng.random_range(0..300) {
                all.push(record(rng, offset, clock * 5));
                offset += if rng.random_range(0..20) == 0 { 4 } else { 1 };
            }
            let start = 10 + rng.random_range(0..10);
            let mut rest = all.as_slice();
            let mut base = 5;
            while !rest.is_empty() && rng.random_range(0..4) > 0 {
                let (records, behind) = rest.split_at(rng.random_range(0..=rest.len()));
                let next = behind.first().map_or(offset, |record| record.offset.0);
                let is_indexed = rng.random_range(0..3) > 0;
                stream.add_chunk(partition, (base, next), start, records, is_indexed).await;
                (rest, base) = (behind, next);
            }
            let end = offset + 3 - rng.random_range(0..5);
            stream.add_tail(rng, partition, (base.max(start), end), rest);
            let counts =
                all.into_iter().filter(|r| r.offset.0 >= start && r.offset.0 < end.max(base));
            stream.records.extend(counts.map(|record| (partition, record)));
        }
        stream.records.sort_by_key(|(partition, r)| (r.timestamp, *partition, r.offset));
        stream.records.reverse();
        stream
    }

    async fn add_chunk(
        &mut self,
        partition: PartitionIndex,
        (base, next): (i64, i64),
        start: i64,
        records: &[Record],
        is_indexed: bool,
    ) {
        let number = self.chunks.len();
        let chunk = chunk(partition, (base, next), records, is_indexed, number).await;
        let times = || records.iter().map(|record| record.timestamp);
        self.parts.chunks.push(ChunkPart {
            partition,
            start: Offset(base.max(start)),
            end: Offset(next),
            is_whole: base >= start,
            timestamps: times().min().zip(times().max()).filter(|_| !number.is_multiple_of(3)),
            records: records.len() as u64,
            is_indexed: chunk.1.is_some(),
        });
        self.chunks.push(chunk);
    }

    fn add_tail(
        &mut self,
        rng: &mut StdRng,
        partition: PartitionIndex,
        (start, end): (i64, i64),
        records: &[Record],
    ) {
        if start >= end {
            return;
        }
        let mut blocks = Vec::new();
        let mut rest = records;
        let mut from = start;
        while from < end {
            let least = rest.len().min(1);
            let (here, behind) = rest.split_at(rng.random_range(least..=rest.len()));
            let next = behind.first().map_or(end, |record| record.offset.0);
            let batches: Vec<Batch> = here.chunks(5).map(batch).collect();
            let batches = batches.iter().map(|batch| (batch, Timestamp(0)));
            let rows = Rows::from_batches(partition, batches, 1 << 20).unwrap();
            blocks.push((Offset(next), PartitionRows { partition, rows }));
            (rest, from) = (behind, next);
        }
        self.parts.tails.push(TailRange { partition, start: Offset(start), end: Offset(end) });
        self.tails.push(blocks);
    }

    fn brute(&self, query: &Query) -> Vec<(PartitionIndex, Record)> {
        let matcher = Matcher::new(query);
        let mut scratch = Scratch::default();
        let fits = |(partition, record): &&(PartitionIndex, Record)| {
            matcher.matches_slowly(&(*partition, record), &mut scratch)
        };
        self.records.iter().filter(fits).cloned().collect()
    }
}

const QUERIES: [&str; 48] = [
    "",
    "error",
    "err*",
    "*rro*",
    "-error",
    "error OR warn",
    "\"error warn\"",
    "get -x",
    "größe",
    "日本*",
    "kelvin",
    "rare17",
    "rare1*",
    "\"api v1\"",
    "a:error",
    "a:\"error get\"",
    "a:err*",
    "n:3",
    "n:>=100",
    "n:[1 TO 3]",
    "n:-2",
    "n:3.0",
    "b.c:x",
    "b.c:*",
    "b:*",
    "missing:x",
    "ok:true",
    "ok:false error",
    "id:0000*",
    "a:=error",
    "a:=\"error error\"",
    "_key:user-3",
    "_key:=user-3",
    "_headers.trace:error",
    "_headers:env",
    "_partition:1",
    "_partition:>0 error",
    "_offset:<60",
    "_timestamp:[100 TO 200]",
    "_timestamp:[100 TO 200} error",
    "NOT (error OR _timestamp:>500)",
    "b.c:3",
    "a:(error OR warn) -b.c:x",
    "nb",
    "a:b",
    "a.\u{FFFD}:error",
    "a.\u{FFFD}:*",
    "zzz",
];

fn options(rng: &mut StdRng) -> RunOptions {
    RunOptions {
        opens_max: rng.random_range(1..5),
        reads_max: rng.random_range(1..5),
        unit_bytes: *[1, 300, 2000, 1 << 20].choose(rng).unwrap(),
        ..RunOptions::default()
    }
}

#[tokio::test]
async fn searches_find_what_a_look_at_all_records_finds() {
    let seed = aquifer_testkit::seed_from_env("AQUIFER_SEED");
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..5 {
        let stream = Arc::new(Stream::random(&mut rng).await);
        for text in QUERIES {
            let query = Query::parse(text, NOW).unwrap();
            let from = rng.random::<bool>().then(|| Timestamp(rng.random_range(0..600)));
            let to = rng.random::<bool>().then(|| Timestamp(rng.random_range(0..1500)));
            let query = query.within(from, to);
            let expected = stream.brute(&query);
            check_pages(&mut rng, &stream, &query, &expected, text).await;
            check_histogram(&mut rng, &stream, &query, &expected, text).await;
        }
    }
}

async fn check_pages(
    rng: &mut StdRng,
    stream: &Arc<Stream>,
    query: &Query,
    expected: &[(PartitionIndex, Record)],
    text: &str,
) {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let hits_max = *[1, 2, 7, 50, 1000].choose(rng).unwrap();
        let wants_total = rng.random();
        let request = SearchRequest {
            query: query.clone(),
            hits_max,
            after,
            wants_total,
            wants_marks: rng.random(),
        };
        let page = search(stream.clone(), stream.parts.clone(), request, options(rng)).await;
        let page = page.unwrap();
        assert!(page.hits.len() <= hits_max, "{text}");
        let Total { value, is_exact } = page.total;
        let all = expected.len() as u64;
        assert!(value == all || (!is_exact && value < all), "{text}: {value} of {all}");
        assert!(is_exact || !wants_total, "{text}");
        found.extend(page.hits.into_iter().map(|hit| (hit.partition, hit.record)));
        if let Some(next) = page.next {
            after = Some(next.to_string().parse().unwrap());
        } else {
            break;
        }
        // Beyond some pages nothing new is learned.
        if found.len() > 40 {
            break;
        }
    }
    let expected = if found.len() > 40 { &expected[..found.len()] } else { expected };
    assert_eq!(found, expected, "{text}");
}

async fn check_histogram(
    rng: &mut StdRng,
    stream: &Arc<Stream>,
    query: &Query,
    expected: &[(PartitionIndex, Record)],
    text: &str,
) {
    let bars_max = rng.random_range(1..40);
    let top_of = if rng.random() { vec!["ok".to_owned(), "_partition".to_owned()] } else { vec![] };
    let request =
        HistogramRequest { query: query.clone(), bars_max, top_of: top_of.clone(), top_max: 10 };
    let bars = histogram(stream.clone(), stream.parts.clone(), request, options(rng), None).await;
    let bars = bars.unwrap();
    assert!(bars.is_complete && bars.bars.len() <= bars_max, "{text}");
    assert_eq!(bars.total, expected.len() as u64, "{text}");
    assert_eq!(bars.bars.iter().map(|bar| bar.count).sum::<u64>(), bars.total, "{text}");
    for bar in &bars.bars {
        let end = bar.start.0 + bars.width_ms as i64;
        let inside = |r: &&(PartitionIndex, Record)| (bar.start.0..end).contains(&r.1.timestamp.0);
        let expected = expected.iter().filter(inside).count() as u64;
        assert_eq!(bar.count, expected, "{text}: {} to {end}", bar.start.0);
    }
    if let [_, partitions] = bars.top.as_slice() {
        for value in &partitions.values {
            let of = |(partition, _): &&(PartitionIndex, Record)| {
                partition.get().to_string() == value.json
            };
            let expected = expected.iter().filter(of).count() as u64;
            assert_eq!(value.count, expected, "{text}: partition {}", value.json);
        }
    }
    assert_eq!(bars.top.len(), top_of.len());
}

fn plain_records(offsets: std::ops::Range<i64>) -> Vec<Record> {
    let record = |n| Record {
        offset: Offset(n),
        timestamp: Timestamp(n * 10),
        key: None,
        headers: Vec::new(),
        value: Some(Bytes::from(format!("common needle{n}"))),
    };
    offsets.map(record).collect()
}

/// A stream of one partition in `chunks` chunks of a thousand records, the
/// newest in the last, and a tail of `runs` runs of a hundred.
async fn plain_with_tail(chunks: i64, runs: i64) -> Arc<Stream> {
    let mut stream = Stream::default();
    for number in 0..chunks {
        let base = number * 1000;
        let records = plain_records(base..base + 1000);
        let covered = (base, base + 1000);
        stream.add_chunk(PartitionIndex(0), covered, 0, &records, true).await;
        if let Some(part) = stream.parts.chunks.last_mut() {
            part.timestamps = Some((Timestamp(base * 10), Timestamp((base + 999) * 10)));
        }
    }
    let (partition, start) = (PartitionIndex(0), chunks * 1000);
    let run = |number| {
        let from = start + number * 100;
        let batch = batch(&plain_records(from..from + 100));
        let rows = Rows::from_batches(partition, [(&batch, Timestamp(0))], 1 << 20).unwrap();
        (Offset(from + 100), PartitionRows { partition, rows })
    };
    if runs > 0 {
        let end = Offset(start + runs * 100);
        stream.parts.tails.push(TailRange { partition, start: Offset(start), end });
        stream.tails.push((0..runs).map(run).collect());
    }
    Arc::new(stream)
}

async fn plain(chunks: i64) -> Arc<Stream> {
    plain_with_tail(chunks, 0).await
}

#[tokio::test]
async fn of_a_tail_no_more_is_looked_through_than_the_answer_needs() {
    let stream = plain_with_tail(1, 60).await;
    let find = async |text: &str, hits_max| {
        stream.blocks_read.store(0, Ordering::Relaxed);
        let query = Query::parse(text, NOW).unwrap();
        let wants =
            SearchRequest { query, hits_max, after: None, wants_total: false, wants_marks: false };
        let parts = stream.parts.clone();
        search(stream.clone(), parts, wants, RunOptions::default()).await.unwrap()
    };
    let reads_max = RunOptions::default().reads_max as u64;
    let hits = find("common", 5).await;
    let offsets: Vec<i64> = hits.hits.iter().map(|hit| hit.record.offset.0).collect();
    assert_eq!(offsets, [6999, 6998, 6997, 6996, 6995]);
    // The newest run has them all: those that were begun beside it are all else.
    assert!(hits.rows_read <= reads_max * 100, "{} rows", hits.rows_read);
    assert_eq!(stream.blocks_read.load(Ordering::Relaxed), 0);
    let hits = find("common", 250).await;
    assert_eq!(hits.hits.len(), 250);
    assert!(hits.rows_read <= (reads_max + 3) * 100, "{} rows", hits.rows_read);
    // What lies far back is found, too.
    let hits = find("needle1005", 1).await;
    assert_eq!(hits.hits[0].record.offset.0, 1005);
}

#[tokio::test]
async fn no_more_is_read_than_the_answer_needs() {
    let stream = plain(6).await;
    let find = async |text: &str, hits_max, wants_total| {
        stream.blocks_read.store(0, Ordering::Relaxed);
        let query = Query::parse(text, NOW).unwrap();
        let wants = SearchRequest { query, hits_max, after: None, wants_total, wants_marks: false };
        let options = RunOptions::default();
        let hits = search(stream.clone(), stream.parts.clone(), wants, options).await.unwrap();
        (hits, stream.blocks_read.load(Ordering::Relaxed))
    };
    // A common word's newest hits lie in the last blocks.
    let (hits, read) = find("common", 5, false).await;
    let offsets: Vec<i64> = hits.hits.iter().map(|hit| hit.record.offset.0).collect();
    assert_eq!(offsets, [5999, 5998, 5997, 5996, 5995]);
    assert!(!hits.total.is_exact && read <= 4, "{read} blocks");
    // A rare one's lie in one block of one chunk.
    let (hits, read) = find("needle2345", 5, false).await;
    assert_eq!(hits.hits.len(), 1);
    assert_eq!(hits.total, Total { value: 1, is_exact: true });
    assert!(read <= 3, "{read} blocks");
    // What no index knows costs no block.
    let (hits, read) = find("absent_from_all", 5, true).await;
    assert_eq!((hits.hits.len(), hits.total.value), (0, 0));
    assert!(read <= 1, "{read} blocks");
    // A count of everything is known beforehand.
    let (hits, read) = find("", 1, true).await;
    assert_eq!(hits.total, Total { value: 6000, is_exact: true });
    assert!(read <= 4, "{read} blocks");
    // So are most bars of everything.
    stream.blocks_read.store(0, Ordering::Relaxed);
    let request = HistogramRequest {
        query: Query::everything(),
        bars_max: 7,
        top_of: Vec::new(),
        top_max: 0,
    };
    let parts = stream.parts.clone();
    let bars = histogram(stream.clone(), parts, request, RunOptions::default(), None).await;
    let bars = bars.unwrap();
    assert_eq!((bars.width_ms, bars.bars.len(), bars.total), (10_000, 6, 6000));
    assert_eq!(stream.blocks_read.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn hits_that_are_too_large_together_are_refused() {
    let stream = plain(1).await;
    let query = Query::everything();
    let request =
        SearchRequest { query, hits_max: 500, after: None, wants_total: false, wants_marks: false };
    let options = RunOptions { hits_bytes_max: 1000, ..RunOptions::default() };
    let refused = search(stream.clone(), stream.parts.clone(), request, options).await;
    assert!(matches!(refused, Err(Failure::HitsTooLarge { bytes_max: 1000 })), "{refused:?}");
}
