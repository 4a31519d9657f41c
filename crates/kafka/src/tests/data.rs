//! `Produce`, `Fetch` and `ListOffsets` over a socket.

use std::time::Duration;

use aquifer_stream::NewStream;
use aquifer_types::batch::split_batches;
use aquifer_types::{
    Batch, BatchBuilder, CleanupPolicy, Compression, ProducerEpoch, ProducerId, Record, Sequence,
    StreamClass, StreamConfig, StreamName, StreamPath, TenantName, Timestamp, TimestampType,
};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, ProduceRequest,
    ProduceResponse, ResponseHeader,
};
use kafka_protocol::protocol::Decodable as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use uuid::Uuid;

use super::client::{Client, Server};
use super::metadata::create;
use crate::topic::topic_name;
use crate::{Action, Decision, KafkaOptions, Principal, Resource};

/// A batch with these values, a millisecond apart from 1,000 on.
pub(super) fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::default();
    for (at, value) in values.iter().enumerate() {
        builder.push(Timestamp(1_000 + at as i64), Some(b"k"), &[], Some(value.as_bytes()));
    }
    builder.finish().bytes().clone()
}

/// A producer's batch of one record.
fn sequenced(producer: i64, sequence: i32) -> Bytes {
    let producer = ProducerId(producer);
    let mut builder =
        BatchBuilder::default().producer(producer, ProducerEpoch(0), Sequence(sequence));
    builder.push(Timestamp(1), None, &[], Some(sequence.to_string().as_bytes()));
    builder.finish().bytes().clone()
}

/// A request for partitions of one topic, by id from version 13 on.
pub(super) fn produce(version: i16, name: &str, id: Uuid, data: &[(i32, Bytes)]) -> ProduceRequest {
    let partitions = data.iter().map(|(index, records)| {
        PartitionProduceData::default().with_index(*index).with_records(Some(records.clone()))
    });
    let topic = TopicProduceData::default().with_partition_data(partitions.collect());
    let topic = match version {
        13.. => topic.with_topic_id(id),
        _ => topic.with_name(topic_name(name)),
    };
    ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![topic])
}

/// Appends to partitions, all of which take it.
pub(super) async fn append(client: &mut Client, name: &str, data: &[(i32, Bytes)]) {
    let response = client.call(9, produce(9, name, Uuid::nil(), data)).await;
    for partition in answers(&response) {
        assert_eq!(partition.error_code, 0, "{partition:?}");
    }
}

fn answers(response: &ProduceResponse) -> Vec<&PartitionProduceResponse> {
    response.responses.iter().flat_map(|topic| &topic.partition_responses).collect()
}

/// A fetch of partitions from offsets, without a session.
pub(super) fn fetch(version: i16, name: &str, id: Uuid, from: &[(i32, i64)]) -> FetchRequest {
    let partitions = from.iter().map(|(index, offset)| {
        FetchPartition::default()
            .with_partition(*index)
            .with_fetch_offset(*offset)
            .with_partition_max_bytes(1 << 20)
    });
    let topic = FetchTopic::default().with_partitions(partitions.collect());
    let topic = match version {
        13.. => topic.with_topic_id(id),
        _ => topic.with_topic(topic_name(name)),
    };
    FetchRequest::default()
        .with_max_bytes(i32::MAX)
        .with_min_bytes(1)
        .with_max_wait_ms(60_000)
        .with_session_epoch(-1)
        .with_topics(if from.is_empty() { Vec::new() } else { vec![topic] })
}

pub(super) fn found(response: &FetchResponse) -> Vec<&PartitionData> {
    response.responses.iter().flat_map(|topic| &topic.partitions).collect()
}

pub(super) fn records(partition: &PartitionData) -> Vec<Record> {
    let batches = split_batches(partition.records.clone().unwrap_or_default()).unwrap();
    let batches = batches.into_iter().map(|bytes| Batch::read(bytes).unwrap());
    batches.flat_map(|batch| batch.to_records(1 << 20).unwrap()).collect()
}

fn values(partition: &PartitionData) -> Vec<String> {
    let value = |record: Record| String::from_utf8(record.value.unwrap().to_vec()).unwrap();
    records(partition).into_iter().map(value).collect()
}

