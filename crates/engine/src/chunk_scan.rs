//! The scan of chunks: DataFusion's Parquet source over what the plan could not
//! rule out, split into streams of about the same work.
//!
//! What is known of a chunk goes along as its statistics, so that filters which
//! become known while the question runs (the worst of the best rows so far, the
//! keys of a join) leave out whole chunks as well.

use std::sync::Arc;

use aquifer_stream::ChunkMeta;
use aquifer_types::Offset;
use arrow_schema::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use datafusion::config::{ConfigOptions, TableParquetOptions};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::ParquetAccessPlan;
use datafusion::datasource::physical_plan::{
    FileGroup, FileGroupPartitioner, FileScanConfig, FileScanConfigBuilder, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_expr_adapter::PhysicalExprAdapterFactory;
use datafusion::physical_plan::ExecutionPlan;

use crate::chunks::ChunkReaders;
use crate::estimate::share_bytes;
use crate::fields::Known;
use crate::prune::{Bounds, micros, partition_value};
use crate::schema::{APPENDED, OFFSET, PARTITION, TIMESTAMP, is_heavy};

/// What plans call tier 2. Nothing is opened through it: the readers are ours.
pub(crate) const STORE_URL: &str = "aquifer://tier2/";

/// A chunk is not split into parts smaller than this.
const SPLIT_BYTES_MIN: usize = 4 << 20;

/// A chunk of a cut.
#[derive(Debug, Clone)]
pub(crate) struct CutChunk {
    pub(crate) meta: Arc<ChunkMeta>,
    /// The first offset in it that counts.
    pub(crate) from: Offset,
    /// The first behind it that does not.
    pub(crate) end: Offset,
    /// What is to be read of it, where its footer ruled out a part.
    pub(crate) access: Option<Arc<ParquetAccessPlan>>,
}

impl CutChunk {
    /// Whether some of its rows lie outside of the cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.from > self.meta.base || self.end < self.meta.next
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let timestamps = self.meta.min_timestamp.zip(self.meta.max_timestamp);
        Bounds {
            partition: self.meta.partition.index,
            base: self.from,
            next: self.end,
            timestamps: timestamps.map(|(min, max)| (micros(min), micros(max))),
            appended_max: self.meta.max_appended.map(micros),
        }
    }

    /// What is known of it, for what prunes while the question runs. Bounds of
    /// offsets are called exact, as nothing else prunes, and nobody answers
    /// `min(_offset)` by the statistics of one file.
    fn file_statistics(&self, schema: &SchemaRef) -> Statistics {
        let bounds = self.bounds();
        let mut statistics = self.statistics(schema);
        for (field, column) in schema.fields().iter().zip(&mut statistics.column_statistics) {
            if field.name() == OFFSET {
                // Of all rows: one that is the same in all of them is read as a
                // constant, and those outside of the cut are filtered by theirs.
                let last = self.meta.next.0.saturating_sub(1);
                column.min_value = Precision::Exact(self.meta.base.0.into());
                column.max_value = Precision::Exact(last.into());
            }
            if field.name() == TIMESTAMP
                && let Some((min, max)) = bounds.timestamps
            {
                column.min_value = Precision::Exact(time(min));
                column.max_value = Precision::Exact(time(max));
            }
        }
        statistics
    }

    /// What is known of its rows within the cut; exact where it says so.
    fn statistics(&self, schema: &SchemaRef) -> Statistics {
        let bounds = self.bounds();
        let exact_if_whole = |value: ScalarValue| match self.is_cut() {
            true => Precision::Inexact(value),
            false => Precision::Exact(value),
        };
        let mut statistics = Statistics::new_unknown(schema);
        for (field, column) in schema.fields().iter().zip(&mut statistics.column_statistics) {
            let never_null = ColumnStatistics {
                null_count: Precision::Exact(0),
                ..ColumnStatistics::new_unknown()
            };
            match field.name().as_str() {
                PARTITION => {
                    let value = ScalarValue::from(partition_value(bounds.partition));
                    *column = never_null
                        .with_min_value(Precision::Exact(value.clone()))
                        .with_max_value(Precision::Exact(value));
                }
                OFFSET => {
                    *column = never_null
                        .with_min_value(Precision::Inexact(bounds.base.0.into()))
                        .with_max_value(Precision::Inexact(bounds.next.0.saturating_sub(1).into()));
                }
                TIMESTAMP => {
                    *column = never_null;
                    if let Some((min, max)) = bounds.timestamps {
                        column.min_value = exact_if_whole(time(min));
                        column.max_value = exact_if_whole(time(max));
                    }
                }
                APPENDED => *column = never_null,
                _ => {}
            }
        }
        let count = |of: u64| usize::try_from(of).unwrap_or(usize::MAX);
        let rows = count(self.meta.records);
        statistics.num_rows = match self.is_cut() {
            true => Precision::Inexact(rows),
            false => Precision::Exact(rows),
        };
        statistics.total_byte_size = Precision::Inexact(count(self.meta.raw_bytes));
        statistics
    }
}

