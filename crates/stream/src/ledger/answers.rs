//! Answers kept for requests with an idempotency key.

use std::collections::{HashMap, VecDeque};

use aquifer_types::{TenantName, Timestamp};

use super::event::KeptAnswer;

type Key = (TenantName, String);

/// The answers of the last day, the oldest first to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    by_key: HashMap<Key, KeptAnswer>,
    order: VecDeque<(Timestamp, Key)>,
}

/// How to take [`Answers::keep`] back.
#[derive(Debug)]
pub(crate) struct AnswersUndo(Key, Option<KeptAnswer>);

impl Answers {
    pub(crate) fn get(&self, tenant: &TenantName, key: &str) -> Option<&KeptAnswer> {
        self.by_key.get(&(tenant.clone(), key.to_owned()))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TenantName, &str, &KeptAnswer)> {
        self.order.iter().filter_map(|(at, key)| {
            let answer = self.by_key.get(key)?;
            (answer.at == *at).then_some((&key.0, key.1.as_str(), answer))
        })
    }

    pub(crate) fn keep(
        &mut self,
        tenant: &TenantName,
        key: &str,
        answer: KeptAnswer,
    ) -> AnswersUndo {
        let key = (tenant.clone(), key.to_owned());
        self.order.push_back((answer.at, key.clone()));
        let old = self.by_key.insert(key.clone(), answer);
        AnswersUndo(key, old)
    }

    pub(crate) fn undo(&mut self, undo: AnswersUndo) {
        let AnswersUndo(key, old) = undo;
        // It is the newest; if it was forgotten meanwhile, there is none left.
        self.order.pop_back();
        match old {
            Some(old) => self.by_key.insert(key, old),
            None => self.by_key.remove(&key),
        };
    }

    /// Forgets answers older than `before`, and the oldest beyond `count_max`.
    pub(crate) fn forget(&mut self, before: Timestamp, count_max: usize) {
        while let Some((at, _)) = self.order.front() {
            if *at >= before && self.by_key.len() <= count_max {
                break;
            }
            if let Some((at, key)) = self.order.pop_front()
                && self.by_key.get(&key).is_some_and(|answer| answer.at == at)
            {
                self.by_key.remove(&key);
            }
        }
    }
}