/// What is at a time, or at what stands for one: error, offset, timestamp.
pub(super) async fn listed(
    client: &mut Client,
    name: &str,
    index: i32,
    timestamp: i64,
) -> (i16, i64, i64) {
    let partition =
        ListOffsetsPartition::default().with_partition_index(index).with_timestamp(timestamp);
    let topic =
        ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    let mut bytes = client.call_beyond(11, 10, &request).await;
    let response = ListOffsetsResponse::decode(&mut bytes, 10).unwrap();
    let partition = &response.topics[0].partitions[0];
    (partition.error_code, partition.offset, partition.timestamp)
}

#[tokio::test]
async fn every_version_takes_batches_and_gives_them_back() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let id = create(&server, "a", 2).await;
    let mut next = 0;
    for version in 3..=13 {
        let request = produce(version, "a", id, &[(1, batch(&["x", "y"])), (7, batch(&["z"]))]);
        let response = client.call(version, request).await;
        let partitions = answers(&response);
        assert_eq!((partitions[0].error_code, partitions[0].base_offset), (0, next), "{version}");
        assert_eq!(partitions[0].log_append_time_ms, -1, "{version}");
        assert_eq!((partitions[1].error_code, partitions[1].base_offset), (3, -1), "{version}");
        next += 2;
    }
    for version in 4..=18 {
        for isolation in [0, 1] {
            let request = fetch(version, "a", id, &[(0, 0), (1, next - 1), (9, 0)]);
            let response = client.call(version, request.with_isolation_level(isolation)).await;
            let partitions = found(&response);
            assert_eq!(partitions.len(), 3, "{version}");
            assert_eq!(partitions[0].high_watermark, 0, "{version}");
            assert_eq!(partitions[1].high_watermark, next, "{version}");
            assert_eq!(partitions[1].last_stable_offset, next, "{version}");
            assert_eq!(partitions[1].aborted_transactions.is_some(), isolation == 1, "{version}");
            assert_eq!(partitions[2].error_code, 3, "{version}");
            // A position inside a batch gives the whole batch.
            assert_eq!(values(partitions[1]), ["x", "y"], "{version}");
            let offsets: Vec<_> = records(partitions[1]).iter().map(|r| r.offset.get()).collect();
            assert_eq!(offsets, [next - 2, next - 1], "{version}");
        }
    }
    for version in 1..=10 {
        let at = async |client: &mut Client, timestamp: i64| {
            let partition =
                ListOffsetsPartition::default().with_partition_index(1).with_timestamp(timestamp);
            let topic = ListOffsetsTopic::default()
                .with_name(topic_name("a"))
                .with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_topics(vec![topic]);
            let response = client.call(version, request).await;
            let partition = &response.topics[0].partitions[0];
            let epoch = if version >= 4 && partition.offset >= 0 { 1 } else { -1 };
            assert_eq!(partition.leader_epoch, epoch, "{version}");
            (partition.error_code, partition.offset, partition.timestamp)
        };
        let check = async |client: &mut Client, timestamp: i64, found: (i16, i64, i64)| {
            assert_eq!(at(client, timestamp).await, found, "{version}: {timestamp}");
        };
        check(&mut client, -1, (0, next, -1)).await;
        check(&mut client, -2, (0, 0, -1)).await;
        check(&mut client, 1_000, (0, 0, 1_000)).await;
        check(&mut client, 1_001, (0, 1, 1_001)).await;
        check(&mut client, 1_002, (0, -1, -1)).await;
        let known = |min, found| if version < min { (35, -1, -1) } else { found };
        check(&mut client, -3, known(7, (0, 1, 1_001))).await;
        check(&mut client, -4, known(8, (0, 0, -1))).await;
        check(&mut client, -5, known(9, (0, -1, -1))).await;
        check(&mut client, -6, (35, -1, -1)).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_refused_partition_fails_no_other_and_says_why() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    let mut torn = batch(&["torn"]).to_vec();
    *torn.last_mut().unwrap() ^= 1;
    let two = [batch(&["one"]), batch(&["two"])].concat();
    let mut zstd = BatchBuilder::default().compression(Compression::Zstd);
    zstd.push(Timestamp(1), None, &[], Some(b"z"));
    let zstd = zstd.finish().bytes().clone();
    let large = batch(&["x".repeat((1 << 20) + 1).as_str()]);
    let check = async |client: &mut Client, version, records: Bytes, code: i16, part: &str| {
        let data = [(0, batch(&["good"])), (0, records), (0, batch(&["good"]))];
        let response = client.call(version, produce(version, "a", Uuid::nil(), &data)).await;
        let partitions = answers(&response);
        let codes: Vec<_> = partitions.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [0, code, 0], "{part}");
        assert_eq!(partitions[2].base_offset, partitions[0].base_offset + 1);
        let why = partitions[1].error_message.as_ref().map_or("", |why| why);
        assert!(why.contains(part), "{why}");
    };
    check(&mut client, 8, torn.clone().into(), 2, "CRC-32C").await;
    check(&mut client, 7, torn.into(), 2, "").await;
    check(&mut client, 9, two.into(), 87, "this one has more").await;
    check(&mut client, 9, Bytes::new(), 87, "this one has none").await;
    check(&mut client, 9, large, 10, "record_bytes_max").await;
    check(&mut client, 6, zstd, 76, "").await;

    let mut all = produce(9, "a", Uuid::nil(), &[(0, batch(&["x"]))]);
    all.acks = 2;
    assert_eq!(answers(&client.call(9, all.clone()).await)[0].error_code, 21);
    // Without an answer to put it into, an error closes the connection.
    all.acks = 0;
    client.send(9, &all).await;
    append(&mut client, "a", &[(0, batch(&["seen"]))]).await;
    all.topic_data[0].name = topic_name("absent");
    client.send(9, &all).await;
    assert!(client.is_closed().await);
    server.stop().await;
}

