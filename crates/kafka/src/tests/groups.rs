//! Groups over a socket: members, positions, and what a restart leaves.

use std::collections::BTreeMap;

use aquifer_stream::{DocumentExpectation, DocumentKey, DocumentKind, NewStream};
use aquifer_types::{
    PartitionIndex, StreamClass, StreamConfig, StreamName, StreamPath, TenantName,
};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::client::{Client, Server};
use crate::KafkaOptions;

fn options() -> KafkaOptions {
    KafkaOptions { group_initial_delay_ms: 0, ..KafkaOptions::default() }
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn group(name: &'static str) -> GroupId {
    GroupId(text(name))
}

fn topic(name: &'static str) -> TopicName {
    TopicName(text(name))
}

async fn create(server: &Server, name: &str, partitions: u32) {
    let path = StreamPath::new(TenantName::default_tenant(), StreamName::new(name).unwrap());
    let (class, config) = (StreamClass::Durable, StreamConfig::default());
    server.store.create_stream(NewStream { path, partitions, class, config }).await.unwrap();
}

/// A `ConsumerProtocolSubscription` of version 0.
fn subscription(topic: &str) -> Bytes {
    let mut bytes = vec![0, 0, 0, 0, 0, 1, 0, u8::try_from(topic.len()).unwrap()];
    bytes.extend(topic.as_bytes());
    bytes.extend([255; 4]);
    bytes.into()
}

fn join_request(member: &StrBytes) -> JoinGroupRequest {
    let range = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(subscription("s"));
    JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(member.clone())
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![range])
}

/// Joins, taking an id first where that is asked for.
async fn join(client: &mut Client, version: i16) -> JoinGroupResponse {
    let first = client.call(version, join_request(&StrBytes::default())).await;
    if first.error_code != ResponseError::MemberIdRequired.code() {
        assert!(version < 4);
        return first;
    }
    client.call(version, join_request(&first.member_id)).await
}

async fn sync(client: &mut Client, version: i16, of: &JoinGroupResponse) -> (i16, Bytes) {
    let assignment = |member: &StrBytes| {
        SyncGroupRequestAssignment::default()
            .with_member_id(member.clone())
            .with_assignment(Bytes::copy_from_slice(member.as_bytes()))
    };
    let request = SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(of.generation_id)
        .with_member_id(of.member_id.clone())
        .with_protocol_type((version >= 5).then(|| text("consumer")))
        .with_protocol_name((version >= 5).then(|| text("range")))
        .with_assignments(of.members.iter().map(|of| assignment(&of.member_id)).collect());
    let response = client.call(version, request).await;
    (response.error_code, response.assignment)
}

async fn heartbeat(client: &mut Client, version: i16, of: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(of.generation_id)
        .with_member_id(of.member_id.clone());
    client.call(version, request).await.error_code
}

fn commit_request(generation: i32, member: &StrBytes, note: &'static str) -> OffsetCommitRequest {
    let at = |index, offset| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text(note)))
    };
    let of = OffsetCommitRequestTopic::default()
        .with_name(topic("s"))
        .with_partitions(vec![at(0, 5), at(9, 6)]);
    OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(member.clone())
        .with_topics(vec![of])
}

async fn commit(client: &mut Client, version: i16, generation: i32, member: &StrBytes) -> Vec<i16> {
    let response = client.call(version, commit_request(generation, member, "a note")).await;
    response.topics[0].partitions.iter().map(|of| of.error_code).collect()
}

