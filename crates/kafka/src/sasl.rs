//! Logins: `SaslHandshake` chooses a mechanism, `SaslAuthenticate` carries its
//! messages.
//!
//! A client that fails is told that it did and nothing that would tell users
//! from those who do not exist; then its connection is closed. Addresses where
//! logins fail wait longer and longer for the next. A login that ends (KIP-368)
//! is made anew on the same connection, by the same user with the same
//! mechanism.

use std::sync::Arc;
use std::time::Duration;

use aquifer_types::TenantName;
use aquifer_users::sasl::{
    OauthBearer, Plain, SaslError, ScramExchange, ScramFirst, oauth_refusal,
};
use aquifer_users::{Mechanism, ScramHash, UserName};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::future::BoxFuture;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::authorizer::{Principal, Proof};
use crate::call::{Answer, Call};
use crate::frame::FrameError;
use crate::metrics::LoginLabels;

/// What one connection's login is waiting for.
#[derive(Debug)]
pub(crate) enum Login {
    /// A handshake.
    Nothing,
    /// The mechanism's first message.
    Chosen { mechanism: Mechanism, is_bare: bool },
    /// The proof of a SCRAM login.
    Scram { hash: ScramHash, user: UserName, exchange: ScramExchange, is_bare: bool },
    /// The client's word that it has seen why its token was refused.
    TokenRefused { is_bare: bool },
}

/// What a message led to.
enum Step {
    Goes { answer: Vec<u8>, login: Login },
    Done { answer: Vec<u8>, user: UserName, mechanism: Mechanism, expires_ms: Option<i64> },
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("a message of a login that was not begun")]
    NotBegun,
    #[error(transparent)]
    Sasl(#[from] SaslError),
    #[error(transparent)]
    Token(#[from] aquifer_users::sasl::TokenRefused),
    #[error("a login cannot be made anew by another user or mechanism")]
    Other,
    #[error(transparent)]
    Users(#[from] aquifer_users::Error),
}

impl Login {
    /// Whether its messages come without request headers.
    pub(crate) const fn is_bare(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Chosen { is_bare, .. }
            | Self::Scram { is_bare, .. }
            | Self::TokenRefused { is_bare } => *is_bare,
        }
    }

    const fn mechanism(&self) -> Option<Mechanism> {
        match self {
            Self::Nothing => None,
            Self::Chosen { mechanism, .. } => Some(*mechanism),
            Self::Scram { hash, .. } => Some(Mechanism::Scram(*hash)),
            Self::TokenRefused { .. } => Some(Mechanism::OauthBearer),
        }
    }
}

/// `SaslHandshake`: which mechanism comes next.
pub(crate) async fn handshake(call: &Call, request: SaslHandshakeRequest) -> SaslHandshakeResponse {
    let offered = call.broker.mechanisms(call.session.listener);
    let names = offered.iter().map(|of| StrBytes::from_static_str(of.as_str())).collect();
    let response = SaslHandshakeResponse::default();
    if !call.session.security.is_sasl() {
        return response.with_error_code(ResponseError::IllegalSaslState.code());
    }
    let response = response.with_mechanisms(names);
    let chosen = offered.iter().find(|of| of.as_str() == request.mechanism.as_str());
    let Some(mechanism) = chosen.copied() else {
        call.session.end();
        return response.with_error_code(ResponseError::UnsupportedSaslMechanism.code());
    };
    call.session.set_login(Login::Chosen { mechanism, is_bare: call.version == 0 });
    response
}

/// `SaslAuthenticate`: one message of the mechanism.
pub(crate) async fn authenticate(
    call: &Call,
    request: SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    let response = SaslAuthenticateResponse::default();
    if !call.session.security.is_sasl() {
        return response.with_error_code(ResponseError::IllegalSaslState.code());
    }
    match step(call, &request.auth_bytes).await {
        Ok((answer, lifetime)) => {
            let lifetime = i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX);
            response.with_auth_bytes(answer.into()).with_session_lifetime_ms(lifetime)
        }
        Err(refused) => {
            call.session.end();
            let code = match refused {
                Refused::NotBegun => ResponseError::IllegalSaslState,
                _ => ResponseError::SaslAuthenticationFailed,
            };
            let message = StrBytes::from_static_str(message(&refused));
            response.with_error_code(code.code()).with_error_message(Some(message))
        }
    }
}

/// A message of the mechanism in a frame of its own; the answer has no header
/// either, and a failure no answer.
pub(crate) fn bare(call: Call, message: Bytes) -> BoxFuture<'static, Result<Answer, FrameError>> {
    Box::pin(async move {
        let Ok((answer, _)) = step(&call, &message).await else { return Ok(Answer::Close) };
        let mut frame = BytesMut::with_capacity(answer.len() + 4);
        frame.put_u32(u32::try_from(answer.len()).unwrap_or(u32::MAX));
        frame.put_slice(&answer);
        Ok(Answer::Frame(vec![frame.freeze()]))
    })
}

/// What a client is told. Whoever it says it is, the words for a wrong proof
/// are the same.
const fn message(refused: &Refused) -> &'static str {
    match refused {
        Refused::NotBegun => "a SaslHandshake has to come first",
        Refused::Sasl(SaslError::Malformed(_)) => "a message of the login is malformed",
        Refused::Sasl(SaslError::Unsupported(_)) => {
            "the login asks for an extension that is not supported"
        }
        Refused::Sasl(SaslError::ForAnother) => "one user cannot act for another",
        Refused::Other => "a login can be made anew only by the same user and mechanism",
        Refused::Sasl(SaslError::Wrong) | Refused::Token(_) | Refused::Users(_) => {
            "the login failed: the user or what proves it is wrong"
        }
    }
}

