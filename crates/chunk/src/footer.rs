//! The footer of a chunk: everything but the rows, verified and parsed once,
//! shared by all who read the chunk.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use aquifer_types::{Offset, PartitionIndex, StreamId, StreamSchema};
use bytes::{Bytes, BytesMut};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};

use crate::checksum::{self, Grid};
use crate::metadata::{Metadata, Refusal};
use crate::schema::{self, COLUMNS, schema};
use crate::shred::field_columns;
use crate::{ChunkSpec, ChunkStats, Error, RangeRead};

/// The first read of a chunk fetches this many of its last bytes: the whole
/// footer of most.
const TAIL_READ_BYTES: u64 = 64 << 10;
/// A footer beyond this is no footer; a chunk of 1 GiB has one of some 200 KiB.
const TAIL_BYTES_MAX: u64 = 64 << 20;
/// The magic at both ends and the footer's length.
const FILE_BYTES_MIN: u64 = 12;

/// What a field of the schema takes in memory, about: in the schema itself, and
/// as a column of Arrow.
const FIELD_BYTES: usize = 512;

/// No page has more rows; some reads decode a page at once.
pub(crate) const PAGE_ROWS_MAX: usize = 1 << 20;

/// What a reader knows of a chunk before it opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The stream.
    pub stream_id: StreamId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The first offset of the covered range.
    pub base: Offset,
    /// The first offset behind the covered range.
    pub next: Offset,
}

/// A chunk's verified footer. Worth caching: parsing it costs more than a read.
#[derive(Debug)]
pub struct Footer {
    object: Arc<str>,
    size: u64,
    spec: ChunkSpec,
    stats: ChunkStats,
    schema: Option<StreamSchema>,
    pub(crate) arrow: ArrowReaderMetadata,
    pub(crate) grid: Grid,
    pub(crate) columns: Columns,
}

/// Where the fixed columns are in the file.
#[derive(Debug)]
pub(crate) struct Columns {
    /// The leaf of `_offset`.
    pub(crate) offset: usize,
    /// The leaf of `_timestamp`.
    pub(crate) timestamp: usize,
    /// The leaf of `_value`.
    pub(crate) value: usize,
    /// All fixed columns.
    pub(crate) all: ProjectionMask,
    /// `_offset` and `_timestamp`.
    pub(crate) times: ProjectionMask,
}

impl Footer {
    /// Fetches, verifies and parses the footer of the chunk `object`, by one read
    /// or two.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Damaged`], [`Error::Unsupported`].
    pub async fn load(source: &dyn RangeRead, object: impl Into<Arc<str>>) -> Result<Self, Error> {
        let object = object.into();
        let size = source.size();
        let last_start = size.saturating_sub(TAIL_READ_BYTES);
        let last = fetch(source, &object, last_start..size).await?;
        let tail_start = find_tail(&object, size, &last)?;
        let tail = if tail_start >= last_start {
            let cut = usize::try_from(tail_start - last_start).unwrap_or(usize::MAX);
            last.slice(cut.min(last.len())..)
        } else {
            let before = fetch(source, &object, tail_start..last_start).await?;
            let mut tail = BytesMut::with_capacity(before.len() + last.len());
            tail.extend_from_slice(&before);
            tail.extend_from_slice(&last);
            tail.freeze()
        };
        Self::parse(object, size, tail_start, tail)
    }

    /// The footer within the bytes of a whole chunk.
    pub(crate) fn of_file(object: Arc<str>, file: &Bytes) -> Result<Self, Error> {
        let size = file.len() as u64;
        let last_start = file.len().saturating_sub(TAIL_READ_BYTES as usize);
        let tail_start = find_tail(&object, size, &file[last_start..])?;
        let tail = file.slice(usize::try_from(tail_start).unwrap_or(0)..);
        Self::parse(object, size, tail_start, tail)
    }

