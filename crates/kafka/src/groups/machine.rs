//! The rules of a group: those of one of the two protocols.
//!
//! A group that nobody is in may become one of the other kind; one with members
//! stays what it is.

use std::collections::BTreeSet;

use aquifer_types::Partition;
use kafka_protocol::ResponseError;

use super::classic::{Action, Asker, ClassicGroup, Ms};
use super::consumer::{ConsumerGroup, Topics};
use super::{CONSUMER, classic, consumer};

/// The first version of `OffsetCommit` whose clients know of member epochs.
const COMMITS_BY_EPOCH: i16 = 9;

/// The bounds of groups of both kinds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) classic: classic::Limits,
    pub(crate) consumer: consumer::Limits,
}

/// A commit of positions, as far as a group decides about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitBy<'a> {
    pub(crate) asker: &'a Asker,
    /// Of a classic group, or the epoch of a member.
    pub(crate) generation: i32,
    pub(crate) in_transaction: bool,
    /// The version of `OffsetCommit`, or of `TxnOffsetCommit`.
    pub(crate) version: i16,
    pub(crate) partitions: &'a [Partition],
}

impl CommitBy<'_> {
    /// Whether the client may be a member of a consumer group.
    pub(super) const fn knows_epochs(&self) -> bool {
        self.in_transaction || self.version >= COMMITS_BY_EPOCH
    }

    /// What is answered where there is no such group.
    pub(super) const fn without_group(&self) -> ResponseError {
        match !self.in_transaction && self.knows_epochs() {
            true => ResponseError::GroupIdNotFound,
            false => ResponseError::IllegalGeneration,
        }
    }
}

/// A group's state machine.
#[derive(Debug, Clone)]
pub(crate) enum Machine {
    Classic(ClassicGroup),
    Consumer(ConsumerGroup),
}

impl Machine {
    /// What a group is before anybody is in it.
    pub(crate) const fn new(limits: Limits) -> Self {
        Self::Classic(ClassicGroup::new(limits.classic))
    }

    /// The classic group that it is, or becomes where nobody is in it.
    pub(super) fn classic(&mut self, limits: Limits, now: Ms) -> Option<&mut ClassicGroup> {
        if let Self::Consumer(group) = self
            && group.members.is_empty()
        {
            let names = (None, None, None);
            let classic = ClassicGroup::restored(limits.classic, group.epoch, names, vec![], now);
            *self = Self::Classic(classic);
        }
        match self {
            Self::Classic(group) => Some(group),
            Self::Consumer(_) => None,
        }
    }

    /// The consumer group that takes the place of a classic one where nobody is
    /// in that: its epochs go on behind the generations.
    pub(super) fn to_consumer(&self, limits: Limits) -> Option<ConsumerGroup> {
        match self {
            Self::Classic(group) if group.is_vacant() => {
                Some(ConsumerGroup::new(limits.consumer, group.generation))
            }
            _ => None,
        }
    }

    /// Nobody is in it, or about to be.
    pub(crate) fn is_vacant(&self) -> bool {
        match self {
            Self::Classic(group) => group.is_vacant(),
            Self::Consumer(group) => group.members.is_empty(),
        }
    }

    /// Whether nothing would be lost with it.
    pub(super) fn is_forgettable(&self) -> bool {
        match self {
            Self::Classic(group) => group.is_forgettable(),
            Self::Consumer(group) => group.is_forgettable(),
        }
    }

    /// The generation of a classic group, or the epoch of a consumer group; 0
    /// where it was never stored.
    pub(super) const fn generation(&self) -> i32 {
        match self {
            Self::Classic(group) => group.generation,
            Self::Consumer(group) => group.epoch,
        }
    }

    /// When [`Machine::tick`] has to be called at the latest.
    pub(super) const fn wake(&self) -> Option<Ms> {
        match self {
            Self::Classic(group) => group.wake(),
            Self::Consumer(group) => group.wake(),
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Ms, actions: &mut Vec<Action>) {
        match self {
            Self::Classic(group) => group.tick(now, actions),
            Self::Consumer(group) => group.tick(now),
        }
    }

    /// Whether there is something to be stored that no action asks for.
    pub(super) const fn take_dirty(&mut self) -> bool {
        match self {
            Self::Classic(_) => false,
            Self::Consumer(group) => group.take_dirty(),
        }
    }

    /// Whether positions may be committed.
    pub(super) fn commit(&mut self, now: Ms, by: &CommitBy<'_>) -> Result<(), ResponseError> {
        match self {
            Self::Classic(group) => group.commit(now, by.asker, by.generation, by.in_transaction),
            Self::Consumer(group) => group.commit(by),
        }
    }

    pub(crate) fn protocol_type(&self) -> &str {
        match self {
            Self::Classic(group) => group.protocol_type.as_deref().unwrap_or_default(),
            Self::Consumer(_) => CONSUMER,
        }
    }

    /// Its state's name, as clients see it.
    pub(crate) fn state(&self) -> &'static str {
        match self {
            Self::Classic(group) => group.state.name(),
            Self::Consumer(group) => group.state().name(),
        }
    }

    /// Its kind's name, as clients see it.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Classic(_) => "classic",
            Self::Consumer(_) => CONSUMER,
        }
    }

    /// The topics that members subscribe to, where that is known of all of them.
    pub(super) fn subscribed(
        &self,
        topics: &dyn Topics,
    ) -> Result<BTreeSet<String>, ResponseError> {
        let group = match self {
            Self::Consumer(group) => return Ok(group.subscribed(topics)),
            Self::Classic(group) if group.is_vacant() => return Ok(BTreeSet::new()),
            Self::Classic(group) => group,
        };
        if group.protocol_type.as_deref() != Some(CONSUMER) {
            return Err(ResponseError::NonEmptyGroup);
        }
        let mut subscribed = BTreeSet::new();
        for metadata in group.members.values().flat_map(|member| &member.protocols) {
            let topics = crate::subscription::topics(&metadata.metadata);
            subscribed.extend(topics.ok_or(ResponseError::NonEmptyGroup)?);
        }
        Ok(subscribed)
    }
}
