//! A window: some rows of one row group that are fetched and decoded together.
//! What bounds a reader's memory.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::buf::Reader;
use bytes::{Buf, Bytes, BytesMut};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ParquetRecordBatchReaderBuilder, RowSelection, RowSelectionPolicy, RowSelector,
};
use parquet::basic::Type;
use parquet::errors::ParquetError;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::reader::{ChunkReader as ParquetSource, Length};

use crate::footer::guarded;
use crate::schema::{COLUMNS, schema};
use crate::{Error, Footer, ReadOptions, Rows};

/// Ranges that are at most this far apart are fetched as one: a request costs
/// more than the bytes between.
const GAP_BYTES_MAX: u64 = 128 << 10;

/// Some rows of one row group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) row_group: usize,
    pub(crate) rows: Range<usize>,
}

impl Footer {
    /// How many rows a row group has.
    pub(crate) fn rows_in(&self, row_group: usize) -> Option<usize> {
        let group = self.parquet().row_groups().get(row_group)?;
        Some(usize::try_from(group.num_rows()).unwrap_or(0))
    }

    /// The window that begins at `row` of a row group, or with a later one where
    /// it has no such row; `None` at the chunk's end.
    pub(crate) fn window_at(
        &self,
        mut row_group: usize,
        mut row: usize,
        options: &ReadOptions,
    ) -> Option<Window> {
        while row >= self.rows_in(row_group)? {
            row_group += 1;
            row = 0;
        }
        let count = self.rows_in(row_group)?;
        let end = self.window_end(row_group, row, count, options);
        Some(Window { row_group, rows: row..end })
    }

    /// As many whole pages of values as the options allow, or a part of one.
    fn window_end(
        &self,
        row_group: usize,
        row: usize,
        count: usize,
        options: &ReadOptions,
    ) -> usize {
        let limit = count.min(row.saturating_add(options.rows_max.max(1)));
        let pages = self.page_starts(row_group, self.columns.value);
        let next = pages.partition_point(|start| *start <= row);
        let ends = pages.iter().skip(next).copied().chain([count]).map(|end| end.min(limit));
        let mut best = row;
        for end in ends {
            let bytes = self.decoded_bytes(row_group, &(row..end));
            if bytes > options.window_bytes as u64 {
                // A page that is far too large is read in parts.
                if best == row {
                    let share = (end - row) as u128 * options.window_bytes as u128;
                    let share = share / u128::from(bytes);
                    let part = usize::try_from(share).unwrap_or(0).max(1);
                    let is_near = bytes / 2 <= options.window_bytes as u64;
                    best = if is_near { end } else { row + part };
                }
                break;
            }
            best = end;
            if end == limit {
                break;
            }
        }
        best.max(row + 1).min(count)
    }

    /// About how many bytes the rows have when decoded.
    fn decoded_bytes(&self, row_group: usize, rows: &Range<usize>) -> u64 {
        let Some(group) = self.parquet().row_groups().get(row_group) else { return 0 };
        let mut sum = 0_u128;
        for (leaf, column) in group.columns().iter().enumerate() {
            if column.column_type() != Type::BYTE_ARRAY || !self.columns.all.leaf_included(leaf) {
                continue;
            }
            let starts = self.page_starts(row_group, leaf);
            let sizes = self.offset_index(row_group, leaf);
            let sizes = sizes.and_then(|index| index.unencoded_byte_array_data_bytes());
            let first = starts.partition_point(|start| *start <= rows.start).saturating_sub(1);
            for (page, start) in starts.iter().enumerate().skip(first) {
                if *start >= rows.end {
                    break;
                }
                let end = starts.get(page + 1).copied().unwrap_or(group.num_rows() as usize);
                let size = sizes.and_then(|sizes| sizes.get(page)).copied().unwrap_or(0);
                let inside = end.min(rows.end).saturating_sub((*start).max(rows.start));
                sum += size.max(0) as u128 * inside as u128
                    / end.saturating_sub(*start).max(1) as u128;
            }
        }
        u64::try_from(sum).unwrap_or(u64::MAX)
    }

