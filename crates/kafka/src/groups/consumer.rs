//! A consumer group (KIP-848): the coordinator assigns, members follow.
//!
//! A pure state machine, as [`super::classic`] is: heartbeats, the time and
//! what topics there are go in, an answer comes out. It holds no lock, waits for
//! nothing and writes nothing.
//!
//! There are three kinds of epochs. The *group epoch* rises with all that asks
//! for another assignment: members that come, go or subscribe anew, topics that
//! come, go or grow. The *target epoch* is the group epoch that the target
//! assignment was computed for. A *member epoch* is how far a member has come
//! on its way to the target, and is what fences it. A member first gives up what
//! its target does not have, and says so by owning it no more; only what nobody
//! owns is given out. So a partition never has two owners.
//!
//! **What is stored.** Member epochs could be kept from going back by the epoch
//! of the server's start alone, and members told to join anew. But who owns what
//! would be forgotten with that: the first member to come back would be given
//! partitions that another still reads, and other doors would take the group for
//! one without members. So everything that a member is told is in the group's
//! document before it is told, and a restart goes on where the last answer left
//! off. Only sessions begin anew, and topics are looked up again.

mod admit;
mod assignor;
mod member;
mod reconcile;
mod subscription;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aquifer_types::Partition;
use kafka_protocol::ResponseError;

pub(crate) use assignor::Assignor;
pub(crate) use member::Member;
use subscription::Resolved;
pub(crate) use subscription::{Topic, Topics, is_regex};

use super::classic::Ms;
use super::machine::CommitBy;

/// The member epoch of whoever joins.
pub(crate) const JOINS: i32 = 0;
/// The member epoch of whoever leaves.
pub(crate) const LEAVES: i32 = -1;
/// The member epoch of a static member that leaves and will be back.
pub(crate) const LEAVES_FOR_NOW: i32 = -2;

/// The bounds of consumer groups.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) session_ms: Ms,
    pub(crate) members_max: usize,
}

/// A `ConsumerGroupHeartbeat`. What is absent did not change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) rack: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) epoch: i32,
    pub(crate) rebalance_ms: Option<Ms>,
    pub(crate) names: Option<BTreeSet<String>>,
    /// An empty one is none.
    pub(crate) regex: Option<String>,
    pub(crate) assignor: Option<Assignor>,
    pub(crate) owned: Option<BTreeSet<Partition>>,
}

impl Beat {
    /// It says everything: its answer does too.
    const fn is_full(&self) -> bool {
        let says_all = self.rebalance_ms.is_some() && self.names.is_some() && self.owned.is_some();
        self.epoch == JOINS || says_all
    }
}

/// The answer to a [`Beat`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beaten {
    pub(crate) member: String,
    pub(crate) epoch: i32,
    /// What it may own from now on; absent where that did not change.
    pub(crate) assignment: Option<Vec<Partition>>,
}

/// Where a group is in its rebalance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// No members.
    Empty,
    /// The target is not computed yet.
    Assigning,
    /// Not everybody has come to the target.
    Reconciling,
    /// Everybody has.
    Stable,
}

impl State {
    /// Its name, as clients see it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// A consumer group.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerGroup {
    limits: Limits,
    pub(crate) epoch: i32,
    pub(crate) target_epoch: i32,
    /// The one that the target was computed by.
    pub(crate) assignor: Assignor,
    pub(crate) members: BTreeMap<String, Member>,
    /// Member ids of static members.
    instances: BTreeMap<String, String>,
    /// Who may read what, until it says that it does not any more.
    owners: HashMap<Partition, String>,
    resolved: Resolved,
    /// Nothing is due before.
    wake: Option<Ms>,
    /// There is something that was not asked to be stored.
    is_dirty: bool,
}

impl ConsumerGroup {
    /// A group without members; its epochs go on behind `epoch`.
    pub(crate) fn new(limits: Limits, epoch: i32) -> Self {
        Self {
            limits,
            epoch,
            target_epoch: epoch,
            assignor: Assignor::Uniform,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            owners: HashMap::new(),
            resolved: Resolved::default(),
            wake: None,
            is_dirty: false,
        }
    }

    /// A group as it was stored; its members have a whole session to be heard of.
    pub(crate) fn restored(
        limits: Limits,
        (epoch, target_epoch): (i32, i32),
        assignor: Assignor,
        topics_hash: u64,
        members: Vec<Member>,
        now: Ms,
    ) -> Self {
        let mut group = Self::new(limits, epoch);
        group.target_epoch = target_epoch;
        group.assignor = assignor;
        group.resolved = Resolved::stored(topics_hash);
        for mut member in members {
            member.deadline = now.saturating_add(limits.session_ms);
            member.revoke_deadline =
                (!member.revoking.is_empty()).then(|| now.saturating_add(member.rebalance_ms));
            for partition in member.owned.keys().chain(member.revoking.keys()) {
                group.owners.insert(*partition, member.id.clone());
            }
            if let Some(instance) = &member.instance {
                group.instances.insert(instance.clone(), member.id.clone());
            }
            group.members.insert(member.id.clone(), member);
        }
        group.rearm();
        group
    }

