//! `DeleteRecords`: the beginning of a partition becomes unreadable.

use std::collections::BTreeMap;

use aquifer_stream::{StreamHandle, Truncation};
use aquifer_types::{Offset, PartitionIndex};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsTopic;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use uuid::Uuid;

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::error_code::error_code;
use crate::topic::stream;

/// Stands for the end.
const ALL: i64 = -1;

pub(crate) async fn handle(call: &Call, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        topics.push(delete(call, topic).await);
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

async fn delete(call: &Call, topic: DeleteRecordsTopic) -> DeleteRecordsTopicResult {
    let found = if call.allows(Action::Delete, Resource::Stream(&topic.name)) {
        stream(call, &topic.name, Uuid::nil())
    } else {
        Err(ResponseError::TopicAuthorizationFailed)
    };
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for asked in topic.partitions {
        let deleted = match &found {
            Ok(stream) => cut(call, stream, asked.partition_index, asked.offset).await,
            Err(error) => Err(*error),
        };
        let answer =
            DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
        partitions.push(match deleted {
            Ok(start) => answer.with_low_watermark(start.get()),
            Err(error) => answer.with_low_watermark(-1).with_error_code(error.code()),
        });
    }
    DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
}

/// Returns where the partition begins afterwards.
async fn cut(
    call: &Call,
    stream: &StreamHandle,
    index: i32,
    offset: i64,
) -> Result<Offset, ResponseError> {
    let unknown = ResponseError::UnknownTopicOrPartition;
    let index = PartitionIndex(u32::try_from(index).map_err(|_| unknown)?);
    let partition = stream.partition(index).map_err(|_| unknown)?;
    let offset = if offset == ALL { partition.offsets().end } else { Offset(offset) };
    if offset < Offset::ZERO || offset > partition.offsets().end {
        return Err(ResponseError::OffsetOutOfRange);
    }
    let to = Truncation::Cut(BTreeMap::from([(index, offset)]));
    let cut = call.store().truncate_stream(stream.path(), to).await;
    cut.map_err(|error| error_code(&error))?;
    Ok(partition.offsets().start)
}
