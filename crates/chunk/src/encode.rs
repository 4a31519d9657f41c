//! Writing a chunk into memory.

use aquifer_types::{Batch, StreamSchema, Timestamp};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::footer::PAGE_ROWS_MAX;
use crate::rows_builder::{Order, RowsBuilder};
use crate::shred::schema_with;
use crate::{ChunkSpec, ChunkStats, Error, FieldWalk, Rows, Shredder, checksum, metadata, schema};

/// What the files say wrote them. Readers of old Parquet libraries parse it to
/// know whose faults to expect; it changes only when the bytes may.
const CREATED_BY: &str = "aquifer version 1.0 (build chunk-1)";
/// Records become rows in runs of at most about this many bytes.
const BLOCK_BYTES: usize = 1 << 20;
/// Statistics of keys and texts are cut to this many bytes.
const STATISTICS_BYTES_MAX: usize = 64;
/// Parquet's row groups have a 16-bit number.
const ROW_GROUPS_MAX: usize = i16::MAX as usize;

/// How chunks are encoded.
#[derive(Debug, Clone)]
pub struct EncodeOptions {
    /// zstd's level, 1 to 22. Level 1 encodes a quarter to three quarters faster
    /// than 3; its chunks are up to a tenth larger for varied JSON, equal for
    /// logs, and smaller for repetitive JSON.
    pub zstd_level: i32,
    /// A row group ends at about this many bytes of records.
    pub row_group_bytes_max: usize,
    /// A data page of keys, headers or values ends at about this many bytes,
    /// before compression. The least that a read decompresses.
    pub page_bytes: usize,
    /// A data page ends at about this many rows, at most 524,288.
    pub page_rows_max: usize,
    /// The bytes of distinct keys, header keys, header values or values of a
    /// field at which a column gives up its dictionary.
    pub dictionary_bytes_max: usize,
    /// The most bytes that one batch may have when decompressed.
    pub decompressed_bytes_max: usize,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            zstd_level: 1,
            row_group_bytes_max: 64 << 20,
            page_bytes: 1 << 20,
            page_rows_max: 8192,
            dictionary_bytes_max: 64 << 10,
            decompressed_bytes_max: 512 << 20,
        }
    }
}

/// A finished chunk.
#[derive(Debug, Clone)]
pub struct EncodedChunk {
    /// The whole file.
    pub bytes: Bytes,
    /// What its rows amount to.
    pub stats: ChunkStats,
    /// The CRC-32C of all its bytes; with their length, what tells after a lost
    /// answer whether the store has this file.
    pub checksum: u32,
}

/// Encodes the records of one chunk, in the order of their offsets.
pub struct ChunkEncoder {
    spec: ChunkSpec,
    options: EncodeOptions,
    writer: ArrowWriter<Vec<u8>>,
    builder: RowsBuilder,
    order: Order,
    stats: ChunkStats,
    row_group_bytes: u64,
    fields: Option<FieldColumns>,
}

/// What the fields of values cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FieldCosts {
    /// Nanoseconds in which fields were looked for.
    pub walk_ns: u64,
    /// The bytes of the values that were looked at.
    pub walk_bytes: u64,
    /// Nanoseconds in which fields became columns.
    pub shred_ns: u64,
    /// The bytes of the values that they were taken out of.
    pub shred_bytes: u64,
}

/// Tells the time in nanoseconds, from anywhere on.
type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// The columns that values are shredded into.
struct FieldColumns {
    schema: StreamSchema,
    arrow: SchemaRef,
    shredder: Shredder,
    /// What looks for fields that the schema has not.
    walk: Option<FieldWalk>,
    /// Whether it has found some: then nothing is encoded any more.
    is_outgrown: bool,
    clock: Option<Clock>,
    costs: FieldCosts,
}

