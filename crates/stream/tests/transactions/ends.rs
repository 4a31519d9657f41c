//! How transactions end: who may end them, and what ends by itself.

use super::*;

#[tokio::test]
async fn an_end_can_be_repeated_over_restarts_and_the_opposite_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let mut store = open(options(dir.path()), environment(&tier2, 4)).await;
    create(&store, "audit", 1, resting()).await;
    let one = init(&store, "one").await;
    let end_it = |store: StreamStore, is_commit: bool| async move {
        store.end_transaction(&tenant(), &id("one"), one, is_commit).await
    };
    let refused = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::InvalidTransactionState(_))), "{result:?}");
    };
    refused(end_it(store.clone(), true).await);
    for (round, is_commit) in [true, false, true].into_iter().enumerate() {
        enlist(&store, "one", one, "audit").await;
        write(&store, one, round as i32, &["v"]).await;
        end_it(store.clone(), is_commit).await.unwrap();
        for _ in 0..2 {
            let stable = partition(&store).end_offset;
            end_it(store.clone(), is_commit).await.unwrap();
            refused(end_it(store.clone(), !is_commit).await);
            assert_eq!(partition(&store).end_offset, stable, "no second marker");
            store.shutdown().await.unwrap();
            drop(store);
            store = open(options(dir.path()), environment(&tier2, 5)).await;
        }
    }
    assert_eq!(committed(&store).await, ["v", "v"]);
    let described = store.describe_transaction(&tenant(), &id("one")).unwrap();
    assert_eq!((described.producer, described.state), (one, TransactionState::Committed));
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn producers_are_fenced_and_batches_outside_of_a_transaction_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 6)).await;
    create(&store, "audit", 2, resting()).await;
    let one = init(&store, "one").await;
    let refused = |result: Result<Offset, Error>| {
        assert!(matches!(result, Err(Error::InvalidTransactionState(_))), "{result:?}");
    };
    refused(try_write(&store, "audit", batch(one, 0, &["v"])).await);
    let other = vec![at(&store, "audit", 1)];
    store.add_partitions(&tenant(), &id("one"), one, other).await.unwrap();
    refused(try_write(&store, "audit", batch(one, 0, &["v"])).await);
    enlist(&store, "one", one, "audit").await;
    let mut plain = BatchBuilder::default().producer(one.0, one.1, Sequence(0));
    plain.push(Timestamp(1), None, &[], Some(b"v"));
    refused(try_write(&store, "audit", plain.finish()).await);
    write(&store, one, 0, &["v"]).await;

    // The next instance: the open transaction is aborted, the older is fenced.
    let next = init(&store, "one").await;
    assert_eq!(next, (one.0, ProducerEpoch(1)));
    let late = try_write(&store, "audit", batch(one, 1, &["late"])).await;
    assert!(matches!(late, Err(Error::ProducerFenced { current: 1, sent: 0, .. })), "{late:?}");
    let late = store.end_transaction(&tenant(), &id("one"), one, true).await;
    assert!(matches!(late, Err(Error::ProducerFenced { .. })), "{late:?}");
    assert_eq!(partition(&store).stable_offset, partition(&store).end_offset);
    assert_eq!(committed(&store).await, Vec::<String>::new());

    // A bump by name can be repeated, and by nobody else.
    let by_name = |expected: Producer| {
        let expected = Some(expected);
        let new = NewTransactional { id: id("one"), timeout_ms: 60_000, expected };
        let store = store.clone();
        async move { store.init_producer(&tenant(), Some(new)).await }
    };
    let bumped = by_name(next).await.unwrap();
    assert_eq!(bumped, (one.0, ProducerEpoch(2)));
    assert_eq!(by_name(next).await.unwrap(), bumped, "the answer was lost");
    assert!(matches!(by_name(one).await, Err(Error::ProducerFenced { .. })));
    enlist(&store, "one", bumped, "audit").await;
    assert!(matches!(by_name(next).await, Err(Error::ProducerFenced { .. })), "it is in use");

    let unknown = store.end_transaction(&tenant(), &id("two"), one, true).await;
    assert!(matches!(unknown, Err(Error::TransactionalIdNotFound(_))), "{unknown:?}");
    let stranger = (ProducerId(1_000), ProducerEpoch(0));
    let unknown = store.end_transaction(&tenant(), &id("one"), stranger, true).await;
    assert!(matches!(unknown, Err(Error::UnknownProducer { producer: 1_000 })), "{unknown:?}");
    for timeout_ms in [0, 900_001] {
        let new = NewTransactional { id: id("one"), timeout_ms, expected: None };
        let result = store.init_producer(&tenant(), Some(new)).await;
        assert!(matches!(result, Err(Error::TransactionTimeoutTooLong { .. })), "{result:?}");
    }
    let plain = store.init_producer(&tenant(), None).await.unwrap();
    assert!(plain.0 > one.0);
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn positions_wait_for_the_end_and_go_with_their_group_and_stream() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 7)).await;
    create(&store, "audit", 1, resting()).await;
    create(&store, "bills", 1, resting()).await;
    let one = init(&store, "one").await;
    let pend = |offset: i64| {
        let store = store.clone();
        let positions =
            ["audit", "bills"].map(|name| (at(&store, name, 0), Offset(offset), "n".into()));
        async move {
            let positions = positions.to_vec();
            store
                .commit_positions_in_transaction(&tenant(), &id("one"), one, &group(), positions)
                .await
        }
    };
    let refused = pend(1).await;
    assert!(matches!(refused, Err(Error::InvalidTransactionState(_))), "{refused:?}");
    for (offset, is_commit) in [(5, true), (9, false)] {
        store.add_group(&tenant(), &id("one"), one, &group()).await.unwrap();
        pend(offset).await.unwrap();
        assert_eq!(store.pending_positions(&tenant(), &group()).len(), 2);
        end(&store, "one", one, is_commit).await;
        assert!(store.pending_positions(&tenant(), &group()).is_empty());
        let positions = store.describe_group(&tenant(), &group()).unwrap().positions;
        let position = &positions[&path("audit")][&PartitionIndex(0)];
        assert_eq!((position.offset, position.metadata.as_str()), (Offset(5), "n"));
    }
    // A stream that is deleted takes its part along; so does a group.
    store.add_group(&tenant(), &id("one"), one, &group()).await.unwrap();
    enlist(&store, "one", one, "bills").await;
    pend(11).await.unwrap();
    store.delete_stream(&path("bills")).await.unwrap();
    assert_eq!(store.pending_positions(&tenant(), &group()).len(), 1);
    store.delete_group(&tenant(), &group()).await.unwrap();
    assert!(store.pending_positions(&tenant(), &group()).is_empty());
    end(&store, "one", one, true).await;
    assert!(matches!(store.describe_group(&tenant(), &group()), Err(Error::GroupNotFound(_))));
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_transaction_is_aborted_when_its_own_time_is_over_and_not_earlier() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let clock = Arc::new(MockClock::new(1_700_000_000_000));
    let store = open(options(dir.path()), with_clock(&tier2, 8, &clock)).await;
    create(&store, "audit", 1, resting()).await;
    let one = init(&store, "one").await;
    enlist(&store, "one", one, "audit").await;
    write(&store, one, 0, &["v"]).await;
    let expire = || async { store.expire_transactions().await.unwrap() };
    assert_eq!(expire().await, 0);
    // The wall clock jumps: nothing is aborted for it.
    clock.set_now_ms(1_800_000_000_000);
    assert_eq!(expire().await, 0);
    clock.set_now_ms(5);
    clock.advance(Duration::from_millis(59_999));
    assert_eq!(expire().await, 0);
    clock.advance(Duration::from_millis(1));
    // The background may have been faster.
    expire().await;
    assert_eq!(partition(&store).stable_offset, Offset(2));
    assert_eq!(committed(&store).await, Vec::<String>::new());
    let late = try_write(&store, "audit", batch(one, 1, &["late"])).await;
    assert!(matches!(late, Err(Error::ProducerFenced { .. })), "{late:?}");
    let late = store.end_transaction(&tenant(), &id("one"), one, false).await;
    assert!(matches!(late, Err(Error::ProducerFenced { .. })), "{late:?}");
    assert_eq!(init(&store, "one").await, (one.0, ProducerEpoch(2)));
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_cannot_be_aborted_yet_keeps_no_other_open() {
    let dir = tempfile::tempdir().unwrap();
    let faulty = FaultyStore::new(&TierStore::in_memory(), 9);
    let clock = Arc::new(MockClock::new(1_700_000_000_000));
    let options = Options { manifest_offsets_ahead: 1_024, ..options(dir.path()) };
    let store = open(options, with_clock(&faulty.store(), 9, &clock)).await;
    for name in ["audit", "bills"] {
        create(&store, name, 1, resting()).await;
        append(&store, name, 0, &["plain".into()]).await;
    }
    let (first, second) = (init(&store, "a").await, init(&store, "b").await);
    enlist(&store, "a", first, "bills").await;
    enlist(&store, "b", second, "audit").await;
    try_write(&store, "bills", batch(first, 0, &["v"])).await.unwrap();
    write(&store, second, 0, &["v"]).await;
    // The second manifest from here on was begun when all that was there.
    for name in ["c", "d"] {
        let before = listed(&faulty.store(), "_meta").await;
        create(&store, name, 1, resting()).await;
        let is_next = async || listed(&faulty.store(), "_meta").await != before;
        until("a manifest follows", is_next).await;
    }
    // Without another there are no more offsets, for a marker neither.
    faulty.set_down(true);
    for count in [50, 1] {
        let values = vec!["x".to_owned(); count];
        let refused = loop {
            match try_append(&store, "bills", 0, &values).await {
                Ok(end) => assert!(end < Offset(10_000), "no ceiling holds"),
                Err(error) => break error,
            }
        };
        let is_full = matches!(refused, Error::Throttled { .. });
        assert!(is_full, "{refused}");
    }
    let is_open = |name: &str| {
        let state = store.describe_transaction(&tenant(), &id(name)).unwrap().state;
        state == TransactionState::Ongoing
    };
    assert_eq!(store.expire_transactions().await.unwrap(), 0);
    clock.advance(Duration::from_secs(60));
    // The background may have been faster.
    let _ = store.expire_transactions().await;
    assert!(is_open("a") && !is_open("b"), "{} {}", is_open("a"), is_open("b"));
    faulty.set_down(false);
    // A manifest follows what changes.
    create(&store, "e", 1, resting()).await;
    let both_are_over = async || {
        let _ = store.expire_transactions().await;
        !is_open("a")
    };
    until("the other follows when there is room", both_are_over).await;
    store.shutdown().await.unwrap();
}
