//! Accepting connections, and stopping without cutting anyone off.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::{Clock, Random, prepare_connection};
use aquifer_objects::Objects;
use aquifer_query::Queries;
use aquifer_stream::StreamStore;
use aquifer_tables::Tables;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tower::Service as _;

use crate::app::{App, Shared};
use crate::guard::Peer;
use crate::metrics::GaugeGuard;
use crate::routes::router;
use crate::{HttpMetrics, HttpOptions};

/// When the process has no file descriptor left, accepting pauses this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the server needs besides its store and options.
#[derive(Debug)]
pub struct HttpEnvironment {
    /// The time of records that have none, and of all measurements.
    pub clock: Arc<dyn Clock>,
    /// Where nonces come from.
    pub random: Arc<dyn Random>,
    /// Who answers statements.
    pub queries: Queries,
    /// The open tables, where they are not switched off.
    pub tables: Option<Tables>,
    /// Imports, watches and exports, where they are not switched off.
    pub objects: Option<Objects>,
    /// Where the server counts.
    pub metrics: HttpMetrics,
    /// What `/metrics` shows.
    pub registries: Vec<Arc<Registry>>,
}

/// A running HTTP server. Dropping it leaves it running; [`HttpServer::stop`]
/// ends it.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl HttpServer {
    /// Binds `options.listen` and begins to answer.
    ///
    /// # Errors
    /// Options outside their bounds, or an address that cannot be bound.
    pub async fn start(
        store: StreamStore,
        options: HttpOptions,
        environment: HttpEnvironment,
    ) -> io::Result<Self> {
        options.validate().map_err(|(field, why)| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{field}: {why}"))
        })?;
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let (stopping, is_stopping) = watch::channel(false);
        let app = Shared::new(store, options, environment, is_stopping);
        let accepting = tokio::spawn(accept(listener, app));
        Ok(Self { address, stopping, accepting })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, ends tails and waits, lets requests under way finish
    /// within `drain_ms_max`, then cuts the rest off.
    pub async fn stop(self) {
        self.stopping.send_replace(true);
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the HTTP server ended abnormally");
        }
    }
}

async fn accept(listener: TcpListener, app: App) {
    let router = router(app.clone());
    let drain = Duration::from_millis(app.options.drain_ms_max);
    let connections = Arc::new(Semaphore::new(app.options.connections_max));
    let graceful = GracefulShutdown::new();
    let (cut_off, is_cut_off) = watch::channel(false);
    let mut stopping = app.stopping.clone();
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&connections).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
            next = next => next,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = serve(stream, peer, &app, router.clone());
        let connection = graceful.watch(connection);
        let gauge = GaugeGuard::new(&app.metrics.connections, 1);
        app.metrics.connections_total.inc();
        let mut is_cut_off = is_cut_off.clone();
        tokio::spawn(async move {
            let _held = (permit, gauge);
            tokio::select! {
                // What clients do to their connections is theirs.
                result = connection => if let Err(error) = result {
                    tracing::debug!(%peer, %error, "connection ended");
                },
                _ = is_cut_off.wait_for(|is_cut_off| *is_cut_off) => {}
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(?drain, "requests were still under way and are cut off");
        cut_off.send_replace(true);
    }
}

fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    app: &App,
    router: Router,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + use<> {
    if let Err(error) = prepare_connection(&stream, app.options.peer_ms_max) {
        tracing::debug!(%peer, %error, "a connection's options could not be set");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let mut router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        async move { Ok::<_, Infallible>(unwrap(router.call(request).await)) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(app.options.header_ms_max))
        .serve_connection(TokioIo::new(stream), service)
}

fn unwrap<T>(result: Result<T, Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}
