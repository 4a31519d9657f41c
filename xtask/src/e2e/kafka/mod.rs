//! Scenarios of Kafka's clients, which others wrote, against the Kafka door.
//!
//! A client is run by a script in its own language, which checks what comes
//! back and ends with a status; here servers are started, killed and started
//! again, and clients that hang are ended.

mod confluent;
mod exactly_once;
mod java;
mod kcat;
mod kill9;
mod node;
mod python;
mod scripts;

use anyhow::Result;

use crate::e2e::Context;
use crate::steps::Report;

/// confluent-kafka, which is librdkafka.
pub(crate) fn confluent(context: &Context) -> Result<Report> {
    confluent::run(context)
}

/// Consume, transform, produce, with kills.
pub(crate) fn exactly_once(context: &Context) -> Result<Report> {
    exactly_once::run(context)
}

/// Idempotent producers while the server dies.
pub(crate) fn kill9(context: &Context) -> Result<Report> {
    kill9::run(context)
}

/// kcat's pipes.
pub(crate) fn kcat(context: &Context) -> Result<Report> {
    kcat::run(context)
}

/// kafkajs, on Node.
pub(crate) fn js(context: &Context) -> Result<Report> {
    node::run(context)
}

/// kafka-python.
pub(crate) fn python(context: &Context) -> Result<Report> {
    python::run(context)
}

/// Kafka's client for Java.
pub(crate) fn java(context: &Context) -> Result<Report> {
    java::run(context)
}
