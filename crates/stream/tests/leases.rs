//! Leases: one holder at a time, and nothing is done under a grant that was
//! overtaken.

#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use aquifer_env::MockClock;
use aquifer_env::store::TierStore;
use aquifer_stream::{Error, Lease, Operation, Precondition, StreamStore, recover_from};
use aquifer_types::{
    BatchBuilder, CommitId, ErrorKind, LeaseName, LeaseToken, Offset, Partition, PartitionIndex,
    StreamConfig, Timestamp,
};
use support::*;
use uuid::Uuid;

const TTL: Duration = Duration::from_secs(10);

fn name() -> LeaseName {
    LeaseName::new("coordinator").unwrap()
}

async fn take(store: &StreamStore) -> Result<Lease, Error> {
    store.lease(name(), TTL).await
}

/// Appends one record under `require`.
async fn append_under(
    store: &StreamStore,
    number: u128,
    require: Precondition,
) -> Result<(), Error> {
    let mut builder = BatchBuilder::default();
    builder.push(Timestamp(1), None, &[], Some(b"value"));
    let stream = store.stream_shape(&path("a")).unwrap().id;
    let append = Operation::Append {
        partition: Partition::new(stream, PartitionIndex(0)),
        batch: builder.finish(),
        expected_offset: None,
    };
    let id = CommitId(Uuid::from_u128(number));
    store.commit_as(id, vec![require], vec![append]).await.map(|_| ())
}

fn kind(result: Result<impl Sized, Error>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_was_overtaken_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let clock = Arc::new(MockClock::new(1_000_000));
    let store = open(options(dir.path()), with_clock(&tier2, 1, &clock)).await;
    create(&store, "a", 1, StreamConfig::default()).await;

    let first = take(&store).await.unwrap();
    append_under(&store, 1, first.precondition()).await.unwrap();
    let Err(Error::LeaseHeld { wait_ms, token, .. }) = take(&store).await else { panic!("twice") };
    assert_eq!((wait_ms, token), (10_000, first.token()));

    // A wall clock that jumps ends nothing, and prolongs nothing.
    for jump_ms in [3_600_000, -3_600_000, 315_360_000_000, -315_360_000_000] {
        clock.set_now_ms(1_000_000 + jump_ms);
        assert_eq!(kind(take(&store).await), Some(ErrorKind::Conflict), "{jump_ms}");
    }
    clock.advance(TTL - Duration::from_millis(1));
    assert_eq!(kind(take(&store).await), Some(ErrorKind::Conflict), "1 ms is left");
    first.renew().await.unwrap();
    clock.advance(Duration::from_millis(1));
    assert_eq!(kind(take(&store).await), Some(ErrorKind::Conflict), "it was renewed");
    clock.advance(TTL);
    append_under(&store, 2, first.precondition()).await.unwrap();

    let second = take(&store).await.unwrap();
    assert!(second.token() > first.token());
    assert_eq!(kind(append_under(&store, 3, first.precondition()).await), Some(ErrorKind::Fenced));
    assert_eq!(kind(first.renew().await), Some(ErrorKind::Fenced));
    assert_eq!(kind(first.release().await), Some(ErrorKind::Fenced));
    append_under(&store, 4, second.precondition()).await.unwrap();
    let end = store.describe_stream(&path("a")).unwrap().partitions[0].end_offset;
    assert_eq!(end, Offset(3), "the overtaken append was not done");

    // A restart keeps the grant, and gives the holder its whole time.
    let token = second.token();
    let require = second.precondition();
    store.shutdown().await.unwrap();
    drop((second, store));
    clock.set_now_ms(99_000_000_000);
    let store = open(options(dir.path()), with_clock(&tier2, 2, &clock)).await;
    append_under(&store, 5, require.clone()).await.unwrap();
    clock.advance(TTL - Duration::from_millis(1));
    assert_eq!(kind(take(&store).await), Some(ErrorKind::Conflict));
    clock.advance(Duration::from_millis(1));
    let third = take(&store).await.unwrap();
    assert!(third.token() > token);
    third.release().await.unwrap();
    let fourth = take(&store).await.unwrap();
    assert!(fourth.token().get() > token.get() + 1, "given back, and at once another's");
    assert_eq!(kind(append_under(&store, 6, require).await), Some(ErrorKind::Fenced));
    for ttl in [Duration::ZERO, Duration::from_secs(1 << 40)] {
        let refused = store.lease(name(), ttl).await;
        assert_eq!(kind(refused), Some(ErrorKind::InvalidRequest));
    }
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_recovery_from_tier_2_tokens_go_on_above_all_earlier_ones() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    create(&store, "a", 1, config()).await;
    let mut last = LeaseToken(0);
    for _ in 0..5 {
        let lease = take(&store).await.unwrap();
        assert!(lease.token() > last);
        last = lease.token();
        lease.release().await.unwrap();
    }
    let lost = take(&store).await.unwrap();
    let require = lost.precondition();
    append(&store, "a", 0, &values(0..10)).await;
    tiered(&store, "a").await;
    until("a manifest", async || !listed(&tier2, "_meta").await.is_empty()).await;
    store.shutdown().await.unwrap();
    drop((lost, store));
    let other = tempfile::tempdir().unwrap();
    recover_from("", options(other.path()), environment(&tier2, 2), |_, _| ()).await.unwrap();
    let store = open(options(other.path()), environment(&tier2, 3)).await;
    assert_eq!(kind(append_under(&store, 1, require).await), Some(ErrorKind::Fenced));
    assert!(take(&store).await.unwrap().token() > last);
    store.shutdown().await.unwrap();
}
