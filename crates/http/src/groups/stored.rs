//! Who is in a group, as a coordinator has stored it.
//!
//! Coordinators write these documents and own their form; here they are only
//! read, and fields that are not known here are passed over. A group is without
//! members where there is no document. One that cannot be read is never taken
//! for an empty one.

use std::collections::BTreeMap;

use aquifer_stream::{Document, DocumentExpectation, DocumentKey, DocumentKind};
use aquifer_types::{ErrorKind, GroupName};
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
    pub(super) generation: Option<i64>,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
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
    assignment: Option<String>,
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

    pub(super) fn members(self) -> Vec<MemberJson> {
        let is_consumer = self.protocol_type.as_deref() == Some(CONSUMER);
        let members = self.members.into_iter().map(|member| {
            let bytes = member.assignment.and_then(|text| BASE64_STANDARD.decode(text).ok());
            MemberJson {
                id: member.id,
                instance: member.instance,
                client_id: member.client_id,
                client_host: member.client_host,
                assignment: bytes.filter(|_| is_consumer).and_then(|bytes| assignment(&bytes)),
            }
        });
        members.collect()
    }
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
        assert_eq!(stored.members(), [member]);
        assert!(parse("{\"type\":\"other\",\"members\":7}").is_err());
        assert!(parse("{\"type\":\"other\"}").unwrap().members.is_empty());
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
