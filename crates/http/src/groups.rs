//! Named positions: a consumer's place in a stream, kept by the server.

use std::collections::BTreeMap;

use aquifer_stream::GroupPosition;
use aquifer_types::{GroupName, Offset, PartitionIndex, StreamName};
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

/// The largest note beside a position.
const METADATA_BYTES_MAX: usize = 4096;

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
    groups: Vec<GroupName>,
}

#[derive(Serialize)]
struct GroupJson {
    group: GroupName,
    streams: BTreeMap<StreamName, BTreeMap<u32, GroupPosition>>,
}

pub(crate) async fn list(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    json(StatusCode::OK, &GroupsJson { groups: app.store.list_groups(&tenant()) })
}

pub(crate) async fn describe(
    State(app): State<App>,
    GroupAt(group): GroupAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    let description = app.store.describe_group(&tenant(), &group)?;
    let streams = description.positions.into_iter().map(|(path, positions)| {
        let positions = positions.into_iter().map(|(partition, at)| (partition.get(), at));
        (path.name, positions.collect())
    });
    json(StatusCode::OK, &GroupJson { group: description.group, streams: streams.collect() })
}

pub(crate) async fn delete(
    State(app): State<App>,
    GroupAt(group): GroupAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    app.store.delete_group(&tenant(), &group).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
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
    let positions = checked(positions)?;
    app.store.commit_positions(&tenant(), &group, &stream, positions).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
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
        if metadata.len() > METADATA_BYTES_MAX {
            return Err(Problem::invalid(format!(
                "the metadata of partition {number} has {} bytes, at most {METADATA_BYTES_MAX} \
                 are kept",
                metadata.len()
            ))
            .member("limit", METADATA_BYTES_MAX));
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
