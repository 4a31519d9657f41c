//! `DescribeProducers`: who appended to a partition, and which transactions are
//! open in it (KIP-664).

use std::collections::HashSet;

use aquifer_stream::ProducerDescription;
use aquifer_types::{Offset, PartitionIndex};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::error_code::error_code;

pub(crate) async fn handle(
    call: &Call,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    // A partition with many producers that is named often is described once.
    let mut seen = HashSet::new();
    let topics = request.topics.into_iter().map(|topic| {
        let asked = topic.partition_indexes.iter();
        let asked = asked.filter(|index| seen.insert((topic.name.clone(), **index)));
        let partitions = asked.map(|index| {
            let answer = PartitionResponse::default().with_partition_index(*index);
            match describe(call, &topic.name, *index) {
                Ok(producers) => answer.with_active_producers(producers),
                Err(error) => answer.with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

fn describe(call: &Call, topic: &str, index: i32) -> Result<Vec<ProducerState>, ResponseError> {
    if !call.allows(Action::Read, Resource::Stream(topic)) {
        return Err(ResponseError::TopicAuthorizationFailed);
    }
    let path = call.path(topic)?;
    let index = u32::try_from(index).map_err(|_| ResponseError::UnknownTopicOrPartition)?;
    let found = call.store().describe_producers(&path, PartitionIndex(index));
    let found = found.map_err(|error| error_code(&error))?;
    Ok(found.iter().map(state).collect())
}

fn state(producer: &ProducerDescription) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.producer.get()))
        .with_producer_epoch(producer.epoch.get().into())
        .with_last_sequence(producer.last_sequence.get())
        .with_last_timestamp(producer.last_used.get())
        .with_coordinator_epoch(-1)
        .with_current_txn_start_offset(producer.transaction_start.map_or(-1, Offset::get))
}
