//! A run of records that is read at once, and what is known of it beforehand.

use std::ops::Range;
use std::sync::Arc;

use aquifer_chunk::{BlockSet, ReadOptions, TermQuery};
use aquifer_types::{Offset, PartitionIndex, Timestamp};

use super::cursor::Cursor;
use super::source::{ChunkPart, Parts, RowSet, Source, TailRange};
use super::{Failure, RunOptions};
use crate::query::{Envelope, Span};

/// A run of records.
#[derive(Debug, Clone)]
pub(crate) struct Unit {
    pub(crate) place: Place,
    /// Its records' timestamps lie within.
    pub(crate) timestamps: Span,
    /// Its records' offsets lie within.
    pub(crate) offsets: Span,
    pub(crate) partition: PartitionIndex,
    /// How many records it has, where all that are stored there count.
    pub(crate) count: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A chunk, not opened.
    Chunk(usize),
    /// A tail, not opened.
    Tail(usize),
    /// Rows of a chunk.
    Rows(usize, Range<u64>),
    /// A run of a tail that is read from this offset on.
    Run(usize, Offset),
}

impl Unit {
    /// No record of it comes before this in the order of hits.
    pub(crate) const fn newest(&self) -> Cursor {
        Cursor {
            timestamp: self.timestamps.last,
            partition: self.partition.get() as i64,
            offset: self.offsets.last,
        }
    }

    /// No record of it comes behind this.
    pub(crate) const fn oldest(&self) -> Cursor {
        Cursor {
            timestamp: self.timestamps.first,
            partition: self.partition.get() as i64,
            offset: self.offsets.first,
        }
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.place, Place::Rows(..) | Place::Run(..))
    }

    /// Whether a record of it can lie within.
    pub(crate) fn meets(&self, envelope: &Envelope) -> bool {
        let partition = i64::from(self.partition.get());
        self.timestamps.meets(envelope.timestamps)
            && self.offsets.meets(envelope.offsets)
            && envelope.partitions.contains(partition)
    }

    /// Whether all of its records lie within.
    pub(crate) fn is_within(&self, envelope: &Envelope) -> bool {
        let is_in =
            |inner: Span, outer: Span| outer.first <= inner.first && inner.last <= outer.last;
        is_in(self.timestamps, envelope.timestamps)
            && is_in(self.offsets, envelope.offsets)
            && envelope.partitions.contains(i64::from(self.partition.get()))
    }

    /// The parts, none of them opened.
    pub(crate) fn of_parts(parts: &Parts) -> Vec<Self> {
        let chunks = parts.chunks.iter().enumerate().map(|(number, chunk)| Self {
            place: Place::Chunk(number),
            timestamps: chunk.timestamps.map_or(Span::ALL, |(min, max)| span(min, max)),
            offsets: Span { first: chunk.start.0, last: chunk.end.0.saturating_sub(1) },
            partition: chunk.partition,
            count: chunk.is_whole.then_some(chunk.records),
        });
        let tails = parts.tails.iter().enumerate().map(|(number, tail)| Self {
            place: Place::Tail(number),
            timestamps: Span::ALL,
            offsets: Span { first: tail.start.0, last: tail.end.0.saturating_sub(1) },
            partition: tail.partition,
            count: None,
        });
        chunks.chain(tails).filter(|unit| !unit.offsets.is_empty()).collect()
    }
}

pub(crate) const fn span(min: Timestamp, max: Timestamp) -> Span {
    Span { first: min.0, last: max.0 }
}

