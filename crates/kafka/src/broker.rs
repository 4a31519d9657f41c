//! What all connections share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aquifer_env::{Clock, Random};
use aquifer_stream::StreamStore;
use aquifer_users::sasl::{AttemptLimits, Attempts, TokenValidator};
use aquifer_users::{Mechanism, Users};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{OnceCell, Semaphore, watch};

use crate::authorizer::Authorizer;
use crate::fetch::{ColdReads, FetchSessions};
use crate::groups::Groups;
use crate::metrics::KafkaMetrics;
use crate::options::{KafkaOptions, ListenerOptions, split_host_port};
use crate::quotas::ClientQuotas;

/// The only broker of this cluster, as clients know it.
pub(crate) const NODE_ID: i32 = 1;

/// The state behind the door; connections hold it by `Arc`.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) store: StreamStore,
    pub(crate) options: KafkaOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) metrics: KafkaMetrics,
    pub(crate) fetch_sessions: Arc<FetchSessions>,
    pub(crate) cold_reads: Arc<ColdReads>,
    /// Bytes of answers to fetches that are not yet sent.
    pub(crate) fetch_budget: Arc<Semaphore>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) users: Users,
    pub(crate) token_validator: Option<Arc<dyn TokenValidator>>,
    /// The failed logins of each address.
    pub(crate) attempts: Mutex<Attempts>,
    pub(crate) stopping: watch::Receiver<bool>,
    /// Where each listener really listens, by its number.
    addresses: RwLock<BTreeMap<usize, SocketAddr>>,
    listeners: Vec<ListenerOptions>,
    pub(crate) groups: Groups,
    pub(crate) quotas: Arc<ClientQuotas>,
    /// Asked of the store once.
    pub(crate) cluster_id: OnceCell<String>,
    /// Held while a stream's configuration is read and written back.
    pub(crate) altering: tokio::sync::Mutex<()>,
}

impl Broker {
    pub(crate) fn new(
        store: StreamStore,
        options: KafkaOptions,
        environment: crate::KafkaEnvironment,
        stopping: watch::Receiver<bool>,
    ) -> Arc<Self> {
        let crate::KafkaEnvironment { clock, random, metrics, authorizer, token_validator } =
            environment;
        let users = Users::new(store.clone(), clock.clone(), random.clone());
        let attempts = Attempts::new(AttemptLimits {
            delay_max: Duration::from_millis(options.login_delay_ms_max),
            addresses_max: options.login_addresses_max,
        });
        let listeners = options.all_listeners();
        let addresses = RwLock::default();
        let fetch_sessions = FetchSessions::new(clock.clone(), random.clone(), &options);
        let cold_reads = ColdReads::new(clock.clone(), &options);
        let fetch_budget = Arc::new(Semaphore::new(options.fetches_bytes_max));
        let quotas = ClientQuotas::start(store.clone(), &options, clock.clone(), stopping.clone());
        let groups =
            Groups::start(store.clone(), &options, clock.clone(), random.clone(), stopping.clone());
        Arc::new(Self {
            fetch_sessions,
            cold_reads,
            fetch_budget,
            store,
            options,
            clock,
            random,
            metrics,
            authorizer,
            users,
            token_validator,
            attempts: Mutex::new(attempts),
            stopping,
            addresses,
            listeners,
            groups,
            quotas,
            cluster_id: OnceCell::new(),
            altering: tokio::sync::Mutex::default(),
        })
    }

    pub(crate) fn set_address(&self, listener: usize, address: SocketAddr) {
        self.addresses.write().insert(listener, address);
    }

    /// The mechanisms that a listener offers.
    pub(crate) fn mechanisms(&self, listener: usize) -> Vec<Mechanism> {
        let listener = self.listeners.get(listener);
        let offered = |of| self.options.mechanisms(of, self.token_validator.is_some());
        listener.map(offered).unwrap_or_default()
    }

    /// The monotonic clock.
    pub(crate) fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.clock.monotonic_ns())
    }

    /// The host and port that clients of a listener are told to come to.
    pub(crate) fn advertised(&self, listener: usize) -> (String, u16) {
        let told = self.listeners.get(listener).and_then(|of| of.advertised.as_deref());
        if let Some(Ok(told)) = told.map(split_host_port) {
            return told;
        }
        let addresses = self.addresses.read();
        match addresses.get(&listener) {
            // Nobody can connect to "any address": this machine can, to itself.
            Some(address) if address.ip().is_unspecified() => {
                ("localhost".to_owned(), address.port())
            }
            Some(address) => (address.ip().to_string(), address.port()),
            None => ("localhost".to_owned(), 0),
        }
    }
}
