//! `FindCoordinator`: there is one broker, and it coordinates everything.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Action, Resource};
use crate::broker::NODE_ID;
use crate::call::Call;

/// Keys name groups.
const GROUP: i8 = 0;
/// Keys name transactional ids.
const TRANSACTION: i8 = 1;

/// The first version whose requests name many keys.
const BATCHED: i16 = 4;

pub(crate) async fn handle(
    call: &Call,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let (host, port) = call.broker.advertised(call.session.listener);
    let (host, port) = (StrBytes::from_string(host), i32::from(port));
    let find = |key: &StrBytes| {
        let found = Coordinator::default().with_key(key.clone());
        match check(call, request.key_type, key) {
            Ok(()) => found.with_node_id(NODE_ID.into()).with_host(host.clone()).with_port(port),
            Err(error) => found
                .with_node_id((-1).into())
                .with_port(-1)
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(error.to_string()))),
        }
    };
    if call.version >= BATCHED {
        let coordinators = request.coordinator_keys.iter().map(find).collect();
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let found = find(&request.key);
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(found.error_message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

fn check(call: &Call, key_type: i8, key: &str) -> Result<(), ResponseError> {
    match key_type {
        GROUP if !call.allows(Action::Describe, Resource::Group(key)) => {
            Err(ResponseError::GroupAuthorizationFailed)
        }
        // An empty name was a group once, and is none here.
        GROUP => call.group(key).map(|_| ()),
        TRANSACTION if !call.allows(Action::Describe, Resource::TransactionalId(key)) => {
            Err(ResponseError::TransactionalIdAuthorizationFailed)
        }
        TRANSACTION if key.is_empty() => Err(ResponseError::InvalidRequest),
        TRANSACTION => Ok(()),
        _ => Err(ResponseError::InvalidRequest),
    }
}
