//! Leases: who may act under a name, and until when others are kept off.
//!
//! A grant has a *fencing token*, above every token given before, over restarts
//! and recoveries. Commits name it as a precondition, so that a holder that was
//! overtaken changes nothing any more, however late its commits arrive; time
//! only says when another may take over. A lease that ran out and that nobody
//! took is still good. A restart gives every holder its whole time anew: how
//! long the server was down is not known for certain.

use std::collections::BTreeMap;

use aquifer_types::{Epoch, LeaseName, LeaseToken, Timestamp};
use serde::{Deserialize, Serialize};

use super::document::{DocumentExpectation, DocumentKey};
use crate::Error;

/// A condition under which a commit is done; otherwise nothing of it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// Nobody has taken the lease over or given it back since this grant.
    Lease {
        /// The lease.
        name: LeaseName,
        /// The grant.
        token: LeaseToken,
    },
    /// A document is as it was when it was looked at.
    Document {
        /// The document.
        key: DocumentKey,
        /// How it was.
        expected: DocumentExpectation,
    },
}

/// A lease that was granted and not given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldLease {
    pub(crate) token: LeaseToken,
    pub(crate) ttl_ms: u64,
    /// On the ledger's steady clock; set anew at each start.
    pub(crate) expires: Timestamp,
}

/// All leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LeaseTable {
    pub(crate) held: BTreeMap<LeaseName, HeldLease>,
    /// The highest token that was ever given.
    pub(crate) last_token: LeaseToken,
}

/// How to take a change of a lease back.
#[derive(Debug)]
pub(crate) struct LeaseUndo {
    name: LeaseName,
    old: Option<HeldLease>,
    last_token: LeaseToken,
}

impl HeldLease {
    pub(crate) fn new(token: LeaseToken, ttl_ms: u64, now: Timestamp) -> Self {
        Self { token, ttl_ms, expires: Timestamp(now.get().saturating_add_unsigned(ttl_ms)) }
    }
}

impl LeaseTable {
    /// A token above all others. A recovery from tier 2 does not know them, but
    /// its epoch is higher.
    pub(crate) fn next_token(&self, epoch: Epoch) -> LeaseToken {
        let of_epoch = u64::from(epoch.get()) << 32;
        LeaseToken(self.last_token.get().max(of_epoch).saturating_add(1))
    }

    pub(crate) fn hold(&mut self, name: &LeaseName, lease: HeldLease) -> LeaseUndo {
        let last_token = self.last_token;
        self.last_token = last_token.max(lease.token);
        LeaseUndo { name: name.clone(), old: self.held.insert(name.clone(), lease), last_token }
    }

    pub(crate) fn release(&mut self, name: &LeaseName) -> LeaseUndo {
        let last_token = self.last_token;
        LeaseUndo { name: name.clone(), old: self.held.remove(name), last_token }
    }

    pub(crate) fn undo(&mut self, undo: LeaseUndo) {
        match undo.old {
            Some(old) => self.held.insert(undo.name, old),
            None => self.held.remove(&undo.name),
        };
        self.last_token = undo.last_token;
    }

    /// Whether another may have the lease now.
    ///
    /// # Errors
    /// [`Error::LeaseHeld`].
    pub(crate) fn check_free(&self, name: &LeaseName, now: Timestamp) -> Result<(), Error> {
        match self.held.get(name) {
            Some(held) if held.expires > now => Err(Error::LeaseHeld {
                name: name.clone(),
                token: held.token,
                wait_ms: held.expires.get().saturating_sub(now.get()).max(0) as u64,
            }),
            _ => Ok(()),
        }
    }

    /// Whether the grant is the newest one and was not given back.
    ///
    /// # Errors
    /// [`Error::Fenced`].
    pub(crate) fn check_token(&self, name: &LeaseName, token: LeaseToken) -> Result<(), Error> {
        let held = self.held.get(name).map(|held| held.token);
        if held == Some(token) {
            return Ok(());
        }
        let now = match held {
            Some(held) => format!("it was granted anew under token {held}"),
            None => "nobody holds it any more".to_owned(),
        };
        Err(Error::Fenced(format!(
            "lease {name} is not held under token {token}: {now}; nothing was done"
        )))
    }

    /// Gives every holder its whole time from `now` on.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        for held in self.held.values_mut() {
            *held = HeldLease::new(held.token, held.ttl_ms, now);
        }
    }

    /// Forgets what ran out as long ago as it had lasted. Its holder is fenced
    /// by that; should a restart bring the grant back, nobody else had it.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        self.held
            .retain(|_, held| held.expires.get().saturating_add_unsigned(held.ttl_ms) > now.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_goes_to_one_at_a_time_and_tokens_only_grow() {
        let name = LeaseName::new("coordinator").unwrap();
        let mut table = LeaseTable::default();
        let mut grant = |now: i64| {
            table.check_free(&name, Timestamp(now))?;
            let token = table.next_token(Epoch(3));
            let _ = table.hold(&name, HeldLease::new(token, 100, Timestamp(now)));
            Ok::<_, Error>(token)
        };
        let first = grant(0).unwrap();
        assert_eq!(first, LeaseToken((3 << 32) + 1));
        let Err(Error::LeaseHeld { wait_ms: 1, token, .. }) = grant(99) else { panic!("at 99") };
        assert_eq!(token, first);
        let second = grant(100).unwrap();
        assert!(second > first);
        assert!(matches!(table.check_token(&name, first), Err(Error::Fenced(_))));
        table.check_token(&name, second).unwrap();
        table.restart(Timestamp(5_000));
        assert!(table.check_free(&name, Timestamp(5_099)).is_err(), "its whole time anew");
        table.forget(Timestamp(5_199));
        table.check_token(&name, second).unwrap();
        table.forget(Timestamp(5_200));
        assert!(matches!(table.check_token(&name, second), Err(Error::Fenced(_))));
        assert_eq!(table.next_token(Epoch(3)), LeaseToken(second.get() + 1));
        assert_eq!(table.next_token(Epoch(4)), LeaseToken((4 << 32) + 1));
    }
}
