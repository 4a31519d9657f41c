//! What the store counts, for Prometheus.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The store's metrics; gauges are set when they are asked for.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) groups: Counter,
    pub(crate) journal_bytes_written: Counter,
    pub(crate) journal_bytes_relocated: Counter,
    pub(crate) sync_seconds: Histogram,
    pub(crate) appends: Counter,
    pub(crate) append_records: Counter,
    pub(crate) append_bytes: Counter,
    pub(crate) append_seconds: Histogram,
    pub(crate) append_failures: Counter,
    pub(crate) reads: Counter,
    pub(crate) read_bytes: Counter,
    pub(crate) chunks_written: Counter,
    pub(crate) chunk_bytes_written: Counter,
    pub(crate) chunk_raw_bytes: Counter,
    pub(crate) chunk_encode_seconds: Histogram,
    pub(crate) chunk_put_seconds: Histogram,
    pub(crate) fields_walk_seconds: Histogram,
    pub(crate) fields_walked_bytes: Counter,
    pub(crate) fields_shred_seconds: Histogram,
    pub(crate) fields_shredded_bytes: Counter,
    pub(crate) schema_versions: Counter,
    pub(crate) schemas_refused: Counter,
    pub(crate) schema_fields: Gauge,
    pub(crate) schemas_closed: Gauge,
    pub(crate) chunks_compacted: Counter,
    pub(crate) compaction_records_removed: Counter,
    pub(crate) compaction_bytes_removed: Counter,
    pub(crate) compaction_dirty_percent: Gauge,
    pub(crate) chunks_indexed: Counter,
    pub(crate) index_bytes_written: Counter,
    pub(crate) index_raw_bytes: Counter,
    pub(crate) index_build_seconds: Histogram,
    pub(crate) index_failures: Counter,
    pub(crate) unindexed_chunks: Gauge,
    pub(crate) unindexed_bytes: Gauge,
    pub(crate) tier_failures: Counter,
    pub(crate) manifests: Counter,
    pub(crate) garbage_deleted: Counter,
    pub(crate) orphans_found: Counter,
    pub(crate) retention_truncations: Counter,
    pub(crate) tier_fenced: Gauge,
    pub(crate) journal_bytes: Gauge,
    pub(crate) tail_cache_bytes: Gauge,
    pub(crate) chunk_cache_bytes: Gauge,
    pub(crate) tiering_lag_ms: Gauge,
    pub(crate) untiered_bytes: Gauge,
    pub(crate) garbage_objects: Gauge,
    pub(crate) leases: Gauge,
    pub(crate) catalog_changes_waiting: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) partitions: Gauge,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let latency = || Histogram::new(exponential_buckets(0.000_05, 2.0, 18));
        let counter = |registry: &mut Registry, name: &str, help: &str| {
            let metric = Counter::default();
            registry.register(name, help, metric.clone());
            metric
        };
        let gauge = |registry: &mut Registry, name: &str, help: &str| {
            let metric = Gauge::default();
            registry.register(name, help, metric.clone());
            metric
        };
        let histogram = |registry: &mut Registry, name: &str, help: &str| {
            let metric = latency();
            registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
            metric
        };
        let r = registry;
        Self {
            groups: counter(r, "journal_groups", "Groups written to the journal"),
            journal_bytes_written: counter(
                r,
                "journal_written_bytes",
                "Bytes written to the journal",
            ),
            journal_bytes_relocated: counter(
                r,
                "journal_relocated_bytes",
                "Bytes of batches that cannot be tiered and were written anew at the journal's head",
            ),
            sync_seconds: histogram(r, "journal_sync", "Writing and syncing one group"),
            appends: counter(r, "appends", "Append requests that were committed"),
            append_records: counter(r, "append_records", "Records that were committed"),
            append_bytes: counter(r, "append_bytes", "Bytes of batches that were committed"),
            append_seconds: histogram(r, "append", "From an append request to its answer"),
            append_failures: counter(
                r,
                "append_failures",
                "Append requests that were refused or failed",
            ),
            reads: counter(r, "reads", "Read requests"),
            read_bytes: counter(r, "read_bytes", "Bytes answered to read requests"),
            chunks_written: counter(r, "chunks_written", "Chunks added by tiering"),
            chunk_bytes_written: counter(
                r,
                "chunk_written_bytes",
                "Bytes of chunks put into tier 2",
            ),
            chunk_raw_bytes: counter(
                r,
                "chunk_raw_bytes",
                "Bytes of the records in chunks added by tiering",
            ),
            chunk_encode_seconds: histogram(r, "chunk_encode", "Encoding one chunk"),
            chunk_put_seconds: histogram(r, "chunk_put", "Putting one chunk into tier 2"),
            fields_walk_seconds: histogram(
                r,
                "fields_walk",
                "Looking for fields in the values of one chunk",
            ),
            fields_walked_bytes: counter(
                r,
                "fields_walked_bytes",
                "Bytes of values that were looked at for fields",
            ),
            fields_shred_seconds: histogram(
                r,
                "fields_shred",
                "Making columns of the fields of one chunk",
            ),
            fields_shredded_bytes: counter(
                r,
                "fields_shredded_bytes",
                "Bytes of values whose fields became columns",
            ),
            schema_versions: counter(
                r,
                "schema_versions",
                "Versions of schemas that tiering put, with fields that were new",
            ),
            schemas_refused: counter(
                r,
                "schemas_refused",
                "Chunks without columns of fields, because the schema had no room",
            ),
            schema_fields: gauge(r, "schema_fields", "Fields of the schemas of all streams"),
            schemas_closed: gauge(
                r,
                "schemas_closed",
                "Streams to whose schema no field is added any more",
            ),
            chunks_compacted: counter(r, "chunks_compacted", "Chunks that compaction replaced"),
            compaction_records_removed: counter(
                r,
                "compaction_removed_records",
                "Records that compaction by key removed",
            ),
            compaction_bytes_removed: counter(
                r,
                "compaction_removed_bytes",
                "Bytes of the records that compaction by key removed",
            ),
            compaction_dirty_percent: gauge(
                r,
                "compaction_dirty_percent",
                "Part of the dirtiest compacted partition that no compaction has been over",
            ),
            chunks_indexed: counter(r, "chunks_indexed", "Chunks that were given a search index"),
            index_bytes_written: counter(
                r,
                "index_written_bytes",
                "Bytes of search indexes put into tier 2",
            ),
            index_raw_bytes: counter(
                r,
                "index_raw_bytes",
                "Bytes of the records that search indexes were built of",
            ),
            index_build_seconds: histogram(r, "index_build", "Building one search index"),
            index_failures: counter(
                r,
                "index_failures",
                "Times that search indexes could not be built and were tried again",
            ),
            unindexed_chunks: gauge(
                r,
                "unindexed_chunks",
                "Chunks whose search index is not built yet",
            ),
            unindexed_bytes: gauge(
                r,
                "unindexed_bytes",
                "Bytes of the records in chunks whose search index is not built yet",
            ),
            tier_failures: counter(r, "tier_failures", "Requests to tier 2 that failed"),
            manifests: counter(r, "manifests", "Manifests put into tier 2"),
            garbage_deleted: counter(r, "garbage_deleted", "Objects of tier 2 that were deleted"),
            orphans_found: counter(r, "orphans_found", "Objects of tier 2 that nothing knew"),
            retention_truncations: counter(
                r,
                "retention_truncations",
                "Partitions whose start was moved by retention",
            ),
            tier_fenced: gauge(r, "tier_fenced", "1 when a newer server has taken tier 2 over"),
            journal_bytes: gauge(r, "journal_file_bytes", "Bytes of journal files"),
            tail_cache_bytes: gauge(r, "tail_cache_bytes", "Recent journal bytes held in memory"),
            chunk_cache_bytes: gauge(r, "chunk_cache_bytes", "Bytes of chunks held in memory"),
            tiering_lag_ms: gauge(
                r,
                "tiering_lag_ms",
                "Age of the oldest record that is only in the journal",
            ),
            untiered_bytes: gauge(
                r,
                "untiered_bytes",
                "Bytes of batches that are only in the journal",
            ),
            garbage_objects: gauge(
                r,
                "garbage_objects",
                "Objects of tier 2 that wait to be deleted",
            ),
            leases: gauge(r, "read_leases", "Leases that readers hold on chunks"),
            catalog_changes_waiting: gauge(
                r,
                "catalog_changes_waiting",
                "Changes that the catalog has not applied",
            ),
            streams: gauge(r, "streams", "Streams of all tenants"),
            partitions: gauge(r, "partitions", "Partitions of all streams"),
        }
    }
}
