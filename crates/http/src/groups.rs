//! Groups: consumers' places in streams, kept by the server, and who they are.
//!
//! Who is in a group is a coordinator's business. Nothing is changed here while
//! somebody is: that is checked with the change itself.

mod reset;
mod stored;

use std::collections::{BTreeMap, BTreeSet};

use aquifer_stream::{DocumentKind, GroupPosition, POSITION_METADATA_BYTES_MAX};
use aquifer_types::{ErrorKind, GroupName, Offset, PartitionIndex, StreamName, StreamPath};
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};

use crate::Problem;
use crate::app::{App, json, segment, tenant};
use crate::input::document;
use crate::parameters::Parameters;
pub(crate) use reset::reset;
use stored::{MemberJson, StoredGroup};

/// How often a change is tried that a coordinator overtakes.
const ATTEMPTS_MAX: usize = 5;

/// The segment `{group}` of the path.
pub(crate) struct GroupAt(GroupName);

impl<S: Send + Sync> FromRequestParts<S> for GroupAt {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        Ok(Self(GroupName::new(&segment(parts, state).await?)?))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Commit {
    stream: StreamName,
    positions: BTreeMap<String, Position>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    offset: i64,
    #[serde(default)]
    metadata: String,
}

#[derive(Serialize)]
struct GroupsJson {
    groups: BTreeSet<GroupName>,
}

#[derive(Serialize)]
struct GroupJson {
    group: GroupName,
    state: &'static str,
    /// Which protocol its members speak with their coordinator.
    #[serde(rename = "type")]
    kind: Option<String>,
    protocol_type: Option<String>,
    protocol: Option<String>,
    generation: Option<i64>,
    members: Vec<MemberJson>,
    streams: BTreeMap<StreamName, BTreeMap<u32, PositionJson>>,
}

#[derive(Serialize)]
struct PositionJson {
    #[serde(flatten)]
    position: GroupPosition,
    end_offset: Offset,
    /// Offsets between the two; 0 for a position beyond the end.
    lag: i64,
}

pub(crate) async fn list(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    let mut groups: BTreeSet<_> = app.store.list_groups(&tenant()).into_iter().collect();
    // Members need no positions.
    let stored = app.store.documents(&tenant(), DocumentKind::Group).into_iter();
    groups.extend(stored.filter_map(|(name, _)| GroupName::new(&name).ok()));
    json(StatusCode::OK, &GroupsJson { groups })
}

pub(crate) async fn describe(
    State(app): State<App>,
    GroupAt(group): GroupAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    let stored = StoredGroup::find(&app, &group)?;
    let positions = match app.store.describe_group(&tenant(), &group) {
        Ok(description) => description.positions,
        Err(error) if error.kind() == ErrorKind::NotFound && stored.is_some() => BTreeMap::new(),
        Err(error) => return Err(error.into()),
    };
    let mut streams = BTreeMap::new();
    for (path, positions) in positions {
        // What was deleted since has no positions any more.
        let Ok(stream) = app.store.stream(&path) else { continue };
        let positions = positions.into_iter().filter_map(|(partition, position)| {
            let end_offset = stream.partition(partition).ok()?.offsets().end;
            let lag = end_offset.get().saturating_sub(position.offset.get()).max(0);
            Some((partition.get(), PositionJson { position, end_offset, lag }))
        });
        streams.insert(path.name.clone(), positions.collect());
    }
    let stored = stored.unwrap_or_default();
    let answer = GroupJson {
        group,
        state: if stored.members.is_empty() { "empty" } else { "stable" },
        kind: stored.kind.clone(),
        protocol_type: stored.protocol_type().map(str::to_owned),
        protocol: stored.protocol.clone(),
        generation: stored.generation,
        members: stored
            .members(|id| app.store.stream_path(id).map(|path| path.name.as_str().to_owned())),
        streams,
    };
    json(StatusCode::OK, &answer)
}

pub(crate) async fn delete(
    State(app): State<App>,
    GroupAt(group): GroupAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let expected = StoredGroup::vacant(&app, &group)?.unchanged();
        match app.store.delete_group_while(&tenant(), &group, expected).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT.into_response()),
            Err(aquifer_stream::Error::DocumentChanged { .. }) if attempts < ATTEMPTS_MAX => {}
            Err(error) => return Err(error.into()),
        }
    }
}

pub(crate) async fn commit(
    State(app): State<App>,
    GroupAt(group): GroupAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Parameters::parse(parts.uri.query(), &[])?;
    let body = app.document_body(&parts, body).await?;
    let Commit { stream, positions } = document(&body)?;
    let stream = app.store.stream(&StreamPath::new(tenant(), stream))?;
    let mut kept = Vec::with_capacity(positions.len());
    for (index, (offset, metadata)) in checked(positions)? {
        kept.push((stream.partition(index)?.partition(), offset, metadata));
    }
    let mut attempts = 0;
    loop {
        attempts += 1;
        let expected = StoredGroup::vacant(&app, &group)?.unchanged();
        let kept = kept.clone();
        match app.store.commit_positions_while(&tenant(), &group, kept, expected).await {
            Ok(()) => return Ok(StatusCode::NO_CONTENT.into_response()),
            Err(aquifer_stream::Error::DocumentChanged { .. }) if attempts < ATTEMPTS_MAX => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn checked(
    positions: BTreeMap<String, Position>,
) -> Result<BTreeMap<PartitionIndex, (Offset, String)>, Problem> {
    let mut checked = BTreeMap::new();
    for (partition, Position { offset, metadata }) in positions {
        let number: u32 = partition.parse().map_err(|_| {
            Problem::invalid(format!("'{partition}' in positions is not the number of a partition"))
        })?;
        if offset < 0 {
            return Err(Problem::invalid(format!(
                "the offset of partition {number} is negative, offsets begin at 0"
            )));
        }
        if metadata.len() > POSITION_METADATA_BYTES_MAX {
            return Err(Problem::invalid(format!(
                "the metadata of partition {number} has {} bytes, at most {POSITION_METADATA_BYTES_MAX} \
                 are kept",
                metadata.len()
            ))
            .member("limit", POSITION_METADATA_BYTES_MAX));
        }
        checked.insert(PartitionIndex(number), (Offset(offset), metadata));
    }
    if checked.is_empty() {
        return Err(Problem::invalid("positions is empty")
            .next("Name at least one partition: {\"positions\":{\"0\":{\"offset\":5}}}."));
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_checked() {
        let check = |text: &str| {
            document::<Commit>(text.as_bytes())
                .and_then(|commit| checked(commit.positions))
                .map_err(|problem| problem.detail().to_owned())
        };
        let good = check(r#"{"stream":"s","positions":{"3":{"offset":5,"metadata":"m"}}}"#);
        assert_eq!(good, Ok(BTreeMap::from([(PartitionIndex(3), (Offset(5), "m".into()))])));
        for (bad, part) in [
            (r#"{"stream":"s","positions":{}}"#, "empty"),
            (r#"{"stream":"s","positions":{"a":{"offset":5}}}"#, "'a' in positions"),
            (r#"{"stream":"s","positions":{"0":{"offset":-5}}}"#, "negative"),
            (r#"{"stream":"a b","positions":{}}"#, "stream name"),
            (r#"{"stream":"s","positions":{"0":{"at":5}}}"#, "unknown field `at`"),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