/// The next answer, which is to the request of this number.
async fn produced(reader: &mut OwnedReadHalf, number: i32) -> ProduceResponse {
    let length = usize::try_from(reader.read_i32().await.unwrap()).unwrap();
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).await.unwrap();
    let mut bytes = Bytes::from(bytes);
    assert_eq!(ResponseHeader::decode(&mut bytes, 1).unwrap().correlation_id, number);
    ProduceResponse::decode(&mut bytes, 9).unwrap()
}

#[tokio::test]
async fn pipelined_requests_keep_their_order() {
    const REQUESTS: i32 = 400;
    let options = KafkaOptions { pipeline_max: 32, ..KafkaOptions::default() };
    let server = Server::start(options).await;
    create(&server, "a", 3).await;
    let producers = (1..=4).map(|producer| {
        let client = server.client();
        async move {
            let Client { stream, .. } = client.await;
            let (mut reader, mut writer) = stream.into_split();
            let send = async {
                for sequence in 0..REQUESTS {
                    let data: Vec<_> =
                        (0..3).map(|index| (index, sequenced(producer, sequence))).collect();
                    let request = produce(9, "a", Uuid::nil(), &data);
                    let frame = super::client::frame(9, sequence, &request);
                    writer.write_all(&frame).await.unwrap();
                }
            };
            let receive = async {
                for sequence in 0..REQUESTS {
                    let response = produced(&mut reader, sequence).await;
                    for partition in answers(&response) {
                        assert_eq!(partition.error_code, 0, "{producer} {sequence}");
                    }
                }
            };
            tokio::join!(send, receive);
        }
    });
    futures::future::join_all(producers).await;
    let mut client = server.client().await;
    let response = client.call(12, fetch(12, "a", Uuid::nil(), &[(0, 0), (1, 0), (2, 0)])).await;
    for partition in found(&response) {
        assert_eq!(partition.high_watermark, i64::from(4 * REQUESTS));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_fetch_waits_for_what_it_asks_for() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let mut producer = server.client().await;
    create(&server, "a", 256).await;
    let all: Vec<_> = (0..256).map(|index| (index, 0)).collect();
    // It is woken by one of many partitions, long before its minute is over.
    client.send(12, &fetch(12, "a", Uuid::nil(), &all)).await;
    append(&mut producer, "a", &[(200, batch(&["x"]))]).await;
    let (_, response) = client.receive::<FetchRequest>(12).await.unwrap();
    let partitions = found(&response);
    assert_eq!(partitions.len(), 256);
    assert_eq!(values(partitions[200]), ["x"]);
    // It goes on waiting until there is enough.
    let mut request = fetch(12, "a", Uuid::nil(), &all);
    request.min_bytes = 3 * batch(&["x"]).len() as i32;
    client.send(12, &request).await;
    append(&mut producer, "a", &[(3, batch(&["y"]))]).await;
    append(&mut producer, "a", &[(4, batch(&["z"]))]).await;
    let (_, response) = client.receive::<FetchRequest>(12).await.unwrap();
    let total: usize = found(&response).into_iter().map(|of| values(of).len()).sum();
    assert_eq!(total, 3);
    // Its time is over at once where it has none.
    request.max_wait_ms = 0;
    request.min_bytes = i32::MAX;
    assert_eq!(found(&client.call(12, request).await).len(), 256);
    // A deleted stream wakes it, too.
    let from: Vec<_> = all.iter().map(|(index, _)| (*index, 1)).collect();
    let mut request = fetch(12, "a", Uuid::nil(), &from[3..5]);
    request.min_bytes = i32::MAX;
    client.send(12, &request).await;
    append(&mut producer, "a", &[(4, batch(&["woken"]))]).await;
    let path = server.store.list_streams(&TenantName::default_tenant());
    server.store.delete_stream(&path[0].path).await.unwrap();
    let (_, response) = client.receive::<FetchRequest>(12).await.unwrap();
    // One partition after another is gone; the first one wakes it.
    let codes: Vec<_> = found(&response).iter().map(|partition| partition.error_code).collect();
    assert!(codes.contains(&3), "{codes:?}");
    server.stop().await;
}

#[tokio::test]
async fn sizes_are_kept_and_the_first_batch_is_answered_all_the_same() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 2).await;
    let value = "x".repeat(1_000);
    for _ in 0..4 {
        append(&mut client, "a", &[(0, batch(&[&value])), (1, batch(&[&value]))]).await;
    }
    let mut check = async |max_bytes, partition_max, counts: [usize; 2]| {
        let mut request = fetch(12, "a", Uuid::nil(), &[(0, 0), (1, 0)]);
        request.max_bytes = max_bytes;
        for partition in &mut request.topics[0].partitions {
            partition.partition_max_bytes = partition_max;
        }
        let response = client.call(12, request).await;
        let got: Vec<_> = found(&response).into_iter().map(|of| values(of).len()).collect();
        assert_eq!(got, counts, "{max_bytes} {partition_max}");
    };
    check(i32::MAX, 1 << 20, [4, 4]).await;
    check(i32::MAX, 2_500, [2, 2]).await;
    check(i32::MAX, 1, [1, 0]).await;
    check(1, 1 << 20, [1, 0]).await;
    check(0, 0, [1, 0]).await;
    check(5_500, 1 << 20, [4, 1]).await;
    server.stop().await;
}

