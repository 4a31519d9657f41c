//! Scenario `sql_http`: statements over HTTP, in all forms, as clients see
//! them: rows, parameters, errors before and behind the first byte, a
//! cancellation that makes room for the next, and a long answer that the server
//! does not hold in memory.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::e2e::client::{Client, Outcome};
use crate::e2e::server::Server;
use crate::e2e::{Context, eventually, tiered};
use crate::steps::Report;
use crate::workspace::run_quietly;

const PARTITIONS: u32 = 2;
/// Appends before and behind the point up to which records are in files.
const APPENDS: u64 = 10;
const APPEND_RECORDS: u64 = 100;
/// A statement that was cancelled makes room within this.
const ROOM_MAX: Duration = Duration::from_secs(20);
/// A long answer, and by how much it may raise the server's memory.
const LONG_ANSWER_BYTES: u64 = 100 << 20;
const SERVER_GROWTH_BYTES_MAX: u64 = 48 << 20;

/// One that takes longer than anybody waits.
const ENDLESS: &str = "SELECT count(*) FROM events a CROSS JOIN events b CROSS JOIN events c \
                       WHERE a._offset + b._offset + c._offset < 0";

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("sql_http")?;
    let options = context.options(directory.path()).with_settings(&[
        "query.questions_max=1",
        "query.questions_waiting_max=1",
        "query.waiting_ms_max=500",
    ]);
    let server = Server::start(&options)?;
    let client = server.client();
    client.create_stream("events", PARTITIONS, json!({ "chunk_max_age_ms": 200 }))?;
    append(&client, 0)?;
    tiered(&client, "events")?;
    append(&client, APPENDS)?;

    forms(&client).context("the forms of an answer")?;
    parameters(&client).context("parameters")?;
    errors(&client).context("errors")?;
    let broken = breaks_off(&server).context("an answer that fails half-way")?;
    cancels(&server).context("a cancellation")?;
    let grown = long_answer(&server).context("a long answer")?;
    let arrow = match context.python() {
        Ok(python) => arrow(&server, &python).map(|()| None)?,
        Err(reason) => Some(reason),
    };
    server.stop()?;
    let report = Report::passed(format!(
        "broke off after {broken} rows; {} MiB answered with {} MiB more memory",
        LONG_ANSWER_BYTES >> 20,
        grown >> 20
    ));
    Ok(match arrow {
        Some(reason) => report.with_gap(format!("Arrow: {reason}")),
        None => report,
    })
}

fn append(client: &Client, from: u64) -> Result<()> {
    for number in from..from + APPENDS {
        let line = |at: u64| {
            let number = number * APPEND_RECORDS + at;
            let verb = if number.is_multiple_of(3) { "delete" } else { "get" };
            json!({ "verb": verb, "number": number, "text": "x".repeat(100) }).to_string()
        };
        let lines: Vec<String> = (0..APPEND_RECORDS).map(line).collect();
        match client.append("events", (number % u64::from(PARTITIONS)) as u32, &lines) {
            Outcome::Acked { .. } => {}
            other => bail!("append {number}: {other:?}"),
        }
    }
    Ok(())
}

const RECORDS: u64 = 2 * APPENDS * APPEND_RECORDS;
const SUMMARY: &str = "SELECT _partition AS partition, count(*) AS n, max(_offset) AS last, \
                       'a\"b,c' AS text, CAST(NULL AS INT) AS nothing \
                       FROM events GROUP BY 1 ORDER BY 1";

