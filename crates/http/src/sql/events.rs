//! An answer as server-sent events (WHATWG HTML, 9.2): `begin` with the
//! columns, `rows` with an array a line, `progress`, and one `done` or `error`
//! at the end.

use std::convert::Infallible;
use std::time::Duration;

use aquifer_query::wire::Column;
use aquifer_query::{Answer, Part};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

use super::body::cut_off;
use super::cut::CutJson;
use super::parts::{self, Parts};
use super::refusal;
use crate::app::Shared;

#[derive(Serialize)]
struct BeginJson<'a> {
    command: &'a str,
    columns: &'a [Column],
    cut: CutJson<'a>,
}

/// Answers with events; those with the answer's data are called `data_event`.
pub(crate) fn respond(app: &Shared, answer: Answer, data_event: &'static str) -> Response {
    let begin =
        BeginJson { command: &answer.command, columns: &answer.columns, cut: CutJson(&answer.cut) };
    let begin = event("begin", &begin);
    let keep_alive = Duration::from_millis(app.options.tail_keep_alive_ms);
    let events =
        events(begin, data_event, parts::of(answer), keep_alive, app.metrics.bytes_out.clone());
    let mut response = (StatusCode::OK, Body::from_stream(events)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies such as nginx would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn event(name: &str, data: &impl Serialize) -> Bytes {
    let mut out = format!("event: {name}\ndata: ").into_bytes();
    // Strings and numbers into memory cannot fail, and JSON has no line ends.
    let _ = serde_json::to_writer(&mut out, data);
    out.extend_from_slice(b"\n\n");
    Bytes::from(out)
}

/// Each line of `lines` is a line of the event's data.
fn data(name: &str, lines: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(lines.len() + lines.len() / 8 + 64);
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
    Bytes::from(out)
}

fn events(
    begin: Bytes,
    data_event: &'static str,
    parts: Parts,
    keep_alive: Duration,
    bytes_out: Counter,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let first = futures::stream::iter([begin]);
    let rest = futures::stream::unfold(Some(parts), move |parts| async move {
        let mut parts = parts?;
        let (bytes, is_last) = match tokio::time::timeout(keep_alive, parts.next()).await {
            Err(_) => (Bytes::from_static(b": still here\n\n"), false),
            Ok(Some(Ok(Part::Data { bytes, .. }))) => (data(data_event, &bytes), false),
            Ok(Some(Ok(Part::Progress(progress)))) => (event("progress", &progress), false),
            Ok(Some(Ok(Part::Done(spent)))) => (event("done", &spent), true),
            Ok(Some(Err(refused))) => (event("error", &refusal::problem(refused)), true),
            Ok(None) => (event("error", &cut_off()), true),
        };
        Some((bytes, (!is_last).then_some(parts)))
    });
    first.chain(rest).map(move |bytes| {
        bytes_out.inc_by(bytes.len() as u64);
        Ok(bytes)
    })
}

#[cfg(test)]
mod tests {
    use aquifer_query::wire::{Progress, Refusal, Spent};
    use aquifer_types::ErrorKind;

    use super::*;

    async fn told(parts: Vec<Result<Part, Refusal>>) -> String {
        let parts = futures::stream::iter(parts).boxed();
        let begin = Bytes::from_static(b"event: begin\ndata: {}\n\n");
        let events = events(begin, "rows", parts, Duration::from_secs(60), Counter::default());
        let bytes: Vec<Bytes> = events.map(|bytes| bytes.unwrap()).collect().await;
        String::from_utf8(bytes.concat()).unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_told_in_events_and_ends_once() {
        let text = told(vec![
            Ok(Part::Progress(Progress { bytes_read: 1, bytes_total: 2, rows_read: 3 })),
            Ok(Part::Data { rows: 2, bytes: Bytes::from_static(b"[1,\"a\"]\n[2,null]\n") }),
            Ok(Part::Done(Spent { rows: 2, ..Spent::default() })),
        ])
        .await;
        assert_eq!(
            text,
            "event: begin\ndata: {}\n\n\
             event: progress\ndata: {\"bytes_read\":1,\"bytes_total\":2,\"rows_read\":3}\n\n\
             event: rows\ndata: [1,\"a\"]\ndata: [2,null]\n\n\
             event: done\ndata: {\"rows\":2,\"chunks\":0,\"chunks_pruned\":0,\"bytes_read\":0,\
             \"tail_bytes_read\":0,\"spilled_bytes\":0,\"elapsed_ms\":0}\n\n"
        );
        let refusal = Refusal {
            kind: ErrorKind::Unavailable,
            code: "query-time".to_owned(),
            sqlstate: "57014".to_owned(),
            message: "too long".to_owned(),
            position: None,
        };
        let text = told(vec![Err(refusal)]).await;
        assert!(text.contains("event: error\ndata: {\"type\":\"urn:aquifer:problem:query-time\""));
        assert!(told(vec![]).await.contains("urn:aquifer:problem:internal"));
    }
}