#[tokio::test]
async fn members_share_a_group_in_every_version() {
    let server = Server::start(options()).await;
    let (mut one, mut two) = (server.client().await, server.client().await);
    for version in 0..=9 {
        let (sync_version, beat_version) = (version.min(5), version.min(4));
        let a = join(&mut one, version).await;
        assert_eq!((a.error_code, &a.leader), (0, &a.member_id), "version {version}");
        assert_eq!(sync(&mut one, sync_version, &a).await.0, 0);
        // The second waits until the first has come back.
        let first = join_request(&StrBytes::default());
        let id = match version {
            0..4 => {
                two.send(version, &first).await;
                StrBytes::default()
            }
            _ => {
                let id = two.call(version, first).await.member_id;
                two.send(version, &join_request(&id)).await;
                id
            }
        };
        while heartbeat(&mut one, beat_version, &a).await == 0 {}
        let again = one.call(version, join_request(&a.member_id)).await;
        let (_, b) = two.receive::<JoinGroupRequest>(version).await.unwrap();
        assert!(id.is_empty() || id == b.member_id);
        assert_eq!(
            (again.generation_id, b.generation_id),
            (a.generation_id + 1, again.generation_id)
        );
        assert_eq!((again.members.len(), b.members.len()), (2, 0));
        let (followed, led) =
            tokio::join!(sync(&mut two, sync_version, &b), sync(&mut one, sync_version, &again));
        assert_eq!(followed, (0, Bytes::copy_from_slice(b.member_id.as_bytes())));
        assert_eq!(led, (0, Bytes::copy_from_slice(again.member_id.as_bytes())));
        leave(&mut one, version.min(5), &again.member_id).await;
        leave(&mut two, version.min(5), &b.member_id).await;
        assert_eq!(
            heartbeat(&mut two, beat_version, &b).await,
            ResponseError::UnknownMemberId.code()
        );
    }
    server.stop().await;
}

async fn leave(client: &mut Client, version: i16, member: &StrBytes) {
    let request = LeaveGroupRequest::default().with_group_id(group("g"));
    let request = match version {
        0..3 => request.with_member_id(member.clone()),
        _ => {
            let stranger = MemberIdentity::default().with_member_id(text("stranger"));
            let member = MemberIdentity::default().with_member_id(member.clone());
            request.with_members(vec![member, stranger])
        }
    };
    let response = client.call(version, request).await;
    assert_eq!(response.error_code, 0);
    if version >= 3 {
        let codes: Vec<i16> = response.members.iter().map(|of| of.error_code).collect();
        assert_eq!(codes, [0, ResponseError::UnknownMemberId.code()]);
    }
}

#[tokio::test]
async fn positions_are_committed_and_fetched_in_every_version() {
    let server = Server::start(options()).await;
    create(&server, "s", 3).await;
    let mut client = server.client().await;
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    for version in 2..=9 {
        assert_eq!(commit(&mut client, version, -1, &StrBytes::default()).await, [0, unknown]);
    }
    for version in 1..=9 {
        for asks_all in [false, true] {
            if asks_all && version < 2 {
                continue;
            }
            let found = fetch(&mut client, version, asks_all).await;
            let expected: &[_] =
                if asks_all { &[(0, 5, "a note")] } else { &[(0, 5, "a note"), (1, -1, "")] };
            let expected: Vec<_> = expected
                .iter()
                .map(|(at, offset, note)| (*at, *offset, (*note).to_owned()))
                .collect();
            assert_eq!(found, expected, "version {version}");
        }
    }
    // They are the positions that other doors see.
    let name = aquifer_types::GroupName::new("g").unwrap();
    let seen = server.store.describe_group(&TenantName::default_tenant(), &name).unwrap();
    let of_stream: BTreeMap<_, _> = seen.positions.into_values().next().unwrap();
    assert_eq!(of_stream[&PartitionIndex(0)].metadata, "a note");
    let long: &'static str = Box::leak("x".repeat(4097).into_boxed_str());
    let response = client.call(8, commit_request(-1, &StrBytes::default(), long)).await;
    let code = response.topics[0].partitions[0].error_code;
    assert_eq!(code, ResponseError::OffsetMetadataTooLarge.code());
    assert_eq!(
        commit(&mut client, 8, 3, &text("nobody")).await[0],
        ResponseError::IllegalGeneration.code()
    );
    server.stop().await;
}

