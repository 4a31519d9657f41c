//! `aquifer sql`: a statement and its answer, or a shell.
//!
//! With an argument or statements on standard input they are run one after the
//! other, and the first that fails ends the command with status 1. On a
//! terminal without either it is a shell. Everything goes through `POST
//! /v1/sql`; nothing is computed here.

mod answer;
mod cells;
mod complete;
mod editor;
mod fault;
mod history;
mod line;
mod printer;
mod progress;
mod screen;
mod shell;
mod split;
mod table;

use std::io::{IsTerminal as _, Read as _, Write as _};

use aquifer_env::tasks;
use futures::StreamExt as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::{SqlArguments, SqlOutput};
use crate::client::{Client, RequestError};
use crate::failure::Failure;
use printer::{Layout, Printer};
use progress::ProgressLine;

/// No script on standard input is longer.
const SCRIPT_BYTES_MAX: u64 = 16 << 20;
/// The last line of an answer is looked at up to this length.
const LAST_LINE_BYTES_MAX: usize = 64 << 10;

/// What is asked beside the statement itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    parameters: Vec<String>,
    rows_max: Option<u64>,
    seconds_max: Option<u64>,
}

impl Settings {
    fn body(&self, sql: &str) -> Value {
        let mut limits = serde_json::Map::new();
        if let Some(rows) = self.rows_max {
            limits.insert("rows_max".into(), rows.into());
        }
        if let Some(seconds) = self.seconds_max {
            limits.insert("time_ms_max".into(), seconds.saturating_mul(1000).into());
        }
        json!({ "sql": sql, "params": self.parameters, "limits": limits })
    }
}

pub(crate) async fn run(arguments: SqlArguments) -> Result<(), Failure> {
    let client = Client::connect(&arguments.url, arguments.token_file.as_deref())?;
    let is_terminal = std::io::stdout().is_terminal();
    let settings = Settings {
        parameters: arguments.param,
        rows_max: arguments.rows_max,
        seconds_max: arguments.seconds_max,
    };
    let script = match arguments.sql {
        Some(sql) => sql,
        None if std::io::stdin().is_terminal() && is_terminal => {
            return shell::run(client, settings).await;
        }
        None => tasks::run_blocking(read_script).await?,
    };
    let form = arguments.output.unwrap_or(match is_terminal {
        true => SqlOutput::Table,
        false => SqlOutput::Ndjson,
    });
    let statements = split::statements(&script);
    if statements.is_empty() {
        return Err(Failure::with_next("there is no statement", "aquifer sql 'SELECT 1'"));
    }
    for statement in statements {
        match form {
            SqlOutput::Table => table(&client, &settings, statement).await?,
            form => copy(&client, &settings, statement, form).await?,
        }
    }
    Ok(())
}

fn read_script() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().take(SCRIPT_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SCRIPT_BYTES_MAX {
        return Err(Failure::failed("the statements are longer than 16 MiB"));
    }
    Ok(text)
}

/// Prints one answer as a table.
async fn table(client: &Client, settings: &Settings, statement: &str) -> Result<(), Failure> {
    let layout = Layout { is_expanded: false, has_timing: false, width: printer::width() };
    let mut printer = Printer::new(layout);
    let mut line = ProgressLine::new();
    let answer = answer::ask(client, settings, statement);
    let run = answer.run(&mut printer, &mut line);
    run.await.map_err(|error| fault::failure(error, statement))
}

/// Copies one answer to standard output as the server writes it.
async fn copy(
    client: &Client,
    settings: &Settings,
    statement: &str,
    form: SqlOutput,
) -> Result<(), Failure> {
    let accept = match form {
        SqlOutput::Json => "application/json",
        SqlOutput::Csv => "text/csv",
        SqlOutput::Ndjson | SqlOutput::Table => "application/x-ndjson",
    };
    let request = client.request(Method::POST, "/v1/sql").header("accept", accept);
    let request = request.json(&settings.body(statement));
    let answer = client.send(request).await.map_err(|error| fault::failure(error, statement))?;
    let mut pieces = answer.bytes_stream();
    let mut out = std::io::stdout();
    let mut last_line = Vec::new();
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => {
                out.write_all(&piece)?;
                keep_last_line(&mut last_line, &piece);
            }
            Err(error) => {
                out.flush()?;
                return Err(broken_off(client, &error, &last_line, statement));
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// Why an answer has no end: its last line says so where its form has a place
/// for that.
fn broken_off(
    client: &Client,
    error: &reqwest::Error,
    last_line: &[u8],
    statement: &str,
) -> Failure {
    #[derive(serde::Deserialize)]
    struct LastLine {
        error: crate::client::Problem,
    }
    match serde_json::from_slice::<LastLine>(last_line) {
        Ok(last) => {
            let refused = RequestError::Refused(reqwest::StatusCode::OK, last.error, None);
            fault::failure(refused, statement)
        }
        Err(_) => {
            let Failure::Failed(why, _) = client.transport(error).into() else {
                return Failure::failed("the answer broke off");
            };
            Failure::with_next(
                format!("the answer broke off before its end: {why}"),
                "ask again with --output ndjson, which tells why",
            )
        }
    }
}

/// Keeps what stands behind the last line end but one, as long as it is short.
fn keep_last_line(last: &mut Vec<u8>, piece: &[u8]) {
    let body = piece.strip_suffix(b"\n").unwrap_or(piece);
    match memchr::memrchr(b'\n', body) {
        Some(end) => {
            last.clear();
            last.extend_from_slice(piece.get(end + 1..).unwrap_or_default());
        }
        None if last.ends_with(b"\n") => {
            last.clear();
            last.extend_from_slice(piece);
        }
        None => last.extend_from_slice(piece),
    }
    // A long line is none that tells of an error; what is kept is bounded.
    last.truncate(LAST_LINE_BYTES_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_kept_out_of_any_pieces() {
        let text = b"{\"a\":1}\n{\"a\":2}\n{\"error\":{}}\n";
        for size in [1, 2, 5, 8, 9, 100] {
            let mut last = Vec::new();
            for piece in text.chunks(size) {
                keep_last_line(&mut last, piece);
            }
            assert_eq!(last, b"{\"error\":{}}\n", "pieces of {size}");
        }
        let mut last = Vec::new();
        for _ in 0..10 {
            keep_last_line(&mut last, &[b'x'; 50_000]);
        }
        assert_eq!(last.len(), LAST_LINE_BYTES_MAX);
    }

    #[test]
    fn settings_become_a_body() {
        let settings =
            Settings { parameters: vec!["a".into()], rows_max: Some(5), seconds_max: Some(2) };
        assert_eq!(
            settings.body("select $1"),
            json!({
                "sql": "select $1", "params": ["a"],
                "limits": { "rows_max": 5, "time_ms_max": 2000 },
            })
        );
        assert_eq!(Settings::default().body("x")["limits"], json!({}));
    }
}
