//! The table of APIs: versions, order and handlers.
//!
//! Only versions that tests cover are in it; what is in it is what
//! `ApiVersions` tells. The set follows one release of Kafka, 4.3, so that
//! clients that infer a release from it infer that one.

use bytes::Bytes;
use futures::future::BoxFuture;
use kafka_protocol::messages::{self, ApiKey};
use kafka_protocol::protocol::Decodable;

use crate::call::{Answer, Call, IntoAnswer as _};
use crate::frame::FrameError;

/// How requests of an API stand to the others of their connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Begins when all before it are answered.
    Alone,
    /// As `Alone`; it may wait for long, and is given up when the client goes.
    Waiting,
    /// Begins in order, beside others of its kind, and is answered in order.
    Pipelined,
}

/// One API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Api {
    pub(crate) key: ApiKey,
    pub(crate) min: i16,
    pub(crate) max: i16,
    pub(crate) order: Order,
    /// May be asked before a login.
    pub(crate) is_open: bool,
}

macro_rules! apis {
    ($($key:ident($request:ident) $min:literal..=$max:literal $order:ident $open:literal => $handler:path;)*) => {
        /// Every API that is served.
        pub(crate) const APIS: &[Api] = &[$(Api {
            key: ApiKey::$key,
            min: $min,
            max: $max,
            order: Order::$order,
            is_open: $open,
        }),*];

        /// The API's name, as metrics show it.
        pub(crate) fn name(key: ApiKey) -> &'static str {
            match key {
                $(ApiKey::$key => stringify!($key),)*
                _ => "other",
            }
        }

        /// Decodes a request, lets its handler answer it, and encodes that.
        pub(crate) fn handle(call: Call, body: Bytes) -> BoxFuture<'static, Result<Answer, FrameError>> {
            match call.api {
                $(ApiKey::$key => Box::pin(async move {
                    let request = decode::<messages::$request>(&call, body)?;
                    $handler(&call, request).await.into_answer(&call)
                }),)*
                api => {
                    let version = call.version;
                    Box::pin(async move { Err(FrameError::UnsupportedVersion { api, version }) })
                }
            }
        }
    };
}

