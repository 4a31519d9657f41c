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
use arrow_flight::flight_service_server::FlightServiceServer;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::arrival::Budget;
use crate::connection;
use crate::login::LOGINS_MAX;
use crate::metrics::FlightMetrics;
use crate::options::FlightOptions;
use crate::runs::Runs;
use crate::service::FlightSql;
use crate::sessions::{SessionLimits, Sessions};
use crate::statements::{StatementLimits, Statements};

/// What is put around a batch of rows.
const ENVELOPE_BYTES_MAX: usize = 33 << 20;

/// What the server needs besides its store and options.
#[derive(Debug)]
pub struct FlightEnvironment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where tokens and handles come from.
    pub random: Arc<dyn Random>,
    /// Where the server counts.
    pub metrics: FlightMetrics,
    /// Who answers.
    pub queries: Queries,
}

/// A running server. Dropping it leaves it running; [`FlightServer::stop`] ends
/// it.
#[derive(Debug)]
pub struct FlightServer {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
}

/// What connections share.
pub(crate) struct Door {
    pub(crate) options: FlightOptions,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: FlightMetrics,
    pub(crate) queries: Queries,
    pub(crate) users: Users,
    pub(crate) attempts: Mutex<Attempts>,
    pub(crate) sessions: Sessions,
    pub(crate) statements: Statements,
    pub(crate) runs: Runs,
    pub(crate) budget: Budget,
    /// Places for calls.
    pub(crate) calls: Arc<Semaphore>,
    /// Places for logins, which take none of those for calls.
    pub(crate) logins: Semaphore,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) stopping: watch::Receiver<bool>,
    clock: Arc<dyn Clock>,
}

impl Door {
    /// The time that limits are counted by.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_nanos(self.clock.monotonic_ns())
    }
}

impl FlightServer {
    /// Binds and begins to answer.
    ///
    /// # Errors
    /// Options outside their bounds, files that cannot be used, or an address
    /// that cannot be bound.
    pub async fn start(
        store: StreamStore,
        options: FlightOptions,
        environment: FlightEnvironment,
    ) -> io::Result<Self> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        options.validate().map_err(|(field, why)| invalid(format!("flight.{field} {why}")))?;
        let loaded = match options.tls() {
            Some(files) => {
                let forms = BTreeSet::from([options.tls_client_certificates]);
                let metrics = environment.metrics.tls.clone();
                let loaded = Tls::load(files, forms, metrics).await;
                Some(loaded.map_err(|error| invalid(format!("TLS: {error}")))?)
            }
            None => None,
        };
        let socket = TcpListener::bind(options.listen).await.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", options.listen))
        })?;
        let address = socket.local_addr()?;
        let (stopping, is_stopping) = watch::channel(false);
        let reload_interval = Duration::from_millis(options.tls_reload_interval_ms);
        let tls = loaded.as_ref().map(|(tls, _)| tls.clone());
        let door = door(store, options, environment, tls, is_stopping.clone());
        let mut running = vec![tokio::spawn(accept(Arc::new(door), socket))];
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

    /// Stops accepting, lets calls under way finish within `drain_ms_max`, then
    /// cuts the rest off.
    pub async fn stop(self) {
        self.stopping.send_replace(true);
        for running in self.running {
            if let Err(error) = running.await {
                tracing::error!(%error, "the Flight listener ended abnormally");
            }
        }
    }
}

fn door(
    store: StreamStore,
    options: FlightOptions,
    environment: FlightEnvironment,
    tls: Option<Arc<Tls>>,
    stopping: watch::Receiver<bool>,
) -> Door {
    let FlightEnvironment { clock, random, metrics, queries } = environment;
    let attempts = AttemptLimits {
        delay_max: Duration::from_millis(options.login_delay_ms_max),
        addresses_max: options.login_addresses_max,
    };
    let sessions = SessionLimits {
        count_max: options.sessions_max,
        idle_max: Duration::from_millis(options.session_idle_ms_max),
        age_max: Duration::from_millis(options.session_ms_max),
    };
    let statements = StatementLimits {
        count_max: options.statements_max,
        per_owner_max: options.statements_per_client_max,
        bytes_max: options.statements_bytes_max,
        idle_max: Duration::from_millis(options.statement_idle_ms_max),
    };
    Door {
        users: Users::new(store, clock.clone(), random.clone()),
        attempts: Mutex::new(Attempts::new(attempts)),
        sessions: Sessions::new(sessions),
        statements: Statements::new(statements, metrics.prepared.clone()),
        runs: Runs::default(),
        budget: Budget::new(options.messages_bytes_max),
        calls: Arc::new(Semaphore::new(options.calls_max)),
        logins: Semaphore::new(LOGINS_MAX),
        options,
        random,
        metrics,
        queries,
        tls,
        stopping,
        clock,
    }
}

async fn accept(door: Arc<Door>, socket: TcpListener) {
    let service = FlightServiceServer::new(FlightSql::new(door.clone()))
        .max_decoding_message_size(door.options.message_bytes_max)
        .max_encoding_message_size(door.options.batch_bytes_max + ENVELOPE_BYTES_MAX);
    let options = &door.options;
    let listener = Listener {
        protocol: "Flight",
        places: Arc::new(Semaphore::new(options.connections_max)),
        // Nothing can be said before the client has: it is just closed.
        when_full: WhenFull::TurnAway(|_| ()),
        addresses: Addresses::new(options.connections_per_address_max),
        peer_ms_max: options.peer_ms_max,
        drain: Duration::from_millis(options.drain_ms_max),
        metrics: door.metrics.connections.clone(),
        stopping: door.stopping.clone(),
    };
    let serve = |stream, peer| connection::serve(door.clone(), service.clone(), stream, peer);
    listener.run(socket, serve).await;
}
