//! Rows as the body of an answer.
//!
//! A short answer is whole before its head is sent: it has a length, what it
//! took is in its head, and what goes wrong on the way is a problem. A long one
//! is sent as it comes, and what it took follows as trailers. Where it fails
//! then, NDJSON gets a last line `{"error":…}` and JSON a last member of that
//! name, and in every form the body breaks off without the end that HTTP gives
//! to a whole one.

use std::io;
use std::time::Duration;

use aquifer_query::wire::Spent;
use aquifer_query::{AnswerForm, Part};
use aquifer_types::ErrorKind;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http_body_util::StreamBody;
use hyper::body::Frame;
use prometheus_client::metrics::counter::Counter;

use super::form::media_type;
use super::parts::Parts;
use super::refusal;
use crate::Problem;
use crate::app::Shared;

/// A shorter answer is sent whole.
const WHOLE_BYTES_MAX: usize = 64 << 10;
/// The first rows wait this long for those behind them.
const WHOLE_WAIT: Duration = Duration::from_millis(20);

const ROWS: HeaderName = HeaderName::from_static("aquifer-query-rows");
const CHUNKS: HeaderName = HeaderName::from_static("aquifer-query-chunks");
const CHUNKS_PRUNED: HeaderName = HeaderName::from_static("aquifer-query-chunks-pruned");
const BYTES_READ: HeaderName = HeaderName::from_static("aquifer-query-bytes-read");
const TAIL_BYTES_READ: HeaderName = HeaderName::from_static("aquifer-query-tail-bytes-read");
const SPILLED_BYTES: HeaderName = HeaderName::from_static("aquifer-query-spilled-bytes");
const ELAPSED_MS: HeaderName = HeaderName::from_static("aquifer-query-elapsed-ms");
/// The names of all of them, for whoever reads trailers.
const TRAILERS: &str = "Aquifer-Query-Rows, Aquifer-Query-Chunks, Aquifer-Query-Chunks-Pruned, \
                        Aquifer-Query-Bytes-Read, Aquifer-Query-Tail-Bytes-Read, \
                        Aquifer-Query-Spilled-Bytes, Aquifer-Query-Elapsed-Ms";

/// What a statement took, as headers or trailers.
fn spent_fields(spent: Spent) -> [(HeaderName, HeaderValue); 7] {
    [
        (ROWS, spent.rows),
        (CHUNKS, spent.chunks),
        (CHUNKS_PRUNED, spent.chunks_pruned),
        (BYTES_READ, spent.bytes_read),
        (TAIL_BYTES_READ, spent.tail_bytes_read),
        (SPILLED_BYTES, spent.spilled_bytes),
        (ELAPSED_MS, spent.elapsed_ms),
    ]
    .map(|(name, value)| (name, HeaderValue::from(value)))
}

