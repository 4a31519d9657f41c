//! What imports and exports count.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of imports, watches and exports. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct ObjectMetrics {
    pub(crate) objects_imported: Counter,
    pub(crate) records_imported: Counter,
    pub(crate) bytes_imported: Counter,
    pub(crate) rows_refused: Counter,
    pub(crate) objects_exported: Counter,
    pub(crate) records_exported: Counter,
    pub(crate) failures: Counter,
    pub(crate) running: Gauge,
    pub(crate) behind: Gauge,
}

impl ObjectMetrics {
    /// Metrics registered in `registry` under the prefix `objects`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let Self {
            objects_imported,
            records_imported,
            bytes_imported,
            rows_refused,
            objects_exported,
            records_exported,
            failures,
            running,
            behind,
        } = metrics.clone();
        let registry = registry.sub_registry_with_prefix("objects");
        registry.register("imported", "Objects that were imported", objects_imported);
        registry.register("records_imported", "Records out of objects", records_imported);
        registry.register("bytes_imported", "Bytes of those records", bytes_imported);
        registry.register("rows_refused", "Rows of objects that are no records", rows_refused);
        registry.register("exported", "Objects that were written", objects_exported);
        registry.register("records_exported", "Records in those objects", records_exported);
        registry.register(
            "failures",
            "Imports, looks of watches and exports that failed and were tried again or given up",
            failures,
        );
        registry.register("running", "Imports, watches and exports that are running", running);
        registry.register(
            "behind",
            "Objects that imports and watches have found and not yet imported",
            behind,
        );
        metrics
    }
}
