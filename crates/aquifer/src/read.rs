//! `aquifer read`: what is there, and with `--follow` what comes.

use std::io::Write as _;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::cli::{Output, ReadArguments};
use crate::client::{Client, RequestError, segment};
use crate::failure::Failure;

/// What one request reads.
const PAGE_BYTES: u64 = 4 << 20;
/// A tail that broke off is opened again after this.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
/// An event is never larger: a record of 64 MiB whose bytes are all escaped.
const EVENT_BYTES_MAX: usize = 512 << 20;

pub(crate) async fn run(arguments: ReadArguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.server)?;
    let printer = Printer { form: arguments.server.output, left: arguments.limit };
    if arguments.follow {
        follow(&arguments, &client, printer).await
    } else {
        read(&arguments, &client, printer).await
    }
}

struct Printer {
    form: Output,
    left: Option<u64>,
}

/// The parts of a record that are printed.
#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
}

impl Printer {
    /// Prints a record given as JSON; false when enough were printed.
    fn print(&mut self, out: &mut Vec<u8>, record: &[u8]) -> Result<bool, Failure> {
        if self.left == Some(0) {
            return Ok(false);
        }
        match self.form {
            Output::Json => out.extend_from_slice(record),
            Output::Table => {
                let shown: Shown<'_> = serde_json::from_slice(record)
                    .map_err(|error| Failure::failed(format!("a record is malformed: {error}")))?;
                let value = shown.value.get();
                if value.starts_with('"') {
                    let text: String = serde_json::from_str(value)
                        .map_err(|error| Failure::failed(error.to_string()))?;
                    out.extend_from_slice(text.as_bytes());
                } else if value != "null" {
                    out.extend_from_slice(value.as_bytes());
                }
            }
        }
        out.push(b'\n');
        self.left = self.left.map(|left| left - 1);
        Ok(self.left != Some(0))
    }
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

/// `offset=` or `time=` for where to begin.
fn from_parameter(from: &str) -> String {
    let is_offset = matches!(from, "earliest" | "latest") || from.parse::<u64>().is_ok();
    let name = if is_offset { "offset" } else { "time" };
    format!("{name}={}", segment(from))
}

/// Reads every partition to the end that it has now.
async fn read(
    arguments: &ReadArguments,
    client: &Client,
    mut printer: Printer,
) -> Result<(), Failure> {
    let path = format!("/v1/streams/{}", segment(&arguments.stream));
    let description = client.get(&path).await?;
    let from = arguments.from.as_deref().unwrap_or("earliest");
    let partitions = description.get("partitions").and_then(Value::as_array);
    let mut is_found = false;
    for partition in partitions.into_iter().flatten() {
        let field = |name| partition.get(name).and_then(Value::as_u64).unwrap_or(0);
        let number = field("partition");
        if arguments.partition.is_some_and(|only| u64::from(only) != number) {
            continue;
        }
        is_found = true;
        let end = field("stable_offset");
        let mut position = from_parameter(from);
        loop {
            let limit = printer.left.map(|left| format!("&limit={left}")).unwrap_or_default();
            let request = client
                .request(
                    Method::GET,
                    &format!(
                        "{path}/records?partition={number}&{position}&max_bytes={PAGE_BYTES}{limit}"
                    ),
                )
                .header("accept", "application/x-ndjson");
            let answer = client.send(request).await?;
            let next = answer
                .headers()
                .get("aquifer-next-offset")
                .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
                .ok_or_else(|| Failure::failed("the answer has no Aquifer-Next-Offset"))?;
            let body = answer.bytes().await.map_err(|error| client.transport(&error))?;
            let mut out = Vec::with_capacity(body.len());
            for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                if !printer.print(&mut out, line)? {
                    return print(&out);
                }
            }
            print(&out)?;
            if next >= end || (body.is_empty() && position == format!("offset={next}")) {
                break;
            }
            position = format!("offset={next}");
        }
    }
    if let (false, Some(only)) = (is_found, arguments.partition) {
        return Err(Failure::failed(format!("{} has no partition {only}", arguments.stream)));
    }
    Ok(())
}

