//! What is told of the broker, its disks, its replicas and its access lists.

use std::sync::Arc;

use bytes::BytesMut;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, BrokerId, CreateAclsRequest,
    CreateTopicsRequest, DeleteAclsRequest, DeleteTopicsRequest, DescribeAclsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeLogDirsRequest, ElectLeadersRequest,
    ListConfigResourcesRequest, ListPartitionReassignmentsRequest, MetadataRequest,
};
use kafka_protocol::protocol::{Encodable as _, StrBytes};
use uuid::Uuid;

use super::client::Server;
use super::metadata::create;
use crate::topic::topic_name;
use crate::{Action, Authorizer, Decision, KafkaOptions, Principal, Resource};

#[tokio::test]
async fn the_cluster_is_described() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let metadata = client.call(13, MetadataRequest::default().with_topics(Some(vec![]))).await;
    for version in 0..=2 {
        let request =
            DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
        let found = client.call(version, request).await;
        assert_eq!(found.error_code, 0, "{version}");
        assert_eq!(Some(&found.cluster_id), metadata.cluster_id.as_ref(), "{version}");
        assert_eq!(found.controller_id, BrokerId(1), "{version}");
        assert_eq!(found.brokers.len(), 1, "{version}");
        assert_eq!(found.brokers[0].port, i32::from(server.address().port()), "{version}");
        assert_ne!(found.cluster_authorized_operations, i32::MIN, "{version}");
    }
    for version in 1..=2 {
        let request = DescribeClusterRequest::default().with_endpoint_type(2);
        assert_eq!(client.call(version, request).await.error_code, 114, "{version}");
        let request = DescribeClusterRequest::default().with_endpoint_type(7);
        assert_eq!(client.call(version, request).await.error_code, 115, "{version}");
    }
    server.stop().await;
}

#[tokio::test]
async fn log_directories_tell_what_partitions_take() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 2).await;
    create(&server, "b", 1).await;
    for version in 1..=4 {
        let all = client.call(version, DescribeLogDirsRequest::default().with_topics(None)).await;
        let directory = &all.results[0];
        assert_eq!((all.results.len(), directory.error_code), (1, 0), "{version}");
        assert!(directory.log_dir.ends_with("data"), "{version}");
        let found: Vec<_> =
            directory.topics.iter().map(|t| (&**t.name, t.partitions.len())).collect();
        assert_eq!(found, [("a", 2), ("b", 1)], "{version}");
        let asked = [("a", vec![1, 5]), ("absent", vec![0])].map(|(name, partitions)| {
            DescribableLogDirTopic::default()
                .with_topic(topic_name(name))
                .with_partitions(partitions)
        });
        let request = DescribeLogDirsRequest::default().with_topics(Some(asked.to_vec()));
        let some = client.call(version, request).await;
        let topics = &some.results[0].topics;
        assert_eq!(topics.len(), 1, "{version}");
        let partitions: Vec<_> =
            topics[0].partitions.iter().map(|p| (p.partition_index, p.partition_size)).collect();
        assert_eq!(partitions, [(1, 0)], "{version}");
    }
    server.stop().await;
}

/// Version 5 ends each directory in a flag, in front of its tagged fields.
#[tokio::test]
async fn a_log_directory_is_not_cordoned() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 2).await;
    let request = DescribeLogDirsRequest::default().with_topics(None);
    let known = client.call(4, request.clone()).await;
    let mut expected = BytesMut::new();
    known.encode(&mut expected, 4).unwrap();
    expected.truncate(expected.len() - 2);
    expected.extend_from_slice(&[0, 0, 0]);
    assert_eq!(client.call_beyond(5, 4, &request).await, expected);
    server.stop().await;
}

#[tokio::test]
async fn there_are_no_access_lists() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    for version in 1..=3 {
        let request = DescribeAclsRequest::default()
            .with_resource_type_filter(1)
            .with_pattern_type_filter(1)
            .with_operation(1)
            .with_permission_type(1);
        assert_eq!(client.call(version, request).await.error_code, 54, "{version}");
        let creations = vec![AclCreation::default(), AclCreation::default()];
        let request = CreateAclsRequest::default().with_creations(creations);
        let results = client.call(version, request).await.results;
        assert_eq!(results.iter().map(|r| r.error_code).collect::<Vec<_>>(), [54, 54]);
        let request = DeleteAclsRequest::default().with_filters(vec![DeleteAclsFilter::default()]);
        let results = client.call(version, request).await.filter_results;
        assert_eq!(results.iter().map(|r| r.error_code).collect::<Vec<_>>(), [54]);
    }
    server.stop().await;
}

#[tokio::test]
async fn nothing_moves_between_brokers() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 2).await;
    for version in 0..=2 {
        let topics =
            TopicPartitions::default().with_topic(topic_name("a")).with_partitions(vec![0, 2]);
        let request = ElectLeadersRequest::default().with_topic_partitions(Some(vec![topics]));
        let response = client.call(version, request).await;
        let partitions = &response.replica_election_results[0].partition_result;
        let found: Vec<_> = partitions.iter().map(|p| (p.partition_id, p.error_code)).collect();
        assert_eq!((response.error_code, found), (0, vec![(0, 84), (2, 3)]), "{version}");
        let all = ElectLeadersRequest::default().with_topic_partitions(None);
        assert_eq!(client.call(version, all).await.replica_election_results, [], "{version}");
    }
    for version in 0..=1 {
        let to = |index, brokers: Option<&[i32]>| {
            let brokers = brokers.map(|ids| ids.iter().map(|id| BrokerId(*id)).collect());
            ReassignablePartition::default().with_partition_index(index).with_replicas(brokers)
        };
        let partitions =
            vec![to(0, Some(&[1])), to(1, Some(&[1, 2])), to(1, None), to(2, Some(&[1]))];
        let topic =
            ReassignableTopic::default().with_name(topic_name("a")).with_partitions(partitions);
        let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let response = client.call(version, request).await;
        let found: Vec<_> = response.responses[0].partitions.iter().map(|p| p.error_code).collect();
        assert_eq!(found, [0, 39, 85, 3], "{version}");
    }
    let request = ListPartitionReassignmentsRequest::default().with_topics(None);
    let response = client.call(0, request).await;
    assert_eq!((response.error_code, response.topics.len()), (0, 0));
    server.stop().await;
}

