//! `ApiVersions` over a socket.

use kafka_protocol::messages::ApiVersionsRequest;
use kafka_protocol::protocol::StrBytes;
use tokio::io::AsyncWriteExt as _;

use super::client::{Server, frame};
use crate::KafkaOptions;
use crate::api::APIS;

#[tokio::test]
async fn every_version_is_answered_and_the_future_with_version_0() {
    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("a-client"))
        .with_client_software_version(StrBytes::from_static_str("1.0"));
    for version in 0..=4 {
        let request = if version < 3 { ApiVersionsRequest::default() } else { request.clone() };
        let response = client.call(version, request).await;
        assert_eq!(response.error_code, 0, "{version}");
        assert_eq!(response.api_keys.len(), APIS.len(), "{version}");
    }
    let bad = request.clone().with_client_software_name(StrBytes::from_static_str("a b"));
    assert_eq!(client.call(4, bad).await.error_code, 42);

    // KIP-511: an answer that any client can read, in version 0.
    let mut future = frame(4, 77, &request).to_vec();
    future[6..8].copy_from_slice(&99_i16.to_be_bytes());
    client.stream.write_all(&future).await.unwrap();
    let (correlation, response) = client.receive::<ApiVersionsRequest>(0).await.unwrap();
    assert_eq!((correlation, response.error_code), (77, 35));
    assert_eq!(response.api_keys.len(), APIS.len());
    server.stop().await;
}
