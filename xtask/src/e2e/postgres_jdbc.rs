//! Scenario `postgres_jdbc`: PostgreSQL's JDBC driver asks, fetches in parts,
//! reads metadata and cancels.

use anyhow::Result;

use super::java_program::JavaProgram;
use super::postgres_clients::{RECORDS, append};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_quietly;

const POM: &str = include_str!("postgres_jdbc/pom.xml");
const SOURCES: &[(&str, &str)] = &[("Jdbc.java", include_str!("postgres_jdbc/Jdbc.java"))];

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("postgres_jdbc")?;
    let target = &context.workspace.target;
    let program = match JavaProgram::prepare(target, "jdbc", POM, directory.path(), SOURCES)? {
        Ok(program) => program,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let server = Server::start(&context.options(directory.path()))?;
    append(context, &server)?;
    let url = format!("jdbc:postgresql://{}/default", server.postgres()?);
    let mut command = program.command(&[], "Jdbc");
    let output = run_quietly(command.arg(url).arg(RECORDS.to_string()))?;
    server.stop()?;
    Ok(Report::passed(format!("{} things were shown", output.lines().count())))
}