#[tokio::test]
async fn replicas_stay_in_their_directory() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    let described = client.call(4, DescribeLogDirsRequest::default().with_topics(None)).await;
    let here = described.results[0].log_dir.clone();
    for version in 1..=2 {
        let to = |path: &StrBytes| {
            let topic = AlterReplicaLogDirTopic::default().with_name(topic_name("a"));
            let topics = vec![topic.with_partitions(vec![0, 1])];
            AlterReplicaLogDir::default().with_path(path.clone()).with_topics(topics)
        };
        let dirs = vec![to(&here), to(&StrBytes::from_static_str("/elsewhere"))];
        let request = AlterReplicaLogDirsRequest::default().with_dirs(dirs);
        let results = client.call(version, request).await.results;
        let codes = |at: usize| -> Vec<i16> {
            results[at].partitions.iter().map(|partition| partition.error_code).collect()
        };
        assert_eq!((codes(0), codes(1)), (vec![0, 3], vec![57, 3]), "{version}");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_has_settings_is_listed() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    create(&server, "a", 1).await;
    for (version, kinds, expected) in [
        (0, &[][..], &[][..]),
        (1, &[], &[(2, "a"), (4, "1")]),
        (1, &[4], &[(4, "1")]),
        (1, &[2, 16, 32, 8], &[(2, "a")]),
    ] {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
        let response = client.call(version, request).await;
        let found = response.config_resources.iter();
        let found: Vec<_> = found.map(|of| (of.resource_type, &*of.resource_name)).collect();
        assert_eq!((response.error_code, &*found), (0, expected), "{version} {kinds:?}");
    }
    let unknown = ListConfigResourcesRequest::default().with_resource_types(vec![2, 3]);
    assert_eq!(client.call(1, unknown).await.error_code, 35);
    server.stop().await;
}

/// Allows to see the stream `seen`, and nothing else.
#[derive(Debug)]
struct OnlySeen;

impl Authorizer for OnlySeen {
    fn decide(&self, _: &Principal, action: Action, resource: Resource<'_>) -> Decision {
        match (action, resource) {
            (Action::Describe, Resource::Stream("seen")) => Decision::Allow,
            _ => Decision::Deny,
        }
    }
}

#[tokio::test]
async fn what_is_not_allowed_is_not_done_and_not_told() {
    let server = Server::start_with(KafkaOptions::default(), Arc::new(OnlySeen)).await;
    let mut client = server.client().await;
    let seen = create(&server, "seen", 1).await;
    let hidden = create(&server, "hidden", 1).await;

    let all = client.call(13, MetadataRequest::default().with_topics(None)).await;
    assert_eq!(all.topics.len(), 1);
    assert_eq!(all.topics[0].topic_id, seen);
    let named = ["hidden", "new"]
        .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
    let by_id = MetadataRequestTopic::default().with_name(None).with_topic_id(hidden);
    let topics = named.into_iter().chain([by_id]).collect();
    let request = MetadataRequest::default().with_topics(Some(topics));
    let found = client.call(13, request.with_allow_auto_topic_creation(true)).await;
    let found: Vec<_> = found.topics.iter().map(|t| (t.error_code, t.topic_id)).collect();
    assert_eq!(found, [(29, Uuid::nil()), (29, Uuid::nil()), (100, hidden)]);

    let topic = CreatableTopic::default()
        .with_name(topic_name("new"))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    assert_eq!(client.call(7, request).await.topics[0].error_code, 29);

    let state = |id| DeleteTopicState::default().with_name(None).with_topic_id(id);
    let request = DeleteTopicsRequest::default().with_topics(vec![state(seen), state(hidden)]);
    let responses = client.call(6, request).await.responses;
    let found: Vec<_> = responses.iter().map(|r| (r.error_code, r.name.is_some())).collect();
    assert_eq!(found, [(29, false), (100, false)]);

    let resource = |kind, name: &str| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_string(name.to_owned()))
            .with_configuration_keys(None)
    };
    let resources = vec![resource(2, "seen"), resource(4, "1")];
    let request = DescribeConfigsRequest::default().with_resources(resources);
    let results = client.call(4, request).await.results;
    let found: Vec<_> = results.iter().map(|r| (r.error_code, r.configs.len())).collect();
    assert_eq!(found, [(29, 0), (31, 0)]);

    let request = DescribeLogDirsRequest::default().with_topics(None);
    let found = client.call(4, request).await;
    assert_eq!((found.error_code, found.results.len()), (31, 0));
    assert_eq!(client.call(3, DescribeAclsRequest::default()).await.error_code, 31);
    let request = ElectLeadersRequest::default().with_topic_partitions(None);
    assert_eq!(client.call(2, request).await.error_code, 31);
    let request = ListPartitionReassignmentsRequest::default().with_topics(None);
    assert_eq!(client.call(0, request).await.error_code, 31);
    server.stop().await;
}
