//! Producers' ids, what their transactions hide, and epochs, over a socket.

use aquifer_stream::NewTransactional;
use aquifer_types::batch::split_batches;
use aquifer_types::{
    Batch, BatchBuilder, Partition, PartitionIndex, ProducerEpoch, ProducerId, Sequence, StreamId,
    TenantName, Timestamp, TransactionalId,
};
use bytes::Bytes;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    DescribeProducersRequest, InitProducerIdRequest, OffsetForLeaderEpochRequest, ProduceRequest,
    TransactionalId as ClientsId,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::client::{Client, Server};
use super::cold;
use super::data::{append, batch, fetch, found, listed, produce};
use super::metadata::create;
use crate::KafkaOptions;
use crate::topic::topic_name;

fn tenant() -> TenantName {
    TenantName::default_tenant()
}

/// A batch of one record in a producer's transaction.
fn transactional((id, epoch): (ProducerId, ProducerEpoch), sequence: i32, value: &str) -> Bytes {
    let builder = BatchBuilder::default().producer(id, epoch, Sequence(sequence));
    let mut builder = builder.transactional();
    builder.push(Timestamp(1), Some(b"k"), &[], Some(value.as_bytes()));
    builder.finish().bytes().clone()
}

/// The request with the name of the tests' transactional id.
fn of_t(request: ProduceRequest) -> ProduceRequest {
    request.with_transactional_id(Some(ClientsId(StrBytes::from_static_str("t"))))
}

/// Appends a transactional batch.
async fn write(client: &mut Client, batch: Bytes) {
    let response = client.call(9, of_t(produce(9, "a", Uuid::nil(), &[(0, batch)]))).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

/// What each batch is: its base offset, and its values or that it is a marker
/// or empty.
fn shape(partition: &PartitionData) -> Vec<(i64, String)> {
    let batches = split_batches(partition.records.clone().unwrap_or_default()).unwrap();
    let batches = batches.into_iter().map(|bytes| Batch::read(bytes).unwrap());
    batches
        .map(|batch| {
            let values = batch.to_records(1 << 20).unwrap().into_iter();
            let values = values.map(|record| {
                String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned()
            });
            let header = batch.header();
            let what = match header {
                header if header.is_control => "marker".to_owned(),
                header if header.record_count == 0 => format!("to {}", header.next_offset()),
                _ => values.collect::<Vec<_>>().join(" "),
            };
            (header.base_offset.get(), what)
        })
        .collect()
}

async fn read(client: &mut Client, name: &str, from: i64, isolation: i8) -> PartitionData {
    let request = fetch(12, name, Uuid::nil(), &[(0, from)]).with_isolation_level(isolation);
    let response = client.call(12, request.with_max_wait_ms(0)).await;
    found(&response)[0].clone()
}

#[tokio::test]
async fn committed_readers_are_told_what_was_aborted() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let stream = StreamId(cold::create(&server, "a", 1).await);
    let id = TransactionalId::new("t").unwrap();
    let new = NewTransactional { id: id.clone(), timeout_ms: 60_000, expected: None };
    let producer = server.store.init_producer(&tenant(), Some(new)).await.unwrap();
    let partitions = vec![Partition::new(stream, PartitionIndex(0))];
    let begin = async || {
        let partitions = partitions.clone();
        server.store.add_partitions(&tenant(), &id, producer, partitions).await.unwrap();
    };
    let end = async |is_commit| {
        server.store.end_transaction(&tenant(), &id, producer, is_commit).await.unwrap();
    };
    append(&mut client, "a", &[(0, batch(&["plain"]))]).await;
    // Not in a transaction yet.
    let outside = produce(9, "a", Uuid::nil(), &[(0, transactional(producer, 0, "x"))]);
    let response = client.call(9, of_t(outside)).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 48);
    begin().await;
    write(&mut client, transactional(producer, 0, "aborted")).await;
    append(&mut client, "a", &[(0, batch(&["between"]))]).await;

    let open = read(&mut client, "a", 0, 1).await;
    assert_eq!((open.high_watermark, open.last_stable_offset), (3, 1));
    assert_eq!(shape(&open), [(0, "plain".to_owned())]);
    assert_eq!(listed(&mut client, "a", 0, -1).await.1, 3);
    // The end of the transaction wakes whoever waits for what it hides.
    let waiting = fetch(12, "a", Uuid::nil(), &[(0, 1)]).with_isolation_level(1);
    client.send(12, &waiting).await;
    end(false).await;
    let (_, response) = client.receive::<kafka_protocol::messages::FetchRequest>(12).await.unwrap();
    let ended = found(&response)[0].clone();
    let aborted = ended.aborted_transactions.as_ref().unwrap();
    assert_eq!(aborted.len(), 1);
    assert_eq!((aborted[0].producer_id.0, aborted[0].first_offset), (producer.0.get(), 1));
    let want = [(1, "aborted"), (2, "between"), (3, "marker")];
    assert_eq!(shape(&ended), want.map(|(at, what)| (at, what.to_owned())));
    let uncommitted = read(&mut client, "a", 1, 0).await;
    assert_eq!(uncommitted.aborted_transactions, None);
    assert_eq!(shape(&uncommitted), want.map(|(at, what)| (at, what.to_owned())));
    // Behind its marker it is told no more.
    assert_eq!(read(&mut client, "a", 4, 1).await.aborted_transactions, Some(Vec::new()));

    // Chunks hold none of it, and lead on over what they left out.
    begin().await;
    write(&mut client, transactional(producer, 1, "committed")).await;
    end(true).await;
    begin().await;
    write(&mut client, transactional(producer, 2, "aborted")).await;
    end(false).await;
    cold::tiered(&server, "a").await;
    let (mut at, mut values) = (0, Vec::new());
    while at < 8 {
        let request = fetch(12, "a", Uuid::nil(), &[(0, at)]).with_isolation_level(1);
        let response = client.call(12, request).await;
        let partition = found(&response)[0];
        assert_eq!(partition.aborted_transactions, Some(Vec::new()));
        for batch in split_batches(partition.records.clone().unwrap()).unwrap() {
            let batch = Batch::read(batch).unwrap();
            let records = batch.to_records(1 << 20).unwrap();
            values.extend(records.into_iter().map(|record| record.value.unwrap()));
            at = batch.header().next_offset().get();
        }
    }
    assert_eq!(at, 8);
    assert_eq!(values, ["plain", "between", "committed"]);
    server.stop().await;
}

