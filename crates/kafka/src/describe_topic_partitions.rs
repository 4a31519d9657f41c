//! `DescribeTopicPartitions`: topics in pages of partitions (KIP-966).

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};

use crate::authorizer::{Action, Resource};
use crate::broker::NODE_ID;
use crate::call::Call;
use crate::topic::{OPERATIONS_NOT_ASKED, Topic, replicas, topic_name, topic_operations};

/// Partitions in one answer, whatever the client asks for.
const PARTITIONS_MAX: usize = 2_000;

pub(crate) async fn handle(
    call: &Call,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let names: BTreeSet<TopicName> = if request.topics.is_empty() {
        let streams = call.store().list_stream_shapes(&call.principal.tenant);
        let names = streams.iter().map(|(path, _)| path.name.as_str());
        let seen = names.filter(|name| call.allows(Action::Describe, Resource::Stream(name)));
        seen.map(topic_name).collect()
    } else {
        request.topics.into_iter().map(|topic| topic.name).collect()
    };
    let (first, mut from) = match request.cursor {
        Some(cursor) => (cursor.topic_name, u32::try_from(cursor.partition_index).unwrap_or(0)),
        None => (TopicName::default(), 0),
    };
    let asked = usize::try_from(request.response_partition_limit).unwrap_or(PARTITIONS_MAX);
    let mut left = asked.clamp(1, PARTITIONS_MAX);
    let mut response = DescribeTopicPartitionsResponse::default().with_next_cursor(None);
    for name in names.range(first.clone()..) {
        let start = if *name == first { from } else { 0 };
        from = 0;
        let topic = match find(call, name) {
            Ok(topic) => topic,
            Err(code) => {
                response.topics.push(failed(name, code));
                continue;
            }
        };
        let next = |index: u32| {
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            Some(Cursor::default().with_topic_name(name.clone()).with_partition_index(index))
        };
        if left == 0 {
            response.next_cursor = next(0);
            break;
        }
        let end = topic.shape.partitions.min(start.saturating_add(left as u32));
        response.topics.push(described(call, &topic, start..end));
        left -= end.saturating_sub(start) as usize;
        if end < topic.shape.partitions {
            response.next_cursor = next(end);
            break;
        }
    }
    response
}

fn find(call: &Call, name: &TopicName) -> Result<Topic, ResponseError> {
    if !call.allows(Action::Describe, Resource::Stream(name)) {
        return Err(ResponseError::TopicAuthorizationFailed);
    }
    Topic::named(call, name)
}

fn described(
    call: &Call,
    topic: &Topic,
    range: std::ops::Range<u32>,
) -> DescribeTopicPartitionsResponseTopic {
    let epoch = i32::try_from(topic.shape.epoch.get()).unwrap_or(i32::MAX);
    let partitions = range.map(|index| {
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(epoch)
            .with_replica_nodes(replicas())
            .with_isr_nodes(replicas())
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic.name()))
        .with_topic_id(topic.shape.id.0)
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(topic_operations(call, topic.path.name.as_str()))
}

fn failed(name: &TopicName, code: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(code.code())
        .with_name(Some(name.clone()))
        .with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
}
