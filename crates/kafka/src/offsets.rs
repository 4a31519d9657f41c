//! `OffsetCommit`, `OffsetFetch` and `OffsetDelete`: how far groups are.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_stream::{Error, GroupPosition, Operation, POSITION_METADATA_BYTES_MAX, PositionNote};
use aquifer_types::{Epoch, Offset, Partition, PartitionIndex, StreamPath};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::error_code::error_code;
use crate::groups::{CommitBy, GroupKey};
use crate::membership::{asker, key, readable};
use crate::topic::{StoreTopics, Topic};

/// The first version of `OffsetFetch` for many groups.
const FETCH_BATCHED: i16 = 8;
/// What stands where there is no position.
const NO_OFFSET: i64 = -1;
/// What stands where no leader epoch is known.
const NO_EPOCH: i32 = -1;

/// A position that can be committed.
pub(crate) type Committed = (Partition, Offset, PositionNote);

/// What a client commits of a partition.
pub(crate) struct Asked<'a> {
    pub(crate) index: i32,
    pub(crate) offset: i64,
    /// -1 where it says none.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: Option<&'a StrBytes>,
}

/// What clients of a coordinator take for "try again".
pub(crate) fn coordinator_code(error: &Error) -> ResponseError {
    match error_code(error) {
        ResponseError::NotEnoughReplicas
        | ResponseError::NotEnoughReplicasAfterAppend
        | ResponseError::NotLeaderOrFollower
        | ResponseError::RequestTimedOut => ResponseError::CoordinatorNotAvailable,
        code => code,
    }
}

/// The partition of a topic that a client may use.
pub(crate) fn partition(
    topic: &Result<Topic, ResponseError>,
    index: i32,
) -> Result<Partition, ResponseError> {
    let topic = topic.as_ref().map_err(|error| *error)?;
    match u32::try_from(index) {
        Ok(index) if index < topic.shape.partitions => {
            Ok(Partition::new(topic.shape.id, PartitionIndex(index)))
        }
        _ => Err(ResponseError::UnknownTopicOrPartition),
    }
}

/// The topic of this name, if the principal may do that to it.
pub(crate) fn topic(call: &Call, action: Action, name: &str) -> Result<Topic, ResponseError> {
    if !call.allows(action, Resource::Stream(name)) {
        return Err(ResponseError::TopicAuthorizationFailed);
    }
    Topic::named(call, name)
}

