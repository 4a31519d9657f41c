//! Scenario `open_tables`: the programs that the list of files prints run as
//! they stand, and what they read is what our own SQL says.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::e2e::client::Outcome;
use crate::e2e::server::Server;
use crate::e2e::{Context, tiered};
use crate::steps::Report;
use crate::workspace::run_quietly;

const PARTITIONS: u32 = 3;
const APPENDS: (u64, u64) = (30, 300);
const APPEND_RECORDS: u64 = 100;

/// What is appended to each printed program to compare what it has read: count,
/// sum of offsets, and bytes of values.
const CHECKS: [(&str, &str); 3] = [
    (
        "duckdb",
        "print('CHECK', *duckdb.sql('SELECT count(*), sum(_offset), sum(octet_length(_value)) \
         FROM records').fetchall()[0])",
    ),
    (
        "polars",
        "print('CHECK', *records.select(pl.len().alias('n'), pl.col('_offset').sum(), \
         pl.col('_value').bin.size().cast(pl.Int64).sum()).collect().row(0))",
    ),
    (
        "pyarrow",
        "import pyarrow.compute as pc\ntable = records.to_table()\n\
         print('CHECK', table.num_rows, pc.sum(table['_offset']), \
         pc.sum(pc.binary_length(table['_value'])))",
    ),
];

pub(crate) fn run(context: &Context) -> Result<Report> {
    let python = match context.python() {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let directory = context.directory("open tables")?;
    let server = Server::start(&context.options(directory.path()))?;
    let client = server.client();
    let config = json!({ "chunk_target_bytes": 65_536, "chunk_max_age_ms": 200 });
    client.create_stream("events", PARTITIONS, config)?;
    let appends = context.count(APPENDS.0, APPENDS.1);
    for number in 0..appends {
        let line = |at: u64| json!({ "number": number, "at": at, "text": "naïve ☕" }).to_string();
        let lines: Vec<String> = (0..APPEND_RECORDS).map(line).collect();
        match client.append("events", (number % u64::from(PARTITIONS)) as u32, &lines) {
            Outcome::Acked { .. } => {}
            other => bail!("append {number}: {other:?}"),
        }
    }
    tiered(&client, "events")?;

    let sql = "SELECT count(*) AS n, sum(_offset) AS offsets, sum(octet_length(_value)) AS bytes \
               FROM events";
    let rows = client.ask("*/*", &json!({ "sql": sql }))?.rows()?;
    let [row] = rows.as_slice() else { bail!("{rows:?}") };
    let number = |name: &str| row[name].as_u64().with_context(|| format!("{name} of {row}"));
    let expected = format!("{} {} {}", number("n")?, number("offsets")?, number("bytes")?);
    ensure!(number("n")? == appends * APPEND_RECORDS, "{row}");

    let listed: Value = serde_json::from_str(&client.get_text("/v1/streams/events/chunks")?)?;
    for (reader, check) in CHECKS {
        let program = client.get_text(&format!("/v1/streams/events/chunks?snippets={reader}"))?;
        ensure!(listed["snippets"][reader] == program.as_str(), "{reader}: {program}");
        // Not by the name of the package that it imports.
        let script = directory.path().join(format!("with_{reader}.py"));
        std::fs::write(&script, format!("{program}\n{check}\n"))?;
        let printed = run_quietly(Command::new(&python).arg(&script))
            .with_context(|| format!("{reader}:\n{program}"))?;
        let found = printed.lines().find_map(|line| line.strip_prefix("CHECK "));
        ensure!(found == Some(expected.as_str()), "{reader}: {found:?}, not {expected}");
        ensure!(printed.lines().count() > 1, "{reader} prints nothing by itself:\n{printed}");
    }
    let files = listed["chunks"].as_array().map_or(0, Vec::len);
    server.stop()?;
    Ok(Report::passed(format!("{} records in {files} files", appends * APPEND_RECORDS)))
}
