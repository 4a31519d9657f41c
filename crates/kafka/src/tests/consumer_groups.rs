//! Consumer groups (KIP-848) over a socket: members, positions, the other kind
//! of groups, and what a restart leaves.

use std::collections::BTreeSet;

use aquifer_stream::{DocumentKey, DocumentKind, NewStream, StreamUpdate};
use aquifer_types::{StreamClass, StreamConfig, StreamName, StreamPath, TenantName};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::DescribedGroup;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::client::{Client, Server};
use crate::KafkaOptions;

fn options() -> KafkaOptions {
    KafkaOptions { group_initial_delay_ms: 0, ..KafkaOptions::default() }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group() -> GroupId {
    GroupId(text("g"))
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

fn path(name: &str) -> StreamPath {
    StreamPath::new(TenantName::default_tenant(), StreamName::new(name).unwrap())
}

async fn create(server: &Server, name: &str, partitions: u32) -> Uuid {
    let (class, config) = (StreamClass::Durable, StreamConfig::default());
    let stream = NewStream { path: path(name), partitions, class, config };
    server.store.create_stream(stream).await.unwrap();
    server.store.stream_shape(&path(name)).unwrap().id.0
}

fn join(member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text(member))
        .with_rebalance_timeout_ms(30_000)
        .with_subscribed_topic_names(Some(vec![topic("s")]))
        .with_topic_partitions(Some(Vec::new()))
}

fn beat(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text(member))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(-1)
        .with_subscribed_topic_names(None)
        .with_topic_partitions(None)
}

fn owned(topic: Uuid, partitions: &[i32]) -> Option<Vec<TopicPartitions>> {
    let of = TopicPartitions::default().with_topic_id(topic).with_partitions(partitions.to_vec());
    Some(vec![of])
}

fn assigned(response: &ConsumerGroupHeartbeatResponse) -> Option<BTreeSet<(Uuid, i32)>> {
    let topics = &response.assignment.as_ref()?.topic_partitions;
    let of = |of: &kafka_protocol::messages::consumer_group_heartbeat_response::TopicPartitions| {
        let id = of.topic_id;
        of.partitions.iter().map(move |index| (id, *index)).collect::<Vec<_>>()
    };
    Some(topics.iter().flat_map(of).collect())
}

fn all(topic: Uuid, partitions: &[i32]) -> Option<BTreeSet<(Uuid, i32)>> {
    Some(partitions.iter().map(|index| (topic, *index)).collect())
}

async fn describe(client: &mut Client, version: i16) -> DescribedGroup {
    let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group()]);
    client.call(version, request).await.groups.remove(0)
}

async fn commit(client: &mut Client, version: i16, member: &str, epoch: i32) -> i16 {
    let at = OffsetCommitRequestPartition::default().with_committed_offset(5);
    let of = OffsetCommitRequestTopic::default().with_name(topic("s")).with_partitions(vec![at]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group())
        .with_generation_id_or_member_epoch(epoch)
        .with_member_id(text(member))
        .with_topics(vec![of]);
    client.call(version, request).await.topics[0].partitions[0].error_code
}

async fn fetch(client: &mut Client, member: Option<&str>, epoch: i32) -> (i16, usize) {
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(group())
        .with_member_id(member.map(text))
        .with_member_epoch(epoch)
        .with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![asked]);
    let response = client.call(9, request).await.groups.remove(0);
    (response.error_code, response.topics.len())
}

fn classic_join() -> JoinGroupRequest {
    let range = JoinGroupRequestProtocol::default().with_name(text("range"));
    JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![range])
}