impl std::fmt::Debug for ChunkEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkEncoder")
            .field("spec", &self.spec)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl ChunkEncoder {
    /// An encoder for the covered range of `spec`, without columns for the
    /// fields of values.
    ///
    /// # Errors
    /// [`Error::Encode`] where an option is out of its bounds.
    pub fn new(spec: ChunkSpec, options: EncodeOptions) -> Result<Self, Error> {
        Self::with_fields(spec, options, None)
    }

    /// An encoder whose chunk has the columns of this schema, and bears its
    /// version. Everything that values have must have been looked at for it, as
    /// [`StreamSchema`] says.
    ///
    /// # Errors
    /// As [`ChunkEncoder::new`].
    pub fn shredding(
        spec: ChunkSpec,
        options: EncodeOptions,
        schema: &StreamSchema,
    ) -> Result<Self, Error> {
        let fields = FieldColumns::new(schema, None);
        Self::with_fields(spec, options, Some(fields))
    }

    /// The same for values that nobody has looked at: where they have fields
    /// that the schema has not, or it is of version 0, nothing comes of it but
    /// [`ChunkEncoder::take_outgrown`], when everything was pushed.
    ///
    /// # Errors
    /// As [`ChunkEncoder::new`].
    pub fn looking(
        spec: ChunkSpec,
        options: EncodeOptions,
        schema: &StreamSchema,
    ) -> Result<Self, Error> {
        let fields = FieldColumns::new(schema, Some(FieldWalk::under(schema)));
        Self::with_fields(spec, options, Some(fields))
    }

    /// Lets the encoder measure what fields cost, by a clock of nanoseconds.
    #[must_use]
    pub fn with_clock(mut self, now_ns: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        if let Some(fields) = &mut self.fields {
            fields.clock = Some(Box::new(now_ns));
        }
        self
    }

    /// What fields have cost so far; without a clock, bytes alone.
    #[must_use]
    pub fn field_costs(&self) -> FieldCosts {
        self.fields.as_ref().map(|fields| fields.costs).unwrap_or_default()
    }

    /// What was found, where the schema does not do; all that was pushed must be
    /// pushed again, into an encoder that has one which does. Nothing comes of
    /// this one then.
    #[must_use]
    pub fn take_outgrown(&mut self) -> Option<FieldWalk> {
        let fields = self.fields.as_mut().filter(|fields| fields.is_outgrown)?;
        fields.walk.take()
    }

    fn with_fields(
        spec: ChunkSpec,
        options: EncodeOptions,
        fields: Option<FieldColumns>,
    ) -> Result<Self, Error> {
        let schema_version =
            fields.as_ref().map_or(spec.schema_version, |fields| fields.schema.version());
        let spec = ChunkSpec { schema_version, ..spec };
        let columns = fields.as_ref().map_or(&[][..], |fields| fields.shredder.columns());
        let writer_options = ArrowWriterOptions::new()
            .with_properties(properties(&options, columns)?)
            .with_skip_arrow_metadata(true);
        let arrow = fields.as_ref().map_or_else(schema::schema, |fields| fields.arrow.clone());
        let writer = ArrowWriter::try_new_with_options(Vec::new(), arrow, writer_options)
            .map_err(Error::encode)?;
        let unfit = fields.is_some().then_some(0);
        Ok(Self {
            builder: RowsBuilder::new(spec.partition, BLOCK_BYTES),
            order: Order { from: spec.base, next: spec.next },
            spec,
            options,
            writer,
            stats: ChunkStats { unfit, ..ChunkStats::default() },
            row_group_bytes: 0,
            fields,
        })
    }

    /// What the chunk says of itself.
    #[must_use]
    pub const fn spec(&self) -> &ChunkSpec {
        &self.spec
    }

    /// Adds the records of a batch that was appended at `appended`. Control
    /// batches hold none; batches of aborted transactions are the caller's to
    /// leave out.
    ///
    /// # Errors
    /// [`Error::Batch`], [`Error::OutOfOrder`], [`Error::TooLarge`],
    /// [`Error::Encode`]; the encoder is of no use afterwards.
    pub fn push_batch(&mut self, batch: &Batch, appended: Timestamp) -> Result<(), Error> {
        if batch.header().is_control {
            return Ok(());
        }
        let base_offset = batch.header().base_offset;
        let in_batch = |source| Error::Batch { base_offset, source };
        for record in batch.records(self.options.decompressed_bytes_max).map_err(in_batch)? {
            let record = record.map_err(in_batch)?;
            self.order.admit(record.offset)?;
            self.builder.push(&record, appended)?;
            if self.builder.bytes() >= self.block_bytes() {
                self.write_built()?;
            }
        }
        Ok(())
    }

    /// Adds rows of other chunks as they are, `_appended` included.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where they are another partition's,
    /// [`Error::OutOfOrder`], [`Error::Encode`]; the encoder is of no use
    /// afterwards.
    pub fn push_rows(&mut self, rows: &Rows) -> Result<(), Error> {
        rows.check_partition(self.spec.partition)?;
        for offset in rows.offsets() {
            self.order.admit(offset)?;
        }
        self.write_built()?;
        let blocks = (rows.raw_bytes() as usize).div_ceil(self.block_bytes()).max(1);
        let block_rows = rows.len().div_ceil(blocks).max(1);
        for start in (0..rows.len()).step_by(block_rows) {
            self.write(&rows.slice(start, block_rows))?;
        }
        Ok(())
    }

    /// The memory in use, about: what is encoded and what waits to be.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.builder.bytes() + self.writer.memory_size() + self.writer.bytes_written()
    }

    /// The rows so far and what they amount to, but for records that were
    /// pushed last and are not rows yet.
    #[must_use]
    pub const fn stats(&self) -> &ChunkStats {
        &self.stats
    }

    /// Writes what waits to be written, so that all of it was looked at.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn flush(&mut self) -> Result<(), Error> {
        self.write_built()
    }

    /// Ends the chunk. One without rows is a chunk as well.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn finish(mut self) -> Result<EncodedChunk, Error> {
        self.write_built()?;
        self.writer.flush().map_err(Error::encode)?;
        self.writer.sync().map_err(Error::encode)?;
        let body = self.writer.inner();
        let body_end = body.len() as u64;
        self.stats.unfit =
            self.stats.unfit.filter(|unfit| !self.is_without_columns() || *unfit == 0);
        let mut pairs = metadata::encode(
            &self.spec,
            &self.stats,
            self.fields.as_ref().map(|fields| &fields.schema),
        );
        pairs.push(KeyValue::new(checksum::KEY_GRID.to_owned(), checksum::grid_of(body)));
        pairs.push(KeyValue::new(
            checksum::KEY_TAIL.to_owned(),
            checksum::tail_placeholder(body_end),
        ));
        for pair in pairs {
            self.writer.append_key_value_metadata(pair);
        }
        self.writer.finish().map_err(Error::encode)?;
        let mut file = std::mem::take(self.writer.inner_mut());
        checksum::seal_tail(&mut file, body_end)
            .ok_or_else(|| Error::encode("the footer has no place for its checksum"))?;
        let checksum = crc32c::crc32c(&file);
        Ok(EncodedChunk { bytes: file.into(), stats: self.stats, checksum })
    }

    /// Whether it follows a schema of which nothing has a column. Then nothing in
    /// the chunk can say which of its values do not fit.
    fn is_without_columns(&self) -> bool {
        self.fields.as_ref().is_some_and(|fields| fields.shredder.columns().is_empty())
    }

    /// What is written at once, small against a row group so that its bound is
    /// kept.
    fn block_bytes(&self) -> usize {
        (self.options.row_group_bytes_max / 8).clamp(1, BLOCK_BYTES)
    }

    fn write_built(&mut self) -> Result<(), Error> {
        if self.builder.is_empty() {
            return Ok(());
        }
        let rows = self.builder.finish()?;
        self.write(&rows)
    }

    fn write(&mut self, rows: &Rows) -> Result<(), Error> {
        if self.fields.as_mut().is_some_and(|fields| fields.look(rows)) {
            return Ok(());
        }
        let stats = rows.stats();
        let bytes = self.row_group_bytes.saturating_add(stats.raw_bytes);
        if self.row_group_bytes > 0
            && bytes > self.options.row_group_bytes_max as u64
            && self.writer.flushed_row_groups().len() < ROW_GROUPS_MAX - 1
        {
            self.writer.flush().map_err(Error::encode)?;
            self.row_group_bytes = 0;
        }
        self.row_group_bytes += stats.raw_bytes;
        self.stats.add(&stats);
        let Some(fields) = &mut self.fields else {
            return self.writer.write(rows.record_batch()).map_err(Error::encode);
        };
        let rows_max = fields.shredder.rows_max();
        for start in (0..rows.len()).step_by(rows_max) {
            let (batch, unfit) = fields.with_columns(&rows.slice(start, rows_max))?;
            self.stats.unfit = self.stats.unfit.map(|sum| sum + unfit);
            self.writer.write(&batch).map_err(Error::encode)?;
        }
        Ok(())
    }
}

