//! Epochs never go back: over deletions, crashes, and the loss of the machine.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod support;

use aquifer_env::store::TierStore;
use aquifer_stream::{StreamStore, recover_from};
use aquifer_types::Epoch;
use support::*;

fn epoch(store: &StreamStore, name: &str) -> Epoch {
    store.stream_shape(&path(name)).unwrap().epoch
}

async fn create_again(store: &StreamStore, name: &str, times: u32) {
    for _ in 0..times {
        let before = epoch(store, name);
        store.delete_stream(&path(name)).await.unwrap();
        create(store, name, 1, config()).await;
        assert!(epoch(store, name) > before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_forgets_none() {
    let (dir, tier2) = (tempfile::tempdir().unwrap(), TierStore::in_memory());
    let mut known = Epoch(0);
    let mut data = dir.path().join("0");
    for round in 0..4 {
        let store = open(options(&data), environment(&tier2, round)).await;
        if round == 0 {
            create(&store, "a", 1, config()).await;
        }
        assert!(epoch(&store, "a") > known && store.epoch() == epoch(&store, "a"));
        create_again(&store, "a", 5).await;
        append(&store, "a", 0, &values(0..10)).await;
        known = epoch(&store, "a");
        // What is on disk now is all that the next start knows.
        let crashed = dir.path().join(format!("{}", round + 1));
        copy_dir(&data, &crashed);
        store.shutdown().await.unwrap();
        data = crashed;
    }
    let store = open(options(&data), environment(&tier2, 9)).await;
    assert!(epoch(&store, "a") > known);
    assert_eq!(texts(&read_all(&store, "a", 0).await), values(0..10));
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_is_above_what_the_manifest_tells() {
    let (dir, tier2) = (tempfile::tempdir().unwrap(), TierStore::in_memory());
    let store = open(options(&dir.path().join("old")), environment(&tier2, 1)).await;
    create(&store, "a", 1, config()).await;
    create(&store, "other", 1, config()).await;
    create_again(&store, "a", 20).await;
    let known = epoch(&store, "a");
    // Nothing of it is in a chunk: the manifest alone tells of its epoch.
    for _ in 0..2 {
        let before = listed(&tier2, "_meta").await;
        append(&store, "other", 0, &values(0..10)).await;
        tiered(&store, "other").await;
        let newest = before.iter().max();
        until("a manifest", async || listed(&tier2, "_meta").await.iter().max() > newest).await;
    }
    store.shutdown().await.unwrap();
    let new = options(&dir.path().join("new"));
    let report =
        recover_from("memory://", new.clone(), environment(&tier2, 2), |_, _| ()).await.unwrap();
    assert!(report.epoch > known, "{} after {known}", report.epoch);
    let store = open(new, environment(&tier2, 3)).await;
    assert!(epoch(&store, "a") > known);
    store.shutdown().await.unwrap();
}
