//! `ConsumerGroupHeartbeat` and `ConsumerGroupDescribe` (KIP-848): members of
//! consumer groups, which the coordinator assigns to.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_types::{Partition, PartitionIndex, StreamId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment as DescribedAssignment, DescribedGroup, Member as DescribedMember,
    TopicPartitions as DescribedPartitions,
};
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::group_admin::operations;
use crate::groups::Machine;
use crate::groups::consumer::{
    Assignor, Beat, Beaten, ConsumerGroup, JOINS, LEAVES, LEAVES_FOR_NOW, Member, is_regex,
};
use crate::membership::{key, readable};
use crate::topic::{OPERATIONS_NOT_ASKED, StoreTopics, topic_name};

/// The first version whose clients bring a member id (KIP-1082).
const BRINGS_ID: i16 = 1;
/// The longest id of a member, instance or rack.
const ID_BYTES_MAX: usize = 1024;
/// The most topics that a member names.
const NAMES_MAX: usize = 10_000;
/// How members that speak this protocol are described; 0 would be the classic one.
const MEMBER_TYPE_CONSUMER: i8 = 1;

/// Why a heartbeat is not answered as it wishes.
struct Refusal {
    error: ResponseError,
    message: String,
}

impl Refusal {
    fn invalid(message: &str) -> Self {
        Self { error: ResponseError::InvalidRequest, message: message.to_owned() }
    }
}

impl From<ResponseError> for Refusal {
    fn from(error: ResponseError) -> Self {
        Self { error, message: error.to_string() }
    }
}

pub(crate) async fn heartbeat(
    call: &Call,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let response = ConsumerGroupHeartbeatResponse::default();
    match beat(call, request).await {
        Ok(beaten) => {
            let heartbeat_ms = call.broker.options.consumer_group_heartbeat_ms;
            response
                .with_member_id(Some(StrBytes::from_string(beaten.member)))
                .with_member_epoch(beaten.epoch)
                .with_heartbeat_interval_ms(i32::try_from(heartbeat_ms).unwrap_or(i32::MAX))
                .with_assignment(beaten.assignment.map(to_assignment))
        }
        Err(Refusal { error, message }) => response
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(message))),
    }
}

async fn beat(call: &Call, request: ConsumerGroupHeartbeatRequest) -> Result<Beaten, Refusal> {
    let key = readable(call, &request.group_id)?;
    check(call, &request)?;
    let topics = StoreTopics::visible(call);
    Ok(call.broker.groups.beat(&key, to_beat(call, request)?, &topics).await?)
}

/// What is wrong with a request whatever the group is.
fn check(call: &Call, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let is_empty = |text: &Option<StrBytes>| text.as_ref().is_some_and(|text| text.is_empty());
    let is_long =
        |text: &Option<StrBytes>| text.as_ref().is_some_and(|text| text.len() > ID_BYTES_MAX);
    if is_empty(&request.instance_id) || is_empty(&request.rack_id) {
        return Err(Refusal::invalid("the instance id and the rack id are not empty"));
    }
    if is_long(&request.instance_id)
        || is_long(&request.rack_id)
        || request.member_id.len() > ID_BYTES_MAX
    {
        return Err(Refusal::invalid("an id is too long"));
    }
    if request.subscribed_topic_names.as_ref().is_some_and(|of| of.len() > NAMES_MAX) {
        return Err(Refusal::invalid("too many topics are named, subscribe by an expression"));
    }
    let brings_none = request.member_id.is_empty();
    match request.member_epoch {
        JOINS => {
            if brings_none && call.version >= BRINGS_ID {
                return Err(Refusal::invalid("the member id is empty"));
            }
            if request.rebalance_timeout_ms == -1 {
                return Err(Refusal::invalid("whoever joins names a rebalance timeout"));
            }
            if request.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return Err(Refusal::invalid("whoever joins owns no partitions"));
            }
            if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none()
            {
                return Err(Refusal::invalid("whoever joins subscribes to topics"));
            }
        }
        LEAVES_FOR_NOW if request.instance_id.is_none() => {
            return Err(Refusal::invalid("only static members leave for a while"));
        }
        LEAVES_FOR_NOW..=LEAVES | 1.. if brings_none => {
            return Err(Refusal::invalid("the member id is empty"));
        }
        LEAVES_FOR_NOW..=LEAVES | 1.. => {}
        _ => return Err(Refusal::invalid("there is no such member epoch")),
    }
    check_subscription(call, request)
}

fn check_subscription(call: &Call, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let mut names = request.subscribed_topic_names.iter().flatten();
    if !names.all(|name| call.allows(Action::Describe, Resource::Stream(name))) {
        return Err(ResponseError::TopicAuthorizationFailed.into());
    }
    let regex = request.subscribed_topic_regex.as_ref();
    if regex.is_some_and(|regex| !is_regex(regex)) {
        return Err(ResponseError::InvalidRegularExpression.into());
    }
    let assignor = request.server_assignor.as_ref();
    if assignor.is_some_and(|name| Assignor::named(name).is_none()) {
        let error = ResponseError::UnsupportedAssignor;
        let known = Assignor::ALL.map(Assignor::name).join(", ");
        return Err(Refusal { error, message: format!("the assignors are {known}") });
    }
    Ok(())
}