    fn offset_index(&self, row_group: usize, leaf: usize) -> Option<&OffsetIndexMetaData> {
        self.parquet().offset_index()?.get(row_group)?.get(leaf)
    }

    /// The first row of each page.
    pub(crate) fn page_starts(&self, row_group: usize, leaf: usize) -> Vec<usize> {
        self.offset_index(row_group, leaf).map_or_else(Vec::new, |index| {
            let pages = index.page_locations().iter();
            pages.map(|page| usize::try_from(page.first_row_index).unwrap_or(0)).collect()
        })
    }

    /// The byte ranges that decoding a window touches, in whole blocks of the
    /// checksums' grid, in order and apart from each other.
    pub(crate) fn ranges_of(
        &self,
        window: &Window,
        mask: &ProjectionMask,
    ) -> Result<Vec<Range<u64>>, Error> {
        let group = self
            .parquet()
            .row_groups()
            .get(window.row_group)
            .ok_or_else(|| Error::damaged(self.object(), "a row group is missing"))?;
        let mut ranges = Vec::new();
        for (leaf, column) in group.columns().iter().enumerate() {
            if !mask.leaf_included(leaf) {
                continue;
            }
            let index = self.offset_index(window.row_group, leaf).ok_or_else(|| {
                Error::damaged(self.object(), format!("column {leaf} has no page index"))
            })?;
            let (column_start, _) = column.byte_range();
            let pages = index.page_locations();
            let starts = self.page_starts(window.row_group, leaf);
            let first = starts.partition_point(|start| *start <= window.rows.start);
            let last = starts.partition_point(|start| *start < window.rows.end);
            let pages_in = pages.get(first.saturating_sub(1)..last).unwrap_or_default();
            if let Some(page) = pages.first() {
                // What precedes the first page is the dictionary.
                ranges.push(column_start..u64::try_from(page.offset).unwrap_or(0));
            }
            for page in pages_in {
                let start = u64::try_from(page.offset).unwrap_or(u64::MAX);
                let size = u64::try_from(page.compressed_page_size).unwrap_or(u64::MAX);
                ranges.push(start..start.saturating_add(size));
            }
        }
        self.coalesce(&ranges)
    }

    /// What is to be fetched for `ranges`: whole blocks of the checksums' grid,
    /// in order and apart from each other.
    pub(crate) fn coalesce(&self, ranges: &[Range<u64>]) -> Result<Vec<Range<u64>>, Error> {
        let ranges = ranges.iter().filter(|range| range.start != range.end);
        let mut aligned = Vec::new();
        for range in ranges {
            aligned.push(self.grid.align(range).ok_or_else(|| {
                let why = format!("a page should be at {} to {}", range.start, range.end);
                Error::damaged(self.object(), why)
            })?);
        }
        aligned.sort_unstable_by_key(|range| range.start);
        Ok(merge(aligned))
    }

    /// Checks bytes that begin at `start`, whole blocks, against the grid.
    pub(crate) fn verify_body(&self, start: u64, bytes: &[u8]) -> Result<(), Error> {
        self.grid.verify(start, bytes).map_err(|range| {
            let why = format!("bytes {} to {} do not match their CRC-32C", range.start, range.end);
            Error::damaged(self.object(), why)
        })
    }

    /// Decodes the columns in `mask` of a window.
    pub(crate) fn decode(
        &self,
        window: &Window,
        mask: &ProjectionMask,
        segments: Segments,
    ) -> Result<Vec<RecordBatch>, Error> {
        let damaged = |why: String| {
            let Window { row_group, rows } = window;
            let place = format!("row group {row_group}, rows {} to {}", rows.start, rows.end);
            Error::damaged(self.object(), format!("{place}: {why}"))
        };
        let count = window.rows.len();
        let selection = RowSelection::from(vec![
            RowSelector::skip(window.rows.start),
            RowSelector::select(count),
        ]);
        let batches = guarded(|| {
            let builder =
                ParquetRecordBatchReaderBuilder::new_with_metadata(segments, self.arrow.clone());
            let reader = builder
                .with_row_groups(vec![window.row_group])
                .with_projection(mask.clone())
                .with_row_selection(selection)
                .with_row_selection_policy(RowSelectionPolicy::Selectors)
                .with_batch_size(count)
                .build()?;
            reader.map(|batch| batch.map_err(Into::into)).collect::<Result<Vec<_>, ParquetError>>()
        });
        let batches = batches.map_err(damaged)?;
        let decoded: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if decoded != count {
            return Err(damaged(format!("{decoded} rows were decoded")));
        }
        Ok(batches)
    }

