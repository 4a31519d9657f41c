//! Scenarios `kafka_confluent`, `kafka_python` and `kafka_aiokafka`: scripts of
//! Python clients, one scenario of a script after the other.

use anyhow::Result;

use super::scripts::{Scripts, run_each};
use crate::e2e::Context;
use crate::e2e::server::Server;
use crate::steps::Report;

/// Scenarios of confluent.py, with their arguments.
const CONFLUENT: &[&[&str]] = &[
    &["round_trip"],
    &["offsets"],
    &["administration"],
    &["group", "classic", "range"],
    &["group", "classic", "cooperative-sticky"],
    &["group", "consumer", "uniform"],
    &["group", "consumer", "range"],
    &["transactions"],
    &["fencing"],
];

/// Scenarios of kafka_python.py, with their arguments.
const KAFKA_PYTHON: &[&[&str]] = &[&["round_trip"], &["administration"], &["group"]];

/// Scenarios of aiokafka_client.py, with their arguments.
const AIOKAFKA: &[&[&str]] = &[&["round_trip"], &["group"], &["transactions"], &["fencing"]];

/// A killed member of a consumer group is missed this soon.
const SOON: &[&str] =
    &["kafka.consumer_group_session_ms=6000", "kafka.consumer_group_heartbeat_ms=500"];

/// confluent-kafka, which is librdkafka.
pub(crate) fn confluent(context: &Context) -> Result<Report> {
    run(context, "kafka_confluent", "confluent.py", CONFLUENT)
}

/// kafka-python.
pub(crate) fn kafka_python(context: &Context) -> Result<Report> {
    run(context, "kafka_python", "kafka_python.py", KAFKA_PYTHON)
}

/// aiokafka, which shares its name with no script, for scripts import it.
pub(crate) fn aiokafka(context: &Context) -> Result<Report> {
    run(context, "kafka_aiokafka", "aiokafka_client.py", AIOKAFKA)
}

fn run(context: &Context, name: &str, script: &str, scenarios: &[&[&str]]) -> Result<Report> {
    let directory = context.directory(name)?;
    let scripts = match Scripts::write(context, directory.path())? {
        Ok(scripts) => scripts,
        Err(reason) => return Ok(Report::could_not_run(reason)),
    };
    let server = Server::start(&context.options(directory.path()).with_settings(SOON))?;
    let bootstrap = server.kafka()?;
    let report =
        run_each(&server, scenarios, |arguments| scripts.run(script, &bootstrap, arguments));
    server.stop()?;
    Ok(report)
}
