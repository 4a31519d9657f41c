//! `DescribeCluster`: the one broker.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use crate::broker::NODE_ID;
use crate::call::Call;
use crate::topic::{OPERATIONS_NOT_ASKED, cluster_operations};

/// Ask about brokers, not about controllers (KIP-919).
const ENDPOINTS_OF_BROKERS: i8 = 1;
const ENDPOINTS_OF_CONTROLLERS: i8 = 2;

pub(crate) async fn handle(
    call: &Call,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default();
    if call.version >= 1 && request.endpoint_type != ENDPOINTS_OF_BROKERS {
        let code = match request.endpoint_type {
            ENDPOINTS_OF_CONTROLLERS => ResponseError::MismatchedEndpointType,
            _ => ResponseError::UnsupportedEndpointType,
        };
        let why = "this is a broker; there are no controllers to be asked";
        return response
            .with_error_code(code.code())
            .with_error_message(Some(StrBytes::from_static_str(why)));
    }
    let (host, port) = call.broker.advertised(call.session.listener);
    let broker = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(NODE_ID))
        .with_host(StrBytes::from_string(host))
        .with_port(port.into());
    let id = call.broker.cluster_id().await.unwrap_or_default();
    response
        .with_error_message(None)
        .with_endpoint_type(ENDPOINTS_OF_BROKERS)
        .with_cluster_id(StrBytes::from_string(id))
        .with_controller_id(BrokerId(NODE_ID))
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(if request.include_cluster_authorized_operations {
            cluster_operations(call)
        } else {
            OPERATIONS_NOT_ASKED
        })
}
