//! Tier 2 in a directory, under power cuts, full disks and lost mounts.

#![allow(
    clippy::disallowed_methods,
    reason = "looks at the real directory behind the seam under test"
)]

use std::path::Path;
use std::sync::Arc;

use aquifer_env::{
    CrashChoice, FaultyDisk, SeededRandom, StoreError, StoreErrorKind, TierStore, file_url,
    open_store,
};
use bytes::Bytes;

const ROOT: &str = "/mount/tier2";

fn open(faulty: &FaultyDisk) -> Result<TierStore, StoreError> {
    let random = Arc::new(SeededRandom::new(3));
    TierStore::in_directory(faulty.disk(), random, Path::new(ROOT))
}

fn object(own: u8) -> Bytes {
    Bytes::from(vec![own; 1_500])
}

/// Puts, replaces and deletes; tells what was acknowledged.
async fn script(faulty: &FaultyDisk) -> Vec<&'static str> {
    let mut done = Vec::new();
    let Ok(store) = open(faulty) else {
        return done;
    };
    let steps = async {
        store.put_new("t/s/p0/a", object(b'a')).await?;
        done.push("a");
        store.put_new("t/s/p1/b", object(b'b')).await?;
        done.push("b");
        store.put("_meta/m", object(b'1')).await?;
        done.push("m1");
        store.put("_meta/m", object(b'2')).await?;
        done.push("m2");
        store.delete("t/s/p0/a").await?;
        done.push("-a");
        Ok::<_, StoreError>(())
    };
    let _ = steps.await;
    done
}

#[tokio::test]
async fn an_acknowledged_object_survives_every_power_cut() {
    let dry = FaultyDisk::new(7);
    assert_eq!(script(&dry).await, ["a", "b", "m1", "m2", "-a"]);
    let (mut torn, mut lost) = (0, 0);
    for nth in 1..=dry.operations() + 1 {
        let faulty = FaultyDisk::new(7);
        faulty.crash_at(nth);
        let done = script(&faulty).await;
        let choices = [CrashChoice::LoseAll, CrashChoice::KeepAll];
        for choice in choices.into_iter().chain((0..40).map(CrashChoice::Random)) {
            let context = format!("crash point {nth}, {choice:?}, done {done:?}");
            let found = faulty.crash(choice);
            let store = open(&found).expect("the store after the cut");
            let tells = async |path: &str| match store.get(path).await {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    assert_eq!(error.kind, StoreErrorKind::NotFound, "{context}: {error}");
                    None
                }
            };
            let (a, b, m) =
                (tells("t/s/p0/a").await, tells("t/s/p1/b").await, tells("_meta/m").await);
            // Whole or absent, and where acknowledged, present.
            assert!(a.as_ref().is_none_or(|a| *a == object(b'a')), "{context}");
            assert!(b.as_ref().is_none_or(|b| *b == object(b'b')), "{context}");
            let known = |m: &Bytes| *m == object(b'1') || *m == object(b'2');
            assert!(m.as_ref().is_none_or(known), "{context}");
            if done.contains(&"a") && done.len() < 4 {
                assert!(a.is_some(), "{context}");
            }
            assert!(b.is_some() || !done.contains(&"b"), "{context}");
            assert!(m.is_some() || !done.contains(&"m1"), "{context}");
            assert!(m == Some(object(b'2')) || !done.contains(&"m2"), "{context}");
            assert!(a.is_none() || !done.contains(&"-a"), "{context}");

            // A list shows these and nothing else; nothing temporary is left.
            let listed = store.list("").await.expect("a list");
            assert_eq!(listed.len(), [a, b, m].iter().flatten().count(), "{context}");
            assert_eq!(found.files().len(), listed.len(), "{context}: {:?}", found.files());
        }
        (torn, lost) = (torn + faulty.torn_writes(), lost + faulty.lost_writes());
    }
    assert!(torn > 0 && lost > 0, "{torn} torn, {lost} lost");
}

#[tokio::test]
async fn head_makes_an_unsynced_name_durable() {
    check_told("head", async |store| store.head("t/a").await.is_ok()).await;
}

#[tokio::test]
async fn a_refusal_makes_an_unsynced_name_durable() {
    check_told("put_new", async |store| {
        let error = store.put_new("t/a", object(b'b')).await.expect_err("a taken name");
        error.kind == StoreErrorKind::AlreadyExists
    })
    .await;
}

