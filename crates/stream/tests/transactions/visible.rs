//! What readers see of transactions, and what chunks hold of them.

use super::*;

#[tokio::test]
async fn readers_see_what_is_committed_and_raw_ones_what_to_leave_out() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 1)).await;
    create(&store, "audit", 1, resting()).await;
    let (one, two) = (init(&store, "one").await, init(&store, "two").await);
    assert_ne!(one.0, two.0);
    append(&store, "audit", 0, &["plain 0".into()]).await;
    enlist(&store, "one", one, "audit").await;
    enlist(&store, "two", two, "audit").await;
    assert_eq!(write(&store, one, 0, &["one 0", "one 1"]).await, Offset(1));
    append(&store, "audit", 0, &["plain 1".into()]).await;
    write(&store, two, 0, &["two 0"]).await;
    assert_eq!(partition(&store).stable_offset, Offset(1));
    assert_eq!(committed(&store).await, ["plain 0"]);
    let uncommitted =
        ReadRequest { isolation: Isolation::Uncommitted, ..request(Position::Earliest) };
    let seen = values_of(&store.read(uncommitted).await.unwrap());
    assert_eq!(seen, ["plain 0", "one 0", "one 1", "plain 1", "two 0"]);
    let latest = store.read(request(Position::Latest)).await.unwrap();
    assert_eq!((latest.from, latest.end_offset), (Offset(1), Offset(5)));

    // Whoever waits at the stable offset is woken when it moves, without a new
    // record.
    let waiting = tokio::spawn({
        let (store, request) = (store.clone(), request(Position::Offset(Offset(1))));
        let request = ReadRequest { wait: Duration::from_secs(60), ..request };
        async move { store.read(request).await.unwrap() }
    });
    let mut watch = store.watch(&path("audit"), PartitionIndex(0)).unwrap();
    end(&store, "one", one, false).await;
    let woken = tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap().unwrap();
    assert!(woken.next_offset > Offset(1));
    assert_eq!(*watch.borrow_and_update(), Offset(4), "it follows the stable offset");
    assert_eq!(committed(&store).await, ["plain 0", "plain 1"]);
    end(&store, "two", two, true).await;
    assert_eq!(committed(&store).await, ["plain 0", "plain 1", "two 0"]);

    // The same producer goes on after its abort.
    enlist(&store, "one", one, "audit").await;
    write(&store, one, 2, &["one 2"]).await;
    end(&store, "one", one, true).await;
    let all = ["plain 0", "plain 1", "two 0", "one 2"];
    assert_eq!(committed(&store).await, all);
    let answer = raw(&store, Offset(0)).await;
    let [aborted] = answer.aborted[..] else { panic!("{:?}", answer.aborted) };
    assert_eq!(aborted.producer_id, one.0);
    assert_eq!((aborted.first_offset, aborted.last_offset), (Offset(1), Offset(5)));
    assert_eq!(answer.blocks.len(), 8, "every batch and every marker");
    for from in 0..9 {
        let answer = raw(&store, Offset(from)).await;
        let expected: Vec<_> =
            [0, 3, 4, 7].iter().zip(all).filter(|(at, _)| **at >= from).collect();
        let expected: Vec<_> = expected.into_iter().map(|(_, value)| value).collect();
        assert_eq!(by_rule_of_kafka(&answer), expected, "from {from}");
        assert_eq!(answer.aborted.len(), usize::from(from <= 5), "from {from}");
    }
    store.shutdown().await.unwrap();
}

#[tokio::test]
async fn chunks_hold_only_what_is_committed_and_open_transactions_stay_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let store = open(options(dir.path()), environment(&tier2, 2)).await;
    create(&store, "audit", 1, config()).await;
    let (one, two) = (init(&store, "one").await, init(&store, "two").await);
    // Nothing that counts at first: a chunk without rows.
    enlist(&store, "one", one, "audit").await;
    write(&store, one, 0, &["gone"]).await;
    end(&store, "one", one, false).await;
    tiered(&store).await;
    assert_eq!(partition(&store).tiered_offset, Offset(2));
    assert_eq!(committed(&store).await, Vec::<String>::new());
    let empty = store.read(request(Position::Earliest)).await.unwrap();
    assert_eq!((empty.blocks.len(), empty.next_offset), (0, Offset(2)), "led over the gap");

    enlist(&store, "one", one, "audit").await;
    write(&store, one, 1, &["one"]).await;
    end(&store, "one", one, true).await;
    enlist(&store, "two", two, "audit").await;
    write(&store, two, 0, &["two"]).await;
    append(&store, "audit", 0, &["plain".into()]).await;
    tiered(&store).await;
    assert_eq!(partition(&store).tiered_offset, Offset(4), "up to the open one");
    assert_eq!(committed(&store).await, ["one"]);
    let chunks = store.list_chunks(&path("audit")).unwrap();
    let rows: u64 = chunks.iter().map(|chunk| chunk.records).sum();
    assert_eq!(rows, 1);
    store.shutdown().await.unwrap();
    drop(store);

    // The open one is still open after a restart, and is ended then.
    let store = open(options(dir.path()), environment(&tier2, 3)).await;
    assert_eq!(partition(&store).stable_offset, Offset(4));
    write(&store, two, 1, &["two, later"]).await;
    end(&store, "two", two, true).await;
    let all = ["one", "two", "plain", "two, later"];
    assert_eq!(committed(&store).await, all);
    tiered(&store).await;
    assert_eq!(committed(&store).await, all);
    let raw = raw(&store, Offset(0)).await;
    assert_eq!((by_rule_of_kafka(&raw), raw.aborted.len()), (all.map(String::from).to_vec(), 0));
    store.shutdown().await.unwrap();
}
