//! Scenario `shredding`: the fields of JSON values are columns, and DuckDB,
//! Polars, pyarrow and pyiceberg see the same in them as our own SQL, which is
//! what a second implementation takes out of the values: real events and hostile
//! ones, over HTTP and Kafka, in memory, in files, merged, and over changes of
//! the schema.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::python;
use crate::steps::Report;
use crate::workspace::run_quietly;

/// What the scripts have in common, and what each does.
const SCRIPTS: [(&str, &str); 3] = [
    ("shred_reference.py", include_str!("shred_reference.py")),
    ("shredding.py", include_str!("shredding.py")),
    ("shredding_tables.py", include_str!("shredding_tables.py")),
];
/// Real events, below the workspace.
const SAMPLES: &str = "../shared/data";
/// Long enough for a reader that asked for files before they were merged.
const GRACE_MS: u64 = 60_000;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let tables = python::interpreter_with(context.workspace, "requirements-iceberg.txt");
    let (python, tables) = match (context.python(), tables) {
        (Ok(python), Ok(tables)) => (python, tables),
        (Err(reason), _) | (_, Err(reason)) => return Ok(Report::could_not_run(reason)),
    };
    let directory = context.directory("shredding")?;
    let options = context.options(directory.path()).with_settings(&[
        &format!("store.chunk_grace_ms={GRACE_MS}"),
        "tables.snapshot_interval_ms_min=100",
    ]);
    for (name, text) in SCRIPTS {
        std::fs::write(directory.path().join(name), text)?;
    }
    let server = Server::start(&options)?;
    let samples = context.workspace.root.join(SAMPLES);
    let (kafka, seed, folder) =
        (server.kafka()?, context.seed.to_string(), samples.to_string_lossy());
    let arguments = [server.url(), &kafka, &folder, &seed, "files", "sql"];
    let run = |python: &Path, name: &str, arguments: &[&str]| {
        let script = directory.path().join(name);
        let printed = run_quietly(Command::new(python).arg(script).args(arguments));
        printed.map_err(|error| error.context(server.log_tail()))
    };
    let printed = run(&python, "shredding.py", &arguments)?;
    let mut checked = count(&printed)?;
    let listed: Value = serde_json::from_str(&server.client().get_text("/v1/streams")?)?;
    let streams = listed["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
    let streams: Vec<&str> = streams.iter().filter_map(|stream| stream["name"].as_str()).collect();
    let arguments: Vec<&str> = [server.url()].into_iter().chain(streams.iter().copied()).collect();
    checked += count(&run(&tables, "shredding_tables.py", &arguments)?)?;
    server.stop()?;
    // The files of all of it are whole, and have the columns that they should.
    options.run(&["verify"]).context("aquifer verify")?;
    let mut report = Report::passed(format!("{checked} values of {} streams", streams.len()));
    if printed.lines().any(|line| line.starts_with("gap:")) {
        report = report.with_gap(format!("there is no {}", samples.display()));
    }
    Ok(report)
}

/// How many values a script says that it compared.
fn count(printed: &str) -> Result<u64> {
    let line = printed.lines().find_map(|line| line.strip_prefix("checked "));
    let count = line.and_then(|line| line.split(' ').next()?.parse().ok());
    let count: u64 = count.with_context(|| format!("it printed\n{printed}"))?;
    ensure!(count > 0, "nothing was compared");
    Ok(count)
}
