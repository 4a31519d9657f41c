//! A classic group: members agree on a generation, its leader assigns.
//!
//! A pure state machine: requests, time and lost members go in, [`Action`]s
//! come out. It takes the time as an argument, holds no lock, waits for
//! nothing and writes nothing. The rules are Kafka's (KIP-62, 134, 345, 394,
//! 814): whoever waits in a `JoinGroup` or `SyncGroup` is a [`Ticket`] here and
//! is answered by an action.
//!
//! What has to survive a crash is asked for by [`Action::Save`]; the actions
//! behind it must not happen before it is durable.

mod join;
mod member;
mod rebalance;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::ResponseError;

pub(crate) use join::{Join, Joined};
pub(crate) use member::{Member, Protocol};
use rebalance::Rebalance;

/// A time or duration in ms; times are monotonic.
pub(crate) type Ms = u64;
/// Who waits for an answer.
pub(crate) type Ticket = u64;

/// Generations that are passed over after a restart: one that was given out but
/// not yet stored is never given out again.
const RESTART_GENERATIONS: i32 = 100;

/// The bounds of classic groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) session_ms_min: Ms,
    pub(crate) session_ms_max: Ms,
    pub(crate) members_max: usize,
    pub(crate) initial_delay_ms: Ms,
}

/// Where a group is in its rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No members.
    Empty,
    /// Waiting for members to join.
    PreparingRebalance,
    /// Waiting for the leader's assignment.
    CompletingRebalance,
    /// Everybody may have its assignment.
    Stable,
}

impl State {
    /// Its name, as clients see it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Store the group as it is now, before anything that follows.
    Save,
    /// Answer a `JoinGroup`.
    Join(Ticket, Joined),
    /// Answer a `SyncGroup`.
    Sync(Ticket, Synced),
}

/// A `SyncGroup`.
#[derive(Debug, Clone)]
pub(crate) struct Sync {
    pub(crate) member: Asker,
    pub(crate) generation: i32,
    /// Checked where it is given.
    pub(crate) protocol_type: Option<String>,
    /// Checked where it is given.
    pub(crate) protocol: Option<String>,
    pub(crate) assignments: Vec<(String, Bytes)>,
}

/// The answer to a [`Sync`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Synced {
    pub(crate) error: Option<ResponseError>,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl Synced {
    pub(crate) fn refused(error: ResponseError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

/// Who a request says it is from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asker {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
}

/// A classic group.
#[derive(Debug, Clone)]
pub(crate) struct ClassicGroup {
    limits: Limits,
    pub(crate) state: State,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) generation: i32,
    /// The generation that was given out last, or a later one.
    generation_given: i32,
    pub(crate) leader: Option<String>,
    pub(crate) members: BTreeMap<String, Member>,
    /// Member ids of static members.
    instances: BTreeMap<String, String>,
    /// Ids that were given to members that have not come back with them, and
    /// until when they are kept.
    pending: BTreeMap<String, Ms>,
    rebalance: Option<Rebalance>,
    /// Until when everybody has to ask for its assignment.
    sync_deadline: Option<Ms>,
    /// Nothing is due before.
    wake: Option<Ms>,
    joined: u64,
}

