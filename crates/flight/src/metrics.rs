//! What the Flight door counts and measures.

use aquifer_doors::{ConnectionMetrics, TlsMetrics};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabels {
    /// `ok` or `failed`.
    pub(crate) result: &'static str,
}

/// The metrics of the Flight door. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct FlightMetrics {
    pub(crate) connections: ConnectionMetrics,
    pub(crate) logins: Family<ResultLabels, Counter>,
    pub(crate) calls: Counter,
    pub(crate) calls_refused: Counter,
    pub(crate) statements: Family<ResultLabels, Counter>,
    pub(crate) cancels: Family<ResultLabels, Counter>,
    pub(crate) prepared: Gauge,
    pub(crate) rows: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) tls: TlsMetrics,
}

impl FlightMetrics {
    /// Metrics registered in `registry` under the prefix `flight`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = metrics.clone();
        let flight = registry.sub_registry_with_prefix("flight");
        m.connections.register(flight);
        flight.register("logins", "Logins by result", m.logins);
        flight.register("calls", "Calls begun", m.calls);
        flight.register(
            "calls_refused",
            "Calls refused, since there were enough under way",
            m.calls_refused,
        );
        flight.register("statements", "Statements by result", m.statements);
        flight.register("cancels", "Requests to cancel, by whether anything ran", m.cancels);
        flight.register("prepared_statements", "Prepared statements that are kept", m.prepared);
        flight.register("rows", "Rows sent", m.rows);
        flight.register_with_unit("sent", "Bytes of answers", Unit::Bytes, m.bytes_out);
        m.tls.register(flight);
        metrics
    }
}

/// The label of an outcome.
pub(crate) const fn result(is_ok: bool) -> ResultLabels {
    ResultLabels { result: if is_ok { "ok" } else { "failed" } }
}
