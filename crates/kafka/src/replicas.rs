//! `ElectLeaders`, `AlterPartitionReassignments`, `ListPartitionReassignments`,
//! `AlterReplicaLogDirs`: there is one broker with one directory, which has and
//! leads everything, and nothing moves.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Action, Resource};
use crate::broker::NODE_ID;
use crate::call::Call;
use crate::create_topics::is_here;
use crate::refusal::Refusal;
use crate::topic::Topic;

/// Whether a partition is there.
fn find(call: &Call, topic: &TopicName, partition: i32) -> Result<(), Refusal> {
    let topic = Topic::named(call, topic).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
    let index = u32::try_from(partition).ok().filter(|index| *index < topic.shape.partitions);
    index.map(|_| ()).ok_or_else(|| ResponseError::UnknownTopicOrPartition.into())
}

pub(crate) async fn elect(call: &Call, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let response = ElectLeadersResponse::default();
    if !call.allows(Action::Alter, Resource::Cluster) {
        let code = ResponseError::ClusterAuthorizationFailed.code();
        return if call.version >= 1 { response.with_error_code(code) } else { response };
    }
    // All partitions have their leader, and only changes are told of those.
    let topics = request.topic_partitions.unwrap_or_default().into_iter();
    let results = topics.map(|asked| {
        let partitions = asked.partitions.iter().map(|index| {
            let refusal = find(call, &asked.topic, *index).err().unwrap_or_else(|| {
                let why = "the leader is the one that there is";
                Refusal::new(ResponseError::ElectionNotNeeded, why)
            });
            PartitionResult::default()
                .with_partition_id(*index)
                .with_error_code(refusal.code.code())
                .with_error_message(refusal.text())
        });
        let partitions = partitions.collect();
        ReplicaElectionResult::default().with_topic(asked.topic).with_partition_result(partitions)
    });
    response.with_replica_election_results(results.collect())
}

pub(crate) async fn alter(
    call: &Call,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let response = AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change);
    if !call.allows(Action::Alter, Resource::Cluster) {
        let refusal = Refusal::from(ResponseError::ClusterAuthorizationFailed);
        return response.with_error_code(refusal.code.code()).with_error_message(refusal.text());
    }
    let responses = request.topics.into_iter().map(|asked| {
        let partitions = asked.partitions.iter().map(|partition| {
            let result = ReassignablePartitionResponse::default()
                .with_partition_index(partition.partition_index)
                .with_error_message(None);
            match reassign(call, &asked.name, partition) {
                Ok(()) => result,
                Err(refusal) => {
                    result.with_error_code(refusal.code.code()).with_error_message(refusal.text())
                }
            }
        });
        let partitions = partitions.collect();
        ReassignableTopicResponse::default().with_name(asked.name).with_partitions(partitions)
    });
    let responses = responses.collect();
    response.with_error_message(None::<StrBytes>).with_responses(responses)
}

fn reassign(
    call: &Call,
    topic: &TopicName,
    partition: &ReassignablePartition,
) -> Result<(), Refusal> {
    find(call, topic, partition.partition_index)?;
    match &partition.replicas {
        // Nothing is under way that could be given up.
        None => Err(ResponseError::NoReassignmentInProgress.into()),
        Some(replicas) if is_here(replicas) => Ok(()),
        Some(_) => Err(Refusal::new(
            ResponseError::InvalidReplicaAssignment,
            format!("there is only broker {NODE_ID} to assign it to"),
        )),
    }
}

pub(crate) async fn list(
    call: &Call,
    _: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let response = ListPartitionReassignmentsResponse::default().with_error_message(None);
    if call.allows(Action::Describe, Resource::Cluster) {
        return response;
    }
    let refusal = Refusal::from(ResponseError::ClusterAuthorizationFailed);
    response.with_error_code(refusal.code.code()).with_error_message(refusal.text())
}

pub(crate) async fn alter_directories(
    call: &Call,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let may = call.allows(Action::Alter, Resource::Cluster);
    let here = call.store().options().data.display().to_string();
    let results = request.dirs.into_iter().flat_map(|directory| {
        let is_here = *directory.path == *here;
        directory.topics.into_iter().map(move |topic| (is_here, topic))
    });
    let results = results.map(|(is_here, topic)| {
        let partitions = topic.partitions.iter().map(|index| {
            let done = match find(call, &topic.name, *index) {
                _ if !may => Err(ResponseError::ClusterAuthorizationFailed.into()),
                Ok(()) if !is_here => Err(ResponseError::LogDirNotFound.into()),
                found => found,
            };
            let code = done.err().map_or(0, |refusal: Refusal| refusal.code.code());
            let result = AlterReplicaLogDirPartitionResult::default();
            result.with_partition_index(*index).with_error_code(code)
        });
        let partitions = partitions.collect();
        let result = AlterReplicaLogDirTopicResult::default().with_topic_name(topic.name);
        result.with_partitions(partitions)
    });
    AlterReplicaLogDirsResponse::default().with_results(results.collect())
}
