//! Listening, accepting, and stopping without cutting anyone off.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aquifer_doors::{Addresses, Listener, Tls, WhenFull};
use aquifer_env::{Clock, Random};
use aquifer_query::Queries;
use aquifer_stream::StreamStore;
use aquifer_users::Users;
use aquifer_users::sasl::{AttemptLimits, Attempts};
use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::cancels::Cancels;
use crate::error::{Problem, sqlstate};
use crate::frames::Budget;
use crate::metrics::PostgresMetrics;
use crate::options::PostgresOptions;
use crate::{reply, startup};

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
    let options = &door.options;
    let listener = Listener {
        protocol: "PostgreSQL",
        places: Arc::new(Semaphore::new(options.connections_max)),
        when_full: WhenFull::TurnAway(turn_away),
        addresses: Addresses::new(options.connections_per_address_max),
        peer_ms_max: options.peer_ms_max,
        drain: Duration::from_millis(options.drain_ms_max),
        metrics: door.metrics.connections.clone(),
        stopping: door.stopping.clone(),
    };
    listener.run(socket, |stream, peer| startup::welcome(door.clone(), stream, peer)).await;
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
