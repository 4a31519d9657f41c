//! Compaction by key: what a reader from the start ends up with is what was
//! written, whatever fails, and nothing else than older records goes.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::store::TierStore;
use aquifer_env::{FaultRates, FaultyStore, MockClock, Random, SeededRandom};
use aquifer_stream::{
    AppendRequest, Form, Isolation, Options, PartitionAppend, Position, ReadRequest, StreamStore,
    StreamUpdate, recover_from, verify,
};
use aquifer_types::{
    BatchBuilder, CleanupPolicy, Offset, PartitionIndex, Record, StreamConfig, Timestamp,
};
use support::*;

/// A key, and a value or a tombstone.
type Entry = (Option<String>, Option<String>);

fn compacted(settings: &[(&str, &str)]) -> StreamConfig {
    let kafka = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    StreamConfig { cleanup_policy: CleanupPolicy::Compact, kafka: kafka.collect(), ..config() }
}

async fn append_entries(store: &StreamStore, name: &str, entries: &[Entry]) {
    let mut builder = BatchBuilder::default();
    for (key, value) in entries {
        let (key, value) = (key.as_ref().map(String::as_bytes), value.as_ref());
        builder.push(Timestamp(1_000), key, &[], value.map(String::as_bytes));
    }
    let batch = builder.finish();
    let append = PartitionAppend { partition: PartitionIndex(0), batch, expected_offset: None };
    let request = AppendRequest { path: path(name), appends: vec![append], idempotency_key: None };
    store.append(request).await.unwrap();
}

fn entry(record: &Record) -> Entry {
    let text = |bytes: &bytes::Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    (record.key.as_ref().map(text), record.value.as_ref().map(text))
}

/// What was appended, one an offset.
#[derive(Default)]
struct Model(Vec<Entry>);

impl Model {
    async fn append(&mut self, store: &StreamStore, entries: Vec<Entry>) {
        append_entries(store, "k", &entries).await;
        self.0.extend(entries);
    }

    fn newest(&self) -> BTreeMap<&String, usize> {
        let keyed = self.0.iter().enumerate();
        keyed.filter_map(|(at, (key, _))| Some((key.as_ref()?, at))).collect()
    }

    /// Checks what is left; returns how many records are more than have to be.
    fn check(&self, records: &[Record], what: &str) -> usize {
        let at = |record: &Record| usize::try_from(record.offset.get()).unwrap();
        assert!(records.is_sorted_by(|a, b| a.offset < b.offset), "{what}: order");
        for record in records {
            assert_eq!(entry(record), self.0[at(record)], "{what}: offset {}", record.offset);
        }
        let newest = self.newest();
        let left: HashMap<usize, &Record> = records.iter().map(|r| (at(r), r)).collect();
        for (key, at) in &newest {
            // Where a tombstone is gone, so is everything before it.
            let is_gone = self.0[*at].1.is_none()
                && !records.iter().any(|record| entry(record).0.as_ref() == Some(key));
            assert!(left.contains_key(at) || is_gone, "{what}: {key} at {at}");
        }
        for (offset, _) in self.0.iter().enumerate().filter(|(_, (key, _))| key.is_none()) {
            assert!(left.contains_key(&offset), "{what}: {offset} has no key");
        }
        let is_more = |record: &&Record| {
            let (key, _) = entry(record);
            key.is_some_and(|key| newest[&key] != at(record))
        };
        records.iter().filter(is_more).count()
    }
}

fn random_entries(random: &SeededRandom, number: &mut usize) -> Vec<Entry> {
    let below = |n: u64| random.next_u64() % n;
    (0..1 + below(120))
        .map(|_| {
            *number += 1;
            let key = (below(50) > 0).then(|| format!("key {}", below(150)));
            let is_tombstone = key.is_some() && below(4) == 0;
            let padding = "x".repeat(below(900) as usize);
            (key, (!is_tombstone).then(|| format!("value {number} {padding}")))
        })
        .collect()
}

fn key_options(data: &std::path::Path) -> Options {
    // Room for 64 keys: most passes end early.
    Options { compaction_keys_bytes_max: 4 << 10, compaction_chunks_min: 3, ..options(data) }
}

/// Waits until a condition holds while time goes on.
async fn until_later(clock: &MockClock, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    until(what, async || {
        clock.advance(Duration::from_millis(20));
        condition().await
    })
    .await;
}

/// The first record at or behind each of some offsets, as a reader that begins
/// there finds it.
async fn check_starts(store: &StreamStore, records: &[Record], end: usize) {
    for from in (0..end).step_by(13).map(|from| Offset(from as i64)) {
        let mut at = from;
        let found = loop {
            let request = ReadRequest {
                path: path("k"),
                partition: PartitionIndex(0),
                from: Position::Offset(at),
                bytes_max: 1,
                wait: Duration::ZERO,
                isolation: Isolation::Committed,
                form: Form::Records,
            };
            let answer = store.read(request).await.unwrap();
            let first = answer.records().unwrap().into_iter().find(|r| r.offset >= from);
            if first.is_some() || answer.next_offset >= answer.stable_offset {
                break first;
            }
            assert!(answer.next_offset > at, "a reader at {at} gets on");
            at = answer.next_offset;
        };
        let expected = records.iter().find(|record| record.offset >= from);
        assert_eq!(found.as_ref(), expected, "from {from}");
    }
}

