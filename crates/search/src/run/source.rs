//! What a search reads, and through what.

use aquifer_chunk::{ChunkReader, IndexReader, Row, Rows};
use aquifer_types::{Offset, PartitionIndex, Record, Timestamp};
use async_trait::async_trait;

use super::Failure;
use crate::Searchable;

/// The parts of a stream that are searched. Each record is in one of them.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Chunks, in any order.
    pub chunks: Vec<ChunkPart>,
    /// What lies behind them, one a partition.
    pub tails: Vec<TailRange>,
}

/// One chunk.
#[derive(Debug, Clone)]
pub struct ChunkPart {
    /// Whose records these are.
    pub partition: PartitionIndex,
    /// The first offset of the chunk that counts.
    pub start: Offset,
    /// The first offset behind those that count.
    pub end: Offset,
    /// Whether all of its records count.
    pub is_whole: bool,
    /// The lowest and the highest timestamp; absent where they are not known.
    pub timestamps: Option<(Timestamp, Timestamp)>,
    /// Its records.
    pub records: u64,
    /// Whether there is an index beside it.
    pub is_indexed: bool,
}

/// The part of a partition that is not in chunks.
#[derive(Debug, Clone)]
pub struct TailRange {
    /// The partition.
    pub partition: PartitionIndex,
    /// Its first offset.
    pub start: Offset,
    /// The first offset behind it.
    pub end: Offset,
}

/// Where the parts are read. Parts are named by their place in [`Parts`].
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Rows of a tail.
    type TailRows: RowSet;

    /// Opens a chunk.
    async fn chunk(&self, chunk: usize) -> Result<ChunkReader, Failure>;

    /// Opens a chunk's index; none where it has none, or where that cannot be
    /// used: it costs time, never an answer.
    async fn index(&self, chunk: usize) -> Result<Option<IndexReader>, Failure>;

    /// Records of a tail at and behind `from`.
    async fn tail(&self, tail: usize, from: Offset) -> Result<TailBlock<Self::TailRows>, Failure>;
}

/// A run of a tail's records.
#[derive(Debug, Clone)]
pub struct TailBlock<R> {
    /// Its rows. Offsets below the one that was asked for, or at and behind the
    /// tail's end, may be among them.
    pub rows: R,
    /// Everything below it was given or is a gap; above what was asked for.
    pub next: Offset,
}

/// Rows that can be searched.
pub trait RowSet: Send + Sync + 'static {
    /// One of them.
    type Row<'a>: Searchable
    where
        Self: 'a;

    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The row in a place.
    fn row(&self, place: usize) -> Option<Self::Row<'_>>;

    /// A copy of it that stands alone.
    fn record(&self, place: usize) -> Option<Record>;
}

/// Rows of one partition's chunk.
#[derive(Debug, Clone)]
pub struct PartitionRows {
    /// The partition.
    pub partition: PartitionIndex,
    /// Its rows.
    pub rows: Rows,
}

impl RowSet for PartitionRows {
    type Row<'a> = (PartitionIndex, Row<'a>);

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn row(&self, place: usize) -> Option<Self::Row<'_>> {
        self.rows.row(place).map(|row| (self.partition, row))
    }

    fn record(&self, place: usize) -> Option<Record> {
        self.rows.row(place).map(|row| row.to_record())
    }
}
