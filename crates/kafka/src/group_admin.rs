//! `ListGroups`, `DescribeGroups` and `DeleteGroups`.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    GroupId, ListGroupsRequest, ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::groups::Machine;
use crate::groups::classic::{ClassicGroup, State};
use crate::membership::{code, key};
use crate::topic::OPERATIONS_NOT_ASKED;

/// The first version of `DescribeGroups` that says when there is no such group.
const DESCRIBE_NOT_FOUND: i16 = 6;
/// How a group that does not exist is described.
const DEAD: &str = "Dead";
/// Kafka's numbers of operations on groups (`AclOperation`).
const GROUP_OPERATIONS: &[(Action, u8)] =
    &[(Action::Read, 3), (Action::Delete, 6), (Action::Describe, 8)];

pub(crate) async fn list(call: &Call, request: ListGroupsRequest) -> ListGroupsResponse {
    // Sets: there may be as many filters as groups.
    let set = |filters: &[StrBytes]| -> HashSet<String> {
        filters.iter().map(|of| of.to_ascii_lowercase()).collect()
    };
    let (states, types) = (set(&request.states_filter), set(&request.types_filter));
    let is_in = |filter: &HashSet<String>, value: &str| {
        filter.is_empty() || filter.contains(&value.to_ascii_lowercase())
    };
    let sees_all = call.allows(Action::Describe, Resource::Cluster);
    let groups = call.broker.groups.list(&call.principal.tenant);
    let groups = groups
        .into_iter()
        .filter(|of| is_in(&states, of.state))
        .filter(|of| is_in(&types, of.kind))
        .filter(|of| sees_all || call.allows(Action::Describe, Resource::Group(of.group.as_str())));
    let groups = groups.map(|of| {
        ListedGroup::default()
            .with_group_id(GroupId(StrBytes::from_string(of.group.to_string())))
            .with_protocol_type(of.protocol_type.into())
            .with_group_state(StrBytes::from_static_str(of.state))
            .with_group_type(StrBytes::from_static_str(of.kind))
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub(crate) async fn describe(
    call: &Call,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let with_operations = request.include_authorized_operations;
    // A large group that is named often is described once.
    let mut seen = HashSet::new();
    let asked = request.groups.into_iter().filter(|group| seen.insert(group.clone()));
    let groups = asked.map(|group| {
        let described = match describe_one(call, &group) {
            Ok(described) => described,
            Err(error) => not_described(call, error),
        };
        let operations = match with_operations && described.error_code == 0 {
            true => operations(call, &group),
            false => OPERATIONS_NOT_ASKED,
        };
        described.with_group_id(group).with_authorized_operations(operations)
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn describe_one(call: &Call, group: &str) -> Result<DescribedGroup, ResponseError> {
    if !call.allows(Action::Describe, Resource::Group(group)) {
        return Err(ResponseError::GroupAuthorizationFailed);
    }
    let key = key(call, group)?;
    match call.broker.groups.describe(&key) {
        Some(Machine::Classic(group)) => Ok(to_described(group)),
        // Those of the other kind have an API of their own.
        Some(Machine::Consumer(_)) | None => Err(ResponseError::GroupIdNotFound),
    }
}

fn not_described(call: &Call, error: ResponseError) -> DescribedGroup {
    let described = DescribedGroup::default().with_group_state(StrBytes::from_static_str(DEAD));
    if error == ResponseError::GroupIdNotFound && call.version < DESCRIBE_NOT_FOUND {
        return described;
    }
    let message =
        (call.version >= DESCRIBE_NOT_FOUND).then(|| StrBytes::from_string(error.to_string()));
    described.with_error_code(error.code()).with_error_message(message)
}

fn to_described(group: ClassicGroup) -> DescribedGroup {
    // Until everybody has its assignment it is nobody's.
    let is_stable = group.state == State::Stable;
    let protocol = group.protocol.as_deref().filter(|_| is_stable);
    let members = group.members.values().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(StrBytes::from_string(member.id.clone()))
            .with_group_instance_id(member.instance.clone().map(StrBytes::from_string))
            .with_client_id(StrBytes::from_string(member.client_id.clone()))
            .with_client_host(StrBytes::from_string(member.client_host.clone()))
            .with_member_metadata(member.metadata(protocol))
            .with_member_assignment(match is_stable {
                true => member.assignment.clone(),
                false => bytes::Bytes::new(),
            })
    });
    let members = members.collect();
    DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(group.state.name()))
        .with_protocol_data(protocol.unwrap_or_default().to_owned().into())
        .with_members(members)
        .with_protocol_type(group.protocol_type.unwrap_or_default().into())
}

pub(crate) fn operations(call: &Call, group: &str) -> i32 {
    let allowed =
        GROUP_OPERATIONS.iter().filter(|(action, _)| call.allows(*action, Resource::Group(group)));
    allowed.fold(0, |bits, (_, number)| bits | (1 << number))
}

pub(crate) async fn delete(call: &Call, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group in request.groups_names {
        let result = delete_one(call, &group).await;
        results.push(
            DeletableGroupResult::default().with_error_code(code(result)).with_group_id(group),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete_one(call: &Call, group: &str) -> Result<(), ResponseError> {
    if !call.allows(Action::Delete, Resource::Group(group)) {
        return Err(ResponseError::GroupAuthorizationFailed);
    }
    let key = key(call, group)?;
    call.broker.groups.delete(&key).await
}