impl ClassicGroup {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Empty,
            protocol_type: None,
            protocol: None,
            generation: 0,
            generation_given: 0,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            rebalance: None,
            sync_deadline: None,
            wake: None,
            joined: 0,
        }
    }

    /// A group as it was stored; its members have a whole session to be heard of.
    pub(crate) fn restored(
        limits: Limits,
        generation: i32,
        (protocol_type, protocol, leader): (Option<String>, Option<String>, Option<String>),
        members: Vec<Member>,
        now: Ms,
    ) -> Self {
        let mut group = Self::new(limits);
        group.generation = generation;
        group.generation_given = generation.saturating_add(RESTART_GENERATIONS);
        group.protocol_type = protocol_type;
        group.protocol = protocol;
        group.leader = leader;
        group.state = if members.is_empty() { State::Empty } else { State::Stable };
        for member in members {
            group.insert(member, now);
        }
        group
    }

    /// Whether nothing would be lost with it.
    pub(crate) fn is_forgettable(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty() && self.generation == 0
    }

    /// Nobody is in it, or about to be.
    pub(crate) fn is_vacant(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }

    /// When [`ClassicGroup::tick`] has to be called at the latest.
    pub(crate) const fn wake(&self) -> Option<Ms> {
        self.wake
    }

    /// A member asks for its assignment, and the leader brings everybody's.
    pub(crate) fn sync(&mut self, now: Ms, sync: Sync, ticket: Ticket, actions: &mut Vec<Action>) {
        let refuse = |error| Action::Sync(ticket, Synced::refused(error));
        if let Err(error) = self.check(&sync.member, Some(sync.generation)) {
            return actions.push(refuse(error));
        }
        let differs =
            |given: &Option<String>, own: &Option<String>| given.is_some() && given != own;
        if differs(&sync.protocol_type, &self.protocol_type)
            || differs(&sync.protocol, &self.protocol)
        {
            return actions.push(refuse(ResponseError::InconsistentGroupProtocol));
        }
        let id = sync.member.member;
        match self.state {
            State::Empty => actions.push(refuse(ResponseError::UnknownMemberId)),
            State::PreparingRebalance => actions.push(refuse(ResponseError::RebalanceInProgress)),
            State::CompletingRebalance => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.has_synced = true;
                    // It asked again over another connection.
                    if let Some(old) = member.syncing.replace(ticket) {
                        let answer = Synced::refused(ResponseError::RebalanceInProgress);
                        actions.push(Action::Sync(old, answer));
                    }
                }
                if self.leader.as_deref() == Some(&id) {
                    self.assign(now, sync.assignments, actions);
                }
            }
            State::Stable => {
                let mut answer = self.synced();
                if let Some(member) = self.members.get_mut(&id) {
                    member.has_synced = true;
                    member.keep(now);
                    answer.assignment = member.assignment.clone();
                }
                actions.push(Action::Sync(ticket, answer));
            }
        }
    }

    fn assign(&mut self, now: Ms, given: Vec<(String, Bytes)>, actions: &mut Vec<Action>) {
        let mut given: BTreeMap<String, Bytes> = given.into_iter().collect();
        self.state = State::Stable;
        actions.push(Action::Save);
        let answer = self.synced();
        for member in self.members.values_mut() {
            member.assignment = given.remove(&member.id).unwrap_or_default();
            if let Some(ticket) = member.syncing.take() {
                member.keep(now);
                let assignment = member.assignment.clone();
                actions.push(Action::Sync(ticket, Synced { assignment, ..answer.clone() }));
            }
        }
        self.rearm();
    }

    fn synced(&self) -> Synced {
        Synced {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: Bytes::new(),
        }
    }

    /// A member is there.
    pub(crate) fn heartbeat(
        &mut self,
        now: Ms,
        member: &Asker,
        generation: i32,
    ) -> Result<(), ResponseError> {
        self.check(member, Some(generation))?;
        if self.state == State::Empty {
            return Err(ResponseError::UnknownMemberId);
        }
        self.keep(now, &member.member);
        if self.state == State::PreparingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether positions may be committed.
    pub(crate) fn commit(
        &mut self,
        now: Ms,
        member: &Asker,
        generation: i32,
        in_transaction: bool,
    ) -> Result<(), ResponseError> {
        // A consumer that is no member, while there are none.
        if generation < 0 && self.is_vacant() {
            return Ok(());
        }
        let is_named = generation >= 0 || !member.member.is_empty() || member.instance.is_some();
        if !is_named {
            // A producer before KIP-447 says nothing of the group.
            return if in_transaction { Ok(()) } else { Err(ResponseError::UnknownMemberId) };
        }
        self.check(member, Some(generation))?;
        // Whoever joins anew has not seen its assignment yet.
        if self.state == State::CompletingRebalance && !in_transaction {
            return Err(ResponseError::RebalanceInProgress);
        }
        self.keep(now, &member.member);
        Ok(())
    }

    /// A member goes; static ones also by their instance alone.
    pub(crate) fn leave(
        &mut self,
        now: Ms,
        member: &Asker,
        actions: &mut Vec<Action>,
    ) -> Result<(), ResponseError> {
        let id = match &member.instance {
            Some(instance) => {
                let id = self.instances.get(instance).ok_or(ResponseError::UnknownMemberId)?;
                if !member.member.is_empty() && *id != member.member {
                    return Err(ResponseError::FencedInstanceId);
                }
                id.clone()
            }
            None => member.member.clone(),
        };
        if self.pending.remove(&id).is_some() {
            self.complete_if_all_joined(now, actions);
            return Ok(());
        }
        if !self.members.contains_key(&id) {
            return Err(ResponseError::UnknownMemberId);
        }
        self.remove_and_rebalance(now, &id, actions);
        Ok(())
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Ms, actions: &mut Vec<Action>) {
        let overdue: Vec<String> =
            self.pending.iter().filter(|(_, at)| **at <= now).map(|(id, _)| id.clone()).collect();
        for id in &overdue {
            self.pending.remove(id);
        }
        let mut lost = Vec::new();
        for member in self.members.values_mut().filter(|member| member.deadline <= now) {
            // Whoever waits for an answer is there, if it ever was.
            if member.is_waiting() && !member.is_new {
                member.keep(now);
            } else {
                lost.push(member.id.clone());
            }
        }
        for id in &lost {
            self.remove_and_rebalance(now, id, actions);
        }
        if !overdue.is_empty() {
            self.complete_if_all_joined(now, actions);
        }
        if self.sync_deadline.is_some_and(|at| at <= now) {
            self.expire_syncs(now, actions);
        }
        self.tick_rebalance(now, actions);
        self.rearm();
    }

    /// What was decided could not be stored: everybody begins again.
    pub(crate) fn save_failed(&mut self, now: Ms, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Stable | State::CompletingRebalance) {
            self.prepare(now, actions);
        }
    }

    /// Whether the request is from who it says, and in this generation.
    fn check(&self, asker: &Asker, generation: Option<i32>) -> Result<(), ResponseError> {
        if let Some(instance) = &asker.instance {
            let id = self.instances.get(instance).ok_or(ResponseError::UnknownMemberId)?;
            if *id != asker.member {
                return Err(ResponseError::FencedInstanceId);
            }
        }
        if !self.members.contains_key(&asker.member) {
            return Err(ResponseError::UnknownMemberId);
        }
        if generation.is_some_and(|generation| generation != self.generation) {
            return Err(ResponseError::IllegalGeneration);
        }
        Ok(())
    }

    fn keep(&mut self, now: Ms, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.keep(now);
        }
    }

    fn insert(&mut self, mut member: Member, now: Ms) {
        member.order = self.joined;
        self.joined += 1;
        if !member.is_new {
            member.keep(now);
        }
        self.arm(member.deadline);
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    fn arm(&mut self, at: Ms) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn rearm(&mut self) {
        let members = self.members.values().map(|member| member.deadline);
        let pending = self.pending.values().copied();
        let rebalance = self.rebalance.as_ref().map(|rebalance| rebalance.deadline);
        self.wake = members.chain(pending).chain(rebalance).chain(self.sync_deadline).min();
    }
}
