//! From what members have to what they shall have.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_types::Partition;

use super::ConsumerGroup;
use super::assignor::{Assignor, Subscriber, assign};
use super::member::{Member, Owned};
use super::subscription::Topics;
use crate::groups::classic::Ms;

/// Whether a member still has, or may have, some of these.
fn holds(reported: Option<&BTreeSet<Partition>>, partitions: &Owned) -> bool {
    reported.is_none_or(|owned| partitions.keys().any(|partition| owned.contains(partition)))
}

impl ConsumerGroup {
    /// Looks topics up where they or a subscription changed.
    pub(super) fn follow(&mut self, topics: &dyn Topics, is_changed: bool) {
        let mut is_raised = is_changed;
        if is_changed || !self.resolved.is_of(topics) {
            is_raised |= self.resolved.look_up(&self.members, topics);
        }
        if is_raised {
            self.raise();
        }
    }

    /// Computes what everybody shall have in this epoch.
    pub(super) fn retarget(&mut self) {
        let assignor = self.preferred();
        let subscribers = self.members.values().map(|member| Subscriber {
            id: &member.id,
            instance: member.instance.as_deref(),
            topics: self.resolved.topics_of(member),
            has: &member.target,
        });
        let targets = assign(assignor, &subscribers.collect::<Vec<_>>());
        for (member, target) in self.members.values_mut().zip(targets) {
            member.target = target;
        }
        self.assignor = assignor;
        self.target_epoch = self.epoch;
        self.is_dirty = true;
    }

    /// The assignor that most members ask for.
    fn preferred(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for assignor in self.members.values().filter_map(|member| member.assignor) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes.into_iter().rev().max_by_key(|(_, count)| *count);
        most.map_or(Assignor::Uniform, |(assignor, _)| assignor)
    }

    /// Takes a member one step nearer to its target; whether it is told to own
    /// something else than before. `reported` is what it says that it owns.
    pub(super) fn reconcile(
        &mut self,
        now: Ms,
        id: &str,
        reported: Option<&BTreeSet<Partition>>,
    ) -> bool {
        let target_epoch = self.target_epoch;
        let Some(mut member) = self.members.remove(id) else { return false };
        let mut epoch = member.epoch;
        let mut is_due = member.epoch != target_epoch || member.waits;
        if !member.revoking.is_empty() {
            is_due = !holds(reported, &member.revoking);
            epoch = epoch.saturating_add(1).min(target_epoch);
        }
        if !is_due {
            self.members.insert(id.to_owned(), member);
            return false;
        }
        for partition in std::mem::take(&mut member.revoking).keys() {
            self.owners.remove(partition);
            self.is_dirty = true;
        }
        let before = (member.epoch, member.owned.len(), member.waits);
        let (kept, lost): (Owned, Owned) = std::mem::take(&mut member.owned)
            .into_iter()
            .partition(|(partition, _)| member.target.contains(partition));
        let is_moved = !lost.is_empty();
        member.owned = kept;
        member.waits = false;
        member.revoke_deadline = None;
        if is_moved && holds(reported, &lost) {
            // It gives up first, in its old epoch.
            member.advance(epoch);
            member.revoke_deadline = Some(now.saturating_add(member.rebalance_ms));
            member.revoking = lost;
        } else {
            for partition in lost.keys() {
                self.owners.remove(partition);
            }
            self.give(&mut member);
            member.advance(target_epoch);
        }
        let after = (member.epoch, member.owned.len(), member.waits);
        self.is_dirty |= is_moved || before != after;
        self.members.insert(id.to_owned(), member);
        is_moved || before.1 != after.1
    }

    /// Gives a member of its target what nobody has.
    fn give(&mut self, member: &mut Member) {
        for partition in &member.target {
            if member.owned.contains_key(partition) {
                continue;
            }
            if self.owners.contains_key(partition) {
                member.waits = true;
                continue;
            }
            self.owners.insert(*partition, member.id.clone());
            member.owned.insert(*partition, self.target_epoch);
        }
    }
}
