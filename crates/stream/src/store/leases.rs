//! Leases as their holders see them.

use std::time::Duration;

use aquifer_types::{LeaseName, LeaseToken};

use super::StreamStore;
use crate::Error;
use crate::ledger::{Operation, Outcome, Precondition};

/// A lease that was granted. When it is dropped it is not given back: it runs
/// out.
#[derive(Debug)]
pub struct Lease {
    store: StreamStore,
    name: LeaseName,
    token: LeaseToken,
    ttl: Duration,
}

impl StreamStore {
    /// Takes a lease for `ttl`, 1 ms to `lease_ttl_ms_max`, on a clock that does
    /// not jump.
    ///
    /// # Errors
    /// [`Error::LeaseHeld`] says how long to wait; [`Error::Throttled`] beyond
    /// `leases_max`; as the ledger decides.
    pub async fn lease(&self, name: LeaseName, ttl: Duration) -> Result<Lease, Error> {
        let operation = Operation::AcquireLease { name: name.clone(), ttl_ms: ms(ttl) };
        let committed = self.commit(vec![operation]).await?;
        match committed.outcomes.first() {
            Some(Outcome::Leased(token)) => {
                Ok(Lease { store: self.clone(), name, token: *token, ttl })
            }
            other => Err(Error::Internal(format!("a lease came to {other:?}"))),
        }
    }
}

impl Lease {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &LeaseName {
        &self.name
    }

    /// The fencing token: higher than that of any earlier grant of any lease.
    #[must_use]
    pub fn token(&self) -> LeaseToken {
        self.token
    }

    /// What commits name, so that they are refused once another has taken over.
    #[must_use]
    pub fn precondition(&self) -> Precondition {
        Precondition::Lease { name: self.name.clone(), token: self.token }
    }

    /// Lets it last its whole time from now on.
    ///
    /// # Errors
    /// [`Error::Fenced`] where another has taken over; as the ledger decides.
    pub async fn renew(&self) -> Result<(), Error> {
        let (name, token) = (self.name.clone(), self.token);
        let operation = Operation::RenewLease { name, token, ttl_ms: ms(self.ttl) };
        self.store.commit(vec![operation]).await.map(|_| ())
    }

    /// Gives it back, so that another may have it at once.
    ///
    /// # Errors
    /// As [`Lease::renew`].
    pub async fn release(self) -> Result<(), Error> {
        let operation = Operation::ReleaseLease { name: self.name.clone(), token: self.token };
        self.store.commit(vec![operation]).await.map(|_| ())
    }
}

fn ms(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}