impl FieldColumns {
    fn new(schema: &StreamSchema, walk: Option<FieldWalk>) -> Self {
        Self {
            schema: schema.clone(),
            arrow: schema_with(schema),
            shredder: Shredder::new(schema),
            is_outgrown: walk.is_some() && schema.version() == 0,
            walk,
            clock: None,
            costs: FieldCosts::default(),
        }
    }

    fn now_ns(&self) -> u64 {
        self.clock.as_ref().map_or(0, |clock| clock())
    }

    /// Looks at the rows' values; whether the schema does not do for all so far.
    fn look(&mut self, rows: &Rows) -> bool {
        let started = self.now_ns();
        if let Some(walk) = &mut self.walk {
            rows.values().iter().for_each(|value| walk.look(value));
            self.costs.walk_bytes += rows.value_bytes();
            self.is_outgrown = self.is_outgrown || walk.outgrows(&self.schema);
        }
        self.costs.walk_ns += self.now_ns().saturating_sub(started);
        self.is_outgrown
    }

    /// The rows with their fields, and how many have a value that does not fit.
    fn with_columns(&mut self, rows: &Rows) -> Result<(RecordBatch, u64), Error> {
        let fixed = rows.record_batch();
        let started = self.now_ns();
        let fields = self.shredder.shred(rows.values())?;
        if !fields.is_empty() {
            self.costs.shred_bytes += rows.value_bytes();
            self.costs.shred_ns += self.now_ns().saturating_sub(started);
        }
        let unfit = match fields.first() {
            Some(unfit) => (unfit.len() - unfit.null_count()) as u64,
            None => self.shredder.count_broken(rows.values().iter()),
        };
        let columns = fixed.columns().iter().cloned().chain(fields).collect();
        let batch = RecordBatch::try_new(self.arrow.clone(), columns).map_err(Error::encode)?;
        Ok((batch, unfit))
    }
}

