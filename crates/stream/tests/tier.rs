//! Tiering, retention, manifests, owners and compaction over a store in memory
//! that may fail.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aquifer_env::store::TierStore;
use aquifer_env::{Fault, FaultRates, FaultyStore, MockClock, Random, SeededRandom};
use aquifer_stream::{Environment, Error, Isolation, Options, StreamStore, Truncation};
use aquifer_types::{Offset, PartitionIndex, StreamConfig};
use support::*;

const DAY_MS: u64 = 24 * 3600 * 1000;

#[tokio::test(flavor = "multi_thread")]
async fn a_start_within_a_batch_does_not_stop_tiering() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let clock = Arc::new(MockClock::new(1_000_000));
    let store = open(options(dir.path()), with_clock(&tier2, 1, &clock)).await;
    create(&store, "a", 1, config()).await;
    append(&store, "a", 0, &values(0..10)).await;
    let cut = Truncation::Cut([(PartitionIndex(0), Offset(4))].into());
    store.truncate_stream(&path("a"), cut).await.unwrap();
    clock.advance(Duration::from_secs(1));
    tiered(&store, "a").await;
    assert_eq!(texts(&read_all(&store, "a", 0).await), values(4..10));
    let chunks = store.list_chunks(&path("a")).unwrap();
    assert_eq!(chunks.len(), 1);
    assert_eq!((chunks[0].base_offset, chunks[0].records), (Offset(4), 6));
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn old_records_go_from_chunks_and_journal_and_a_jump_of_the_clock_takes_none() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let clock = Arc::new(MockClock::new(1_000_000));
    let store = open(options(dir.path()), with_clock(&tier2, 1, &clock)).await;
    let tiering = StreamConfig { retention_ms: Some(DAY_MS + DAY_MS / 24), ..config() };
    let lazy = StreamConfig { chunk_max_age_ms: 36_500 * DAY_MS, ..tiering.clone() };
    create(&store, "tiered", 1, tiering).await;
    create(&store, "journal", 1, lazy).await;
    let hours = |hours: u64| Duration::from_secs(3600 * hours);
    for round in 0..4 {
        for name in ["tiered", "journal"] {
            append(&store, name, 0, &values(round * 10..round * 10 + 10)).await;
        }
        clock.advance(hours(6));
        tiered(&store, "tiered").await;
    }
    assert_eq!(store.list_chunks(&path("tiered")).unwrap().len(), 4);
    assert!(store.list_chunks(&path("journal")).unwrap().is_empty());
    assert_eq!(store.enforce_retention().await.unwrap(), 0);
    clock.set_now_ms(1_000_000 + 3_650 * DAY_MS as i64);
    assert_eq!(store.enforce_retention().await.unwrap(), 0, "ten years in a moment");
    append(&store, "tiered", 0, &values(40..50)).await;
    clock.advance(Duration::from_secs(1));
    tiered(&store, "tiered").await;
    assert_eq!(store.enforce_retention().await.unwrap(), 0, "stamps that are ahead");
    clock.advance(hours(7));
    assert_eq!(store.enforce_retention().await.unwrap(), 2);
    for name in ["tiered", "journal"] {
        assert_eq!(start_of(&store, name, 0), 20, "{name}");
    }
    clock.advance(hours(48));
    store.enforce_retention().await.unwrap();
    assert_eq!(start_of(&store, "journal", 0), 40);
    clock.advance(hours(48));
    store.enforce_retention().await.unwrap();
    assert_eq!(start_of(&store, "tiered", 0), 50, "what was ahead went with the time");
    assert!(read_all(&store, "tiered", 0).await.is_empty());
    store.shutdown().await.unwrap();
    drop(store);
    let store = open(options(dir.path()), with_clock(&tier2, 2, &clock)).await;
    assert_eq!((start_of(&store, "journal", 0), start_of(&store, "tiered", 0)), (40, 50));
    store.shutdown().await.unwrap();
}

/// Random numbers, and a panic once it is asked for.
#[derive(Debug)]
struct Panicking {
    random: SeededRandom,
    is_due: AtomicBool,
}

