//! The questions that run, so that one can be ended from outside.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::wire::Refusal;

/// All of them, by number; later ones have higher numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunningQuestions {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    is_closed: bool,
    by_number: BTreeMap<u64, oneshot::Sender<Refusal>>,
}

/// A place among them, given back when dropped.
#[derive(Debug)]
pub(crate) struct RunningQuestion {
    number: u64,
    all: RunningQuestions,
    ended: oneshot::Receiver<Refusal>,
}

impl RunningQuestions {
    /// # Errors
    /// `stopping` behind [`RunningQuestions::close`].
    pub(crate) fn enter(&self) -> Result<RunningQuestion, Refusal> {
        let (sender, ended) = oneshot::channel();
        let mut inner = self.inner.lock();
        if inner.is_closed {
            return Err(Refusal::stopping());
        }
        let number = inner.next;
        inner.next += 1;
        inner.by_number.insert(number, sender);
        drop(inner);
        Ok(RunningQuestion { number, all: self.clone(), ended })
    }

    pub(crate) fn len(&self) -> usize {
        self.inner.lock().by_number.len()
    }

    /// Ends the question that began last; false where there is none.
    pub(crate) fn end_newest(&self, why: Refusal) -> bool {
        let Some((_, newest)) = self.inner.lock().by_number.pop_last() else { return false };
        // One that has just ended by itself does not hear it.
        let _ = newest.send(why);
        true
    }

    /// Ends all, and lets no more in.
    pub(crate) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.is_closed = true;
        for (_, question) in std::mem::take(&mut inner.by_number) {
            let _ = question.send(Refusal::stopping());
        }
    }
}

impl RunningQuestion {
    /// Waits until somebody ends it; says why.
    pub(crate) async fn ended(&mut self) -> Refusal {
        match (&mut self.ended).await {
            Ok(why) => why,
            Err(_) => Refusal::stopping(),
        }
    }
}

impl Drop for RunningQuestion {
    fn drop(&mut self) {
        self.all.inner.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_is_ended_first_and_none_enters_a_closed_house() {
        let all = RunningQuestions::default();
        let mut first = all.enter().unwrap();
        let mut second = all.enter().unwrap();
        assert!(all.end_newest(Refusal::queue_full("x")));
        assert_eq!(second.ended().await.code, "query-queue-full");
        drop(second);
        assert_eq!(all.len(), 1);
        all.close();
        assert_eq!(first.ended().await.code, "stopping");
        assert!(!all.end_newest(Refusal::stopping()));
        assert_eq!(all.enter().unwrap_err().code, "stopping");
    }
}
