//! The door over a real store, as clients on a socket see it.

#![allow(clippy::unwrap_used, reason = "a step that fails is the test's failure")]

pub(crate) mod client;

mod abuse;
mod cluster;
mod cold;
mod configs;
mod consumer_groups;
mod data;
mod denials;
mod epochs;
mod gaps;
mod groups;
mod metadata;
mod producers;
mod quotas;
mod sasl;
mod scram_credentials;
mod tls;
mod topics;
mod transactions;
mod versions;