#[tokio::test]
async fn positions_and_epochs_are_checked() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    append(&mut client, "a", &[(0, batch(&["x", "y"]))]).await;
    let mut check = async |offset, epoch, code| {
        let mut request = fetch(12, "a", Uuid::nil(), &[(0, offset)]);
        request.max_wait_ms = 0;
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let response = client.call(12, request).await;
        assert_eq!(found(&response)[0].error_code, code, "{offset} {epoch}");
    };
    check(0, -1, 0).await;
    check(2, 1, 0).await;
    check(3, -1, 1).await;
    check(-1, -1, 1).await;
    check(0, 0, 74).await;
    check(0, 2, 75).await;
    server.stop().await;
}

#[tokio::test]
async fn sessions_tell_only_what_changed() {
    let options = KafkaOptions { fetch_sessions_max: 1, ..KafkaOptions::default() };
    let server = Server::start(options).await;
    let mut client = server.client().await;
    let id = create(&server, "a", 3).await;
    let start = |from: &[(i32, i64)]| {
        let mut request = fetch(13, "a", id, from);
        (request.session_epoch, request.max_wait_ms) = (0, 0);
        request
    };
    let first = client.call(13, start(&[(0, 0), (1, 0), (2, 0)])).await;
    assert_ne!(first.session_id, 0);
    assert_eq!(found(&first).len(), 3);
    // There is no room for a second one, and its client goes on without.
    assert_eq!(client.call(13, start(&[(0, 0)])).await.session_id, 0);
    let next = |epoch, from: &[(i32, i64)]| {
        let mut request = fetch(13, "a", id, from);
        request.session_id = first.session_id;
        (request.session_epoch, request.max_wait_ms) = (epoch, 0);
        request
    };
    assert_eq!(found(&client.call(13, next(1, &[])).await).len(), 0);
    append(&mut client, "a", &[(1, batch(&["x"])), (2, batch(&["y"]))]).await;
    let news = client.call(13, next(2, &[])).await;
    let got: Vec<_> = found(&news).iter().map(|of| (of.partition_index, values(of))).collect();
    assert_eq!(got, [(1, vec!["x".to_owned()]), (2, vec!["y".to_owned()])]);
    // What it has moved on in is told no more, and what it forgets neither.
    let forgotten = ForgottenTopic::default().with_topic_id(id).with_partitions(vec![2]);
    let request = next(3, &[(1, 1)]).with_forgotten_topics_data(vec![forgotten]);
    assert_eq!(found(&client.call(13, request).await).len(), 0);
    // Epochs count up, whoever asks twice begins anew.
    assert_eq!(client.call(13, next(3, &[])).await.error_code, 71);
    assert_eq!(client.call(12, fetch_in(12, first.session_id, 4)).await.error_code, 106);
    assert_eq!(client.call(13, fetch_in(13, first.session_id ^ 1, 4)).await.error_code, 70);
    // A full request with the id takes the session's place.
    let mut again = start(&[(0, 0)]);
    again.session_id = first.session_id;
    let second = client.call(13, again).await.session_id;
    assert!(second != 0 && second != first.session_id);
    assert_eq!(client.call(13, fetch_in(13, first.session_id, 4)).await.error_code, 70);
    server.stop().await;
}

