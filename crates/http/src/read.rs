//! `GET /v1/streams/{stream}/records`: a piece of one partition.

use std::ops::ControlFlow;
use std::time::Duration;

use aquifer_env::tasks;
use aquifer_stream::{Block, Isolation, Position, ReadAnswer, ReadRequest};
use aquifer_types::{ErrorKind, GroupName, Offset, PartitionIndex, Record, StreamPath};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use crate::accept::accepted;
use crate::app::{App, Reserved, Shared, StreamAt, WORK_BYTES_MAX, tenant};
use crate::parameters::Parameters;
use crate::{Problem, arrow, render, time};

const NEXT_OFFSET: HeaderName = HeaderName::from_static("aquifer-next-offset");
const START_OFFSET: HeaderName = HeaderName::from_static("aquifer-start-offset");
const STABLE_OFFSET: HeaderName = HeaderName::from_static("aquifer-stable-offset");
const END_OFFSET: HeaderName = HeaderName::from_static("aquifer-end-offset");

/// An answer has at most about so many times the bytes of records that were asked
/// for: a batch of a few KiB can hold millions of them. The next request goes on.
const BODY_BYTES_TIMES: usize = 4;
/// Fewer bytes of records are not counted.
const BODY_BYTES_MIN: usize = 64 << 10;

/// The media types that records are answered in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Ndjson,
    Json,
    Arrow,
}

impl Form {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Json => "application/json",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    fn accepted(headers: &HeaderMap) -> Result<Self, Problem> {
        accepted(headers, Self::Ndjson, |name| match name {
            "*/*"
            | "application/*"
            | "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl" => Some(Self::Ndjson),
            "application/json" => Some(Self::Json),
            "application/vnd.apache.arrow.stream" => Some(Self::Arrow),
            _ => None,
        })
    }
}

pub(crate) async fn read(
    State(app): State<App>,
    StreamAt(path): StreamAt,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let form = Form::accepted(request.headers())?;
    let parameters = Parameters::parse(
        request.uri().query(),
        &["partition", "offset", "time", "group", "limit", "max_bytes", "wait_ms"],
    )?;
    let partition = partition(&app, &path, &parameters)?;
    let from = position(&app, &path, partition, &parameters)?;
    let limit = parameters.parsed("limit", "a number of records from 1")?.unwrap_or(usize::MAX);
    if limit == 0 {
        return Err(Problem::invalid("the parameter 'limit' is 0, it is at least 1"));
    }
    let bytes_max = parameters
        .parsed("max_bytes", "a number of bytes")?
        .unwrap_or(app.options.read_bytes_default)
        .min(app.options.read_bytes_max);
    let wait_ms = parameters.parsed("wait_ms", "a number of milliseconds")?.unwrap_or(0);
    let wait = Duration::from_millis(wait_ms.min(app.options.read_wait_ms_max));
    let isolation = Isolation::Committed;
    let request =
        ReadRequest { path, partition, from, bytes_max, wait, isolation, form: Default::default() };
    let (answer, reserved) = read_or_wait(&app, request).await?;
    let bytes: usize = answer.blocks.iter().map(Block::bytes).sum();
    let limits = (limit, bytes_max.max(BODY_BYTES_MIN).saturating_mul(BODY_BYTES_TIMES));
    let respond = move || respond(&app, form, partition, &answer, limits, reserved);
    if bytes > WORK_BYTES_MAX { tasks::run_blocking(respond).await } else { respond() }
}

/// Reads with memory reserved for the answer; while nothing is there it waits
/// without.
async fn read_or_wait(
    app: &Shared,
    request: ReadRequest,
) -> Result<(ReadAnswer, Reserved), Problem> {
    let now = ReadRequest { wait: Duration::ZERO, ..request.clone() };
    let reserved = app.reserve_read(request.bytes_max)?;
    let answer = app.store.read(now.clone()).await?;
    if request.wait.is_zero() || answer.next_offset != answer.from {
        return Ok((answer, reserved));
    }
    drop(reserved);
    // Resolved once: "latest" must not move while it is waited for.
    let from = Position::Offset(answer.from);
    drop(answer);
    let mut stopping = app.stopping.clone();
    tokio::select! {
        waited = app.store.read(ReadRequest { bytes_max: 1, from, ..request }) => {
            waited?;
        }
        _ = stopping.wait_for(|is_stopping| *is_stopping) => {}
    }
    let reserved = app.reserve_read(now.bytes_max)?;
    Ok((app.store.read(ReadRequest { from, ..now }).await?, reserved))
}

fn partition(
    app: &Shared,
    path: &StreamPath,
    parameters: &Parameters,
) -> Result<PartitionIndex, Problem> {
    if let Some(partition) = parameters.parsed("partition", "the number of a partition")? {
        return Ok(PartitionIndex(partition));
    }
    let partitions = app.store.stream_shape(path)?.partitions;
    if partitions == 1 {
        return Ok(PartitionIndex(0));
    }
    Err(Problem::invalid(format!(
        "the stream has {partitions} partitions, and the parameter 'partition' is not given"
    ))
    .member("partitions", partitions)
    .next("Read each partition by itself, or follow all with GET /v1/streams/{stream}/tail."))
}

