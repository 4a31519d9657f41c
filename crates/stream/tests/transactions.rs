//! Transactions through the whole store: what committed readers see, live and
//! from chunks, over restarts and a recovery.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::store::TierStore;
use aquifer_env::{FaultyStore, MockClock, Random, SeededRandom};
use aquifer_stream::{
    AppendRequest, Block, Error, Form, Isolation, NewTransactional, Options, PartitionAppend,
    Position, ReadAnswer, ReadRequest, StreamStore, TransactionState, recover_from, verify,
};
use aquifer_types::{
    Batch, BatchBuilder, GroupName, Offset, Partition, PartitionIndex, ProducerEpoch, ProducerId,
    Sequence, StreamConfig, TenantName, Timestamp, TransactionalId,
};
use support::{
    append, config, create, environment, listed, open, options, path, try_append, until, with_clock,
};
use tokio::sync::watch;

type Producer = (ProducerId, ProducerEpoch);

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

fn id(name: &str) -> TransactionalId {
    TransactionalId::new(name).unwrap()
}

fn group() -> GroupName {
    GroupName::new("readers").unwrap()
}

async fn init(store: &StreamStore, name: &str) -> Producer {
    let new = NewTransactional { id: id(name), timeout_ms: 60_000, expected: None };
    store.init_producer(&tenant(), Some(new)).await.unwrap()
}

fn at(store: &StreamStore, stream: &str, partition: u32) -> Partition {
    Partition::new(store.stream_shape(&path(stream)).unwrap().id, PartitionIndex(partition))
}

async fn enlist(store: &StreamStore, name: &str, producer: Producer, stream: &str) {
    let partition = at(store, stream, 0);
    store.add_partitions(&tenant(), &id(name), producer, vec![partition]).await.unwrap();
}

async fn end(store: &StreamStore, name: &str, producer: Producer, is_commit: bool) {
    store.end_transaction(&tenant(), &id(name), producer, is_commit).await.unwrap();
}

fn batch(producer: Producer, sequence: i32, values: &[&str]) -> Batch {
    let mut builder = BatchBuilder::default()
        .producer(producer.0, producer.1, Sequence(sequence))
        .transactional();
    for value in values {
        builder.push(Timestamp(1_000), None, &[], Some(value.as_bytes()));
    }
    builder.finish()
}

async fn try_write(store: &StreamStore, stream: &str, batch: Batch) -> Result<Offset, Error> {
    let partition = PartitionIndex(0);
    let request = AppendRequest {
        path: path(stream),
        appends: vec![PartitionAppend { partition, batch, expected_offset: None }],
        idempotency_key: None,
    };
    store.append(request).await.map(|answer| answer.appends[0].base_offset)
}

async fn write(store: &StreamStore, producer: Producer, sequence: i32, values: &[&str]) -> Offset {
    try_write(store, "audit", batch(producer, sequence, values)).await.unwrap()
}

fn request(from: Position) -> ReadRequest {
    ReadRequest {
        path: path("audit"),
        partition: PartitionIndex(0),
        from,
        bytes_max: 1 << 20,
        wait: Duration::ZERO,
        isolation: Isolation::Committed,
        form: Form::Records,
    }
}

fn values_of(answer: &ReadAnswer) -> Vec<String> {
    answer.records().unwrap().iter().map(|r| text(r.value.as_deref().unwrap())).collect()
}

/// All that a committed reader sees, in small steps; every one moves it on.
async fn committed(store: &StreamStore) -> Vec<String> {
    let mut values = Vec::new();
    let mut from = Offset::ZERO;
    loop {
        let small = ReadRequest { bytes_max: 1, ..request(Position::Offset(from)) };
        let answer = store.read(small).await.unwrap();
        values.extend(values_of(&answer));
        if answer.next_offset == from {
            assert_eq!(from, answer.stable_offset, "the reader stands at the stable offset");
            return values;
        }
        from = answer.next_offset;
    }
}

/// What a client that knows Kafka's rule makes of raw batches.
fn by_rule_of_kafka(answer: &ReadAnswer) -> Vec<String> {
    let mut aborted = answer.aborted.clone();
    let mut hidden = Vec::new();
    let mut values = Vec::new();
    for block in &answer.blocks {
        let mut records = Vec::new();
        if let Block::Batch(batch) = block {
            let header = batch.header();
            let (begun, later): (Vec<_>, Vec<_>) =
                aborted.into_iter().partition(|a| a.first_offset <= header.last_offset());
            hidden.extend(begun.iter().map(|a| a.producer_id));
            aborted = later;
            if let Some(marker) = batch.marker().unwrap() {
                if !marker.is_commit {
                    hidden.retain(|producer| *producer != marker.producer);
                }
                continue;
            }
            if header.is_transactional && header.producer_id.is_some_and(|p| hidden.contains(&p)) {
                continue;
            }
        }
        block.records_from(answer.from, &mut records).unwrap();
        values.extend(
            records.iter().map(|record| {
                String::from_utf8(record.value.as_deref().unwrap().to_vec()).unwrap()
            }),
        );
    }
    values
}

