//! Checking every byte and every row of a chunk.

use std::sync::Arc;

use aquifer_types::StreamSchema;
use arrow_array::Array;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;

use crate::schema::{COLUMNS, VALUE};
use crate::window::{Segments, Window};
use crate::{ChunkSpec, ChunkStats, Error, Footer, ReadOptions, Shredder};

/// What a sound chunk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the chunk says that it is.
    pub spec: ChunkSpec,
    /// What its rows amount to, counted.
    pub stats: ChunkStats,
    /// The size of the file in bytes.
    pub bytes: u64,
    /// The CRC-32C of the file.
    pub checksum: u32,
    /// How many row groups it has.
    pub row_groups: usize,
}

/// Checks a whole chunk: every byte against its checksum, every row decoded,
/// offsets growing strictly within the covered range, the metadata's counts and
/// times against the rows, and the columns of fields against a fresh look at the
/// values.
///
/// # Errors
/// [`Error::Damaged`] names the first thing that does not hold, with its place;
/// [`Error::Unsupported`].
pub fn verify(object: impl Into<Arc<str>>, file: &Bytes) -> Result<Report, Error> {
    let object = object.into();
    let footer = Footer::of_file(object.clone(), file)?;
    let body_end = usize::try_from(footer.grid.body_end()).unwrap_or(usize::MAX);
    footer.verify_body(0, file.get(..body_end).unwrap_or_default())?;
    let segments = Segments::new(footer.size(), vec![(0, file.clone())]);
    let mut options = ReadOptions::default();
    let mut stats = ChunkStats::default();
    let mut fields = footer.schema().map(FieldCheck::new);
    if let Some(fields) = &fields {
        options.rows_max = options.rows_max.min(fields.shredder.rows_max());
        stats.unfit = Some(0);
    }
    let mut last = None;
    let mut at = (0, 0);
    while let Some(window) = footer.window_at(at.0, at.1, &options) {
        for rows in footer.decode_rows(&window, segments.clone(), &mut last)? {
            stats.add(&rows.stats());
            if let Some(fields) = fields.as_mut().filter(|fields| !fields.has_columns()) {
                let broken = fields.shredder.count_broken(rows.values().iter());
                stats.unfit = stats.unfit.map(|sum| sum + broken);
            }
        }
        if let Some(fields) = &mut fields {
            let unfit = fields.check(&footer, &window, segments.clone())?;
            stats.unfit = stats.unfit.map(|sum| sum + unfit);
        }
        at = (window.row_group, window.rows.end);
    }
    if fields.is_some_and(|fields| !fields.has_columns()) {
        stats.unfit = stats.unfit.filter(|broken| *broken == 0);
    }
    if stats != *footer.stats() {
        let why = format!("its rows amount to {stats:?}, its metadata says {:?}", footer.stats());
        return Err(Error::damaged(&object, why));
    }
    let epochs = &footer.spec().epochs;
    if !epochs.is_sorted_by(|(a, a_from), (b, b_from)| a < b && a_from < b_from) {
        return Err(Error::damaged(&object, "its epochs do not grow"));
    }
    Ok(Report {
        spec: footer.spec().clone(),
        stats,
        bytes: footer.size(),
        checksum: crc32c::crc32c(file),
        row_groups: footer.parquet().num_row_groups(),
    })
}

/// Holds the columns of fields against the values.
struct FieldCheck {
    shredder: Shredder,
}

impl FieldCheck {
    fn new(schema: &StreamSchema) -> Self {
        Self { shredder: Shredder::new(schema) }
    }

    fn has_columns(&self) -> bool {
        !self.shredder.columns().is_empty()
    }

    /// How many rows of a window have something in `_unfit`.
    fn check(
        &mut self,
        footer: &Footer,
        window: &Window,
        segments: Segments,
    ) -> Result<u64, Error> {
        if !self.has_columns() {
            return Ok(0);
        }
        let mut unfit = 0;
        for batch in footer.decode(window, &ProjectionMask::all(), segments)? {
            let differs = |name: &str| {
                let Window { row_group, rows } = window;
                let why = format!(
                    "row group {row_group}, rows {} to {}: {name} is not what the values have",
                    rows.start, rows.end
                );
                Error::damaged(footer.object(), why)
            };
            let value = COLUMNS.get(VALUE).and_then(|name| batch.column_by_name(name));
            let value = value.ok_or_else(|| differs("_value"))?;
            let expected = self.shredder.shred(value)?;
            unfit += expected.first().map_or(0, |unfit| unfit.len() - unfit.null_count()) as u64;
            for (column, expected) in self.shredder.columns().iter().zip(&expected) {
                if batch.column_by_name(column.name()) != Some(expected) {
                    return Err(differs(column.name()));
                }
            }
        }
        Ok(unfit)
    }
}
