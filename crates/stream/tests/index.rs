//! Search indexes beside chunks: built, found, replaced with their chunks, given
//! up by a crash, built anew where they are lost.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aquifer_chunk::{IndexReader, TermQuery};
use aquifer_env::store::TierStore;
use aquifer_env::{FaultRates, FaultyStore, Random, SeededRandom};
use aquifer_stream::{
    Isolation, Options, StreamStore, StreamUpdate, VerifyReport, recover_from, verify,
};
use aquifer_types::{ChunkIndex, StreamConfig};
use support::*;

fn indexing(data: &Path) -> Options {
    Options { index_chunk_bytes_min: 0, compaction_chunks_min: 3, ..options(data) }
}

fn config_with(index: ChunkIndex) -> StreamConfig {
    StreamConfig { index, chunk_target_bytes: 1 << 20, ..config() }
}

async fn settled(store: &StreamStore, tier2: &TierStore, names: &[&str]) {
    until("all is tiered and indexed, and nothing is left over", async || {
        names.iter().all(|name| is_tiered(store, name) && is_indexed(store, name))
            && chunks_in(tier2).await == live_objects(store, names)
    })
    .await;
}

/// Every live chunk's index says where its records are, and not where others
/// are.
async fn check_indexes(store: &StreamStore, tier2: &TierStore, name: &str) {
    let view = store.view(&[path(name)], Isolation::Committed).unwrap();
    let chunks: Vec<_> = view.cuts().flat_map(|(_, cut)| cut.chunks().to_vec()).collect();
    assert!(!chunks.is_empty());
    for chunk in chunks {
        let index_path = chunk.index_path.clone().unwrap();
        let bytes = tier2.get(&index_path).await.unwrap();
        assert_eq!(chunk.index_bytes, Some(bytes.len() as u64));
        let reader = IndexReader::open(Arc::new(bytes), index_path, chunk.id).await.unwrap();
        let rows: u64 = reader.blocks().iter().map(|block| block.rows.end - block.rows.start).sum();
        assert_eq!(rows, chunk.records);
        let find = async |words: &[&str]| {
            let words = words.iter().map(|word| TermQuery::Word((*word).into()));
            reader.find(&TermQuery::All(words.collect())).await.unwrap().blocks.count()
        };
        assert!(rows == 0 || find(&["value"]).await > 0);
        // One of them alone may be taken for another word, now and then.
        assert_eq!(find(&["nowhere", "never", "nobody", "nothing"]).await, 0);
    }
}

async fn check(data: &Path, tier2: &TierStore) -> VerifyReport {
    // The copies that it works on are named at random, and tests run side by side.
    static SEED: AtomicU64 = AtomicU64::new(1_000);
    let seed = SEED.fetch_add(1, Ordering::Relaxed);
    verify(indexing(data), environment(tier2, seed), Arc::new(|_| ())).await.unwrap()
}

/// How many indexes there are, all of them sound.
async fn check_sound(data: &Path, tier2: &TierStore) -> u64 {
    let report = check(data, tier2).await;
    assert!(report.is_sound(), "{report:#?}");
    report.indexes
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_have_indexes_where_their_stream_wants_them() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(indexing(dir.path()), environment(&tier2, 1)).await;
    create(&store, "with", 2, config_with(ChunkIndex::Tokens)).await;
    create(&store, "without", 1, config_with(ChunkIndex::None)).await;
    for round in 0..8 {
        for partition in 0..2 {
            append(&store, "with", partition, &values(round * 10..round * 10 + 10)).await;
        }
        append(&store, "without", 0, &values(round * 10..round * 10 + 10)).await;
        until("it is tiered", async || is_tiered(&store, "with") && is_tiered(&store, "without"))
            .await;
    }
    until("indexes are there", async || is_indexed(&store, "with")).await;
    // Chunks were merged, and what there was of the old ones went with them.
    until("nothing is left over", async || {
        chunks_in(&tier2).await == live_objects(&store, &["with", "without"])
    })
    .await;
    let objects = live_objects(&store, &["with"]);
    assert!(objects.len() < 32, "nothing was merged: {objects:#?}");
    check_indexes(&store, &tier2, "with").await;
    let without = store.list_chunks(&path("without")).unwrap();
    assert!(without.iter().all(|chunk| chunk.index_path.is_none()));
    // It may be asked for later.
    let config = Some(config_with(ChunkIndex::Tokens).into());
    let update = StreamUpdate { config, partitions: None };
    store.update_stream(&path("without"), update).await.unwrap();
    settled(&store, &tier2, &["with", "without"]).await;
    check_indexes(&store, &tier2, "without").await;
    store.delete_stream(&path("with")).await.unwrap();
    until("indexes go with their stream", async || {
        chunks_in(&tier2).await == live_objects(&store, &["without"])
    })
    .await;
    store.shutdown().await.unwrap();
    drop(store);
    assert!(check_sound(dir.path(), &tier2).await > 0);
}

