//! Logins over a socket.

use std::sync::Arc;
use std::time::Duration;

use aquifer_types::TenantName;
use aquifer_users::sasl::{TokenRefused, TokenValidator, ValidatedToken};
use aquifer_users::{Creation, Mechanism, Password, ScramHash, UserName};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use kafka_protocol::messages::{
    ApiVersionsRequest, MetadataRequest, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeRequest,
};
use kafka_protocol::protocol::StrBytes;
use ring::{digest, hmac, pbkdf2};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::client::{Client, Server};
use crate::metrics::LoginLabels;
use crate::{KafkaOptions, ListenerSecurity};

const FAILED: i16 = 58;
const ILLEGAL_STATE: i16 = 34;
const UNSUPPORTED_MECHANISM: i16 = 33;

pub(super) const ALL: [&str; 3] = ["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"];

pub(super) fn options() -> KafkaOptions {
    KafkaOptions {
        security: ListenerSecurity::SaslPlaintext,
        sasl_plain_without_tls: true,
        login_delay_ms_max: 1,
        ..KafkaOptions::default()
    }
}

pub(super) async fn create(server: &Server, user: &str, password: &str) {
    let (tenant, name) = (TenantName::default_tenant(), UserName::new(user).unwrap());
    let password = Password::new(password).unwrap();
    server.users().create(&tenant, &name, password, Some(4096), Creation::New).await.unwrap();
}

pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    version: i16,
    mechanism: &str,
) -> (i16, Vec<String>) {
    let request =
        SaslHandshakeRequest::default().with_mechanism(StrBytes::from_string(mechanism.to_owned()));
    let response = client.call(version, request).await;
    (response.error_code, response.mechanisms.iter().map(ToString::to_string).collect())
}

pub(super) async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    version: i16,
    message: &[u8],
) -> SaslAuthenticateResponse {
    let auth_bytes = Bytes::copy_from_slice(message);
    client.call(version, SaslAuthenticateRequest::default().with_auth_bytes(auth_bytes)).await
}

/// A whole login; the last answer.
pub(super) async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    version: i16,
    mechanism: &str,
    user: &str,
    password: &str,
) -> SaslAuthenticateResponse {
    assert_eq!(handshake(client, 1, mechanism).await.0, 0);
    if mechanism == "PLAIN" {
        return send(client, version, format!("\0{user}\0{password}").as_bytes()).await;
    }
    let challenge = send(client, version, format!("n,,n={user},r=abc").as_bytes()).await;
    assert_eq!(challenge.error_code, 0);
    let proof = prove(mechanism, user, password, &challenge.auth_bytes);
    send(client, version, proof.as_bytes()).await
}

/// A SCRAM client's final message.
fn prove(mechanism: &str, user: &str, password: &str, challenge: &[u8]) -> String {
    let (of_hmac, of_digest, of_pbkdf2) = match mechanism {
        "SCRAM-SHA-256" => (hmac::HMAC_SHA256, &digest::SHA256, pbkdf2::PBKDF2_HMAC_SHA256),
        _ => (hmac::HMAC_SHA512, &digest::SHA512, pbkdf2::PBKDF2_HMAC_SHA512),
    };
    let challenge = std::str::from_utf8(challenge).unwrap();
    let parts: Vec<&str> = challenge.split(',').collect();
    let salt = STANDARD.decode(&parts[1][2..]).unwrap();
    let rounds = parts[2][2..].parse::<u32>().unwrap().try_into().unwrap();
    let mut salted = vec![0; of_digest.output_len()];
    pbkdf2::derive(of_pbkdf2, rounds, &salt, password.as_bytes(), &mut salted);
    let client_key = hmac::sign(&hmac::Key::new(of_hmac, &salted), b"Client Key");
    let stored_key = digest::digest(of_digest, client_key.as_ref());
    let without_proof = format!("c=biws,{}", parts[0]);
    let signed = format!("n={user},r=abc,{challenge},{without_proof}");
    let signature = hmac::sign(&hmac::Key::new(of_hmac, stored_key.as_ref()), signed.as_bytes());
    let proof: Vec<u8> =
        client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
    format!("{without_proof},p={}", STANDARD.encode(proof))
}

pub(super) async fn is_served<S: AsyncRead + AsyncWrite + Unpin>(client: &mut Client<S>) -> bool {
    client.send(1, &MetadataRequest::default().with_topics(Some(Vec::new()))).await;
    client.receive::<MetadataRequest>(1).await.is_some()
}

