//! Every API says so where it is denied, and does nothing.
//!
//! The table has a row for each API and each kind of resource that it asks
//! about. An API that is served and has none fails the test: whoever adds one
//! says here how it is denied.

use std::collections::BTreeSet;
use std::sync::Arc;

use aquifer_stream::DocumentKind;
use aquifer_types::TenantName;
use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignableTopic;
use kafka_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialUpsertion;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_producers_request;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource as Increment;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterClientQuotasRequest,
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest,
    AlterUserScramCredentialsRequest, ApiKey, ConsumerGroupDescribeRequest,
    ConsumerGroupHeartbeatRequest, CreateAclsRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteAclsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeAclsRequest, DescribeClientQuotasRequest, DescribeConfigsRequest,
    DescribeGroupsRequest, DescribeLogDirsRequest, DescribeProducersRequest,
    DescribeTopicPartitionsRequest, DescribeTransactionsRequest,
    DescribeUserScramCredentialsRequest, ElectLeadersRequest, EndTxnRequest, FetchRequest,
    FindCoordinatorRequest, GroupId, HeartbeatRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest,
    ListOffsetsRequest, ListPartitionReassignmentsRequest, ListTransactionsRequest,
    MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    OffsetForLeaderEpochRequest, SyncGroupRequest, TopicName, TransactionalId,
    TxnOffsetCommitRequest,
};
use kafka_protocol::messages::{
    alter_client_quotas_request, alter_configs_request, incremental_alter_configs_request,
};
use kafka_protocol::protocol::{Request, StrBytes};
use parking_lot::Mutex;
use uuid::Uuid;

use super::client::{Client, Server};
use super::data;
use super::metadata::create;
use crate::api::{APIS, supports};
use crate::{Action, Authorizer, Decision, KafkaOptions, Principal, Resource};

const TOPIC: i16 = 29;
const GROUP: i16 = 30;
const CLUSTER: i16 = 31;
const TRANSACTIONAL_ID: i16 = 53;

/// APIs that ask about nothing, or leave out what is denied instead of saying
/// so.
const EXEMPT: [ApiKey; 7] = [
    ApiKey::ApiVersions,
    ApiKey::SaslHandshake,
    ApiKey::SaslAuthenticate,
    ApiKey::ListGroups,
    // Beside: see `denied_transactions_are_not_listed`.
    ApiKey::ListTransactions,
    // Beside: see `a_creation_is_denied_by_both`.
    ApiKey::CreateTopics,
    // What every client learns from Metadata too.
    ApiKey::DescribeCluster,
];

/// Denies one kind of resource, by the code that says so.
#[derive(Debug, Default)]
struct Denies(Mutex<i16>);

impl Authorizer for Denies {
    fn decide(&self, _: &Principal, _: Action, resource: Resource<'_>) -> Decision {
        let code = match resource {
            Resource::Stream(_) => TOPIC,
            Resource::Group(_) => GROUP,
            Resource::Cluster => CLUSTER,
            Resource::TransactionalId(_) => TRANSACTIONAL_ID,
        };
        if code == *self.0.lock() { Decision::Deny } else { Decision::Allow }
    }
}

struct Table {
    server: Server,
    client: Client,
    denies: Arc<Denies>,
    seen: BTreeSet<i16>,
}

impl Table {
    /// With resources of this kind denied, that and nothing else is answered,
    /// and everything stays as it is.
    async fn check<R: Request>(&mut self, code: i16, version: i16, request: R)
    where
        R::Response: std::fmt::Debug,
    {
        let api = ApiKey::try_from(R::KEY).unwrap();
        if !supports(api, version) {
            return;
        }
        self.seen.insert(R::KEY);
        *self.denies.0.lock() = code;
        let before = self.state();
        let response = format!("{:?}", self.client.call(version, request).await);
        let codes: BTreeSet<i16> = response
            .split("error_code: ")
            .skip(1)
            .map(|rest| rest.split([',', ' ', '}']).next().unwrap().parse().unwrap())
            .filter(|code| *code != 0)
            .collect();
        assert_eq!(codes, [code].into(), "{api:?}: {response}");
        assert_eq!(self.state(), before, "{api:?}");
    }

