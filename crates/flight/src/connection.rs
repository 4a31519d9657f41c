//! One connection: TLS where it is spoken, then HTTP/2, until the client goes,
//! is idle for too long, or the server stops.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use aquifer_doors::Tls;
use arrow_flight::flight_service_server::FlightServiceServer;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::calls::{self, Peer};
use crate::server::Door;
use crate::service::FlightSql;

/// The headers of one call.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// What a client may send ahead of its being read, for one call and for all
/// calls of a connection.
const CALL_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What waits to be sent of one call; a batch that is larger goes through it in
/// pieces.
const SEND_BYTES_MAX: usize = 256 << 10;
/// What is agreed on with TLS (RFC 9113, 3.2); clients of gRPC insist on it.
const ALPN: &[u8] = b"h2";

/// A connection's bytes, under TLS or not.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Serves a connection from its first byte to its last.
pub(crate) async fn serve(
    door: Arc<Door>,
    service: FlightServiceServer<FlightSql>,
    stream: TcpStream,
    address: SocketAddr,
) -> io::Result<()> {
    let mut stopping = door.stopping.clone();
    let stream: Box<dyn Duplex> = match &door.tls {
        None => Box::new(stream),
        Some(tls) => tokio::select! {
            encrypted = encrypt(&door, tls, stream) => encrypted?,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return Ok(()),
        },
    };
    let peer = Arc::new(Peer::new(address, door.now()));
    let handler = {
        let (door, peer) = (door.clone(), peer.clone());
        service_fn(move |request: Request<Incoming>| {
            let call = calls::answer(door.clone(), peer.clone(), service.clone(), request);
            async move { Ok::<_, Infallible>(call.await) }
        })
    };
    let patience = Duration::from_millis(u64::from(door.options.peer_ms_max) / 2);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(door.options.calls_per_connection_max)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES_MAX)
        .keep_alive_interval(patience)
        .keep_alive_timeout(patience);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), handler));
    let mut is_closing = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(io::Error::other),
            _ = stopping.wait_for(|is_stopping| *is_stopping), if !is_closing => {}
            () = idle(&door, &peer), if !is_closing => {
                // Whoever was never let in is not told good-bye.
                if !peer.is_let_in() {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no call was let in"));
                }
            }
        }
        connection.as_mut().graceful_shutdown();
        is_closing = true;
    }
}

async fn encrypt(door: &Door, tls: &Tls, stream: TcpStream) -> io::Result<Box<dyn Duplex>> {
    let config = tls.config(door.options.tls_client_certificates);
    let config = config.ok_or_else(|| io::Error::other("there is no certificate"))?;
    let mut config = ServerConfig::clone(&config);
    config.alpn_protocols = vec![ALPN.to_vec()];
    let limit = Duration::from_millis(door.options.login_ms_max);
    let accepted = tokio::time::timeout(limit, TlsAcceptor::from(Arc::new(config)).accept(stream));
    let encrypted = match accepted.await {
        Ok(encrypted) => encrypted,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS")),
    };
    let encrypted = encrypted.inspect_err(|_| {
        door.metrics.tls.handshakes_failed.inc();
    })?;
    Ok(Box::new(encrypted))
}

/// Returns when the connection has done nothing for too long.
async fn idle(door: &Door, peer: &Peer) {
    loop {
        let ms = match peer.is_let_in() {
            true => door.options.idle_ms_max,
            false => door.options.login_ms_max,
        };
        let max = Duration::from_millis(ms);
        let wait = match peer.idle_since() {
            // A call that is under way has limits of its own.
            None => max,
            Some(since) => match max.checked_sub(door.now().saturating_sub(since)) {
                Some(left) if !left.is_zero() => left,
                _ => return,
            },
        };
        tokio::time::sleep(wait).await;
    }
}
