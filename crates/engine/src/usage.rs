//! What a question takes, counted where it is taken.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

use aquifer_query::wire::{Progress, Spent};
use aquifer_types::ChunkId;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use parking_lot::Mutex;

use crate::interrupt::GivenUp;

/// The counters of one question, whatever tables it reads.
#[derive(Debug, Default)]
pub struct Usage {
    chunks: AtomicU64,
    opened: Mutex<HashSet<ChunkId>>,
    bytes_read: AtomicU64,
    tail_bytes_read: AtomicU64,
    bytes_total: AtomicU64,
    rows_read: AtomicU64,
    given_up: GivenUp,
}

impl Usage {
    /// What was taken so far; rows of the answer, spilled bytes and time are
    /// counted elsewhere.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let chunks = self.chunks.load(Ordering::Relaxed);
        let opened = self.opened.lock().len() as u64;
        Spent {
            chunks,
            chunks_pruned: chunks.saturating_sub(opened),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            tail_bytes_read: self.tail_bytes_read.load(Ordering::Relaxed),
            ..Spent::default()
        }
    }

    /// How far the question is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let bytes_read =
            self.bytes_read.load(Ordering::Relaxed) + self.tail_bytes_read.load(Ordering::Relaxed);
        Progress {
            bytes_read,
            bytes_total: self.bytes_total.load(Ordering::Relaxed).max(bytes_read),
            rows_read: self.rows_read.load(Ordering::Relaxed),
        }
    }

    /// Whether anybody still waits for the answer.
    pub(crate) fn given_up(&self) -> &GivenUp {
        &self.given_up
    }

    /// A table of the cut has so many chunks.
    pub(crate) fn add_chunks(&self, chunks: u64) {
        self.chunks.fetch_add(chunks, Ordering::Relaxed);
    }

    /// So much may have to be read.
    pub(crate) fn add_total(&self, bytes: u64) {
        self.bytes_total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More than its statistics is wanted of a chunk.
    pub(crate) fn opened(&self, chunk: ChunkId) {
        self.opened.lock().insert(chunk);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_tail_bytes(&self, bytes: u64) {
        self.tail_bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_rows(&self, rows: u64) {
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
    }
}

/// The counters of one scan, as `EXPLAIN ANALYZE` shows them.
#[derive(Debug, Clone)]
pub(crate) struct ScanCounts {
    /// Chunks of the cut.
    pub(crate) chunks: Count,
    /// Chunks that the plan left out by what is known of them.
    pub(crate) chunks_pruned: Count,
    /// Row groups and pages of chunks that the plan left out by what their
    /// footers say of fields within objects.
    pub(crate) leaf_row_groups_pruned: Count,
    pub(crate) leaf_pages_pruned: Count,
    /// Bytes of tier 2.
    pub(crate) bytes_read: Count,
    /// Bytes of batches that the server was asked for.
    pub(crate) tail_bytes_read: Count,
    /// Blocks of the tail that were passed over by what is known of them.
    pub(crate) tail_blocks_pruned: Count,
}

impl ScanCounts {
    pub(crate) fn new(metrics: &ExecutionPlanMetricsSet) -> Self {
        let counter = |name: &'static str| MetricBuilder::new(metrics).global_counter(name);
        Self {
            chunks: counter("chunks"),
            chunks_pruned: counter("chunks_pruned"),
            leaf_row_groups_pruned: counter("leaf_row_groups_pruned"),
            leaf_pages_pruned: counter("leaf_pages_pruned"),
            bytes_read: counter("chunk_bytes_read"),
            tail_bytes_read: counter("tail_bytes_read"),
            tail_blocks_pruned: counter("tail_blocks_pruned"),
        }
    }
}

/// The bytes that the operators of a plan have put to disk.
#[must_use]
pub fn spilled_bytes(plan: &dyn ExecutionPlan) -> u64 {
    let own = plan.metrics().and_then(|metrics| metrics.spilled_bytes()).unwrap_or(0) as u64;
    plan.children().iter().map(|child| spilled_bytes(child.as_ref())).sum::<u64>() + own
}
