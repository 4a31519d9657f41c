//! `CreateTopics`, `CreatePartitions`, `DeleteTopics` and
//! `DescribeTopicPartitions` over a socket.

use std::collections::BTreeMap;

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeTopicPartitionsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::client::{Client, Server};
use super::metadata::create;
use crate::KafkaOptions;
use crate::topic::topic_name;

fn topic(name: &str, partitions: i32, replicas: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replicas)
}

fn with_config(topic: CreatableTopic, name: &str, value: &str) -> CreatableTopic {
    let config = CreatableTopicConfig::default()
        .with_name(StrBytes::from_string(name.to_owned()))
        .with_value(Some(StrBytes::from_string(value.to_owned())));
    let mut topic = topic;
    topic.configs.push(config);
    topic
}

fn assigned(topic: CreatableTopic, brokers: &[&[i32]]) -> CreatableTopic {
    let assignments = brokers.iter().zip(0..).map(|(brokers, index)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(brokers.iter().map(|id| BrokerId(*id)).collect())
    });
    topic.with_assignments(assignments.collect())
}

async fn call(
    client: &mut Client,
    version: i16,
    topics: Vec<CreatableTopic>,
    validate_only: bool,
) -> Vec<CreatableTopicResult> {
    let request = CreateTopicsRequest::default()
        .with_topics(topics)
        .with_timeout_ms(1000)
        .with_validate_only(validate_only);
    client.call(version, request).await.topics
}

fn names(server: &Server) -> Vec<(String, u32)> {
    let tenant = aquifer_types::TenantName::default_tenant();
    let streams = server.store.list_streams(&tenant);
    streams.iter().map(|s| (s.path.name.to_string(), s.partitions)).collect()
}

#[tokio::test]
async fn topics_are_created_by_every_version() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    for version in 2..=7 {
        let name = format!("t{version}");
        let wanted = with_config(topic(&name, 3, 1), "retention.ms", "86400000");
        let valid = call(&mut client, version, vec![wanted.clone()], true).await;
        assert_eq!(valid[0].error_code, 0, "{version}");
        assert_eq!(names(&server).len(), version as usize - 2, "only validated");
        let created = &call(&mut client, version, vec![wanted.clone()], false).await[0];
        assert_eq!((created.error_code, &**created.name), (0, name.as_str()), "{version}");
        if version >= 5 {
            assert_eq!((created.num_partitions, created.replication_factor), (3, 1), "{version}");
            let configs = created.configs.as_ref().unwrap();
            let retention = configs.iter().find(|c| &*c.name == "retention.ms").unwrap();
            assert_eq!(retention.value.as_deref(), Some("86400000"));
            assert_eq!(retention.config_source, 1);
            let policy = configs.iter().find(|c| &*c.name == "cleanup.policy").unwrap();
            assert_eq!((policy.value.as_deref(), policy.config_source), (Some("delete"), 5));
        }
        if version >= 7 {
            assert!(!created.topic_id.is_nil());
        }
        let again = &call(&mut client, version, vec![wanted], false).await[0];
        assert_eq!(again.error_code, 36, "{version}");
    }
    let expected: Vec<_> = (2..=7).map(|version| (format!("t{version}"), 3)).collect();
    assert_eq!(names(&server), expected);
    server.stop().await;
}

#[tokio::test]
async fn more_topics_than_there_may_be_are_not_looked_at() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let topics: Vec<_> = (0..=10_000).map(|at| topic(&format!("t{at}"), 1, 1)).collect();
    let answers = call(&mut client, 7, topics, true).await;
    assert_eq!(answers.len(), 10_001);
    for answer in answers {
        assert_eq!(answer.error_code, 44);
        assert!(answer.configs.is_none_or(|configs| configs.is_empty()));
    }
    server.stop().await;
}

