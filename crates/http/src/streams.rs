//! Streams: create, list, describe, update, truncate, delete. Their fields are
//! in [`crate::schema`].

use std::collections::BTreeMap;

use aquifer_stream::{
    NewStream, PartitionDescription, StreamDescription, StreamSummary, StreamUpdate, Truncation,
};
use aquifer_types::{
    Offset, PARTITIONS_MAX, PartitionIndex, StreamClass, StreamConfig, StreamConfigChange,
    StreamName, StreamPath,
};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::app::{App, StreamAt, json, tenant};
use crate::input::document;
use crate::parameters::Parameters;
use crate::{Problem, schema, time};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Creation {
    name: StreamName,
    #[serde(default)]
    partitions: Option<u32>,
    #[serde(default)]
    class: StreamClass,
    #[serde(default)]
    config: StreamConfig,
    /// As it was written: the order of its properties is that of the columns.
    #[serde(default)]
    schema: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    #[serde(default)]
    partitions: Option<u32>,
    #[serde(default)]
    config: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TruncateTo {
    #[serde(default)]
    partition: Option<PartitionIndex>,
    #[serde(default)]
    offset: Option<i64>,
    #[serde(default)]
    time: Option<Value>,
    #[serde(default)]
    cut: Option<BTreeMap<String, i64>>,
    #[serde(default)]
    all: Option<bool>,
}

#[derive(Serialize)]
struct StreamJson<'a> {
    name: &'a str,
    id: String,
    class: StreamClass,
    config: &'a StreamConfig,
    created: i64,
    partition_count: u32,
    records: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<Vec<PartitionJson>>,
}

#[derive(Serialize)]
struct PartitionJson {
    partition: u32,
    start_offset: i64,
    tiered_offset: i64,
    stable_offset: i64,
    end_offset: i64,
    chunks: u64,
    bytes: u64,
    epoch: u32,
}

#[derive(Serialize)]
struct StreamsJson<'a> {
    streams: Vec<StreamJson<'a>>,
}

impl<'a> StreamJson<'a> {
    fn new(summary: &'a StreamSummary, partitions: Option<Vec<PartitionJson>>) -> Self {
        Self {
            name: summary.path.name.as_str(),
            id: summary.id.to_string(),
            class: summary.class,
            config: &summary.config,
            created: summary.created.get(),
            partition_count: summary.partitions,
            records: summary.records,
            bytes: summary.bytes,
            partitions,
        }
    }
}

impl From<&PartitionDescription> for PartitionJson {
    fn from(partition: &PartitionDescription) -> Self {
        Self {
            partition: partition.partition.get(),
            start_offset: partition.start_offset.get(),
            tiered_offset: partition.tiered_offset.get(),
            stable_offset: partition.stable_offset.get(),
            end_offset: partition.end_offset.get(),
            chunks: partition.chunks,
            bytes: partition.bytes,
            epoch: partition.epoch.get(),
        }
    }
}

fn described(status: StatusCode, stream: &StreamDescription) -> Result<Response, Problem> {
    let partitions = stream.partitions.iter().map(PartitionJson::from).collect();
    json(status, &StreamJson::new(&stream.summary, Some(partitions)))
}

fn check_partitions(partitions: u32) -> Result<u32, Problem> {
    if (1..=PARTITIONS_MAX).contains(&partitions) {
        return Ok(partitions);
    }
    Err(Problem::invalid(format!("partitions is {partitions}: a stream has 1 to {PARTITIONS_MAX}"))
        .member("field", "partitions")
        .member("limit", PARTITIONS_MAX))
}