    /// A member says that it is there, what it wants and what it has.
    pub(crate) fn beat(
        &mut self,
        now: Ms,
        beat: &Beat,
        topics: &dyn Topics,
    ) -> Result<Beaten, ResponseError> {
        if beat.epoch == LEAVES || beat.epoch == LEAVES_FOR_NOW {
            return self.leave(now, beat);
        }
        let is_new = self.admit(beat)?;
        let is_changed = self.update(beat) || is_new;
        self.follow(topics, is_changed);
        if self.target_epoch < self.epoch {
            self.retarget();
        }
        let is_moved = self.reconcile(now, &beat.member, beat.owned.as_ref());
        let session_ms = self.limits.session_ms;
        let Some(member) = self.members.get_mut(&beat.member) else {
            return Err(ResponseError::UnknownMemberId);
        };
        member.deadline = now.saturating_add(session_ms);
        let due = member.due();
        let says_all = is_moved || beat.is_full();
        let beaten = Beaten {
            member: member.id.clone(),
            epoch: member.epoch,
            assignment: says_all.then(|| member.owned.keys().copied().collect()),
        };
        self.arm(due);
        Ok(beaten)
    }

    /// Whether positions may be committed.
    pub(crate) fn commit(&self, by: &CommitBy<'_>) -> Result<(), ResponseError> {
        // A consumer that is no member, while there are none.
        if by.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        let is_named =
            by.generation >= 0 || !by.asker.member.is_empty() || by.asker.instance.is_some();
        // A producer before KIP-447 says nothing of the group.
        if by.in_transaction && !is_named {
            return Ok(());
        }
        let member = self.members.get(&by.asker.member).ok_or(ResponseError::UnknownMemberId)?;
        if !by.knows_epochs() {
            return Err(ResponseError::UnsupportedVersion);
        }
        if by.generation == member.epoch || member.held_since(by.generation, by.partitions) {
            return Ok(());
        }
        // Producers do not know of member epochs.
        if by.in_transaction {
            return Err(ResponseError::IllegalGeneration);
        }
        Err(ResponseError::StaleMemberEpoch)
    }

    /// Whether a member may be told positions.
    pub(crate) fn check_fetch(
        &self,
        member: Option<&str>,
        epoch: i32,
    ) -> Result<(), ResponseError> {
        let Some(id) = member.filter(|_| epoch >= 0) else { return Ok(()) };
        let member = self.members.get(id).ok_or(ResponseError::UnknownMemberId)?;
        if member.epoch == epoch { Ok(()) } else { Err(ResponseError::StaleMemberEpoch) }
    }

    /// Takes out who was not heard of, or did not give up what it had to.
    pub(crate) fn tick(&mut self, now: Ms) {
        let lost = self.members.values().filter(|member| member.due() <= now);
        let lost: Vec<String> = lost.map(|member| member.id.clone()).collect();
        for id in &lost {
            self.remove(id);
        }
        self.rearm();
    }

    pub(crate) fn state(&self) -> State {
        let is_there = |member: &Member| member.is_reconciled(self.target_epoch);
        if self.members.is_empty() {
            State::Empty
        } else if self.target_epoch < self.epoch {
            State::Assigning
        } else if self.members.values().all(is_there) {
            State::Stable
        } else {
            State::Reconciling
        }
    }

    /// Whether nothing would be lost with it.
    pub(crate) fn is_forgettable(&self) -> bool {
        self.members.is_empty() && self.epoch == 0
    }

    /// When [`ConsumerGroup::tick`] has to be called at the latest.
    pub(crate) const fn wake(&self) -> Option<Ms> {
        self.wake
    }

    /// What the topics were when the target was asked for, for who stores it.
    pub(crate) const fn topics_hash(&self) -> u64 {
        self.resolved.hash()
    }

    /// Whether there is something to be stored since this was asked last.
    pub(crate) const fn take_dirty(&mut self) -> bool {
        std::mem::replace(&mut self.is_dirty, false)
    }

    /// The topics that members subscribe to.
    pub(crate) fn subscribed(&self, topics: &dyn Topics) -> BTreeSet<String> {
        let mut fresh = self.resolved.clone();
        fresh.look_up(&self.members, topics);
        self.members.values().flat_map(|member| fresh.names_of(member)).map(str::to_owned).collect()
    }

    /// All that asks for another assignment does this.
    fn raise(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.is_dirty = true;
    }

    fn arm(&mut self, at: Ms) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn rearm(&mut self) {
        self.wake = self.members.values().map(Member::due).min();
    }
}
