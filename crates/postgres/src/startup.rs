//! The beginning of a connection: TLS, a cancel, or who wants to log in.
//!
//! First packets are read to the byte, never further: what a client sends in
//! clear behind its wish for TLS is not taken for a part of what follows.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use aquifer_types::TenantName;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::error::{Fault, Problem, sqlstate};
use crate::frames::FrameReader;
use crate::login;
use crate::metrics::result;
use crate::options::PostgresSecurity;
use crate::outbox::Outbox;
use crate::reply::{self, Transaction};
use crate::request::{Opening, STARTUP_BYTES_MAX};
use crate::server::Door;
use crate::session::{Identity, Session};
use crate::settings::Settings;
use crate::statements::Statements;

/// A connection's bytes, under TLS or not.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// First packets of one connection: a wish for GSS, one for TLS, and the real
/// one.
const OPENINGS_MAX: usize = 3;

/// Serves a connection from its first byte to its last.
pub(crate) async fn welcome(
    door: Arc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    let limit = Duration::from_millis(door.options.login_ms_max);
    let mut stopping = door.stopping.clone();
    let opened = tokio::select! {
        opened = tokio::time::timeout(limit, open(door, stream, peer.ip())) => opened,
        _ = stopping.wait_for(|is_stopping| *is_stopping) => return Ok(()),
    };
    match opened {
        Ok(Ok(Some(mut session))) => session.run().await,
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no login")),
    }
}

type Halves = Session<tokio::io::ReadHalf<Box<dyn Duplex>>, tokio::io::WriteHalf<Box<dyn Duplex>>>;

/// Leads a connection to its session; none where it was a cancel, or was told
/// why there is none.
async fn open(door: Arc<Door>, stream: TcpStream, address: IpAddr) -> io::Result<Option<Halves>> {
    let mut stream: Box<dyn Duplex> = Box::new(stream);
    match negotiate(&door, &mut stream).await {
        Ok(None) => Ok(None),
        Ok(Some(startup)) => begin(door, stream, address, startup).await,
        Err(Fault::Broken(error)) => Err(error),
        Err(Fault::Problem(problem)) => {
            refuse(&door, &mut stream, &problem).await?;
            Ok(None)
        }
    }
}

async fn refuse(door: &Door, stream: &mut Box<dyn Duplex>, problem: &Problem) -> io::Result<()> {
    if problem.sqlstate == sqlstate::PROTOCOL_VIOLATION {
        door.metrics.malformed.inc();
    }
    let mut to = BytesMut::new();
    reply::error(&mut to, problem);
    stream.write_all(&to).await?;
    stream.shutdown().await
}

/// A startup packet.
struct Startup {
    minor: u16,
    parameters: BTreeMap<String, String>,
}

/// Reads first packets up to the one that logs in.
async fn negotiate(door: &Door, stream: &mut Box<dyn Duplex>) -> Result<Option<Startup>, Fault> {
    let mut is_encrypted = false;
    for _ in 0..OPENINGS_MAX {
        let Some(packet) = packet(stream).await? else { return Ok(None) };
        match Opening::decode(packet)? {
            Opening::Gss => stream.write_all(b"N").await?,
            Opening::Tls => {
                let config = door
                    .tls
                    .as_ref()
                    .and_then(|tls| tls.config(door.options.tls_client_certificates));
                match config.filter(|_| !is_encrypted) {
                    None => stream.write_all(b"N").await?,
                    Some(config) => {
                        stream.write_all(b"S").await?;
                        encrypt(door, stream, TlsAcceptor::from(config)).await?;
                        is_encrypted = true;
                    }
                }
            }
            Opening::Cancel { process, secret } => {
                let fits = door.cancels.cancel(process, secret);
                door.metrics.cancels.get_or_create(&result(fits)).inc();
                // Whether it did is not told.
                return Ok(None);
            }
            Opening::Startup { minor, parameters } => {
                if door.options.tls_required && !is_encrypted {
                    let message = "the server takes connections under TLS only";
                    return Err(Problem::fatal(sqlstate::INVALID_AUTHORIZATION, message)
                        .hint("say sslmode=require, or verify-full with its authority")
                        .into());
                }
                return Ok(Some(Startup { minor, parameters }));
            }
        }
    }
    let message = "the connection negotiates without an end";
    Err(Problem::fatal(sqlstate::PROTOCOL_VIOLATION, message).into())
}

/// Puts the connection under TLS.
async fn encrypt(
    door: &Door,
    stream: &mut Box<dyn Duplex>,
    acceptor: TlsAcceptor,
) -> io::Result<()> {
    let closed: Box<dyn Duplex> = Box::new(tokio::io::empty());
    let plain = std::mem::replace(stream, closed);
    let accepted = acceptor.accept(plain).await;
    let encrypted = accepted.inspect_err(|_| {
        door.metrics.tls.handshakes_failed.inc();
    })?;
    *stream = Box::new(encrypted);
    Ok(())
}

