//! One member of a classic group.

use bytes::Bytes;

use super::{Ms, Ticket};

/// How long a member that was never told its id may wait in a rebalance: it
/// cannot send heartbeats yet, and may be long gone.
const NEW_MEMBER_JOIN_MS: Ms = 5 * 60 * 1000;

/// A protocol that a member speaks, and what it says in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: String,
    pub(crate) metadata: Bytes,
}

/// A member.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: String,
    /// Set for static members.
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_ms: Ms,
    pub(crate) rebalance_ms: Ms,
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) assignment: Bytes,
    /// Counts up over the members of a group: the oldest leads.
    pub(super) order: u64,
    /// It was not told its id yet.
    pub(super) is_new: bool,
    /// When it is taken for lost.
    pub(super) deadline: Ms,
    /// The `JoinGroup` that waits for the rebalance.
    pub(super) joining: Option<Ticket>,
    /// The `SyncGroup` that waits for the leader.
    pub(super) syncing: Option<Ticket>,
    /// It has asked for its assignment in this generation.
    pub(super) has_synced: bool,
}

impl Member {
    /// A member as it was stored: ids, client, session and rebalance timeouts.
    pub(crate) fn restored(
        (id, instance): (String, Option<String>),
        (client_id, client_host): (String, String),
        (session_ms, rebalance_ms): (Ms, Ms),
        protocols: Vec<Protocol>,
        assignment: Bytes,
    ) -> Self {
        Self {
            id,
            instance,
            client_id,
            client_host,
            session_ms,
            rebalance_ms,
            protocols,
            assignment,
            order: 0,
            is_new: false,
            deadline: 0,
            joining: None,
            syncing: None,
            has_synced: true,
        }
    }

    /// The oldest member has the lowest.
    pub(crate) const fn order(&self) -> u64 {
        self.order
    }

    pub(super) const fn is_waiting(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    /// It was heard of.
    pub(super) fn keep(&mut self, now: Ms) {
        self.deadline = now.saturating_add(self.session_ms);
    }

    /// It waits in its first rebalance.
    pub(super) fn keep_as_new(&mut self, now: Ms) {
        self.is_new = true;
        self.deadline = now.saturating_add(NEW_MEMBER_JOIN_MS);
    }

    pub(super) fn speaks(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|of| of.name == protocol)
    }

    pub(crate) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let named = |of: &&Protocol| Some(of.name.as_str()) == protocol;
        self.protocols.iter().find(named).map(|of| of.metadata.clone()).unwrap_or_default()
    }
}
