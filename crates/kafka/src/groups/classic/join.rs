//! Joining: new members, those that come back, and static ones that replace
//! themselves.

use bytes::Bytes;
use kafka_protocol::ResponseError;

use super::{Action, Asker, ClassicGroup, Member, Ms, Protocol, State, Ticket};

/// A `JoinGroup`.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) member: Asker,
    /// What the member is called if it has no id yet.
    pub(crate) fresh_id: String,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_ms: Ms,
    pub(crate) rebalance_ms: Ms,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<Protocol>,
    /// It knows `MEMBER_ID_REQUIRED` (KIP-394).
    pub(crate) takes_id_first: bool,
    /// It knows `skip_assignment` (KIP-814).
    pub(crate) skips_assignment: bool,
}

/// The answer to a [`Join`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) error: Option<ResponseError>,
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) member: String,
    pub(crate) skip_assignment: bool,
    /// For the leader alone.
    pub(crate) members: Vec<JoinedMember>,
}

/// A member, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) metadata: Bytes,
}

impl Joined {
    pub(crate) fn refused(error: ResponseError, member: &str) -> Self {
        Self {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol: None,
            leader: String::new(),
            member: member.to_owned(),
            skip_assignment: false,
            members: Vec::new(),
        }
    }
}

impl ClassicGroup {
    /// A member joins or joins again.
    pub(crate) fn join(&mut self, now: Ms, join: Join, ticket: Ticket, actions: &mut Vec<Action>) {
        let id = join.member.member.clone();
        if let Err(error) = self.try_join(now, join, ticket, actions) {
            actions.push(Action::Join(ticket, Joined::refused(error, &id)));
        }
    }

