//! Groups as they are stored: one document a group.
//!
//! What it holds is what a restart must not lose: the generation, who is in
//! it, and what was assigned to whom. Whoever only waits for something is not
//! in it.

use aquifer_stream::{Document, DocumentKey, DocumentKind};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::GroupKey;
use super::classic::{self, ClassicGroup, Member, Ms, Protocol};
use super::consumer_document::ConsumerDocument;
use super::machine::{Limits, Machine};

/// A stored group.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GroupDocument {
    /// When it lost its last member, in ms since 1970; absent while it has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) empty_since_ms: Option<i64>,
    #[serde(flatten)]
    pub(super) kind: Kind,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Kind {
    Classic(ClassicDocument),
    Consumer(ConsumerDocument),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ClassicDocument {
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: Vec<MemberDocument>,
}

#[derive(Debug, Serialize, Deserialize)]
struct MemberDocument {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    client_id: String,
    client_host: String,
    session_ms: Ms,
    rebalance_ms: Ms,
    /// What it says in the chosen protocol.
    metadata: Base64,
    assignment: Base64,
}

/// Bytes in JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Base64(Bytes);

impl From<Base64> for String {
    fn from(bytes: Base64) -> Self {
        BASE64_STANDARD.encode(&bytes.0)
    }
}

impl TryFrom<String> for Base64 {
    type Error = base64::DecodeError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(Self(BASE64_STANDARD.decode(text)?.into()))
    }
}

impl Clone for Base64 {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub(super) fn key(of: &GroupKey) -> DocumentKey {
    DocumentKey::new(of.tenant.clone(), DocumentKind::Group, of.group.as_str())
}

impl GroupDocument {
    pub(super) fn of(machine: &Machine, empty_since_ms: Option<i64>) -> Self {
        let kind = match machine {
            Machine::Classic(group) => Kind::Classic(ClassicDocument::of(group)),
            Machine::Consumer(group) => Kind::Consumer(ConsumerDocument::of(group)),
        };
        Self { empty_since_ms, kind }
    }

    /// The group again; its members have a whole session to be heard of.
    pub(super) fn restore(self, limits: Limits, now: Ms) -> Machine {
        match self.kind {
            Kind::Classic(group) => Machine::Classic(group.restore(limits.classic, now)),
            Kind::Consumer(group) => Machine::Consumer(group.restore(limits.consumer, now)),
        }
    }

    pub(super) fn parse(document: &Document) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&document.value)
    }

    pub(super) fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

impl ClassicDocument {
    fn of(group: &ClassicGroup) -> Self {
        let protocol = group.protocol.as_deref();
        let mut members: Vec<&Member> = group.members.values().collect();
        members.sort_by_key(|member| member.order());
        let member = |member: &Member| MemberDocument {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            session_ms: member.session_ms,
            rebalance_ms: member.rebalance_ms,
            metadata: Base64(member.metadata(protocol)),
            assignment: Base64(member.assignment.clone()),
        };
        Self {
            generation: group.generation,
            protocol_type: group.protocol_type.clone(),
            protocol: group.protocol.clone(),
            leader: group.leader.clone(),
            members: members.into_iter().map(member).collect(),
        }
    }

    fn restore(self, limits: classic::Limits, now: Ms) -> ClassicGroup {
        let protocol = self.protocol.clone().unwrap_or_default();
        let member = |of: MemberDocument| {
            let protocols = vec![Protocol { name: protocol.clone(), metadata: of.metadata.0 }];
            Member::restored(
                (of.id, of.instance),
                (of.client_id, of.client_host),
                (of.session_ms, of.rebalance_ms),
                protocols,
                of.assignment.0,
            )
        };
        let members = self.members.into_iter().map(member).collect();
        let names = (self.protocol_type, self.protocol, self.leader);
        ClassicGroup::restored(limits, self.generation, names, members, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_round_trips() {
        let text = r#"{"empty_since_ms":5,"type":"classic","generation":7,"protocol_type":"consumer","protocol":"range","leader":"a","members":[{"id":"a","instance":"i","client_id":"c","client_host":"/::1","session_ms":6000,"rebalance_ms":9000,"metadata":"AAE=","assignment":""}]}"#;
        check(text);
        let text = r#"{"type":"consumer","epoch":9,"target_epoch":8,"assignor":"range","topics_hash":18446744073709551615,"streams":["00000000-0000-0000-0000-000000000001","00000000-0000-0000-0000-000000000002"],"members":[{"id":"a","instance":"i","rack":"r","client_id":"c","client_host":"/::1","rebalance_ms":9000,"names":["s"],"regex":"t.*","assignor":"range","epoch":8,"previous_epoch":7,"owned":[[7,0,[0,1]],[8,0,[2]]],"revoking":[[3,1,[5]]],"target":[[0,[0,1,2]]]},{"id":"b","client_id":"","client_host":"","rebalance_ms":1,"names":[],"epoch":-2,"previous_epoch":0,"target":[[1,[0]]],"waits":true}]}"#;
        check(text);
    }

    fn check(text: &str) {
        let document: GroupDocument = serde_json::from_str(text).unwrap();
        let empty_since_ms = document.empty_since_ms;
        let limits = Limits {
            classic: classic::Limits {
                session_ms_min: 0,
                session_ms_max: 1,
                members_max: 1,
                initial_delay_ms: 0,
            },
            consumer: crate::groups::consumer::Limits { session_ms: 1, members_max: 1 },
        };
        let again = GroupDocument::of(&document.restore(limits, 0), empty_since_ms);
        assert_eq!(again.to_json().unwrap(), text);
    }
}
