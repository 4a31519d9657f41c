//! What became of commits that bear an id of their caller's, for whoever lost
//! the answer.
//!
//! An attempt is either *committed*, with its outcomes, or *fenced*: somebody
//! asked for it before it was there and was told that it is absent, so it must
//! stay so. Both are facts of the journal and lie in snapshots. They are
//! forgotten by age alone, never to make room: an attempt that was forgotten
//! early would be taken for absent and done again.

use std::collections::{HashMap, VecDeque};

use aquifer_types::{CommitId, Timestamp};
use serde::{Deserialize, Serialize};

use super::event::Outcome;

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) at: Timestamp,
    /// None: it is fenced.
    pub(crate) outcomes: Option<Vec<Outcome>>,
}

/// All that are remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attempts {
    by_id: HashMap<CommitId, Attempt>,
    /// From when each is aged, in the order in which they were decided.
    order: VecDeque<(Timestamp, CommitId)>,
    weight: usize,
}

/// How to take [`Attempts::keep`] back.
#[derive(Debug)]
pub(crate) struct AttemptUndo(CommitId, Option<Attempt>);

impl Attempt {
    /// What it counts against the limit: itself and its outcomes.
    fn weight(&self) -> usize {
        1 + self.outcomes.as_ref().map_or(0, Vec::len)
    }
}

impl Attempts {
    pub(crate) fn get(&self, id: CommitId) -> Option<&Attempt> {
        self.by_id.get(&id)
    }

    /// The number of attempts and of all their outcomes.
    pub(crate) fn weight(&self) -> usize {
        self.weight
    }

    /// In the order in which they were decided.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CommitId, &Attempt)> {
        self.order.iter().filter_map(|(_, id)| Some((*id, self.by_id.get(id)?)))
    }

    pub(crate) fn keep(&mut self, id: CommitId, attempt: Attempt) -> AttemptUndo {
        let at = attempt.at;
        self.weight += attempt.weight();
        let old = self.by_id.insert(id, attempt);
        match &old {
            Some(old) => self.weight -= old.weight(),
            None => self.order.push_back((at, id)),
        }
        AttemptUndo(id, old)
    }

    pub(crate) fn undo(&mut self, AttemptUndo(id, old): AttemptUndo) {
        if let Some(old) = old {
            let _ = self.keep(id, old);
            return;
        }
        if let Some(attempt) = self.by_id.remove(&id) {
            self.weight -= attempt.weight();
        }
        // It is the newest, unless it was forgotten meanwhile.
        if self.order.back().is_some_and(|(_, newest)| *newest == id) {
            self.order.pop_back();
        }
    }

    /// Forgets what is older than `before`. What is stamped ahead of `now`, by a
    /// clock that had jumped, is aged from now on.
    pub(crate) fn forget(&mut self, before: Timestamp, now: Timestamp) {
        for (at, _) in &mut self.order {
            *at = (*at).min(now);
        }
        while let Some((at, id)) = self.order.front().copied()
            && at < before
        {
            self.order.pop_front();
            if let Some(attempt) = self.by_id.remove(&id) {
                self.weight -= attempt.weight();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> CommitId {
        CommitId(Uuid::from_u128(number))
    }

    fn done(at: i64, outcomes: usize) -> Attempt {
        Attempt { at: Timestamp(at), outcomes: Some(vec![Outcome::Done; outcomes]) }
    }

    #[test]
    fn what_is_taken_back_leaves_nothing() {
        let mut attempts = Attempts::default();
        let _ = attempts.keep(id(1), done(5, 2));
        let before = attempts.clone();
        let undo = attempts.keep(id(2), Attempt { at: Timestamp(6), outcomes: None });
        assert_eq!(attempts.weight(), 4);
        assert_eq!(attempts.iter().map(|(id, _)| id).collect::<Vec<_>>(), [id(1), id(2)]);
        attempts.undo(undo);
        assert_eq!(attempts, before);
        let undo = attempts.keep(id(1), done(9, 7));
        attempts.undo(undo);
        assert_eq!(attempts, before);
    }

    #[test]
    fn they_go_by_age_and_stamps_ahead_age_from_when_they_are_seen() {
        let mut attempts = Attempts::default();
        let _ = attempts.keep(id(1), done(10, 1));
        let _ = attempts.keep(id(2), done(1_000_000, 1));
        let _ = attempts.keep(id(3), done(20, 1));
        attempts.forget(Timestamp(10), Timestamp(30));
        assert_eq!(attempts.weight(), 6);
        attempts.forget(Timestamp(11), Timestamp(31));
        assert_eq!(attempts.weight(), 4);
        attempts.forget(Timestamp(31), Timestamp(51));
        assert_eq!((attempts.weight(), attempts.iter().count()), (0, 0));
    }
}
