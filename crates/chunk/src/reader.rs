//! Reading the rows of a chunk, from an offset or a time on.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use aquifer_types::{Offset, Timestamp};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use futures::future::{BoxFuture, ready, try_join_all};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::file::page_index::column_index::{ColumnIndexMetaData, PrimitiveColumnIndex};
use parquet::file::statistics::Statistics;

use crate::footer::fetch;
use crate::schema::{from_micros, to_micros};
use crate::window::{Segments, Window};
use crate::{Error, Expected, Footer, Rows};

/// So many ranges of one chunk are fetched beside each other.
const RANGES_AT_ONCE_MAX: usize = 8;

/// The bytes of one chunk, wherever they are. Caching, read-ahead and retries
/// are the implementer's.
pub trait RangeRead: Send + Sync {
    /// The bytes at `range`, all of them. A failure of kind `NotFound` says that
    /// the chunk is gone, `InvalidData` that its bytes are damaged; any other may
    /// pass.
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Bytes>>;

    /// The size of the whole chunk in bytes.
    fn size(&self) -> u64;
}

impl RangeRead for Bytes {
    fn read(&self, range: Range<u64>) -> BoxFuture<'_, io::Result<Bytes>> {
        let at = |at: u64| usize::try_from(at).ok().filter(|at| *at <= self.len());
        let bytes = match (at(range.start), at(range.end)) {
            (Some(start), Some(end)) if start <= end => Ok(self.slice(start..end)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        Box::pin(ready(bytes))
    }

    fn size(&self) -> u64 {
        self.len() as u64
    }
}

/// How rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// About how many bytes of records are decoded together; a reader holds
    /// about twice as many.
    pub window_bytes: usize,
    /// The most rows that are decoded together.
    pub rows_max: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { window_bytes: 4 << 20, rows_max: 65_536 }
    }
}

/// An open chunk. Cloning is cheap.
#[derive(Clone)]
pub struct ChunkReader {
    source: Arc<dyn RangeRead>,
    footer: Arc<Footer>,
}

impl std::fmt::Debug for ChunkReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkReader").field("object", self.footer.object()).finish_non_exhaustive()
    }
}

impl ChunkReader {
    /// Opens the chunk `object`, and checks that it is the one that the caller
    /// expects.
    ///
    /// # Errors
    /// As [`Footer::load`] and [`Footer::check`].
    pub async fn open(
        source: Arc<dyn RangeRead>,
        object: impl Into<Arc<str>>,
        expected: Option<&Expected>,
    ) -> Result<Self, Error> {
        let footer = Footer::load(&*source, object).await?;
        if let Some(expected) = expected {
            footer.check(expected)?;
        }
        Ok(Self::with_footer(source, Arc::new(footer)))
    }

    /// Opens a chunk whose footer is known already.
    #[must_use]
    pub fn with_footer(source: Arc<dyn RangeRead>, footer: Arc<Footer>) -> Self {
        Self { source, footer }
    }

    /// The chunk's footer, for a cache.
    #[must_use]
    pub const fn footer(&self) -> &Arc<Footer> {
        &self.footer
    }

