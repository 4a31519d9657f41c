//! `OffsetForLeaderEpoch`: where an epoch ends, for clients that look whether
//! what they read is still there (KIP-320).

use aquifer_stream::StreamHandle;
use aquifer_types::{Epoch, PartitionIndex};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use uuid::Uuid;

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::error_code::error_code;
use crate::fetch::check_epoch;
use crate::topic::stream;

/// For an epoch that is not known.
const UNDEFINED: (i32, i64) = (-1, -1);

pub(crate) async fn handle(
    call: &Call,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let found = if call.allows(Action::Describe, Resource::Stream(&topic.topic)) {
            stream(call, &topic.topic, Uuid::nil())
        } else {
            Err(ResponseError::TopicAuthorizationFailed)
        };
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            let end = found.as_ref().map_err(|error| *error);
            match end.and_then(|stream| find(call, stream, asked)) {
                Ok((epoch, end)) => answer.with_leader_epoch(epoch).with_end_offset(end),
                Err(error) => {
                    let (epoch, end) = UNDEFINED;
                    let answer = answer.with_error_code(error.code());
                    answer.with_leader_epoch(epoch).with_end_offset(end)
                }
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn find(
    call: &Call,
    stream: &StreamHandle,
    asked: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ResponseError> {
    let unknown = ResponseError::UnknownTopicOrPartition;
    let index = PartitionIndex(u32::try_from(asked.partition).map_err(|_| unknown)?);
    check_epoch(stream, asked.current_leader_epoch)?;
    let Ok(epoch) = u32::try_from(asked.leader_epoch) else { return Ok(UNDEFINED) };
    if epoch > stream.epoch().get() {
        return Ok(UNDEFINED);
    }
    let found = call.store().offset_for_epoch(stream.path(), index, Epoch(epoch));
    let (epoch, end) = found.map_err(|error| error_code(&error))?;
    Ok((i32::try_from(epoch.get()).unwrap_or(-1), end.get()))
}
