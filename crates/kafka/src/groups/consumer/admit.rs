//! Who is in the group: members come, come back and go.

use kafka_protocol::ResponseError;

use super::{Beat, Beaten, ConsumerGroup, JOINS, LEAVES_FOR_NOW, Member};
use crate::groups::classic::Ms;

impl ConsumerGroup {
    /// Lets a heartbeat in, or says why not; whether its member is a new one.
    pub(super) fn admit(&mut self, beat: &Beat) -> Result<bool, ResponseError> {
        let holder = beat.instance.as_ref().and_then(|instance| self.instances.get(instance));
        let holder = holder.cloned();
        if beat.epoch != JOINS {
            match &holder {
                None if beat.instance.is_some() => return Err(ResponseError::UnknownMemberId),
                Some(id) if *id != beat.member => return Err(ResponseError::FencedInstanceId),
                _ => {}
            }
            let member = self.members.get(&beat.member).ok_or(ResponseError::UnknownMemberId)?;
            return member.check_epoch(beat).map(|()| false);
        }
        if let Some(id) = holder.filter(|id| *id != beat.member) {
            self.replace(&id, beat)?;
            return Ok(false);
        }
        if let Some(member) = self.members.get_mut(&beat.member) {
            // It begins anew and owns nothing: what it had is its again, if it
            // still is to have it.
            member.epoch = JOINS;
            member.previous_epoch = JOINS;
            self.is_dirty = true;
            return Ok(false);
        }
        if self.members.len() >= self.limits.members_max {
            return Err(ResponseError::GroupMaxSizeReached);
        }
        self.members.insert(beat.member.clone(), Member::joining(beat));
        Ok(true)
    }

    /// A static member comes back under another id, which is let in once the
    /// old one has left.
    fn replace(&mut self, old: &str, beat: &Beat) -> Result<(), ResponseError> {
        let is_free = self.members.get(old).is_some_and(|of| of.epoch == LEAVES_FOR_NOW);
        if !is_free || self.members.contains_key(&beat.member) {
            return Err(ResponseError::UnreleasedInstanceId);
        }
        let Some(member) = self.members.remove(old) else { return Ok(()) };
        for partition in member.owned.keys() {
            self.owners.insert(*partition, beat.member.clone());
        }
        if let Some(instance) = &member.instance {
            self.instances.insert(instance.clone(), beat.member.clone());
        }
        let (id, epoch) = (beat.member.clone(), JOINS);
        self.members.insert(id.clone(), Member { id, epoch, previous_epoch: epoch, ..member });
        self.is_dirty = true;
        Ok(())
    }

    /// What a member says of itself; whether that asks for another assignment.
    pub(super) fn update(&mut self, beat: &Beat) -> bool {
        let Some(member) = self.members.get_mut(&beat.member) else { return false };
        if !member.differs(beat) {
            return false;
        }
        let old = member.instance.clone();
        let is_changed = member.take(beat);
        let new = member.instance.clone();
        if let Some(old) = old {
            self.instances.remove(&old);
        }
        if let Some(instance) = new {
            self.instances.insert(instance, beat.member.clone());
        }
        self.is_dirty = true;
        is_changed
    }

    pub(super) fn leave(&mut self, now: Ms, beat: &Beat) -> Result<Beaten, ResponseError> {
        if let Some(instance) = &beat.instance {
            let holder = self.instances.get(instance).ok_or(ResponseError::UnknownMemberId)?;
            if *holder != beat.member {
                return Err(ResponseError::FencedInstanceId);
            }
        }
        let id = beat.member.clone();
        let session_ms = self.limits.session_ms;
        let member = self.members.get_mut(&id).ok_or(ResponseError::UnknownMemberId)?;
        if beat.epoch == LEAVES_FOR_NOW {
            // Nobody gets its partitions before its session has ended.
            member.epoch = LEAVES_FOR_NOW;
            member.waits = false;
            member.revoke_deadline = None;
            member.deadline = now.saturating_add(session_ms);
            for partition in std::mem::take(&mut member.revoking).keys() {
                self.owners.remove(partition);
            }
            self.is_dirty = true;
        } else {
            self.remove(&id);
        }
        self.rearm();
        Ok(Beaten { member: id, epoch: beat.epoch, assignment: None })
    }

    /// A static member is taken out by whoever manages the group.
    pub(crate) fn expel(&mut self, instance: &str) -> Result<(), ResponseError> {
        let id = self.instances.get(instance).cloned().ok_or(ResponseError::UnknownMemberId)?;
        self.remove(&id);
        self.rearm();
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else { return };
        for partition in member.owned.keys().chain(member.revoking.keys()) {
            self.owners.remove(partition);
        }
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        // What only it subscribed to is not the group's any more.
        self.resolved.forget();
        self.raise();
    }
}