#[tokio::test]
async fn members_share_a_group_in_every_version() {
    let server = Server::start(options()).await;
    let s = create(&server, "s", 4).await;
    let mut client = server.client().await;
    for version in 0..=1 {
        // Before version 1 the coordinator makes the id.
        let first = if version == 0 { join("") } else { join("a") };
        let a = client.call(version, first).await;
        assert_eq!((a.error_code, a.heartbeat_interval_ms), (0, 5_000));
        assert_eq!(assigned(&a), all(s, &[0, 1, 2, 3]));
        let id = a.member_id.clone().unwrap();
        let b = client.call(version, join("b")).await;
        assert_eq!((b.error_code, assigned(&b)), (0, all(s, &[])));
        let a = client.call(version, beat(&id, a.member_epoch)).await;
        assert_eq!(assigned(&a), all(s, &[0, 1]));
        let gave = beat(&id, a.member_epoch).with_topic_partitions(owned(s, &[0, 1]));
        let a = client.call(version, gave).await;
        assert_eq!((a.member_epoch, assigned(&a)), (b.member_epoch, None));
        let b = client.call(version, beat("b", b.member_epoch)).await;
        assert_eq!(assigned(&b), all(s, &[2, 3]));
        let described = describe(&mut client, version).await;
        assert_eq!((described.error_code, described.group_state.as_str()), (0, "Stable"));
        assert_eq!(described.group_epoch, b.member_epoch);
        assert_eq!(
            (described.assignment_epoch, described.assignor_name.as_str()),
            (b.member_epoch, "uniform")
        );
        let member = described.members.iter().find(|of| of.member_id.as_str() == "b").unwrap();
        assert_eq!(member.assignment, member.target_assignment);
        assert_eq!(member.assignment.topic_partitions[0].partitions, [2, 3]);
        assert_eq!(member.assignment.topic_partitions[0].topic_name, topic("s"));
        assert_eq!(member.subscribed_topic_names, [topic("s")]);
        assert_eq!(member.member_type, if version == 0 { -1 } else { 1 });
        for member in [id.as_str(), "b"] {
            let left = client.call(version, beat(member, -1)).await;
            assert_eq!((left.error_code, left.member_epoch), (0, -1));
        }
        assert_eq!(describe(&mut client, version).await.group_state.as_str(), "Empty");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_heartbeat_is_said() {
    let server = Server::start(options()).await;
    create(&server, "s", 1).await;
    let mut client = server.client().await;
    let instance = || Some(text("i"));
    let invalid = ResponseError::InvalidRequest;
    for (request, error) in [
        (join(""), invalid),
        (join(&"m".repeat(2000)), invalid),
        (join("m").with_rebalance_timeout_ms(-1), invalid),
        (join("m").with_rebalance_timeout_ms(-2), invalid),
        (join("m").with_topic_partitions(None), invalid),
        (join("m").with_subscribed_topic_names(None), invalid),
        (join("m").with_instance_id(Some(text(""))), invalid),
        (join("m").with_rack_id(Some(text(""))), invalid),
        (join("m").with_group_id(GroupId(text(""))), ResponseError::InvalidGroupId),
        (join("m").with_server_assignor(Some(text("x"))), ResponseError::UnsupportedAssignor),
        (
            join("m").with_subscribed_topic_regex(Some(text("("))),
            ResponseError::InvalidRegularExpression,
        ),
        (beat("m", -2), invalid),
        (beat("m", -3), invalid),
        (beat("", 1), invalid),
        (beat("m", 1), ResponseError::UnknownMemberId),
        (beat("m", -1), ResponseError::UnknownMemberId),
        (beat("m", -2).with_instance_id(instance()), ResponseError::UnknownMemberId),
    ] {
        let said = format!("{request:?}");
        let response = client.call(1, request).await;
        assert_eq!(response.error_code, error.code(), "{said}");
        assert!(response.error_message.is_some_and(|message| !message.is_empty()), "{said}");
    }
    assert_eq!(client.call(5, ListGroupsRequest::default()).await.groups, [], "none is left");
    assert_eq!(describe(&mut client, 1).await.error_code, ResponseError::GroupIdNotFound.code());
    server.stop().await;
}

#[tokio::test]
async fn positions_are_of_members_in_their_epochs() {
    let server = Server::start(options()).await;
    create(&server, "s", 1).await;
    let mut client = server.client().await;
    assert_eq!(commit(&mut client, 9, "", -1).await, 0, "nobody is in it");
    assert_eq!(commit(&mut client, 9, "a", 1).await, ResponseError::GroupIdNotFound.code());
    let a = client.call(1, join("a")).await;
    let stale = ResponseError::StaleMemberEpoch.code();
    let unknown = ResponseError::UnknownMemberId.code();
    assert_eq!(commit(&mut client, 9, "a", a.member_epoch).await, 0);
    assert_eq!(commit(&mut client, 9, "a", a.member_epoch + 1).await, stale);
    assert_eq!(commit(&mut client, 9, "b", a.member_epoch).await, unknown);
    assert_eq!(commit(&mut client, 9, "", -1).await, unknown);
    assert_eq!(
        commit(&mut client, 8, "a", a.member_epoch).await,
        ResponseError::UnsupportedVersion.code()
    );
    assert_eq!(fetch(&mut client, Some("a"), a.member_epoch).await, (0, 1));
    assert_eq!(fetch(&mut client, None, -1).await, (0, 1));
    assert_eq!(fetch(&mut client, Some("a"), a.member_epoch + 1).await.0, stale);
    assert_eq!(fetch(&mut client, Some("b"), 1).await.0, unknown);
    server.stop().await;
}

#[tokio::test]
async fn members_outlive_a_restart() {
    let server = Server::start(options()).await;
    let s = create(&server, "s", 2).await;
    let mut client = server.client().await;
    let a = client.call(1, join("a")).await;
    let b = client.call(1, join("b")).await;
    drop(client);
    let server = server.restart(options()).await;
    let mut client = server.client().await;
    // Nobody else is given what it may still read.
    let b = client.call(1, beat("b", b.member_epoch)).await;
    assert_eq!((b.error_code, assigned(&b)), (0, None));
    assert_eq!(commit(&mut client, 9, "a", a.member_epoch).await, 0);
    let a = client.call(1, beat("a", a.member_epoch)).await;
    assert_eq!(assigned(&a), all(s, &[0]));
    let gave = beat("a", a.member_epoch).with_topic_partitions(owned(s, &[0]));
    let a = client.call(1, gave).await;
    let b = client.call(1, beat("b", b.member_epoch)).await;
    assert_eq!(assigned(&b), all(s, &[1]));
    assert_eq!(a.member_epoch, b.member_epoch, "no epoch for the restart");
    for member in ["a", "b"] {
        client.call(1, beat(member, -1)).await;
    }
    drop(client);
    let server = server.restart(options()).await;
    let mut client = server.client().await;
    assert_eq!(describe(&mut client, 1).await.group_state.as_str(), "Empty");
    let again = client.call(1, join("a")).await;
    assert!(again.member_epoch > b.member_epoch, "epochs do not go back");
    server.stop().await;
}

#[tokio::test]
async fn who_is_not_heard_of_is_lost() {
    let options = KafkaOptions {
        consumer_group_session_ms: 100,
        consumer_group_heartbeat_ms: 10,
        ..options()
    };
    let server = Server::start(options).await;
    let s = create(&server, "s", 2).await;
    let mut client = server.client().await;
    client.call(1, join("a")).await;
    let mut b = client.call(1, join("b")).await;
    while assigned(&b) != all(s, &[0, 1]) {
        b = client.call(1, beat("b", b.member_epoch)).await;
        assert_eq!(b.error_code, 0);
    }
    while describe(&mut client, 1).await.group_state.as_str() != "Empty" {}
    // What is stored says so too.
    let key = DocumentKey::new(TenantName::default_tenant(), DocumentKind::Group, "g");
    let mut stored = server.store.watch_documents();
    while !server.store.document(&key).unwrap().value.contains("empty_since_ms") {
        stored.changed().await.unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn topics_come_and_grow() {
    let server = Server::start(options()).await;
    let s = create(&server, "s", 1).await;
    let mut client = server.client().await;
    let by_regex = join("a")
        .with_subscribed_topic_names(None)
        .with_subscribed_topic_regex(Some(text("s|t.*")));
    let a = client.call(1, by_regex).await;
    assert_eq!(assigned(&a), all(s, &[0]));
    server
        .store
        .update_stream(&path("s"), StreamUpdate { partitions: Some(2), ..StreamUpdate::default() })
        .await
        .unwrap();
    let a = client.call(1, beat("a", a.member_epoch)).await;
    assert_eq!(assigned(&a), all(s, &[0, 1]));
    let t = create(&server, "topic", 1).await;
    create(&server, "at", 1).await;
    let a = client.call(1, beat("a", a.member_epoch)).await;
    assert_eq!(assigned(&a), Some([(s, 0), (s, 1), (t, 0)].into()));
    let described = describe(&mut client, 1).await;
    let regex = described.members[0].subscribed_topic_regex.as_ref();
    assert_eq!(regex.map(|regex| regex.as_str()), Some("s|t.*"));
    server.store.delete_stream(&path("topic")).await.unwrap();
    let a = client.call(1, beat("a", a.member_epoch)).await;
    assert_eq!(assigned(&a), all(s, &[0, 1]));
    let _ =
        client.call(1, beat("a", a.member_epoch).with_topic_partitions(owned(s, &[0, 1]))).await;
    assert_eq!(describe(&mut client, 1).await.group_state.as_str(), "Stable");
    server.stop().await;
}

#[tokio::test]
async fn groups_of_both_kinds_are_told_apart() {
    let server = Server::start(options()).await;
    create(&server, "s", 1).await;
    let mut client = server.client().await;
    let not_found = ResponseError::GroupIdNotFound.code();
    let unknown = ResponseError::UnknownMemberId.code();
    let a = client.call(1, join("a").with_instance_id(Some(text("i")))).await;
    assert_eq!(commit(&mut client, 9, "a", a.member_epoch).await, 0);
    // The other protocol does not get in.
    let refused = client.call(3, classic_join()).await;
    assert_eq!(refused.error_code, ResponseError::InconsistentGroupProtocol.code());
    let heartbeat = HeartbeatRequest::default()
        .with_group_id(group())
        .with_generation_id(a.member_epoch)
        .with_member_id(text("a"));
    assert_eq!(client.call(4, heartbeat).await.error_code, unknown);
    let listed = client.call(5, ListGroupsRequest::default()).await.groups.remove(0);
    let facts = [listed.group_state, listed.group_type, listed.protocol_type];
    assert_eq!(facts.map(|fact| fact.to_string()), ["Stable", "consumer", "consumer"]);
    let filter = |kind| ListGroupsRequest::default().with_types_filter(vec![text(kind)]);
    assert_eq!(client.call(5, filter("Consumer")).await.groups.len(), 1);
    assert_eq!(client.call(5, filter("classic")).await.groups.len(), 0);
    for (version, code) in [(5, 0), (6, not_found)] {
        let request = DescribeGroupsRequest::default().with_groups(vec![group()]);
        let described = client.call(version, request).await.groups.remove(0);
        assert_eq!((described.error_code, described.group_state.as_str()), (code, "Dead"));
    }
    let delete = || DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    let code = client.call(2, delete()).await.results[0].error_code;
    assert_eq!(code, ResponseError::NonEmptyGroup.code());
    let at = OffsetDeleteRequestPartition::default().with_partition_index(0);
    let of = OffsetDeleteRequestTopic::default().with_name(topic("s")).with_partitions(vec![at]);
    let delete_offset = OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![of]);
    let response = client.call(0, delete_offset.clone()).await;
    let code = response.topics[0].partitions[0].error_code;
    assert_eq!(code, ResponseError::GroupSubscribedToTopic.code());
    // Whoever manages the group takes a static member out.
    let member = MemberIdentity::default().with_group_instance_id(Some(text("i")));
    let by_id = MemberIdentity::default().with_member_id(text("a"));
    let leave =
        LeaveGroupRequest::default().with_group_id(group()).with_members(vec![by_id, member]);
    let codes: Vec<i16> =
        client.call(5, leave).await.members.iter().map(|of| of.error_code).collect();
    assert_eq!(codes, [unknown, 0]);
    assert_eq!(client.call(1, beat("a", a.member_epoch)).await.error_code, unknown);
    let response = client.call(0, delete_offset).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    // Nobody is in it: it becomes a classic one, and back.
    let joined = client.call(3, classic_join()).await;
    assert_eq!(joined.error_code, 0);
    assert!(joined.generation_id > a.member_epoch);
    assert_eq!(client.call(1, join("b")).await.error_code, not_found);
    assert_eq!(describe(&mut client, 1).await.error_code, not_found);
    let leave =
        LeaveGroupRequest::default().with_group_id(group()).with_member_id(joined.member_id);
    assert_eq!(client.call(0, leave).await.error_code, 0);
    let b = client.call(1, join("b")).await;
    assert_eq!(b.error_code, 0);
    assert!(b.member_epoch > joined.generation_id);
    assert_eq!(client.call(1, beat("b", -1)).await.error_code, 0);
    while client.call(2, delete()).await.results[0].error_code
        == ResponseError::NonEmptyGroup.code()
    {}
    assert_eq!(client.call(5, ListGroupsRequest::default()).await.groups, []);
    server.stop().await;
}

/// What cannot be stored is not told, and did not happen.
#[tokio::test]
async fn a_group_too_large_to_be_stored_lets_nobody_else_in() {
    let server = Server::start(options()).await;
    let s = create(&server, "s", 1).await;
    let mut client = server.client().await;
    let a = client.call(1, join("a")).await;
    let names = (0..10_000).map(|number| topic(&format!("{number:0>200}"))).collect();
    let large = join("b").with_subscribed_topic_names(Some(names));
    let refused = client.call(1, large).await;
    assert_eq!(refused.error_code, ResponseError::CoordinatorNotAvailable.code());
    let again = client.call(1, beat("a", a.member_epoch)).await;
    assert_eq!((again.error_code, again.member_epoch), (0, a.member_epoch));
    let described = describe(&mut client, 1).await;
    assert_eq!((described.members.len(), described.group_epoch), (1, a.member_epoch));
    let b = client.call(1, join("b")).await;
    assert_eq!((b.error_code, assigned(&b)), (0, all(s, &[])));
    server.stop().await;
}
