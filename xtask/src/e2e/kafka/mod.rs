//! Scenarios of Kafka's clients, which others wrote, against the Kafka door.
//!
//! A client is run by a script in its own language, which checks what comes
//! back and ends with a status; here servers are started, killed and started
//! again, and clients that hang are ended.

mod exactly_once;
mod java;
mod kcat;
mod kill9;
mod node;
mod python;
mod scripts;
mod suites;

pub(crate) use exactly_once::run as exactly_once;
pub(crate) use java::run as java;
pub(crate) use kcat::run as kcat;
pub(crate) use kill9::run as kill9;
pub(crate) use node::run as js;
pub(crate) use python::{confluent, kafka_python as python};
pub(crate) use suites::{franz_go, kafka_python as kafka_suite_python, librdkafka, rskafka};
