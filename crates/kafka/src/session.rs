//! What is known about one connection.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::authorizer::Principal;
use crate::options::ListenerSecurity;

/// One connection; its requests share it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Counts up over all connections of the process.
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    /// Which listener it came through.
    pub(crate) listener: usize,
    pub(crate) security: ListenerSecurity,
    state: RwLock<SessionState>,
}

#[derive(Debug, Clone)]
struct SessionState {
    principal: Option<Arc<Principal>>,
    software: Option<(String, String)>,
}

impl Session {
    pub(crate) fn new(
        id: u64,
        peer: SocketAddr,
        listener: usize,
        security: ListenerSecurity,
    ) -> Self {
        let principal = (!security.is_sasl()).then(|| Arc::new(Principal::anonymous()));
        let state = RwLock::new(SessionState { principal, software: None });
        Self { id, peer, listener, security, state }
    }

    /// Who is asking; nobody before a login.
    pub(crate) fn principal(&self) -> Option<Arc<Principal>> {
        self.state.read().principal.clone()
    }

    pub(crate) fn set_software(&self, name: &str, version: &str) {
        self.state.write().software = Some((name.to_owned(), version.to_owned()));
    }

    /// Name and version of the client's software, where it said them.
    pub(crate) fn software(&self) -> Option<(String, String)> {
        self.state.read().software.clone()
    }
}