fn time(micros: i64) -> ScalarValue {
    ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()))
}

/// What a scan of chunks is planned with.
pub(crate) struct ChunkScan<'a> {
    pub(crate) schema: &'a SchemaRef,
    pub(crate) projection: &'a [usize],
    /// Whether rows are decided upon before their other columns are read.
    pub(crate) is_late: bool,
    /// A limit on rows, where no filter stands between it and the scan.
    pub(crate) limit: Option<usize>,
    pub(crate) config: &'a ConfigOptions,
    /// What stands between the table's columns and those of the chunks, where
    /// they are not the same.
    pub(crate) adapters: Option<Arc<dyn PhysicalExprAdapterFactory>>,
    /// What is known of the fields in all of the chunks.
    pub(crate) known: Option<&'a Known>,
}

impl ChunkScan<'_> {
    /// The plan that reads `chunks`, which are in order and not none.
    pub(crate) fn plan(
        &self,
        chunks: &[CutChunk],
        readers: ChunkReaders,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut options = TableParquetOptions {
            global: self.config.execution.parquet.clone(),
            ..TableParquetOptions::default()
        };
        options.global.pushdown_filters = self.is_late;
        options.global.reorder_filters = true;
        options.global.enable_page_index = true;
        // Chunks have none.
        options.global.bloom_filter_on_read = false;
        let source = ParquetSource::new(self.schema.clone())
            .with_table_parquet_options(options)
            .with_parquet_file_reader_factory(Arc::new(readers));
        let files: Vec<PartitionedFile> = chunks.iter().map(|chunk| self.file(chunk)).collect();
        let all = chunks.iter().map(|chunk| chunk.statistics(self.schema)).collect::<Vec<_>>();
        let mut statistics = Statistics::try_merge_iter(&all, self.schema)?;
        // The bytes are those of whole records. Sides of joins are held against
        // each other by their rows unless both say how many bytes they have.
        let is_heavy = |index: &usize| is_heavy(self.schema.field(*index).name());
        if !self.projection.iter().any(is_heavy) {
            let bytes = std::mem::take(&mut statistics.total_byte_size);
            share_bytes(bytes, self.schema, self.projection, &mut statistics);
        }
        if let Some(known) = self.known {
            known.write(self.schema, &mut statistics);
        }
        let config =
            FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE_URL)?, Arc::new(source))
                .with_file_groups(self.split(files))
                .with_statistics(statistics)
                .with_projection_indices(Some(self.projection.to_vec()))?
                .with_limit(self.limit)
                .with_expr_adapter(self.adapters.clone())
                .build();
        Ok(DataSourceExec::from_data_source(config))
    }

    fn file(&self, chunk: &CutChunk) -> PartitionedFile {
        let mut file =
            PartitionedFile::new(chunk.meta.object_path.clone(), chunk.meta.object_bytes)
                .with_extension(chunk.meta.clone());
        file.statistics = Some(Arc::new(chunk.file_statistics(self.schema)));
        match &chunk.access {
            Some(access) => file.with_extension(access.as_ref().clone()),
            None => file,
        }
    }

    /// Streams of about the same bytes; a stream that is done takes work from
    /// the others.
    fn split(&self, files: Vec<PartitionedFile>) -> Vec<FileGroup> {
        let groups = vec![FileGroup::new(files)];
        FileGroupPartitioner::new()
            .with_target_partitions(self.config.execution.target_partitions.max(1))
            .with_repartition_file_min_size(SPLIT_BYTES_MIN)
            .repartition_file_groups(&groups)
            .unwrap_or(groups)
    }
}

