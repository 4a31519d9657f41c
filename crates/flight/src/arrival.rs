//! What a call sends, on its way in: within a time, and within a budget of
//! bytes that all calls share.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;
use tonic::Status;

use crate::problem::Problem;

/// Bytes that may be on their way at a time; cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    left: Arc<AtomicUsize>,
    max: usize,
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
struct Share {
    budget: Budget,
    taken: usize,
}

impl Budget {
    pub(crate) fn new(max: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(max)), max }
    }
}

impl Share {
    fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        let left = &self.budget.left;
        let taken =
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        if taken.is_err() {
            return Err(Problem::limit(format!(
                "more than {} bytes are on their way in (flight.messages_bytes_max): send less, \
                 or again later",
                self.budget.max
            )));
        }
        self.taken += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.taken, Ordering::Relaxed);
    }
}

/// A call's body.
pub(crate) struct Arriving<B = Incoming> {
    body: B,
    time_max: Duration,
    deadline: Pin<Box<Sleep>>,
    share: Share,
}

impl<B> Arriving<B> {
    /// What of `body` comes within `time_max` of now.
    pub(crate) fn new(body: B, budget: Budget, time_max: Duration) -> Self {
        let deadline = Box::pin(tokio::time::sleep(time_max));
        Self { body, time_max, deadline, share: Share { budget, taken: 0 } }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Arriving<B>
where
    B::Error: std::fmt::Display,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| {
                let frame = frame.map_err(|error| {
                    Status::cancelled(format!("the call broke off on its way in: {error}"))
                })?;
                this.share.take(frame.data_ref().map_or(0, Bytes::len)).map_err(Status::from)?;
                Ok(frame)
            }));
        }
        ready!(this.deadline.as_mut().poll(context));
        let problem = Problem::too_slow(format!(
            "the call did not arrive within {:?} (flight.message_ms_max)",
            this.time_max
        ));
        Poll::Ready(Some(Err(problem.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn a_body_has_a_budget_that_comes_back() {
        let budget = Budget::new(10);
        let body = |bytes: usize| {
            let full = Full::new(Bytes::from(vec![0; bytes]));
            Arriving::new(full, budget.clone(), Duration::from_secs(60))
        };
        let mut first = body(8);
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap().len(), 8);
        let refused = body(3).frame().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("messages_bytes_max"), "{refused}");
        drop(first);
        assert!(body(10).collect().await.is_ok());
        assert_eq!(budget.left.load(Ordering::Relaxed), 10);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up() {
        type Item = Result<Frame<Bytes>, std::io::Error>;
        let never = StreamBody::new(futures::stream::pending::<Item>());
        let mut body = Arriving::new(never, Budget::new(10), Duration::from_millis(1));
        let refused = body.frame().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded);
    }
}
