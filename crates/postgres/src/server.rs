//! Listening, accepting, and stopping without cutting anyone off.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aquifer_doors::{Addresses, Tls};
use aquifer_env::{Clock, Random, prepare_connection};
use aquifer_query::Queries;
use aquifer_stream::StreamStore;
use aquifer_users::Users;
use aquifer_users::sasl::{AttemptLimits, Attempts};
use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::cancels::Cancels;
use crate::error::{Problem, sqlstate};
use crate::frames::Budget;
use crate::metrics::PostgresMetrics;
use crate::options::PostgresOptions;
use crate::{reply, startup};

/// When the process has no file descriptor left, accepting pauses this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the server needs besides its store and options.
#[derive(Debug)]
pub struct PostgresEnvironment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where nonces and secrets come from.
    pub random: Arc<dyn Random>,
    /// Where the server counts.
    pub metrics: PostgresMetrics,
    /// Who answers.
    pub queries: Queries,
}

/// A running server. Dropping it leaves it running; [`PostgresServer::stop`]
/// ends it.
#[derive(Debug)]
pub struct PostgresServer {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
}

/// What connections share.
pub(crate) struct Door {
    pub(crate) options: PostgresOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: PostgresMetrics,
    pub(crate) queries: Queries,
    pub(crate) users: Users,
    pub(crate) attempts: Mutex<Attempts>,
    pub(crate) cancels: Cancels,
    pub(crate) budget: Budget,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) stopping: watch::Receiver<bool>,
}

impl PostgresServer {
    /// Binds and begins to answer.
    ///
    /// # Errors
    /// Options outside their bounds, files that cannot be used, or an address
    /// that cannot be bound.
    pub async fn start(
        store: StreamStore,
        options: PostgresOptions,
        environment: PostgresEnvironment,
    ) -> io::Result<Self> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        options.validate().map_err(|(field, why)| invalid(format!("postgres.{field} {why}")))?;
        let PostgresEnvironment { clock, random, metrics, queries } = environment;
        let loaded = match options.tls() {
            Some(files) => {
                let forms = BTreeSet::from([options.tls_client_certificates]);
                let loaded = Tls::load(files, forms, metrics.tls.clone()).await;
                Some(loaded.map_err(|error| invalid(format!("TLS: {error}")))?)
            }
            None => None,
        };
        let socket = TcpListener::bind(options.listen).await.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", options.listen))
        })?;
        let address = socket.local_addr()?;
        let (stopping, is_stopping) = watch::channel(false);
        let limits = AttemptLimits {
            delay_max: Duration::from_millis(options.login_delay_ms_max),
            addresses_max: options.login_addresses_max,
        };
        let reload_interval = Duration::from_millis(options.tls_reload_interval_ms);
        let door = Arc::new(Door {
            users: Users::new(store, clock.clone(), random.clone()),
            attempts: Mutex::new(Attempts::new(limits)),
            cancels: Cancels::default(),
            budget: Budget::new(options.messages_bytes_max),
            tls: loaded.as_ref().map(|(tls, _)| tls.clone()),
            stopping: is_stopping.clone(),
            options,
            clock,
            random,
            metrics,
            queries,
        });
        let mut running = vec![tokio::spawn(accept(door, socket))];
        if let Some((tls, seen)) = loaded {
            running.push(tokio::spawn(tls.keep_current(seen, reload_interval, is_stopping)));
        }
        Ok(Self { address, stopping, running })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, lets statements under way finish within `drain_ms_max`,
    /// then cuts the rest off.
    pub async fn stop(self) {
        self.stopping.send_replace(true);
        for running in self.running {
            if let Err(error) = running.await {
                tracing::error!(%error, "the PostgreSQL listener ended abnormally");
            }
        }
    }
}

async fn accept(door: Arc<Door>, socket: TcpListener) {
    let places = Arc::new(Semaphore::new(door.options.connections_max));
    let addresses = Addresses::new(door.options.connections_per_address_max);
    let mut stopping = door.stopping.clone();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stopping.wait_for(|is_stopping| *is_stopping) => break,
            // Ended connections are taken off the set as they end.
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = socket.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a PostgreSQL connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = (places.clone().try_acquire_owned().ok(), addresses.enter(peer.ip()));
        let (Some(place), Some(counted)) = place else {
            door.metrics.connections_refused.inc();
            turn_away(&stream);
            continue;
        };
        if let Err(error) = prepare_connection(&stream, door.options.peer_ms_max) {
            tracing::debug!(%peer, %error, "a connection's options could not be set");
        }
        let door = door.clone();
        tasks.spawn(async move {
            let metrics = door.metrics.clone();
            metrics.connections_total.inc();
            metrics.connections.inc();
            let ended = startup::welcome(door, stream, peer).await;
            metrics.connections.dec();
            // What clients do to their connections is theirs.
            if let Err(error) = ended {
                tracing::debug!(%peer, %error, "a PostgreSQL connection ended");
            }
            drop((place, counted));
        });
    }
    drop(socket);
    let drain = Duration::from_millis(door.options.drain_ms_max);
    let drained = tokio::time::timeout(drain, async { while tasks.join_next().await.is_some() {} });
    if drained.await.is_err() {
        tracing::warn!(?drain, "PostgreSQL statements were still under way and are cut off");
        tasks.shutdown().await;
    }
}

/// Says that there are enough connections, without waiting for anything.
fn turn_away(stream: &TcpStream) {
    let mut to = BytesMut::new();
    let problem = Problem::fatal(sqlstate::TOO_MANY_CONNECTIONS, "there are too many connections")
        .hint("postgres.connections_max and connections_per_address_max are the limits");
    reply::error(&mut to, &problem);
    // It fits what a new connection can hold; if not, closing it says as much.
    let _ = stream.try_write(&to);
}