/// Answers with the rows of `parts`.
pub(crate) async fn respond(
    app: &Shared,
    form: AnswerForm,
    mut parts: Parts,
) -> Result<Response, Problem> {
    let (first, spent) = beginning(&mut parts).await?;
    let bytes_out = app.metrics.bytes_out.clone();
    bytes_out.inc_by(first.len() as u64);
    let mut response = match spent {
        Some(_) => (StatusCode::OK, Body::from(first)).into_response(),
        None => {
            let rest = Rest { parts, form, bytes_out, state: State::Rows };
            let first = futures::stream::iter([Ok::<_, io::Error>(Frame::data(first))]);
            let body = StreamBody::new(first.chain(frames(rest)));
            (StatusCode::OK, Body::new(body)).into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(form)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match spent {
        Some(spent) => headers.extend(spent_fields(spent)),
        None => {
            headers.insert(header::TRAILER, HeaderValue::from_static(TRAILERS));
        }
    }
    Ok(response)
}

/// The first rows, or all of them with what they took.
async fn beginning(parts: &mut Parts) -> Result<(Bytes, Option<Spent>), Problem> {
    let mut first = BytesMut::new();
    let wait = tokio::time::sleep(WHOLE_WAIT);
    tokio::pin!(wait);
    while first.len() < WHOLE_BYTES_MAX {
        let part = tokio::select! {
            biased;
            part = parts.next() => part,
            // Without a row the head waits for as long as it takes: what may
            // still go wrong gets a status of its own.
            () = &mut wait, if !first.is_empty() => break,
        };
        match part {
            Some(Ok(Part::Data { bytes, .. })) => first.extend_from_slice(&bytes),
            Some(Ok(Part::Progress(_))) => {}
            Some(Ok(Part::Done(spent))) => return Ok((first.freeze(), Some(spent))),
            Some(Err(refused)) => return Err(refusal::problem(refused)),
            None => return Err(cut_off()),
        }
    }
    Ok((first.freeze(), None))
}

/// An answer without an end.
pub(super) fn cut_off() -> Problem {
    Problem::new(ErrorKind::Internal, "the answer ended in the middle")
}

struct Rest {
    parts: Parts,
    form: AnswerForm,
    bytes_out: Counter,
    state: State,
}

enum State {
    Rows,
    /// What went wrong is told; the connection ends next.
    Failed,
    Ended,
}

fn frames(rest: Rest) -> impl Stream<Item = Result<Frame<Bytes>, io::Error>> {
    futures::stream::unfold(rest, |mut rest| async {
        let frame = rest.next().await?;
        Some((frame, rest))
    })
}

impl Rest {
    async fn next(&mut self) -> Option<Result<Frame<Bytes>, io::Error>> {
        match self.state {
            State::Ended => return None,
            State::Failed => {
                self.state = State::Ended;
                // A turn for the connection, which sends what it has first.
                tokio::task::yield_now().await;
                return Some(Err(io::Error::other("the statement failed")));
            }
            State::Rows => {}
        }
        let problem = loop {
            match self.parts.next().await {
                Some(Ok(Part::Data { bytes, .. })) if bytes.is_empty() => {}
                Some(Ok(Part::Data { bytes, .. })) => {
                    self.bytes_out.inc_by(bytes.len() as u64);
                    return Some(Ok(Frame::data(bytes)));
                }
                Some(Ok(Part::Progress(_))) => {}
                Some(Ok(Part::Done(spent))) => {
                    self.state = State::Ended;
                    return Some(Ok(Frame::trailers(HeaderMap::from_iter(spent_fields(spent)))));
                }
                Some(Err(refused)) => break refusal::problem(refused),
                None => break cut_off(),
            }
        };
        // The status is sent: the log is where an operator sees it.
        tracing::info!(
            status = problem.status().as_u16(),
            problem = problem.detail(),
            "a statement failed while its answer was sent"
        );
        self.state = State::Failed;
        match last_words(self.form, &problem) {
            Some(last) => Some(Ok(Frame::data(last))),
            None => {
                self.state = State::Ended;
                tokio::task::yield_now().await;
                Some(Err(io::Error::other("the statement failed")))
            }
        }
    }
}

/// What tells the reader of a form why it ends; nothing in forms that have no
/// place for it.
fn last_words(form: AnswerForm, problem: &Problem) -> Option<Bytes> {
    let (before, after): (&[u8], &[u8]) = match form {
        AnswerForm::Ndjson | AnswerForm::Rows => (b"{\"error\":", b"}\n"),
        AnswerForm::Json => (b"],\"error\":", b"}\n"),
        AnswerForm::Csv | AnswerForm::Arrow => return None,
    };
    Some(Bytes::from([before, &problem.to_json(), after].concat()))
}

#[cfg(test)]
mod tests {
    use aquifer_query::wire::Refusal;
    use http_body_util::BodyExt;

    use super::*;

    fn data(bytes: impl Into<Bytes>) -> Result<Part, Refusal> {
        Ok(Part::Data { rows: 1, bytes: bytes.into() })
    }

    fn done(rows: u64) -> Result<Part, Refusal> {
        Ok(Part::Done(Spent { rows, elapsed_ms: 3, ..Spent::default() }))
    }

    fn refused() -> Result<Part, Refusal> {
        Err(Refusal {
            kind: ErrorKind::TooLarge,
            code: "rows-max".to_owned(),
            sqlstate: "54000".to_owned(),
            message: "more than 5 rows".to_owned(),
            position: None,
        })
    }

    fn parts(list: Vec<Result<Part, Refusal>>) -> Parts {
        futures::stream::iter(list).boxed()
    }

    #[tokio::test]
    async fn a_short_answer_is_whole_or_a_problem() {
        let whole = vec![data("a\n"), Ok(Part::Progress(Default::default())), data("b\n"), done(2)];
        let (first, spent) = beginning(&mut parts(whole)).await.unwrap();
        assert_eq!((&first[..], spent.map(|spent| spent.rows)), (&b"a\nb\n"[..], Some(2)));
        let (first, spent) = beginning(&mut parts(vec![done(0)])).await.unwrap();
        assert!(first.is_empty() && spent.is_some());
        // Rows that were not sent yet do not hide what went wrong behind them.
        let problem = beginning(&mut parts(vec![data("a\n"), refused()])).await.unwrap_err();
        assert_eq!(problem.status().as_u16(), 413);
        let problem = beginning(&mut parts(vec![data("a\n")])).await.unwrap_err();
        assert_eq!(problem.status().as_u16(), 500);
    }

    #[tokio::test]
    async fn the_first_rows_do_not_wait_for_the_last() {
        let pending = futures::stream::iter([data("a\n")]).chain(futures::stream::pending());
        let (first, spent) = beginning(&mut pending.boxed()).await.unwrap();
        assert_eq!((&first[..], spent), (&b"a\n"[..], None));
        let much = vec![data(vec![b'x'; WHOLE_BYTES_MAX]), data("more"), done(2)];
        let mut parts = parts(much);
        let (first, spent) = beginning(&mut parts).await.unwrap();
        assert_eq!((first.len(), spent), (WHOLE_BYTES_MAX, None));
    }

    #[tokio::test]
    async fn a_long_answer_ends_with_what_it_took_or_breaks_off() {
        let rest = |form, list| Rest {
            parts: parts(list),
            form,
            bytes_out: Counter::default(),
            state: State::Rows,
        };
        let body = StreamBody::new(frames(rest(AnswerForm::Csv, vec![data("a\n"), done(7)])));
        let whole = BodyExt::collect(body).await.unwrap();
        let trailers = whole.trailers().unwrap().clone();
        assert_eq!(trailers["aquifer-query-rows"], "7");
        assert_eq!(trailers["aquifer-query-elapsed-ms"], "3");
        for name in TRAILERS.split(", ") {
            assert!(trailers.contains_key(name.to_ascii_lowercase()), "{name}");
        }
        assert_eq!(whole.to_bytes(), "a\n");

        let told = "{\"error\":{\"type\":\"urn:aquifer:problem:rows-max\"";
        for (form, told) in [
            (AnswerForm::Ndjson, Some(told.to_owned())),
            (AnswerForm::Json, Some(told.replacen('{', "],", 1))),
            (AnswerForm::Csv, None),
            (AnswerForm::Arrow, None),
        ] {
            let parts = vec![data("a\n"), refused(), data("b\n")];
            let mut body = Box::pin(StreamBody::new(frames(rest(form, parts))));
            let mut text = String::new();
            let broken = loop {
                match body.frame().await {
                    Some(Ok(frame)) => {
                        text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
                    }
                    Some(Err(_)) => break true,
                    None => break false,
                }
            };
            assert!(broken, "{form:?} {text}");
            let last = text.strip_prefix("a\n").unwrap();
            match told {
                Some(told) => assert!(last.starts_with(&told), "{form:?} {last}"),
                None => assert_eq!(last, ""),
            }
        }
    }
}