#[tokio::test]
async fn nothing_but_a_login_opens_the_door() {
    let server = Server::start(options()).await;
    create(&server, "alice", "pencil").await;
    let mut client = server.client().await;
    assert!(!is_served(&mut client).await);
    for mechanism in ALL {
        for version in 0..=2 {
            let mut client = server.client().await;
            let versions = client.call(0, ApiVersionsRequest::default()).await;
            assert_eq!(versions.error_code, 0);
            let done = log_in(&mut client, version, mechanism, "alice", "pencil").await;
            assert_eq!(done.error_code, 0, "{mechanism}");
            assert_eq!(done.session_lifetime_ms, 0);
            assert_eq!(done.auth_bytes.is_empty(), mechanism == "PLAIN");
            assert!(is_served(&mut client).await, "{mechanism}");
        }
        let labels = |result| LoginLabels {
            mechanism: mechanism.parse::<Mechanism>().unwrap().as_str(),
            result,
        };
        assert_eq!(server.metrics.logins.get_or_create(&labels("ok")).get(), 3);
    }
    server.stop().await;
}

#[tokio::test]
async fn who_only_talks_and_never_logs_in_is_closed() {
    let server = Server::start(KafkaOptions { request_ms_max: 500, ..options() }).await;
    create(&server, "alice", "pencil").await;
    let mut let_in = server.client().await;
    assert_eq!(log_in(&mut let_in, 1, "PLAIN", "alice", "pencil").await.error_code, 0);
    let mut talks = server.client().await;
    let closed = async {
        loop {
            talks.send(0, &ApiVersionsRequest::default()).await;
            if talks.receive::<ApiVersionsRequest>(0).await.is_none() {
                break;
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), closed).await.is_ok());
    assert!(is_served(&mut let_in).await, "its time is over, and it has logged in");
    server.stop().await;
}

