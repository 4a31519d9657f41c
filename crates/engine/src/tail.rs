//! The records behind the chunks of a cut: asked from the server, parsed once,
//! and handed on as columns.
//!
//! Rows outside of the cut never leave: blocks are trimmed at both ends. What
//! the bounds of a block rule out is not looked at, nor is what the zones of
//! those of its fields rule out that it has as columns already.

use std::collections::VecDeque;
use std::fmt;
use std::io::Cursor;
use std::sync::Arc;

use aquifer_chunk::Rows;
use aquifer_query::wire::{TailForm, TailPart};
use aquifer_types::batch::split_batches;
use aquifer_types::{Batch, ErrorKind, Offset, Partition};
use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_ipc::reader::StreamReader;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::compute::{cast, filter_record_batch};
use datafusion::common::cast::as_boolean_array;
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::{Column, DynamicFilterTracking};
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr, conjunction,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter_pushdown::{
    ChildPushdownResult, FilterPushdownPhase, FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties,
    SendableRecordBatchStream, SortOrderPushdownResult, StatisticsArgs,
};
use futures::stream;

use crate::estimate::{passing, share_bytes};
use crate::prune::Pruner;
use crate::schema::{OFFSET, PARTITION, is_heavy, table_schema};
use crate::table::Reads;
use crate::tail_cache::Block;
use crate::tail_columns::TailColumns;
use crate::usage::ScanCounts;
use crate::{Error, ScanOptions};

/// Where the tail of a question's cut is asked for.
#[async_trait]
pub trait TailSource: fmt::Debug + Send + Sync {
    /// Records at and behind `from`, which is not below the partition's tiered
    /// offset: about `bytes_max` bytes of batches. `next` of the answer is
    /// above `from`, unless that is the cut's end.
    ///
    /// # Errors
    /// [`Error::Tail`].
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
        bytes_max: u64,
    ) -> Result<(TailPart, Bytes), Error>;
}

/// The tail of one partition of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TailRange {
    pub(crate) partition: Partition,
    pub(crate) from: Offset,
    pub(crate) end: Offset,
    /// About how many bytes of batches there are.
    pub(crate) bytes: u64,
}

/// What all partitions of a tail scan share.
#[derive(Debug, Clone)]
pub(crate) struct Tail {
    reads: Reads,
    options: ScanOptions,
    counts: ScanCounts,
}

impl Tail {
    /// Reads that no plan shows.
    pub(crate) fn uncounted(reads: Reads, options: ScanOptions) -> Self {
        let counts = ScanCounts::new(&ExecutionPlanMetricsSet::new());
        Self { reads, options, counts }
    }

    /// The block that speaks for `at`, from the cache or from the server; to be
    /// [kept](Self::keep) once its fields were read.
    pub(crate) async fn block(&self, range: &TailRange, at: Offset) -> Result<Found, Error> {
        if let Some(block) = self.reads.tail_cache.get(range.partition, at) {
            return Ok(Found { block, is_new: false });
        }
        let bytes_max = self.options.tail_read_bytes;
        let (part, bytes) = self.reads.tail.read(range.partition, at, bytes_max).await?;
        self.reads.usage.add_tail_bytes(bytes.len() as u64);
        self.counts.tail_bytes_read.add(bytes.len());
        let failed = |why: String| Error::Tail {
            partition: range.partition,
            from: at,
            kind: ErrorKind::Internal,
            why,
        };
        if part.next <= at || part.next > range.end {
            return Err(failed(format!("the answer goes on at {} of {}", part.next, range.end)));
        }
        let rows = parse(range.partition, &part, bytes, self.options.decompressed_bytes_max)
            .map_err(|error| match error {
                Error::Plan(why) => failed(why),
                error => error,
            })?;
        let block = Arc::new(Block::new(range.partition, at, part.next, rows));
        Ok(Found { block, is_new: true })
    }

    /// Keeps a block for the questions to come. It has grown by so many bytes
    /// since it was found.
    pub(crate) fn keep(&self, partition: Partition, found: Found, grown: usize) {
        let cache = &self.reads.tail_cache;
        match found.is_new {
            true => {
                found.block.grow(grown);
                cache.put(partition, found.block);
            }
            false => cache.grown(partition, &found.block, grown),
        }
    }
}

/// A block of the tail, as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) block: Arc<Block>,
    /// The cache does not have it yet.
    is_new: bool,
}

