//! Scenario `flight_adbc`: the ADBC driver and Arrow's own client log in over
//! TLS, ask, bind, fetch a large result, cancel, and look into the catalog.

use std::process::Command;

use anyhow::Result;

use super::kafka_security::{create_user, write_certificates};
use super::postgres_clients::{RECORDS, append};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::python;
use crate::steps::Report;
use crate::workspace::run_quietly;

const CLIENTS: &str = include_str!("flight_adbc.py");
const REQUIREMENTS: &str = "requirements-flight.txt";
const USER: &str = "alice";
const PASSWORD: &str = "correct horse: battery staple";

pub(crate) fn run(context: &Context) -> Result<Report> {
    let python = match python::interpreter_with(context.workspace, REQUIREMENTS) {
        Ok(python) => python,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let directory = context.directory("flight_adbc")?;
    let files = directory.path().join("tls");
    write_certificates(&files)?;
    let file = |name: &str| files.join(name).display().to_string();
    let options = context.options(directory.path()).with_settings(&[
        "flight.security=password",
        &format!("flight.tls_certificate_file={}", file("tls.crt")),
        &format!("flight.tls_key_file={}", file("tls.key")),
        // Wrong passwords are tried on purpose, from the address of the others.
        "flight.login_delay_ms_max=20",
        // Where a statement that was cancelled stayed, the next would wait.
        "query.questions_max=2",
        "query.waiting_ms_max=20000",
    ]);
    let server = Server::start(&options)?;
    create_user(context, &server, USER, PASSWORD)?;
    append(context, &server)?;
    let address = server.flight()?;
    let port = address.rsplit(':').next().unwrap_or_default().to_owned();

    let script = directory.path().join("flight_adbc.py");
    std::fs::write(&script, CLIENTS)?;
    let output = run_quietly(
        Command::new(python)
            .arg(&script)
            .args(["localhost", &port, server.url(), &RECORDS.to_string(), USER, PASSWORD])
            .arg(file("ca.crt")),
    )?;
    server.stop()?;
    let said = output.lines().find_map(|line| line.strip_prefix("large result: "));
    let things = output.lines().count();
    Ok(Report::passed(format!("{things} things were shown; {}", said.unwrap_or_default())))
}