#[tokio::test]
async fn who_fails_learns_nothing_about_users() {
    let server = Server::start(options()).await;
    create(&server, "alice", "pencil").await;
    for mechanism in ALL {
        let mut answers = Vec::new();
        for (user, password) in [("alice", "pensil"), ("bob", "pencil"), ("bob", "pensil")] {
            let mut client = server.client().await;
            let answer = log_in(&mut client, 1, mechanism, user, password).await;
            assert_eq!(answer.error_code, FAILED);
            assert!(client.is_closed().await);
            answers.push(answer);
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{mechanism}: {answers:?}");
    }
    // The salt of one who does not exist stays, as one who exists has it.
    let mut salts = Vec::new();
    for _ in 0..2 {
        let mut client = server.client().await;
        handshake(&mut client, 1, "SCRAM-SHA-256").await;
        let challenge = send(&mut client, 1, b"n,,n=bob,r=abc").await;
        let text = String::from_utf8(challenge.auth_bytes.to_vec()).unwrap();
        salts.push(text.split_once(",s=").unwrap().1.to_owned());
    }
    assert_eq!(salts[0], salts[1]);
    server.stop().await;
}

#[tokio::test]
async fn messages_out_of_turn_or_shape_end_the_connection() {
    let server = Server::start(options()).await;
    create(&server, "alice", "pencil").await;
    let mut client = server.client().await;
    assert_eq!(send(&mut client, 1, b"\0alice\0pencil").await.error_code, ILLEGAL_STATE);
    assert!(client.is_closed().await);
    for (mechanism, message) in [
        ("PLAIN", &b"alice"[..]),
        ("PLAIN", b"bob\0alice\0pencil"),
        ("SCRAM-SHA-256", b"n,,n=alice"),
        ("SCRAM-SHA-512", b"p=tls-exporter,,n=alice,r=abc"),
        ("SCRAM-SHA-512", b""),
    ] {
        let mut client = server.client().await;
        handshake(&mut client, 1, mechanism).await;
        assert_eq!(send(&mut client, 1, message).await.error_code, FAILED, "{mechanism}");
        assert!(client.is_closed().await);
    }
    let mut client = server.client().await;
    let (code, offered) = handshake(&mut client, 1, "GSSAPI").await;
    assert_eq!(code, UNSUPPORTED_MECHANISM);
    assert_eq!(offered, ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"]);
    assert!(client.is_closed().await);
    server.stop().await;

    let server = Server::start(KafkaOptions::default()).await;
    let mut client = server.client().await;
    assert_eq!(handshake(&mut client, 1, "PLAIN").await, (ILLEGAL_STATE, Vec::new()));
    assert_eq!(send(&mut client, 1, b"\0alice\0pencil").await.error_code, ILLEGAL_STATE);
    assert!(is_served(&mut client).await);
    server.stop().await;
}

#[tokio::test]
async fn a_password_is_not_asked_for_in_clear_text() {
    let options = KafkaOptions { sasl_plain_without_tls: false, ..options() };
    let server = Server::start(options).await;
    let mut client = server.client().await;
    let (code, offered) = handshake(&mut client, 1, "PLAIN").await;
    assert_eq!(code, UNSUPPORTED_MECHANISM);
    assert_eq!(offered, ["SCRAM-SHA-512", "SCRAM-SHA-256"]);
    server.stop().await;
}

#[tokio::test]
async fn version_0_of_the_handshake_is_followed_by_bare_messages() {
    let server = Server::start(options()).await;
    create(&server, "alice", "pencil").await;
    let bare = async |client: &mut Client, message: &[u8]| {
        let mut frame = BytesMut::new();
        frame.put_u32(message.len() as u32);
        frame.put_slice(message);
        client.stream.write_all(&frame).await.unwrap();
        client.receive_bytes().await
    };
    let mut client = server.client().await;
    handshake(&mut client, 0, "PLAIN").await;
    assert_eq!(bare(&mut client, b"\0alice\0pencil").await, Some(Bytes::new()));
    assert!(is_served(&mut client).await);

    let mut client = server.client().await;
    handshake(&mut client, 0, "SCRAM-SHA-256").await;
    let challenge = bare(&mut client, b"n,,n=alice,r=abc").await.unwrap();
    let proof = prove("SCRAM-SHA-256", "alice", "pencil", &challenge);
    assert!(bare(&mut client, proof.as_bytes()).await.unwrap().starts_with(b"v="));
    assert!(is_served(&mut client).await);

    for message in [&b"\0a\0b"[..], b"", b"x"] {
        let mut client = server.client().await;
        handshake(&mut client, 0, "PLAIN").await;
        assert_eq!(bare(&mut client, message).await, None);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_login_ends_and_is_made_anew() {
    let server = Server::start(KafkaOptions { sasl_session_ms_max: 60_000, ..options() }).await;
    for user in ["alice", "bob"] {
        create(&server, user, "pencil").await;
    }
    let mut client = server.client().await;
    for _ in 0..3 {
        let done = log_in(&mut client, 2, "PLAIN", "alice", "pencil").await;
        assert_eq!((done.error_code, done.session_lifetime_ms), (0, 60_000));
        assert!(is_served(&mut client).await);
    }
    let other = log_in(&mut client, 2, "PLAIN", "bob", "pencil").await;
    assert_eq!(other.error_code, FAILED);
    assert!(client.is_closed().await);
    let mut client = server.client().await;
    log_in(&mut client, 2, "PLAIN", "alice", "pencil").await;
    let other = log_in(&mut client, 2, "SCRAM-SHA-256", "alice", "pencil").await;
    assert_eq!(other.error_code, FAILED);
    server.stop().await;

    let server = Server::start(KafkaOptions { sasl_session_ms_max: 1, ..options() }).await;
    create(&server, "alice", "pencil").await;
    let mut client = server.client().await;
    log_in(&mut client, 2, "PLAIN", "alice", "pencil").await;
    // It ends while nothing else does.
    while is_served(&mut client).await {}
    server.stop().await;
}

#[derive(Debug)]
struct OneToken;

impl TokenValidator for OneToken {
    fn validate<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<ValidatedToken, TokenRefused>> {
        Box::pin(async move {
            if token != "good" {
                return Err(TokenRefused("it is not the one".into()));
            }
            let user = UserName::new("alice").unwrap();
            Ok(ValidatedToken { user, expires_ms: Some(i64::MAX) })
        })
    }
}

#[tokio::test]
async fn tokens_are_taken_where_something_validates_them() {
    let mechanisms = vec![Mechanism::Scram(ScramHash::Sha256), Mechanism::OauthBearer];
    let options = KafkaOptions { sasl_mechanisms: mechanisms, ..options() };
    let server = Server::start_with_tokens(options.clone(), Arc::new(OneToken)).await;
    let login = async |client: &mut Client, token: &str| {
        handshake(client, 1, "OAUTHBEARER").await;
        send(client, 2, format!("n,,\x01auth=Bearer {token}\x01\x01").as_bytes()).await
    };
    let mut client = server.client().await;
    let done = login(&mut client, "good").await;
    assert_eq!((done.error_code, done.auth_bytes.len()), (0, 0));
    assert!(done.session_lifetime_ms > 0);
    assert!(is_served(&mut client).await);

    let mut client = server.client().await;
    let refused = login(&mut client, "bad").await;
    assert_eq!(refused.error_code, 0);
    assert_eq!(refused.auth_bytes.as_ref(), b"{\"status\":\"invalid_token\"}");
    assert_eq!(send(&mut client, 2, b"\x01").await.error_code, FAILED);
    assert!(client.is_closed().await);
    let mut client = server.client().await;
    login(&mut client, "bad").await;
    assert!(!is_served(&mut client).await);
    server.stop().await;

    let server = Server::start(options).await;
    let mut client = server.client().await;
    let (code, offered) = handshake(&mut client, 1, "OAUTHBEARER").await;
    assert_eq!((code, offered), (UNSUPPORTED_MECHANISM, vec!["SCRAM-SHA-256".to_owned()]));
    server.stop().await;
}
