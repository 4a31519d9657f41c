//! What the sequencer says of commits that it has seen before: attempts that are
//! made again, keys of requests that are sent again, and the question what became
//! of one. It decides nothing new but that an attempt which is absent stays so.

use aquifer_types::{CommitId, Timestamp};

use super::event::{Event, Outcome, Resolution};
use super::hot_state::Undo;
use super::sequencer::{Committed, Frames, Idempotency, Sequencer};
use crate::Error;

impl Sequencer {
    /// The answer to an attempt that was decided before; what was fenced is
    /// refused, and so is one too many to be remembered.
    pub(super) fn known_attempt(&self, id: CommitId) -> Result<Option<Committed>, Error> {
        let Some(attempt) = self.hot.attempts.get(id) else {
            self.check_attempts(self.options.commit_outcomes_max)?;
            return Ok(None);
        };
        let Some(outcomes) = &attempt.outcomes else {
            return Err(Error::Fenced(format!(
                "commit {id} was given up: whoever asked for it was told that it is not done; nothing was done"
            )));
        };
        let again = |outcome: &Outcome| match outcome {
            Outcome::Appended(appended) => Outcome::Duplicate(*appended),
            other => other.clone(),
        };
        Ok(Some(Committed { outcomes: outcomes.iter().map(again).collect(), at: attempt.at }))
    }

    fn check_attempts(&self, limit: usize) -> Result<(), Error> {
        if self.hot.attempts.weight() < limit {
            return Ok(());
        }
        Err(Error::Throttled {
            what: "the number of remembered outcomes of commits",
            limit: self.options.commit_outcomes_max as u64,
            limit_name: "commit_outcomes_max",
        })
    }

    /// What became of an attempt; one that is not there is fenced.
    pub(super) fn resolve<'a>(
        &mut self,
        id: CommitId,
        now: Timestamp,
        frames: &mut Frames<'a>,
        undos: &mut Vec<Undo>,
    ) -> Result<Outcome, Error> {
        if let Some(attempt) = self.hot.attempts.get(id) {
            return Ok(Outcome::Resolved(match &attempt.outcomes {
                Some(outcomes) => Resolution::Committed(outcomes.clone()),
                None => Resolution::Absent,
            }));
        }
        // Asking must work where no more commits are remembered.
        self.check_attempts(2 * self.options.commit_outcomes_max)?;
        let at = self.aged_from(now);
        self.apply(Event::CommitFenced { id, at }, frames, undos);
        Ok(Outcome::Resolved(Resolution::Absent))
    }

    /// The answer that was kept for a request's key; another request's is refused.
    pub(super) fn kept_answer(
        &self,
        idempotency: &Idempotency,
    ) -> Result<Option<Committed>, Error> {
        let Some(kept) = self.hot.answers.get(&idempotency.tenant, &idempotency.key) else {
            return Ok(None);
        };
        if kept.stream != idempotency.stream
            || kept.request_checksum != idempotency.request_checksum
        {
            return Err(Error::Invalid(format!(
                "the idempotency key {:?} was used for another request; use a new key",
                idempotency.key
            )));
        }
        Ok(Some(Committed {
            outcomes: kept.appends.iter().copied().map(Outcome::Duplicate).collect(),
            at: kept.at,
        }))
    }
}
