//! One statement and its answer, as the events of `POST /v1/sql` tell it.

use futures::StreamExt as _;
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Settings;
use super::printer::Printer;
use super::progress::ProgressLine;
use crate::client::{Client, RequestError};
use crate::failure::Failure;
use crate::read::{Event, Events};

/// What a statement took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Spent {
    pub(super) chunks: u64,
    pub(super) chunks_pruned: u64,
    pub(super) bytes_read: u64,
    pub(super) tail_bytes_read: u64,
    pub(super) spilled_bytes: u64,
}

#[derive(Deserialize)]
struct Begin {
    command: String,
    columns: Vec<Column>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
}

/// A statement that was not sent yet.
pub(super) struct Asking<'a> {
    client: &'a Client,
    request: RequestBuilder,
}

/// A statement for the server.
pub(super) fn ask<'a>(client: &'a Client, settings: &Settings, statement: &str) -> Asking<'a> {
    let request = client.request(Method::POST, "/v1/sql").header("accept", "text/event-stream");
    Asking { client, request: request.json(&settings.body(statement)) }
}

impl Asking<'_> {
    /// Runs it and prints its answer; dropping this cancels the statement.
    pub(super) async fn run(
        self,
        printer: &mut Printer,
        line: &mut ProgressLine,
    ) -> Result<(), RequestError> {
        self.events(|event| show(&event, printer, line)).await
    }

    /// Runs it and returns all its rows, of which there are few.
    pub(super) async fn collect(self, rows_max: usize) -> Result<Vec<Vec<String>>, RequestError> {
        let mut rows = Vec::new();
        self.events(|event| {
            if event.kind == "rows" {
                for row in event.data.split(|byte| *byte == b'\n') {
                    let values: Vec<&RawValue> = parse(row)?;
                    if rows.len() < rows_max {
                        let text = |value: &RawValue| {
                            serde_json::from_str::<String>(value.get())
                                .unwrap_or_else(|_| value.get().to_owned())
                        };
                        rows.push(values.into_iter().map(text).collect());
                    }
                }
            }
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Hands each event on until the last one.
    async fn events(
        self,
        mut each: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<(), RequestError> {
        let answer = self.client.send(self.request).await?;
        let mut pieces = answer.bytes_stream();
        let mut events = Events::default();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.client.transport(&error))?;
            events.push(&piece).map_err(local)?;
            while let Some(event) = events.next() {
                if event.kind == "error" {
                    let problem = parse(&event.data).map_err(local)?;
                    return Err(RequestError::Refused(reqwest::StatusCode::OK, problem, None));
                }
                let is_last = event.kind == "done";
                each(event).map_err(local)?;
                if is_last {
                    return Ok(());
                }
            }
        }
        Err(RequestError::Transport("the answer broke off before its end".to_owned(), false))
    }
}

/// Prints what an event tells.
fn show(event: &Event, printer: &mut Printer, line: &mut ProgressLine) -> Result<(), Failure> {
    match event.kind.as_str() {
        "begin" => {
            let Begin { command, columns } = parse(&event.data)?;
            let names: Vec<String> = columns.into_iter().map(|column| column.name).collect();
            printer.begin(command, &names);
        }
        "rows" => {
            line.clear();
            printer.rows(&event.data)?;
        }
        "progress" => {
            // Rows that have been waiting for others since the last one are
            // worth more than columns that fit them all.
            if printer.is_waiting() {
                line.clear();
                printer.flush()?;
            }
            line.show(parse(&event.data)?);
        }
        "done" => {
            let elapsed_ms = line.elapsed_ms();
            line.clear();
            printer.end(parse(&event.data)?, elapsed_ms)?;
        }
        _ => {}
    }
    Ok(())
}

fn parse<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(data)
        .map_err(|error| Failure::failed(format!("the answer is malformed: {error}")))
}

fn local(failure: Failure) -> RequestError {
    RequestError::Local(failure)
}
