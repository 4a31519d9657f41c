//! Recovery from tier 2 alone, and verification of what there is.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test ends where something is missing, and damages its own files"
)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aquifer_env::store::TierStore;
use aquifer_env::{FaultyStore, Random, SeededRandom};
use aquifer_stream::{
    AppendRequest, DocumentExpectation, DocumentKey, DocumentKind, Error, NewStream, Options,
    PartitionAppend, RecoverReport, StreamStore, StreamUpdate, Truncation, VerifyReport,
    recover_from, verify,
};
use aquifer_types::{
    BatchBuilder, GroupName, Offset, PartitionIndex, ProducerEpoch, ProducerId, Record, Sequence,
    StreamClass, StreamConfig, StreamName, TenantName, Timestamp,
};
use support::*;

async fn recover(data: &Path, tier2: &TierStore) -> Result<RecoverReport, Error> {
    recover_from("memory://", options(data), environment(tier2, 77), |_, _| ()).await
}

async fn check(data: &Path, tier2: &TierStore) -> VerifyReport {
    // The copies that it works on are named at random, and tests run side by side.
    static SEED: AtomicU64 = AtomicU64::new(1_000);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    verify(options(data), environment(tier2, seed), Arc::new(|_| ())).await.unwrap()
}

async fn check_sound(data: &Path, tier2: &TierStore) -> VerifyReport {
    let report = check(data, tier2).await;
    assert!(report.is_sound(), "{:#?}", report.findings);
    report
}

/// Waits until the newest manifest tells of everything that is tiered.
async fn settled(store: &StreamStore, tier2: &TierStore, names: &[&str]) {
    for name in names {
        tiered(store, name).await;
    }
    until("nothing is left over", async || chunks_in(tier2).await == live(store, names)).await;
    manifests_rest(tier2).await;
}

fn keyed(stream: &str, key: &str, partition: u32) -> AppendRequest {
    let mut builder = BatchBuilder::default();
    builder.push(Timestamp(1), None, &[], Some(format!("{key} {stream}").as_bytes()));
    AppendRequest {
        path: path(stream),
        appends: vec![PartitionAppend {
            partition: PartitionIndex(partition),
            batch: builder.finish(),
            expected_offset: None,
        }],
        idempotency_key: Some(key.into()),
    }
}