/// Takes a message; the answer, and how long a login that it completed holds
/// (zero: no limit, or not complete).
async fn step(call: &Call, message: &[u8]) -> Result<(Vec<u8>, Duration), Refused> {
    let broker = &call.broker;
    let login = call.session.take_login();
    let mechanism = login.mechanism();
    let address = call.session.peer.ip();
    if matches!(login, Login::Chosen { .. }) {
        let wait = broker.attempts.lock().begin(address, broker.monotonic());
        tokio::time::sleep(wait).await;
    }
    let done = match advance(call, login, message).await {
        Ok(Step::Goes { answer, login }) => {
            call.session.set_login(login);
            return Ok((answer, Duration::ZERO));
        }
        Ok(Step::Done { answer, user, mechanism, expires_ms }) => {
            log_in(call, user, mechanism, expires_ms).map(|lifetime| (answer, lifetime))
        }
        Err(refused) => Err(refused),
    };
    let mechanism = mechanism.map_or("none", Mechanism::as_str);
    let result = if done.is_ok() { "ok" } else { "failed" };
    broker.metrics.logins.get_or_create(&LoginLabels { mechanism, result }).inc();
    if let Err(refused) = &done {
        match refused {
            Refused::Users(error) => tracing::error!(%error, "a login could not be checked"),
            // The one after it waits for this one.
            _ => broker.attempts.lock().failed(address, broker.monotonic()),
        }
        let peer = call.session.peer;
        tracing::info!(%peer, mechanism, reason = %refused, "a Kafka login failed");
    }
    done
}

async fn advance(call: &Call, login: Login, message: &[u8]) -> Result<Step, Refused> {
    let users = &call.broker.users;
    let tenant = TenantName::default_tenant();
    match login {
        Login::Nothing => Err(Refused::NotBegun),
        Login::Chosen { mechanism: Mechanism::Plain, .. } => {
            let Plain { user, password } = Plain::parse(message)?;
            if !users.is_password(&tenant, &user, password).await? {
                return Err(SaslError::Wrong.into());
            }
            let mechanism = Mechanism::Plain;
            Ok(Step::Done { answer: Vec::new(), user, mechanism, expires_ms: None })
        }
        Login::Chosen { mechanism: Mechanism::Scram(hash), is_bare } => {
            let first = ScramFirst::parse(message)?;
            let user = first.user.clone();
            let verifier = users.verifier(&tenant, &user, hash).await?;
            let (challenge, exchange) = first.challenge(hash, verifier, &users.nonce());
            let login = Login::Scram { hash, user, exchange, is_bare };
            Ok(Step::Goes { answer: challenge.into_bytes(), login })
        }
        Login::Scram { hash, user, exchange, .. } => {
            let answer = exchange.finish(message)?.into_bytes();
            let mechanism = Mechanism::Scram(hash);
            Ok(Step::Done { answer, user, mechanism, expires_ms: None })
        }
        Login::Chosen { mechanism: Mechanism::OauthBearer, is_bare } => {
            validate_token(call, message, is_bare).await
        }
        Login::TokenRefused { .. } => Err(SaslError::Wrong.into()),
    }
}

async fn validate_token(call: &Call, message: &[u8], is_bare: bool) -> Result<Step, Refused> {
    let OauthBearer { token, authorization_id } = OauthBearer::parse(message)?;
    let Some(validator) = &call.broker.token_validator else {
        return Err(SaslError::Unsupported("a token").into());
    };
    match validator.validate(&token).await {
        Ok(validated) => {
            if authorization_id.is_some_and(|id| id != validated.user.as_str()) {
                return Err(SaslError::ForAnother.into());
            }
            let is_over = validated.expires_ms.is_some_and(|at| at <= call.broker.clock.now_ms());
            if is_over {
                return Err(SaslError::Wrong.into());
            }
            Ok(Step::Done {
                answer: Vec::new(),
                user: validated.user,
                mechanism: Mechanism::OauthBearer,
                expires_ms: validated.expires_ms,
            })
        }
        Err(refused) => {
            let peer = call.session.peer;
            tracing::info!(%peer, reason = %refused, "a token was refused");
            let login = Login::TokenRefused { is_bare };
            Ok(Step::Goes { answer: oauth_refusal().into(), login })
        }
    }
}

/// A user was proved: the session is its. How long, or zero for no limit.
fn log_in(
    call: &Call,
    user: UserName,
    mechanism: Mechanism,
    expires_ms: Option<i64>,
) -> Result<Duration, Refused> {
    let broker = &call.broker;
    let principal = Principal {
        tenant: TenantName::default_tenant(),
        user: user.to_string(),
        proof: Proof::Sasl(mechanism),
    };
    if call.session.principal().is_some_and(|old| *old != principal) {
        return Err(Refused::Other);
    }
    let session = Some(broker.options.sasl_session_ms_max).filter(|ms| *ms > 0);
    let of_token = expires_ms.map(|at| at.saturating_sub(broker.clock.now_ms()).max(1) as u64);
    let lifetime = match (session, of_token) {
        (Some(session), Some(of_token)) => Some(session.min(of_token)),
        (session, of_token) => session.or(of_token),
    };
    let lifetime = lifetime.map(Duration::from_millis);
    let expires_ns = lifetime.map(|lifetime| {
        let lifetime = u64::try_from(lifetime.as_nanos()).unwrap_or(u64::MAX);
        broker.clock.monotonic_ns().saturating_add(lifetime)
    });
    call.session.log_in(Arc::new(principal), expires_ns);
    Ok(lifetime.unwrap_or_default())
}