fn fetch_in(version: i16, session_id: i32, epoch: i32) -> FetchRequest {
    let mut request = fetch(version, "", Uuid::nil(), &[]);
    (request.session_id, request.session_epoch, request.max_wait_ms) = (session_id, epoch, 0);
    request
}

#[tokio::test]
async fn a_full_answer_does_not_wait_for_more() {
    let options = KafkaOptions { fetch_bytes_max: 64 << 10, ..KafkaOptions::default() };
    let server = Server::start(options).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    // Two of them do not fit, one does not fill the answer.
    let value = "x".repeat(40_000);
    for _ in 0..3 {
        append(&mut client, "a", &[(0, batch(&[&value]))]).await;
    }
    let mut request = fetch(12, "a", Uuid::nil(), &[(0, 0)]);
    (request.min_bytes, request.max_wait_ms) = (i32::MAX, 300_000);
    let answer = tokio::time::timeout(Duration::from_secs(20), client.call(12, request)).await;
    assert_eq!(records(found(&answer.unwrap())[0]).len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_a_session_is_answered_at_once() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    let mut request = fetch(12, "a", Uuid::nil(), &[(0, 0)]);
    (request.session_epoch, request.max_wait_ms) = (0, 0);
    let session_id = client.call(12, request).await.session_id;
    assert_ne!(session_id, 0);
    let mut request = fetch(12, "a", Uuid::nil(), &[]);
    (request.session_id, request.session_epoch, request.max_wait_ms) = (session_id, -1, 300_000);
    let answer = tokio::time::timeout(Duration::from_secs(20), client.call(12, request)).await;
    assert_eq!((answer.as_ref().unwrap().error_code, answer.unwrap().session_id), (0, 0));
    server.stop().await;
}

#[tokio::test]
async fn a_request_is_decompressed_up_to_a_limit() {
    let options =
        KafkaOptions { produce_decompressed_bytes_max: 1 << 20, ..KafkaOptions::default() };
    let server = Server::start(options).await;
    let mut client = server.client().await;
    create(&server, "a", 3).await;
    let mut builder = BatchBuilder::default().compression(Compression::Zstd);
    builder.push(Timestamp(1), None, &[], Some(&vec![0; 600_000]));
    let small = builder.finish().bytes().clone();
    assert!(small.len() < 1_000);
    let data: Vec<_> = (0..3).map(|index| (index, small.clone())).collect();
    let response = client.call(9, produce(9, "a", Uuid::nil(), &data)).await;
    let codes: Vec<_> = answers(&response).iter().map(|of| of.error_code).collect();
    assert_eq!(codes, [0, 10, 10]);
    let why = answers(&response)[2].error_message.as_deref().unwrap();
    assert!(why.contains("produce_decompressed_bytes_max"), "{why}");
    // Each request begins anew.
    append(&mut client, "a", &data[1..2]).await;
    server.stop().await;
}

#[tokio::test]
async fn a_streams_rules_hold_for_its_batches() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let create = async |name: &str, config: StreamConfig| {
        let path = StreamPath::new(TenantName::default_tenant(), StreamName::new(name).unwrap());
        let (partitions, class) = (1, StreamClass::Durable);
        server.store.create_stream(NewStream { path, partitions, class, config }).await.unwrap();
    };
    let timestamp_type = TimestampType::Append;
    create("server-time", StreamConfig { timestamp_type, ..StreamConfig::default() }).await;
    let cleanup_policy = CleanupPolicy::Compact;
    create("compact", StreamConfig { cleanup_policy, ..StreamConfig::default() }).await;

    let request = produce(9, "server-time", Uuid::nil(), &[(0, batch(&["x", "y"]))]);
    let response = client.call(9, request).await;
    let time = answers(&response)[0].log_append_time_ms;
    assert!(time > 1_700_000_000_000, "{time}");
    let response = client.call(12, fetch(12, "server-time", Uuid::nil(), &[(0, 0)])).await;
    let times: Vec<_> = records(found(&response)[0]).iter().map(|r| r.timestamp.get()).collect();
    assert_eq!(times, [time, time]);

    append(&mut client, "compact", &[(0, batch(&["x"]))]).await;
    let mut keyless = BatchBuilder::default();
    keyless.push(Timestamp(1), Some(b"k"), &[], Some(b"v"));
    keyless.push(Timestamp(1), None, &[], Some(b"v"));
    keyless.push(Timestamp(1), Some(b"k"), &[], Some(b"v"));
    keyless.push(Timestamp(1), None, &[], Some(b"v"));
    let data = [(0, keyless.finish().bytes().clone())];
    let response = client.call(9, produce(9, "compact", Uuid::nil(), &data)).await;
    let refused = answers(&response)[0];
    assert_eq!((refused.error_code, refused.base_offset), (87, -1));
    let blamed: Vec<_> = refused.record_errors.iter().map(|record| record.batch_index).collect();
    assert_eq!(blamed, [1, 3]);
    server.stop().await;
}