    /// Decodes a window's rows and checks that they belong where they are: in
    /// this partition, in the covered range, behind `last`.
    pub(crate) fn decode_rows(
        &self,
        window: &Window,
        segments: Segments,
        last: &mut Option<i64>,
    ) -> Result<Vec<Rows>, Error> {
        let damaged = |why: String| Error::damaged(self.object(), why);
        let spec = self.spec();
        let mut all = Vec::new();
        for batch in self.decode(window, &self.columns.all, segments)? {
            let columns = COLUMNS.iter().filter_map(|name| batch.column_by_name(name).cloned());
            let batch = RecordBatch::try_new(schema(), columns.collect())
                .map_err(|error| damaged(error.to_string()))?;
            let rows = Rows::try_new(batch).map_err(|error| damaged(error.to_string()))?;
            rows.check_partition(spec.partition).map_err(|error| damaged(error.to_string()))?;
            let lowest = last.map_or(spec.base.0, |last| last.saturating_add(1));
            for offset in [rows.first_offset(), rows.last_offset()].into_iter().flatten() {
                if offset.0 < lowest || offset >= spec.next {
                    return Err(damaged(format!(
                        "offset {offset} is not between {lowest} and {}",
                        spec.next
                    )));
                }
                *last = Some(offset.0);
            }
            all.push(rows);
        }
        Ok(all)
    }
}

/// Joins sorted ranges that overlap or nearly touch.
fn merge(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(GAP_BYTES_MAX) => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// Parts of a file, verified, in order; what the Parquet library reads from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segments {
    size: u64,
    parts: Arc<Vec<(u64, Bytes)>>,
}

impl Segments {
    /// `parts` are sorted and do not overlap; the file has `size` bytes.
    pub(crate) fn new(size: u64, parts: Vec<(u64, Bytes)>) -> Self {
        Self { size, parts: Arc::new(parts) }
    }

    /// The bytes of `range` that are here, from its start on.
    pub(crate) fn prefix_of(&self, range: &Range<u64>) -> Bytes {
        self.part_with(range.start).map_or_else(Bytes::new, |bytes| {
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            bytes.slice(..length.min(bytes.len()))
        })
    }

    /// The rest of the part that has the byte at `at`.
    fn part_with(&self, at: u64) -> Option<Bytes> {
        let behind = self.parts.partition_point(|(start, _)| *start <= at);
        let (start, bytes) = self.parts.get(behind.checked_sub(1)?)?;
        let skip = usize::try_from(at - start).ok()?;
        (skip < bytes.len()).then(|| bytes.slice(skip..))
    }
}

impl Length for Segments {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ParquetSource for Segments {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        self.part_with(start).map(Buf::reader).ok_or_else(|| not_here(start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.bytes(start, length)
    }
}

impl Segments {
    /// The `length` bytes from `start` on.
    pub(crate) fn bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let first = self.part_with(start).ok_or_else(|| not_here(start))?;
        if first.len() >= length {
            return Ok(first.slice(..length));
        }
        // Only what lies across the seam of two fetches is copied. The length
        // is bounded by the parts before anything is allocated.
        let mut joined = BytesMut::from(&first[..]);
        while joined.len() < length {
            let at = start + joined.len() as u64;
            let next = self.part_with(at).ok_or_else(|| not_here(at))?;
            let wanted = next.len().min(length - joined.len());
            joined.extend_from_slice(&next[..wanted]);
        }
        Ok(joined.freeze())
    }
}

fn not_here(at: u64) -> ParquetError {
    ParquetError::External(Box::new(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("byte {at} was not to be read"),
    )))
}