fn position(
    app: &Shared,
    path: &StreamPath,
    partition: PartitionIndex,
    parameters: &Parameters,
) -> Result<Position, Problem> {
    let offset = parameters.text("offset")?.map(offset).transpose()?;
    let time = match parameters.text("time")? {
        Some(text) => Some(Position::Time(time::parse(text).ok_or_else(|| {
            Problem::invalid(format!("the parameter 'time' should be {}", time::FORM))
                .member("parameter", "time")
        })?)),
        None => None,
    };
    if offset.is_some() && time.is_some() {
        return Err(Problem::invalid("offset and time exclude each other"));
    }
    let otherwise = offset.or(time).unwrap_or(Position::Earliest);
    let Some(group) = parameters.text("group")? else { return Ok(otherwise) };
    let group = GroupName::new(group)?;
    match app.store.describe_group(&tenant(), &group) {
        Ok(description) => {
            let committed = description.positions.get(path).and_then(|at| at.get(&partition));
            Ok(committed.map_or(otherwise, |committed| Position::Offset(committed.offset)))
        }
        // A new consumer begins where the other parameters say.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(otherwise),
        Err(error) => Err(error.into()),
    }
}

/// `earliest`, `latest` or an offset.
pub(crate) fn offset(text: &str) -> Result<Position, Problem> {
    match text {
        "earliest" => Ok(Position::Earliest),
        "latest" => Ok(Position::Latest),
        number => match number.parse::<i64>() {
            Ok(offset) if offset >= 0 => Ok(Position::Offset(Offset(offset))),
            _ => {
                let number: String = number.chars().take(80).collect();
                Err(Problem::invalid(format!(
                    "the offset is '{number}', it should be earliest, latest or a number from 0"
                ))
                .member("parameter", "offset"))
            }
        },
    }
}

fn respond(
    app: &Shared,
    form: Form,
    partition: PartitionIndex,
    answer: &ReadAnswer,
    limits: (usize, usize),
    reserved: Reserved,
) -> Result<Response, Problem> {
    let mut body = Vec::new();
    let next = match form {
        Form::Arrow => arrow::render(&mut body, partition, answer, limits.0)?,
        Form::Ndjson => {
            let each = |out: &mut Vec<u8>, record: &Record| {
                render::record(out, partition, record);
                out.push(b'\n');
            };
            render_records(&mut body, answer, limits, each)?
        }
        Form::Json => {
            body.extend_from_slice(b"{\"records\":[");
            let start = body.len();
            let each = |out: &mut Vec<u8>, record: &Record| {
                if out.len() > start {
                    out.push(b',');
                }
                render::record(out, partition, record);
            };
            let next = render_records(&mut body, answer, limits, each)?;
            body.extend_from_slice(b"],\"next_offset\":");
            render::number(&mut body, next.get());
            body.extend_from_slice(b",\"start_offset\":");
            render::number(&mut body, answer.start_offset.get());
            body.extend_from_slice(b",\"end_offset\":");
            render::number(&mut body, answer.end_offset.get());
            body.push(b'}');
            next
        }
    };
    app.metrics.bytes_out.inc_by(body.len() as u64);
    let held = Held { body, _reserved: reserved };
    let mut response = (StatusCode::OK, Body::from(Bytes::from_owner(held))).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, offset) in [
        (NEXT_OFFSET, next),
        (START_OFFSET, answer.start_offset),
        (STABLE_OFFSET, answer.stable_offset),
        (END_OFFSET, answer.end_offset),
    ] {
        headers.insert(name, HeaderValue::from(offset.get()));
    }
    Ok(response)
}

/// An answer that gives its reservation back when its last byte is sent.
struct Held {
    body: Vec<u8>,
    _reserved: Reserved,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Renders up to `limit` records, or until the body has `bytes_max` bytes, one
/// record at least; returns where to go on.
fn render_records(
    out: &mut Vec<u8>,
    answer: &ReadAnswer,
    (limit, bytes_max): (usize, usize),
    mut each: impl FnMut(&mut Vec<u8>, &Record),
) -> Result<Offset, Problem> {
    let mut rendered = 0;
    for block in &answer.blocks {
        let left = block.visit_from(answer.from, |record| {
            if rendered == limit || (rendered > 0 && out.len() >= bytes_max) {
                return ControlFlow::Break(record.offset);
            }
            each(out, &record);
            rendered += 1;
            ControlFlow::Continue(())
        })?;
        if let Some(left) = left {
            return Ok(left);
        }
    }
    Ok(answer.next_offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_accepted_form_is_chosen() {
        let check = |accept: &str, expected: Option<Form>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
            assert_eq!(Form::accepted(&headers).ok(), expected, "{accept}");
        };
        check("*/*", Some(Form::Ndjson));
        check("application/json", Some(Form::Json));
        check("text/html, application/json;q=0.9, */*;q=0.8", Some(Form::Json));
        check("application/json;q=0.5, application/vnd.apache.arrow.stream", Some(Form::Arrow));
        check("application/x-ndjson, application/json", Some(Form::Ndjson));
        check("text/csv", None);
        check("application/json;q=0", None);
        check("", None);
        assert_eq!(Form::accepted(&HeaderMap::new()).ok(), Some(Form::Ndjson));
    }

    #[test]
    fn offsets_are_words_or_numbers() {
        assert_eq!(offset("earliest"), Ok(Position::Earliest));
        assert_eq!(offset("latest"), Ok(Position::Latest));
        assert_eq!(offset("17"), Ok(Position::Offset(Offset(17))));
        for bad in ["-1", "", "first", "1.5", "99999999999999999999"] {
            assert!(offset(bad).is_err(), "{bad}");
        }
    }
}
