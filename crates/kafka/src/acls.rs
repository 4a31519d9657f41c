//! `DescribeAcls`, `CreateAcls`, `DeleteAcls`: there are none, and that is said
//! as a Kafka without an authorizer says it.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::{
    CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse,
    DescribeAclsRequest, DescribeAclsResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Action, Resource};
use crate::call::Call;

fn refusal(call: &Call, action: Action) -> (i16, Option<StrBytes>) {
    let (code, why) = if call.allows(action, Resource::Cluster) {
        (ResponseError::SecurityDisabled, "No Authorizer is configured.")
    } else {
        (ResponseError::ClusterAuthorizationFailed, "not allowed")
    };
    (code.code(), Some(StrBytes::from_static_str(why)))
}

pub(crate) async fn describe(call: &Call, _: DescribeAclsRequest) -> DescribeAclsResponse {
    let (code, why) = refusal(call, Action::Describe);
    DescribeAclsResponse::default().with_error_code(code).with_error_message(why)
}

pub(crate) async fn create(call: &Call, request: CreateAclsRequest) -> CreateAclsResponse {
    let (code, why) = refusal(call, Action::Alter);
    let result = AclCreationResult::default().with_error_code(code).with_error_message(why);
    CreateAclsResponse::default().with_results(vec![result; request.creations.len()])
}

pub(crate) async fn delete(call: &Call, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let (code, why) = refusal(call, Action::Alter);
    let result = DeleteAclsFilterResult::default().with_error_code(code).with_error_message(why);
    DeleteAclsResponse::default().with_filter_results(vec![result; request.filters.len()])
}
