//! Who is in a group, as a coordinator has stored it.
//!
//! Coordinators write these documents and own their form; here they are only
//! read, and fields that are not known here are passed over. A group is without
//! members where there is no document. One that cannot be read is never taken
//! for an empty one.

use std::collections::BTreeMap;

use aquifer_stream::{Document, DocumentExpectation, DocumentKey, DocumentKind};
use aquifer_types::{ErrorKind, GroupName, StreamId};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::Problem;
use crate::app::{App, tenant};

/// The protocol type of those whose assignments can be read.
const CONSUMER: &str = "consumer";

/// A group's document.
#[derive(Debug, Default, Deserialize)]
pub(super) struct StoredGroup {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    /// Of a group whose coordinator assigns, its epoch.
    #[serde(alias = "epoch")]
    pub(super) generation: Option<i64>,
    protocol_type: Option<String>,
    #[serde(alias = "assignor")]
    pub(super) protocol: Option<String>,
    /// The streams that `owned` of members means by their places.
    #[serde(default)]
    streams: Vec<StreamId>,
    #[serde(default)]
    pub(super) members: Vec<StoredMember>,
    #[serde(skip)]
    version: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct StoredMember {
    id: String,
    instance: Option<String>,
    client_id: Option<String>,
    client_host: Option<String>,
    /// What a leader has assigned.
    assignment: Option<String>,
    /// What a coordinator has: an epoch, the place of a stream, partitions.
    #[serde(default)]
    owned: Vec<(i64, usize, Vec<i32>)>,
}

/// A member, as it is answered.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(super) struct MemberJson {
    id: String,
    instance: Option<String>,
    client_id: Option<String>,
    client_host: Option<String>,
    /// Partitions by stream; null where only the members themselves can tell.
    assignment: Option<Assignment>,
}

type Assignment = BTreeMap<String, Vec<i32>>;

pub(super) fn key(group: &GroupName) -> DocumentKey {
    DocumentKey::new(tenant(), DocumentKind::Group, group.as_str())
}

impl StoredGroup {
    /// The group's document as it is now, if there is one.
    pub(super) fn find(app: &App, group: &GroupName) -> Result<Option<Self>, Problem> {
        app.store.document(&key(group)).map(|document| Self::parse(group, &document)).transpose()
    }

    /// The group as it is now, if nobody is in it.
    pub(super) fn vacant(app: &App, group: &GroupName) -> Result<Self, Problem> {
        let stored = Self::find(app, group)?.unwrap_or_default();
        if stored.members.is_empty() {
            return Ok(stored);
        }
        let count = stored.members.len();
        Err(Problem::new(
            ErrorKind::Conflict,
            format!("group {group} has members ({count}): they alone move its positions"),
        )
        .member("members", count)
        .next(
            "Stop the group's consumers; GET /v1/groups/{group} names them. One that was killed \
             is a member until its session has ended. Then send the request again.",
        ))
    }

    fn parse(group: &GroupName, document: &Document) -> Result<Self, Problem> {
        let stored = serde_json::from_str::<Self>(&document.value).map_err(|error| {
            let detail = format!("the stored members of group {group} cannot be read: {error}");
            Problem::new(ErrorKind::Internal, detail)
        })?;
        Ok(Self { version: Some(document.version), ..stored })
    }

    /// That it is still as it was found.
    pub(super) fn unchanged(&self) -> DocumentExpectation {
        self.version.map_or(DocumentExpectation::Absent, DocumentExpectation::Version)
    }

    /// What its members are, `consumer` of those that a coordinator assigns to.
    pub(super) fn protocol_type(&self) -> Option<&str> {
        match self.is_assigned() {
            true => Some(CONSUMER),
            false => self.protocol_type.as_deref(),
        }
    }

    /// Whether its coordinator assigns, and not one of its members.
    fn is_assigned(&self) -> bool {
        self.kind.as_deref() == Some(CONSUMER)
    }

    /// Its members; `name` is what a stream is called, while it exists.
    pub(super) fn members(self, name: impl Fn(StreamId) -> Option<String>) -> Vec<MemberJson> {
        let is_assigned = self.is_assigned();
        let is_consumer = self.protocol_type() == Some(CONSUMER);
        let names: Vec<Option<String>> = self.streams.into_iter().map(name).collect();
        let members = self.members.into_iter().map(|member| {
            let assignment = if is_assigned {
                Some(owned(&names, member.owned))
            } else {
                let bytes = member.assignment.and_then(|text| BASE64_STANDARD.decode(text).ok());
                bytes.filter(|_| is_consumer).and_then(|bytes| assignment(&bytes))
            };
            MemberJson {
                id: member.id,
                instance: member.instance,
                client_id: member.client_id,
                client_host: member.client_host,
                assignment,
            }
        });
        members.collect()
    }
}

/// Partitions by the names of their streams; what was deleted has none.
fn owned(names: &[Option<String>], runs: Vec<(i64, usize, Vec<i32>)>) -> Assignment {
    let mut assigned = Assignment::new();
    for (_, place, partitions) in runs {
        if let Some(Some(name)) = names.get(place) {
            assigned.entry(name.clone()).or_default().extend(partitions);
        }
    }
    assigned.values_mut().for_each(|partitions| partitions.sort_unstable());
    assigned
}

