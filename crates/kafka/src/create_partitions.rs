//! `CreatePartitions`: more partitions for a topic. Keys move when it gets them.

use std::collections::HashSet;

use aquifer_stream::StreamUpdate;
use aquifer_types::PARTITIONS_MAX;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use crate::authorizer::{Action, Resource};
use crate::broker::NODE_ID;
use crate::call::Call;
use crate::create_topics::is_here;
use crate::refusal::Refusal;
use crate::topic::Topic;

pub(crate) async fn handle(
    call: &Call,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for topic in &request.topics {
        if !seen.insert(topic.name.clone()) {
            twice.insert(topic.name.clone());
        }
    }
    let mut results = Vec::with_capacity(seen.len());
    for topic in request.topics {
        if !seen.remove(&topic.name) {
            continue;
        }
        let done = if twice.contains(&topic.name) {
            Err(Refusal::new(ResponseError::InvalidRequest, "the topic is named twice"))
        } else {
            create(call, &topic, request.validate_only).await
        };
        let result = CreatePartitionsTopicResult::default().with_name(topic.name);
        results.push(match done {
            Ok(()) => result.with_error_message(None),
            Err(refusal) => {
                result.with_error_code(refusal.code.code()).with_error_message(refusal.text())
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn create(
    call: &Call,
    asked: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    if !call.allows(Action::Alter, Resource::Stream(&asked.name)) {
        return Err(ResponseError::TopicAuthorizationFailed.into());
    }
    let topic =
        Topic::named(call, &asked.name).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
    let have = topic.shape.partitions;
    let count = u32::try_from(asked.count).unwrap_or(0);
    if count <= have || count > PARTITIONS_MAX {
        let why = format!(
            "Topic currently has {have} partitions; it can have {} to {PARTITIONS_MAX}, not {}",
            have + 1,
            asked.count
        );
        return Err(Refusal::new(ResponseError::InvalidPartitions, why));
    }
    if let Some(assignments) = &asked.assignments {
        let more = (count - have) as usize;
        let are_here = assignments.iter().all(|of| is_here(&of.broker_ids));
        if assignments.len() != more || !are_here {
            let why = format!(
                "there are {more} partitions more, each to be assigned to broker {NODE_ID} alone"
            );
            return Err(Refusal::new(ResponseError::InvalidReplicaAssignment, why));
        }
    }
    if validate_only {
        return Ok(());
    }
    let update = StreamUpdate { config: None, partitions: Some(count) };
    call.store().update_stream(&topic.path, update).await?;
    Ok(())
}