/// The columns of what the server answered.
fn parse(
    partition: Partition,
    part: &TailPart,
    bytes: Bytes,
    decompressed_bytes_max: usize,
) -> Result<RecordBatch, Error> {
    let unsound = |why: String| Error::Plan(why);
    let rows = match part.form {
        TailForm::Batches => {
            let found = split_batches(bytes).map_err(|error| unsound(error.to_string()))?;
            if found.len() != part.appended.len() {
                let times = part.appended.len();
                return Err(unsound(format!("{} batches came with {times} times", found.len())));
            }
            let batches: Vec<Batch> = found
                .into_iter()
                .map(Batch::read)
                .collect::<Result<_, _>>()
                .map_err(|error| unsound(error.to_string()))?;
            let appended = batches.iter().zip(part.appended.iter().copied());
            Rows::from_batches(partition.index, appended, decompressed_bytes_max)?
                .record_batch()
                .clone()
        }
        TailForm::Rows if bytes.is_empty() => RecordBatch::new_empty(aquifer_chunk::schema()),
        TailForm::Rows => {
            let reader = StreamReader::try_new(Cursor::new(bytes), None);
            let reader = reader.map_err(|error| unsound(error.to_string()))?;
            let batches: Vec<RecordBatch> =
                reader.collect::<Result<_, _>>().map_err(|error| unsound(error.to_string()))?;
            let schema = aquifer_chunk::schema();
            let joined = datafusion::arrow::compute::concat_batches(&schema, &batches)
                .map_err(|error| unsound(error.to_string()))?;
            Rows::try_new(joined)?.record_batch().clone()
        }
    };
    as_table(&rows).map_err(|error| unsound(error.to_string()))
}

/// The columns of a chunk as those of a table.
pub(crate) fn as_table(
    rows: &RecordBatch,
) -> Result<RecordBatch, datafusion::arrow::error::ArrowError> {
    let schema = table_schema();
    let columns = rows.columns().iter().zip(schema.fields());
    let columns: Result<Vec<ArrayRef>, _> =
        columns.map(|(column, field)| cast(column, field.data_type())).collect();
    RecordBatch::try_new(schema, columns?)
}

/// Reads tails, one group of partitions a stream.
#[derive(Debug, Clone)]
pub(crate) struct TailExec {
    tail: Tail,
    groups: Arc<Vec<Vec<TailRange>>>,
    columns: TailColumns,
    schema: SchemaRef,
    filter: Option<Arc<dyn PhysicalExpr>>,
    fetch: Option<usize>,
    metrics: ExecutionPlanMetricsSet,
    properties: Arc<PlanProperties>,
}

impl TailExec {
    /// Reads `ranges`, in at most about `streams` streams.
    pub(crate) fn try_new(
        ranges: Vec<TailRange>,
        columns: TailColumns,
        streams: usize,
        reads: Reads,
        options: ScanOptions,
        counts: ScanCounts,
    ) -> DataFusionResult<Self> {
        let schema = columns.schema().clone();
        let groups = group(ranges, streams);
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema.clone(), orderings(&schema, &groups)),
            Partitioning::UnknownPartitioning(groups.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self {
            tail: Tail { reads, options, counts },
            groups: Arc::new(groups),
            columns,
            schema,
            filter: None,
            fetch: None,
            metrics: ExecutionPlanMetricsSet::new(),
            properties: Arc::new(properties),
        })
    }

    fn bytes(&self) -> u64 {
        self.groups.iter().flatten().map(|range| range.bytes).sum()
    }
}

/// A stream of its own for each partition where there are few; runs of them of
/// about the same bytes where there are many.
fn group(ranges: Vec<TailRange>, streams: usize) -> Vec<Vec<TailRange>> {
    let streams = streams.max(1);
    if ranges.len() <= streams.saturating_mul(2) {
        return ranges.into_iter().map(|range| vec![range]).collect();
    }
    let total: u64 = ranges.iter().map(|range| range.bytes.max(1)).sum();
    let share = total.div_ceil(streams as u64).max(1);
    let mut groups: Vec<Vec<TailRange>> = Vec::new();
    let mut sum = 0;
    for range in ranges {
        match groups.last_mut().filter(|_| sum < share) {
            Some(group) => group.push(range),
            None => {
                groups.push(vec![range]);
                sum = 0;
            }
        }
        sum += range.bytes.max(1);
    }
    groups
}