fn properties(options: &EncodeOptions, fields: &[Field]) -> Result<WriterProperties, Error> {
    let column = |name: &str| ColumnPath::new(name.split('/').map(str::to_owned).collect());
    let level = ZstdLevel::try_new(options.zstd_level).map_err(Error::encode)?;
    let mut properties = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(None)
        .set_data_page_size_limit(options.page_bytes.max(1))
        .set_data_page_row_count_limit(options.page_rows_max.clamp(1, PAGE_ROWS_MAX / 2))
        .set_dictionary_page_size_limit(options.dictionary_bytes_max)
        .set_statistics_truncate_length(Some(STATISTICS_BYTES_MAX))
        .set_column_index_truncate_length(Some(STATISTICS_BYTES_MAX))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_sorting_columns(Some(vec![SortingColumn {
            column_idx: schema::OFFSET as i32,
            descending: false,
            nulls_first: false,
        }]));
    for name in ["_offset", "_timestamp", "_appended"] {
        properties = properties
            .set_column_dictionary_enabled(column(name), false)
            .set_column_encoding(column(name), Encoding::DELTA_BINARY_PACKED)
            .set_column_statistics_enabled(column(name), EnabledStatistics::Page);
    }
    for name in ["_key", "_headers/list/element/key", "_headers/list/element/value", "_value"] {
        properties =
            properties.set_column_encoding(column(name), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    }
    properties = properties
        .set_column_statistics_enabled(column("_key"), EnabledStatistics::Page)
        .set_column_dictionary_enabled(column("_value"), false);
    let mut path = Vec::new();
    for field in fields {
        properties = field_properties(properties, field, &mut path);
    }
    Ok(properties.build())
}

/// Statistics for whatever can be pruned by, and an encoding for what outgrows
/// its dictionary.
fn field_properties(
    mut properties: WriterPropertiesBuilder,
    field: &Field,
    path: &mut Vec<String>,
) -> WriterPropertiesBuilder {
    path.push(field.name().clone());
    let leaf = |path: &[String]| ColumnPath::new(path.to_vec());
    match field.data_type() {
        DataType::Struct(fields) => {
            for field in fields {
                properties = field_properties(properties, field, path);
            }
        }
        DataType::List(element) => {
            path.push("list".to_owned());
            properties = field_properties(properties, element, path);
            path.pop();
        }
        data_type => {
            let encoding = match data_type {
                DataType::Utf8 => Some(Encoding::DELTA_LENGTH_BYTE_ARRAY),
                DataType::Int64 | DataType::Timestamp(..) | DataType::Date32 => {
                    Some(Encoding::DELTA_BINARY_PACKED)
                }
                _ => None,
            };
            properties =
                properties.set_column_statistics_enabled(leaf(path), EnabledStatistics::Page);
            if let Some(encoding) = encoding {
                properties = properties.set_column_encoding(leaf(path), encoding);
            }
        }
    }
    path.pop();
    properties
}