    /// All that a request could change.
    fn state(&self) -> String {
        let tenant = TenantName::default_tenant();
        let store = &self.server.store;
        let streams = store.list_streams(&tenant);
        let streams = streams.iter().map(|of| store.describe_stream(&of.path).unwrap());
        let groups = store.list_groups(&tenant);
        let groups = groups.iter().map(|of| store.describe_group(&tenant, of).unwrap());
        let transactions = store.list_transactions(&tenant);
        let users = self.server.users().list(&tenant).unwrap();
        let quotas = store.documents(&tenant, DocumentKind::ClientQuota);
        let (streams, groups) = (streams.collect::<Vec<_>>(), groups.collect::<Vec<_>>());
        format!("{streams:?} {groups:?} {transactions:?} {users:?} {quotas:?}")
    }
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic() -> TopicName {
    TopicName(text("a"))
}

fn group() -> GroupId {
    GroupId(text("g"))
}

fn id() -> TransactionalId {
    TransactionalId(text("t"))
}

#[tokio::test]
async fn every_api_says_so_and_does_nothing() {
    let denies = Arc::new(Denies::default());
    let server = Server::start_with(KafkaOptions::default(), denies.clone()).await;
    create(&server, "a", 1).await;
    let mut client = server.client().await;
    let data = [(0, data::batch(&["x"]))];
    client.call(9, data::produce(9, "a", Uuid::nil(), &data)).await;
    let mut table = Table { server, client, denies, seen: BTreeSet::new() };
    records(&mut table).await;
    topics(&mut table).await;
    configs(&mut table).await;
    cluster(&mut table).await;
    groups(&mut table).await;
    transactions(&mut table).await;
    for api in APIS.iter().filter(|api| !EXEMPT.contains(&api.key)) {
        assert!(table.seen.contains(&(api.key as i16)), "{:?} has no row", api.key);
    }
    table.server.stop().await;
}

async fn records(table: &mut Table) {
    let batch = [(0, data::batch(&["x"]))];
    table.check(TOPIC, 9, data::produce(9, "a", Uuid::nil(), &batch)).await;
    let partition = FetchPartition::default().with_partition_max_bytes(1_000);
    let of = FetchTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    let fetch = FetchRequest::default().with_max_bytes(1_000).with_topics(vec![of]);
    table.check(TOPIC, 11, fetch).await;
    let partition = ListOffsetsPartition::default().with_timestamp(-1);
    let of = ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    table.check(TOPIC, 7, ListOffsetsRequest::default().with_topics(vec![of])).await;
    let partition = DeleteRecordsPartition::default().with_offset(-1);
    let of = DeleteRecordsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    table.check(TOPIC, 2, DeleteRecordsRequest::default().with_topics(vec![of])).await;
    let partition = OffsetForLeaderPartition::default().with_leader_epoch(1);
    let of = OffsetForLeaderTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    table.check(TOPIC, 4, OffsetForLeaderEpochRequest::default().with_topics(vec![of])).await;
    let of = describe_producers_request::TopicRequest::default()
        .with_name(topic())
        .with_partition_indexes(vec![0]);
    table.check(TOPIC, 0, DescribeProducersRequest::default().with_topics(vec![of])).await;
    let init = InitProducerIdRequest::default().with_transactional_id(Some(id()));
    table.check(TRANSACTIONAL_ID, 5, init.with_transaction_timeout_ms(1_000)).await;
}

async fn topics(table: &mut Table) {
    let of = MetadataRequestTopic::default().with_name(Some(topic()));
    table.check(TOPIC, 9, MetadataRequest::default().with_topics(Some(vec![of]))).await;
    let of = TopicRequest::default().with_name(topic());
    let describe = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![of])
        .with_response_partition_limit(10);
    table.check(TOPIC, 0, describe).await;
    let of = DeleteTopicState::default().with_name(Some(topic()));
    table.check(TOPIC, 6, DeleteTopicsRequest::default().with_topics(vec![of])).await;
    table.check(TOPIC, 3, DeleteTopicsRequest::default().with_topic_names(vec![topic()])).await;
    let of = CreatePartitionsTopic::default().with_name(topic()).with_count(3);
    table.check(TOPIC, 3, CreatePartitionsRequest::default().with_topics(vec![of])).await;
}

/// Topics are configured by type 2, the server by type 4.
async fn configs(table: &mut Table) {
    for (code, kind, name) in [(TOPIC, 2, "a"), (CLUSTER, 4, "1")] {
        let of = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name));
        let describe = DescribeConfigsRequest::default().with_resources(vec![of]);
        table.check(code, 4, describe).await;
        let config = alter_configs_request::AlterableConfig::default()
            .with_name(text("retention.ms"))
            .with_value(Some(text("1000")));
        let of = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(vec![config]);
        table.check(code, 2, AlterConfigsRequest::default().with_resources(vec![of])).await;
        let config = incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text("retention.ms"))
            .with_value(Some(text("1000")));
        let of = Increment::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configs(vec![config]);
        let alter = IncrementalAlterConfigsRequest::default().with_resources(vec![of]);
        table.check(code, 1, alter).await;
    }
}

