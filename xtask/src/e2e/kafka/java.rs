//! Scenario `kafka_java`: Kafka's own client for Java.

use anyhow::Result;

use super::scripts::{SCRIPT_MAX, run_each};
use crate::e2e::Context;
use crate::e2e::java_program::JavaProgram;
use crate::e2e::server::Server;
use crate::steps::Report;
use crate::workspace::run_within;

const POM: &str = include_str!("java/pom.xml");
const SOURCES: &[(&str, &str)] = &[("Scenarios.java", include_str!("java/Scenarios.java"))];

/// Scenarios of Scenarios.java.
const SCENARIOS: &[&[&str]] = &[
    &["round_trip"],
    &["group", "classic"],
    &["group", "consumer"],
    &["consumer_group"],
    &["transactions"],
    &["quotas"],
];

/// A rebalance takes a few heartbeats.
const SOON: &[&str] = &["kafka.consumer_group_heartbeat_ms=500"];

pub(crate) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("kafka_java")?;
    let target = &context.workspace.target;
    let program = match JavaProgram::prepare(target, "java", POM, directory.path(), SOURCES)? {
        Ok(program) => program,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let server = Server::start(&context.options(directory.path()).with_settings(SOON))?;
    let bootstrap = server.kafka()?;
    let report = run_each(&server, SCENARIOS, |arguments| {
        let mut command = program.command(&[], "Scenarios");
        run_within(command.arg(&bootstrap).args(arguments), SCRIPT_MAX)
    });
    server.stop()?;
    Ok(report)
}
