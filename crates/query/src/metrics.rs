//! What questions are counted and measured by.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A millisecond to nine minutes.
const SECONDS_FIRST: f64 = 0.001;
const SECONDS_BUCKETS: u16 = 20;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabels {
    /// `ok`, `refused`, `failed` or `cancelled`.
    pub(crate) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EndLabels {
    /// `idle`, `killed`, `memory`, `crash` or `start`.
    pub(crate) reason: &'static str,
}

/// The metrics of questions. Cloning shares them.
#[derive(Debug, Clone)]
pub struct QueryMetrics {
    pub(crate) questions: Family<OutcomeLabels, Counter>,
    pub(crate) running: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) seconds: Histogram,
    pub(crate) rows: Counter,
    pub(crate) answer_bytes: Counter,
    pub(crate) chunk_bytes: Counter,
    pub(crate) tail_bytes: Counter,
    pub(crate) spilled_bytes: Counter,
    pub(crate) chunks: Counter,
    pub(crate) chunks_pruned: Counter,
    pub(crate) memory_cancels: Counter,
    pub(crate) engine_starts: Counter,
    pub(crate) engine_ends: Family<EndLabels, Counter>,
    pub(crate) engine_memory: Gauge,
}

impl QueryMetrics {
    /// Metrics registered in `registry` under the prefix `query`.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds = Histogram::new(exponential_buckets(SECONDS_FIRST, 2.0, SECONDS_BUCKETS));
        let metrics = Self {
            questions: Family::default(),
            running: Gauge::default(),
            waiting: Gauge::default(),
            seconds,
            rows: Counter::default(),
            answer_bytes: Counter::default(),
            chunk_bytes: Counter::default(),
            tail_bytes: Counter::default(),
            spilled_bytes: Counter::default(),
            chunks: Counter::default(),
            chunks_pruned: Counter::default(),
            memory_cancels: Counter::default(),
            engine_starts: Counter::default(),
            engine_ends: Family::default(),
            engine_memory: Gauge::default(),
        };
        let m = metrics.clone();
        let r = registry.sub_registry_with_prefix("query");
        r.register("questions", "Questions that ended, by outcome", m.questions);
        r.register("running", "Questions that run", m.running);
        r.register("waiting", "Questions that wait for their turn", m.waiting);
        r.register_with_unit(
            "duration",
            "From a question's turn to the end of its answer",
            Unit::Seconds,
            m.seconds,
        );
        r.register("rows", "Rows of answers", m.rows);
        r.register_with_unit("answers", "Bytes of answers", Unit::Bytes, m.answer_bytes);
        r.register_with_unit("chunk_reads", "Bytes read from tier 2", Unit::Bytes, m.chunk_bytes);
        r.register_with_unit(
            "tail_reads",
            "Bytes of the journal that were handed to the engine",
            Unit::Bytes,
            m.tail_bytes,
        );
        r.register_with_unit(
            "spills",
            "Bytes that operators put on disk for want of memory",
            Unit::Bytes,
            m.spilled_bytes,
        );
        r.register("chunks", "Chunks of the cuts that were taken", m.chunks);
        r.register("chunks_pruned", "Of these, chunks of which no row was read", m.chunks_pruned);
        r.register(
            "memory_cancels",
            "Questions that were ended because the engine held too much memory",
            m.memory_cancels,
        );
        r.register("engine_starts", "Starts of the engine's process", m.engine_starts);
        r.register("engine_ends", "Ends of the engine's process, by reason", m.engine_ends);
        r.register_with_unit(
            "engine_memory",
            "Memory that the engine's process holds; 0 without one",
            Unit::Bytes,
            m.engine_memory,
        );
        metrics
    }

    pub(crate) fn ended(&self, outcome: &'static str) {
        self.questions.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    pub(crate) fn engine_ended(&self, reason: &'static str) {
        self.engine_ends.get_or_create(&EndLabels { reason }).inc();
    }
}