async fn cluster(table: &mut Table) {
    table.check(CLUSTER, 4, DescribeLogDirsRequest::default().with_topics(None)).await;
    table.check(CLUSTER, 3, DescribeAclsRequest::default()).await;
    let creation = kafka_protocol::messages::create_acls_request::AclCreation::default();
    table.check(CLUSTER, 3, CreateAclsRequest::default().with_creations(vec![creation])).await;
    let filter = kafka_protocol::messages::delete_acls_request::DeleteAclsFilter::default();
    table.check(CLUSTER, 3, DeleteAclsRequest::default().with_filters(vec![filter])).await;
    table.check(CLUSTER, 2, ElectLeadersRequest::default().with_topic_partitions(None)).await;
    let of = ReassignableTopic::default().with_name(topic());
    let reassign = AlterPartitionReassignmentsRequest::default().with_topics(vec![of]);
    table.check(CLUSTER, 0, reassign).await;
    table.check(CLUSTER, 0, ListPartitionReassignmentsRequest::default().with_topics(None)).await;
    let of = AlterReplicaLogDirTopic::default().with_name(topic()).with_partitions(vec![0]);
    let directory = AlterReplicaLogDir::default().with_topics(vec![of]);
    let alter = AlterReplicaLogDirsRequest::default().with_dirs(vec![directory]);
    table.check(CLUSTER, 2, alter).await;
    table.check(CLUSTER, 1, ListConfigResourcesRequest::default()).await;
    table.check(CLUSTER, 0, DescribeUserScramCredentialsRequest::default()).await;
    let of = ScramCredentialUpsertion::default()
        .with_name(text("alice"))
        .with_mechanism(1)
        .with_iterations(4096)
        .with_salt(Bytes::from_static(b"salt"))
        .with_salted_password(Bytes::from_static(&[1; 32]));
    let alter = AlterUserScramCredentialsRequest::default().with_upsertions(vec![of]);
    table.check(CLUSTER, 0, alter).await;
    table.check(CLUSTER, 1, DescribeClientQuotasRequest::default()).await;
    let part = alter_client_quotas_request::EntityData::default()
        .with_entity_type(text("user"))
        .with_entity_name(Some(text("alice")));
    let operation = alter_client_quotas_request::OpData::default()
        .with_key(text("producer_byte_rate"))
        .with_value(1_000.0);
    let of = alter_client_quotas_request::EntryData::default()
        .with_entity(vec![part])
        .with_ops(vec![operation]);
    table.check(CLUSTER, 1, AlterClientQuotasRequest::default().with_entries(vec![of])).await;
}

async fn groups(table: &mut Table) {
    let find = FindCoordinatorRequest::default().with_key(text("g"));
    table.check(GROUP, 2, find.clone()).await;
    table.check(GROUP, 4, find.with_key(text("")).with_coordinator_keys(vec![text("g")])).await;
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    let join = JoinGroupRequest::default()
        .with_group_id(group())
        .with_session_timeout_ms(10_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    table.check(GROUP, 5, join).await;
    table.check(GROUP, 3, SyncGroupRequest::default().with_group_id(group())).await;
    table.check(GROUP, 3, HeartbeatRequest::default().with_group_id(group())).await;
    table.check(GROUP, 2, LeaveGroupRequest::default().with_group_id(group())).await;
    let beat = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group())
        .with_member_id(text("m"))
        .with_rebalance_timeout_ms(1_000)
        .with_subscribed_topic_names(Some(vec![topic()]))
        .with_topic_partitions(Some(Vec::new()));
    for code in [GROUP, TOPIC] {
        table.check(code, 1, beat.clone()).await;
    }
    let describe = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group()]);
    table.check(GROUP, 1, describe).await;
    table.check(GROUP, 5, DescribeGroupsRequest::default().with_groups(vec![group()])).await;
    table.check(GROUP, 2, DeleteGroupsRequest::default().with_groups_names(vec![group()])).await;
    for code in [GROUP, TOPIC] {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
        let of =
            OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
        let commit = OffsetCommitRequest::default()
            .with_group_id(group())
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![of]);
        table.check(code, 7, commit).await;
        let of =
            OffsetFetchRequestTopic::default().with_name(topic()).with_partition_indexes(vec![0]);
        let fetch =
            OffsetFetchRequest::default().with_group_id(group()).with_topics(Some(vec![of]));
        table.check(code, 5, fetch).await;
    }
    let of = OffsetDeleteRequestTopic::default()
        .with_name(topic())
        .with_partitions(vec![OffsetDeleteRequestPartition::default()]);
    let delete = OffsetDeleteRequest::default().with_group_id(group()).with_topics(vec![of]);
    table.check(GROUP, 0, delete).await;
}

