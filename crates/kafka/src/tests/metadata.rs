//! `Metadata` over a socket.

use aquifer_stream::NewStream;
use aquifer_types::{StreamClass, StreamConfig, StreamName, StreamPath, TenantName};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{BrokerId, MetadataRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

use super::client::{self, Client, Server};
use crate::KafkaOptions;
use crate::broker::NODE_ID;

pub(super) async fn create(server: &Server, name: &str, partitions: u32) -> Uuid {
    let path = StreamPath::new(TenantName::default_tenant(), StreamName::new(name).unwrap());
    let (class, config) = (StreamClass::Durable, StreamConfig::default());
    let created = server.store.create_stream(NewStream { path, partitions, class, config }).await;
    created.unwrap().summary.id.0
}

fn topic(name: &str) -> MetadataRequestTopic {
    let name = TopicName(StrBytes::from_string(name.to_owned()));
    MetadataRequestTopic::default().with_name(Some(name))
}

fn name(topic: &MetadataResponseTopic) -> &str {
    topic.name.as_ref().map_or("", |name| name)
}

fn ask(topics: Vec<MetadataRequestTopic>) -> MetadataRequest {
    MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(true)
}

/// The topics of an answer, sorted by name, after what every answer has.
async fn topics(
    client: &mut Client,
    server: &Server,
    version: i16,
    request: MetadataRequest,
) -> Vec<MetadataResponseTopic> {
    let mut response = client.call(version, request).await;
    assert_eq!(response.brokers.len(), 1, "{version}");
    let broker = &response.brokers[0];
    assert_eq!(broker.node_id, BrokerId(NODE_ID), "{version}");
    assert_eq!(&*broker.host, "127.0.0.1", "{version}");
    assert_eq!(broker.port, i32::from(server.address().port()), "{version}");
    if version >= 1 {
        assert_eq!(response.controller_id, BrokerId(NODE_ID), "{version}");
    }
    if version >= 2 {
        assert_eq!(response.cluster_id.as_ref().unwrap().len(), 22, "{version}");
    }
    response.topics.sort_by(|a, b| a.name.cmp(&b.name));
    response.topics
}

#[tokio::test]
async fn every_version_names_topics_and_partitions() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let id = create(&server, "a", 3).await;
    create(&server, "b", 1).await;
    for version in 0..=13 {
        let all = if version == 0 { Some(Vec::new()) } else { None };
        let request = MetadataRequest::default().with_topics(all);
        let request = request.with_allow_auto_topic_creation(true);
        let found = topics(&mut client, &server, version, request).await;
        assert_eq!(found.iter().map(name).collect::<Vec<_>>(), ["a", "b"], "{version}");
        let found = topics(&mut client, &server, version, ask(vec![topic("a"), topic("a")])).await;
        assert_eq!(found.len(), 1, "{version}");
        let a = &found[0];
        assert_eq!((a.error_code, name(a), a.is_internal), (0, "a", false), "{version}");
        if version >= 10 {
            assert_eq!(a.topic_id, id, "{version}");
        }
        let indexes: Vec<_> = a.partitions.iter().map(|p| p.partition_index).collect();
        assert_eq!(indexes, [0, 1, 2], "{version}");
        for partition in &a.partitions {
            assert_eq!(partition.error_code, 0, "{version}");
            assert_eq!(partition.leader_id, BrokerId(NODE_ID), "{version}");
            assert_eq!(partition.replica_nodes, [BrokerId(NODE_ID)], "{version}");
            assert_eq!(partition.isr_nodes, [BrokerId(NODE_ID)], "{version}");
            assert!(partition.offline_replicas.is_empty(), "{version}");
            let epoch = if version >= 7 { 1 } else { -1 };
            assert_eq!(partition.leader_epoch, epoch, "{version}");
        }
        if version >= 10 {
            // Ids beside a name do not make more topics of it.
            let ids = (0..50).map(|id| topic("a").with_topic_id(Uuid::from_u128(id)));
            let found = topics(&mut client, &server, version, ask(ids.collect())).await;
            assert_eq!(found.len(), 1, "{version}");
        }
        if version >= 1 {
            let none = topics(&mut client, &server, version, ask(Vec::new())).await;
            assert_eq!(none, [], "{version}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_count_of_four_bytes_asks_for_all_topics() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    // As librdkafka 2 writes it: no topics, no flags, no tagged fields, and
    // three bytes more.
    let frame = client::frame(13, 1, &MetadataRequest::default().with_topics(None));
    let mut bytes = frame[..frame.len() - 4].to_vec();
    bytes.extend([0, 0, 0, 0, 1, 0, 0]);
    let length = i32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    client.stream.write_all(&bytes).await.unwrap();
    let (_, response) = client.receive::<MetadataRequest>(13).await.unwrap();
    assert_eq!(response.topics.iter().map(name).collect::<Vec<_>>(), ["a"]);
    server.stop().await;
}

#[tokio::test]
async fn topics_are_found_by_their_ids() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let id = create(&server, "a", 2).await;
    let unknown = Uuid::from_u128(7);
    for version in 12..=13 {
        // Java's client has an empty name beside an id.
        for beside in [None, Some(TopicName::default())] {
            let by_id =
                |id| MetadataRequestTopic::default().with_topic_id(id).with_name(beside.clone());
            let request = ask(vec![by_id(id), by_id(unknown)]);
            let found = topics(&mut client, &server, version, request).await;
            let found: Vec<_> = found.iter().map(|t| (t.error_code, name(t), t.topic_id)).collect();
            assert_eq!(found, [(100, "", unknown), (0, "a", id)]);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn topics_are_created_when_asked_after() {
    let options = KafkaOptions { partitions_default: 4, ..KafkaOptions::default() };
    let server = Server::start(options).await;
    let mut client = server.client().await;
    // Before version 4 a client could not say that it wants none created.
    for version in [0, 3, 4, 13] {
        let new = format!("new-{version}");
        let found = topics(&mut client, &server, version, ask(vec![topic(&new)])).await;
        assert_eq!((found[0].error_code, found[0].partitions.len()), (0, 4), "{version}");
        let bad = topics(&mut client, &server, version, ask(vec![topic("a b"), topic("")])).await;
        assert_eq!(bad.iter().map(|t| t.error_code).collect::<Vec<_>>(), [17, 17], "{version}");
    }
    for version in 4..=13 {
        let request = ask(vec![topic("absent")]).with_allow_auto_topic_creation(false);
        let found = topics(&mut client, &server, version, request).await;
        assert_eq!((found[0].error_code, name(&found[0])), (3, "absent"), "{version}");
    }
    // The switch is the server's.
    let options = KafkaOptions { auto_create_topics: false, ..KafkaOptions::default() };
    let first = client.call(9, ask(Vec::new())).await.cluster_id;
    let server = server.restart(options).await;
    let mut client = server.client().await;
    let found = topics(&mut client, &server, 13, ask(vec![topic("absent")])).await;
    assert_eq!(found[0].error_code, 3);
    let found = topics(&mut client, &server, 13, ask(vec![topic("new-13")])).await;
    assert_eq!(found[0].partitions[0].leader_epoch, 2, "a start begins an epoch");
    assert_eq!(client.call(9, ask(Vec::new())).await.cluster_id, first);
    server.stop().await;
}

#[tokio::test]
async fn operations_are_told_where_asked_for() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    for version in 8..=13 {
        let request = ask(vec![topic("a")]).with_include_topic_authorized_operations(true);
        let found = topics(&mut client, &server, version, request).await;
        assert_eq!(found[0].topic_authorized_operations, 0b1101_1111_1000, "{version}");
    }
    let request = ask(Vec::new()).with_include_cluster_authorized_operations(true);
    assert_eq!(client.call(10, request).await.cluster_authorized_operations, 0b1_1111_1010_0000);
    assert_eq!(client.call(10, ask(Vec::new())).await.cluster_authorized_operations, i32::MIN);
    server.stop().await;
}
