//! What the PostgreSQL door counts and measures.

use aquifer_doors::{ConnectionMetrics, TlsMetrics};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabels {
    /// `ok` or `failed`.
    pub(crate) result: &'static str,
}

/// The metrics of the PostgreSQL door. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct PostgresMetrics {
    pub(crate) connections: ConnectionMetrics,
    pub(crate) logins: Family<ResultLabels, Counter>,
    pub(crate) statements: Family<ResultLabels, Counter>,
    pub(crate) cancels: Family<ResultLabels, Counter>,
    pub(crate) malformed: Counter,
    pub(crate) rows: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) tls: TlsMetrics,
}

impl PostgresMetrics {
    /// Metrics registered in `registry` under the prefix `postgres`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = metrics.clone();
        let postgres = registry.sub_registry_with_prefix("postgres");
        m.connections.register(postgres);
        postgres.register("logins", "Logins by result", m.logins);
        postgres.register("statements", "Statements by result", m.statements);
        postgres.register("cancels", "Requests to cancel, by whether they fit", m.cancels);
        postgres.register("malformed_messages", "Messages that broke the protocol", m.malformed);
        postgres.register("rows", "Rows sent", m.rows);
        postgres.register_with_unit("sent", "Bytes of answers", Unit::Bytes, m.bytes_out);
        m.tls.register(postgres);
        metrics
    }
}

/// The label of an outcome.
pub(crate) const fn result(is_ok: bool) -> ResultLabels {
    ResultLabels { result: if is_ok { "ok" } else { "failed" } }
}
