//! `JoinGroup`, `SyncGroup`, `Heartbeat` and `LeaveGroup`: members of classic
//! groups come, stay and go.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::groups::GroupKey;
use crate::groups::classic::{Asker, Join, Joined, Protocol, Sync, Synced};

/// The longest beginning of a member's id: names may have 32 KiB.
const ID_PREFIX_BYTES_MAX: usize = 256;
/// The first version of `JoinGroup` with a rebalance timeout.
const JOIN_REBALANCE_TIMEOUT: i16 = 1;
/// The first version of `JoinGroup` whose clients take an id first (KIP-394).
const JOIN_ID_FIRST: i16 = 4;
/// The first version of `JoinGroup` whose answer may lack a protocol.
const JOIN_NULL_PROTOCOL: i16 = 7;
/// The first version of `JoinGroup` that knows `skip_assignment` (KIP-814).
const JOIN_SKIPS_ASSIGNMENT: i16 = 9;
/// The first version of `LeaveGroup` for many members (KIP-345).
const LEAVE_BATCHED: i16 = 3;

/// The group that a request names, if it may be read.
pub(crate) fn readable(call: &Call, group: &str) -> Result<GroupKey, ResponseError> {
    if !call.allows(Action::Read, Resource::Group(group)) {
        return Err(ResponseError::GroupAuthorizationFailed);
    }
    key(call, group)
}

/// The group that a request names.
pub(crate) fn key(call: &Call, group: &str) -> Result<GroupKey, ResponseError> {
    Ok(GroupKey { tenant: call.principal.tenant.clone(), group: call.group(group)? })
}

/// Who the request says it is from.
pub(crate) fn asker(member: &StrBytes, instance: Option<&StrBytes>) -> Asker {
    Asker { member: member.to_string(), instance: instance.map(ToString::to_string) }
}

pub(crate) const fn code(result: Result<(), ResponseError>) -> i16 {
    match result {
        Ok(()) => 0,
        Err(error) => error.code(),
    }
}

pub(crate) async fn join(call: &Call, request: JoinGroupRequest) -> JoinGroupResponse {
    let member = request.member_id.to_string();
    let key = readable(call, &request.group_id);
    let joined = match key.and_then(|key| check_size(call, &request).map(|()| key)) {
        Ok(key) => {
            let join = to_join(call, request);
            call.broker.groups.join(&key, join).await
        }
        Err(error) => Joined::refused(error, &member),
    };
    let protocol = match joined.protocol {
        None if call.version < JOIN_NULL_PROTOCOL => Some(StrBytes::default()),
        protocol => protocol.map(StrBytes::from_string),
    };
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(member.member.into())
            .with_group_instance_id(member.instance.map(StrBytes::from_string))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_error_code(joined.error.map_or(0, |error| error.code()))
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.map(StrBytes::from_string))
        .with_protocol_name(protocol)
        .with_leader(joined.leader.into())
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(joined.member.into())
        .with_members(members.collect())
}

/// Members live for long, those of a group are looked at together, and what they
/// say is a part of the group's document.
fn check_size(call: &Call, request: &JoinGroupRequest) -> Result<(), ResponseError> {
    let length = |text: Option<&StrBytes>| text.map_or(0, |text| text.len());
    let protocols = request.protocols.iter().map(|of| of.name.len() + of.metadata.len());
    let bytes = protocols.sum::<usize>()
        + length(call.client_id.as_ref())
        + length(request.group_instance_id.as_ref())
        + request.member_id.len()
        + request.protocol_type.len();
    let count = request.protocols.len();
    if count <= call.broker.options.group_protocols_max
        && bytes <= call.store().options().document_bytes_max
    {
        return Ok(());
    }
    let group = request.group_id.as_str();
    tracing::info!(group, bytes, protocols = count, "a member that is too large is refused");
    Err(ResponseError::InvalidRequest)
}