/// Reads Kafka's `ConsumerProtocolAssignment`, of which all versions begin
/// alike; none where it is something else. Nothing in it is an assignment of
/// nothing.
fn assignment(bytes: &[u8]) -> Option<Assignment> {
    let mut assigned = Assignment::new();
    if bytes.is_empty() {
        return Some(assigned);
    }
    let mut rest = bytes;
    take::<2>(&mut rest)?;
    for _ in 0..count(&mut rest)? {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, behind) = rest.split_at_checked(length)?;
        rest = behind;
        let partitions = assigned.entry(std::str::from_utf8(name).ok()?.to_owned()).or_default();
        for _ in 0..count(&mut rest)? {
            partitions.push(i32::from_be_bytes(take(&mut rest)?));
        }
    }
    assigned.values_mut().for_each(|partitions| partitions.sort_unstable());
    Some(assigned)
}

/// A count that is no larger than what is left: nothing has no bytes.
fn count(rest: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(i32::from_be_bytes(take(rest)?)).ok()?;
    (count <= rest.len()).then_some(count)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<StoredGroup, Problem> {
        let document = Document { value: value.to_owned(), version: 3 };
        StoredGroup::parse(&GroupName::new("g").unwrap(), &document)
    }

    #[test]
    fn what_a_coordinator_stored_is_read() {
        // The text of the coordinator's own test, with an assignment.
        let text = r#"{"empty_since_ms":5,"type":"classic","generation":7,"protocol_type":"consumer","protocol":"range","leader":"a","members":[{"id":"a","instance":"i","client_id":"c","client_host":"/::1","session_ms":6000,"rebalance_ms":9000,"metadata":"AAE=","assignment":"AAAAAAABAAFzAAAAAQAAAAIAAAAA"}]}"#;
        let stored = parse(text).unwrap();
        assert_eq!(stored.unchanged(), DocumentExpectation::Version(3));
        assert_eq!(stored.generation, Some(7));
        let member = MemberJson {
            id: "a".into(),
            instance: Some("i".into()),
            client_id: Some("c".into()),
            client_host: Some("/::1".into()),
            assignment: Some(Assignment::from([("s".into(), vec![2])])),
        };
        assert_eq!(stored.protocol_type(), Some(CONSUMER));
        assert_eq!(stored.members(|_| None), [member]);
        assert!(parse("{\"type\":\"other\",\"members\":7}").is_err());
        assert!(parse("{\"type\":\"other\"}").unwrap().members.is_empty());
    }

    #[test]
    fn what_a_coordinator_assigned_is_read() {
        // The text of the coordinator's own test.
        let text = r#"{"type":"consumer","epoch":9,"target_epoch":8,"assignor":"range","topics_hash":18446744073709551615,"streams":["00000000-0000-0000-0000-000000000001","00000000-0000-0000-0000-000000000002"],"members":[{"id":"a","instance":"i","rack":"r","client_id":"c","client_host":"/::1","rebalance_ms":9000,"names":["s"],"regex":"t.*","assignor":"range","epoch":8,"previous_epoch":7,"owned":[[7,0,[0,1]],[8,0,[2]]],"revoking":[[3,1,[5]]],"target":[[0,[0,1,2]]]},{"id":"b","client_id":"","client_host":"","rebalance_ms":1,"names":[],"epoch":-2,"previous_epoch":0,"owned":[[1,1,[0]]],"waits":true}]}"#;
        let stored = parse(text).unwrap();
        assert_eq!((stored.generation, stored.protocol.as_deref()), (Some(9), Some("range")));
        assert_eq!(stored.protocol_type(), Some(CONSUMER));
        let first = stored.streams[0];
        let members = stored.members(|id| (id == first).then(|| "s".to_owned()));
        let assigned = members.into_iter().map(|member| member.assignment);
        let of_s = Assignment::from([("s".into(), vec![0, 1, 2])]);
        // The other one's stream was deleted.
        assert_eq!(assigned.collect::<Vec<_>>(), [Some(of_s), Some(Assignment::new())]);
    }

    #[test]
    fn assignments_are_read_or_not() {
        let of_s = |partitions: &[i32]| Some(Assignment::from([("s".into(), partitions.to_vec())]));
        let check = |bytes: &[u8], expected| assert_eq!(assignment(bytes), expected, "{bytes:?}");
        check(&[], Some(Assignment::new()));
        check(&[0, 1, 0, 0, 0, 0], Some(Assignment::new()));
        let two = [0, 0, 0, 0, 0, 1, 0, 1, b's', 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 1];
        check(&two, of_s(&[1, 4]));
        for cut in 1..two.len() {
            check(&two[..cut], None);
        }
        check(&[0, 0, 127, 255, 255, 255], None);
        check(&[0, 0, 255, 255, 255, 255], None);
        check(&[0, 0, 0, 0, 0, 1, 0, 1, 0xff, 0, 0, 0, 0], None);
    }
}
