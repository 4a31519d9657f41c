//! The cut that a question reads: one for all of its streams.

use std::sync::Arc;

use aquifer_stream::{Isolation, StreamHandle, StreamStore, View};
use aquifer_types::{
    Offset, PartitionIndex, StreamConfig, StreamId, StreamName, StreamPath, StreamSchema,
    TenantName,
};

use crate::tail::{TailBudget, Tails};
use crate::wire::{Refusal, Table, TablePartition};

/// What an answer was read of, in one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCut {
    /// The stream.
    pub stream: StreamName,
    /// The offsets that counted, in each partition: from the first one
    /// (included) to the second (left out).
    pub partitions: Vec<(PartitionIndex, Offset, Offset)>,
}

/// A cut over the streams of a question. Its chunks stay while it lives.
#[derive(Debug)]
pub(crate) struct QuestionCut {
    streams: Vec<StreamHandle>,
    /// What their values have, in the same order.
    schemas: Vec<StreamSchema>,
    policies: Vec<CleanupAtCut>,
    view: View,
}

/// How a stream was cleaned up when the cut was taken, and whether it still is.
#[derive(Debug, Clone)]
pub(crate) struct CleanupAtCut {
    stream: StreamHandle,
    config: Arc<StreamConfig>,
}

impl CleanupAtCut {
    fn new(stream: &StreamHandle) -> Self {
        Self { stream: stream.clone(), config: stream.config() }
    }

    pub(crate) fn stream(&self) -> StreamId {
        self.stream.id()
    }

    /// Whether records may have been compacted away by key since: they may where
    /// the stream is altered, whatever it was altered to last.
    pub(crate) fn may_have_lost(&self) -> bool {
        self.config.cleanup_policy.compacts() || !Arc::ptr_eq(&self.config, &self.stream.config())
    }
}

impl QuestionCut {
    /// Takes the cut: everything that was acknowledged and that no open
    /// transaction hides, all of a commit or nothing of it.
    ///
    /// # Errors
    /// `unknown-table` where a stream does not exist.
    pub(crate) fn take(
        store: &StreamStore,
        tenant: &TenantName,
        names: Vec<StreamName>,
    ) -> Result<Self, Refusal> {
        let mut streams = Vec::with_capacity(names.len());
        for name in names {
            let path = StreamPath::new(tenant.clone(), name);
            let stream = store.stream(&path).map_err(|error| Refusal::of_store(&error))?;
            streams.push(stream);
        }
        // Before the cut: what is altered in between is altered since.
        let policies = streams.iter().map(CleanupAtCut::new).collect();
        let view = store.view_of(&streams, Isolation::Committed);
        // Behind the view: what a chunk of it was written under is there.
        let schemas = streams.iter().map(|stream| store.schema(&stream.id())).collect();
        Ok(Self { streams, schemas, policies, view })
    }

    /// The part of it that the server serves.
    pub(crate) fn tails(&self, budget: TailBudget) -> Tails {
        Tails::new(self.view.clone(), budget, self.policies.clone())
    }

    /// How many chunks it has.
    pub(crate) fn chunks(&self) -> usize {
        self.view.cuts().map(|(_, cut)| cut.chunks().len()).sum()
    }

    /// What the engine is told, in the order in which it asked.
    pub(crate) fn tables(&self) -> Vec<Table> {
        let partitions_of = |stream: &StreamHandle| {
            let of_stream = self.view.cuts().filter(|(at, _)| at.stream == stream.id());
            let partitions = of_stream.map(|(partition, cut)| TablePartition {
                partition,
                start: cut.start,
                tiered: cut.tiered,
                end: cut.end,
                tail_bytes: cut.tail_bytes,
                chunks: cut.chunks().iter().map(|chunk| (**chunk).clone()).collect(),
            });
            partitions.collect()
        };
        let table = |(stream, schema): (&StreamHandle, &StreamSchema)| Table {
            name: stream.path().name.clone(),
            id: stream.id(),
            config: (*stream.config()).clone(),
            schema: schema.clone(),
            partitions: partitions_of(stream),
        };
        self.streams.iter().zip(&self.schemas).map(table).collect()
    }

    /// What the caller is told.
    pub(crate) fn told(&self) -> Vec<StreamCut> {
        let of_stream = |stream: &StreamHandle| {
            let cuts = self.view.cuts().filter(|(at, _)| at.stream == stream.id());
            StreamCut {
                stream: stream.path().name.clone(),
                partitions: cuts.map(|(at, cut)| (at.index, cut.start, cut.end)).collect(),
            }
        };
        self.streams.iter().map(of_stream).collect()
    }
}