impl Random for Panicking {
    fn fill(&self, buffer: &mut [u8]) {
        assert!(!self.is_due.swap(false, Ordering::SeqCst), "a panic that was asked for");
        self.random.fill(buffer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tiering_goes_on_after_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let random =
        Arc::new(Panicking { random: SeededRandom::new(1), is_due: AtomicBool::new(false) });
    let environment = Environment { random: random.clone(), ..environment(&tier2, 1) };
    let store = open(options(dir.path()), environment).await;
    create(&store, "a", 1, config()).await;
    // The next number is drawn for a chunk.
    random.is_due.store(true, Ordering::SeqCst);
    append(&store, "a", 0, &values(0..10)).await;
    tiered(&store, "a").await;
    assert!(!random.is_due.load(Ordering::SeqCst), "it has not panicked");
    assert_eq!(texts(&read_all(&store, "a", 0).await), values(0..10));
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "a test's own files")]
async fn an_object_that_cannot_be_deleted_keeps_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let environment = Environment { tier2: None, ..environment(&TierStore::in_memory(), 1) };
    let store = open(options(dir.path()), environment).await;
    create(&store, "a", 1, config()).await;
    for round in 0..3 {
        append(&store, "a", 0, &values(round * 10..round * 10 + 10)).await;
        tiered(&store, "a").await;
    }
    let file = |path: &String| dir.path().join("tier2").join(path);
    let objects: Vec<_> = live(&store, &["a"]).iter().map(file).collect();
    assert_eq!(objects.len(), 3);
    // In the place of the first there is what is no object.
    std::fs::remove_file(&objects[0]).unwrap();
    std::fs::create_dir(&objects[0]).unwrap();
    std::fs::write(objects[0].join("strange"), "").unwrap();
    store.truncate_stream(&path("a"), Truncation::All).await.unwrap();
    until("the others go", async || !objects[1].exists() && !objects[2].exists()).await;
    until("the failure is told", async || store.health().tier2.is_err()).await;
    assert!(objects[0].exists());
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_keeps_nothing_in_the_journal_for_longer() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let clock = Arc::new(MockClock::new(100 * DAY_MS as i64));
    let store = open(options(dir.path()), with_clock(&tier2, 1, &clock)).await;
    create(&store, "a", 1, config()).await;
    append(&store, "a", 0, &values(0..10)).await;
    clock.set_now_ms(99 * DAY_MS as i64);
    append(&store, "a", 0, &values(10..20)).await;
    until("what was stamped ahead is tiered", async || {
        clock.advance(Duration::from_millis(10));
        is_tiered(&store, "a")
    })
    .await;
    assert_eq!(texts(&read_all(&store, "a", 0).await), values(0..20));
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_takes_no_object_early() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let clock = Arc::new(MockClock::new(100 * DAY_MS as i64));
    let grace = Duration::from_secs(600);
    let chunk_grace_ms = grace.as_millis() as u64;
    let options =
        Options { chunk_grace_ms, view_lease_ms: 2 * chunk_grace_ms, ..options(dir.path()) };
    let store = open(options, with_clock(&tier2, 1, &clock)).await;
    create(&store, "a", 1, config()).await;
    create(&store, "b", 1, config()).await;
    let mut count = 0;
    // Whole rounds of tiering pass by.
    let mut rounds = async || {
        for _ in 0..3 {
            append(&store, "b", 0, &values(count..count + 1)).await;
            count += 1;
            clock.advance(Duration::from_secs(1));
            tiered(&store, "b").await;
        }
    };
    append(&store, "a", 0, &values(0..10)).await;
    clock.advance(Duration::from_secs(1));
    tiered(&store, "a").await;
    let object = live(&store, &["a"]).remove(0);
    let is_there = async || chunks_in(&tier2).await.contains(&object);
    let view = store.view(&[path("a")], Isolation::Committed).unwrap();
    store.truncate_stream(&path("a"), Truncation::All).await.unwrap();
    rounds().await;
    for day in [130, 70] {
        clock.set_now_ms(day * DAY_MS as i64);
        rounds().await;
        assert!(is_there().await, "on day {day}");
    }
    clock.advance(grace);
    rounds().await;
    assert!(is_there().await, "there is a lease");
    drop(view);
    until("it goes", async || !is_there().await).await;
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_chunks_go_while_there_are_too_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    create(&store, "b", 2, config()).await;
    for round in 0..5 {
        append(&store, "b", 0, &values(round * 100..round * 100 + 100)).await;
        if round == 0 {
            append(&store, "b", 1, &values(0..1)).await;
        }
        tiered(&store, "b").await;
    }
    let sizes: Vec<u64> = store
        .list_chunks(&path("b"))
        .unwrap()
        .iter()
        .filter(|chunk| chunk.partition == PartitionIndex(0))
        .map(|chunk| chunk.object_bytes)
        .collect();
    assert_eq!(sizes.len(), 5);
    let limit = sizes[2..].iter().sum::<u64>();
    // What keeps the newest record of each key keeps it for ever.
    let update = aquifer_stream::StreamUpdate {
        config: Some(
            StreamConfig {
                retention_bytes: Some(limit),
                cleanup_policy: aquifer_types::CleanupPolicy::Compact,
                ..config()
            }
            .into(),
        ),
        partitions: None,
    };
    store.update_stream(&path("b"), update).await.unwrap();
    assert_eq!(store.enforce_retention().await.unwrap(), 0);
    let update = aquifer_stream::StreamUpdate {
        config: Some(StreamConfig { retention_bytes: Some(limit), ..config() }.into()),
        partitions: None,
    };
    store.update_stream(&path("b"), update).await.unwrap();
    assert_eq!(store.enforce_retention().await.unwrap(), 1);
    assert_eq!((start_of(&store, "b", 0), start_of(&store, "b", 1)), (200, 0));
    assert_eq!(texts(&read_all(&store, "b", 0).await), values(200..500));
    until("the objects go", async || chunks_in(&tier2).await == live(&store, &["b"])).await;
    store.shutdown().await.unwrap();
}

