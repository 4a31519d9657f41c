//! Bytes of requests in memory, over all connections.
//!
//! Bytes are held as they arrive, not as they are announced. Where many large
//! requests arrive at once, each could hold a part and wait for the rest for
//! ever: so one at a time may go beyond the budget, by at most
//! `request_bytes_max` and its elements.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::KafkaOptions;
use crate::frame::FrameError;

/// A login's messages are smaller: so many bytes of a request need no room, where
/// its connection has not proved its user. All connections together are bounded.
const LOGIN_BYTES: usize = 4 << 10;

/// What connections share. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    overdraft: Arc<Semaphore>,
    /// Bytes of each request that need no room.
    free_bytes: usize,
}

/// The budgets of all connections. Those that have not proved their user have one
/// of their own: nobody who is not let in holds up those who are.
#[derive(Debug, Clone)]
pub(crate) struct Budgets {
    pub(crate) before_login: Budget,
    pub(crate) after_login: Budget,
}

impl Budgets {
    pub(crate) fn new(options: &KafkaOptions) -> Self {
        let before_login = Budget::new(options.requests_bytes_max_before_login);
        Self {
            before_login: Budget { free_bytes: LOGIN_BYTES, ..before_login },
            after_login: Budget::new(options.requests_bytes_max),
        }
    }
}

/// What one request holds; dropping it gives it back.
#[derive(Debug, Default)]
pub(crate) struct Held {
    bytes: Option<OwnedSemaphorePermit>,
    overdraft: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let bytes = Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)));
        Self { bytes, overdraft: Arc::new(Semaphore::new(1)), free_bytes: 0 }
    }

    /// Waits until `held` has `bytes`, or may go beyond the budget.
    pub(crate) async fn hold(&self, held: &mut Held, bytes: usize) -> Result<(), FrameError> {
        let has = held.bytes.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.saturating_sub(self.free_bytes).saturating_sub(has);
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        if missing == 0 {
            return Ok(());
        }
        if held.overdraft.is_some() {
            // Not kept for longer than it is needed.
            if let Ok(permit) = self.bytes.clone().try_acquire_many_owned(missing) {
                held.add(permit);
                held.overdraft = None;
            }
            return Ok(());
        }
        tokio::select! {
            biased;
            permit = self.bytes.clone().acquire_many_owned(missing) => {
                held.add(permit.map_err(|_| FrameError::Stopping)?);
            }
            overdraft = self.overdraft.clone().acquire_owned() => {
                held.overdraft = Some(overdraft.map_err(|_| FrameError::Stopping)?);
            }
        }
        Ok(())
    }
}

impl Held {
    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_none() && self.overdraft.is_none()
    }

    fn add(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.bytes {
            Some(bytes) => bytes.merge(permit),
            None => self.bytes = Some(permit),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn one_at_a_time_goes_beyond_the_budget() {
        let budget = Budget::new(100);
        let hold = |held: &mut Held, bytes| budget.hold(held, bytes).now_or_never().is_some();
        let (mut first, mut second, mut third) = <(Held, Held, Held)>::default();
        assert!(hold(&mut first, 60) && hold(&mut second, 40));
        // Each waits for the other, unless one may go on.
        assert!(hold(&mut first, 90));
        assert!(!hold(&mut second, 50) && !hold(&mut third, 1));
        assert!(hold(&mut first, 1000));
        drop(first);
        assert!(hold(&mut second, 50) && hold(&mut third, 1));
        // Who no longer needs the overdraft lets others have it.
        assert!(hold(&mut third, 90));
        assert!(third.overdraft.is_some());
        drop(second);
        assert!(hold(&mut third, 91));
        assert!(third.overdraft.is_none());
        drop(third);
        assert_eq!(budget.bytes.available_permits(), 100);
    }
}