pub(crate) async fn create(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Parameters::parse(parts.uri.query(), &[])?;
    let body = app.document_body(&parts, body).await?;
    let Creation { name, partitions, class, config, schema } = document(&body)?;
    config.validate()?;
    let fields = schema.map(|schema| schema::declared(schema.get())).transpose()?;
    let new = NewStream {
        path: StreamPath::new(tenant(), name),
        partitions: check_partitions(partitions.unwrap_or(1))?,
        class,
        config,
    };
    let location = format!("/v1/streams/{}", new.path.name);
    let created = app.store.create_stream_with(new, &fields.unwrap_or_default()).await?;
    let mut response = described(StatusCode::CREATED, &created)?;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(crate) async fn list(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    let streams = app.store.list_streams(&tenant());
    let streams = streams.iter().map(|stream| StreamJson::new(stream, None)).collect();
    json(StatusCode::OK, &StreamsJson { streams })
}

pub(crate) async fn describe(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    described(StatusCode::OK, &app.store.describe_stream(&path)?)
}

pub(crate) async fn update(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Parameters::parse(parts.uri.query(), &[])?;
    let body = app.document_body(&parts, body).await?;
    let Change { partitions, config } = document(&body)?;
    let partitions = partitions.map(check_partitions).transpose()?;
    let config = match config {
        Some(changes) => Some(changed(&app.store.stream_shape(&path)?.config, changes)?),
        None => None,
    };
    if config.is_none() && partitions.is_none() {
        return Err(Problem::invalid(
            "the body changes nothing: it has neither partitions nor config",
        ));
    }
    let update = StreamUpdate { config, partitions };
    described(StatusCode::OK, &app.store.update_stream(&path, update).await?)
}

/// The fields that change; null takes a limit away. The ledger merges them, so
/// that of two changes at once none is lost.
fn changed(
    config: &StreamConfig,
    changes: Map<String, Value>,
) -> Result<StreamConfigChange, Problem> {
    let internal =
        |error: serde_json::Error| Problem::invalid(format!("config is not valid: {error}"));
    let change: StreamConfigChange =
        serde_json::from_value(Value::Object(changes)).map_err(internal)?;
    // So that the problem names the field.
    change.of(config).validate()?;
    Ok(change)
}

pub(crate) async fn truncate(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    Parameters::parse(parts.uri.query(), &[])?;
    let body = app.document_body(&parts, body).await?;
    let to = truncation(document(&body)?)?;
    described(StatusCode::OK, &app.store.truncate_stream(&path, to).await?)
}

fn truncation(to: TruncateTo) -> Result<Truncation, Problem> {
    const FORMS: &str = "say where to with one of {\"partition\":N,\"offset\":N}, {\"time\":…}, \
                         {\"cut\":{\"0\":N,…}} and {\"all\":true}";
    let offset_of = |offset: i64| {
        (offset >= 0)
            .then_some(Offset(offset))
            .ok_or_else(|| Problem::invalid("an offset is negative, offsets begin at 0"))
    };
    match to {
        TruncateTo {
            partition: Some(partition),
            offset: Some(offset),
            time: None,
            cut: None,
            all: None,
        } => Ok(Truncation::Cut(BTreeMap::from([(partition, offset_of(offset)?)]))),
        TruncateTo { partition: None, offset: None, time: Some(time), cut: None, all: None } => {
            let text = match &time {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let time = time::parse(&text).ok_or_else(|| {
                Problem::invalid(format!("time is {time}, it should be {}", time::FORM))
            })?;
            Ok(Truncation::Time(time))
        }
        TruncateTo { partition: None, offset: None, time: None, cut: Some(cut), all: None } => {
            let mut offsets = BTreeMap::new();
            for (partition, offset) in cut {
                let number = partition.parse().map_err(|_| {
                    Problem::invalid(format!(
                        "'{partition}' in cut is not the number of a partition"
                    ))
                })?;
                offsets.insert(PartitionIndex(number), offset_of(offset)?);
            }
            if offsets.is_empty() {
                return Err(Problem::invalid("cut is empty").next(FORMS));
            }
            Ok(Truncation::Cut(offsets))
        }
        TruncateTo { partition: None, offset: None, time: None, cut: None, all: Some(true) } => {
            Ok(Truncation::All)
        }
        _ => Err(Problem::invalid(FORMS)),
    }
}

pub(crate) async fn delete(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    Parameters::parse(request.uri().query(), &[])?;
    app.store.delete_stream(&path).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncations_are_read() {
        let check = |body: &str, expected: Result<&str, &str>| {
            let found = document(body.as_bytes()).and_then(truncation);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(format!("{found:?}"), expected),
                (Err(problem), Err(part)) => {
                    assert!(problem.detail().contains(part), "{body}: {}", problem.detail());
                }
                (found, expected) => panic!("{body}: {found:?}, not {expected:?}"),
            }
        };
        check(r#"{"partition":1,"offset":5}"#, Ok("Cut({PartitionIndex(1): Offset(5)})"));
        check(
            r#"{"cut":{"0":5,"3":7}}"#,
            Ok("Cut({PartitionIndex(0): Offset(5), PartitionIndex(3): Offset(7)})"),
        );
        check(r#"{"time":1000}"#, Ok("Time(Timestamp(1000))"));
        check(r#"{"time":"1970-01-01T00:00:01Z"}"#, Ok("Time(Timestamp(1000))"));
        check(r#"{"all":true}"#, Ok("All"));
        check(r#"{"all":false}"#, Err("say where to"));
        check(r#"{"all":true,"time":5}"#, Err("say where to"));
        check(r#"{"partition":0}"#, Err("say where to"));
        check("{}", Err("say where to"));
        check(r#"{"partition":0,"offset":-1}"#, Err("negative"));
        check(r#"{"cut":{"x":1}}"#, Err("'x' in cut"));
        check(r#"{"cut":{}}"#, Err("cut is empty"));
        check(r#"{"of":1}"#, Err("unknown field `of`"));
    }

    #[test]
    fn a_change_replaces_what_it_names() {
        let config = StreamConfig { retention_bytes: Some(5), ..StreamConfig::default() };
        let change = |text: &str| {
            let changes = serde_json::from_str(text).unwrap();
            changed(&config, changes)
                .map(|change| change.of(&config))
                .map_err(|problem| problem.detail().to_owned())
        };
        assert_eq!(
            change(r#"{"retention_ms":null,"chunk_max_age_ms":500}"#),
            Ok(StreamConfig { retention_ms: None, chunk_max_age_ms: 500, ..config.clone() })
        );
        assert!(change(r#"{"chunk_max_age_ms":null}"#).unwrap_err().contains("null"));
        assert_eq!(
            change(r#"{"cleanup_policy":"compact","kafka":{"flush.ms":"1000"}}"#),
            Ok(StreamConfig {
                cleanup_policy: aquifer_types::CleanupPolicy::Compact,
                kafka: [("flush.ms".to_owned(), "1000".to_owned())].into(),
                ..config.clone()
            })
        );
        assert!(change(r#"{"retention":1}"#).unwrap_err().contains("retention"));
        // What has a field of its own is set there and nowhere else.
        let twofold = change(r#"{"kafka":{"retention.ms":"1"}}"#);
        assert!(twofold.unwrap_err().contains("retention.ms"));
        assert!(change(r#"{"chunk_max_age_ms":1}"#).unwrap_err().contains("at least 100"));
    }
}
