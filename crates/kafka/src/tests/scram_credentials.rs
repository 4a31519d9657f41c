//! Users, as Kafka's tools manage them.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;
use kafka_protocol::messages::{
    AlterUserScramCredentialsRequest, DescribeUserScramCredentialsRequest,
};
use kafka_protocol::protocol::StrBytes;
use ring::pbkdf2;

use super::client::{Client, Server};
use super::sasl;
use crate::{Action, Authorizer, Decision, KafkaOptions, Principal, Resource};

fn name(name: &str) -> StrBytes {
    StrBytes::from_string(name.to_owned())
}

fn upsertion(user: &str, mechanism: i8, iterations: i32) -> ScramCredentialUpsertion {
    let (algorithm, bytes) = match mechanism {
        1 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        _ => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
    };
    let mut salted = vec![0; bytes];
    let rounds = 4096.try_into().unwrap();
    pbkdf2::derive(algorithm, rounds, b"a salt", b"pencil", &mut salted);
    ScramCredentialUpsertion::default()
        .with_name(name(user))
        .with_mechanism(mechanism)
        .with_iterations(iterations)
        .with_salt(Bytes::from_static(b"a salt"))
        .with_salted_password(salted.into())
}

fn deletion(user: &str, mechanism: i8) -> ScramCredentialDeletion {
    ScramCredentialDeletion::default().with_name(name(user)).with_mechanism(mechanism)
}

async fn alter(
    client: &mut Client,
    upsertions: Vec<ScramCredentialUpsertion>,
    deletions: Vec<ScramCredentialDeletion>,
) -> Vec<(String, i16)> {
    let request = AlterUserScramCredentialsRequest::default()
        .with_upsertions(upsertions)
        .with_deletions(deletions);
    let response = client.call(0, request).await;
    response.results.iter().map(|of| (of.user.to_string(), of.error_code)).collect()
}

async fn describe(client: &mut Client, users: &[&str]) -> Vec<(String, i16, Vec<(i8, i32)>)> {
    let users = users.iter().map(|user| UserName::default().with_name(name(user))).collect();
    let request = DescribeUserScramCredentialsRequest::default().with_users(Some(users));
    let response = client.call(0, request).await;
    assert_eq!(response.error_code, 0);
    let infos = |of: &kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult| {
        of.credential_infos.iter().map(|info| (info.mechanism, info.iterations)).collect()
    };
    response.results.iter().map(|of| (of.user.to_string(), of.error_code, infos(of))).collect()
}

#[tokio::test]
async fn users_come_go_and_log_in() {
    let server = Server::start(sasl::options()).await;
    sasl::create(&server, "admin", "admin-password").await;
    let mut client = server.client().await;
    sasl::log_in(&mut client, 2, "SCRAM-SHA-512", "admin", "admin-password").await;
    let done = alter(&mut client, vec![upsertion("alice", 1, 4096)], Vec::new()).await;
    assert_eq!(done, [("alice".to_owned(), 0)]);
    let found = describe(&mut client, &[]).await;
    let admin = ("admin".to_owned(), 0, vec![(1, 4096), (2, 4096)]);
    assert_eq!(found, [admin, ("alice".to_owned(), 0, vec![(1, 4096)])]);
    let found = describe(&mut client, &["alice", "bob", "admin", "admin"]).await;
    let expected = [
        ("admin".to_owned(), 92, Vec::new()),
        ("alice".to_owned(), 0, vec![(1, 4096)]),
        ("bob".to_owned(), 91, Vec::new()),
    ];
    assert_eq!(found, expected);

    for (mechanism, code) in [("SCRAM-SHA-256", 0), ("SCRAM-SHA-512", 58), ("PLAIN", 0)] {
        let mut client = server.client().await;
        let done = sasl::log_in(&mut client, 2, mechanism, "alice", "pencil").await;
        assert_eq!(done.error_code, code, "{mechanism}");
    }
    // One hash in the place of another.
    let done = alter(&mut client, vec![upsertion("alice", 2, 4096)], vec![deletion("alice", 1)]);
    assert_eq!(done.await, [("alice".to_owned(), 0)]);
    assert_eq!(describe(&mut client, &["alice"]).await[0].2, [(2, 4096)]);
    let done = alter(&mut client, Vec::new(), vec![deletion("alice", 2)]).await;
    assert_eq!(done, [("alice".to_owned(), 0)]);
    assert_eq!(describe(&mut client, &["alice"]).await[0].1, 91);
    server.stop().await;
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let server = Server::start(KafkaOptions::default()).await;
    sasl::create(&server, "alice", "pencil").await;
    let mut client = server.client().await;
    let check = async |client: &mut Client, upsertions, deletions, code| {
        let done = alter(client, upsertions, deletions).await;
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].1, code);
    };
    let short = upsertion("alice", 1, 8192).with_salted_password(Bytes::from_static(b"short"));
    check(&mut client, vec![upsertion("alice", 1, 4095)], Vec::new(), 93).await;
    check(&mut client, vec![upsertion("alice", 1, -1)], Vec::new(), 93).await;
    check(&mut client, vec![upsertion("", 1, 4096)], Vec::new(), 93).await;
    check(&mut client, vec![short], Vec::new(), 93).await;
    check(&mut client, vec![upsertion("alice", 3, 4096)], Vec::new(), 33).await;
    let both = (vec![upsertion("alice", 1, 8192)], vec![deletion("alice", 1)]);
    check(&mut client, both.0, both.1, 92).await;
    check(&mut client, vec![upsertion("bob", 1, 4096)], vec![deletion("bob", 2)], 91).await;
    check(&mut client, Vec::new(), vec![deletion("bob", 1)], 91).await;
    let found = describe(&mut client, &[]).await;
    assert_eq!(found, [("alice".to_owned(), 0, vec![(1, 4096), (2, 4096)])]);
    server.stop().await;
}

#[derive(Debug)]
struct NotTheCluster;

impl Authorizer for NotTheCluster {
    fn decide(&self, _: &Principal, _: Action, resource: Resource<'_>) -> Decision {
        match resource {
            Resource::Cluster => Decision::Deny,
            _ => Decision::Allow,
        }
    }
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let server = Server::start_with(KafkaOptions::default(), Arc::new(NotTheCluster)).await;
    let mut client = server.client().await;
    let request = DescribeUserScramCredentialsRequest::default();
    assert_eq!(client.call(0, request).await.error_code, 31);
    let done = alter(&mut client, vec![upsertion("alice", 1, 4096)], Vec::new()).await;
    assert_eq!(done, [("alice".to_owned(), 31)]);
    assert!(server.users().list(&aquifer_types::TenantName::default_tenant()).unwrap().is_empty());
    server.stop().await;
}
