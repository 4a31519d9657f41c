//! Transactions while others are written, read, tiered and recovered.

use super::*;

/// What the writers of a run were told.
#[derive(Debug, Default)]
struct Told {
    committed: BTreeSet<String>,
    aborted: BTreeSet<String>,
}

const PARTITIONS: u32 = 3;

async fn write_to(store: &StreamStore, index: u32, batch: Batch) {
    let partition = PartitionIndex(index);
    let request = AppendRequest {
        path: path("audit"),
        appends: vec![PartitionAppend { partition, batch, expected_offset: None }],
        idempotency_key: None,
    };
    store.append(request).await.unwrap();
}

/// Writes transactions, and ends each in one way or another; the last one stays
/// open.
async fn transact(store: StreamStore, name: String, seed: u64) -> Told {
    let random = SeededRandom::new(seed);
    let below = |bound: u64| random.next_u64() % bound;
    let mut told = Told::default();
    let mut producer = init(&store, &name).await;
    let mut sequences = [0; PARTITIONS as usize];
    for number in 0..25 {
        let mut values = Vec::new();
        for step in 0..1 + below(6) {
            let index = below(PARTITIONS.into()) as u32;
            let listed = vec![at(&store, "audit", index)];
            store.add_partitions(&tenant(), &id(&name), producer, listed).await.unwrap();
            let value =
                format!("{name} {seed} {number} {step} {}", "x".repeat(below(3_000) as usize));
            let sequence = &mut sequences[index as usize];
            write_to(&store, index, batch(producer, *sequence, &[&value])).await;
            *sequence += 1;
            values.push(value);
        }
        match below(if number == 24 { 1 } else { 8 }) {
            0 if number == 24 => told.aborted.extend(values),
            // The next instance takes over and aborts it.
            0 => {
                producer = init(&store, &name).await;
                sequences = [0; PARTITIONS as usize];
                told.aborted.extend(values);
            }
            1 | 2 => {
                end(&store, &name, producer, false).await;
                told.aborted.extend(values);
            }
            _ => {
                end(&store, &name, producer, true).await;
                told.committed.extend(values);
            }
        }
    }
    told
}

/// What a walk over a view gives.
async fn viewed(store: &StreamStore) -> Vec<String> {
    let view = store.view(&[path("audit")], Isolation::Committed).unwrap();
    let mut values = Vec::new();
    for (at, cut) in view.cuts() {
        let mut cursor = view.read(at, cut.start).unwrap();
        loop {
            let blocks = cursor.next(10_000).await.unwrap();
            if blocks.is_empty() {
                break;
            }
            for block in blocks {
                let mut records = Vec::new();
                block.records_from(cut.start, &mut records).unwrap();
                values.extend(records.into_iter().map(|r| text(r.value.as_deref().unwrap())));
            }
        }
    }
    values
}

/// Follows a partition as committed reader of raw batches, until it is told to
/// stop and stands at the stable offset.
async fn follow(store: StreamStore, index: u32, stop: watch::Receiver<bool>) -> Vec<String> {
    let mut values = Vec::new();
    let mut from = Offset::ZERO;
    loop {
        let is_stopping = *stop.borrow();
        let form = if index == 0 { Form::Records } else { Form::Raw };
        let request = ReadRequest {
            partition: PartitionIndex(index),
            bytes_max: 7_000,
            wait: Duration::from_millis(20),
            form,
            ..request(Position::Offset(from))
        };
        let answer = store.read(request).await.unwrap();
        assert!(answer.next_offset <= answer.stable_offset);
        values.extend(by_rule_of_kafka(&answer));
        if is_stopping && answer.next_offset == from {
            return values;
        }
        from = answer.next_offset;
    }
}

fn check(mut seen: Vec<String>, told: &Told, what: &str) {
    seen.sort();
    let count = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), count, "{what}: seen twice");
    let seen: BTreeSet<String> = seen.into_iter().collect();
    let short = |value: &String| value.split_at(value.len().min(30)).0.to_owned();
    let missing: Vec<_> = told.committed.difference(&seen).map(short).collect();
    assert!(missing.is_empty(), "{what}: missing {missing:?}");
    let more: Vec<_> = seen.difference(&told.committed).map(short).collect();
    assert!(more.is_empty(), "{what}: not committed {more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_committed_is_seen_once_and_nothing_else_however_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let mut told = Told::default();
    let options = |data: &Path| Options { compaction_chunks_min: 3, ..options(data) };
    for round in 0..3 {
        let store = open(options(dir.path()), environment(&tier2, 100 + round)).await;
        if round == 0 {
            create(&store, "audit", PARTITIONS, config()).await;
        }
        let stop = watch::Sender::new(false);
        let followers: Vec<_> = (0..PARTITIONS)
            .map(|index| tokio::spawn(follow(store.clone(), index, stop.subscribe())))
            .collect();
        let writers: Vec<_> = (0..4)
            .map(|n| tokio::spawn(transact(store.clone(), format!("sink-{n}"), round * 10 + n)))
            .collect();
        let plain = tokio::spawn({
            let store = store.clone();
            async move {
                let mut values = Vec::new();
                for number in 0..150 {
                    let value = format!("plain {round} {number}");
                    append(&store, "audit", number % PARTITIONS, std::slice::from_ref(&value))
                        .await;
                    values.push(value);
                }
                values
            }
        });
        for writer in writers {
            let more = writer.await.unwrap();
            told.committed.extend(more.committed);
            told.aborted.extend(more.aborted);
        }
        told.committed.extend(plain.await.unwrap());
        // What is left open is ended, so that all that is plain is stable.
        for n in 0..4 {
            init(&store, &format!("sink-{n}")).await;
        }
        stop.send_replace(true);
        let mut seen = Vec::new();
        for follower in followers {
            seen.extend(follower.await.unwrap());
        }
        check(seen, &told, "followed");
        check(viewed(&store).await, &told, "viewed");
        assert!(told.aborted.len() > 20);
        if round == 2 {
            support::tiered(&store, "audit").await;
            until("a manifest tells of it", async || {
                let before = listed(&tier2, "_meta").await;
                tokio::time::sleep(Duration::from_millis(150)).await;
                before == listed(&tier2, "_meta").await
            })
            .await;
            check(viewed(&store).await, &told, "tiered");
        }
        store.shutdown().await.unwrap();
    }
    let last = tempfile::tempdir().unwrap();
    let known = open(options(dir.path()), environment(&tier2, 200)).await;
    let before = init(&known, "sink-0").await;
    known.shutdown().await.unwrap();
    recover_from("memory://", options(last.path()), environment(&tier2, 201), |_, _| ())
        .await
        .unwrap();
    let store = open(options(last.path()), environment(&tier2, 202)).await;
    check(viewed(&store).await, &told, "recovered");
    let late = store.end_transaction(&tenant(), &id("sink-0"), before, true).await;
    assert!(matches!(late, Err(Error::ProducerFenced { .. })), "{late:?}");
    let after = init(&store, "sink-0").await;
    assert!(after.0 > before.0 && after.1 == ProducerEpoch(0), "{before:?} {after:?}");
    store.shutdown().await.unwrap();
}