/// The orders that hold within each stream.
fn orderings(schema: &SchemaRef, groups: &[Vec<TailRange>]) -> Vec<LexOrdering> {
    let ascending = |name: &str| {
        let column = Column::new_with_schema(name, schema).ok()?;
        Some(PhysicalSortExpr::new_default(Arc::new(column)))
    };
    let is_of_one = groups.iter().all(|group| group.len() <= 1);
    let by_offset = ascending(OFFSET).filter(|_| is_of_one).map(|offset| vec![offset]);
    let by_partition = ascending(PARTITION)
        .map(|partition| std::iter::once(partition).chain(ascending(OFFSET)).collect::<Vec<_>>());
    [by_offset, by_partition].into_iter().flatten().filter_map(LexOrdering::new).collect()
}

impl DisplayAs for TailExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let partitions: usize = self.groups.iter().map(Vec::len).sum();
        write!(f, "TailExec: partitions={partitions}, bytes={}", self.bytes())?;
        if let Some(filter) = &self.filter {
            write!(f, ", predicate={filter}")?;
        }
        if let Some(fetch) = self.fetch {
            write!(f, ", limit={fetch}")?;
        }
        Ok(())
    }
}

impl ExecutionPlan for TailExec {
    fn name(&self) -> &'static str {
        "TailExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => internal_err!("a scan of the tail has no inputs"),
        }
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        match &self.filter {
            Some(filter) => f(filter),
            None => Ok(TreeNodeRecursion::Continue),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> DataFusionResult<SendableRecordBatchStream> {
        let Some(ranges) = self.groups.get(partition) else {
            return internal_err!("the tail has no stream {partition}");
        };
        let is_dynamic = self.filter.as_ref().is_some_and(|filter| {
            DynamicFilterTracking::classify(filter).contains_dynamic_filter()
        });
        let scan = TailScan {
            tail: self.tail.clone(),
            ranges: ranges.iter().copied().collect(),
            at: None,
            rows: None,
            batch_rows: context.session_config().batch_size().max(1),
            columns: self.columns.clone(),
            schema: self.schema.clone(),
            pruner: Pruner::new(self.filter.as_ref(), &self.schema),
            zoned: zoned(self.filter.as_ref(), &self.schema),
            filter: self.filter.clone(),
            is_dynamic,
            left: self.fetch,
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        let batches = stream::try_unfold(scan, TailScan::next);
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        _: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> DataFusionResult<Arc<Statistics>> {
        let groups = match args.partition() {
            Some(stream) => self.groups.get(stream..=stream).unwrap_or_default(),
            None => self.groups.as_slice(),
        };
        let sum = |of: fn(&TailRange) -> u64| {
            let sum: u64 = groups.iter().flatten().map(of).sum();
            Precision::Inexact(usize::try_from(sum).unwrap_or(usize::MAX))
        };
        let mut statistics = Statistics::new_unknown(&self.schema)
            .with_num_rows(sum(|range| u64::try_from(range.end.0 - range.from.0).unwrap_or(0)));
        // The bytes are those of whole records.
        let bytes = sum(|range| range.bytes);
        if self.schema.fields().iter().any(|field| is_heavy(field.name())) {
            statistics.total_byte_size = bytes;
        } else {
            let all: Vec<usize> = (0..self.schema.fields().len()).collect();
            share_bytes(bytes, &self.schema, &all, &mut statistics);
        }
        statistics.calculate_total_byte_size(&self.schema);
        Ok(Arc::new(if self.filter.is_some() { passing(statistics) } else { statistics }))
    }

    fn supports_limit_pushdown(&self) -> bool {
        false
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn ExecutionPlan>> {
        Some(Arc::new(Self { fetch: limit, ..self.clone() }))
    }

    fn fetch(&self) -> Option<usize> {
        self.fetch
    }

    fn handle_child_pushdown_result(
        &self,
        _: FilterPushdownPhase,
        pushed: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> DataFusionResult<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        let count = pushed.parent_filters.len();
        if self.fetch.is_some() {
            // The limit was counted before what comes now.
            return Ok(FilterPushdownPropagation::all_unsupported(pushed));
        }
        let all =
            FilterPushdownPropagation::with_parent_pushdown_result(vec![PushedDown::Yes; count]);
        if count == 0 {
            return Ok(all);
        }
        let filters = pushed.parent_filters.into_iter().map(|pushed| pushed.filter);
        let filter = conjunction(self.filter.clone().into_iter().chain(filters));
        Ok(all.with_updated_node(Arc::new(Self { filter: Some(filter), ..self.clone() })))
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> DataFusionResult<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        match self.properties.eq_properties.ordering_satisfy(order.iter().cloned())? {
            true => Ok(SortOrderPushdownResult::Exact { inner: Arc::new(self.clone()) }),
            false => Ok(SortOrderPushdownResult::Unsupported),
        }
    }
}

/// How far the read of one stream is.
struct TailScan {
    tail: Tail,
    /// The first is the one that is being read.
    ranges: VecDeque<TailRange>,
    /// The next offset in it; its start where it was not begun.
    at: Option<Offset>,
    /// What is left of the block, with the columns wanted.
    rows: Option<RecordBatch>,
    batch_rows: usize,
    columns: TailColumns,
    schema: SchemaRef,
    pruner: Pruner,
    /// The columns that the filter is over, where blocks have zones of them.
    zoned: Vec<usize>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    is_dynamic: bool,
    left: Option<usize>,
    metrics: BaselineMetrics,
}

impl TailScan {
    async fn next(mut self) -> DataFusionResult<Option<(RecordBatch, Self)>> {
        loop {
            // Blocks in memory never wait for anything: others get their turn.
            tokio::task::coop::consume_budget().await;
            if self.left == Some(0) {
                return Ok(None);
            }
            if let Some(rows) = self.rows.take() {
                let first = rows.slice(0, rows.num_rows().min(self.batch_rows));
                let rest = rows.num_rows() - first.num_rows();
                if rest > 0 {
                    self.rows = Some(rows.slice(first.num_rows(), rest));
                }
                let time = self.metrics.elapsed_compute().clone();
                let timer = time.timer();
                let batch = self.filtered(first)?;
                timer.done();
                if batch.num_rows() > 0 {
                    self.metrics.output_rows().add(batch.num_rows());
                    return Ok(Some((batch, self)));
                }
                continue;
            }
            let Some(range) = self.ranges.front().copied() else { return Ok(None) };
            let at = self.at.unwrap_or(range.from);
            if at >= range.end {
                self.ranges.pop_front();
                self.at = None;
                continue;
            }
            let found = self.tail.block(&range, at).await?;
            self.at = Some(found.block.next);
            let mut grown = 0;
            let taken = self.take(&found.block, at, &range, &mut grown);
            self.tail.keep(range.partition, found, grown);
            taken?;
        }
    }

    /// Takes what the cut has of a block, and adds up by how many bytes that has
    /// grown.
    fn take(
        &mut self,
        block: &Block,
        from: Offset,
        of: &TailRange,
        grown: &mut usize,
    ) -> DataFusionResult<()> {
        if self.is_dynamic {
            // It may have become narrower since the last block.
            self.pruner = Pruner::new(self.filter.as_ref(), &self.schema);
        }
        if !self.may_match(block, grown)? {
            self.tail.counts.tail_blocks_pruned.add(1);
            return Ok(());
        }
        let (rows, more) = self.columns.of(block, from, of.end)?;
        *grown += more;
        self.tail.reads.usage.add_rows(rows.num_rows() as u64);
        self.rows = (rows.num_rows() > 0).then_some(rows);
        Ok(())
    }

    /// Whether rows of a block may meet the filter, by what is known of it.
    fn may_match(&self, block: &Block, grown: &mut usize) -> DataFusionResult<bool> {
        if self.pruner.keep(&[block.bounds]) != [true] {
            return Ok(false);
        }
        if self.zoned.is_empty() {
            return Ok(true);
        }
        let (zones, more) = self.columns.zones(block, &self.zoned)?;
        *grown += more;
        Ok(zones.is_empty() || self.pruner.keep_by_zones(block.bounds, &zones))
    }

    fn filtered(&mut self, rows: RecordBatch) -> DataFusionResult<RecordBatch> {
        let mut rows = match &self.filter {
            None => rows,
            Some(filter) => {
                let keep = filter.evaluate(&rows)?.into_array(rows.num_rows())?;
                let keep: &BooleanArray = as_boolean_array(&keep)?;
                filter_record_batch(&rows, keep)?
            }
        };
        if let Some(left) = &mut self.left {
            rows = rows.slice(0, rows.num_rows().min(*left));
            *left -= rows.num_rows();
        }
        Ok(rows)
    }
}

/// The columns of fields that a filter is over.
fn zoned(filter: Option<&Arc<dyn PhysicalExpr>>, schema: &SchemaRef) -> Vec<usize> {
    let columns = filter.map(collect_columns).unwrap_or_default();
    let index = |column: &Column| schema.index_of(column.name()).ok();
    let is_field = |index: &usize| {
        let name = schema.field(*index).name();
        table_schema().column_with_name(name).is_none()
    };
    columns.iter().filter_map(index).filter(is_field).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::ops::Range;

    use aquifer_types::{BatchBuilder, Epoch, PartitionIndex, StreamId, Timestamp};

    use super::*;

    /// Rows with these offsets, and values of so many bytes.
    pub(crate) fn rows_of(partition: u32, offsets: Range<i64>, value_bytes: usize) -> RecordBatch {
        let batch = batch_of(offsets, value_bytes);
        let batches = [(&batch, Timestamp(7))];
        let rows = Rows::from_batches(PartitionIndex(partition), batches, 1 << 30).unwrap();
        as_table(rows.record_batch()).unwrap()
    }

    fn batch_of(offsets: Range<i64>, value_bytes: usize) -> Batch {
        let mut builder = BatchBuilder::new(Offset(offsets.start), Epoch(1));
        let value = vec![b'v'; value_bytes];
        for offset in offsets {
            builder.push(Timestamp(offset), None, &[], Some(&value));
        }
        builder.finish()
    }

    #[test]
    fn ranges_are_grouped_in_order_by_their_bytes() {
        let check = |bytes: &[u64], streams: usize, expected: &[usize]| {
            let ranges = bytes.iter().enumerate().map(|(index, bytes)| TailRange {
                partition: Partition::new(
                    StreamId::from_bytes([1; 16]),
                    PartitionIndex(u32::try_from(index).unwrap()),
                ),
                from: Offset(0),
                end: Offset(1),
                bytes: *bytes,
            });
            let ranges: Vec<_> = ranges.collect();
            let groups = group(ranges.clone(), streams);
            assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{bytes:?}");
            assert_eq!(groups.concat(), ranges);
        };
        check(&[], 2, &[]);
        check(&[5], 2, &[1]);
        check(&[5, 5, 5, 5], 2, &[1, 1, 1, 1]);
        check(&[5, 5, 5, 5, 5, 5], 2, &[3, 3]);
        check(&[100, 1, 1, 1, 1], 2, &[1, 4]);
        check(&[0, 0, 0, 0, 0, 0], 1, &[6]);
    }

    #[test]
    fn what_the_server_answers_is_checked() {
        let partition = Partition::new(StreamId::from_bytes([1; 16]), PartitionIndex(3));
        let bytes: Bytes = [batch_of(4..6, 9), batch_of(8..9, 9)]
            .iter()
            .flat_map(|b| b.bytes().to_vec())
            .collect();
        let check = |form: TailForm, times: usize, bytes: &Bytes, rows: Option<usize>| {
            let part = TailPart { form, appended: vec![Timestamp(1); times], next: Offset(9) };
            let parsed = parse(partition, &part, bytes.clone(), 1 << 20);
            assert_eq!(parsed.ok().map(|rows| rows.num_rows()), rows, "{form:?} {times}");
        };
        check(TailForm::Batches, 2, &bytes, Some(3));
        check(TailForm::Batches, 1, &bytes, None);
        check(TailForm::Batches, 2, &bytes.slice(..bytes.len() - 1), None);
        check(TailForm::Batches, 0, &Bytes::new(), Some(0));
        check(TailForm::Rows, 0, &Bytes::new(), Some(0));
        check(TailForm::Rows, 0, &bytes, None);
        let mut damaged = bytes.to_vec();
        damaged[80] ^= 1;
        check(TailForm::Batches, 2, &damaged.into(), None);
        let rows = Rows::from_batches(PartitionIndex(3), [(&batch_of(4..6, 9), Timestamp(1))], 99);
        let rows = rows.unwrap();
        let mut stored = Vec::new();
        let mut writer =
            arrow_ipc::writer::StreamWriter::try_new(&mut stored, &aquifer_chunk::schema())
                .unwrap();
        writer.write(rows.record_batch()).unwrap();
        writer.finish().unwrap();
        drop(writer);
        check(TailForm::Rows, 0, &stored.into(), Some(2));
    }
}