async fn fetch(client: &mut Client, version: i16, asks_all: bool) -> Vec<(i32, i64, String)> {
    if version < 8 {
        let of = OffsetFetchRequestTopic::default()
            .with_name(topic("s"))
            .with_partition_indexes(vec![0, 1]);
        let request = OffsetFetchRequest::default()
            .with_group_id(group("g"))
            .with_topics((!asks_all).then(|| vec![of]));
        let response = client.call(version, request).await;
        assert_eq!(response.error_code, 0);
        let parts = response.topics.iter().flat_map(|topic| &topic.partitions);
        let note = |note: &Option<StrBytes>| note.as_ref().unwrap().to_string();
        return parts
            .map(|of| (of.partition_index, of.committed_offset, note(&of.metadata)))
            .collect();
    }
    let of = OffsetFetchRequestTopics::default()
        .with_name(topic("s"))
        .with_partition_indexes(vec![0, 1]);
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(group("g"))
        .with_topics((!asks_all).then(|| vec![of]));
    let response =
        client.call(version, OffsetFetchRequest::default().with_groups(vec![asked])).await;
    assert_eq!(response.groups[0].error_code, 0);
    let parts = response.groups[0].topics.iter().flat_map(|topic| &topic.partitions);
    let note = |note: &Option<StrBytes>| note.as_ref().unwrap().to_string();
    parts.map(|of| (of.partition_index, of.committed_offset, note(&of.metadata))).collect()
}

#[tokio::test]
async fn members_are_bounded() {
    let server = Server::start(options()).await;
    let mut client = server.client().await;
    let with = |protocols: usize, bytes: usize| {
        let protocol = |at: usize| {
            JoinGroupRequestProtocol::default()
                .with_name(StrBytes::from_string(format!("p{at}")))
                .with_metadata(Bytes::from(vec![0; bytes / protocols]))
        };
        let protocols = (0..protocols).map(protocol).collect();
        join_request(&StrBytes::default()).with_protocols(protocols)
    };
    let invalid = ResponseError::InvalidRequest.code();
    let id_first = ResponseError::MemberIdRequired.code();
    for (protocols, bytes, code) in
        [(16, 1 << 10, id_first), (17, 1 << 10, invalid), (1, 1 << 20, invalid)]
    {
        let answer = client.call(9, with(protocols, bytes)).await;
        assert_eq!(answer.error_code, code, "{protocols} {bytes}");
    }
    // An id keeps only the beginning of a long name.
    let mut long = join_request(&StrBytes::default()).with_group_id(group("h"));
    long.group_instance_id = Some(StrBytes::from_string("ü".repeat(1_000)));
    let joined = client.call(9, long).await;
    assert_eq!(joined.error_code, 0);
    assert!(joined.member_id.len() < 300 && joined.member_id.starts_with("üü"));
    server.stop().await;
}

