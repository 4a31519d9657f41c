//! Following many partitions at once, with one waiter and no task, timer or
//! poll for any of them.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::PartitionLog;

/// Wakes one waiter; shared by the partitions that it follows.
#[derive(Debug, Clone, Default)]
pub struct Waker(Arc<Notify>);

impl Waker {
    /// Lets the waiter look again.
    pub fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits for the next wake; one that came since the last wait counts.
    pub async fn woken(&self) {
        self.0.notified().await;
    }

    /// Whether both wake the same waiter.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Who waits for a partition to change.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<Vec<Waker>>);

impl Watchers {
    pub(super) fn wake(&self) {
        for waker in self.0.lock().iter() {
            waker.wake();
        }
    }

    fn add(&self, waker: &Waker) {
        self.0.lock().push(waker.clone());
    }

    fn remove(&self, waker: &Waker) {
        let mut wakers = self.0.lock();
        if let Some(at) = wakers.iter().position(|other| other.is(waker)) {
            wakers.swap_remove(at);
        }
    }
}

/// Follows partitions until it is dropped.
#[derive(Debug)]
pub struct PartitionsWatch {
    waker: Waker,
    logs: Vec<Arc<PartitionLog>>,
}

impl PartitionsWatch {
    pub(crate) fn new(waker: &Waker) -> Self {
        Self { waker: waker.clone(), logs: Vec::new() }
    }

    /// Follows one more. What it has by now is not told: look after this call.
    pub(crate) fn add(&mut self, log: &Arc<PartitionLog>) {
        log.watchers().add(&self.waker);
        self.logs.push(log.clone());
    }
}

impl Drop for PartitionsWatch {
    fn drop(&mut self) {
        for log in &self.logs {
            log.watchers().remove(&self.waker);
        }
    }
}
