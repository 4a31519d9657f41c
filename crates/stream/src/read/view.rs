//! One stable cut over several partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use aquifer_chunk::ReadOptions;
use aquifer_types::{GroupSequence, Offset, Partition};
use futures::StreamExt;

use super::object::from_chunk;
use super::{Cursor, Lease, Reader};
use crate::Error;
use crate::api::Isolation;
use crate::chunk_meta::ChunkMeta;
use crate::index::{PartitionLog, StreamIndex};

/// What a view has of one partition.
#[derive(Debug, Clone)]
pub struct Cut {
    pub(crate) log: Arc<PartitionLog>,
    /// The earliest offset that can be read.
    pub start: Offset,
    /// The first offset that was not in a chunk when the cut was taken.
    pub tiered: Offset,
    /// The first offset that the view does not show.
    pub end: Offset,
    /// About how many bytes of batches lie behind `tiered`.
    pub tail_bytes: u64,
    chunks: crate::index::ChunkList,
}

impl Cut {
    /// The chunks that were live when the cut was taken, in order of their
    /// offsets; their objects stay while the view lives.
    #[must_use]
    pub fn chunks(&self) -> &[Arc<ChunkMeta>] {
        &self.chunks
    }
}

/// A cut over partitions, all of every commit or nothing of it. Its chunks are
/// kept until it is dropped or its lease expires; after that a reader plans
/// again and may find that the start has moved.
#[derive(Debug, Clone)]
pub struct View {
    reader: Arc<Reader>,
    lease: Arc<Lease>,
    cuts: Arc<BTreeMap<Partition, Cut>>,
    sequence: GroupSequence,
}

impl View {
    pub(crate) fn take(
        reader: &Arc<Reader>,
        streams: &[Arc<StreamIndex>],
        isolation: Isolation,
    ) -> Self {
        let lease = Arc::new(reader.leases.take(reader.now_ns()));
        let mut cuts = BTreeMap::new();
        let sequence = reader.index.at_cut(|sequence| {
            for log in streams.iter().flat_map(|stream| stream.partitions().to_vec()) {
                let cut = log.with(|state| Cut {
                    log: log.clone(),
                    start: state.start,
                    tiered: state.tiered,
                    end: match isolation {
                        Isolation::Committed => state.stable(),
                        Isolation::Uncommitted => state.end,
                    },
                    tail_bytes: state.tail_bytes,
                    chunks: state.chunks.clone(),
                });
                cuts.insert(log.partition, cut);
            }
            sequence
        });
        Self { reader: reader.clone(), lease, cuts: Arc::new(cuts), sequence }
    }

    /// The partitions of the view with what it has of each.
    pub fn cuts(&self) -> impl Iterator<Item = (Partition, &Cut)> {
        self.cuts.iter().map(|(at, cut)| (*at, cut))
    }

    /// The group of the journal that the cut was taken behind.
    #[must_use]
    pub fn sequence(&self) -> GroupSequence {
        self.sequence
    }

    /// Walks a partition of the view from `from` on.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the view does not have the partition.
    pub fn read(&self, partition: Partition, from: Offset) -> Result<Cursor, Error> {
        let cut = self.cuts.get(&partition).ok_or_else(|| {
            Error::Invalid(format!("the view does not have partition {partition}"))
        })?;
        Ok(Cursor::new(self.reader.clone(), self.lease.clone(), cut.log.clone(), from, cut.end))
    }

    /// How many records of `chunk`, which is one of the view's, lie at `from` or
    /// behind it. They are counted in the chunk as the view has it, whatever
    /// compaction has made of it since.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Tier2`].
    pub async fn count_from(&self, chunk: &ChunkMeta, from: Offset) -> Result<u64, Error> {
        let reader = self.reader.cache.open(&self.reader.store, chunk).await?;
        let window_bytes = self.reader.window_bytes;
        let mut rows = reader.read(from, ReadOptions { window_bytes, ..ReadOptions::default() });
        let mut count = 0;
        while let Some(rows) = rows.next().await {
            // A window may begin before.
            let rows = rows.map_err(from_chunk)?;
            count += rows.offsets().filter(|offset| *offset >= from).count() as u64;
        }
        Ok(count)
    }
}
