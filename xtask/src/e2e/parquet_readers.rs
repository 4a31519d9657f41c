//! Scenario `parquet_readers`: what tier 2 holds is what was appended, for
//! pyarrow and DuckDB too, and so are the columns of the values' fields.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::e2e::client::{Outcome, Record};
use crate::e2e::server::Server;
use crate::e2e::{Context, tiered};
use crate::steps::Report;
use crate::workspace::run_quietly;

const READ_CHUNKS: &str = include_str!("read_chunks.py");

const PARTITIONS: u32 = 2;

/// NDJSON appends of this many records each, in the quick and the full test.
const APPENDS: (u64, u64) = (20, 400);
const APPEND_RECORDS: u64 = 50;

/// A row as read_chunks.py prints it.
#[derive(Debug, Deserialize)]
struct Row {
    engine: String,
    partition: u32,
    offset: u64,
    timestamp: i64,
    key: Value,
    headers: Value,
    value: Value,
    fields: Value,
    unfit: Value,
}

pub(crate) fn run(context: &Context) -> Result<Report> {
    let python = match context.python() {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let directory = context.directory("parquet_readers")?;
    let options = context.options(directory.path());
    let server = Server::start(&options)?;
    let client = server.client();
    let config = json!({ "chunk_target_bytes": 65_536, "chunk_max_age_ms": 200 });
    client.create_stream("events", PARTITIONS, config)?;

    for number in 0..context.count(APPENDS.0, APPENDS.1) {
        let lines: Vec<String> = (0..APPEND_RECORDS).map(|at| event(number, at)).collect();
        match client.append("events", (number % u64::from(PARTITIONS)) as u32, &lines) {
            Outcome::Acked { .. } => {}
            other => bail!("append {number}: {other:?}"),
        }
    }
    client.append_json("events", &json!({ "records": unusual_records() }))?;

    tiered(&client, "events")?;
    let mut expected = Vec::new();
    for partition in client.partitions("events")? {
        let number = partition.partition;
        for record in client.read_to("events", number, 0, partition.end_offset)? {
            expected.push((number, record));
        }
    }
    let sent =
        context.count(APPENDS.0, APPENDS.1) * APPEND_RECORDS + unusual_records().len() as u64;
    ensure!(expected.len() as u64 == sent, "{} of {sent} records are read", expected.len());
    // The folder may hold compaction's inputs beside its outputs, so the list
    // of live chunks is asked for.
    let chunks = client.chunks("events")?;
    ensure!(!chunks.is_empty(), "there is no chunk");
    for pair in chunks.windows(2) {
        let [one, next] = pair else { continue };
        ensure!(
            one.partition != next.partition || one.next_offset == next.base_offset,
            "{} does not go on where {} ends",
            next.path,
            one.path
        );
    }
    let tier2 = options.data().join("tier2");
    let files: Vec<PathBuf> = chunks.iter().map(|chunk| tier2.join(&chunk.path)).collect();
    server.stop()?;

    let script = directory.path().join("read_chunks.py");
    std::fs::write(&script, READ_CHUNKS)?;
    let output = run_quietly(Command::new(python).arg(&script).args(&files))?;
    let rows: Vec<Row> = output
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("the row {line}")))
        .collect::<Result<_>>()?;
    for engine in ["pyarrow", "duckdb"] {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.engine == engine).collect();
        compare(&expected, &rows).with_context(|| format!("as {engine} reads it"))?;
    }
    Ok(Report::passed(format!("{sent} records in {} chunks", files.len())))
}

/// An event as a machine logs it: nested, with a field that is not always
/// there and one whose type changes.
fn event(number: u64, at: u64) -> String {
    let mut event = json!({
        "verb": if at.is_multiple_of(3) { "delete" } else { "get" },
        "user": { "username": format!("user-{}", at % 7), "groups": ["a", "b"] },
        "bytes": number * 1000 + at,
        "ratio": at as f64 / 4.0,
        "ok": at.is_multiple_of(2),
    });
    if at.is_multiple_of(5) {
        event["reason"] = json!("naïve café ☕");
    }
    if at.is_multiple_of(11) {
        event["bytes"] = json!("not a number");
    }
    event.to_string()
}

/// Keys, headers, nulls, empties, and bytes that are not text.
fn unusual_records() -> Vec<Value> {
    let partition = 0;
    vec![
        json!({ "partition": partition, "key": "a", "value": "" }),
        json!({ "partition": partition, "key": "", "value": null }),
        json!({ "partition": partition, "key": { "base64": "/wA=" }, "value": { "base64": "gIGC" } }),
        json!({ "partition": partition, "value": "plain text", "timestamp": 1_700_000_000_123_i64,
                "headers": { "trace": "4bf9", "origin": "a" } }),
        json!({ "partition": partition, "value": "{\"_offset\": 1, \"Verb\": 2, \"verb\": []}" }),
    ]
}

/// The files are in the order of the stream, and so are their rows, each once.
fn compare(expected: &[(u32, Record)], rows: &[&Row]) -> Result<()> {
    for ((partition, record), row) in expected.iter().zip(rows) {
        let Record { offset, timestamp, key, headers, value } = record;
        let same = row.partition == *partition
            && row.offset == *offset
            && row.timestamp == *timestamp
            && row.key == *key
            && row.headers == pairs(headers)
            && row.value == *value
            && (&row.fields, &row.unfit) == (&fields_of(value).0, &fields_of(value).1);
        ensure!(same, "{partition}@{offset} was appended as {record:?} and is {row:?}");
    }
    ensure!(rows.len() == expected.len(), "{} rows for {} records", rows.len(), expected.len());
    Ok(())
}

/// The columns that a value's fields are in, and what does not fit one. Most
/// events say which kind each field is of.
fn fields_of(value: &Value) -> (Value, Value) {
    let object = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let object = object.filter(Value::is_object).unwrap_or_default();
    let mut unfit = Vec::new();
    let mut fit = |name: &str, fits: fn(&Value) -> bool| {
        let field = object[name].clone();
        if field.is_null() || fits(&field) {
            return field;
        }
        unfit.push(name.to_owned());
        Value::Null
    };
    let mut fields = json!({
        "verb": fit("verb", Value::is_string),
        "user": null,
        "bytes": fit("bytes", Value::is_i64),
        "ratio": fit("ratio", Value::is_f64),
        "ok": fit("ok", Value::is_boolean),
        "reason": fit("reason", Value::is_string),
    });
    if object["user"].is_object() {
        fields["user"] = json!({ "username": object["user"]["username"] });
    }
    (fields, if unfit.is_empty() { Value::Null } else { json!(unfit) })
}

/// Headers as read_chunks.py prints them: pairs in their order.
fn pairs(headers: &Value) -> Value {
    match headers {
        Value::Object(fields) => fields.iter().map(|(key, value)| json!([key, value])).collect(),
        Value::Array(list) => {
            list.iter().map(|header| json!([header["key"], header["value"]])).collect()
        }
        _ => json!([]),
    }
}
