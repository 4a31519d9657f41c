//! From one generation to the next.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use super::{Action, ClassicGroup, Joined, Ms, State, Synced};

/// A rebalance that waits for members.
#[derive(Debug, Clone)]
pub(super) struct Rebalance {
    pub(super) deadline: Ms,
    /// The first one of an empty group waits for more members.
    initial: Option<Initial>,
}

/// How the first rebalance of an empty group waits.
#[derive(Debug, Clone, Copy)]
struct Initial {
    /// By how much it may still be put off.
    remaining_ms: Ms,
    has_new_member: bool,
}

impl ClassicGroup {
    /// Someone joined who must be counted in.
    pub(super) fn prepare_or_complete(&mut self, now: Ms, actions: &mut Vec<Action>) {
        if self.state == State::PreparingRebalance {
            self.complete_if_all_joined(now, actions);
        } else {
            self.prepare(now, actions);
        }
    }

    /// Calls everybody to join again.
    pub(super) fn prepare(&mut self, now: Ms, actions: &mut Vec<Action>) {
        if self.state == State::CompletingRebalance {
            for member in self.members.values_mut() {
                if let Some(ticket) = member.syncing.take() {
                    member.keep(now);
                    let answer = Synced::refused(ResponseError::RebalanceInProgress);
                    actions.push(Action::Sync(ticket, answer));
                }
            }
        }
        self.sync_deadline = None;
        let rebalance_ms = self.rebalance_ms();
        let is_initial = self.state == State::Empty;
        self.state = State::PreparingRebalance;
        let delay = self.limits.initial_delay_ms.min(rebalance_ms);
        if is_initial && delay > 0 {
            let remaining_ms = rebalance_ms - delay;
            let initial = Some(Initial { remaining_ms, has_new_member: false });
            self.wait(Rebalance { deadline: now.saturating_add(delay), initial });
        } else {
            let deadline = now.saturating_add(rebalance_ms);
            self.wait(Rebalance { deadline, initial: None });
            self.complete_if_all_joined(now, actions);
        }
    }

    fn wait(&mut self, rebalance: Rebalance) {
        self.arm(rebalance.deadline);
        self.rebalance = Some(rebalance);
    }

    /// The longest that a member takes to come back.
    fn rebalance_ms(&self) -> Ms {
        self.members.values().map(|member| member.rebalance_ms).max().unwrap_or(0)
    }

    /// The first rebalance waits once more.
    pub(super) fn note_new_member(&mut self) {
        if let Some(initial) = self.rebalance.as_mut().and_then(|of| of.initial.as_mut()) {
            initial.has_new_member = true;
        }
    }

    pub(super) fn complete_if_all_joined(&mut self, now: Ms, actions: &mut Vec<Action>) {
        let waits_for_more = self.rebalance.as_ref().is_some_and(|of| of.initial.is_some());
        let all_joined = self.members.values().all(|member| member.joining.is_some());
        if self.state == State::PreparingRebalance
            && !waits_for_more
            && all_joined
            && self.pending.is_empty()
        {
            self.complete(now, actions);
        }
    }

    pub(super) fn tick_rebalance(&mut self, now: Ms, actions: &mut Vec<Action>) {
        let Some(rebalance) = &mut self.rebalance else { return };
        if rebalance.deadline > now {
            return;
        }
        if let Some(initial) = &mut rebalance.initial
            && initial.has_new_member
            && initial.remaining_ms > 0
        {
            let delay = self.limits.initial_delay_ms.min(initial.remaining_ms);
            initial.remaining_ms -= delay;
            initial.has_new_member = false;
            rebalance.deadline = now.saturating_add(delay);
            return;
        }
        self.complete(now, actions);
    }

    /// Those who came are the next generation.
    fn complete(&mut self, now: Ms, actions: &mut Vec<Action>) {
        let absent: Vec<String> = self
            .members
            .values()
            .filter(|member| member.joining.is_none() && member.instance.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in absent {
            self.remove(&id, actions);
        }
        if !self.members.is_empty() && !self.elect() {
            // Only static members are left and none came: they stay until their
            // sessions end.
            let deadline = now.saturating_add(self.rebalance_ms().max(1));
            return self.wait(Rebalance { deadline, initial: None });
        }
        self.rebalance = None;
        self.generation = self.generation.max(self.generation_given).wrapping_add(1).max(1);
        self.generation_given = self.generation;
        if self.members.is_empty() {
            self.state = State::Empty;
            self.protocol = None;
            self.leader = None;
            actions.push(Action::Save);
            return self.rearm();
        }
        self.protocol = self.select_protocol();
        self.state = State::CompletingRebalance;
        let sync_deadline = now.saturating_add(self.rebalance_ms());
        self.sync_deadline = Some(sync_deadline);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.joined(&id);
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.has_synced = false;
            if let Some(ticket) = member.joining.take() {
                member.is_new = false;
                member.keep(now);
                actions.push(Action::Join(ticket, answer));
            }
        }
        self.rearm();
    }

    /// Whether somebody who came leads.
    fn elect(&mut self) -> bool {
        let has_joined = |id: &String| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let joined = self.members.values().filter(|member| member.joining.is_some());
        let next = joined.min_by_key(|member| member.order).map(|member| member.id.clone());
        let is_elected = next.is_some();
        if is_elected {
            self.leader = next;
        }
        is_elected
    }

    /// The protocol that everybody speaks and most like best.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let spoken = |name: &str| self.members.values().all(|other| other.speaks(name));
            if let Some(best) = member.protocols.iter().find(|of| spoken(&of.name)) {
                *votes.entry(&best.name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned())
    }

    /// Those who never asked for their assignment are lost.
    pub(super) fn expire_syncs(&mut self, now: Ms, actions: &mut Vec<Action>) {
        self.sync_deadline = None;
        let absent: Vec<String> = self
            .members
            .values()
            .filter(|member| !member.has_synced)
            .map(|member| member.id.clone())
            .collect();
        if absent.is_empty() {
            return;
        }
        for id in absent {
            self.remove(&id, actions);
        }
        if matches!(self.state, State::Stable | State::CompletingRebalance) {
            self.prepare(now, actions);
        }
    }

    pub(super) fn remove_and_rebalance(&mut self, now: Ms, id: &str, actions: &mut Vec<Action>) {
        self.remove(id, actions);
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare(now, actions),
            State::PreparingRebalance => self.complete_if_all_joined(now, actions),
            State::Empty => {}
        }
    }

    fn remove(&mut self, id: &str, actions: &mut Vec<Action>) {
        let Some(mut member) = self.members.remove(id) else { return };
        let unknown = ResponseError::UnknownMemberId;
        if let Some(ticket) = member.joining.take() {
            actions.push(Action::Join(ticket, Joined::refused(unknown, "")));
        }
        if let Some(ticket) = member.syncing.take() {
            actions.push(Action::Sync(ticket, Synced::refused(unknown)));
        }
        if let Some(instance) = &member.instance
            && self.instances.get(instance).is_some_and(|of| of == id)
        {
            self.instances.remove(instance);
        }
        if self.leader.as_deref() == Some(id) {
            let oldest = self.members.values().min_by_key(|member| member.order);
            self.leader = oldest.map(|member| member.id.clone());
        }
    }
}