fn forms(client: &Client) -> Result<()> {
    let body = json!({ "sql": SUMMARY });
    let half = RECORDS / u64::from(PARTITIONS);
    let row = |partition: u32| {
        json!({ "partition": partition, "n": half, "last": half - 1, "text": "a\"b,c",
                "nothing": null })
    };
    let expected = [row(0), row(1)];

    let ndjson = client.ask("application/x-ndjson", &body)?;
    ensure!(ndjson.status == 200 && ndjson.media_type == "application/x-ndjson", "{ndjson:?}");
    ensure!(ndjson.rows()? == expected, "{}", ndjson.text);
    // An answer that takes longer is sent as it comes, and these follow it.
    let is_behind = ndjson.header("trailer").contains("Aquifer-Query-Rows");
    ensure!(is_behind || ndjson.header("aquifer-query-rows") == "2", "{ndjson:?}");
    let has_time = !ndjson.header("aquifer-query-elapsed-ms").is_empty();
    ensure!(is_behind || has_time, "{ndjson:?}");
    let cut = format!("events=0:{half},1:{half}");
    ensure!(ndjson.header("aquifer-query-cut") == cut, "{ndjson:?}");

    let whole = client.ask("application/json", &body)?;
    let whole: Value = serde_json::from_str(&whole.text).with_context(|| whole.text.clone())?;
    let names: Vec<_> = whole["columns"].as_array().into_iter().flatten().collect();
    let names: Vec<_> = names.iter().filter_map(|column| column["name"].as_str()).collect();
    ensure!(names == ["partition", "n", "last", "text", "nothing"], "{whole}");
    ensure!(whole["rows"][1] == json!([1, half, half - 1, "a\"b,c", null]), "{whole}");

    let csv = client.ask("text/csv", &body)?;
    let lines: Vec<&str> = csv.text.lines().map(|line| line.trim_end_matches('\r')).collect();
    ensure!(lines.len() == 3, "{}", csv.text);
    ensure!(lines[0] == "partition,n,last,text,nothing", "{}", csv.text);
    ensure!(lines[2] == format!("1,{half},{},\"a\"\"b,c\",", half - 1), "{}", csv.text);

    let events = client.ask("text/event-stream", &body)?;
    ensure!(events.media_type == "text/event-stream", "{events:?}");
    let kinds = |kind: &str| events.text.matches(&format!("event: {kind}\n")).count();
    ensure!(kinds("begin") == 1 && kinds("done") == 1 && kinds("error") == 0, "{}", events.text);
    let rows = events.text.lines().filter(|line| line.starts_with("data: [")).count();
    ensure!(rows == 2, "{}", events.text);
    Ok(())
}

fn parameters(client: &Client) -> Result<()> {
    let found = |sql: &str, params: Value| -> Result<Vec<Value>> {
        client.ask("*/*", &json!({ "sql": sql, "params": params }))?.rows()
    };
    let count = "SELECT count(*) AS n FROM events WHERE _value->>'verb' = $1";
    let deletes = RECORDS.div_ceil(3);
    ensure!(found(count, json!(["delete"]))? == [json!({ "n": deletes })], "deletes");
    ensure!(found(count, json!(["' OR 1=1 --"]))? == [json!({ "n": 0 })], "a quoted text");
    let offset = "SELECT count(*) AS n FROM events WHERE _offset < $1";
    ensure!(found(offset, json!([5]))? == [json!({ "n": 10 })], "a number");
    let big = "SELECT CAST($1 AS DECIMAL(38,0)) AS n";
    let text = client.ask("*/*", &json!({ "sql": big, "params": [null] }))?.text;
    ensure!(text.trim() == "{\"n\":null}", "a null: {text}");
    Ok(())
}

fn errors(client: &Client) -> Result<()> {
    for (sql, status, kind, has_position) in [
        ("SELEKT 1", 400, "sql-syntax", true),
        ("SELECT * FROM no_such_stream", 404, "unknown-table", false),
        ("DROP TABLE events", 501, "statement-refused", false),
        ("COPY events TO '/tmp/x'", 501, "statement-refused", false),
    ] {
        let answer = client.ask("*/*", &json!({ "sql": sql }))?;
        let problem: Value =
            serde_json::from_str(&answer.text).with_context(|| answer.text.clone())?;
        ensure!(answer.media_type == "application/problem+json", "{sql}: {answer:?}");
        ensure!(problem["type"] == format!("urn:aquifer:problem:{kind}"), "{sql}: {problem}");
        ensure!(answer.status == status, "{sql}: {answer:?}");
        ensure!(!has_position || problem["position"].is_u64(), "{sql}: {problem}");
        ensure!(problem["sqlstate"].as_str().is_some_and(|s| s.len() == 5), "{sql}: {problem}");
    }
    let few = json!({ "sql": "SELECT * FROM events", "limits": { "rows_max": 3 } });
    let answer = client.ask("application/json", &few)?;
    ensure!(answer.status >= 400 && answer.text.contains("rows-max"), "{answer:?}");
    Ok(())
}

