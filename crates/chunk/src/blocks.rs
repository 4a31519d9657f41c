//! Runs of a chunk's rows, and reading just these: what a reader needs that does
//! not go from the front to the back.
//!
//! Rows are counted from the chunk's first, over all row groups.

use std::ops::Range;

use aquifer_types::Timestamp;

use crate::schema::from_micros;
use crate::window::{Segments, Window};
use crate::{ChunkReader, Error, Footer, ReadOptions, Rows};

/// A run of rows that is read at once, with what is known of it beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowBlock {
    /// Its rows, counted from the chunk's first.
    pub rows: Range<u64>,
    /// The lowest timestamp in it, or a lower one.
    pub min_timestamp: Timestamp,
    /// The highest timestamp in it, or a higher one.
    pub max_timestamp: Timestamp,
}

impl Footer {
    /// The chunk's rows in runs of about `options.window_bytes`, by the page
    /// index alone.
    #[must_use]
    pub fn blocks(&self, options: &ReadOptions) -> Vec<RowBlock> {
        let mut blocks = Vec::new();
        let mut before = 0;
        let mut at = (0, 0);
        let mut row_group = 0;
        while let Some(window) = self.window_at(at.0, at.1, options) {
            while row_group < window.row_group {
                before += self.rows_in(row_group).unwrap_or(0) as u64;
                row_group += 1;
            }
            let (lowest, highest) = self.times_in(&window);
            blocks.push(RowBlock {
                rows: before + window.rows.start as u64..before + window.rows.end as u64,
                min_timestamp: lowest,
                max_timestamp: highest,
            });
            at = (window.row_group, window.rows.end);
        }
        blocks
    }

    /// The bounds of the timestamps of the pages that a window touches.
    fn times_in(&self, window: &Window) -> (Timestamp, Timestamp) {
        let leaf = self.columns.timestamp;
        let unknown = (Timestamp(i64::MIN), Timestamp(i64::MAX));
        let starts = self.page_starts(window.row_group, leaf);
        let Some(index) = self.page_values(window.row_group, leaf) else { return unknown };
        let first = starts.partition_point(|start| *start <= window.rows.start).saturating_sub(1);
        let last = starts.partition_point(|start| *start < window.rows.end);
        let lowest = index.min_values().get(first..last).and_then(|values| values.iter().min());
        let highest = index.max_values().get(first..last).and_then(|values| values.iter().max());
        match (lowest, highest) {
            (Some(lowest), Some(highest)) => (from_micros(*lowest), from_micros(*highest)),
            _ => unknown,
        }
    }

    /// The windows that `rows` lie in.
    fn windows_of(&self, rows: &Range<u64>) -> Vec<Window> {
        let mut windows = Vec::new();
        let mut before = 0;
        for row_group in 0..self.parquet().num_row_groups() {
            let count = self.rows_in(row_group).unwrap_or(0) as u64;
            let start = rows.start.max(before).saturating_sub(before).min(count);
            let end = rows.end.max(before).saturating_sub(before).min(count);
            if start < end {
                windows.push(Window { row_group, rows: start as usize..end as usize });
            }
            before += count;
        }
        windows
    }
}

impl ChunkReader {
    /// The rows in these places, in order; places behind the last row have none.
    /// All of them are decoded together, so a caller bounds memory by what it
    /// asks for.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Damaged`].
    pub async fn rows(&self, rows: Range<u64>) -> Result<Vec<Rows>, Error> {
        let footer = self.footer();
        let mut all = Vec::new();
        let mut last = None;
        for window in footer.windows_of(&rows) {
            let segments =
                self.segments(&window, &footer.columns.all, &Segments::default()).await?;
            all.extend(footer.decode_rows(&window, segments, &mut last)?);
        }
        Ok(all)
    }

    /// Offsets and timestamps of the rows in these places, in order, without a
    /// look at anything else.
    ///
    /// # Errors
    /// As [`ChunkReader::rows`].
    pub async fn times_of(&self, rows: Range<u64>) -> Result<Vec<(i64, Timestamp)>, Error> {
        let mut all = Vec::new();
        for window in self.footer().windows_of(&rows) {
            let times = self.times(&window).await?;
            all.extend(times.into_iter().map(|(offset, micros)| (offset, from_micros(micros))));
        }
        Ok(all)
    }
}
