//! A listener: which connections are let in, and how they end with the server.
//!
//! It neither reads nor writes; what a connection says is its door's.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::prepare_connection;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::Addresses;

/// When the process has no file descriptor left, accepting pauses this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a door counts of its connections. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    /// Those that are open.
    pub open: Gauge,
    /// Those that were opened.
    pub opened: Counter,
    /// Those that were closed at once.
    pub refused: Counter,
}

impl ConnectionMetrics {
    /// Registers them under `registry`'s prefix, which is the door's.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Open connections", self.open.clone());
        registry.register("connections_opened", "Connections opened", self.opened.clone());
        registry.register(
            "connections_refused",
            "Connections closed at once, since there were enough, or enough of their address",
            self.refused.clone(),
        );
    }
}

/// What happens to a connection that finds all places taken. One whose address
/// has enough is closed in either case.
#[derive(Debug, Clone, Copy)]
pub enum WhenFull {
    /// It waits in the system's queue until one is free.
    Wait,
    /// It is closed, after this had a chance to say why without waiting; it is
    /// asked where an address has enough, too.
    TurnAway(fn(&TcpStream)),
}

/// A listener's limits.
#[derive(Debug)]
pub struct Listener {
    /// What its protocol is called in logs.
    pub protocol: &'static str,
    /// Places for connections; listeners may share them.
    pub places: Arc<Semaphore>,
    /// What happens without one.
    pub when_full: WhenFull,
    /// How many each address has.
    pub addresses: Addresses,
    /// How long a peer that answers nothing is waited for, in ms.
    pub peer_ms_max: u32,
    /// How long connections have to finish when the server stops.
    pub drain: Duration,
    /// Where they are counted.
    pub metrics: ConnectionMetrics,
    /// Becomes true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

impl Listener {
    /// Serves each connection of `socket` that is let in, until the server stops
    /// and they have finished or their time is over.
    pub async fn run<F, E>(
        mut self,
        socket: TcpListener,
        serve: impl Fn(TcpStream, SocketAddr) -> F,
    ) where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let protocol = self.protocol;
        let mut tasks = JoinSet::new();
        loop {
            let (place, accepted) = tokio::select! {
                _ = self.stopping.wait_for(|is_stopping| *is_stopping) => break,
                // Ended connections are taken off the set as they end.
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
                next = next(&socket, &self.places, self.when_full) => next,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, protocol, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (Some(place), Some(counted)) = (place, self.addresses.enter(peer.ip())) else {
                self.metrics.refused.inc();
                if let WhenFull::TurnAway(say) = self.when_full {
                    say(&stream);
                }
                tracing::debug!(%peer, protocol, "there are enough connections, or of its address");
                continue;
            };
            if let Err(error) = prepare_connection(&stream, self.peer_ms_max) {
                tracing::debug!(%peer, %error, "a connection's options could not be set");
            }
            let metrics = self.metrics.clone();
            let served = serve(stream, peer);
            tasks.spawn(async move {
                metrics.opened.inc();
                metrics.open.inc();
                let ended = served.await;
                metrics.open.dec();
                // What clients do to their connections is theirs.
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, protocol, "a connection ended");
                }
                drop((place, counted));
            });
        }
        drop(socket);
        let drained = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain, drained).await.is_err() {
            let waited = self.drain;
            tracing::warn!(protocol, ?waited, "what was still under way is cut off");
            tasks.shutdown().await;
        }
    }
}

/// The next connection, and its place if it has one. Whoever waits for a place
/// does so before accepting; the semaphore is never closed.
async fn next(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
    when_full: WhenFull,
) -> (Option<OwnedSemaphorePermit>, std::io::Result<(TcpStream, SocketAddr)>) {
    if matches!(when_full, WhenFull::Wait) {
        let place = places.clone().acquire_owned().await.ok();
        return (place, socket.accept().await);
    }
    let accepted = socket.accept().await;
    (places.clone().try_acquire_owned().ok(), accepted)
}
