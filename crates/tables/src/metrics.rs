//! What open tables count.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of open tables. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct TableMetrics {
    pub(crate) loads: Counter,
    pub(crate) snapshots: Counter,
    pub(crate) snapshots_expired: Counter,
    pub(crate) objects_written: Counter,
    pub(crate) objects_deleted: Counter,
    pub(crate) tables: Gauge,
}

impl TableMetrics {
    /// Metrics registered in `registry` under the prefix `tables`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self { loads, snapshots, snapshots_expired, objects_written, objects_deleted, tables } =
            metrics.clone();
        let registry = registry.sub_registry_with_prefix("tables");
        registry.register("loads", "Tables that were loaded", loads);
        registry.register("snapshots", "Snapshots that were made", snapshots);
        registry.register(
            "snapshots_expired",
            "Snapshots that are not listed any more",
            snapshots_expired,
        );
        registry.register("objects_written", "Objects of metadata that were put", objects_written);
        registry.register(
            "objects_deleted",
            "Objects of metadata that were deleted",
            objects_deleted,
        );
        registry.register("open", "Tables whose state is in memory", tables);
        metrics
    }
}
