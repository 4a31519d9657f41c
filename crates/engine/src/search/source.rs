//! A stream at one cut, as a search reads it.

use std::sync::Arc;

use aquifer_chunk::{ChunkReader, IndexReader};
use aquifer_query::wire::Table;
use aquifer_search::run::{ChunkPart, Failure, Parts, Source, TailBlock};
use aquifer_stream::ChunkMeta;
use aquifer_types::Offset;
use async_trait::async_trait;

use super::indexes::IndexAccess;
use super::rows::TableRows;
use crate::chunk_scan::CutChunk;
use crate::table::cut_chunks;
use crate::tail::{Tail, TailRange};
use crate::{Error, Reads, ScanOptions};

/// Where a search reads.
pub(super) struct CutSource {
    reads: Reads,
    indexes: Arc<IndexAccess>,
    tail: Tail,
    chunks: Vec<Arc<ChunkMeta>>,
    tails: Vec<TailRange>,
}

impl CutSource {
    /// The parts of a stream, and where they are read.
    pub(super) fn new(table: &Table, reads: Reads, indexes: Arc<IndexAccess>) -> (Parts, Self) {
        let mut parts = Parts::default();
        let mut chunks = Vec::new();
        let mut tails = Vec::new();
        for partition in &table.partitions {
            for CutChunk { meta, from, end, .. } in cut_chunks(partition) {
                parts.chunks.push(ChunkPart {
                    partition: meta.partition.index,
                    start: from,
                    end,
                    is_whole: from <= meta.base && meta.next <= end,
                    timestamps: meta.min_timestamp.zip(meta.max_timestamp),
                    records: meta.records,
                    is_indexed: meta.index_path.is_some(),
                });
                chunks.push(meta);
            }
            let from = partition.tiered.max(partition.start);
            if from < partition.end {
                let range = TailRange {
                    partition: partition.partition,
                    from,
                    end: partition.end,
                    bytes: partition.tail_bytes,
                };
                parts.tails.push(aquifer_search::run::TailRange {
                    partition: partition.partition.index,
                    start: from,
                    end: partition.end,
                });
                tails.push(range);
            }
            reads.tail_cache.forget_below(partition.partition, partition.tiered);
        }
        reads.usage.add_chunks(chunks.len() as u64);
        let tail = Tail::uncounted(reads.clone(), ScanOptions::default());
        (parts, Self { reads, indexes, tail, chunks, tails })
    }
}

#[async_trait]
impl Source for CutSource {
    type TailRows = TableRows;

    async fn chunk(&self, chunk: usize) -> Result<ChunkReader, Failure> {
        let meta = self.chunks.get(chunk).ok_or(Failure::Lost)?;
        self.reads.chunks.open(meta, &self.reads.usage).await.map_err(failure)
    }

    async fn index(&self, chunk: usize) -> Result<Option<IndexReader>, Failure> {
        let meta = self.chunks.get(chunk).ok_or(Failure::Lost)?;
        Ok(self.indexes.open(meta, &self.reads.usage).await)
    }

    async fn tail(&self, tail: usize, from: Offset) -> Result<TailBlock<TableRows>, Failure> {
        let range = self.tails.get(tail).ok_or(Failure::Lost)?;
        let found = self.tail.block(range, from).await.map_err(failure)?;
        let block = Arc::clone(&found.block);
        self.tail.keep(range.partition, found, 0);
        let rows = TableRows::new(range.partition.index, &block.rows).ok_or(Failure::Lost)?;
        Ok(TailBlock { rows, next: block.next })
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Chunk(error) => Failure::Chunk(error),
        other => Failure::Source(Box::new(other)),
    }
}
