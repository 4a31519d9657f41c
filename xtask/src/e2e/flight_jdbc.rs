//! Scenario `flight_jdbc`: Arrow's JDBC driver asks, binds, fetches a large
//! result and reads metadata, with a name and password on this machine.

use anyhow::Result;

use super::java_program::JavaProgram;
use super::kafka_security::create_user;
use super::postgres_clients::{RECORDS, append};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_quietly;

const POM: &str = include_str!("flight_jdbc/pom.xml");
const SOURCES: &[(&str, &str)] =
    &[("FlightJdbc.java", include_str!("flight_jdbc/FlightJdbc.java"))];
/// Arrow's memory is addressed by what Java keeps to itself.
const MACHINE: &[&str] = &["--add-opens=java.base/java.nio=ALL-UNNAMED"];
const USER: &str = "alice";
const PASSWORD: &str = "pencil";

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("flight_jdbc")?;
    let target = &context.workspace.target;
    let program = match JavaProgram::prepare(target, "flight", POM, directory.path(), SOURCES)? {
        Ok(program) => program,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let options = context.options(directory.path()).with_settings(&["flight.security=password"]);
    let server = Server::start(&options)?;
    create_user(context, &server, USER, PASSWORD)?;
    append(context, &server)?;
    let url = format!("jdbc:arrow-flight-sql://{}/?useEncryption=false", server.flight()?);
    let mut command = program.command(MACHINE, "FlightJdbc");
    command.arg(url).arg(RECORDS.to_string()).args([USER, PASSWORD]);
    let output = run_quietly(&mut command)?;
    server.stop()?;
    Ok(Report::passed(format!("{} things were shown", output.lines().count())))
}