// One line an API: key(request) versions order is-open => handler.
apis! {
    Produce(ProduceRequest) 3..=13 Pipelined false => crate::produce::handle;
    Fetch(FetchRequest) 4..=18 Waiting false => crate::fetch::handle;
    ListOffsets(ListOffsetsRequest) 1..=11 Alone false => crate::list_offsets::handle;
    DeleteRecords(DeleteRecordsRequest) 0..=2 Alone false => crate::delete_records::handle;
    OffsetForLeaderEpoch(OffsetForLeaderEpochRequest) 2..=4 Alone false => crate::offset_for_leader_epoch::handle;
    DescribeProducers(DescribeProducersRequest) 0..=0 Alone false => crate::describe_producers::handle;
    InitProducerId(InitProducerIdRequest) 0..=5 Alone false => crate::init_producer_id::handle;
    AddPartitionsToTxn(AddPartitionsToTxnRequest) 0..=5 Alone false => crate::transaction_partitions::add;
    AddOffsetsToTxn(AddOffsetsToTxnRequest) 0..=4 Alone false => crate::transactions::add_offsets;
    // Version 5 gives producers a new epoch with each transaction, which clients
    // ask for where the feature `transaction.version` is on; it is not.
    EndTxn(EndTxnRequest) 0..=4 Alone false => crate::transactions::end;
    TxnOffsetCommit(TxnOffsetCommitRequest) 0..=5 Alone false => crate::transaction_positions::commit;
    DescribeTransactions(DescribeTransactionsRequest) 0..=0 Alone false => crate::transaction_listing::describe;
    ListTransactions(ListTransactionsRequest) 0..=2 Alone false => crate::transaction_listing::list;
    OffsetCommit(OffsetCommitRequest) 2..=9 Alone false => crate::offsets::commit;
    OffsetFetch(OffsetFetchRequest) 1..=9 Alone false => crate::offsets::fetch;
    FindCoordinator(FindCoordinatorRequest) 0..=6 Alone false => crate::find_coordinator::handle;
    JoinGroup(JoinGroupRequest) 0..=9 Waiting false => crate::membership::join;
    Heartbeat(HeartbeatRequest) 0..=4 Alone false => crate::membership::heartbeat;
    LeaveGroup(LeaveGroupRequest) 0..=5 Alone false => crate::membership::leave;
    SyncGroup(SyncGroupRequest) 0..=5 Waiting false => crate::membership::sync;
    DescribeGroups(DescribeGroupsRequest) 0..=6 Alone false => crate::group_admin::describe;
    ListGroups(ListGroupsRequest) 0..=5 Alone false => crate::group_admin::list;
    DeleteGroups(DeleteGroupsRequest) 0..=2 Alone false => crate::group_admin::delete;
    OffsetDelete(OffsetDeleteRequest) 0..=0 Alone false => crate::offsets::delete;
    ConsumerGroupHeartbeat(ConsumerGroupHeartbeatRequest) 0..=1 Alone false => crate::consumer_groups::heartbeat;
    ConsumerGroupDescribe(ConsumerGroupDescribeRequest) 0..=1 Alone false => crate::consumer_groups::describe;
    Metadata(MetadataRequest) 0..=13 Alone false => crate::metadata::handle;
    CreateTopics(CreateTopicsRequest) 2..=7 Alone false => crate::create_topics::handle;
    DeleteTopics(DeleteTopicsRequest) 1..=6 Alone false => crate::delete_topics::handle;
    CreatePartitions(CreatePartitionsRequest) 0..=3 Alone false => crate::create_partitions::handle;
    DescribeConfigs(DescribeConfigsRequest) 1..=4 Alone false => crate::configs::describe;
    AlterConfigs(AlterConfigsRequest) 0..=2 Alone false => crate::configs::alter;
    IncrementalAlterConfigs(IncrementalAlterConfigsRequest) 0..=1 Alone false => crate::configs::incremental_alter;
    ListConfigResources(ListConfigResourcesRequest) 0..=1 Alone false => crate::configs::list;
    DescribeCluster(DescribeClusterRequest) 0..=2 Alone false => crate::describe_cluster::handle;
    DescribeLogDirs(DescribeLogDirsRequest) 1..=5 Alone false => crate::describe_log_dirs::handle;
    DescribeTopicPartitions(DescribeTopicPartitionsRequest) 0..=0 Alone false => crate::describe_topic_partitions::handle;
    DescribeAcls(DescribeAclsRequest) 1..=3 Alone false => crate::acls::describe;
    CreateAcls(CreateAclsRequest) 1..=3 Alone false => crate::acls::create;
    DeleteAcls(DeleteAclsRequest) 1..=3 Alone false => crate::acls::delete;
    ElectLeaders(ElectLeadersRequest) 0..=2 Alone false => crate::replicas::elect;
    AlterPartitionReassignments(AlterPartitionReassignmentsRequest) 0..=1 Alone false => crate::replicas::alter;
    ListPartitionReassignments(ListPartitionReassignmentsRequest) 0..=0 Alone false => crate::replicas::list;
    AlterReplicaLogDirs(AlterReplicaLogDirsRequest) 1..=2 Alone false => crate::replicas::alter_directories;
    SaslHandshake(SaslHandshakeRequest) 0..=1 Alone true => crate::sasl::handshake;
    SaslAuthenticate(SaslAuthenticateRequest) 0..=2 Alone true => crate::sasl::authenticate;
    DescribeUserScramCredentials(DescribeUserScramCredentialsRequest) 0..=0 Alone false => crate::scram_credentials::describe;
    DescribeClientQuotas(DescribeClientQuotasRequest) 0..=1 Alone false => crate::quotas::describe;
    AlterClientQuotas(AlterClientQuotasRequest) 0..=1 Alone false => crate::quotas::alter;
    AlterUserScramCredentials(AlterUserScramCredentialsRequest) 0..=0 Alone false => crate::scram_credentials::alter;
    ApiVersions(ApiVersionsRequest) 0..=4 Alone true => crate::api_versions::handle;
}

/// The API's entry, if it is served.
pub(crate) fn find(key: ApiKey) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key == key)
}

/// Whether this version of the API is served.
pub(crate) fn supports(key: ApiKey, version: i16) -> bool {
    find(key).is_some_and(|api| (api.min..=api.max).contains(&version))
}

/// The version by which the codec reads and writes one that it does not know: its
/// fields are the same (`ListOffsets`), or the handler adds what is new to the
/// answer (`DescribeLogDirs`).
pub(crate) const fn codec_version(api: ApiKey, version: i16) -> i16 {
    match api {
        ApiKey::ListOffsets if version > 10 => 10,
        ApiKey::DescribeLogDirs if version > 4 => 4,
        _ => version,
    }
}

/// Decodes a body that was walked. What stands behind it is passed over, as Kafka
/// does: librdkafka asks for all topics with a count of four bytes where one is
/// due.
fn decode<R: Decodable>(call: &Call, mut body: Bytes) -> Result<R, FrameError> {
    let (api, version) = (call.api, call.version);
    // An ApiVersions request of a version from the future has no body that can
    // be read; its answer needs none.
    let version = if supports(api, version) { version } else { 0 };
    R::decode(&mut body, codec_version(api, version)).map_err(|error| {
        let why = error.to_string();
        FrameError::Malformed { api, version, why }
    })
}
