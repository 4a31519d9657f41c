//! Scenario `spark`: Spark runs the printed program and opens streams as Iceberg
//! tables, and every value that it reads is the one that our own SQL has.

use std::process::Command;

use anyhow::Result;

use super::java_program::JavaProgram;
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::python;
use crate::steps::Report;
use crate::workspace::run_quietly;

const POM: &str = include_str!("spark/pom.xml");
const REQUIREMENTS: &str = "requirements-spark.txt";
const SCRIPTS: [(&str, &str); 2] = [
    ("shred_reference.py", include_str!("shred_reference.py")),
    ("spark_reader.py", include_str!("spark.py")),
];
/// Longer than all of it takes: no snapshot goes while one travels to it.
const GRACE_MS: u64 = 1_800_000;

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("spark")?;
    let target = &context.workspace.target;
    let program = match JavaProgram::prepare(target, "spark", POM, directory.path(), &[])? {
        Ok(program) => program,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let python = match python::interpreter_with(context.workspace, REQUIREMENTS) {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    for (name, text) in SCRIPTS {
        std::fs::write(directory.path().join(name), text)?;
    }
    let options = context.options(directory.path()).with_settings(&[
        &format!("store.chunk_grace_ms={GRACE_MS}"),
        "tables.snapshot_interval_ms_min=100",
    ]);
    let server = Server::start(&options)?;
    let mut command = Command::new(python);
    command.arg(directory.path().join("spark_reader.py"));
    command.arg(server.url()).arg(program.jars()).arg(context.seed.to_string());
    // Spark leaves files where it is started.
    let output = run_quietly(command.current_dir(directory.path()));
    let output = output.map_err(|error| error.context(server.log_tail()))?;
    server.stop()?;
    Ok(Report::passed(format!("{} things were shown", output.lines().count())))
}
