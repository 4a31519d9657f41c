//! Scenarios of Kafka's clients, which others wrote, against the Kafka door.
//!
//! A client is run by a script in its own language, which checks what comes
//! back and ends with a status; here servers are started, killed and started
//! again, and clients that hang are ended.

mod connect;
mod exactly_once;
mod flink;
mod java;
mod kcat;
mod kill9;
mod node;
mod program;
mod python;
mod rsyslog;
mod scripts;
mod suites;

pub(crate) use connect::run as connect;
pub(crate) use exactly_once::run as exactly_once;
pub(crate) use flink::run as flink;
pub(crate) use java::run as java;
pub(crate) use kcat::run as kcat;
pub(crate) use kill9::run as kill9;
pub(crate) use node::run as js;
pub(crate) use python::{aiokafka, confluent, kafka_python as python};
pub(crate) use rsyslog::run as rsyslog;
pub(crate) use suites::{franz_go, kafka_python as kafka_suite_python, librdkafka, rskafka};
