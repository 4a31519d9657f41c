//! Fetches of what is in chunks, and beside it in the journal.

use std::time::Duration;

use aquifer_stream::NewStream;
use aquifer_types::{StreamClass, StreamConfig, StreamName, StreamPath, TenantName};
use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use uuid::Uuid;

use super::client::{Client, Server};
use super::data::{append, batch, fetch, found, listed, records};
use crate::KafkaOptions;
use crate::topic::topic_name;

const RECORDS: i64 = 300;

fn path(name: &str) -> StreamPath {
    StreamPath::new(TenantName::default_tenant(), StreamName::new(name).unwrap())
}

/// A stream whose records soon lie in small chunks.
pub(super) async fn create(server: &Server, name: &str, partitions: u32) -> Uuid {
    let config = StreamConfig {
        chunk_target_bytes: 64 << 10,
        chunk_max_age_ms: 100,
        ..StreamConfig::default()
    };
    let (path, class) = (path(name), StreamClass::Durable);
    let new = NewStream { path, partitions, class, config };
    server.store.create_stream(new).await.unwrap().summary.id.0
}

fn value(at: i64) -> String {
    format!("{at} {}", "x".repeat(1_000 + at as usize % 7))
}

/// Fills partitions alike, a batch of three records at a time.
async fn fill(client: &mut Client, name: &str, partitions: i32, range: std::ops::Range<i64>) {
    for first in range.step_by(3) {
        let values: Vec<String> = (first..first + 3).map(value).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let data: Vec<_> = (0..partitions).map(|index| (index, batch(&values))).collect();
        append(client, name, &data).await;
    }
}

/// Waits until nothing is in the journal only; fails after a minute.
pub(super) async fn tiered(server: &Server, name: &str) {
    for _ in 0..6_000 {
        let description = server.store.describe_stream(&path(name)).unwrap();
        if description.partitions.iter().all(|of| of.tiered_offset == of.end_offset) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is not tiered within a minute");
}

/// Reads partitions from `from` to `end` and checks every record on the way.
async fn read(server: &Server, name: &str, partitions: i32, bytes_max: i32, from: i64, end: i64) {
    let mut client = server.client().await;
    let mut at: Vec<(i32, i64)> = (0..partitions).map(|index| (index, from)).collect();
    while at.iter().any(|(_, at)| *at < end) {
        let mut request = fetch(12, name, Uuid::nil(), &at);
        request.max_bytes = bytes_max;
        let response = client.call(12, request).await;
        for partition in found(&response) {
            assert_eq!(partition.error_code, 0, "{partition:?}");
            let at = &mut at[partition.partition_index as usize].1;
            // A batch may begin before the position that was asked for.
            let first = *at;
            for record in records(partition).iter().filter(|record| record.offset.get() >= first) {
                assert_eq!(record.offset.get(), *at);
                assert_eq!(record.value.as_deref(), Some(value(*at).as_bytes()));
                assert_eq!(record.timestamp.get(), 1_000 + *at % 3);
                *at += 1;
            }
        }
    }
}

#[tokio::test]
async fn chunks_and_the_journal_are_read_as_one() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 2).await;
    fill(&mut client, "a", 2, 0..RECORDS).await;
    tiered(&server, "a").await;
    fill(&mut client, "a", 2, RECORDS..RECORDS + 30).await;
    let reads = [(1 << 20, 0), (5_000, 0), (1, RECORDS - 4), (20_000, 7), (1 << 20, RECORDS)];
    let readers =
        reads.map(|(bytes_max, from)| read(&server, "a", 2, bytes_max, from, RECORDS + 30));
    futures::future::join_all(readers).await;
    server.stop().await;
}

#[tokio::test]
async fn walks_take_turns_where_there_is_room_for_one() {
    let options = KafkaOptions {
        cold_read_bytes: 64 << 10,
        cold_reads_bytes_max: 64 << 10,
        ..KafkaOptions::default()
    };
    let server = Server::start(options).await;
    let mut client = server.client().await;
    create(&server, "a", 3).await;
    fill(&mut client, "a", 3, 0..RECORDS).await;
    tiered(&server, "a").await;
    read(&server, "a", 3, 1 << 20, 0, RECORDS).await;
    server.stop().await;
}

