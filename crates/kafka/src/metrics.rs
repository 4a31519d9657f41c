//! What the Kafka door counts and measures.

use std::sync::atomic::AtomicU64;

use aquifer_doors::{ConnectionMetrics, TlsMetrics};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A quarter of a millisecond to 16 s.
const SECONDS_FIRST: f64 = 0.00025;
const SECONDS_BUCKETS: u16 = 17;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ApiLabels {
    pub(crate) api: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LoginLabels {
    pub(crate) mechanism: &'static str,
    /// `ok` or `failed`.
    pub(crate) result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct QuotaLabels {
    pub(crate) quota: &'static str,
}

/// The metrics of the Kafka door. Cloning shares them.
#[derive(Debug, Clone)]
pub struct KafkaMetrics {
    pub(crate) connections: ConnectionMetrics,
    pub(crate) requests: Family<ApiLabels, Counter>,
    pub(crate) seconds: Family<ApiLabels, Histogram>,
    pub(crate) malformed: Counter,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) request_bytes: Gauge,
    pub(crate) logins: Family<LoginLabels, Counter>,
    pub(crate) throttles: Family<QuotaLabels, Counter>,
    pub(crate) throttled: Family<QuotaLabels, Counter<f64, AtomicU64>>,
    pub(crate) tls: TlsMetrics,
}

impl KafkaMetrics {
    /// Metrics registered in `registry` under the prefix `kafka`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            connections: ConnectionMetrics::default(),
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(SECONDS_FIRST, 2.0, SECONDS_BUCKETS))
            }),
            malformed: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            request_bytes: Gauge::default(),
            logins: Family::default(),
            throttles: Family::default(),
            throttled: Family::default(),
            tls: TlsMetrics::default(),
        };
        let m = metrics.clone();
        let kafka = registry.sub_registry_with_prefix("kafka");
        m.connections.register(kafka);
        kafka.register("requests", "Requests by API", m.requests);
        kafka.register_with_unit(
            "request_duration",
            "From a whole request to its answer",
            Unit::Seconds,
            m.seconds,
        );
        kafka.register("malformed_requests", "Requests that closed their connection", m.malformed);
        kafka.register_with_unit("received", "Bytes of requests", Unit::Bytes, m.bytes_in);
        kafka.register_with_unit("sent", "Bytes of answers", Unit::Bytes, m.bytes_out);
        kafka.register_with_unit(
            "requests_in_memory",
            "Bytes of requests under way",
            Unit::Bytes,
            m.request_bytes,
        );
        kafka.register("logins", "Logins by mechanism and result", m.logins);
        kafka.register("throttles", "Answers that told their client to pause", m.throttles);
        kafka.register_with_unit(
            "throttled",
            "How long clients were told to pause, all together",
            Unit::Seconds,
            m.throttled,
        );
        m.tls.register(kafka);
        metrics
    }
}
