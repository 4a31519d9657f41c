//! `ListOffsets`: where a partition begins and ends, and what lies at a time.

use aquifer_stream::{Isolation, PartitionHandle};
use aquifer_types::{PartitionIndex, Timestamp};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use uuid::Uuid;

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::error_code::error_code;
use crate::fetch::check_epoch;
use crate::topic::stream;

/// What stands in the place of a timestamp, for a position without one.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING: i64 = -6;
/// The versions that know the last four (KIP-734, KIP-405, KIP-1005, KIP-1023).
const MAX_TIMESTAMP_MIN: i16 = 7;
const EARLIEST_LOCAL_MIN: i16 = 8;
const LATEST_TIERED_MIN: i16 = 9;
const EARLIEST_PENDING_MIN: i16 = 11;

/// An offset and the timestamp that goes with it; −1 for none.
type Found = (i64, i64);

pub(crate) async fn handle(call: &Call, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation = match request.isolation_level {
        1 => Isolation::Committed,
        _ => Isolation::Uncommitted,
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        topics.push(list(call, topic, isolation).await);
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn list(
    call: &Call,
    topic: ListOffsetsTopic,
    isolation: Isolation,
) -> ListOffsetsTopicResponse {
    let found = if call.allows(Action::Describe, Resource::Stream(&topic.name)) {
        stream(call, &topic.name, Uuid::nil())
    } else {
        Err(ResponseError::TopicAuthorizationFailed)
    };
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for asked in topic.partitions {
        let unknown = ResponseError::UnknownTopicOrPartition;
        let partition = found.as_ref().map_err(|error| *error).and_then(|stream| {
            check_epoch(stream, asked.current_leader_epoch)?;
            let index = u32::try_from(asked.partition_index).map_err(|_| unknown)?;
            let partition = stream.partition(PartitionIndex(index)).map_err(|_| unknown)?;
            Ok((partition, stream.epoch()))
        });
        let result = match partition {
            Ok((partition, epoch)) => {
                let found = find(call, &partition, &asked, isolation).await;
                found.map(|(offset, timestamp)| (offset, timestamp, epoch.get()))
            }
            Err(error) => Err(error),
        };
        let answer =
            ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
        partitions.push(match result {
            Ok((offset, timestamp, epoch)) => {
                let knows_epochs = call.version >= 4 && offset >= 0;
                let epoch = if knows_epochs { i32::try_from(epoch).unwrap_or(-1) } else { -1 };
                answer.with_offset(offset).with_timestamp(timestamp).with_leader_epoch(epoch)
            }
            Err(error) => answer.with_error_code(error.code()).with_offset(-1).with_timestamp(-1),
        });
    }
    ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
}

async fn find(
    call: &Call,
    partition: &PartitionHandle,
    asked: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Found, ResponseError> {
    let store = call.store();
    let offsets = partition.offsets();
    let needs = |version| {
        if call.version < version { Err(ResponseError::UnsupportedVersion) } else { Ok(()) }
    };
    let found = match asked.timestamp {
        LATEST => return Ok((offsets.visible(isolation).get(), -1)),
        EARLIEST => return Ok((offsets.start.get(), -1)),
        // What is in tier 2 is not in the journal any more, and the other way round.
        EARLIEST_LOCAL | EARLIEST_PENDING => {
            let is_local = asked.timestamp == EARLIEST_LOCAL;
            needs(if is_local { EARLIEST_LOCAL_MIN } else { EARLIEST_PENDING_MIN })?;
            return Ok((offsets.tiered.max(offsets.start).get(), -1));
        }
        LATEST_TIERED => {
            needs(LATEST_TIERED_MIN)?;
            let is_tiered = offsets.tiered > offsets.start;
            return Ok((if is_tiered { offsets.tiered.get() - 1 } else { -1 }, -1));
        }
        MAX_TIMESTAMP => {
            needs(MAX_TIMESTAMP_MIN)?;
            store.find_newest(partition, isolation).await
        }
        timestamp if timestamp < 0 => return Err(ResponseError::UnsupportedVersion),
        timestamp => store.find_time(partition, Timestamp(timestamp), isolation).await,
    };
    let found = found.map_err(|error| error_code(&error))?;
    Ok(found.map_or((-1, -1), |(offset, timestamp)| (offset.get(), timestamp.get())))
}