/// Asks on a connection of its own, and leaves the answer unread.
fn ask_raw(server: &Server, accept: &str, body: &Value) -> Result<TcpStream> {
    let address = server.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    let body = body.to_string();
    write!(
        stream,
        "POST /v1/sql HTTP/1.1\r\nHost: {address}\r\nTE: trailers\r\nAccept: {accept}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// Rows were sent already when it fails: it must not look like a whole answer.
fn breaks_off(server: &Server) -> Result<usize> {
    let body = json!({
        "sql": "SELECT a._value FROM events a CROSS JOIN events b",
        "limits": { "rows_max": 5000 },
    });
    let mut stream = ask_raw(server, "application/x-ndjson", &body)?;
    let mut answer = String::new();
    let end = stream.read_to_string(&mut answer);
    ensure!(answer.starts_with("HTTP/1.1 200"), "{}", answer.lines().next().unwrap_or_default());
    ensure!(end.is_err() || !answer.ends_with("0\r\n\r\n"), "the body has an end");
    ensure!(!answer.contains("\r\n0\r\n"), "the body has a last chunk");
    let rows = answer.matches("{\"_value\":").count();
    ensure!(rows <= 5000, "{rows} rows");
    let told = answer.contains("{\"error\":{\"type\":\"urn:aquifer:problem:rows-max\"");
    ensure!(told, "no error at the end: {}", &answer[answer.len().saturating_sub(300)..]);
    Ok(rows)
}

/// The one place is taken until its client goes.
fn cancels(server: &Server) -> Result<()> {
    let client = server.client();
    let endless = ask_raw(server, "text/event-stream", &json!({ "sql": ENDLESS }))?;
    // Once it has begun it holds the place.
    let mut lines = BufReader::new(&endless).lines();
    lines.next().context("no answer")??;
    let short = json!({ "sql": "SELECT 1 AS one" });
    let refused = client.ask("*/*", &short)?;
    ensure!(refused.status == 429, "the place is not taken: {refused:?}");
    ensure!(!refused.header("retry-after").is_empty(), "{refused:?}");
    drop(lines);
    drop(endless);
    eventually(ROOM_MAX, || {
        let answer = client.ask("*/*", &short)?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(())
    })
}

fn long_answer(server: &Server) -> Result<u64> {
    let rows = LONG_ANSWER_BYTES / 160;
    let body = json!({
        "sql": format!(
            "SELECT a._value FROM events a CROSS JOIN (SELECT _offset FROM events LIMIT {}) b",
            rows / RECORDS + 1
        ),
    });
    let before = peak_memory(server)?;
    let stream = ask_raw(server, "application/x-ndjson", &body)?;
    let mut reader = BufReader::new(stream);
    let (mut bytes, mut line, mut last) = (0, Vec::new(), Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        bytes += line.len() as u64;
        if line.len() > 2 {
            last.clone_from(&line);
        }
        // The end of the trailers, where the server keeps the connection.
        if line.starts_with(b"aquifer-query-elapsed-ms") {
            break;
        }
        line.clear();
    }
    let last = String::from_utf8_lossy(&last).into_owned();
    ensure!(bytes >= LONG_ANSWER_BYTES, "{bytes} bytes; it ends with {last}");
    ensure!(last.starts_with("aquifer-query-elapsed-ms"), "it ends with {last}");
    let grown = peak_memory(server)?.saturating_sub(before);
    ensure!(grown <= SERVER_GROWTH_BYTES_MAX, "the server's memory grew by {grown} bytes");
    Ok(grown)
}

/// The most memory that the server's own process has held.
fn peak_memory(server: &Server) -> Result<u64> {
    let path = format!("/proc/{}/status", server.id());
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no VmHWM in {path}"))? * 1024)
}

const READ_ARROW: &str = "\
import json, sys, urllib.request
import pyarrow as pa
request = urllib.request.Request(
    sys.argv[1] + '/v1/sql', json.dumps({'sql': sys.argv[2]}).encode(),
    {'Content-Type': 'application/json', 'Accept': 'application/vnd.apache.arrow.stream'})
with urllib.request.urlopen(request) as answer:
    table = pa.ipc.open_stream(answer).read_all()
print(json.dumps(table.to_pylist(), default=str))
";

fn arrow(server: &Server, python: &std::path::Path) -> Result<()> {
    let mut command = Command::new(python);
    let sql = "SELECT _partition, count(*) AS n, sum(_offset) AS total FROM events GROUP BY 1 \
               ORDER BY 1";
    let text = run_quietly(command.args(["-c", READ_ARROW, server.url(), sql]))?;
    let half = RECORDS / u64::from(PARTITIONS);
    let row = |partition: u32| json!({ "_partition": partition, "n": half, "total": half * (half - 1) / 2 });
    let found: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    ensure!(found == json!([row(0), row(1)]), "{text}");
    Ok(())
}