#[tokio::test]
async fn a_generation_outlives_a_restart() {
    let server = Server::start(options()).await;
    create(&server, "s", 3).await;
    let mut client = server.client().await;
    let a = join(&mut client, 9).await;
    assert_eq!(sync(&mut client, 5, &a).await.0, 0);
    assert_eq!(commit(&mut client, 8, a.generation_id, &a.member_id).await[0], 0);
    drop(client);
    let server = server.restart(options()).await;
    let mut client = server.client().await;
    assert_eq!(heartbeat(&mut client, 4, &a).await, 0);
    let assigned = Bytes::copy_from_slice(a.member_id.as_bytes());
    assert_eq!(sync(&mut client, 5, &a).await, (0, assigned));
    assert_eq!(commit(&mut client, 8, a.generation_id, &a.member_id).await[0], 0);
    // Who is no member does not move what members own.
    let refused = commit(&mut client, 8, -1, &StrBytes::default()).await;
    assert_eq!(refused[0], ResponseError::UnknownMemberId.code());
    let again = client.call(9, join_request(&a.member_id)).await;
    assert!(again.generation_id > a.generation_id);
    server.stop().await;
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted() {
    let server = Server::start(options()).await;
    create(&server, "s", 3).await;
    let mut client = server.client().await;
    let a = join(&mut client, 9).await;
    sync(&mut client, 5, &a).await;
    commit(&mut client, 8, a.generation_id, &a.member_id).await;
    for version in 0..=5 {
        let listed = client.call(version, ListGroupsRequest::default()).await.groups;
        assert_eq!((listed.len(), listed[0].protocol_type.as_str()), (1, "consumer"));
    }
    let count = async |client: &mut Client, state, kind| {
        let request = ListGroupsRequest::default()
            .with_states_filter(vec![text(state)])
            .with_types_filter(vec![text(kind)]);
        client.call(5, request).await.groups.len()
    };
    assert_eq!(count(&mut client, "stable", "Classic").await, 1);
    assert_eq!(count(&mut client, "Empty", "classic").await, 0);
    assert_eq!(count(&mut client, "Stable", "consumer").await, 0);
    for version in 0..=6 {
        let request = DescribeGroupsRequest::default().with_groups(vec![group("g"), group("none")]);
        let described = client.call(version, request).await.groups;
        assert_eq!(described[0].group_state.as_str(), "Stable");
        assert_eq!(described[0].members[0].client_id.as_str(), "test");
        assert_eq!(described[0].members[0].member_metadata, subscription("s"));
        let missing = if version < 6 { 0 } else { ResponseError::GroupIdNotFound.code() };
        assert_eq!((described[1].error_code, described[1].group_state.as_str()), (missing, "Dead"));
    }
    assert_eq!(delete_offset(&mut client).await, ResponseError::GroupSubscribedToTopic.code());
    assert_eq!(delete(&mut client, 2).await, ResponseError::NonEmptyGroup.code());
    leave(&mut client, 5, &a.member_id).await;
    assert_eq!(delete_offset(&mut client).await, 0);
    assert_eq!(fetch(&mut client, 8, true).await, []);
    while delete(&mut client, 1).await == ResponseError::NonEmptyGroup.code() {}
    assert_eq!(delete(&mut client, 0).await, ResponseError::GroupIdNotFound.code());
    let server = server.restart(options()).await;
    let mut client = server.client().await;
    assert_eq!(client.call(5, ListGroupsRequest::default()).await.groups, []);
    server.stop().await;
}

async fn delete(client: &mut Client, version: i16) -> i16 {
    let request = DeleteGroupsRequest::default().with_groups_names(vec![group("g")]);
    client.call(version, request).await.results[0].error_code
}

async fn delete_offset(client: &mut Client) -> i16 {
    let at = OffsetDeleteRequestPartition::default().with_partition_index(0);
    let of = OffsetDeleteRequestTopic::default().with_name(topic("s")).with_partitions(vec![at]);
    let request = OffsetDeleteRequest::default().with_group_id(group("g")).with_topics(vec![of]);
    let response = client.call(0, request).await;
    assert_eq!(response.error_code, 0);
    response.topics[0].partitions[0].error_code
}

#[tokio::test]
async fn the_coordinator_is_found_in_every_version() {
    let server = Server::start(options()).await;
    let mut client = server.client().await;
    let port = i32::from(server.address().port());
    for version in 0..=6 {
        for (key_type, key, code) in [(0, "g", 0), (1, "t", 0), (0, "", 24), (7, "x", 42)] {
            if version == 0 && key_type != 0 {
                continue;
            }
            let request = FindCoordinatorRequest::default().with_key_type(key_type);
            let found = if version < 4 {
                let found = client.call(version, request.with_key(text(key))).await;
                (found.error_code, found.port)
            } else {
                let keys = vec![text(key), text(key)];
                let found = client.call(version, request.with_coordinator_keys(keys)).await;
                assert_eq!(found.coordinators.len(), 2);
                (found.coordinators[1].error_code, found.coordinators[1].port)
            };
            assert_eq!(found, (code, if code == 0 { port } else { -1 }), "{version} {key}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_negative_offset_is_answered_and_is_no_position() {
    let server = Server::start(options()).await;
    create(&server, "s", 3).await;
    let mut client = server.client().await;
    let mut request = commit_request(-1, &StrBytes::default(), "");
    request.topics[0].partitions.truncate(1);
    request.topics[0].partitions[0].committed_offset = -7;
    let response = client.call(8, request).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    let expected = [(0, -7, String::new()), (1, -1, String::new())];
    assert_eq!(fetch(&mut client, 8, false).await, expected);
    let name = aquifer_types::GroupName::new("g").unwrap();
    let seen = server.store.describe_group(&TenantName::default_tenant(), &name).unwrap();
    assert!(seen.positions.is_empty());
    server.stop().await;
}

/// The leader epoch that a consumer commits is what it is told; from before
/// version 6 there is none.
#[tokio::test]
async fn leader_epochs_are_kept_with_positions() {
    let server = Server::start(options()).await;
    create(&server, "s", 1).await;
    let mut client = server.client().await;
    for (version, said, told) in [(9, 7, 7), (9, 0, 0), (9, -1, -1), (6, 3, 3), (5, -1, -1)] {
        let mut request = commit_request(-1, &StrBytes::default(), "a note");
        request.topics[0].partitions[0].committed_leader_epoch = said;
        let response = client.call(version, request).await;
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
        for version in [5, 7, 8, 9] {
            assert_eq!(leader_epoch(&mut client, version).await, told, "version {version}");
        }
    }
    server.stop().await;
}

async fn leader_epoch(client: &mut Client, version: i16) -> i32 {
    if version < 8 {
        let request = OffsetFetchRequest::default().with_group_id(group("g")).with_topics(None);
        return client.call(version, request).await.topics[0].partitions[0].committed_leader_epoch;
    }
    let asked = OffsetFetchRequestGroup::default().with_group_id(group("g")).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![asked]);
    let response = client.call(version, request).await;
    response.groups[0].topics[0].partitions[0].committed_leader_epoch
}

#[tokio::test]
async fn a_group_that_another_door_deletes_is_gone() {
    let server = Server::start(options()).await;
    create(&server, "s", 3).await;
    let mut client = server.client().await;
    let a = join(&mut client, 9).await;
    sync(&mut client, 5, &a).await;
    commit(&mut client, 8, a.generation_id, &a.member_id).await;
    let (tenant, name) =
        (TenantName::default_tenant(), aquifer_types::GroupName::new("g").unwrap());
    let key = DocumentKey::new(tenant.clone(), DocumentKind::Group, "g");
    let mut stored = server.store.watch_documents();
    let members = server.store.document(&key).unwrap().version;
    leave(&mut client, 5, &a.member_id).await;
    while server.store.document(&key).unwrap().version == members {
        stored.changed().await.unwrap();
    }
    let overtaken = DocumentExpectation::Version(members);
    assert!(server.store.delete_group_while(&tenant, &name, overtaken).await.is_err());
    let empty = DocumentExpectation::Version(server.store.document(&key).unwrap().version);
    server.store.delete_group_while(&tenant, &name, empty).await.unwrap();
    // The coordinator learns that its save is done a moment after all others.
    let count =
        async |client: &mut Client| client.call(5, ListGroupsRequest::default()).await.groups.len();
    while count(&mut client).await > 0 {}
    let response =
        client.call(0, DeleteGroupsRequest::default().with_groups_names(vec![group("g")]));
    assert_eq!(response.await.results[0].error_code, ResponseError::GroupIdNotFound.code());
    assert_eq!(join(&mut client, 9).await.generation_id, 1, "it begins anew");
    server.stop().await;
}