/// Takes tier 2 away at some call and stops the server, again and again; then
/// nothing is missing and nothing is left over.
async fn stopped_anywhere(seed: u64) {
    let random = SeededRandom::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let mut count = 0;
    for start in 0..6 {
        let faulty = FaultyStore::new(&tier2, seed + start);
        faulty.set_rates(FaultRates { refused: 20, answer_lost: 40, ..FaultRates::default() });
        let store = open(indexing(dir.path()), environment(&faulty.store(), seed + start)).await;
        if start == 0 {
            create(&store, "s", 1, config_with(ChunkIndex::Tokens)).await;
        }
        let calls = faulty.calls() + 10 + random.next_u64() % 60;
        while faulty.calls() < calls {
            append(&store, "s", 0, &values(count..count + 5)).await;
            count += 5;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // What is under way never gets there, and the server is gone.
        faulty.set_down(true);
        store.shutdown().await.unwrap();
        drop(store);
    }
    let store = open(indexing(dir.path()), environment(&tier2, seed + 99)).await;
    settled(&store, &tier2, &["s"]).await;
    check_indexes(&store, &tier2, "s").await;
    assert_eq!(texts(&read_all(&store, "s", 0).await), values(0..count), "seed {seed}");
    store.shutdown().await.unwrap();
    drop(store);
    assert!(check_sound(dir.path(), &tier2).await > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tier_2_that_goes_at_any_call_leaves_no_orphan_and_no_chunk_without_an_index() {
    let first = aquifer_testkit::seed_from_env("AQUIFER_SEED");
    let seeds = (0..6).map(|run| first.wrapping_mul(41).wrapping_add(run * 100));
    futures::future::join_all(seeds.map(stopped_anywhere)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_index_is_built_anew_and_a_damaged_one_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(indexing(dir.path()), environment(&tier2, 1)).await;
    create(&store, "r", 1, config_with(ChunkIndex::Tokens)).await;
    append(&store, "r", 0, &values(0..100)).await;
    settled(&store, &tier2, &["r"]).await;
    let index = store.list_chunks(&path("r")).unwrap()[0].index_path.clone().unwrap();
    manifests_rest(&tier2).await;
    store.shutdown().await.unwrap();
    drop(store);
    assert_eq!(check_sound(dir.path(), &tier2).await, 1);

    let bytes = tier2.get(&index).await.unwrap();
    let mut damaged = bytes.to_vec();
    damaged[bytes.len() / 2] ^= 4;
    tier2.put(&index, damaged.into()).await.unwrap();
    let findings = check(dir.path(), &tier2).await.findings;
    assert_eq!(findings.iter().map(|finding| &finding.place).collect::<Vec<_>>(), [&index]);

    // A recovery takes an index over that is there, and does without one that is
    // not.
    for is_there in [true, false] {
        if is_there {
            tier2.put(&index, bytes.clone()).await.unwrap();
        } else {
            tier2.delete(&index).await.unwrap();
        }
        let fresh = tempfile::tempdir().unwrap();
        let recovering = environment(&tier2, 3);
        recover_from("memory://", indexing(fresh.path()), recovering, |_, _| ()).await.unwrap();
        let store = open(indexing(fresh.path()), environment(&tier2, 4)).await;
        settled(&store, &tier2, &["r"]).await;
        let now = store.list_chunks(&path("r")).unwrap()[0].index_path.clone().unwrap();
        assert_eq!(now == index, is_there);
        check_indexes(&store, &tier2, "r").await;
        store.shutdown().await.unwrap();
    }
}
