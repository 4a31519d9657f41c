//! Tiering, retention, manifests, owners and compaction over a store in memory
//! that may fail.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use aquifer_env::MockClock;
use aquifer_env::store::TierStore;
use aquifer_stream::Truncation;
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
    let update = aquifer_stream::StreamUpdate {
        config: Some(StreamConfig { retention_bytes: Some(limit), ..config() }),
        partitions: None,
    };
    store.update_stream(&path("b"), update).await.unwrap();
    assert_eq!(store.enforce_retention().await.unwrap(), 1);
    assert_eq!((start_of(&store, "b", 0), start_of(&store, "b", 1)), (200, 0));
    assert_eq!(texts(&read_all(&store, "b", 0).await), values(200..500));
    until("the objects go", async || chunks_in(&tier2).await == live(&store, &["b"])).await;
    store.shutdown().await.unwrap();
}