/// The units of a chunk that may have what is needed.
pub(crate) async fn open_chunk<S: Source>(
    source: &S,
    number: usize,
    chunk: &ChunkPart,
    need: &TermQuery,
    envelope: &Envelope,
    options: &RunOptions,
) -> Result<Vec<Unit>, Failure> {
    let of_chunk = |rows: Range<u64>, timestamps: Span, offsets: Span| Unit {
        count: chunk.is_whole.then(|| rows.end - rows.start),
        place: Place::Rows(number, rows),
        timestamps,
        offsets: offsets.intersect(Span { first: chunk.start.0, last: chunk.end.0 - 1 }),
        partition: chunk.partition,
    };
    let mut units = Vec::new();
    let index = if chunk.is_indexed { source.index(number).await? } else { None };
    if let Some(index) = index {
        let candidates = match need {
            TermQuery::Anything => BlockSet::all(index.blocks().len()),
            // An index that cannot be read costs time, never an answer.
            need => match index.find(need).await {
                Ok(candidates) => candidates.blocks,
                Err(error) => {
                    tracing::warn!(%error, "a search index cannot be used");
                    BlockSet::all(index.blocks().len())
                }
            },
        };
        for (place, block) in index.blocks().iter().enumerate() {
            if !candidates.contains(place) {
                continue;
            }
            let timestamps = span(block.min_timestamp, block.max_timestamp);
            let offsets = Span { first: block.first_offset.0, last: block.last_offset.0 };
            units.push(of_chunk(block.rows.clone(), timestamps, offsets));
        }
    } else {
        let reader = source.chunk(number).await?;
        let window = ReadOptions { window_bytes: options.unit_bytes, ..ReadOptions::default() };
        for block in reader.footer().blocks(&window) {
            let timestamps = span(block.min_timestamp, block.max_timestamp);
            units.push(of_chunk(block.rows, timestamps, Span::ALL));
        }
    }
    units.retain(|unit| !unit.offsets.is_empty() && unit.meets(envelope));
    Ok(units)
}

/// The runs of a tail, all of which are read once to know their times; what is
/// read again comes from the source's cache, if it still has it.
pub(crate) async fn open_tail<S: Source>(
    source: &S,
    number: usize,
    tail: &TailRange,
    envelope: &Envelope,
) -> Result<Vec<Unit>, Failure> {
    let mut units = Vec::new();
    let mut from = tail.start;
    while from < tail.end {
        let block = source.tail(number, from).await?;
        if block.next <= from {
            return Err(Failure::Lost);
        }
        let counted = Span { first: from.0, last: block.next.min(tail.end).0 - 1 };
        let mut timestamps = Span::NONE;
        let mut offsets = Span::NONE;
        let mut count = 0;
        for place in 0..block.rows.len() {
            let Some(row) = block.rows.row(place) else { continue };
            let (timestamp, _, offset) = crate::Searchable::place(&row);
            if counted.contains(offset) {
                timestamps = timestamps.cover(Span { first: timestamp, last: timestamp });
                offsets = offsets.cover(Span { first: offset, last: offset });
                count += 1;
            }
        }
        let place = Place::Run(number, from);
        let partition = tail.partition;
        units.push(Unit { place, timestamps, offsets, partition, count: Some(count) });
        from = block.next;
    }
    units.retain(|unit| !unit.timestamps.is_empty() && unit.meets(envelope));
    Ok(units)
}

/// What one task needs of a search.
pub(crate) struct Shared<S> {
    pub(crate) source: Arc<S>,
    pub(crate) parts: Parts,
    pub(crate) need: TermQuery,
    pub(crate) envelope: Envelope,
    pub(crate) options: RunOptions,
}

impl<S: Source> Shared<S> {
    /// Opens a part.
    pub(crate) async fn open(&self, unit: &Unit) -> Result<Vec<Unit>, Failure> {
        let source = &*self.source;
        match unit.place {
            Place::Chunk(number) => match self.parts.chunks.get(number) {
                Some(chunk) => {
                    let Self { need, envelope, options, .. } = self;
                    open_chunk(source, number, chunk, need, envelope, options).await
                }
                None => Err(Failure::Lost),
            },
            Place::Tail(number) => match self.parts.tails.get(number) {
                Some(tail) => open_tail(source, number, tail, &self.envelope).await,
                None => Err(Failure::Lost),
            },
            Place::Rows(..) | Place::Run(..) => Ok(vec![unit.clone()]),
        }
    }
}