#[tokio::test]
async fn topics_that_cannot_be_are_refused() {
    let options = KafkaOptions { partitions_default: 5, ..KafkaOptions::default() };
    let server = Server::start(options).await;
    let mut client = server.client().await;
    let long = "a".repeat(250);
    let topics = [
        (topic("default", -1, -1), 0),
        (assigned(topic("assigned", -1, -1), &[&[1], &[1]]), 0),
        (topic("", 1, 1), 17),
        (topic("a/b", 1, 1), 17),
        (topic("..", 1, 1), 17),
        (topic(&long, 1, 1), 17),
        (topic("p0", 0, 1), 37),
        (topic("p-2", -2, 1), 37),
        (topic("many", 1_000_000, 1), 37),
        (topic("r0", 1, 0), 38),
        (topic("r3", 1, 3), 38),
        (assigned(topic("else", -1, -1), &[&[2]]), 39),
        (assigned(topic("two", -1, -1), &[&[1, 2]]), 39),
        (assigned(topic("none", -1, -1), &[&[]]), 39),
        (assigned(topic("both", 1, 1), &[&[1]]), 42),
        (topic("twice", 1, 1), 42),
        (topic("twice", 1, 1), 42),
        (with_config(topic("unknown", 1, 1), "no.such.setting", "1"), 40),
        (with_config(topic("wrong", 1, 1), "retention.ms", "soon"), 40),
        (with_config(topic("large", 1, 1), "max.message.bytes", "67108864"), 40),
        (with_config(topic("mir", 1, 1), "min.insync.replicas", "2"), 40),
    ];
    for validate_only in [true, false] {
        let asked = topics.iter().map(|(topic, _)| topic.clone()).collect();
        let results = call(&mut client, 5, asked, validate_only).await;
        let found: BTreeMap<&str, i16> =
            results.iter().map(|r| (&**r.name, r.error_code)).collect();
        let expected: BTreeMap<&str, i16> =
            topics.iter().map(|(topic, code)| (&**topic.name, *code)).collect();
        assert_eq!(found, expected);
        assert_eq!(results.len(), expected.len(), "one answer for a name");
        let unknown = results.iter().find(|r| &**r.name == "unknown").unwrap();
        assert!(unknown.error_message.as_ref().unwrap().contains("no.such.setting"));
    }
    let expected = [("assigned".to_owned(), 2), ("default".to_owned(), 5)];
    assert_eq!(names(&server), expected);
    server.stop().await;
}

#[tokio::test]
async fn topics_are_deleted_by_name_and_by_id() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    for version in 1..=5 {
        create(&server, "a", 1).await;
        let names = ["a", "absent", "a b"].map(topic_name).to_vec();
        let request = DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(9);
        let responses = client.call(version, request).await.responses;
        let found: Vec<_> = responses.iter().map(|r| r.error_code).collect();
        assert_eq!(found, [0, 3, 3], "{version}");
    }
    let (a, b) = (create(&server, "a", 1).await, create(&server, "b", 1).await);
    let state = |name: Option<&str>, id| {
        DeleteTopicState::default().with_name(name.map(topic_name)).with_topic_id(id)
    };
    let topics = vec![
        state(Some("a"), Uuid::nil()),
        state(None, b),
        state(None, Uuid::from_u128(9)),
        state(Some("a"), a),
    ];
    let request = DeleteTopicsRequest::default().with_topics(topics);
    let responses = client.call(6, request).await.responses;
    let found: Vec<_> = responses
        .iter()
        .map(|r| (r.error_code, r.name.as_ref().map_or("", |name| name), r.topic_id))
        .collect();
    assert_eq!(found, [(0, "a", a), (0, "b", b), (100, "", Uuid::from_u128(9)), (42, "a", a)]);
    assert_eq!(names(&server), []);
    server.stop().await;
}