    fn parse(object: Arc<str>, size: u64, tail_start: u64, tail: Bytes) -> Result<Self, Error> {
        let damaged = |why: String| Error::damaged(&object, why);
        if !checksum::tail_holds(&tail) {
            return Err(damaged(format!(
                "bytes {tail_start} to {size}, its footer, do not match their CRC-32C"
            )));
        }
        let unreadable = |error| damaged(format!("its footer cannot be parsed: {error}"));
        let parquet = guarded(|| {
            let mut reader =
                ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
            reader.try_parse_sized(&tail, size)?;
            reader.finish()
        });
        let parquet = Arc::new(parquet.map_err(unreadable)?);
        let pairs = parquet.file_metadata().key_value_metadata();
        let metadata = Metadata::new(pairs.map_or(&[], Vec::as_slice));
        let refused = |refusal| match refusal {
            Refusal::Damaged(why) => Error::damaged(&object, why),
            Refusal::Unsupported(why) => Error::Unsupported { object: object.clone(), why },
        };
        let (spec, stats) = metadata.decode().map_err(refused)?;
        let schema = metadata.schema(&spec).map_err(refused)?;
        let grid = metadata.get(checksum::KEY_GRID).map_err(refused)?;
        let grid = Grid::parse(grid, tail_start)
            .ok_or_else(|| damaged(format!("its checksums do not cover {tail_start} bytes")))?;
        check_counts(&parquet, &stats).map_err(damaged)?;
        check_pages(&parquet).map_err(damaged)?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let arrow =
            guarded(|| ArrowReaderMetadata::try_new(parquet, options)).map_err(unreadable)?;
        let columns = Columns::find(&arrow)
            .map_err(|why| Error::Unsupported { object: object.clone(), why })?;
        if let Some(schema) = &schema {
            check_fields(&arrow, schema).map_err(damaged)?;
        }
        Ok(Self { object, size, spec, stats, schema, arrow, grid, columns })
    }

    /// The object's name, as errors give it.
    #[must_use]
    pub const fn object(&self) -> &Arc<str> {
        &self.object
    }

    /// The bytes of the whole chunk.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What the chunk says that it is.
    #[must_use]
    pub const fn spec(&self) -> &ChunkSpec {
        &self.spec
    }

    /// What its rows amount to.
    #[must_use]
    pub const fn stats(&self) -> &ChunkStats {
        &self.stats
    }

    /// The schema whose columns the chunk has beside the fixed ones; `None` where
    /// its values were not looked at.
    #[must_use]
    pub const fn schema(&self) -> Option<&StreamSchema> {
        self.schema.as_ref()
    }

    /// Parquet's own metadata, page index included, for readers that plan their
    /// reads themselves.
    #[must_use]
    pub fn parquet(&self) -> &Arc<ParquetMetaData> {
        self.arrow.metadata()
    }

    /// The rows, counted from the chunk's first, at which pages of `_value` begin.
    pub(crate) fn value_pages(&self) -> Vec<u64> {
        let mut pages = Vec::new();
        let mut before = 0;
        for (number, group) in self.parquet().row_groups().iter().enumerate() {
            let starts = self.page_starts(number, self.columns.value);
            pages.extend(starts.into_iter().map(|start| before + start as u64));
            before += u64::try_from(group.num_rows()).unwrap_or(0);
        }
        pages
    }

    /// The memory that the footer takes, about; for a cache's budget.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let fields = self.schema.as_ref().map_or(0, |schema| schema.fields().len());
        self.parquet().memory_size()
            + self.grid.memory_bytes()
            + size_of::<Self>()
            + fields * FIELD_BYTES
    }

    /// Checks that this is the chunk that the caller believes it to be.
    ///
    /// # Errors
    /// [`Error::Damaged`] says what differs.
    pub fn check(&self, expected: &Expected) -> Result<(), Error> {
        let spec = &self.spec;
        let found = Expected {
            stream_id: spec.stream_id,
            partition: spec.partition,
            base: spec.base,
            next: spec.next,
        };
        if found == *expected {
            return Ok(());
        }
        Err(Error::damaged(
            &self.object,
            format!(
                "it says that it holds {}/{} {} to {}, expected was {}/{} {} to {}",
                found.stream_id,
                found.partition,
                found.base,
                found.next,
                expected.stream_id,
                expected.partition,
                expected.base,
                expected.next
            ),
        ))
    }
}

/// Fetches exactly `range`.
pub(crate) async fn fetch(
    source: &dyn RangeRead,
    object: &Arc<str>,
    range: std::ops::Range<u64>,
) -> Result<Bytes, Error> {
    let bytes = source
        .read(range.clone())
        .await
        .map_err(|source| Error::Read { object: object.clone(), source })?;
    if bytes.len() as u64 != range.end - range.start {
        let why =
            format!("bytes {} to {} are cut off after {}", range.start, range.end, bytes.len());
        return Err(Error::damaged(object, why));
    }
    Ok(bytes)
}

