//! `DescribeLogDirs`: what partitions take in the journal and in tier 2.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::topic::topic_name;

pub(crate) async fn handle(
    call: &Call,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
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
