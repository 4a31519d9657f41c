//! Logins by SCRAM-SHA-256 (RFC 7677), as PostgreSQL carries them.
//!
//! Whoever fails is told that it did, and nothing that would tell users from
//! those who do not exist. Addresses where logins fail wait longer and longer
//! for the next.

use std::net::IpAddr;
use std::time::Duration;

use aquifer_types::TenantName;
use aquifer_users::sasl::{SaslError, ScramFirst};
use aquifer_users::{ScramHash, UserName};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Fault, Problem, sqlstate};
use crate::frames::{FrameLimits, FrameReader};
use crate::metrics::result;
use crate::outbox::Outbox;
use crate::reply;
use crate::request::sasl_first;
use crate::server::Door;

/// The largest message of a login.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Has the client prove that it is `user`.
pub(crate) async fn authenticate<R, W>(
    door: &Door,
    address: IpAddr,
    user: &str,
    tenant: &TenantName,
    reader: &mut FrameReader<R>,
    outbox: &mut Outbox<W>,
) -> Result<(), Fault>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let now = || Duration::from_nanos(door.clock.monotonic_ns());
    let wait = door.attempts.lock().begin(address, now());
    tokio::time::sleep(wait).await;
    let done = prove(door, user, tenant, reader, outbox).await;
    door.metrics.logins.get_or_create(&result(done.is_ok())).inc();
    if let Err(Fault::Problem(problem)) = &done {
        // The one after it waits for this one.
        door.attempts.lock().failed(address, now());
        // A client has a part in it: as text it is quoted, and forges no line.
        let reason = problem.message.as_str();
        tracing::info!(%address, user, reason, "a PostgreSQL login failed");
    }
    done
}

async fn prove<R, W>(
    door: &Door,
    user: &str,
    tenant: &TenantName,
    reader: &mut FrameReader<R>,
    outbox: &mut Outbox<W>,
) -> Result<(), Fault>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let hash = ScramHash::Sha256;
    let limits = FrameLimits {
        bytes_max: MESSAGE_BYTES_MAX,
        arrival_max: Duration::from_millis(door.options.login_ms_max),
    };
    reply::authentication_sasl(outbox.buffer(), hash.as_str());
    outbox.flush().await?;
    let (mechanism, first) = sasl_first(answer(reader, &limits).await?)?;
    if mechanism != hash.as_str() {
        let message = format!("the client chose {mechanism}, which was not offered");
        return Err(Problem::fatal(sqlstate::PROTOCOL_VIOLATION, message).into());
    }
    let wrong = || wrong_password(user);
    let user = UserName::new(user).map_err(|_| wrong())?;
    // The user is the one of the startup packet: libpq names none here.
    let first = ScramFirst::parse_as(&first.unwrap_or_default(), user.clone());
    let first = first.map_err(|error| malformed(&error))?;
    let verifier = door.users.verifier(tenant, &user, hash).await.map_err(|error| {
        tracing::error!(%error, "a login could not be checked");
        wrong()
    })?;
    let (challenge, exchange) = first.challenge(hash, verifier, &door.users.nonce());
    reply::authentication_sasl_continue(outbox.buffer(), challenge.as_bytes());
    outbox.flush().await?;
    let last = answer(reader, &limits).await?;
    let signature = exchange.finish(&last).map_err(|error| match error {
        SaslError::Wrong => wrong(),
        other => malformed(&other),
    })?;
    reply::authentication_sasl_final(outbox.buffer(), signature.as_bytes());
    Ok(())
}

async fn answer<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    limits: &FrameLimits,
) -> Result<bytes::Bytes, Fault> {
    let frame = reader.next(limits).await?;
    if frame.kind == b'p' {
        return Ok(frame.body);
    }
    let message = "a message of the login was due";
    Err(Problem::fatal(sqlstate::PROTOCOL_VIOLATION, message).into())
}

fn wrong_password(user: &str) -> Problem {
    let message = format!("password authentication failed for user \"{user}\"");
    Problem::fatal(sqlstate::INVALID_PASSWORD, message)
}

fn malformed(error: &SaslError) -> Problem {
    Problem::fatal(sqlstate::PROTOCOL_VIOLATION, format!("the login: {error}"))
}
