//! One member of a consumer group.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_types::Partition;
use kafka_protocol::ResponseError;

use super::{Assignor, Beat, JOINS};
use crate::groups::classic::Ms;

/// Partitions, and the member epoch in which each was given.
pub(crate) type Owned = BTreeMap<Partition, i32>;

/// A member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: String,
    /// Set for static members.
    pub(crate) instance: Option<String>,
    pub(crate) rack: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_ms: Ms,
    /// The topics that it names.
    pub(crate) names: BTreeSet<String>,
    /// The topics that it means.
    pub(crate) regex: Option<String>,
    pub(crate) assignor: Option<Assignor>,
    pub(crate) epoch: i32,
    /// The one before: the answer that told `epoch` may have been lost.
    pub(crate) previous_epoch: i32,
    pub(crate) owned: Owned,
    /// What it was told to give up, and has not.
    pub(crate) revoking: Owned,
    /// What it shall own in the end.
    pub(crate) target: BTreeSet<Partition>,
    /// Some of its target is still others'.
    pub(crate) waits: bool,
    /// When it is taken for lost.
    pub(in crate::groups) deadline: Ms,
    /// Until when it has to give up what it was told to.
    pub(in crate::groups) revoke_deadline: Option<Ms>,
}

impl Member {
    pub(super) fn joining(beat: &Beat) -> Self {
        Self { id: beat.member.clone(), epoch: JOINS, ..Self::default() }
    }

    /// Whether it says something of itself that is not known.
    pub(super) fn differs(&self, beat: &Beat) -> bool {
        let is_other =
            |given: &Option<String>, own: &Option<String>| given.is_some() && given != own;
        self.client_id != beat.client_id
            || self.client_host != beat.client_host
            || is_other(&beat.instance, &self.instance)
            || is_other(&beat.rack, &self.rack)
            || beat.rebalance_ms.is_some_and(|of| of != self.rebalance_ms)
            || beat.assignor.is_some_and(|of| Some(of) != self.assignor)
            || beat.names.as_ref().is_some_and(|of| *of != self.names)
            || beat.regex.as_deref().is_some_and(|of| of != self.regex.as_deref().unwrap_or(""))
    }

    /// What it says of itself; whether its subscription is another.
    pub(super) fn take(&mut self, beat: &Beat) -> bool {
        self.client_id.clone_from(&beat.client_id);
        self.client_host.clone_from(&beat.client_host);
        self.instance = beat.instance.clone().or_else(|| self.instance.take());
        self.rack = beat.rack.clone().or_else(|| self.rack.take());
        self.rebalance_ms = beat.rebalance_ms.unwrap_or(self.rebalance_ms);
        self.assignor = beat.assignor.or(self.assignor);
        let mut is_changed = false;
        if let Some(names) = &beat.names {
            is_changed |= *names != self.names;
            self.names.clone_from(names);
        }
        if let Some(regex) = &beat.regex {
            let regex = Some(regex.clone()).filter(|regex| !regex.is_empty());
            is_changed |= regex != self.regex;
            self.regex = regex;
        }
        is_changed
    }

    /// When it is lost, if nothing is heard of it.
    pub(super) fn due(&self) -> Ms {
        self.revoke_deadline.map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// It has all of its target, and nothing else.
    pub(super) fn is_reconciled(&self, target_epoch: i32) -> bool {
        self.epoch == target_epoch && self.revoking.is_empty() && !self.waits
    }

    /// The member has come to `epoch`.
    pub(super) const fn advance(&mut self, epoch: i32) {
        if self.epoch != epoch {
            self.previous_epoch = self.epoch;
            self.epoch = epoch;
        }
    }

    /// Whether a heartbeat is from where this member is, or from where it was
    /// when an answer to it was lost.
    pub(super) fn check_epoch(&self, beat: &Beat) -> Result<(), ResponseError> {
        let knows_all = |owned: &BTreeSet<Partition>| {
            owned.iter().all(|partition| self.owned.contains_key(partition))
        };
        let is_behind = beat.epoch < self.epoch
            && beat.epoch == self.previous_epoch
            && beat.owned.as_ref().is_some_and(knows_all);
        if beat.epoch == self.epoch || is_behind {
            return Ok(());
        }
        Err(ResponseError::FencedMemberEpoch)
    }

    /// Whether all of these were its own since an epoch that is over: nobody
    /// else can have read them in between (KIP-1251).
    pub(super) fn held_since(&self, epoch: i32, partitions: &[Partition]) -> bool {
        let since = |at: &Partition| self.owned.get(at).or_else(|| self.revoking.get(at));
        (0..self.epoch).contains(&epoch)
            && partitions.iter().all(|at| since(at).is_some_and(|given| *given <= epoch))
    }
}