/// Asks for an object whose put, before a crash of the process, never came to
/// its last sync.
async fn check_told(how: &str, ask: impl AsyncFn(TierStore) -> bool) {
    let faulty = FaultyDisk::new(7);
    let store = open(&faulty).expect("a store");
    let disk = faulty.disk();
    disk.create_dir_all(Path::new("/mount/tier2/t")).expect("a directory");
    let file = disk.create(Path::new("/mount/tier2/t/a")).expect("a file");
    file.write_at(&object(b'a'), 0).expect("a write");
    file.sync_data().expect("a sync");
    assert_eq!(faulty.pending(), 1);
    assert!(ask(store).await, "{how} tells of the object");
    let found = faulty.crash(CrashChoice::LoseAll);
    let store = open(&found).expect("the store after the cut");
    assert_eq!(store.get("t/a").await.expect(how), object(b'a'));
}

#[tokio::test]
async fn a_full_disk_is_told_and_recovers() {
    let faulty = FaultyDisk::new(7);
    let store = open(&faulty).expect("a store");
    faulty.set_capacity(2_000);
    store.put_new("a", object(b'a')).await.expect("what fits");
    for _ in 0..3 {
        let error = store.put_new("b", object(b'b')).await.expect_err("no room");
        assert_eq!(error.kind, StoreErrorKind::Full);
        assert!(error.is_definite());
    }
    assert_eq!(faulty.files().len(), 1, "{:?}", faulty.files());
    store.delete("a").await.expect("a deletion");
    store.put_new("b", object(b'b')).await.expect("room again");
}

#[tokio::test]
async fn a_failed_sync_leaves_nothing_that_counts() {
    let faulty = FaultyDisk::new(7);
    let store = open(&faulty).expect("a store");
    faulty.fail_sync(faulty.syncs() + 1);
    let error = store.put_new("a", object(b'a')).await.expect_err("a failed sync");
    assert_eq!(error.kind, StoreErrorKind::Unavailable);
    assert!(faulty.files().is_empty(), "{:?}", faulty.files());
    store.put_new("a", object(b'a')).await.expect("another try, another file");
    let found = faulty.crash(CrashChoice::LoseAll);
    let store = open(&found).expect("the store after the cut");
    assert_eq!(store.get("a").await.expect("the object"), object(b'a'));
}

#[tokio::test]
async fn a_mount_that_went_away_is_not_an_empty_store() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let root = parent.path().join("mount");
    let store = open_store(&file_url(&root).expect("an address"), &[]).expect("a store");
    store.put_new("a/b", object(b'a')).await.expect("a put");
    let away = parent.path().join("away");
    std::fs::rename(&root, &away).expect("unmounted");
    std::fs::create_dir(&root).expect("the bare mount point");
    let errors = [
        store.get("a/b").await.expect_err("a get"),
        store.get_range("a/b", 0..1).await.expect_err("a range"),
        store.head("a/b").await.expect_err("a head"),
        store.delete("a/b").await.expect_err("a deletion"),
        store.list("").await.expect_err("a list"),
        store.list("a").await.expect_err("a list"),
        store.put("a/c", object(b'c')).await.expect_err("a put"),
        store.put_new("a/c", object(b'c')).await.expect_err("a new put"),
    ];
    for error in errors {
        assert_eq!(error.kind, StoreErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("mounted"), "{error}");
    }
    assert_eq!(std::fs::read_dir(&root).expect("the mount point").count(), 0);
    std::fs::remove_dir(&root).expect("the bare mount point");
    std::fs::rename(&away, &root).expect("mounted again");
    assert_eq!(store.get("a/b").await.expect("the object"), object(b'a'));
}

#[tokio::test]
async fn left_over_temporaries_are_removed_at_opening() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let url = file_url(root.path()).expect("an address");
    open_store(&url, &[]).expect("a store");
    let left_over = root.path().join(".aquifer-tmp/left-over");
    std::fs::write(&left_over, b"half").expect("a left-over");
    let store = open_store(&url, &[]).expect("the store again");
    assert!(!left_over.exists());
    assert!(store.list("").await.expect("a list").is_empty());
}