/// The scan with its chunks regrouped so that each stream is in the order of
/// offsets, and saying so; `None` where it has too many partitions for that.
pub(crate) fn in_offset_order(
    config: &FileScanConfig,
    target_partitions: usize,
) -> Option<FileScanConfig> {
    let schema = config.file_schema();
    let mut partitions: Vec<(i32, Vec<PartitionedFile>)> = Vec::new();
    let mut pieces: Vec<&PartitionedFile> =
        config.file_groups.iter().flat_map(FileGroup::iter).collect();
    let chunk_of = |file: &PartitionedFile| file.extension::<Arc<ChunkMeta>>().cloned();
    if pieces.iter().any(|file| chunk_of(file).is_none()) {
        return None;
    }
    pieces.sort_by_key(|file| {
        let chunk = chunk_of(file);
        let start = file.range.as_ref().map_or(0, |range| range.start);
        (chunk.map(|chunk| (chunk.partition.index, chunk.base)), start)
    });
    for piece in pieces {
        let index = partition_value(chunk_of(piece)?.partition.index);
        match partitions.last_mut().filter(|(last, _)| *last == index) {
            Some((_, files)) => files.push(piece.clone()),
            None => partitions.push((index, vec![piece.clone()])),
        }
    }
    if partitions.len() > target_partitions.saturating_mul(STREAMS_PER_CORE_MAX) {
        return None;
    }
    let streams = target_partitions.div_ceil(partitions.len().max(1)).max(1);
    let groups: Vec<FileGroup> =
        partitions.into_iter().flat_map(|(_, files)| deal(files, streams)).collect();
    // Where one stream was planned, nobody above merges several.
    if config.file_groups.len() <= 1 && groups.len() > 1 {
        return None;
    }
    let offset = Column::new_with_schema(OFFSET, schema).ok()?;
    let order = LexOrdering::new([PhysicalSortExpr::new_default(Arc::new(offset))])?;
    let builder = FileScanConfigBuilder::from(config.clone())
        .with_file_groups(groups)
        .with_output_ordering(vec![order]);
    Some(builder.build())
}

/// Beyond so many streams a core, merging them costs more than sorting.
const STREAMS_PER_CORE_MAX: usize = 8;

/// Deals the pieces of one partition out to streams, each of them in order. The
/// pieces of one chunk have the same statistics, so they may not share a stream
/// unless they are one piece again.
fn deal(pieces: Vec<PartitionedFile>, streams: usize) -> Vec<FileGroup> {
    let first = pieces.first().map(|piece| piece.path().clone());
    let is_of_one = pieces.iter().all(|piece| Some(piece.path()) == first.as_ref());
    if is_of_one {
        return pieces.into_iter().map(|piece| FileGroup::new(vec![piece])).collect();
    }
    let mut whole: Vec<PartitionedFile> = Vec::with_capacity(pieces.len());
    for mut piece in pieces {
        if whole.last().is_some_and(|last| last.path() == piece.path()) {
            continue;
        }
        piece.range = None;
        whole.push(piece);
    }
    let streams = streams.min(whole.len()).max(1);
    let mut groups = vec![Vec::new(); streams];
    for (at, file) in whole.into_iter().enumerate() {
        if let Some(group) = groups.get_mut(at % streams) {
            group.push(file);
        }
    }
    groups.into_iter().map(FileGroup::new).collect()
}