    /// The rows at `from` and behind it, window by window, none of them empty.
    /// It ends with the chunk's last row; the covered range may go on behind.
    /// Decoding happens where the stream is polled.
    #[must_use]
    pub fn read(
        &self,
        from: Offset,
        options: ReadOptions,
    ) -> BoxStream<'static, Result<Rows, Error>> {
        let cursor = Cursor {
            reader: self.clone(),
            options,
            from,
            at: None,
            last: None,
            held: Segments::default(),
            ready: VecDeque::new(),
        };
        stream::try_unfold(cursor, Cursor::next).boxed()
    }

    /// The lowest offset whose record has `timestamp` or a later one, and that
    /// record's timestamp; `None` where all are earlier.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Damaged`].
    pub async fn find_time(
        &self,
        timestamp: Timestamp,
    ) -> Result<Option<(Offset, Timestamp)>, Error> {
        let wanted = to_micros(timestamp);
        let footer = &self.footer;
        let leaf = footer.columns.timestamp;
        for row_group in 0..footer.parquet().num_row_groups() {
            if footer.highest(row_group, leaf).is_some_and(|highest| highest < wanted) {
                continue;
            }
            let pages = footer.page_starts(row_group, leaf);
            let index = footer.page_values(row_group, leaf);
            for (page, start) in pages.iter().enumerate() {
                let highest = index.and_then(|index| index.max_values().get(page));
                if highest.is_some_and(|highest| *highest < wanted) {
                    continue;
                }
                let end = pages.get(page + 1).copied().or(footer.rows_in(row_group));
                let window = Window { row_group, rows: *start..end.unwrap_or(*start) };
                for (offset, micros) in self.times(&window).await? {
                    if micros >= wanted {
                        return Ok(Some((Offset(offset), from_micros(micros))));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Bytes of row groups, verified, for a reader that plans its reads itself
    /// by [`Footer::parquet`]. What lies close together is fetched together.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Damaged`] where bytes are not as written, and
    /// for ranges that are not of row groups.
    pub async fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, Error> {
        let footer = &*self.footer;
        let reads = footer.coalesce(ranges)?.into_iter().map(|range| async move {
            let bytes = fetch(&*self.source, footer.object(), range.clone()).await?;
            footer.verify_body(range.start, &bytes)?;
            Ok::<_, Error>((range.start, bytes))
        });
        let parts = stream::iter(reads).buffered(RANGES_AT_ONCE_MAX).try_collect().await?;
        let segments = Segments::new(footer.size(), parts);
        let cut = |range: &Range<u64>| {
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            segments.bytes(range.start, length).map_err(|error| {
                let why = format!("bytes {} to {}: {error}", range.start, range.end);
                Error::damaged(footer.object(), why)
            })
        };
        ranges.iter().map(cut).collect()
    }

    /// Offsets and timestamps in µs of a window.
    pub(crate) async fn times(&self, window: &Window) -> Result<Vec<(i64, i64)>, Error> {
        let mask = &self.footer.columns.times;
        let segments = self.segments(window, mask, &Segments::default()).await?;
        let mut times = Vec::with_capacity(window.rows.len());
        for batch in self.footer.decode(window, mask, segments)? {
            if let [offsets, timestamps] = batch.columns() {
                let offsets = offsets.as_primitive_opt::<Int64Type>();
                let timestamps = timestamps.as_primitive_opt::<TimestampMicrosecondType>();
                if let (Some(offsets), Some(timestamps)) = (offsets, timestamps) {
                    times.extend(
                        offsets.values().iter().copied().zip(timestamps.values().iter().copied()),
                    );
                }
            }
        }
        Ok(times)
    }

    /// Where the first row at or behind `from` is: its row group and its row.
    async fn locate(&self, from: Offset) -> Result<Option<(usize, usize)>, Error> {
        let footer = &self.footer;
        if from <= footer.spec().base {
            return Ok(Some((0, 0)));
        }
        let leaf = footer.columns.offset;
        for row_group in 0..footer.parquet().num_row_groups() {
            if footer.highest(row_group, leaf).is_some_and(|highest| highest < from.0) {
                continue;
            }
            let pages = footer.page_starts(row_group, leaf);
            let index = footer.page_values(row_group, leaf);
            for (page, start) in pages.iter().enumerate() {
                let lowest = index.and_then(|index| index.min_values().get(page)).copied();
                let highest = index.and_then(|index| index.max_values().get(page)).copied();
                if highest.is_some_and(|highest| highest < from.0) {
                    continue;
                }
                let end = pages.get(page + 1).copied().or(footer.rows_in(row_group));
                let end = end.unwrap_or(*start);
                // Offsets without gaps tell the row; others are looked at.
                if let (Some(lowest), Some(highest)) = (lowest, highest) {
                    if from.0 <= lowest {
                        return Ok(Some((row_group, *start)));
                    }
                    let rows = Offset(highest).since(Offset(lowest)).saturating_add(1);
                    if rows == (end - *start) as u64 {
                        let row = usize::try_from(from.since(Offset(lowest))).unwrap_or(0);
                        return Ok(Some((row_group, start + row)));
                    }
                }
                let times = self.times(&Window { row_group, rows: *start..end }).await?;
                let before = times.partition_point(|(offset, _)| *offset < from.0);
                if before < times.len() {
                    return Ok(Some((row_group, start + before)));
                }
            }
        }
        Ok(None)
    }

    /// Fetches and verifies what a window needs and `held` does not have.
    pub(crate) async fn segments(
        &self,
        window: &Window,
        mask: &ProjectionMask,
        held: &Segments,
    ) -> Result<Segments, Error> {
        let footer = &*self.footer;
        let mut parts = Vec::new();
        let mut missing = Vec::new();
        for range in footer.ranges_of(window, mask)? {
            let here = held.prefix_of(&range);
            let start = range.start + here.len() as u64;
            if !here.is_empty() {
                parts.push((range.start, here));
            }
            if start < range.end {
                missing.push(start..range.end);
            }
        }
        let reads = missing.into_iter().map(|range| async move {
            let bytes = fetch(&*self.source, footer.object(), range.clone()).await?;
            footer.verify_body(range.start, &bytes)?;
            Ok::<_, Error>((range.start, bytes))
        });
        parts.extend(try_join_all(reads).await?);
        parts.sort_unstable_by_key(|(start, _)| *start);
        Ok(Segments::new(footer.size(), parts))
    }
}

impl Footer {
    /// The highest value of a column of 64-bit integers in a row group.
    fn highest(&self, row_group: usize, leaf: usize) -> Option<i64> {
        match self.parquet().row_groups().get(row_group)?.columns().get(leaf)?.statistics()? {
            Statistics::Int64(values) => values.max_opt().copied(),
            _ => None,
        }
    }

    /// The lowest and highest values of each page of such a column.
    pub(crate) fn page_values(
        &self,
        row_group: usize,
        leaf: usize,
    ) -> Option<&PrimitiveColumnIndex<i64>> {
        match self.parquet().column_index()?.get(row_group)?.get(leaf)? {
            ColumnIndexMetaData::INT64(index) => Some(index),
            _ => None,
        }
    }
}

/// How far a read is.
struct Cursor {
    reader: ChunkReader,
    options: ReadOptions,
    from: Offset,
    /// The next row group and row; `None` before the first.
    at: Option<(usize, usize)>,
    last: Option<i64>,
    /// What the last window fetched: the next one begins within it.
    held: Segments,
    ready: VecDeque<Rows>,
}

impl Cursor {
    async fn next(mut self) -> Result<Option<(Rows, Self)>, Error> {
        loop {
            if let Some(rows) = self.ready.pop_front() {
                let rows = rows.starting_at(self.from);
                if !rows.is_empty() {
                    return Ok(Some((rows, self)));
                }
                continue;
            }
            let (row_group, row) = match self.at {
                Some(at) => at,
                None => match self.reader.locate(self.from).await? {
                    Some(at) => at,
                    None => return Ok(None),
                },
            };
            let footer = self.reader.footer.clone();
            let Some(window) = footer.window_at(row_group, row, &self.options) else {
                return Ok(None);
            };
            let mask = &footer.columns.all;
            self.held = self.reader.segments(&window, mask, &self.held).await?;
            self.ready = footer.decode_rows(&window, self.held.clone(), &mut self.last)?.into();
            self.at = Some((window.row_group, window.rows.end));
        }
    }
}