#[tokio::test]
async fn producers_get_ids_and_are_listed() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    let named = |name| Some(ClientsId(StrBytes::from_static_str(name)));
    for version in 0..=5 {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000);
        let first = client.call(version, request.clone()).await;
        let second = client.call(version, request.clone()).await;
        assert_eq!((first.error_code, first.producer_epoch), (0, 0), "{version}");
        assert!(second.producer_id.0 > first.producer_id.0, "{version}");
        // A name keeps its id, and a newer producer fences the older.
        let request = request.with_transactional_id(named("t"));
        let named = client.call(version, request.clone()).await;
        assert_eq!((named.error_code, named.producer_epoch), (0, version), "{version}");
        let late = client.call(version, request.with_transaction_timeout_ms(i32::MAX)).await;
        assert_eq!((late.error_code, late.producer_id.0), (50, -1), "{version}");
    }
    let stale = InitProducerIdRequest::default()
        .with_transaction_timeout_ms(60_000)
        .with_transactional_id(named("t"))
        .with_producer_id(7_777.into())
        .with_producer_epoch(0);
    assert_eq!(client.call(3, stale.clone()).await.error_code, 47);
    assert_eq!(client.call(4, stale).await.error_code, 90);

    let mut builder =
        BatchBuilder::default().producer(ProducerId(9), ProducerEpoch(2), Sequence(0));
    builder.push(Timestamp(1), None, &[], Some(b"v"));
    builder.push(Timestamp(1), None, &[], Some(b"v"));
    append(&mut client, "a", &[(0, builder.finish().bytes().clone())]).await;
    let topic =
        TopicRequest::default().with_name(topic_name("a")).with_partition_indexes(vec![0, 1]);
    let response =
        client.call(0, DescribeProducersRequest::default().with_topics(vec![topic])).await;
    let partitions = &response.topics[0].partitions;
    let producer = &partitions[0].active_producers[0];
    assert_eq!((producer.producer_id.0, producer.producer_epoch), (9, 2));
    assert_eq!((producer.last_sequence, producer.current_txn_start_offset), (1, -1));
    assert_eq!(partitions[1].error_code, 3);
    server.stop().await;
}

#[tokio::test]
async fn epochs_end_where_the_next_begins() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    append(&mut client, "a", &[(0, batch(&["x", "y"]))]).await;
    let server = server.restart(KafkaOptions::default()).await;
    let mut client = server.client().await;
    append(&mut client, "a", &[(0, batch(&["z"]))]).await;
    for version in 2..=4 {
        let mut check = async |index, current, asked, want: (i16, i32, i64)| {
            let partition = OffsetForLeaderPartition::default()
                .with_partition(index)
                .with_current_leader_epoch(current)
                .with_leader_epoch(asked);
            let topic = OffsetForLeaderTopic::default()
                .with_topic(topic_name("a"))
                .with_partitions(vec![partition]);
            let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
            let response = client.call(version, request).await;
            let end = &response.topics[0].partitions[0];
            assert_eq!((end.error_code, end.leader_epoch, end.end_offset), want, "{asked}");
        };
        check(0, -1, 1, (0, 1, 2)).await;
        check(0, 2, 2, (0, 2, 3)).await;
        check(0, -1, 3, (0, -1, -1)).await;
        check(0, -1, -1, (0, -1, -1)).await;
        check(0, 1, 1, (74, -1, -1)).await;
        check(9, -1, 1, (3, -1, -1)).await;
    }
    server.stop().await;
}