async fn raw(store: &StreamStore, from: Offset) -> ReadAnswer {
    store.read(ReadRequest { form: Form::Raw, ..request(Position::Offset(from)) }).await.unwrap()
}

fn partition(store: &StreamStore) -> aquifer_stream::PartitionDescription {
    store.describe_stream(&path("audit")).unwrap().partitions[0].clone()
}

/// Waits until everything that is stable is in chunks.
async fn tiered(store: &StreamStore) {
    let is_done = async || {
        let partition = partition(store);
        partition.tiered_offset == partition.stable_offset
    };
    until("what is stable is tiered", is_done).await;
}

/// Nothing is tiered on its own.
fn resting() -> StreamConfig {
    StreamConfig { chunk_max_age_ms: 3_600_000, ..StreamConfig::default() }
}

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

fn text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).unwrap()
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_does_not_keep_the_journal_for_itself() {
    const JOURNAL_BYTES: u64 = 12 << 20;
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let options = |data: &Path| Options { journal_bytes_max: JOURNAL_BYTES, ..options(data) };
    let store = open(options(dir.path()), environment(&tier2, 300)).await;
    create(&store, "audit", 1, config()).await;
    create(&store, "bills", 1, config()).await;
    let one = init(&store, "one").await;
    enlist(&store, "one", one, "audit").await;
    let value = |number: usize| format!("{number} {}", "x".repeat(20_000));
    let is_in = |result: Result<Offset, Error>| match result {
        Ok(_) => true,
        Err(Error::Backpressure { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    let mut values = Vec::new();
    // Several times the journal flows by; the open transaction grows with it.
    let mut appended = 0;
    let mut written = 0;
    while written < 4 * JOURNAL_BYTES {
        if appended % 10 == 0 {
            let number = values.len();
            let batch = batch(one, number as i32, &[&value(number)]);
            let write = async || is_in(try_write(&store, "audit", batch.clone()).await);
            until("there is room in the journal again", write).await;
            values.push(value(number));
        }
        let others = vec!["y".repeat(200_000)];
        let write = async || is_in(try_append(&store, "bills", 0, &others).await);
        until("there is room in the journal again", write).await;
        written += 200_000;
        appended += 1;
    }
    assert!(store.health().journal_bytes.0 <= JOURNAL_BYTES + (2 << 20));
    assert_eq!(partition(&store).stable_offset, Offset(0), "it is still open");
    store.shutdown().await.unwrap();
    drop(store);

    let report = verify(options(dir.path()), environment(&tier2, 301), Arc::new(|_| ())).await;
    assert!(report.as_ref().unwrap().is_sound(), "{report:#?}");
    let store = open(options(dir.path()), environment(&tier2, 302)).await;
    end(&store, "one", one, true).await;
    assert!(committed(&store).await == values);
    tiered(&store).await;
    assert!(committed(&store).await == values);
    store.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_relocated_is_tiered_early_when_its_transaction_has_ended() {
    const JOURNAL_BYTES: u64 = 12 << 20;
    let dir = tempfile::tempdir().unwrap();
    let tier2 = TierStore::in_memory();
    let options = Options { journal_bytes_max: JOURNAL_BYTES, ..options(dir.path()) };
    let store = open(options, environment(&tier2, 310)).await;
    // By its own configuration it would wait for longer than the test.
    let slow = StreamConfig { chunk_target_bytes: 1 << 30, ..resting() };
    create(&store, "audit", 1, slow).await;
    create(&store, "bills", 1, config()).await;
    let one = init(&store, "one").await;
    enlist(&store, "one", one, "audit").await;
    let is_in = |result: Result<Offset, Error>| match result {
        Ok(_) => true,
        Err(Error::Backpressure { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    let line = vec!["y".repeat(200_000)];
    let flow = async |bytes: u64| {
        for _ in 0..bytes / 200_000 {
            let write = async || is_in(try_append(&store, "bills", 0, &line).await);
            until("there is room in the journal again", write).await;
        }
    };
    // Records in each part of the journal, until the first ones are relocated.
    let mut number = 0;
    let first_file = || listed_first(dir.path());
    let first = first_file();
    while first_file() == first {
        let value = format!("{number}");
        let batch = batch(one, number, &[&value]);
        let write = async || is_in(try_write(&store, "audit", batch.clone()).await);
        until("there is room in the journal again", write).await;
        number += 1;
        flow(600_000).await;
        assert!(number < 1_000, "the journal's first file stays");
    }
    end(&store, "one", one, true).await;
    flow(3 * JOURNAL_BYTES).await;
    let expected: Vec<String> = (0..number).map(|number| number.to_string()).collect();
    assert_eq!(committed(&store).await, expected);
    store.shutdown().await.unwrap();
}

/// The first of the journal's files.
#[allow(clippy::disallowed_methods, reason = "a test's own files")]
fn listed_first(data: &Path) -> Option<std::ffi::OsString> {
    let entries = std::fs::read_dir(data.join("journal")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".journal")).min()
}
