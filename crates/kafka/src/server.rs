//! Listening, accepting, and stopping without cutting anyone off.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aquifer_doors::{Addresses, ClientCertificates, Listener, Tls, WhenFull};
use aquifer_env::{Clock, Random};
use aquifer_stream::StreamStore;
use aquifer_users::sasl::TokenValidator;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::authorizer::Authorizer;
use crate::broker::Broker;
use crate::budget::Budgets;
use crate::connection;
use crate::frame::FrameError;
use crate::metrics::KafkaMetrics;
use crate::options::{KafkaOptions, ListenerSecurity};
use crate::session::Session;
use crate::tls;

/// What the server needs besides its store and options.
#[derive(Debug)]
pub struct KafkaEnvironment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where member ids and nonces come from.
    pub random: Arc<dyn Random>,
    /// Where the server counts.
    pub metrics: KafkaMetrics,
    /// Who decides what a principal may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// What proves tokens; without it `OAUTHBEARER` is not offered.
    pub token_validator: Option<Arc<dyn TokenValidator>>,
}

/// A running Kafka server. Dropping it leaves it running; [`KafkaServer::stop`]
/// ends it.
#[derive(Debug)]
pub struct KafkaServer {
    addresses: Vec<SocketAddr>,
    stopping: watch::Sender<bool>,
    accepting: Vec<JoinHandle<()>>,
}

/// What the listeners share.
struct Door {
    broker: Arc<Broker>,
    connections: Arc<Semaphore>,
    addresses: Addresses,
    budgets: Budgets,
    sessions: AtomicU64,
    tls: Option<Arc<Tls>>,
}

/// What tells a listener from the others.
#[derive(Debug, Clone, Copy)]
struct KafkaListener {
    number: usize,
    security: ListenerSecurity,
    client_certificates: ClientCertificates,
}

impl KafkaServer {
    /// Binds all listeners and begins to answer.
    ///
    /// # Errors
    /// Options outside their bounds, or an address that cannot be bound.
    pub async fn start(
        store: StreamStore,
        options: KafkaOptions,
        environment: KafkaEnvironment,
    ) -> io::Result<Self> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        options.validate().map_err(|(field, why)| invalid(format!("kafka.{field} {why}")))?;
        let listeners = options.all_listeners();
        let (stopping, is_stopping) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(options.connections_max));
        let addresses = Addresses::new(options.connections_per_address_max);
        let budgets = Budgets::new(&options);
        let loaded = match options.tls() {
            Some((files, forms)) => {
                let metrics = environment.metrics.tls.clone();
                let loaded = Tls::load(files, forms, metrics).await;
                Some(loaded.map_err(|error| invalid(format!("TLS: {error}")))?)
            }
            None => None,
        };
        let reload_interval = Duration::from_millis(options.tls_reload_interval_ms);
        let broker = Broker::new(store, options, environment, is_stopping.clone());
        let sessions = AtomicU64::new(0);
        let tls = loaded.as_ref().map(|(tls, _)| tls.clone());
        let door = Arc::new(Door { broker, connections, addresses, budgets, sessions, tls });
        let mut bound = Vec::with_capacity(listeners.len());
        for (number, listener) in listeners.iter().enumerate() {
            let is_sasl = listener.security.is_sasl();
            if is_sasl && door.broker.mechanisms(number).is_empty() {
                let at = listener.listen;
                return Err(invalid(format!("kafka.sasl_mechanisms leaves nothing for {at}")));
            }
            let socket = TcpListener::bind(listener.listen).await.map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", listener.listen))
            })?;
            door.broker.set_address(number, socket.local_addr()?);
            let client_certificates = door.broker.options.client_certificates(listener);
            let security = listener.security;
            bound.push((KafkaListener { number, security, client_certificates }, socket));
        }
        let mut addresses = Vec::with_capacity(bound.len());
        let mut accepting = Vec::with_capacity(bound.len() + 1);
        for (listener, socket) in bound {
            addresses.push(socket.local_addr()?);
            accepting.push(tokio::spawn(accept(door.clone(), listener, socket)));
        }
        if let Some((tls, seen)) = loaded {
            accepting.push(tokio::spawn(tls.keep_current(seen, reload_interval, is_stopping)));
        }
        Ok(Self { addresses, stopping, accepting })
    }

    /// Where it listens, with the real ports, the first listener first.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops accepting, lets requests under way finish within `drain_ms_max`,
    /// then cuts the rest off.
    pub async fn stop(self) {
        self.stopping.send_replace(true);
        for accepting in self.accepting {
            if let Err(error) = accepting.await {
                tracing::error!(%error, "a Kafka listener ended abnormally");
            }
        }
    }
}

async fn accept(door: Arc<Door>, listener: KafkaListener, socket: TcpListener) {
    let Broker { options, metrics, stopping, .. } = &*door.broker;
    let accepting = Listener {
        protocol: "Kafka",
        places: door.connections.clone(),
        when_full: WhenFull::Wait,
        addresses: door.addresses.clone(),
        peer_ms_max: options.peer_ms_max,
        drain: Duration::from_millis(options.drain_ms_max),
        metrics: metrics.connections.clone(),
        stopping: stopping.clone(),
    };
    let serve = |stream, peer| {
        let id = door.sessions.fetch_add(1, Ordering::Relaxed);
        welcome(door.clone(), listener, id, stream, peer)
    };
    accepting.run(socket, serve).await;
}

/// Serves a connection that was accepted, under TLS where the listener is.
async fn welcome(
    door: Arc<Door>,
    listener: KafkaListener,
    id: u64,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), FrameError> {
    let (broker, budgets) = (door.broker.clone(), door.budgets.clone());
    let KafkaListener { number, security, client_certificates } = listener;
    let session = |certified| Arc::new(Session::new(id, peer, number, security, certified));
    if !security.is_tls() {
        return connection::serve(stream, broker, session(None), budgets).await;
    }
    let config = door.tls.as_ref().and_then(|tls| tls.config(client_certificates));
    let config = config.ok_or_else(|| io::Error::other("the listener has no certificate"))?;
    let mut stopping = broker.stopping.clone();
    let limit = Duration::from_millis(broker.options.tls_handshake_ms_max);
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(limit, TlsAcceptor::from(config).accept(stream)) => shaken,
        _ = stopping.wait_for(|is_stopping| *is_stopping) => return Ok(()),
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            broker.metrics.tls.handshakes_failed.inc();
            return Err(error.into());
        }
        Err(_) => {
            broker.metrics.tls.handshakes_failed.inc();
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake").into());
        }
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certified = match shown {
        // Whoever showed one is not taken for a nobody.
        Some(certificate) => Some(tls::principal(certificate).ok_or_else(|| {
            io::Error::other("the subject of the client's certificate cannot be written down")
        })?),
        None => None,
    };
    connection::serve(stream, broker, session(certified), budgets).await
}
