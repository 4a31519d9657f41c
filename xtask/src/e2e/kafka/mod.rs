//! Scenarios of Kafka's clients, which others wrote, against the Kafka door.
//!
//! A client is run by a script in its own language, which checks what comes
//! back and ends with a status; here servers are started, killed and started
//! again, and clients that hang are ended.

mod confluent;
mod scripts;

use anyhow::Result;

use crate::e2e::Context;
use crate::steps::Report;

/// confluent-kafka, which is librdkafka.
pub(crate) fn confluent(context: &Context) -> Result<Report> {
    confluent::run(context)
}