/// Follows the tail, and goes on exactly where a broken connection left off.
async fn follow(
    arguments: &ReadArguments,
    client: &Client,
    mut printer: Printer,
) -> Result<(), Failure> {
    let mut path = format!(
        "/v1/streams/{}/tail?from={}",
        segment(&arguments.stream),
        segment(arguments.from.as_deref().unwrap_or("latest"))
    );
    if let Some(partition) = arguments.partition {
        path.push_str(&format!("&partition={partition}"));
    }
    let mut last_id: Option<String> = None;
    loop {
        let mut request = client.request(Method::GET, &path).header("accept", "text/event-stream");
        if let Some(id) = &last_id {
            request = request.header("last-event-id", id);
        }
        let answer = match client.send(request).await {
            Ok(answer) => answer,
            // A server that was there will be there again.
            Err(error) if last_id.is_some() && error.is_retriable() => {
                tokio::time::sleep(RECONNECT_PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let mut pieces = answer.bytes_stream();
        let mut events = Events::default();
        while let Some(piece) = pieces.next().await {
            let Ok(piece) = piece else { break };
            let mut out = Vec::new();
            let mut is_done = false;
            events.push(&piece)?;
            while let Some(event) = events.next() {
                if let Some(id) = event.id {
                    last_id = Some(id);
                }
                match event.kind.as_str() {
                    "record" if !printer.print(&mut out, &event.data)? => {
                        is_done = true;
                        break;
                    }
                    "gap" => eprint_gap(&event.data),
                    "problem" => {
                        print(&out)?;
                        return Err(problem(&event.data));
                    }
                    _ => {}
                }
            }
            print(&out)?;
            if is_done {
                return Ok(());
            }
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

fn problem(data: &[u8]) -> Failure {
    match serde_json::from_slice(data) {
        Ok(problem) => RequestError::Refused(reqwest::StatusCode::OK, problem, None).into(),
        Err(_) => Failure::failed("the tail ended with a problem"),
    }
}

#[expect(clippy::print_stderr, reason = "a remark beside the records, for a person")]
fn eprint_gap(data: &[u8]) {
    eprintln!("records were deleted before they were read: {}", String::from_utf8_lossy(data));
}

/// Server-sent events out of pieces of an answer.
#[derive(Default)]
pub(crate) struct Events {
    bytes: Vec<u8>,
    at: usize,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) kind: String,
    pub(crate) data: Vec<u8>,
}

impl Events {
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.bytes.drain(..self.at);
        self.at = 0;
        if self.bytes.len() + piece.len() > EVENT_BYTES_MAX {
            return Err(Failure::failed("the tail sent an event without an end"));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// The next whole event.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let rest = self.bytes.get(self.at..)?;
        let end = memchr::memmem::find(rest, b"\n\n")?;
        let mut event = Event::default();
        for line in rest.get(..end)?.split(|byte| *byte == b'\n') {
            if let Some(id) = line.strip_prefix(b"id: ") {
                event.id = Some(String::from_utf8_lossy(id).into_owned());
            } else if let Some(kind) = line.strip_prefix(b"event: ") {
                event.kind = String::from_utf8_lossy(kind).into_owned();
            } else if let Some(data) = line.strip_prefix(b"data: ") {
                if !event.data.is_empty() {
                    event.data.push(b'\n');
                }
                event.data.extend_from_slice(data);
            }
        }
        self.at += end + 2;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_out_of_any_pieces() {
        let text =
            b"retry: 1000\nid: 0:1\n\n: still here\n\nid: 0:2\nevent: record\ndata: {}\ndata: 1\n\nid";
        for size in [1, 3, 7, 100] {
            let mut events = Events::default();
            let mut found = Vec::new();
            for piece in text.chunks(size) {
                events.push(piece).unwrap();
                while let Some(event) = events.next() {
                    found.push(event);
                }
            }
            let event = |id: Option<&str>, kind: &str, data: &[u8]| Event {
                id: id.map(str::to_owned),
                kind: kind.to_owned(),
                data: data.to_vec(),
            };
            assert_eq!(
                found,
                [
                    event(Some("0:1"), "", b""),
                    event(None, "", b""),
                    event(Some("0:2"), "record", b"{}\n1")
                ],
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn values_are_printed_and_counted() {
        let mut printer = Printer { form: Output::Table, left: Some(3) };
        let mut out = Vec::new();
        for (record, goes_on) in [
            (r#"{"offset":1,"value":"a\"b"}"#, true),
            (r#"{"offset":2,"value":{"base64":"/w=="}}"#, true),
            (r#"{"offset":3,"value":null}"#, false),
        ] {
            assert_eq!(printer.print(&mut out, record.as_bytes()).unwrap(), goes_on);
        }
        assert!(!printer.print(&mut out, b"{}").unwrap());
        assert_eq!(String::from_utf8(out).unwrap(), "a\"b\n{\"base64\":\"/w==\"}\n\n");
    }

    #[test]
    fn positions_are_offsets_or_times() {
        assert_eq!(from_parameter("earliest"), "offset=earliest");
        assert_eq!(from_parameter("12"), "offset=12");
        assert_eq!(from_parameter("2026-01-01T00:00:00Z"), "time=2026-01-01T00%3A00%3A00Z");
    }
}