pub(crate) async fn commit(call: &Call, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut positions = Vec::new();
    let mut topics: Vec<OffsetCommitResponseTopic> = Vec::with_capacity(request.topics.len());
    for asked in &request.topics {
        let of_topic = asked.partitions.iter().map(|of| Asked {
            index: of.partition_index,
            offset: of.committed_offset,
            leader_epoch: of.committed_leader_epoch,
            metadata: of.committed_metadata.as_ref(),
        });
        let codes = check_positions(call, &asked.name, of_topic, &mut positions);
        let partitions = codes.into_iter().map(|(index, code)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        topics.push(
            OffsetCommitResponseTopic::default()
                .with_name(asked.name.clone())
                .with_partitions(partitions),
        );
    }
    let committed = match readable(call, &request.group_id) {
        Ok(key) => commit_positions(call, &key, &request, positions).await,
        Err(error) => Err(error),
    };
    if let Err(error) = committed {
        let all = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        // What was wrong with a partition itself says more.
        all.filter(|of| of.error_code == 0).for_each(|of| of.error_code = error.code());
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// Checks what a client commits of one topic: partitions, offsets and notes. As
/// in Kafka, no offset is refused: clients take a negative one for none. What
/// can be committed goes to `positions`; answered is a code for each partition.
pub(crate) fn check_positions<'a>(
    call: &Call,
    name: &str,
    asked: impl Iterator<Item = Asked<'a>>,
    positions: &mut Vec<Committed>,
) -> Vec<(i32, i16)> {
    let found = topic(call, Action::Read, name);
    let check = |Asked { index, offset, leader_epoch, metadata }: Asked<'_>| {
        let metadata = metadata.map(ToString::to_string).unwrap_or_default();
        let leader_epoch = u32::try_from(leader_epoch).ok().map(Epoch);
        let note = PositionNote { metadata, leader_epoch };
        let checked = partition(&found, index).and_then(|at| match note.metadata.len() {
            0..=POSITION_METADATA_BYTES_MAX => Ok((at, Offset(offset), note)),
            _ => Err(ResponseError::OffsetMetadataTooLarge),
        });
        let code = checked.as_ref().err().map_or(0, |error| error.code());
        positions.extend(checked);
        (index, code)
    };
    asked.map(check).collect()
}

async fn commit_positions(
    call: &Call,
    key: &GroupKey,
    request: &OffsetCommitRequest,
    positions: Vec<Committed>,
) -> Result<(), ResponseError> {
    let member = asker(&request.member_id, request.group_instance_id.as_ref());
    let partitions: Vec<Partition> = positions.iter().map(|(at, ..)| *at).collect();
    let by = CommitBy {
        asker: &member,
        generation: request.generation_id_or_member_epoch,
        in_transaction: false,
        version: call.version,
        partitions: &partitions,
    };
    let (tenant, group) = (key.tenant.clone(), key.group.clone());
    let commit = async {
        if positions.is_empty() {
            return Ok(());
        }
        let operation = Operation::CommitPositions { tenant, group, positions };
        call.store().commit(vec![operation]).await.map(|_| ())
    };
    let groups = &call.broker.groups;
    let done = groups.commit(key, by, commit).await?;
    done.map_err(|error| match error {
        // A stream was deleted on the way.
        Error::Overtaken(_) => ResponseError::UnknownTopicOrPartition,
        error => coordinator_code(&error),
    })
}

/// Topics and partitions of one group, or all of them.
type Wanted = Option<Vec<(TopicName, Vec<i32>)>>;

/// Partitions whose positions may be about to change; none where a client does
/// not ask for stable ones (KIP-447).
type Unstable = BTreeSet<(StreamPath, PartitionIndex)>;

/// One partition of an answer.
struct Fetched {
    index: i32,
    position: Result<Option<GroupPosition>, ResponseError>,
}

pub(crate) async fn fetch(call: &Call, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if call.version < FETCH_BATCHED {
        return fetch_one(call, request);
    }
    // All positions of a group are answered once, however often it is named.
    let mut told = BTreeSet::new();
    let groups = request.groups.into_iter();
    let groups = groups.filter(|of| of.topics.is_some() || told.insert(of.group_id.clone()));
    let groups = groups.map(|of| {
        let asked = of.topics.map(|topics| {
            topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()
        });
        let answer = OffsetFetchResponseGroup::default().with_group_id(of.group_id.clone());
        let member = of.member_id.as_ref().map(StrBytes::as_str);
        let checked = check_member(call, &of.group_id, member, of.member_epoch);
        let fetched =
            checked.and_then(|()| fetch_group(call, &of.group_id, asked, request.require_stable));
        match fetched {
            Err(error) => answer.with_error_code(error.code()),
            Ok(fetched) => answer.with_topics(fetched.into_iter().map(to_topics).collect()),
        }
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

/// Whether the member of a consumer group, if it is from one, is told positions
/// in its epoch.
fn check_member(
    call: &Call,
    group: &str,
    member: Option<&str>,
    epoch: i32,
) -> Result<(), ResponseError> {
    if member.is_none() || !call.allows(Action::Describe, Resource::Group(group)) {
        return Ok(());
    }
    call.broker.groups.check_fetch(&key(call, group)?, member, epoch)
}

/// Versions before 8 ask for one group.
fn fetch_one(call: &Call, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let asked: Wanted = request.topics.map(|topics| {
        topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect()
    });
    let response = OffsetFetchResponse::default();
    match fetch_group(call, &request.group_id, asked.clone(), request.require_stable) {
        Ok(fetched) => response.with_topics(fetched.into_iter().map(to_topic).collect()),
        // Version 1 has no place for it but the partitions.
        Err(error) if call.version < 2 => {
            let topics = asked.unwrap_or_default().into_iter().map(|(name, indexes)| {
                let fetched = |index| Fetched { index, position: Err(error) };
                to_topic((name, indexes.into_iter().map(fetched).collect()))
            });
            response.with_topics(topics.collect())
        }
        Err(error) => response.with_error_code(error.code()),
    }
}

fn fetch_group(
    call: &Call,
    group: &str,
    asked: Wanted,
    require_stable: bool,
) -> Result<Vec<(TopicName, Vec<Fetched>)>, ResponseError> {
    if !call.allows(Action::Describe, Resource::Group(group)) {
        return Err(ResponseError::GroupAuthorizationFailed);
    }
    let key = key(call, group)?;
    // Asked before the positions are, so that an end between both is seen by one
    // of them.
    let unstable = match require_stable {
        true => call.store().pending_positions(&key.tenant, &key.group).into_iter().collect(),
        false => Unstable::new(),
    };
    match asked {
        Some(asked) => {
            Ok(asked.into_iter().map(|of| fetch_topic(call, &key, of, &unstable)).collect())
        }
        None => Ok(fetch_all(call, &key, &unstable)),
    }
}

fn fetch_topic(
    call: &Call,
    key: &GroupKey,
    (name, indexes): (TopicName, Vec<i32>),
    unstable: &Unstable,
) -> (TopicName, Vec<Fetched>) {
    let found = topic(call, Action::Describe, &name);
    let is_unstable = |at: Partition| {
        let path = found.as_ref().ok().map(|found| found.path.clone());
        path.is_some_and(|path| unstable.contains(&(path, at.index)))
    };
    let fetched = indexes.into_iter().map(|index| {
        let position = match partition(&found, index) {
            Ok(at) if !unstable.is_empty() && is_unstable(at) => {
                Err(ResponseError::UnstableOffsetCommit)
            }
            Ok(at) => {
                let mut positions = call.store().positions_of(&key.tenant, &key.group, &[at]);
                Ok(positions.pop().flatten())
            }
            // What does not exist has no position.
            Err(ResponseError::UnknownTopicOrPartition | ResponseError::InvalidTopicException) => {
                Ok(None)
            }
            Err(error) => Err(error),
        };
        Fetched { index, position }
    });
    let fetched = fetched.collect();
    (name, fetched)
}

fn fetch_all(call: &Call, key: &GroupKey, unstable: &Unstable) -> Vec<(TopicName, Vec<Fetched>)> {
    let mut topics: BTreeMap<String, Vec<Fetched>> = BTreeMap::new();
    for (at, position) in call.store().positions(&key.tenant, &key.group) {
        let Some(path) = call.store().stream_path(at.stream) else { continue };
        if !call.allows(Action::Describe, Resource::Stream(path.name.as_str())) {
            continue;
        }
        let Ok(index) = i32::try_from(at.index.get()) else { continue };
        let topic = path.name.to_string();
        let position = match unstable.contains(&(path, at.index)) {
            true => Err(ResponseError::UnstableOffsetCommit),
            false => Ok(Some(position)),
        };
        topics.entry(topic).or_default().push(Fetched { index, position });
    }
    let name = |name| TopicName(StrBytes::from_string(name));
    topics.into_iter().map(|(topic, fetched)| (name(topic), fetched)).collect()
}

fn to_topic((name, fetched): (TopicName, Vec<Fetched>)) -> OffsetFetchResponseTopic {
    let partitions = fetched.into_iter().map(|of| {
        let (code, offset, leader_epoch, metadata) = of.parts();
        OffsetFetchResponsePartition::default()
            .with_partition_index(of.index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(Some(metadata))
            .with_error_code(code)
    });
    OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
}

fn to_topics((name, fetched): (TopicName, Vec<Fetched>)) -> OffsetFetchResponseTopics {
    let partitions = fetched.into_iter().map(|of| {
        let (code, offset, leader_epoch, metadata) = of.parts();
        OffsetFetchResponsePartitions::default()
            .with_partition_index(of.index)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(leader_epoch)
            .with_metadata(Some(metadata))
            .with_error_code(code)
    });
    OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
}

impl Fetched {
    /// Code, offset, leader epoch and metadata.
    fn parts(&self) -> (i16, i64, i32, StrBytes) {
        match &self.position {
            Ok(Some(position)) => {
                let epoch = position.leader_epoch.and_then(|of| i32::try_from(of.get()).ok());
                let metadata = StrBytes::from_string(position.metadata.clone());
                (0, position.offset.get(), epoch.unwrap_or(NO_EPOCH), metadata)
            }
            Ok(None) => (0, NO_OFFSET, NO_EPOCH, StrBytes::default()),
            Err(error) => (error.code(), NO_OFFSET, NO_EPOCH, StrBytes::default()),
        }
    }
}

pub(crate) async fn delete(call: &Call, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let response = OffsetDeleteResponse::default();
    if !call.allows(Action::Delete, Resource::Group(&request.group_id)) {
        return response.with_error_code(ResponseError::GroupAuthorizationFailed.code());
    }
    let found = key(call, &request.group_id)
        .and_then(|key| Ok((call.broker.groups.subscribed(&key, &StoreTopics::all(call))?, key)));
    let (subscribed, key) = match found {
        Ok(found) => found,
        Err(error) => return response.with_error_code(error.code()),
    };
    let mut due = Vec::new();
    let mut topics: Vec<OffsetDeleteResponseTopic> = Vec::with_capacity(request.topics.len());
    for asked in &request.topics {
        let found = topic(call, Action::Read, &asked.name);
        let partitions = asked.partitions.iter().map(|asked_partition| {
            let checked = partition(&found, asked_partition.partition_index);
            let checked = checked.and_then(|at| check_unsubscribed(&subscribed, &asked.name, at));
            let code = checked.as_ref().err().map_or(0, |error| error.code());
            due.extend(checked);
            OffsetDeleteResponsePartition::default()
                .with_partition_index(asked_partition.partition_index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        topics.push(
            OffsetDeleteResponseTopic::default()
                .with_name(asked.name.clone())
                .with_partitions(partitions),
        );
    }
    let forgotten = call.store().forget_positions(&key.tenant, &key.group, due, None).await;
    match forgotten {
        Ok(()) => response.with_topics(topics),
        Err(error) => response.with_error_code(coordinator_code(&error).code()),
    }
}

fn check_unsubscribed(
    subscribed: &BTreeSet<String>,
    topic: &str,
    at: Partition,
) -> Result<Partition, ResponseError> {
    if subscribed.contains(topic) {
        return Err(ResponseError::GroupSubscribedToTopic);
    }
    Ok(at)
}
