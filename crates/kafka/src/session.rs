//! What is known about one connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::authorizer::Principal;
use crate::options::ListenerSecurity;
use crate::sasl::Login;

/// One connection; its requests share it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Counts up over all connections of the process.
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    /// Which listener it came through.
    pub(crate) listener: usize,
    pub(crate) security: ListenerSecurity,
    /// Whose batches go to the ledger next; held from their check until they
    /// stand in its queue.
    pub(crate) producing: tokio::sync::Mutex<()>,
    /// Until when it is not read from, in nanoseconds of the monotonic clock.
    paused_until_ns: AtomicU64,
    state: RwLock<SessionState>,
}

#[derive(Debug)]
struct SessionState {
    principal: Option<Arc<Principal>>,
    login: Login,
    /// When the login has to be made anew, on the monotonic clock.
    expires_ns: Option<u64>,
    is_over: bool,
}

impl Session {
    pub(crate) fn new(
        id: u64,
        peer: SocketAddr,
        listener: usize,
        security: ListenerSecurity,
        certified: Option<Principal>,
    ) -> Self {
        // Where a login is asked for, only that counts.
        let principal =
            (!security.is_sasl()).then(|| Arc::new(certified.unwrap_or_else(Principal::anonymous)));
        let state = RwLock::new(SessionState {
            principal,
            login: Login::Nothing,
            expires_ns: None,
            is_over: false,
        });
        let producing = tokio::sync::Mutex::default();
        let paused_until_ns = AtomicU64::new(0);
        Self { id, peer, listener, security, producing, paused_until_ns, state }
    }

    /// Lets nothing be read from it until a moment of the monotonic clock.
    pub(crate) fn pause_until(&self, moment: Duration) {
        let moment = u64::try_from(moment.as_nanos()).unwrap_or(u64::MAX);
        self.paused_until_ns.fetch_max(moment, Ordering::Relaxed);
    }

    /// For how much longer nothing is read from it.
    pub(crate) fn pause_left(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(self.paused_until_ns.load(Ordering::Relaxed).saturating_sub(now_ns))
    }

    /// Who is asking; nobody before a login.
    pub(crate) fn principal(&self) -> Option<Arc<Principal>> {
        self.state.read().principal.clone()
    }

    /// Takes the login under way out; what goes on puts the rest back.
    pub(crate) fn take_login(&self) -> Login {
        std::mem::replace(&mut self.state.write().login, Login::Nothing)
    }

    pub(crate) fn set_login(&self, login: Login) {
        self.state.write().login = login;
    }

    /// Whether the next frame is a mechanism's message without a header.
    pub(crate) fn expects_bare_message(&self) -> bool {
        self.state.read().login.is_bare()
    }

    /// A user was proved, for ever or until a moment of the monotonic clock.
    pub(crate) fn log_in(&self, principal: Arc<Principal>, expires_ns: Option<u64>) {
        let mut state = self.state.write();
        state.principal = Some(principal);
        state.expires_ns = expires_ns;
    }

    /// Whether the login has to be made anew before anything else is answered.
    pub(crate) fn is_expired(&self, now_ns: u64) -> bool {
        self.state.read().expires_ns.is_some_and(|expires| expires <= now_ns)
    }

    /// The connection is closed behind the answer that is under way.
    pub(crate) fn end(&self) {
        self.state.write().is_over = true;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.read().is_over
    }
}
