//! `ListConfigResources` (KIP-1142): what has settings that can be described.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use kafka_protocol::protocol::StrBytes;

use super::{RESOURCE_BROKER, RESOURCE_TOPIC};
use crate::authorizer::{Action, Resource};
use crate::broker::NODE_ID;
use crate::call::Call;

/// Kinds that Kafka knows and that have no settings here: loggers of brokers,
/// clients' metrics and groups.
const WITHOUT_SETTINGS: &[i8] = &[8, 16, 32];

pub(crate) async fn list(
    call: &Call,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let response = ListConfigResourcesResponse::default();
    if !call.allows(Action::DescribeConfigs, Resource::Cluster) {
        return response.with_error_code(ResponseError::ClusterAuthorizationFailed.code());
    }
    // Version 0 asks after clients' metrics alone.
    if call.version == 0 {
        return response;
    }
    let asked = request.resource_types;
    let is_known = |kind: &i8| {
        matches!(*kind, RESOURCE_TOPIC | RESOURCE_BROKER) || WITHOUT_SETTINGS.contains(kind)
    };
    if !asked.iter().all(is_known) {
        return response.with_error_code(ResponseError::UnsupportedVersion.code());
    }
    // None are all.
    let wants = |kind| asked.is_empty() || asked.contains(&kind);
    let mut found = Vec::new();
    if wants(RESOURCE_TOPIC) {
        let streams = call.store().list_stream_shapes(&call.principal.tenant);
        let names = streams.iter().map(|(path, _)| path.name.as_str().to_owned());
        found.extend(names.map(|name| resource(RESOURCE_TOPIC, name)));
    }
    if wants(RESOURCE_BROKER) {
        found.push(resource(RESOURCE_BROKER, NODE_ID.to_string()));
    }
    response.with_config_resources(found)
}

fn resource(kind: i8, name: String) -> ConfigResource {
    let resource = ConfigResource::default().with_resource_type(kind);
    resource.with_resource_name(StrBytes::from_string(name))
}
