//! Checking every byte and every row of a chunk.

use std::sync::Arc;

use bytes::Bytes;

use crate::window::Segments;
use crate::{ChunkSpec, ChunkStats, Error, Footer, ReadOptions};

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
/// times against the rows.
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
    let options = ReadOptions::default();
    let mut stats = ChunkStats::default();
    let mut last = None;
    let mut at = (0, 0);
    while let Some(window) = footer.window_at(at.0, at.1, &options) {
        for rows in footer.decode_rows(&window, segments.clone(), &mut last)? {
            stats.add(&rows.stats());
        }
        at = (window.row_group, window.rows.end);
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
