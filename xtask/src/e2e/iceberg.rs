//! Scenario `iceberg`: pyiceberg and DuckDB open streams as tables, filter and
//! travel in time, while tiering and compaction run and over a restart.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::python;
use crate::steps::Report;
use crate::workspace::run_quietly;

const READERS: &str = include_str!("iceberg.py");

/// Long enough for a reader on a busy machine, short enough to wait for its end.
const GRACE_MS: u64 = 20_000;

pub(crate) fn run(context: &Context) -> Result<Report> {
    // DuckDB's extensions are built for one version of it, which is not the one
    // that the other scenarios have.
    let python = match python::interpreter_with(context.workspace, "requirements-iceberg.txt") {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let directory = context.directory("iceberg")?;
    let options = context.options(directory.path()).with_settings(&[
        &format!("store.chunk_grace_ms={GRACE_MS}"),
        "tables.snapshot_interval_ms_min=100",
        "tables.cleanup_interval_ms=200",
    ]);
    let script = directory.path().join("iceberg.py");
    std::fs::write(&script, READERS)?;
    let mut shown = 0;
    for part in ["live", "again"] {
        let server = Server::start(&options)?;
        let read = read(&python, &script, server.url(), part);
        shown += read.map_err(|error| error.context(server.log_tail()))?;
        server.stop()?;
    }
    Ok(Report::passed(format!("{shown} things were shown by pyiceberg and DuckDB")))
}

fn read(python: &Path, script: &Path, url: &str, part: &str) -> Result<usize> {
    let grace = (GRACE_MS / 1000).to_string();
    let output = run_quietly(Command::new(python).arg(script).args([url, &grace, part]))?;
    Ok(output.lines().count())
}
