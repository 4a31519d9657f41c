//! Scenario `kafka_confluent`: confluent-kafka, which is librdkafka.

use anyhow::Result;

use super::scripts::{Scripts, run_each};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;

/// Scenarios of confluent.py, with their arguments.
const SCENARIOS: &[&[&str]] = &[
    &["round_trip"],
    &["offsets"],
    &["administration"],
    &["group", "classic", "range"],
    &["group", "classic", "cooperative-sticky"],
    &["transactions"],
    &["fencing"],
];

pub(super) fn run(context: &Context) -> Result<Report> {
    let directory = context.directory("kafka_confluent")?;
    let scripts = match Scripts::write(context, directory.path())? {
        Ok(scripts) => scripts,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let server = Server::start(&context.options(directory.path()))?;
    let bootstrap = server.kafka()?;
    let report = run_each(&server, SCENARIOS, |arguments| {
        scripts.run("confluent.py", &bootstrap, arguments)
    });
    server.stop()?;
    Ok(report)
}
