//! Transactions through the whole store: what committed readers see, live and
//! from chunks, over restarts and a recovery.

#![allow(clippy::unwrap_used)]

mod ends;
mod meanwhile;
mod relocated;
#[path = "../support/mod.rs"]
mod support;
mod visible;

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

fn text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).unwrap()
}