#[tokio::test]
async fn who_reads_for_long_leaves_turns_to_others() {
    const MANY: i64 = 3_000;
    let options = KafkaOptions {
        cold_read_bytes: 64 << 10,
        cold_reads_bytes_max: 64 << 10,
        ..KafkaOptions::default()
    };
    let server = Server::start(options).await;
    let mut client = server.client().await;
    create(&server, "a", 2).await;
    for first in (0..MANY).step_by(100) {
        let values: Vec<String> = (first..first + 100).map(value).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        append(&mut client, "a", &[(0, batch(&values)), (1, batch(&values))]).await;
    }
    tiered(&server, "a").await;
    let mut first = server.client().await;
    let mut at = 0;
    let mut next = async || {
        let mut request = fetch(12, "a", Uuid::nil(), &[(0, at)]);
        request.max_bytes = 16 << 10;
        let response = first.call(12, request).await;
        at = records(found(&response)[0]).last().map_or(at, |last| last.offset.get() + 1);
        at
    };
    // There is room for one walk, and it has begun.
    assert!(next().await > 0);
    let mut client = server.client().await;
    let second = client.call(12, fetch(12, "a", Uuid::nil(), &[(1, 0)]));
    tokio::pin!(second);
    let response = loop {
        tokio::select! {
            response = &mut second => break response,
            at = next() => assert!(at < MANY, "the second waited until the first had all"),
        }
    };
    assert!(!records(found(&response)[0]).is_empty());
    server.stop().await;
}

#[tokio::test]
async fn what_was_deleted_is_out_of_range_in_chunks_and_journal_alike() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    fill(&mut client, "a", 1, 0..RECORDS).await;
    tiered(&server, "a").await;
    fill(&mut client, "a", 1, RECORDS..RECORDS + 30).await;
    let mut check = async |version: i16, offset, code, start| {
        let partition =
            DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name("a"))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]);
        let response = client.call(version, request).await;
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.low_watermark), (code, start), "{offset}");
        if code == 0 {
            let request = fetch(12, "a", Uuid::nil(), &[(0, start - 1)]);
            assert_eq!(found(&client.call(12, request).await)[0].error_code, 1);
            assert_eq!(listed(&mut client, "a", 0, -2).await, (0, start, -1));
        }
    };
    check(0, 5, 0, 5).await;
    check(1, 3, 0, 5).await;
    check(2, RECORDS + 31, 1, -1).await;
    check(2, -2, 1, -1).await;
    check(2, 100, 0, 100).await;
    check(2, RECORDS + 7, 0, RECORDS + 7).await;
    read(&server, "a", 1, 1 << 20, RECORDS + 7, RECORDS + 30).await;
    // All of the records that are left: the first of a batch bears 1,000.
    let mut client = server.client().await;
    assert_eq!(listed(&mut client, "a", 0, 1_000).await, (0, RECORDS + 7, 1_001));
    assert_eq!(listed(&mut client, "a", 0, -3).await, (0, RECORDS + 8, 1_002));
    check(2, -1, 0, RECORDS + 30).await;
    assert_eq!(listed(&mut client, "a", 0, -3).await, (0, -1, -1));
    server.stop().await;
}

#[tokio::test]
async fn times_are_found_in_chunks() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    fill(&mut client, "a", 1, 0..RECORDS).await;
    tiered(&server, "a").await;
    assert_eq!(listed(&mut client, "a", 0, 1_001).await, (0, 1, 1_001));
    assert_eq!(listed(&mut client, "a", 0, 1_003).await, (0, -1, -1));
    assert_eq!(listed(&mut client, "a", 0, -3).await, (0, 2, 1_002));
    assert_eq!(listed(&mut client, "a", 0, -4).await, (0, RECORDS, -1));
    assert_eq!(listed(&mut client, "a", 0, -5).await, (0, RECORDS - 1, -1));
    assert_eq!(listed(&mut client, "a", 0, -6).await, (0, RECORDS, -1));
    server.stop().await;
}