#[tokio::test]
async fn a_producers_repetition_is_stored_once() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    for (sequence, code, offset) in [(0, 0, 0), (1, 0, 1), (1, 0, 1), (0, 0, 0), (3, 45, -1)] {
        let data = [(0, sequenced(7, sequence))];
        let response = client.call(9, produce(9, "a", Uuid::nil(), &data)).await;
        let answer = answers(&response)[0];
        assert_eq!((answer.error_code, answer.base_offset), (code, offset), "{sequence}");
    }
    assert_eq!(listed(&mut client, "a", 0, -1).await, (0, 2, -1));
    server.stop().await;
}

/// Denies what begins with this.
#[derive(Debug)]
struct Denies(&'static str);

impl crate::Authorizer for Denies {
    fn decide(&self, _: &Principal, _: Action, resource: Resource<'_>) -> Decision {
        match resource {
            Resource::Stream(name) if name.starts_with(self.0) => Decision::Deny,
            _ => Decision::Allow,
        }
    }
}

#[tokio::test]
async fn what_is_denied_is_neither_written_nor_read() {
    let denies = std::sync::Arc::new(Denies("secret"));
    let server = Server::start_with(KafkaOptions::default(), denies).await;
    let mut client = server.client().await;
    let id = create(&server, "secret", 1).await;
    for version in [9, 13] {
        let request = produce(version, "secret", id, &[(0, batch(&["x"]))]);
        assert_eq!(answers(&client.call(version, request).await)[0].error_code, 29, "{version}");
        let response = client.call(version, fetch(version, "secret", id, &[(0, 0)])).await;
        assert_eq!(found(&response)[0].error_code, 29, "{version}");
    }
    assert_eq!(listed(&mut client, "secret", 0, -1).await, (29, -1, -1));
    server.stop().await;
}