async fn transactions(table: &mut Table) {
    let of = AddPartitionsToTxnTopic::default().with_name(topic()).with_partitions(vec![0]);
    let add = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(id())
        .with_v3_and_below_topics(vec![of.clone()]);
    table.check(TRANSACTIONAL_ID, 3, add.clone()).await;
    table.check(TOPIC, 3, add).await;
    let of =
        AddPartitionsToTxnTransaction::default().with_transactional_id(id()).with_topics(vec![of]);
    let add = AddPartitionsToTxnRequest::default().with_transactions(vec![of]);
    for code in [TRANSACTIONAL_ID, TOPIC, CLUSTER] {
        table.check(code, 5, add.clone()).await;
    }
    let add = AddOffsetsToTxnRequest::default().with_transactional_id(id()).with_group_id(group());
    table.check(TRANSACTIONAL_ID, 4, add.clone()).await;
    table.check(GROUP, 4, add).await;
    let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(1);
    let of =
        TxnOffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let commit = TxnOffsetCommitRequest::default()
        .with_transactional_id(id())
        .with_group_id(group())
        .with_topics(vec![of]);
    for code in [TRANSACTIONAL_ID, GROUP, TOPIC] {
        table.check(code, 5, commit.clone()).await;
    }
    table.check(TRANSACTIONAL_ID, 4, EndTxnRequest::default().with_transactional_id(id())).await;
    let describe = DescribeTransactionsRequest::default().with_transactional_ids(vec![id()]);
    table.check(TRANSACTIONAL_ID, 0, describe).await;
    let find = FindCoordinatorRequest::default().with_key_type(1).with_key(text("t"));
    table.check(TRANSACTIONAL_ID, 2, find).await;
    let batch = [(0, data::batch(&["x"]))];
    let produce = data::produce(9, "a", Uuid::nil(), &batch).with_transactional_id(Some(id()));
    table.check(TRANSACTIONAL_ID, 9, produce).await;
}

#[tokio::test]
async fn denied_transactions_are_not_listed() {
    let denies = Arc::new(Denies::default());
    let server = Server::start_with(KafkaOptions::default(), denies.clone()).await;
    let mut client = server.client().await;
    let init = InitProducerIdRequest::default().with_transactional_id(Some(id()));
    let init = init.with_transaction_timeout_ms(1_000);
    assert_eq!(client.call(4, init).await.error_code, 0);
    for (code, count) in [(0, 1), (TRANSACTIONAL_ID, 0)] {
        *denies.0.lock() = code;
        let listed = client.call(1, ListTransactionsRequest::default()).await;
        assert_eq!((listed.error_code, listed.transaction_states.len()), (0, count));
    }
    server.stop().await;
}

/// A topic may be created by who may create in the whole cluster or this one.
#[tokio::test]
async fn a_creation_is_denied_by_both() {
    #[derive(Debug)]
    struct NoCreation;
    impl Authorizer for NoCreation {
        fn decide(&self, _: &Principal, action: Action, _: Resource<'_>) -> Decision {
            if action == Action::Create { Decision::Deny } else { Decision::Allow }
        }
    }
    let server = Server::start_with(KafkaOptions::default(), Arc::new(NoCreation)).await;
    let mut client = server.client().await;
    let of = CreatableTopic::default()
        .with_name(topic())
        .with_num_partitions(1)
        .with_replication_factor(1);
    let response = client.call(7, CreateTopicsRequest::default().with_topics(vec![of])).await;
    assert_eq!(response.topics[0].error_code, TOPIC);
    let of = MetadataRequestTopic::default().with_name(Some(topic()));
    let asked =
        MetadataRequest::default().with_topics(Some(vec![of])).with_allow_auto_topic_creation(true);
    assert_eq!(client.call(9, asked).await.topics[0].error_code, TOPIC);
    assert!(server.store.list_streams(&TenantName::default_tenant()).is_empty());
    server.stop().await;
}