/// One first packet, without its length; none where nothing came.
async fn packet(stream: &mut Box<dyn Duplex>) -> Result<Option<Bytes>, Fault> {
    let length = match stream.read_u32().await {
        Ok(length) => length as usize,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let bytes = length.checked_sub(4).filter(|bytes| (4..=STARTUP_BYTES_MAX).contains(bytes));
    let Some(bytes) = bytes else {
        let message = "this is not the beginning of a connection by PostgreSQL's protocol";
        return Err(Problem::fatal(sqlstate::PROTOCOL_VIOLATION, message)
            .hint("TLS begins with a request for it: say sslnegotiation=postgres")
            .into());
    };
    let mut packet = vec![0; bytes];
    stream.read_exact(&mut packet).await?;
    Ok(Some(packet.into()))
}

/// Logs a client in.
async fn begin(
    door: Arc<Door>,
    stream: Box<dyn Duplex>,
    address: IpAddr,
    startup: Startup,
) -> io::Result<Option<Halves>> {
    let (reader, writer) = tokio::io::split(stream);
    let mut reader = FrameReader::new(reader, door.budget.clone());
    let patience = Duration::from_millis(door.options.peer_ms_max.into());
    let mut outbox = Outbox::new(writer, patience, door.metrics.bytes_out.clone());
    match log_in(&door, address, &startup, &mut reader, &mut outbox).await {
        Ok((identity, settings)) => {
            let cancellable = door.cancels.enter(door.random.as_ref());
            let (count_max, bytes_max) =
                (door.options.statements_max, door.options.statements_bytes_max);
            Ok(Some(Session {
                door,
                identity,
                cancellable,
                reader,
                outbox,
                settings,
                settings_behind: None,
                transaction: Transaction::Idle,
                statements: Statements::new(count_max, bytes_max),
                portals: Default::default(),
                is_skipping: false,
            }))
        }
        Err(Fault::Broken(error)) => Err(error),
        Err(Fault::Problem(problem)) => {
            reply::error(outbox.buffer(), &problem);
            outbox.flush().await?;
            outbox.shut_down().await;
            Ok(None)
        }
    }
}

async fn log_in<R, W>(
    door: &Door,
    address: IpAddr,
    startup: &Startup,
    reader: &mut FrameReader<R>,
    outbox: &mut Outbox<W>,
) -> Result<(Identity, Settings), Fault>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let parameter = |name: &str| startup.parameters.get(name).map(String::as_str);
    let user = parameter("user").filter(|user| !user.is_empty()).ok_or_else(|| {
        Problem::fatal(sqlstate::INVALID_AUTHORIZATION, "the startup packet names no user")
    })?;
    if parameter("replication").is_some_and(|value| !["false", "off", "no", "0"].contains(&value)) {
        let message = "there is no replication here";
        return Err(Problem::fatal(sqlstate::FEATURE_NOT_SUPPORTED, message)
            .hint("Kafka's protocol follows a stream")
            .into());
    }
    let unknown: Vec<_> = startup
        .parameters
        .keys()
        .filter(|name| name.starts_with("_pq_."))
        .map(String::as_str)
        .collect();
    if startup.minor > 0 || !unknown.is_empty() {
        reply::negotiate_version(outbox.buffer(), &unknown);
    }
    let tenant = TenantName::default_tenant();
    if door.options.security == PostgresSecurity::Password {
        login::authenticate(door, address, user, &tenant, reader, outbox).await?;
    }
    // PostgreSQL's clients name the user's database where none is named.
    let database = parameter("database").filter(|name| !name.is_empty()).unwrap_or(user);
    if database != tenant.as_str() {
        let message = format!("there is no database \"{database}\"");
        return Err(Problem::fatal(sqlstate::NO_DATABASE, message)
            .hint(format!("the database is the tenant: connect to \"{tenant}\""))
            .into());
    }
    let settings = settings(user, &startup.parameters)?;
    reply::authentication_ok(outbox.buffer());
    Ok((Identity { user: user.to_owned(), tenant }, settings))
}

/// The settings that a startup packet asks for.
fn settings(user: &str, parameters: &BTreeMap<String, String>) -> Result<Settings, Problem> {
    let mut settings = Settings::new(user);
    let mut set = |name: &str, value: &str| {
        settings
            .set(&name.to_lowercase(), Some(value))
            .map_err(|problem| Problem { is_fatal: true, ..problem })
    };
    for (name, value) in parameters {
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" => {
                for (name, value) in command_line(value) {
                    set(&name, &value)?;
                }
            }
            option if option.starts_with("_pq_.") => {}
            name => {
                set(name, value)?;
            }
        }
    }
    settings.begin();
    Ok(settings)
}

/// `-c name=value` and `--name=value`, with `\ ` for a space.
fn command_line(options: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match (character, words.last_mut()) {
            (' ', _) => words.push(String::new()),
            ('\\', Some(word)) => word.extend(characters.next()),
            (other, Some(word)) => word.push(other),
            (_, None) => {}
        }
    }
    let assigned = words.iter().filter_map(|word| {
        let word = word.strip_prefix("--").or_else(|| word.strip_prefix("-c")).unwrap_or(word);
        let (name, value) = word.split_once('=')?;
        Some((name.replace('-', "_"), value.to_owned()))
    });
    assigned.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_a_command_line() {
        let check = |options: &str, expected: &[(&str, &str)]| {
            let found = command_line(options);
            let found: Vec<_> = found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(found, expected, "{options}");
        };
        check("-c statement_timeout=5s", &[("statement_timeout", "5s")]);
        check("-cgeqo=off --search-path=a\\ b", &[("geqo", "off"), ("search_path", "a b")]);
        check("", &[]);
        check("\\", &[]);
    }
}
