//! The Kafka protocol: frames ⇄ calls of the stream store.
//!
//! A connection's requests are decoded, authorised, handed to one handler an
//! API and answered in their order. Record batches stay the raw bytes that the
//! producer sent. Nothing here decides about durability, order or offsets:
//! that is the ledger's. What a client sends is bounded before anything is
//! allocated for it.

mod acls;
mod api;
mod api_versions;
mod authorizer;
mod broker;
mod budget;
mod call;
mod cluster_id;
mod configs;
mod connection;
mod consumer_groups;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_log_dirs;
mod describe_producers;
mod describe_topic_partitions;
mod error_code;
mod fetch;
mod find_coordinator;
mod frame;
mod group_admin;
mod groups;
mod init_producer_id;
mod list_offsets;
mod membership;
mod metadata;
mod metrics;
mod offset_for_leader_epoch;
mod offsets;
mod options;
mod produce;
mod quotas;
mod refusal;
mod replicas;
mod sasl;
mod scram_credentials;
mod server;
mod session;
mod shape;
mod subscription;
#[cfg(test)]
mod tests;
mod tls;
mod topic;
mod transaction_listing;
mod transaction_partitions;
mod transaction_positions;
mod transactions;

pub use aquifer_doors::ClientCertificates;
pub use authorizer::{Action, AllowAll, Authorizer, Decision, Principal, Proof, Resource};
pub use metrics::KafkaMetrics;
pub use options::{KafkaOptions, ListenerOptions, ListenerSecurity};
pub use server::{KafkaEnvironment, KafkaServer};