    fn try_join(
        &mut self,
        now: Ms,
        join: Join,
        ticket: Ticket,
        actions: &mut Vec<Action>,
    ) -> Result<(), ResponseError> {
        let limits = &self.limits;
        if !(limits.session_ms_min..=limits.session_ms_max).contains(&join.session_ms) {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        self.check_room(&join.member.member)?;
        self.check_protocols(&join)?;
        if join.member.member.is_empty() {
            match join.member.instance.as_ref().and_then(|of| self.instances.get(of)).cloned() {
                Some(old) => self.replace(now, &old, join, ticket, actions),
                None if join.takes_id_first && join.member.instance.is_none() => {
                    self.give_id(now, join, ticket, actions)
                }
                None => {
                    let id = join.fresh_id.clone();
                    self.add(now, id, join, ticket, actions)
                }
            }
            return Ok(());
        }
        if join.member.instance.is_none() && self.pending.contains_key(&join.member.member) {
            let id = join.member.member.clone();
            self.add(now, id, join, ticket, actions);
            return Ok(());
        }
        self.check(&join.member, None)?;
        self.join_again(now, join, ticket, actions)
    }

    fn check_room(&self, id: &str) -> Result<(), ResponseError> {
        let max = self.limits.members_max;
        let has_room = match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                let waits = self.members.get(id).is_some_and(|member| member.joining.is_some());
                let waiting = self.members.values().filter(|m| m.joining.is_some()).count();
                waits || waiting < max
            }
            State::CompletingRebalance | State::Stable => {
                self.members.contains_key(id) || self.members.len() < max
            }
        };
        // Ids that were only given out are bounded too.
        let is_known = self.pending.contains_key(id) || self.members.contains_key(id);
        if has_room && (is_known || self.pending.len() < max) {
            return Ok(());
        }
        Err(ResponseError::GroupMaxSizeReached)
    }

    fn check_protocols(&self, join: &Join) -> Result<(), ResponseError> {
        let fits = if join.protocol_type.is_empty() || join.protocols.is_empty() {
            false
        } else if self.members.is_empty() {
            true
        } else {
            let spoken = |of: &Protocol| self.members.values().all(|m| m.speaks(&of.name));
            self.protocol_type.as_deref() == Some(&join.protocol_type)
                && join.protocols.iter().any(spoken)
        };
        if fits { Ok(()) } else { Err(ResponseError::InconsistentGroupProtocol) }
    }

    /// A client that vanishes before it knows its id leaves no member behind.
    fn give_id(&mut self, now: Ms, join: Join, ticket: Ticket, actions: &mut Vec<Action>) {
        let until = now.saturating_add(join.session_ms);
        self.pending.insert(join.fresh_id.clone(), until);
        self.arm(until);
        let answer = Joined::refused(ResponseError::MemberIdRequired, &join.fresh_id);
        actions.push(Action::Join(ticket, answer));
    }

    fn add(&mut self, now: Ms, id: String, join: Join, ticket: Ticket, actions: &mut Vec<Action>) {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        let mut member = Member {
            id,
            instance: join.member.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_ms: join.session_ms,
            rebalance_ms: join.rebalance_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            order: 0,
            is_new: true,
            deadline: 0,
            joining: Some(ticket),
            syncing: None,
            has_synced: false,
        };
        member.keep_as_new(now);
        let id = member.id.clone();
        self.insert(member, now);
        if self.leader.is_none() {
            self.leader = Some(id);
        }
        self.note_new_member();
        self.prepare_or_complete(now, actions);
    }

    fn join_again(
        &mut self,
        now: Ms,
        join: Join,
        ticket: Ticket,
        actions: &mut Vec<Action>,
    ) -> Result<(), ResponseError> {
        let id = join.member.member.clone();
        let Some(member) = self.members.get(&id) else {
            return Err(ResponseError::UnknownMemberId);
        };
        let is_same = member.protocols == join.protocols;
        let is_leader = self.leader.as_deref() == Some(&id);
        match self.state {
            State::Empty => return Err(ResponseError::UnknownMemberId),
            State::PreparingRebalance => {
                self.update(now, &id, join, ticket, actions);
                self.complete_if_all_joined(now, actions);
            }
            // Its answer was lost: it gets the same again.
            State::CompletingRebalance if is_same => {
                self.keep(now, &id);
                actions.push(Action::Join(ticket, self.joined(&id)));
            }
            // A follower asks with nothing changed: nobody is bothered.
            State::Stable if is_same && !is_leader => {
                self.keep(now, &id);
                actions.push(Action::Join(ticket, self.joined(&id)));
            }
            State::CompletingRebalance | State::Stable => {
                self.update(now, &id, join, ticket, actions);
                self.prepare_or_complete(now, actions);
            }
        }
        Ok(())
    }

    /// What a member says now, and its new wait.
    fn update(&mut self, now: Ms, id: &str, join: Join, ticket: Ticket, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(id) else { return };
        member.protocols = join.protocols;
        member.session_ms = join.session_ms;
        member.rebalance_ms = join.rebalance_ms;
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        if let Some(old) = member.joining.replace(ticket) {
            let answer = Joined::refused(ResponseError::RebalanceInProgress, id);
            actions.push(Action::Join(old, answer));
        }
        if member.is_new {
            member.keep_as_new(now);
        } else {
            member.keep(now);
        }
        let deadline = member.deadline;
        self.arm(deadline);
    }

    /// A static member comes back under a new id: the old one is fenced, and
    /// the others need not notice (KIP-345).
    fn replace(
        &mut self,
        now: Ms,
        old: &str,
        join: Join,
        ticket: Ticket,
        actions: &mut Vec<Action>,
    ) {
        let Some(mut member) = self.members.remove(old) else { return };
        let fenced = ResponseError::FencedInstanceId;
        if let Some(ticket) = member.joining.take() {
            actions.push(Action::Join(ticket, Joined::refused(fenced, old)));
        }
        if let Some(ticket) = member.syncing.take() {
            actions.push(Action::Sync(ticket, super::Synced::refused(fenced)));
        }
        let id = join.fresh_id.clone();
        let was_leader = self.leader.as_deref() == Some(old);
        let skips = join.skips_assignment;
        member.id.clone_from(&id);
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.members.insert(id.clone(), member);
        if was_leader {
            self.leader = Some(id.clone());
        }
        self.update(now, &id, join, ticket, actions);
        let stays = self.state == State::Stable
            && self.select_protocol().as_deref() == self.protocol.as_deref();
        if !stays {
            return self.prepare_or_complete(now, actions);
        }
        if let Some(member) = self.members.get_mut(&id) {
            member.joining = None;
            member.is_new = false;
            member.keep(now);
        }
        actions.push(Action::Save);
        let mut answer = self.joined(&id);
        if was_leader {
            if skips {
                answer.skip_assignment = true;
            } else {
                // It must not assign: nobody else asks in this generation.
                answer.leader = old.to_owned();
                answer.members = Vec::new();
            }
        }
        actions.push(Action::Join(ticket, answer));
    }

    /// What a member is told of this generation.
    pub(super) fn joined(&self, id: &str) -> Joined {
        let leader = self.leader.clone().unwrap_or_default();
        let protocol = self.protocol.as_deref();
        let members = if leader == id {
            let of = |member: &Member| JoinedMember {
                member: member.id.clone(),
                instance: member.instance.clone(),
                metadata: member.metadata(protocol),
            };
            self.members.values().map(of).collect()
        } else {
            Vec::new()
        };
        Joined {
            error: None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader,
            member: id.to_owned(),
            skip_assignment: false,
            members,
        }
    }
}
