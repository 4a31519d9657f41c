//! Who may ask now, and who waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::wire::Refusal;
use crate::{QueryMetrics, QueryOptions};

/// Lets a bounded number of questions run, and a bounded number wait for a
/// bounded time, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Admission {
    running: Arc<Semaphore>,
    waiting: Semaphore,
    wait_max: Duration,
    metrics: QueryMetrics,
}

/// The right to run; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: OwnedSemaphorePermit,
    metrics: QueryMetrics,
}

/// Counts while it lives.
struct Waiting<'a>(&'a QueryMetrics);

impl Admission {
    pub(crate) fn new(options: &QueryOptions, metrics: QueryMetrics) -> Self {
        Self {
            running: Arc::new(Semaphore::new(options.questions_max)),
            waiting: Semaphore::new(options.questions_waiting_max),
            wait_max: Duration::from_millis(options.waiting_ms_max),
            metrics,
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// `query-queue-full` where too many wait, or nothing ended in time.
    pub(crate) async fn enter(&self) -> Result<Turn, Refusal> {
        if let Ok(permit) = self.running.clone().try_acquire_owned() {
            return Ok(self.turn(permit));
        }
        let Ok(_place) = self.waiting.try_acquire() else {
            return Err(Refusal::queue_full(
                "all places to wait are taken (questions_waiting_max)",
            ));
        };
        self.metrics.waiting.inc();
        let _counted = Waiting(&self.metrics);
        match tokio::time::timeout(self.wait_max, self.running.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(self.turn(permit)),
            Ok(Err(_closed)) => Err(Refusal::stopping()),
            Err(_elapsed) => {
                Err(Refusal::queue_full("none of them ended in time (waiting_ms_max)"))
            }
        }
    }

    /// Whoever waits is told that the server stops.
    pub(crate) fn close(&self) {
        self.running.close();
    }

    fn turn(&self, permit: OwnedSemaphorePermit) -> Turn {
        self.metrics.running.inc();
        Turn { _permit: permit, metrics: self.metrics.clone() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.metrics.running.dec();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.dec();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn admission(running: usize, waiting: usize, wait_ms: u64) -> Admission {
        let options = QueryOptions {
            questions_max: running,
            questions_waiting_max: waiting,
            waiting_ms_max: wait_ms,
            ..QueryOptions::default()
        };
        Admission::new(&options, QueryMetrics::register(&mut Registry::default()))
    }

    #[tokio::test]
    async fn those_who_wait_are_bounded_in_number_and_time() {
        let admission = admission(1, 1, 20);
        let first = admission.enter().await.unwrap();
        assert_eq!(admission.metrics.running.get(), 1);
        // One waits in vain, and while it does there is no place for another.
        let (waited, refused) = tokio::join!(admission.enter(), admission.enter());
        assert!(waited.unwrap_err().message.contains("waiting_ms_max"));
        assert!(refused.unwrap_err().message.contains("questions_waiting_max"));
        drop(first);
        let second = admission.enter().await.unwrap();
        assert_eq!((admission.metrics.running.get(), admission.metrics.waiting.get()), (1, 0));
        admission.close();
        drop(second);
        let closed = admission.enter().await.unwrap_err();
        assert_eq!(closed.code, "stopping");
    }

    #[tokio::test]
    async fn the_next_turn_goes_to_who_waited_longest() {
        let admission = Arc::new(admission(1, 8, 60_000));
        let first = admission.enter().await.unwrap();
        let (done, mut order) = tokio::sync::mpsc::channel(8);
        let mut tasks = Vec::new();
        for number in 0..3 {
            let (admission, done) = (admission.clone(), done.clone());
            let mut entering = Box::pin(async move {
                let turn = admission.enter().await.unwrap();
                done.send(number).await.unwrap();
                drop(turn);
            });
            assert!(futures::poll!(&mut entering).is_pending());
            tasks.push(tokio::spawn(entering));
        }
        drop(first);
        for expected in 0..3 {
            assert_eq!(order.recv().await, Some(expected));
        }
    }
}
