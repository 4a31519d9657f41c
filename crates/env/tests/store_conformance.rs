//! What every [`TierStore`] must do, run on memory, on a directory of either
//! disk, and through a faulty store without faults; and on the store that
//! `AQUIFER_TEST_STORE` names, if it does, with credentials from the usual
//! variables (`AWS_ENDPOINT`, `AWS_ACCESS_KEY_ID`, …).

#![allow(
    clippy::disallowed_methods,
    reason = "takes the address of a real store from the environment"
)]

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use aquifer_env::{
    FaultyDisk, FaultyStore, RealRandom, SeededRandom, StoreEntry, StoreError, StoreErrorKind,
    TierStore, file_url, open_store, uuid_v4,
};
use bytes::Bytes;
use futures::TryStreamExt;

/// Runs `test` on an empty store of each kind.
async fn check<F: Future<Output = ()>>(test: impl Fn(TierStore) -> F) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = file_url(&directory.path().join("tier2")).expect("an address");
    test(open_store(&url, &[]).expect("a store in a directory")).await;
    test(open_store("memory://", &[]).expect("a store in memory")).await;
    let disk = FaultyDisk::new(1).disk();
    let random = Arc::new(SeededRandom::new(1));
    let on_disk = TierStore::in_directory(disk, random, Path::new("/tier2"));
    test(on_disk.expect("a store on a faulty disk")).await;
    test(FaultyStore::new(&TierStore::in_memory(), 1).store()).await;
    if let Ok(url) = std::env::var("AQUIFER_TEST_STORE") {
        // Under a prefix of its own, since nothing empties it.
        let url = format!("{url}/{}", uuid_v4(&RealRandom::new()));
        test(open_store(&url, &[]).expect("the named store")).await;
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.expect_err("an error").kind
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn entry(path: &str, bytes: u64) -> StoreEntry {
    StoreEntry { path: path.to_owned(), bytes }
}

#[tokio::test]
async fn an_object_is_created_once() {
    check(async |store: TierStore| {
        store.put_new("a/b/c", bytes("first")).await.expect("a put");
        let again = store.put_new("a/b/c", bytes("second")).await;
        assert_eq!(kind(again), StoreErrorKind::AlreadyExists);
        assert_eq!(store.get("a/b/c").await.expect("the object"), "first");
    })
    .await;
}

#[tokio::test]
async fn one_of_many_creates_wins() {
    check(async |store: TierStore| {
        let each = (0..16_u8).map(|own| {
            let store = store.clone();
            async move { store.put_new("a/b", Bytes::from(vec![own; 1_000])).await.map(|()| own) }
        });
        let results = futures::future::join_all(each).await;
        let winners: Vec<u8> =
            results.iter().filter_map(|won| won.as_ref().ok().copied()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        for error in results.iter().filter_map(|lost| lost.as_ref().err()) {
            assert_eq!(error.kind, StoreErrorKind::AlreadyExists, "{error}");
        }
        assert_eq!(store.get("a/b").await.expect("the object"), vec![winners[0]; 1_000]);
        assert_eq!(store.list("").await.expect("a list"), [entry("a/b", 1_000)]);
    })
    .await;
}

#[tokio::test]
async fn an_object_is_replaced_whole() {
    check(async |store: TierStore| {
        store.put("a", bytes("a longer first")).await.expect("a put");
        store.put("a", bytes("second")).await.expect("another");
        assert_eq!(store.get("a").await.expect("the object"), "second");
        assert_eq!(store.head("a").await.expect("its length"), 6);
    })
    .await;
}

#[tokio::test]
async fn an_object_may_be_empty() {
    check(async |store: TierStore| {
        store.put_new("a", Bytes::new()).await.expect("a put");
        assert_eq!(store.get("a").await.expect("the object"), "");
        assert_eq!(store.head("a").await.expect("its length"), 0);
        assert_eq!(kind(store.put_new("a", bytes("x")).await), StoreErrorKind::AlreadyExists);
    })
    .await;
}

#[tokio::test]
async fn what_is_absent_is_not_found() {
    check(async |store: TierStore| {
        store.put("a/b", bytes("x")).await.expect("a put");
        for path in ["b", "a/c", "c/d/e"] {
            assert_eq!(kind(store.get(path).await), StoreErrorKind::NotFound);
            assert_eq!(kind(store.get_range(path, 0..1).await), StoreErrorKind::NotFound);
            assert_eq!(kind(store.head(path).await), StoreErrorKind::NotFound);
            store.delete(path).await.expect("nothing to delete");
        }
    })
    .await;
}

#[tokio::test]
async fn a_range_is_given_whole_or_not_at_all() {
    check(async |store: TierStore| {
        store.put("a", bytes("0123456789")).await.expect("a put");
        for (range, found) in [(0..10, "0123456789"), (3..5, "34"), (9..10, "9"), (4..4, "")] {
            assert_eq!(store.get_range("a", range).await.expect("a range"), found);
        }
        for range in [8..11, 10..11, 100..200] {
            let error =
                store.get_range("a", range.clone()).await.expect_err("a range past the end");
            assert_ne!(error.kind, StoreErrorKind::NotFound, "{range:?}: {error}");
        }
        let inverted = std::ops::Range { start: 5, end: 4 };
        assert_eq!(kind(store.get_range("a", inverted).await), StoreErrorKind::Other);
        assert_eq!(kind(store.get_range("a", 0..u64::MAX).await), StoreErrorKind::Other);
    })
    .await;
}

#[tokio::test]
async fn ranges_come_in_the_order_asked_for() {
    check(async |store: TierStore| {
        store.put("a", bytes("0123456789")).await.expect("a put");
        let found = store.get_ranges("a", &[7..9, 0..0, 0..2, 1..4]).await.expect("ranges");
        assert_eq!(found, ["78", "", "01", "123"]);
        assert!(store.get_ranges("a", &[]).await.expect("no ranges").is_empty());
        store.get_ranges("a", &[0..1, 9..11]).await.expect_err("one past the end");
    })
    .await;
}

#[tokio::test]
async fn a_deleted_object_is_gone_and_its_name_is_free() {
    check(async |store: TierStore| {
        store.put_new("a/b", bytes("first")).await.expect("a put");
        store.delete("a/b").await.expect("a deletion");
        assert_eq!(kind(store.get("a/b").await), StoreErrorKind::NotFound);
        assert!(store.list("").await.expect("a list").is_empty());
        store.put_new("a/b", bytes("second")).await.expect("a put");
        assert_eq!(store.get("a/b").await.expect("the object"), "second");
    })
    .await;
}

#[tokio::test]
async fn a_list_goes_down_whole_folders() {
    check(async |store: TierStore| {
        for path in ["a/b/c", "a/b/d/e", "a/bc", "f", "_meta/g"] {
            store.put(path, bytes("12345")).await.expect("a put");
        }
        for (folder, paths) in [
            ("", &["_meta/g", "a/b/c", "a/b/d/e", "a/bc", "f"][..]),
            ("a", &["a/b/c", "a/b/d/e", "a/bc"]),
            ("a/b", &["a/b/c", "a/b/d/e"]),
            ("a/b/d", &["a/b/d/e"]),
            ("a/x", &[]),
            ("x", &[]),
        ] {
            let expected: Vec<StoreEntry> = paths.iter().map(|path| entry(path, 5)).collect();
            assert_eq!(store.list(folder).await.expect("a list"), expected, "{folder}");
            let mut streamed: Vec<StoreEntry> =
                store.list_stream(folder).try_collect().await.expect("a stream");
            streamed.sort();
            assert_eq!(streamed, expected, "{folder}");
        }
    })
    .await;
}

#[tokio::test]
async fn unfit_paths_are_refused() {
    check(async |store: TierStore| {
        for path in ["", "/a", "a/", "a//b", ".", "../a", "a/../b", "a\nb", "a\0", ".aquifer-tmp/a"]
        {
            assert_eq!(
                kind(store.put_new(path, bytes("x")).await),
                StoreErrorKind::Other,
                "{path:?}"
            );
            assert_eq!(kind(store.get(path).await), StoreErrorKind::Other, "{path:?}");
            assert_eq!(kind(store.delete(path).await), StoreErrorKind::Other, "{path:?}");
            if !path.is_empty() {
                assert_eq!(kind(store.list(path).await), StoreErrorKind::Other, "{path:?}");
            }
        }
        assert!(store.list("").await.expect("a list").is_empty());
    })
    .await;
}

#[tokio::test]
async fn unusual_names_are_kept() {
    check(async |store: TierStore| {
        for path in [".a/b", "a b", "a%20b", "ä/ö", "a#b?c", "a+b~c", "a=b&c"] {
            store.put_new(path, bytes("x")).await.expect(path);
            assert_eq!(store.get(path).await.expect(path), "x");
            assert!(store.list("").await.expect("a list").contains(&entry(path, 1)), "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_large_object_comes_back_as_it_was() {
    check(async |store: TierStore| {
        let large: Bytes = (0..40 << 20).map(|at: u32| (at ^ (at >> 11)) as u8).collect();
        store.put_new("a", large.clone()).await.expect("a put");
        assert!(store.get("a").await.expect("the object") == large);
        let range = store.get_range("a", 33 << 20..34 << 20).await.expect("a range");
        assert!(range == large.slice(33 << 20..34 << 20));
    })
    .await;
}

#[tokio::test]
async fn a_probe_finds_nothing_missing_and_leaves_nothing() {
    check(async |store: TierStore| {
        store.probe(&RealRandom::new()).await.expect("a probe");
        assert!(store.list("").await.expect("a list").is_empty());
    })
    .await;
}