/// Where the tail begins, as the file's `last` bytes say.
fn find_tail(object: &Arc<str>, size: u64, last: &[u8]) -> Result<u64, Error> {
    let start = checksum::body_end(last)
        .ok_or_else(|| Error::damaged(object, format!("its {size} bytes do not end a chunk")))?;
    if size < FILE_BYTES_MIN || start > size - FILE_BYTES_MIN + 4 || size - start > TAIL_BYTES_MAX {
        return Err(Error::damaged(
            object,
            format!("its footer should begin at {start} of {size} bytes"),
        ));
    }
    Ok(start)
}

fn check_counts(parquet: &ParquetMetaData, stats: &ChunkStats) -> Result<(), String> {
    let mut counts = parquet.row_groups().iter().map(|group| u64::try_from(group.num_rows()).ok());
    let rows = counts.try_fold(0_u64, |sum, count| sum.checked_add(count?));
    if rows != Some(stats.records) {
        return Err(format!("it has {rows:?} rows, its metadata says {}", stats.records));
    }
    Ok(())
}

/// Checks that the columns behind the fixed ones are those of the schema.
fn check_fields(arrow: &ArrowReaderMetadata, schema: &StreamSchema) -> Result<(), String> {
    let found = arrow.schema().fields().iter().skip(COLUMNS.len()).map(|field| &**field);
    let expected = field_columns(schema);
    if found.clone().eq(&expected) {
        return Ok(());
    }
    let first = found.zip(&expected).find(|(found, expected)| found != expected);
    Err(match first {
        Some((found, expected)) => format!(
            "its {} is a {}, and should be {}, a {}, by version {} of the schema",
            found.name(),
            found.data_type(),
            expected.name(),
            expected.data_type(),
            schema.version()
        ),
        None => format!(
            "its columns are not those of version {} of the schema: {} of fields, not {}",
            schema.version(),
            arrow.schema().fields().len().saturating_sub(COLUMNS.len()),
            expected.len()
        ),
    })
}

/// Checks that the page index names rows that are there, in order, so that what
/// plans by it need not.
fn check_pages(parquet: &ParquetMetaData) -> Result<(), String> {
    if parquet.num_row_groups() == 0 {
        return Ok(());
    }
    let indexes = parquet.offset_index().ok_or("it has no page index")?;
    for (number, group) in parquet.row_groups().iter().enumerate() {
        let indexes = indexes.get(number).ok_or("a row group has no page index")?;
        if indexes.len() != group.num_columns() {
            return Err(format!("row group {number} has {} page indexes", indexes.len()));
        }
        for (column, index) in group.columns().iter().zip(indexes) {
            let place = || format!("row group {number}, column {}", column.column_path());
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            if start < 0 || column.compressed_size() < 0 {
                return Err(format!("{} is nowhere", place()));
            }
            let starts = index.page_locations().iter().map(|page| page.first_row_index);
            let ends = starts.clone().skip(1).chain([group.num_rows()]);
            let are_sound = starts.clone().zip(ends).all(|(start, end)| {
                start >= 0 && start < end && (end - start) as u64 <= PAGE_ROWS_MAX as u64
            });
            if !are_sound || starts.clone().next().unwrap_or(0) != 0 {
                return Err(format!("{} has pages out of order", place()));
            }
        }
    }
    Ok(())
}

/// Calls the Parquet library, which panics on some malformed input. Only bytes
/// that are as written get there, but not all who can write to a store are
/// trusted with this process.
pub(crate) fn guarded<T, E: Display>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err("it is malformed".to_owned()),
    }
}

impl Columns {
    /// Finds the fixed columns by name; others may stand beside them.
    fn find(arrow: &ArrowReaderMetadata) -> Result<Self, String> {
        let descriptor = arrow.parquet_schema();
        let mut roots = Vec::with_capacity(COLUMNS.len());
        for wanted in schema().fields() {
            let found = arrow.schema().fields().find(wanted.name());
            let (root, field) = found.ok_or_else(|| format!("it has no {}", wanted.name()))?;
            if field != wanted {
                return Err(format!("its {} is a {}", wanted.name(), field.data_type()));
            }
            roots.push(root);
        }
        let leaf = |column: usize| {
            let root = roots.get(column).copied();
            (0..descriptor.num_columns())
                .find(|leaf| Some(descriptor.get_column_root_idx(*leaf)) == root)
                .ok_or_else(|| "a column has no leaf".to_owned())
        };
        let (offset, timestamp) = (leaf(schema::OFFSET)?, leaf(schema::TIMESTAMP)?);
        Ok(Self {
            offset,
            timestamp,
            value: leaf(schema::VALUE)?,
            times: ProjectionMask::leaves(descriptor, [offset, timestamp]),
            all: ProjectionMask::roots(descriptor, roots),
        })
    }
}