fn to_beat(call: &Call, request: ConsumerGroupHeartbeatRequest) -> Result<Beat, Refusal> {
    let text = |text: Option<StrBytes>| text.map(|text| text.to_string());
    let member = match request.member_id.is_empty() {
        true => call.broker.groups.fresh_uuid(),
        false => request.member_id.to_string(),
    };
    let rebalance_ms = match request.rebalance_timeout_ms {
        -1 => None,
        ms => {
            let negative = || Refusal::invalid("the rebalance timeout is negative");
            Some(u64::try_from(ms).map_err(|_| negative())?)
        }
    };
    let owned = request.topic_partitions.map(|topics| {
        let of_topic = topics.into_iter().flat_map(|topic| {
            let indexes = topic.partitions.into_iter().filter_map(|at| u32::try_from(at).ok());
            let id = StreamId(topic.topic_id);
            indexes.map(move |index| Partition::new(id, PartitionIndex(index)))
        });
        of_topic.collect()
    });
    Ok(Beat {
        member,
        instance: text(request.instance_id),
        rack: text(request.rack_id),
        client_id: call.client_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        client_host: format!("/{}", call.session.peer.ip()),
        epoch: request.member_epoch,
        rebalance_ms,
        names: request
            .subscribed_topic_names
            .map(|names| names.iter().map(|name| name.to_string()).collect()),
        regex: text(request.subscribed_topic_regex),
        assignor: request.server_assignor.as_ref().and_then(|name| Assignor::named(name)),
        owned,
    })
}

/// By stream, the numbers of its partitions.
fn by_stream<'a>(
    partitions: impl IntoIterator<Item = &'a Partition>,
) -> BTreeMap<StreamId, Vec<i32>> {
    let mut streams: BTreeMap<StreamId, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        if let Ok(index) = i32::try_from(partition.index.get()) {
            streams.entry(partition.stream).or_default().push(index);
        }
    }
    streams
}

fn to_assignment(partitions: Vec<Partition>) -> Assignment {
    let topics = by_stream(&partitions).into_iter().map(|(stream, indexes)| {
        TopicPartitions::default().with_topic_id(stream.0).with_partitions(indexes)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}

pub(crate) async fn describe(
    call: &Call,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let with_operations = request.include_authorized_operations;
    let groups = request.group_ids.into_iter().map(|group| {
        let described = match describe_one(call, &group) {
            Ok(described) => described,
            Err(error) => DescribedGroup::default()
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(error.to_string()))),
        };
        let operations = match with_operations && described.error_code == 0 {
            true => operations(call, &group),
            false => OPERATIONS_NOT_ASKED,
        };
        described.with_group_id(group).with_authorized_operations(operations)
    });
    ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
}

fn describe_one(call: &Call, group: &str) -> Result<DescribedGroup, ResponseError> {
    if !call.allows(Action::Describe, Resource::Group(group)) {
        return Err(ResponseError::GroupAuthorizationFailed);
    }
    let found = call.broker.groups.describe(&key(call, group)?);
    let Some(Machine::Consumer(group)) = found else {
        return Err(ResponseError::GroupIdNotFound);
    };
    let described = to_described(call, &group);
    // Names of topics that may not be seen are not told by a group.
    let is_seen = |name: &str| call.allows(Action::Describe, Resource::Stream(name));
    let told = described.members.iter().flat_map(|member| {
        let shown = [&member.assignment, &member.target_assignment];
        let shown = shown.into_iter().flat_map(|of| &of.topic_partitions);
        shown.map(|of| &of.topic_name).chain(&member.subscribed_topic_names)
    });
    let told: BTreeSet<&str> = told.map(|name| name.as_str()).collect();
    if !told.into_iter().all(is_seen) {
        return Err(ResponseError::TopicAuthorizationFailed);
    }
    Ok(described)
}

fn to_described(call: &Call, group: &ConsumerGroup) -> DescribedGroup {
    let members = group.members.values().map(|member| to_member(call, member));
    DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(group.state().name()))
        .with_group_epoch(group.epoch)
        .with_assignment_epoch(group.target_epoch)
        .with_assignor_name(StrBytes::from_static_str(group.assignor.name()))
        .with_members(members.collect())
}

fn to_member(call: &Call, member: &Member) -> DescribedMember {
    let text = |text: &Option<String>| text.clone().map(StrBytes::from_string);
    DescribedMember::default()
        .with_member_id(StrBytes::from_string(member.id.clone()))
        .with_instance_id(text(&member.instance))
        .with_rack_id(text(&member.rack))
        .with_member_epoch(member.epoch)
        .with_client_id(StrBytes::from_string(member.client_id.clone()))
        .with_client_host(StrBytes::from_string(member.client_host.clone()))
        .with_subscribed_topic_names(member.names.iter().map(|name| topic_name(name)).collect())
        .with_subscribed_topic_regex(text(&member.regex))
        .with_assignment(described_assignment(call, member.owned.keys()))
        .with_target_assignment(described_assignment(call, &member.target))
        .with_member_type(match call.version {
            0 => -1,
            _ => MEMBER_TYPE_CONSUMER,
        })
}

fn described_assignment<'a>(
    call: &Call,
    partitions: impl IntoIterator<Item = &'a Partition>,
) -> DescribedAssignment {
    let topics = by_stream(partitions).into_iter().filter_map(|(stream, indexes)| {
        // What was deleted meanwhile has no name.
        let path = call.store().stream_path(stream)?;
        let described = DescribedPartitions::default()
            .with_topic_id(stream.0)
            .with_topic_name(topic_name(path.name.as_str()))
            .with_partitions(indexes);
        Some(described)
    });
    DescribedAssignment::default().with_topic_partitions(topics.collect())
}