fn produced(sequence: i32) -> AppendRequest {
    let producer = (ProducerId(5), ProducerEpoch(0), Sequence(sequence));
    let mut builder = BatchBuilder::default().producer(producer.0, producer.1, producer.2);
    builder.push(Timestamp(1), None, &[], Some(b"produced"));
    AppendRequest {
        path: path("a"),
        appends: vec![PartitionAppend {
            partition: PartitionIndex(1),
            batch: builder.finish(),
            expected_offset: None,
        }],
        idempotency_key: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_tiered_comes_back_and_what_was_deleted_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    let special = StreamConfig { retention_ms: Some(123_456_789), ..config() };
    create(&store, "a", 3, special.clone()).await;
    create(&store, "empty", 1, config()).await;
    create(&store, "deleted", 1, config()).await;
    create(&store, "untiered", 1, StreamConfig::default()).await;
    append(&store, "deleted", 0, &values(0..50)).await;
    append(&store, "a", 0, &values(0..100)).await;
    let first = store.append(keyed("a", "order", 1)).await.unwrap();
    store.append(produced(0)).await.unwrap();
    for name in ["a", "deleted"] {
        tiered(&store, name).await;
    }
    let cut = Truncation::Cut([(PartitionIndex(0), Offset(40))].into());
    store.truncate_stream(&path("a"), cut).await.unwrap();
    store.delete_stream(&path("deleted")).await.unwrap();
    let (tenant, group) = (TenantName::default_tenant(), GroupName::new("g").unwrap());
    let positions = BTreeMap::from([(PartitionIndex(0), (Offset(66), "note".to_owned()))]);
    let stream = StreamName::new("a").unwrap();
    store.commit_positions(&tenant, &group, &stream, positions).await.unwrap();
    let view = DocumentKey::new(tenant.clone(), DocumentKind::View, "view");
    store.put_document(view.clone(), "{}".into(), DocumentExpectation::Any).await.unwrap();
    settled(&store, &tier2, &["a"]).await;
    let described = store.describe_stream(&path("a")).unwrap();
    // In the journal only: lost.
    append(&store, "untiered", 0, &values(0..10)).await;
    let lost = store.append(keyed("untiered", "lost", 0)).await.unwrap();
    // Its disk is gone.
    store.shutdown().await.unwrap();
    drop(store);

    let fresh = tempfile::tempdir().unwrap();
    let report = recover(fresh.path(), &tier2).await.unwrap();
    assert_eq!((report.streams, report.partitions, report.groups), (3, 5, 1), "{report:#?}");
    assert!(report.manifest.is_some() && report.warnings.is_empty(), "{report:#?}");
    let refused = recover(fresh.path(), &tier2).await.unwrap_err();
    assert!(refused.to_string().contains("is not empty"), "{refused}");
    check_sound(fresh.path(), &tier2).await;

    let store = open(options(fresh.path()), environment(&tier2, 2)).await;
    let again = store.describe_stream(&path("a")).unwrap();
    assert_eq!(again.summary.id, described.summary.id);
    assert_eq!(again.summary.config, special);
    assert_eq!(again.summary.created, described.summary.created);
    assert_eq!(texts(&read_all(&store, "a", 0).await), values(40..100));
    assert_eq!(start_of(&store, "a", 0), 40);
    assert_eq!(read_all(&store, "a", 1).await.len(), 2);
    assert!(read_all(&store, "empty", 0).await.is_empty());
    assert!(read_all(&store, "untiered", 0).await.is_empty());
    assert!(matches!(store.describe_stream(&path("deleted")), Err(Error::StreamNotFound(_))));
    let group = store.describe_group(&tenant, &group).unwrap();
    assert_eq!(group.positions[&path("a")][&PartitionIndex(0)].offset, Offset(66));
    // A view has its name as it had.
    assert_eq!(store.document(&view).unwrap().value, "{}");
    let new = NewStream {
        path: path("view"),
        partitions: 1,
        class: StreamClass::Durable,
        config: config(),
    };
    let taken = store.create_stream(new).await;
    assert!(matches!(taken, Err(Error::ViewExists(_))), "{taken:?}");
    // The answer to what came back is known, that to what is lost is not.
    let repeated = store.append(keyed("a", "order", 1)).await.unwrap();
    assert!(repeated.is_duplicate);
    assert_eq!(repeated.appends, first.appends);
    assert!(store.append(produced(0)).await.unwrap().is_duplicate);
    let repeated = store.append(keyed("untiered", "lost", 0)).await.unwrap();
    assert!(!repeated.is_duplicate);
    assert!(repeated.appends[0].base_offset > lost.appends[0].base_offset);
    // No offset twice, and the gap is tiered and read over.
    let base = append(&store, "a", 0, &values(100..120)).await;
    assert!(base.get() >= 1 << 32, "{base}");
    tiered(&store, "a").await;
    assert_eq!(texts(&read_all(&store, "a", 0).await), values(40..120));
    settled(&store, &tier2, &["a"]).await;
    store.shutdown().await.unwrap();
    drop(store);
    check_sound(fresh.path(), &tier2).await;

    // And once more, from what the recovered server wrote.
    let third = tempfile::tempdir().unwrap();
    recover(third.path(), &tier2).await.unwrap();
    let store = open(options(third.path()), environment(&tier2, 3)).await;
    assert_eq!(texts(&read_all(&store, "a", 0).await), values(40..120));
    assert!(append(&store, "a", 0, &values(0..1)).await.get() >= 2 << 32);
    store.shutdown().await.unwrap();
    drop(store);
    // The second is fenced now.
    let store = open(options(fresh.path()), environment(&tier2, 4)).await;
    until("it is fenced", async || store.health().tier2.is_err()).await;
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_behind_the_manifest_and_damaged_manifests_are_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    // One manifest at the start, and then none for long.
    let slow = Options { manifest_interval_ms_min: 3_600_000, ..options(dir.path()) };
    let store = open(slow.clone(), environment(&tier2, 1)).await;
    until("the first manifest", async || !listed(&tier2, "_meta").await.is_empty()).await;
    create(&store, "young", 2, config()).await;
    append(&store, "young", 1, &values(0..100)).await;
    tiered(&store, "young").await;
    store.shutdown().await.unwrap();
    drop(store);
    let store = open(slow, environment(&tier2, 2)).await;
    until("the second manifest", async || listed(&tier2, "_meta").await.len() == 2).await;
    append(&store, "young", 1, &values(100..200)).await;
    tiered(&store, "young").await;
    append(&store, "young", 0, &values(0..7)).await;
    tiered(&store, "young").await;
    store.shutdown().await.unwrap();
    drop(store);
    let manifests = listed(&tier2, "_meta").await;

    for (damaged, has_manifest) in [(0, true), (1, true), (2, false)] {
        let copy = TierStore::in_memory();
        for entry in tier2.list("").await.unwrap() {
            let mut bytes = tier2.get(&entry.path).await.unwrap().to_vec();
            // The newest ones go bad first.
            if manifests.iter().rev().take(damaged).any(|path| *path == entry.path) {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x40;
            }
            copy.put_new(&entry.path, bytes.into()).await.unwrap();
        }
        let fresh = tempfile::tempdir().unwrap();
        let report = recover(fresh.path(), &copy).await.unwrap();
        assert_eq!(report.manifest.is_some(), has_manifest, "{report:#?}");
        assert_eq!(report.warnings.is_empty(), damaged == 0, "{report:#?}");
        assert_eq!((report.chunks, report.records, report.left_alone), (3, 207, 0));
        check_sound(fresh.path(), &copy).await;
        let store = open(options(fresh.path()), environment(&copy, 3)).await;
        assert_eq!(texts(&read_all(&store, "young", 1).await), values(0..200));
        assert_eq!(texts(&read_all(&store, "young", 0).await), values(0..7));
        // Without the manifest that knew it, its configuration is the default.
        let update = StreamUpdate { config: Some(config().into()), partitions: None };
        store.update_stream(&path("young"), update).await.unwrap();
        assert!(append(&store, "young", 1, &values(200..210)).await.get() >= 1 << 32);
        settled(&store, &copy, &["young"]).await;
        assert_eq!(texts(&read_all(&store, "young", 1).await), values(0..210));
        store.shutdown().await.unwrap();
    }
    let nothing = TierStore::in_memory();
    let fresh = tempfile::tempdir().unwrap();
    let error = recover(fresh.path(), &nothing).await.unwrap_err();
    assert!(error.to_string().contains("neither a manifest nor chunks"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_chunks_come_back_once_and_orphans_go() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    // Garbage stays for long.
    let options =
        Options { compaction_chunks_min: 3, chunk_grace_ms: 3_600_000, ..options(dir.path()) };
    let store = open(options, environment(&tier2, 1)).await;
    let large = StreamConfig { chunk_target_bytes: 1 << 20, ..config() };
    create(&store, "m", 1, large).await;
    for round in 0..7 {
        append(&store, "m", 0, &values(round * 10..round * 10 + 10)).await;
        tiered(&store, "m").await;
    }
    until("they are merged", async || live(&store, &["m"]).len() == 3).await;
    assert!(chunks_in(&tier2).await.len() > 7);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    store.shutdown().await.unwrap();
    drop(store);
    for with_manifest in [true, false] {
        let copy = TierStore::in_memory();
        for entry in tier2.list("").await.unwrap() {
            if with_manifest || !entry.path.starts_with("_meta") {
                let bytes = tier2.get(&entry.path).await.unwrap();
                copy.put_new(&entry.path, bytes).await.unwrap();
            }
        }
        copy.put_new("default/readme.txt", "a stranger's".into()).await.unwrap();
        let fresh = tempfile::tempdir().unwrap();
        let report = recover(fresh.path(), &copy).await.unwrap();
        assert_eq!((report.chunks, report.records), (3, 70), "{report:#?}");
        check_sound(fresh.path(), &copy).await;
        let store = open(support::options(fresh.path()), environment(&copy, 2)).await;
        assert_eq!(texts(&read_all(&store, "m", 0).await), values(0..70));
        store.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_recovery_is_refused_by_a_start_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    create(&store, "i", 1, config()).await;
    append(&store, "i", 0, &values(0..10)).await;
    settled(&store, &tier2, &["i"]).await;
    store.shutdown().await.unwrap();
    drop(store);
    let fresh = tempfile::tempdir().unwrap();
    recover(fresh.path(), &tier2).await.unwrap();
    std::fs::write(fresh.path().join("RECOVERING"), "").unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    let opened =
        StreamStore::open(options(fresh.path()), environment(&tier2, 2), &mut registry).await;
    let error = opened.unwrap_err();
    assert!(error.to_string().contains("was interrupted"), "{error}");
    let report = recover(fresh.path(), &tier2).await.unwrap();
    assert_eq!(report.records, 10);
    let store = open(options(fresh.path()), environment(&tier2, 3)).await;
    assert_eq!(texts(&read_all(&store, "i", 0).await), values(0..10));
    store.shutdown().await.unwrap();
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("thesis.txt"), "mine").unwrap();
    let error = recover(other.path(), &tier2).await.unwrap_err();
    assert!(error.to_string().contains("thesis.txt"), "{error}");
}

fn files_in(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_in(&entry.path()));
        } else {
            files.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_names_what_is_damaged_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    create(&store, "v", 1, config()).await;
    append(&store, "v", 0, &values(0..500)).await;
    settled(&store, &tier2, &["v"]).await;
    // The snapshot of an orderly stop, and a journal with more behind it.
    store.shutdown().await.unwrap();
    drop(store);
    let lazy = Options { tier_interval_ms: 3_600_000, ..options(dir.path()) };
    let store = open(lazy, environment(&tier2, 2)).await;
    for round in 0..20 {
        append(&store, "v", 0, &values(500 + round * 10..510 + round * 10)).await;
    }
    let unclean = tempfile::tempdir().unwrap();
    copy_dir(dir.path(), unclean.path());
    std::mem::forget(store);
    let data = unclean.path();
    let before = files_in(data);
    let report = check_sound(data, &tier2).await;
    assert_eq!((report.batches, report.chunks, report.chunk_records), (21, 1, 500), "{report:#?}");
    assert!(report.snapshots >= 1 && report.manifests >= 1, "{report:#?}");
    let same = |what: &str| {
        let now = files_in(data);
        let changed: Vec<_> = before
            .keys()
            .filter(|p| !p.ends_with("LOCK") && now.get(*p) != before.get(*p))
            .collect();
        assert!(changed.is_empty() && now.len() == before.len(), "{what}: {changed:?}");
    };
    same("a sound directory");

    let mut cases = 0;
    for (file, bytes) in before.iter().filter(|(path, _)| !path.ends_with("LOCK")) {
        let name = file.display().to_string();
        if name.contains("-shm") || name.contains("reserve") || bytes.is_empty() {
            continue;
        }
        // Where a bit counts: the journal's first group, else about everywhere.
        let is_journal = name.contains("/journal/");
        let has_groups = is_journal && bytes.windows(8).any(|w| w == b"value 50");
        if is_journal && !has_groups || name.ends_with("-wal") {
            continue;
        }
        let at = match is_journal {
            true => bytes.windows(8).position(|w| w == b"value 50").unwrap(),
            false => bytes.len() / 2,
        };
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        std::fs::write(file, &damaged).unwrap();
        let report = check(data, &tier2).await;
        std::fs::write(file, bytes).unwrap();
        if name.ends_with(".sqlite") && report.is_sound() {
            // Free space within a page.
            continue;
        }
        let is_named = report.findings.iter().any(|finding| name.ends_with(&finding.place));
        assert!(is_named, "{name} at {at}: {report:#?}");
        if is_journal {
            let (from, to) = report.findings[0].range.unwrap();
            assert!((from..to).contains(&(at as u64)), "{name} at {at}: {report:#?}");
        }
        cases += 1;
        same(&name);
    }
    assert!(cases >= 2, "{cases}");
    let chunk = chunks_in(&tier2).await.remove(0);
    let bytes = tier2.get(&chunk).await.unwrap();
    for (what, damaged) in [
        ("do not match their CRC-32C", {
            let mut flipped = bytes.to_vec();
            flipped[bytes.len() / 3] ^= 4;
            Some(flipped)
        }),
        ("bytes, ", Some(bytes[..bytes.len() - 1].to_vec())),
        ("is not there", None),
    ] {
        match damaged {
            Some(damaged) => tier2.put(&chunk, damaged.into()).await.unwrap(),
            None => tier2.delete(&chunk).await.unwrap(),
        }
        let report = check(data, &tier2).await;
        assert_eq!(report.findings.len(), 1, "{what}: {report:#?}");
        assert_eq!(report.findings[0].place, chunk);
        assert!(report.findings[0].what.contains(what), "{what}: {report:#?}");
        cases += 1;
    }
    tier2.put(&chunk, bytes).await.unwrap();
    check_sound(data, &tier2).await;
    println!("{cases} damaged files and objects");
    let absent = data.join("absent");
    let error = verify(options(&absent), environment(&tier2, 5), Arc::new(|_| ())).await;
    assert!(error.unwrap_err().to_string().contains("no data directory"));
}

/// Loses the machine at a random moment of tiering, merging, truncating and
/// deleting; returns how many records came back.
async fn lose_the_machine(seed: u64) -> Option<usize> {
    let random = SeededRandom::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let faulty = FaultyStore::new(&tier2, seed);
    let merging =
        Options { compaction_chunks_min: 3, index_chunk_bytes_min: 0, ..options(dir.path()) };
    let store = open(merging, environment(&faulty.store(), seed)).await;
    let large = StreamConfig { chunk_target_bytes: 1 << 20, ..config() };
    create(&store, "x", 1, large).await;
    let calls = 5 + random.next_u64() % 250;
    let mut count = 0;
    while faulty.calls() < calls {
        append(&store, "x", 0, &jsons(count..count + 5)).await;
        count += 5;
        if random.next_u64().is_multiple_of(16) {
            let start = start_of(&store, "x", 0) + (random.next_u64() % 8) as i64;
            let start = Offset(start.min(count as i64));
            let cut = Truncation::Cut([(PartitionIndex(0), start)].into());
            store.truncate_stream(&path("x"), cut).await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(random.next_u64() % 20)).await;
    }
    let safe = store.describe_stream(&path("x")).unwrap().partitions[0].tiered_offset.get();
    let start = start_of(&store, "x", 0);
    faulty.set_down(true);
    store.shutdown().await.unwrap();
    drop(store);

    let fresh = tempfile::tempdir().unwrap();
    let report = match recover(fresh.path(), &tier2).await {
        Ok(report) => report,
        Err(error) => {
            let is_empty = error.to_string().contains("neither a manifest nor chunks");
            assert!(is_empty && safe == 0, "seed {seed}: {error}");
            return None;
        }
    };
    let lost = report.warnings.iter().filter(|warning| !warning.contains("younger")).count();
    assert_eq!(lost, 0, "seed {seed}: {report:#?}");
    check_sound(fresh.path(), &tier2).await;
    let store = open(options(fresh.path()), environment(&tier2, seed + 1)).await;
    if report.streams == 0 {
        assert_eq!(safe, 0, "seed {seed}");
        store.shutdown().await.unwrap();
        return None;
    }
    check_fields(&store, &tier2, &["x"]).await;
    let records = read_all(&store, "x", 0).await;
    // What a truncation behind the last manifest took may be there again, with
    // the gaps that merging left.
    let kept: Vec<Record> =
        records.iter().filter(|record| record.offset.get() >= start).cloned().collect();
    let end = start + kept.len() as i64;
    assert_eq!(texts(&kept), jsons(start as usize..end as usize), "seed {seed}");
    assert!(end >= safe && end <= count as i64, "seed {seed}: {safe} <= {end} <= {count}");
    let next = append(&store, "x", 0, &jsons(0..1)).await;
    assert!(next.get() >= count as i64, "seed {seed}: {next} was given before");
    tiered(&store, "x").await;
    let mut left = Vec::new();
    for _ in 0..600 {
        let live = live_objects(&store, &["x"]);
        left = chunks_in(&tier2).await;
        left.retain(|object| !live.contains(object));
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // Without a manifest nobody knows what may be deleted.
    let is_known = report.manifest.is_some();
    assert!(left.is_empty() || !is_known, "seed {seed}: {left:#?}\n{report:#?}");
    assert_eq!(read_all(&store, "x", 0).await.len(), records.len() + 1);
    check_fields(&store, &tier2, &["x"]).await;
    store.shutdown().await.unwrap();
    Some(records.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_lost_at_any_moment_loses_nothing_that_was_tiered() {
    let first = aquifer_testkit::seed_from_env("AQUIFER_SEED");
    let seeds = (0..12).map(|run| first.wrapping_mul(37).wrapping_add(run));
    let came_back = futures::future::join_all(seeds.map(lose_the_machine)).await;
    println!("12 machines lost; records that came back: {came_back:?}");
    assert!(came_back.iter().flatten().sum::<usize>() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_no_manifest_tells_of_does_not_begin_again_where_it_began() {
    let tier2 = TierStore::in_memory();
    let dir = tempfile::tempdir().unwrap();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    create(&store, "a", 1, config()).await;
    append(&store, "a", 0, &values(0..10)).await;
    settled(&store, &tier2, &["a"]).await;
    store.shutdown().await.unwrap();
    drop(store);
    let mut ends = vec![Offset(0)];
    for life in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        recover(dir.path(), &tier2).await.unwrap();
        // Nothing of this life comes into tier 2.
        let faulty = FaultyStore::new(&tier2, 1);
        faulty.set_down(true);
        let store = open(options(dir.path()), environment(&faulty.store(), 10 + life)).await;
        let update = StreamUpdate { partitions: Some(2), config: None };
        let description = store.update_stream(&path("a"), update).await.unwrap();
        let begin = description.partitions[1].end_offset;
        let first = append(&store, "a", 1, &values(0..100)).await;
        assert!(begin == first && ends.last() <= Some(&first), "{first} after {ends:?}");
        assert_eq!(texts(&read_all(&store, "a", 1).await), values(0..100));
        ends.push(first.plus(100));
        store.shutdown().await.unwrap();
        drop(store);
        // A start finds it where it was.
        let store = open(options(dir.path()), environment(&faulty.store(), 20 + life)).await;
        assert_eq!(texts(&read_all(&store, "a", 1).await), values(0..100));
        store.shutdown().await.unwrap();
    }
}