fn small_chunks() -> StreamConfig {
    StreamConfig { chunk_target_bytes: 1 << 20, chunk_max_age_ms: 100, ..StreamConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_follow_and_offsets_wait_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyStore::new(&TierStore::in_memory(), 1);
    let tier2 = faulty.store();
    let options = Options { manifest_offsets_ahead: 1_024, ..options(dir.path()) };
    let store = open(options, environment(&tier2, 1)).await;
    create(&store, "m", 2, config()).await;
    let mut throttled = 0;
    let mut appended = 0;
    while appended < 5_000 {
        match try_append(&store, "m", 0, &values(appended..appended + 50)).await {
            Ok(base) => {
                assert_eq!(base, Offset(appended as i64));
                appended += 50;
            }
            Err(Error::Throttled { limit_name: "manifest_offsets_ahead", .. }) => {
                throttled += 1;
                assert!(throttled < 3_000, "no manifest raises the ceiling");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    tiered(&store, "m").await;
    until("old manifests go", async || listed(&tier2, "_meta").await.len() <= 3).await;
    assert_eq!(listed(&tier2, "_owner").await, ["_owner/0000000001"]);
    // Without tier 2 no manifest follows, and offsets end at what is reserved.
    faulty.set_down(true);
    let mut more = 0;
    let refused = loop {
        match try_append(&store, "m", 0, &values(0..50)).await {
            Ok(_) => more += 50,
            Err(error) => break error,
        }
    };
    assert!(more <= 2 * 1_024, "{more} offsets without a manifest");
    assert!(matches!(refused, Error::Throttled { .. }), "{refused}");
    let mut resumed = false;
    faulty.set_down(false);
    until("appends go on", async || {
        resumed |= try_append(&store, "m", 0, &values(0..50)).await.is_ok();
        resumed
    })
    .await;
    store.shutdown().await.unwrap();
    drop(store);
    // The ceiling is in the journal: a start without tier 2 keeps to it.
    faulty.set_down(true);
    let options = Options { manifest_offsets_ahead: 1_024, ..support::options(dir.path()) };
    let store = open(options, environment(&tier2, 2)).await;
    let mut more = 0;
    while try_append(&store, "m", 0, &values(0..50)).await.is_ok() {
        more += 50;
        assert!(more <= 2 * 1_024, "{more} offsets without a manifest");
    }
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_owner_writes_and_deletes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    create(&store, "o", 1, config()).await;
    append(&store, "o", 0, &values(0..10)).await;
    tiered(&store, "o").await;
    tier2.put_new("_owner/0000000009", "another".into()).await.unwrap();
    append(&store, "o", 0, &values(10..20)).await;
    store.truncate_stream(&path("o"), Truncation::All).await.unwrap();
    until("it is fenced", async || store.health().tier2.is_err()).await;
    let why = store.health().tier2.unwrap_err();
    assert!(why.contains("epoch 9 of another server (another)"), "{why}");
    let before = tier2.list("").await.unwrap();
    append(&store, "o", 0, &values(20..30)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(tier2.list("").await.unwrap(), before);
    assert!(store.health().tier2.is_err(), "for good");
    store.shutdown().await.unwrap();
    drop(store);
    let store = open(options(dir.path()), environment(&tier2, 2)).await;
    until("a start is fenced too", async || store.health().tier2.is_err()).await;
    assert_eq!(tier2.list("").await.unwrap(), before);
    assert_eq!(texts(&read_all(&store, "o", 0).await), values(20..30));
    store.shutdown().await.unwrap();
    // A data directory that knows nothing of this tier 2.
    let other = tempfile::tempdir().unwrap();
    let store = open(options(other.path()), environment(&tier2, 3)).await;
    until("a stranger is fenced", async || store.health().tier2.is_err()).await;
    assert_eq!(tier2.list("").await.unwrap(), before);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_every_record_once_while_chunks_are_merged_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let options = Options { compaction_chunks_min: 1_000, ..options(dir.path()) };
    let store = open(options.clone(), environment(&tier2, 1)).await;
    create(&store, "c", 1, small_chunks()).await;
    for round in 0..24 {
        append(&store, "c", 0, &values(round * 100..round * 100 + 100)).await;
        tiered(&store, "c").await;
    }
    let small = live(&store, &["c"]);
    assert_eq!(small.len(), 24);
    store.shutdown().await.unwrap();
    drop(store);

    // One lease lasts, the other has expired when the objects go.
    for view_lease_ms in [600_000, 0] {
        let dir_copy = tempfile::tempdir().unwrap();
        copy_dir(dir.path(), dir_copy.path());
        let copied = TierStore::in_memory();
        for entry in tier2.list("").await.unwrap() {
            let bytes = tier2.get(&entry.path).await.unwrap();
            copied.put_new(&entry.path, bytes).await.unwrap();
        }
        let options = Options {
            compaction_chunks_min: 4,
            tier_interval_ms: 200,
            view_lease_ms,
            chunk_cache_bytes_max: 1,
            data: dir_copy.path().to_owned(),
            ..options.clone()
        };
        let store = open(options, environment(&copied, 2)).await;
        let view = store.view(&[path("c")], Isolation::Committed).unwrap();
        let (partition, cut) = view.cuts().next().unwrap();
        assert_eq!(cut.chunks().len(), 24, "nothing is merged yet");
        let mut cursor = view.read(partition, Offset(0)).unwrap();
        let mut seen = Vec::new();
        let first = cursor.next(1).await.unwrap();
        first.iter().for_each(|block| block.records_from(Offset(0), &mut seen).unwrap());
        until("they are merged", async || live(&store, &["c"]).len() < 6).await;
        if view_lease_ms == 0 {
            until("the inputs are deleted", async || {
                chunks_in(&copied).await == live(&store, &["c"])
            })
            .await;
        } else {
            assert!(chunks_in(&copied).await.len() > 24, "the lease keeps the inputs");
        }
        loop {
            let blocks = cursor.next(1).await.unwrap();
            if blocks.is_empty() {
                break;
            }
            blocks.iter().for_each(|block| block.records_from(Offset(0), &mut seen).unwrap());
        }
        assert_eq!(texts(&seen), values(0..2_400), "lease of {view_lease_ms} ms");
        drop((cursor, view));
        assert_eq!(texts(&read_all(&store, "c", 0).await), values(0..2_400));
        until("the inputs are deleted", async || chunks_in(&copied).await == live(&store, &["c"]))
            .await;
        // Merging goes on with what was merged, and stops.
        for round in 24..30 {
            append(&store, "c", 0, &values(round * 100..round * 100 + 100)).await;
            tiered(&store, "c").await;
            assert_eq!(texts(&read_all(&store, "c", 0).await), values(0..round * 100 + 100));
        }
        store.shutdown().await.unwrap();
        drop(store);
        let store = open(
            Options { data: dir_copy.path().to_owned(), ..support::options(dir.path()) },
            environment(&copied, 3),
        )
        .await;
        assert_eq!(texts(&read_all(&store, "c", 0).await), values(0..3_000));
        store.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_go_on_without_tier_2_until_the_journal_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyStore::new(&TierStore::in_memory(), 1);
    let options = Options { journal_bytes_max: 4 << 20, ..options(dir.path()) };
    let store = open(options, environment(&faulty.store(), 1)).await;
    create(&store, "d", 1, config()).await;
    until("it is begun", async || !listed(&faulty.store(), "_meta").await.is_empty()).await;
    faulty.set_down(true);
    let mut appended = 0;
    let refused = loop {
        match try_append(&store, "d", 0, &values(appended..appended + 1_000)).await {
            Ok(_) => appended += 1_000,
            Err(error) => break error,
        }
        assert!(appended < 1_000_000);
    };
    assert!(matches!(refused, Error::Backpressure { .. }), "{refused}");
    assert!(appended > 20_000, "{appended}");
    assert!(store.health().tier2.is_err() && store.health().appends.is_err());
    assert_eq!(texts(&read_all(&store, "d", 0).await), values(0..appended), "reads go on");
    faulty.set_down(false);
    let mut is_taken = false;
    until("it resumes by itself", async || {
        is_taken =
            is_taken || try_append(&store, "d", 0, &values(appended..appended + 10)).await.is_ok();
        is_taken
    })
    .await;
    tiered(&store, "d").await;
    assert_eq!(texts(&read_all(&store, "d", 0).await), values(0..appended + 10));
    until("it is well again", async || store.health().tier2.is_ok()).await;
    store.shutdown().await.unwrap();
}

const FAULTS: FaultRates =
    FaultRates { refused: 40, timed_out: 40, answer_lost: 40, stalled: 10, slow: 100 };

/// Appends, reads, truncations and a deletion, while every eighth call to tier 2
/// goes wrong; then all is as it should be, and nothing is left over.
async fn faulty_run(seed: u64) -> [u64; 4] {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let faulty = FaultyStore::new(&tier2, seed);
    faulty.set_rates(FAULTS);
    let stalls = faulty.clone();
    let releasing = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(30)).await;
            stalls.release_stalled();
        }
    });
    let options =
        Options { compaction_chunks_min: 3, index_chunk_bytes_min: 0, ..options(dir.path()) };
    let store = open(options.clone(), environment(&faulty.store(), seed)).await;
    create(&store, "f", 2, small_chunks()).await;
    create(&store, "gone", 1, small_chunks()).await;
    let mut count = 0;
    for round in 0..12 {
        for partition in 0..2 {
            append(&store, "f", partition, &jsons(count..count + 20)).await;
        }
        append(&store, "gone", 0, &jsons(0..20)).await;
        count += 20;
        tokio::time::sleep(Duration::from_millis(40)).await;
        let start = start_of(&store, "f", 0) as usize;
        // A read may fail, it may not be wrong.
        if let Ok(records) = try_read_all(&store, "f", 0).await {
            assert_eq!(texts(&records), jsons(start..count), "seed {seed}");
        }
        if round == 6 {
            let cut = Truncation::Cut([(PartitionIndex(0), Offset(30))].into());
            store.truncate_stream(&path("f"), cut).await.unwrap();
        }
        if round == 9 {
            store.delete_stream(&path("gone")).await.unwrap();
            create(&store, "gone", 1, small_chunks()).await;
        }
    }
    let injected = [Fault::Refused, Fault::TimedOut, Fault::AnswerLost, Fault::Stalled]
        .map(|fault| faulty.injected(fault));
    faulty.set_rates(FaultRates::default());
    for _ in 0..2 {
        until("all is tiered and nothing is left over", async || {
            is_tiered(&store, "f")
                && is_tiered(&store, "gone")
                && is_indexed(&store, "f")
                && is_indexed(&store, "gone")
                && chunks_in(&tier2).await == live_objects(&store, &["f", "gone"])
        })
        .await;
        append(&store, "f", 1, &jsons(count..count + 20)).await;
        count += 20;
    }
    tiered(&store, "f").await;
    assert!(store.health().tier2.is_ok());
    let check = async |store: &StreamStore| {
        assert_eq!(texts(&read_all(store, "f", 0).await), jsons(30..240), "seed {seed}");
        assert_eq!(texts(&read_all(store, "f", 1).await), jsons(0..count), "seed {seed}");
    };
    check(&store).await;
    assert!(check_fields(&store, &tier2, &["f", "gone"]).await > 0);
    releasing.abort();
    store.shutdown().await.unwrap();
    drop(store);
    let store = open(options, environment(&tier2, seed + 1)).await;
    check(&store).await;
    until("nothing is left over", async || {
        chunks_in(&tier2).await == live_objects(&store, &["f", "gone"])
            && listed(&tier2, "_meta").await.len() <= 3
            && listed(&tier2, "_owner").await.len() == 2
    })
    .await;
    store.shutdown().await.unwrap();
    injected
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_tier_2_loses_nothing_doubles_nothing_and_leaves_nothing() {
    let first = aquifer_testkit::seed_from_env("AQUIFER_SEED");
    let mut injected = [0; 4];
    let seeds = (0..8).map(|run| first.wrapping_mul(31).wrapping_add(run));
    for counts in futures::future::join_all(seeds.map(faulty_run)).await {
        injected.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    println!("8 seeds; refused, timed out, lost, stalled: {injected:?}");
    assert!(injected.iter().all(|count| *count > 0), "{injected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_knows_goes_and_what_may_be_anothers_stays() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let clock = Arc::new(MockClock::new(1_000_000));
    let swept = |dir: &std::path::Path| Options {
        index_chunk_bytes_min: 0,
        orphan_interval_ms: 1,
        orphan_age_ms: DAY_MS,
        ..options(dir)
    };
    let store = open(swept(dir.path()), with_clock(&tier2, 1, &clock)).await;
    for name in ["s", "gone"] {
        create(&store, name, 1, config()).await;
        append(&store, name, 0, &values(0..100)).await;
    }
    clock.advance(Duration::from_secs(1));
    for name in ["s", "gone"] {
        tiered(&store, name).await;
    }
    let (known, gone) = (live(&store, &["s"])[0].clone(), live(&store, &["gone"])[0].clone());
    store.delete_stream(&path("gone")).await.unwrap();
    until("the deleted stream's chunk goes", async || {
        clock.advance(Duration::from_millis(10));
        !chunks_in(&tier2).await.contains(&gone)
    })
    .await;
    // As late puts of a server that stood still would: under names that this
    // store may have given, and under names that it cannot have given.
    let renamed = |path: &str, digit: char| {
        let at = path.len() - ".parquet".len() - 12;
        format!("{}{}.parquet", &path[..at], digit.to_string().repeat(12))
    };
    until("it has an index", async || is_indexed(&store, "s")).await;
    let index = live_objects(&store, &["s"])[0].clone();
    assert!(index.ends_with(".index"), "{index}");
    let id = &index[index.len() - ".index".len() - 36..];
    let index_of = |chunk: &str| format!("{}-{id}", chunk.strip_suffix(".parquet").unwrap());
    let of_known = index_of(&known).replace(&id[..8], "55555555");
    let of_none = index_of(&renamed(&known, '4'));
    let orphans = [renamed(&known, '0'), renamed(&gone, '1'), of_known, of_none];
    let ahead = renamed(&known, '2').replace("/00000000000000000000-", "/00000000000000000100-");
    let strange_stream = {
        let (folder, file) = known.split_once("/p0/").unwrap();
        let at = folder.len() - 12;
        format!("{}{}/p0/{file}", &folder[..at], "3".repeat(12))
    };
    let folder = known.rsplit_once('/').unwrap().0;
    let others = [ahead, strange_stream, format!("{folder}/notes.txt"), "other/file".to_owned()];
    for path in orphans.iter().chain(&others) {
        tier2.put_new(path, "late".into()).await.unwrap();
    }
    let has = async |path: &String| chunks_in(&tier2).await.contains(path);
    // Seen, and too young.
    for _ in 0..50 {
        clock.advance(Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for path in &orphans {
        assert!(has(path).await, "{path} was deleted early");
    }
    clock.advance(Duration::from_millis(DAY_MS));
    until("the orphans go", async || {
        clock.advance(Duration::from_millis(10));
        let objects = chunks_in(&tier2).await;
        orphans.iter().all(|path| !objects.contains(path))
    })
    .await;
    clock.advance(Duration::from_millis(3 * DAY_MS));
    for _ in 0..50 {
        clock.advance(Duration::from_millis(10));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for path in others.iter().chain([&known, &index]) {
        assert!(has(path).await, "{path} is gone");
    }
    assert_eq!(texts(&read_all(&store, "s", 0).await), values(0..100));
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_partition_does_not_pin_the_journal_of_a_fast_one() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let limit = 8 << 20;
    let options = Options { journal_bytes_max: limit, ..options(dir.path()) };
    let store = open(options, environment(&tier2, 1)).await;
    // By its own configuration it would wait for a hundred years.
    let slow = StreamConfig {
        chunk_target_bytes: 1 << 30,
        chunk_max_age_ms: 36_500 * DAY_MS,
        ..StreamConfig::default()
    };
    create(&store, "slow", 1, slow).await;
    create(&store, "fast", 1, config()).await;
    append(&store, "slow", 0, &values(0..3)).await;
    let line = "x".repeat(10_000);
    let batch = vec![line; 50];
    let (mut appended, mut refused) = (0, 0);
    // Five times what the journal may hold, behind the slow partition's records.
    while appended < 5 * limit {
        match try_append(&store, "fast", 0, &batch).await {
            Ok(_) => appended += 500_000,
            Err(Error::Backpressure { .. }) => {
                refused += 1;
                assert!(refused < 6_000, "the journal stays full: {:?}", store.health());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
        if appended < limit / 2 {
            let description = store.describe_stream(&path("slow")).unwrap();
            assert_eq!(description.partitions[0].chunks, 0, "nothing presses yet");
        }
    }
    let description = store.describe_stream(&path("slow")).unwrap();
    assert_eq!(description.partitions[0].chunks, 1, "tiered early");
    assert_eq!(texts(&read_all(&store, "slow", 0).await), values(0..3));
    // And again, for what comes to lie in the oldest file later.
    let mut is_taken = false;
    until("there is room", async || {
        is_taken = is_taken || try_append(&store, "slow", 0, &values(3..6)).await.is_ok();
        is_taken
    })
    .await;
    until("the journal moves on", async || {
        if try_append(&store, "fast", 0, &batch).await.is_ok() {
            appended += 500_000;
        }
        appended > 10 * limit
    })
    .await;
    assert_eq!(store.describe_stream(&path("slow")).unwrap().partitions[0].chunks, 2);
    store.shutdown().await.unwrap();
}