/// What a member's id keeps of the name before it.
fn id_prefix(name: &str) -> &str {
    let end = name.char_indices().map(|(at, _)| at).find(|at| *at > ID_PREFIX_BYTES_MAX - 4);
    end.map_or(name, |end| &name[..end])
}

fn to_join(call: &Call, request: JoinGroupRequest) -> Join {
    let session_ms = u64::try_from(request.session_timeout_ms).unwrap_or(0);
    let rebalance_ms = if call.version < JOIN_REBALANCE_TIMEOUT {
        session_ms
    } else {
        u64::try_from(request.rebalance_timeout_ms).unwrap_or(0)
    };
    let client_id = call.client_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let prefix = request.group_instance_id.as_ref().map_or(client_id.as_str(), |of| of.as_str());
    let fresh_id = call.broker.groups.fresh_id(id_prefix(prefix));
    let protocols = request.protocols.into_iter().map(|protocol| Protocol {
        name: protocol.name.to_string(),
        // A copy: the request's whole frame must not live as long as the member.
        metadata: bytes::Bytes::copy_from_slice(&protocol.metadata),
    });
    Join {
        member: asker(&request.member_id, request.group_instance_id.as_ref()),
        fresh_id,
        client_host: format!("/{}", call.session.peer.ip()),
        session_ms,
        rebalance_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        takes_id_first: call.version >= JOIN_ID_FIRST,
        skips_assignment: call.version >= JOIN_SKIPS_ASSIGNMENT,
        client_id,
    }
}

pub(crate) async fn sync(call: &Call, request: SyncGroupRequest) -> SyncGroupResponse {
    let bytes: usize = request.assignments.iter().map(|of| of.assignment.len()).sum();
    let synced = match readable(call, &request.group_id) {
        // It could not be stored.
        Ok(_) if bytes > call.store().options().document_bytes_max => {
            Synced::refused(ResponseError::InvalidRequest)
        }
        Ok(key) => {
            let assignments = request.assignments.iter().map(|of| {
                (of.member_id.to_string(), bytes::Bytes::copy_from_slice(&of.assignment))
            });
            let sync = Sync {
                member: asker(&request.member_id, request.group_instance_id.as_ref()),
                generation: request.generation_id,
                protocol_type: request.protocol_type.as_ref().map(ToString::to_string),
                protocol: request.protocol_name.as_ref().map(ToString::to_string),
                assignments: assignments.collect(),
            };
            call.broker.groups.sync(&key, sync).await
        }
        Err(error) => Synced::refused(error),
    };
    SyncGroupResponse::default()
        .with_error_code(synced.error.map_or(0, |error| error.code()))
        .with_protocol_type(synced.protocol_type.map(StrBytes::from_string))
        .with_protocol_name(synced.protocol.map(StrBytes::from_string))
        .with_assignment(synced.assignment)
}

pub(crate) async fn heartbeat(call: &Call, request: HeartbeatRequest) -> HeartbeatResponse {
    let result = readable(call, &request.group_id).and_then(|key| {
        let member = asker(&request.member_id, request.group_instance_id.as_ref());
        call.broker.groups.heartbeat(&key, &member, request.generation_id)
    });
    HeartbeatResponse::default().with_error_code(code(result))
}

pub(crate) async fn leave(call: &Call, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let response = LeaveGroupResponse::default();
    let key = match readable(call, &request.group_id) {
        Ok(key) => key,
        Err(error) => return response.with_error_code(error.code()),
    };
    let leave = |member: &MemberIdentity| {
        let member = asker(&member.member_id, member.group_instance_id.as_ref());
        call.broker.groups.leave(&key, &member)
    };
    if call.version < LEAVE_BATCHED {
        let member = MemberIdentity::default().with_member_id(request.member_id);
        return response.with_error_code(code(leave(&member)));
    }
    let members = request.members.iter().map(|member| {
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code(leave(member)))
    });
    response.with_members(members.collect())
}
