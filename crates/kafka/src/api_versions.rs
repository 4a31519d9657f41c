//! `ApiVersions`: what is spoken here.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};

use crate::api::{APIS, supports};
use crate::call::{Answer, Call, IntoAnswer, encode};
use crate::frame::FrameError;
use crate::produce;
use crate::session::Session;

/// An answer that is encoded in version 0 where the client's is not known
/// (KIP-511).
pub(crate) struct Versions(ApiVersionsResponse);

pub(crate) async fn handle(call: &Call, request: ApiVersionsRequest) -> Versions {
    let mut response = ApiVersionsResponse::default();
    response.api_keys = APIS
        .iter()
        .map(|api| {
            let is_produce = api.key == ApiKey::Produce;
            ApiVersion::default()
                .with_api_key(api.key as i16)
                .with_min_version(if is_produce { produce::ADVERTISED_MIN } else { api.min })
                .with_max_version(api.max)
        })
        .collect();
    if !supports(call.api, call.version) {
        return Versions(response.with_error_code(ResponseError::UnsupportedVersion.code()));
    }
    if call.version >= 3 {
        let (name, version) = (&request.client_software_name, &request.client_software_version);
        if !is_software_name(name) || !is_software_name(version) {
            return Versions(response.with_error_code(ResponseError::InvalidRequest.code()));
        }
        let Session { id, peer, .. } = &*call.session;
        tracing::debug!(session = id, %peer, %name, %version, "a Kafka client says what it is");
    }
    Versions(response)
}

/// KIP-511: what may stand in logs and metrics.
fn is_software_name(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    text.len() <= 256
        && text.chars().all(is_inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

impl IntoAnswer for Versions {
    fn into_answer(self, call: &Call) -> Result<Answer, FrameError> {
        // The header stays at version 0 for ever, so that any client can read it.
        let version = if supports(call.api, call.version) { call.version } else { 0 };
        encode(&self.0, call, 0, version)
    }
}
