//! `DescribeLogDirs`: what partitions take in the journal and in tier 2.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Action, Resource};
use crate::call::{Answer, Call, IntoAnswer};
use crate::frame::FrameError;
use crate::topic::topic_name;

/// From this version on a directory says whether new partitions stay away from it
/// (KIP-1066).
const CORDONED_MIN: i16 = 5;

/// An answer that the codec writes without what is new in the latest version.
pub(crate) struct Described(DescribeLogDirsResponse);

impl IntoAnswer for Described {
    fn into_answer(self, call: &Call) -> Result<Answer, FrameError> {
        // The flag is the last field of a directory, of which there is one; its
        // tagged fields and those of the answer follow, without any.
        const BEHIND: usize = 2;
        let has_flag = call.version >= CORDONED_MIN && !self.0.results.is_empty();
        let answer = self.0.into_answer(call)?;
        let Answer::Frame(pieces) = answer else { return Ok(answer) };
        if !has_flag {
            return Ok(Answer::Frame(pieces));
        }
        let mut frame = pieces.concat();
        frame.insert(frame.len().saturating_sub(BEHIND), 0);
        let length = frame.len().saturating_sub(size_of::<i32>());
        if let (Ok(length), Some(prefix)) = (i32::try_from(length), frame.first_chunk_mut()) {
            *prefix = length.to_be_bytes();
        }
        Ok(Answer::Frame(vec![frame.into()]))
    }
}

pub(crate) async fn handle(call: &Call, request: DescribeLogDirsRequest) -> Described {
    Described(describe(call, request))
}

fn describe(call: &Call, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let response = DescribeLogDirsResponse::default();
    if !call.allows(Action::Describe, Resource::Cluster) {
        // Earlier versions say it with an empty list.
        let code = ResponseError::ClusterAuthorizationFailed.code();
        return if call.version >= 3 { response.with_error_code(code) } else { response };
    }
    // The partitions that are asked for, of the topics that are; none are all.
    let asked: BTreeMap<TopicName, Option<HashSet<i32>>> = match request.topics {
        Some(topics) => {
            let mut asked = BTreeMap::new();
            for topic in topics {
                let indexes = asked.entry(topic.topic).or_insert_with(|| Some(HashSet::new()));
                indexes.iter_mut().for_each(|of| of.extend(&topic.partitions));
            }
            asked
        }
        None => {
            let streams = call.store().list_stream_shapes(&call.principal.tenant);
            streams.iter().map(|(path, _)| (topic_name(path.name.as_str()), None)).collect()
        }
    };
    let topics = asked.into_iter().filter_map(|(name, indexes)| described(call, name, indexes));
    let directory = call.store().options().data.display().to_string();
    let result = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(directory))
        .with_topics(topics.collect())
        // Tier 2 has no end that is known.
        .with_total_bytes(-1)
        .with_usable_bytes(-1);
    response.with_results(vec![result])
}

/// A topic's partitions; nothing where none of them is there.
fn described(
    call: &Call,
    name: TopicName,
    indexes: Option<HashSet<i32>>,
) -> Option<DescribeLogDirsTopic> {
    let stream = call.store().describe_stream(&call.path(&name).ok()?).ok()?;
    let partitions = stream.partitions.iter().filter_map(|partition| {
        let index = i32::try_from(partition.partition.get()).ok()?;
        if indexes.as_ref().is_some_and(|asked| !asked.contains(&index)) {
            return None;
        }
        Some(
            DescribeLogDirsPartition::default()
                .with_partition_index(index)
                .with_partition_size(i64::try_from(partition.bytes).unwrap_or(i64::MAX))
                .with_offset_lag(0),
        )
    });
    let partitions: Vec<_> = partitions.collect();
    (!partitions.is_empty())
        .then(|| DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions))
}
