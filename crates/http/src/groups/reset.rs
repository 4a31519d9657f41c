//! Positions are set anew: what that would do, and doing it.

use std::collections::{BTreeMap, BTreeSet};

use aquifer_stream::{Position, StreamHandle};
use aquifer_types::{GroupName, Offset, Partition, PartitionIndex, StreamName, StreamPath};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::stored::StoredGroup;
use super::{ATTEMPTS_MAX, GroupAt};
use crate::Problem;
use crate::app::{App, json, tenant};
use crate::input::document;
use crate::parameters::Parameters;
use crate::time;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reset {
    to: To,
    /// All in which the group has positions, where it is absent.
    #[serde(default)]
    stream: Option<StreamName>,
    /// All of the stream, where they are absent.
    #[serde(default)]
    partitions: Option<Vec<u32>>,
    #[serde(default)]
    execute: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum To {
    Offset(i64),
    Text(String),
}

#[derive(Serialize)]
struct ResetJson {
    group: GroupName,
    /// Whether it was done.
    executed: bool,
    streams: BTreeMap<StreamName, BTreeMap<u32, MoveJson>>,
}

#[derive(Serialize)]
struct MoveJson {
    /// Null where there was no position.
    from: Option<Offset>,
    to: Offset,
    end_offset: Offset,
}

/// A position that is to be set.
struct Move {
    stream: StreamName,
    at: Partition,
    from: Option<Offset>,
    to: Offset,
    end: Offset,
}

pub(crate) async fn reset(
    State(app): State<App>,
    GroupAt(group): GroupAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Parameters::parse(parts.uri.query(), &[])?;
    let body = app.document_body(&parts, body).await?;
    let reset: Reset = document(&body)?;
    let to = position(&reset.to)?;
    let mut attempts = 0;
    let moves = loop {
        attempts += 1;
        let stored = StoredGroup::vacant(&app, &group)?;
        let moves = plan(&app, &group, &reset, to).await?;
        if !reset.execute {
            break moves;
        }
        let positions = moves.iter().map(|of| (of.at, of.to, String::new())).collect();
        let expected = stored.unchanged();
        match app.store.commit_positions_while(&tenant(), &group, positions, expected).await {
            Ok(()) => break moves,
            Err(aquifer_stream::Error::DocumentChanged { .. }) if attempts < ATTEMPTS_MAX => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut streams: BTreeMap<StreamName, BTreeMap<u32, MoveJson>> = BTreeMap::new();
    for Move { stream, at, from, to, end } in moves {
        let of_stream = streams.entry(stream).or_default();
        of_stream.insert(at.index.get(), MoveJson { from, to, end_offset: end });
    }
    json(StatusCode::OK, &ResetJson { group, executed: reset.execute, streams })
}

fn position(to: &To) -> Result<Position, Problem> {
    let text = match to {
        To::Offset(offset) if *offset >= 0 => return Ok(Position::Offset(Offset(*offset))),
        To::Offset(offset) => {
            return Err(Problem::invalid(format!(
                "to is {offset}, which is negative; offsets begin at 0"
            )));
        }
        To::Text(text) => text.as_str(),
    };
    match text {
        "earliest" => Some(Position::Earliest),
        "latest" => Some(Position::Latest),
        // A number in quotes could be an offset or a time.
        text if text.parse::<i64>().is_err() => time::parse(text).map(Position::Time),
        _ => None,
    }
    .ok_or_else(|| {
        Problem::invalid(format!(
            "to is '{text}'; it is earliest, latest, an offset as a number, or an RFC 3339 time \
             such as 2026-03-01T12:00:00Z"
        ))
    })
}

/// Where every position goes. Offsets that are not kept any more, or not yet
/// there, become the nearest one that is.
async fn plan(
    app: &App,
    group: &GroupName,
    reset: &Reset,
    to: Position,
) -> Result<Vec<Move>, Problem> {
    let kept = app.store.positions(&tenant(), group);
    let mut moves = Vec::new();
    for (stream, at) in targets(app, group, reset)? {
        let path = stream.path();
        let offsets = stream.partition(at.index)?.offsets();
        let to = match to {
            Position::Offset(offset) => offset.clamp(offsets.start, offsets.end),
            to => app.store.resolve_position(path, at.index, to).await?,
        };
        moves.push(Move {
            stream: path.name.clone(),
            at,
            from: kept.get(&at).map(|of| of.offset).filter(|offset| *offset >= Offset::ZERO),
            to,
            end: offsets.end,
        });
    }
    Ok(moves)
}

fn targets(
    app: &App,
    group: &GroupName,
    reset: &Reset,
) -> Result<Vec<(StreamHandle, Partition)>, Problem> {
    let Some(name) = &reset.stream else {
        if reset.partitions.is_some() {
            return Err(Problem::invalid("partitions are of a stream, and there is none")
                .next("Name the stream: {\"stream\":\"orders\",\"partitions\":[0],…}."));
        }
        // Says when there is no such group.
        app.store.describe_group(&tenant(), group)?;
        let kept = app.store.positions(&tenant(), group).into_keys();
        return Ok(kept.filter_map(|at| Some((app.store.stream_by_id(at.stream)?, at))).collect());
    };
    let path = StreamPath::new(tenant(), name.clone());
    let stream = app.store.stream(&path)?;
    let indexes = match &reset.partitions {
        Some(indexes) if indexes.is_empty() => {
            return Err(Problem::invalid("partitions is empty")
                .next("Leave it out to mean all partitions of the stream."));
        }
        Some(indexes) => indexes.clone(),
        None => (0..app.store.describe_stream(&path)?.partitions.len() as u32).collect(),
    };
    // Each once: to find a time in a partition may take a request to tier 2.
    let indexes: BTreeSet<u32> = indexes.into_iter().collect();
    let partitions = indexes.into_iter().map(|index| {
        let partition = stream.partition(PartitionIndex(index))?.partition();
        Ok((stream.clone(), partition))
    });
    partitions.collect()
}

#[cfg(test)]
mod tests {
    use aquifer_types::Timestamp;

    use super::*;

    #[test]
    fn a_reset_says_where_to() {
        let check = |to: &str, expected: Option<Position>| {
            let text = format!("{{\"to\":{to}}}");
            let reset = document::<Reset>(text.as_bytes()).and_then(|of| position(&of.to));
            assert_eq!(reset.ok(), expected, "{to}");
        };
        check("\"earliest\"", Some(Position::Earliest));
        check("\"latest\"", Some(Position::Latest));
        check("17", Some(Position::Offset(Offset(17))));
        check("\"1970-01-01T00:00:01Z\"", Some(Position::Time(Timestamp(1000))));
        for bad in ["-1", "\"17\"", "\"now\"", "\"\"", "null", "1.5", "{}"] {
            check(bad, None);
        }
    }
}