#[tokio::test]
async fn partitions_are_added() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let more = |name: &str, count| {
        CreatePartitionsTopic::default()
            .with_name(topic_name(name))
            .with_count(count)
            .with_assignments(None)
    };
    let to = |brokers: &[&[i32]]| {
        let assignments = brokers.iter().map(|brokers| {
            let ids = brokers.iter().map(|id| BrokerId(*id)).collect();
            CreatePartitionsAssignment::default().with_broker_ids(ids)
        });
        Some(assignments.collect())
    };
    for version in 0..=3 {
        let name = format!("t{version}");
        create(&server, &name, 2).await;
        let check = async |client: &mut Client, topic, validate_only, expected| {
            let request = CreatePartitionsRequest::default()
                .with_topics(vec![topic])
                .with_validate_only(validate_only);
            let results = client.call(version, request).await.results;
            let codes: Vec<_> = results.iter().map(|result| result.error_code).collect();
            assert_eq!(codes, [expected], "{version}");
        };
        check(&mut client, more(&name, 2), false, 37).await;
        check(&mut client, more(&name, 1), false, 37).await;
        check(&mut client, more(&name, -1), false, 37).await;
        check(&mut client, more(&name, 1_000_000), false, 37).await;
        check(&mut client, more("absent", 5), false, 3).await;
        check(&mut client, more(&name, 3).with_assignments(to(&[&[2]])), false, 39).await;
        check(&mut client, more(&name, 3).with_assignments(to(&[&[1], &[1]])), false, 39).await;
        check(&mut client, more(&name, 4), true, 0).await;
        assert!(names(&server).contains(&(name.clone(), 2)), "only validated");
        check(&mut client, more(&name, 3).with_assignments(to(&[&[1]])), false, 0).await;
        check(&mut client, more(&name, 4), false, 0).await;
        assert!(names(&server).contains(&(name, 4)));
    }
    let twice = vec![more("t0", 9), more("t0", 10)];
    let request = CreatePartitionsRequest::default().with_topics(twice);
    let results = client.call(3, request).await.results;
    assert_eq!(results.iter().map(|r| r.error_code).collect::<Vec<_>>(), [42]);
    server.stop().await;
}

#[tokio::test]
async fn topics_are_described_in_pages() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    for (name, partitions) in [("a", 3), ("b", 1), ("c", 4)] {
        create(&server, name, partitions).await;
    }
    let mut pages = Vec::new();
    let mut cursor: Option<(TopicName, i32)> = None;
    loop {
        let asked = cursor.take().map(|(name, index)| {
            Cursor::default().with_topic_name(name).with_partition_index(index)
        });
        let request = DescribeTopicPartitionsRequest::default()
            .with_response_partition_limit(2)
            .with_cursor(asked);
        let response = client.call(0, request).await;
        let page: Vec<(String, Vec<i32>)> = response
            .topics
            .iter()
            .map(|topic| {
                assert_eq!(topic.error_code, 0);
                let indexes = topic.partitions.iter().map(|p| p.partition_index).collect();
                (topic.name.as_ref().unwrap().to_string(), indexes)
            })
            .collect();
        pages.push(page);
        match response.next_cursor {
            Some(next) => cursor = Some((next.topic_name, next.partition_index)),
            None => break,
        }
    }
    let page = |topics: &[(&str, &[i32])]| -> Vec<(String, Vec<i32>)> {
        topics.iter().map(|(name, indexes)| ((*name).to_owned(), indexes.to_vec())).collect()
    };
    assert_eq!(
        pages,
        [
            page(&[("a", &[0, 1])]),
            page(&[("a", &[2]), ("b", &[0])]),
            page(&[("c", &[0, 1])]),
            page(&[("c", &[2, 3])]),
        ]
    );
    let topics = ["c", "absent"].map(|name| TopicRequest::default().with_name(topic_name(name)));
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(topics.to_vec())
        .with_response_partition_limit(2000);
    let response = client.call(0, request).await;
    let found: Vec<_> =
        response.topics.iter().map(|t| (t.error_code, t.partitions.len())).collect();
    assert_eq!(found, [(3, 0), (0, 4)]);
    assert!(response.next_cursor.is_none());
    server.stop().await;
}