const FAULTS: FaultRates =
    FaultRates { refused: 30, timed_out: 30, answer_lost: 30, stalled: 0, slow: 50 };

async fn random_run(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let clock = Arc::new(MockClock::new(1_000_000));
    let random = SeededRandom::new(seed);
    let settings =
        |ratio| compacted(&[("min.cleanable.dirty.ratio", ratio), ("delete.retention.ms", "3000")]);
    let (mut model, mut number, mut start) = (Model::default(), 0, seed * 100);
    let mut open_next = async |rates: FaultRates| {
        start += 1;
        let faulty = FaultyStore::new(&tier2, start);
        faulty.set_rates(rates);
        let environment = with_clock(&faulty.store(), start, &clock);
        (open(key_options(dir.path()), environment).await, faulty)
    };
    let (mut store, mut faulty) = open_next(FAULTS).await;
    create(&store, "k", 1, settings(if seed.is_multiple_of(2) { "0" } else { "0.5" })).await;
    for round in 0..16 {
        model.append(&store, random_entries(&random, &mut number)).await;
        clock.advance(Duration::from_millis(200));
        if random.next_u64().is_multiple_of(2) {
            until_later(&clock, "tiered", async || is_tiered(&store, "k")).await;
        }
        // A read may fail, it may not be wrong.
        if let Ok(records) = try_read_all(&store, "k", 0).await {
            model.check(&records, &format!("seed {seed}, round {round}"));
        }
        if random.next_u64().is_multiple_of(4) {
            // Tier 2 stops at any call, and with it whatever was under way.
            let calls = faulty.calls() + random.next_u64() % 12;
            until_later(&clock, "calls", async || {
                faulty.calls() >= calls || {
                    clock.advance(Duration::from_millis(200));
                    model.append(&store, random_entries(&random, &mut number)).await;
                    false
                }
            })
            .await;
            faulty.set_down(true);
            store.shutdown().await.unwrap();
            drop(store);
            (store, faulty) = open_next(FAULTS).await;
        }
    }
    faulty.set_rates(FaultRates::default());
    let update = StreamUpdate { config: Some(settings("0").into()), partitions: None };
    store.update_stream(&path("k"), update).await.unwrap();
    until_later(&clock, "of each key one is left", async || {
        is_tiered(&store, "k") && model.check(&read_all(&store, "k", 0).await, "end") == 0
    })
    .await;
    // A record of its own makes the last passes worth it.
    clock.advance(Duration::from_secs(4));
    model.append(&store, vec![(Some("end".into()), Some("end".into()))]).await;
    until_later(&clock, "tombstones go", async || {
        let records = read_all(&store, "k", 0).await;
        model.check(&records, "tombstones");
        is_tiered(&store, "k") && records.iter().all(|record| record.value.is_some())
    })
    .await;
    let records = read_all(&store, "k", 0).await;
    assert_eq!(model.check(&records, "all"), 0);
    check_starts(&store, &records, model.0.len()).await;
    until_later(&clock, "nothing is left over", async || {
        chunks_in(&tier2).await == live(&store, &["k"])
    })
    .await;
    let chunks = store.list_chunks(&path("k")).unwrap();
    assert!(chunks.is_sorted_by(|a, b| a.next_offset == b.base_offset), "coverage has no holes");
    store.shutdown().await.unwrap();
    drop(store);

    let environment = || with_clock(&tier2, seed * 100 + 99, &clock);
    let report = verify(key_options(dir.path()), environment(), Arc::new(|_| ())).await.unwrap();
    assert!(report.is_sound(), "{:#?}", report.findings);
    let fresh = tempfile::tempdir().unwrap();
    recover_from("memory://", key_options(fresh.path()), environment(), |_, _| ()).await.unwrap();
    for data in [dir.path(), fresh.path()] {
        let store = open(key_options(data), environment()).await;
        assert_eq!(read_all(&store, "k", 0).await, records);
        store.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_each_key_stays_whatever_fails() {
    let first = aquifer_testkit::seed_from_env("AQUIFER_SEED");
    let seeds = (0..4).map(|run| first.wrapping_mul(31).wrapping_add(run) % 1_000_000);
    futures::future::join_all(seeds.map(random_run)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_lost_keeps_no_other_stream_from_being_compacted() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(MockClock::new(1_000_000));
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), with_clock(&tier2, 1, &clock)).await;
    let value = |text: &str| (Some("key".to_owned()), Some(text.to_owned()));
    for name in ["a", "b"] {
        let eager = compacted(&[("min.cleanable.dirty.ratio", "0")]);
        create(&store, name, 1, eager).await;
        append_entries(&store, name, &[value("1"), value("2")]).await;
        let is_compacted = async || read_all(&store, name, 0).await.len() == 1;
        until_later(&clock, "the newest is left", is_compacted).await;
    }
    let lost = live(&store, &["a"]).remove(0);
    store.shutdown().await.unwrap();
    drop(store);
    tier2.delete(&lost).await.unwrap();
    let store = open(options(dir.path()), with_clock(&tier2, 2, &clock)).await;
    append_entries(&store, "b", &[value("3"), value("4")]).await;
    let is_compacted = async || texts(&read_all(&store, "b", 0).await) == ["4"];
    until_later(&clock, "the newest is left", is_compacted).await;
    assert!(try_read_all(&store, "a", 0).await.is_err());
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_views_chunks_are_counted_as_it_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(MockClock::new(1_000_000));
    let tier2 = TierStore::in_memory();
    let store = open(key_options(dir.path()), with_clock(&tier2, 1, &clock)).await;
    let compacting = compacted(&[("min.cleanable.dirty.ratio", "0")]);
    let plain = StreamConfig { cleanup_policy: CleanupPolicy::Delete, ..compacting.clone() };
    create(&store, "k", 1, plain).await;
    let entry = |value: &str| (Some("key".to_owned()), Some(value.to_owned()));
    append_entries(&store, "k", &[entry("a"), entry("b"), entry("c")]).await;
    until_later(&clock, "it is tiered", async || is_tiered(&store, "k")).await;
    let view = store.view(&[path("k")], Isolation::Committed).unwrap();
    let (partition, cut) = view.cuts().next().unwrap();
    let update = StreamUpdate { config: Some(compacting.into()), partitions: None };
    store.update_stream(&path("k"), update).await.unwrap();
    append_entries(&store, "k", &[entry("d")]).await;
    until_later(&clock, "one is left", async || {
        is_tiered(&store, "k") && read_all(&store, "k", 0).await.len() == 1
    })
    .await;
    for (from, expected) in [(0, 3), (1, 2), (3, 0)] {
        let mut counted = 0;
        for chunk in cut.chunks() {
            counted += view.count_from(chunk, Offset(from)).await.unwrap();
        }
        assert_eq!(counted, expected, "from {from}");
    }
    // A walk of the view finds what is left of them.
    let mut cursor = view.read(partition, Offset(0)).unwrap();
    let mut walked = 0;
    loop {
        let blocks = cursor.next(1 << 20).await.unwrap();
        if blocks.is_empty() {
            break;
        }
        walked += blocks.len();
    }
    assert_eq!(walked, 0);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ratio_and_the_lags_say_when() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(MockClock::new(1_000_000));
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), with_clock(&tier2, 1, &clock)).await;
    let ratio = |ratio| ("min.cleanable.dirty.ratio", ratio);
    let streams = [
        ("young", compacted(&[ratio("0"), ("min.compaction.lag.ms", "600000")])),
        ("patient", compacted(&[ratio("1")])),
        ("overdue", compacted(&[ratio("1"), ("max.compaction.lag.ms", "600000")])),
        ("emptied", compacted(&[ratio("0"), ("delete.retention.ms", "600000")])),
        ("deleting", config()),
        ("eager", compacted(&[ratio("0")])),
    ];
    for (name, config) in &streams {
        create(&store, name, 1, config.clone()).await;
    }
    let left = async || {
        let mut left = Vec::new();
        for (name, _) in &streams {
            left.push(read_all(&store, name, 0).await.len());
        }
        left
    };
    // One after the other, so that a look that finds the last finds all.
    let append_to_all = async |key: &str, last: Option<&str>| {
        let value = |value: &str| (Some(key.to_owned()), Some(value.to_owned()));
        for (name, _) in &streams {
            let last = if *name == "emptied" { last } else { Some("v") };
            let last = (Some(key.to_owned()), last.map(str::to_owned));
            append_entries(&store, name, &[value("v"), last]).await;
            until_later(&clock, name, async || is_tiered(&store, name)).await;
        }
    };
    let expect = async |expected: [usize; 6]| {
        until_later(&clock, "the newest are left", async || {
            let left = left().await;
            for (at, (name, _)) in streams.iter().enumerate() {
                assert!(left[at] >= expected[at], "{name}: {left:?}");
            }
            left == expected
        })
        .await;
    };
    // What is all new is worth a pass at any ratio; a tombstone stays.
    append_to_all("a", None).await;
    expect([2, 1, 1, 1, 2, 1]).await;
    append_to_all("b", Some("v")).await;
    expect([4, 3, 3, 2, 4, 2]).await;
    clock.advance(Duration::from_secs(700));
    expect([2, 3, 2, 2, 4, 2]).await;
    // The last append to the emptied one makes a pass worth it.
    append_to_all("b", Some("w")).await;
    expect([4, 5, 4, 1, 6, 2]).await;
    assert_eq!(texts(&read_all(&store, "emptied", 0).await), ["w"]);
    store.shutdown().await.unwrap();
}
