//! What the HTTP door counts and measures.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Half a millisecond to 16 s.
const SECONDS_FIRST: f64 = 0.0005;
const SECONDS_BUCKETS: u16 = 16;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RouteLabels {
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AnswerLabels {
    pub(crate) method: &'static str,
    pub(crate) route: &'static str,
    pub(crate) status: u16,
}

/// The metrics of the HTTP door. Cloning shares them.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    pub(crate) connections: Gauge,
    pub(crate) connections_total: Counter,
    pub(crate) requests: Gauge,
    pub(crate) answers: Family<AnswerLabels, Counter>,
    pub(crate) seconds: Family<RouteLabels, Histogram>,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) tails: Gauge,
    pub(crate) request_bytes: Gauge,
    pub(crate) read_bytes: Gauge,
}

impl HttpMetrics {
    /// Metrics registered in `registry` under the prefix `http`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            connections: Gauge::default(),
            connections_total: Counter::default(),
            requests: Gauge::default(),
            answers: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(SECONDS_FIRST, 2.0, SECONDS_BUCKETS))
            }),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            tails: Gauge::default(),
            request_bytes: Gauge::default(),
            read_bytes: Gauge::default(),
        };
        let Self {
            connections,
            connections_total,
            requests,
            answers,
            seconds,
            bytes_in,
            bytes_out,
            tails,
            request_bytes,
            read_bytes,
        } = metrics.clone();
        let http = registry.sub_registry_with_prefix("http");
        http.register("connections", "Open connections", connections);
        http.register("connections_opened", "Connections that were opened", connections_total);
        http.register("requests_in_flight", "Requests that are being answered", requests);
        http.register("requests", "Answered requests", answers);
        http.register_with_unit(
            "request_duration",
            "From a request's head to its answer's head",
            Unit::Seconds,
            seconds,
        );
        http.register_with_unit("request_body", "Received in bodies", Unit::Bytes, bytes_in);
        http.register_with_unit("response_body", "Sent in bodies", Unit::Bytes, bytes_out);
        http.register("tails", "Live tails", tails);
        http.register_with_unit(
            "requests_held",
            "Request bodies in memory (limit: requests_bytes_max)",
            Unit::Bytes,
            request_bytes,
        );
        http.register_with_unit(
            "reads_held",
            "Reserved for answers of reads (limit: reads_bytes_max)",
            Unit::Bytes,
            read_bytes,
        );
        metrics
    }
}

/// Counts something for as long as it lives.
#[derive(Debug)]
pub(crate) struct GaugeGuard {
    gauge: Gauge,
    amount: i64,
}

impl GaugeGuard {
    pub(crate) fn new(gauge: &Gauge, amount: i64) -> Self {
        gauge.inc_by(amount);
        Self { gauge: gauge.clone(), amount }
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.gauge.dec_by(self.amount);
    }
}
