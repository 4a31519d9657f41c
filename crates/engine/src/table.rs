//! A stream at one cut, as a table.
//!
//! ```text
//! StreamTable::new(&wire::Table, Reads, ScanOptions)      one a table and question
//!   Reads { chunks: Arc<ChunkAccess>                      one a process
//!         , tail_cache: Arc<TailCache>                    one a process
//!         , tail: Arc<dyn TailSource>                     the question's connection
//!         , usage: Arc<Usage> }                           one a question
//! ```
//!
//! It has exactly the records of the cut: those of chunks below the tiered
//! offset, those of the tail above it, none below the start or at and above the
//! end. Chunks' ranges lie side by side, so none is there twice.
//!
//! Which rows are decided upon before the rest of them is read ("late"): where a
//! heavy column (`_value`, `_headers`) is wanted, filters that do not touch one
//! are held against the small columns first, and only pages with rows that are
//! left are fetched and decoded. Where nothing heavy is wanted, that costs more
//! than it saves, and filters do no more than prune. Filters on heavy columns
//! are never pushed: there are no statistics of them, and they have to be
//! decoded anyway.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aquifer_query::wire::{Table, TablePartition};
use aquifer_types::{Offset, Partition};
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::{Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::{PhysicalExpr, conjunction};
use datafusion::physical_expr_adapter::PhysicalExprAdapterFactory;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::chunk_scan::{ChunkScan, CutChunk};
use crate::chunks::{ChunkAccess, ChunkReaders};
use crate::fields::{Access, Adapters, Columns, Computed, Derived, HasJoins, Known, Leaves, Part};
use crate::prune::{Bounds, Pruner, partition_value};
use crate::schema::{OFFSET, PARTITION, is_heavy};
use crate::stream_exec::StreamExec;
use crate::tail::{TailExec, TailRange, TailSource};
use crate::tail_cache::TailCache;
use crate::tail_columns::TailColumns;
use crate::usage::{ScanCounts, Usage};

/// What a question reads through. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reads {
    /// Tier 2; one a process.
    pub chunks: Arc<ChunkAccess>,
    /// The tails that earlier questions read; one a process.
    pub tail_cache: Arc<TailCache>,
    /// Where this question's tail is asked for.
    pub tail: Arc<dyn TailSource>,
    /// What this question takes.
    pub usage: Arc<Usage>,
}

/// Limits of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanOptions {
    /// About how many bytes of batches the server is asked for at once.
    pub tail_read_bytes: u64,
    /// The most bytes that one batch may have when decompressed.
    pub decompressed_bytes_max: usize,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { tail_read_bytes: 2 << 20, decompressed_bytes_max: 512 << 20 }
    }
}

/// So many footers are loaded at once to plan what is read of their chunks.
const FOOTERS_AT_ONCE: usize = 8;
/// The most footers that a plan loads; the chunks of more are read as they are.
const PLANNED_FOOTERS_MAX: usize = 1024;

/// A stream at one cut.
#[derive(Debug, Clone)]
pub struct StreamTable {
    columns: Arc<Columns>,
    /// By partition and offset.
    chunks: Arc<Vec<CutChunk>>,
    /// By partition.
    tails: Arc<Vec<TailRange>>,
    reads: Reads,
    options: ScanOptions,
}

impl StreamTable {
    /// The table that `table` describes.
    #[must_use]
    pub fn new(table: &Table, reads: Reads, options: ScanOptions) -> Self {
        let mut partitions: Vec<&TablePartition> = table.partitions.iter().collect();
        partitions.sort_by_key(|partition| partition.partition.index);
        let mut chunks = Vec::new();
        let mut tails = Vec::new();
        for partition in partitions {
            chunks.extend(cut_chunks(partition));
            let from = partition.tiered.max(partition.start);
            if from < partition.end {
                let TablePartition { partition, end, tail_bytes: bytes, .. } = *partition;
                tails.push(TailRange { partition, from, end, bytes });
            }
            reads.tail_cache.forget_below(partition.partition, partition.tiered);
        }
        reads.usage.add_chunks(chunks.len() as u64);
        let columns = Arc::new(Columns::new(table.schema.clone()));
        Self { columns, chunks: Arc::new(chunks), tails: Arc::new(tails), reads, options }
    }

    /// What answers `access` as a column of this table, if anything does.
    pub(crate) fn derived(&self, access: &Access) -> Option<Derived> {
        Derived::new(&self.columns, access)
    }

    /// The table with these columns behind its own.
    pub(crate) fn with_derived(&self, derived: impl IntoIterator<Item = Arc<Derived>>) -> Self {
        Self { columns: Arc::new(self.columns.with(derived)), ..self.clone() }
    }

    /// What is left of chunks and tails when `filter` is held against what is
    /// known of them.
    fn pruned(&self, filter: Option<&Arc<dyn PhysicalExpr>>) -> (Vec<CutChunk>, Vec<TailRange>) {
        let pruner = Pruner::new(filter, self.columns.schema());
        let bounds: Vec<Bounds> = self.chunks.iter().map(CutChunk::bounds).collect();
        let chunks = self.chunks.iter().zip(pruner.keep(&bounds));
        let bounds: Vec<Bounds> = self.tails.iter().map(tail_bounds).collect();
        let tails = self.tails.iter().zip(pruner.keep(&bounds));
        (
            chunks.filter(|(_, keep)| *keep).map(|(chunk, _)| chunk.clone()).collect(),
            tails.filter(|(_, keep)| *keep).map(|(tail, _)| *tail).collect(),
        )
    }

    fn physical_filter(
        &self,
        state: &dyn Session,
        filters: &[Expr],
    ) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let names = DFSchema::try_from(self.columns.schema().as_ref().clone())?;
        let filters: Vec<Arc<dyn PhysicalExpr>> = filters
            .iter()
            .map(|filter| state.create_physical_expr(filter.clone(), &names))
            .collect::<Result<_>>()?;
        Ok((!filters.is_empty()).then(|| conjunction(filters)))
    }
}

#[async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        self.columns.schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        // The plan's own filters decide; here they are for pruning. They are
        // moved into the scan when the plan is optimised.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.columns.schema();
        let all = || (0..schema.fields().len()).collect();
        let projection: Vec<usize> = projection.cloned().unwrap_or_else(all);
        let metrics = ExecutionPlanMetricsSet::new();
        let counts = ScanCounts::new(&metrics);
        let filter = self.physical_filter(state, filters)?;
        let (chunks, tails) = self.pruned(filter.as_ref());
        let chunks = self.pruned_within(filter.as_ref(), chunks, &counts).await?;
        counts.chunks.add(self.chunks.len());
        counts.chunks_pruned.add(self.chunks.len() - chunks.len());
        let bytes = chunks.iter().map(|chunk| chunk.meta.object_bytes);
        self.reads.usage.add_total(bytes.sum::<u64>() + tails.iter().map(|t| t.bytes).sum::<u64>());
        let limit = limit.filter(|_| filters.is_empty());

        let computed = self.columns.computed(state)?;
        let known = match state.config().get_extension::<HasJoins>() {
            Some(_) => self.known(&projection, &chunks).await?,
            None => Known::default(),
        };
        let planning =
            Planning { state, projection: &projection, limit, computed: &computed, known: &known };
        let mut inputs = self.chunk_plans(&planning, chunks, &counts)?;
        if !tails.is_empty() {
            let streams = state.config_options().execution.target_partitions;
            let columns = TailColumns::new(self.columns.clone(), &computed, &projection)?;
            let (reads, options) = (self.reads.clone(), self.options);
            let tail = TailExec::try_new(tails, columns, streams, reads, options, counts)?;
            inputs.push(tail.with_fetch(limit).unwrap_or_else(|| Arc::new(tail)));
        }
        if inputs.is_empty() {
            inputs.push(Arc::new(EmptyExec::new(Arc::new(schema.project(&projection)?))));
        }
        Ok(Arc::new(StreamExec::try_new(inputs, metrics)?))
    }
}

/// What the plans of one scan have in common.
struct Planning<'a> {
    state: &'a dyn Session,
    projection: &'a [usize],
    limit: Option<usize>,
    computed: &'a [Computed],
    /// What the chunks in which everything fits say of their fields.
    known: &'a Known,
}

impl StreamTable {
    /// The chunks with what is to be read of them, where their footers rule out
    /// a part; without those of which nothing is.
    async fn pruned_within(
        &self,
        filter: Option<&Arc<dyn PhysicalExpr>>,
        chunks: Vec<CutChunk>,
        counts: &ScanCounts,
    ) -> Result<Vec<CutChunk>> {
        let Some(leaves) = Leaves::new(&self.columns, filter) else { return Ok(chunks) };
        let leaves = &leaves;
        let each = chunks.into_iter().enumerate().map(|(at, chunk)| async move {
            let part = Part::of(&chunk.meta);
            if part == Part::Values || at >= PLANNED_FOOTERS_MAX {
                return Ok::<_, crate::Error>(Some(chunk));
            }
            let reader = self.reads.chunks.open(&chunk.meta, &self.reads.usage).await?;
            let Some(pruned) = leaves.prune(part, reader.footer().parquet()) else {
                return Ok(Some(chunk));
            };
            counts.leaf_row_groups_pruned.add(pruned.row_groups);
            counts.leaf_pages_pruned.add(pruned.pages);
            let is_nothing = pruned.is_nothing();
            let access = Some(Arc::new(pruned.plan));
            Ok((!is_nothing).then_some(CutChunk { access, ..chunk }))
        });
        let chunks: Vec<Option<CutChunk>> =
            stream::iter(each).buffered(FOOTERS_AT_ONCE).try_collect().await?;
        Ok(chunks.into_iter().flatten().collect())
    }

    /// What footers say of fields; nothing where there are too many of them.
    async fn known(&self, projection: &[usize], chunks: &[CutChunk]) -> Result<Known> {
        let mut known = Known::new(&self.columns, projection);
        let is_fitting = |chunk: &&CutChunk| Part::of(&chunk.meta) == Part::Fitting;
        let fitting: Vec<&CutChunk> = chunks.iter().filter(is_fitting).collect();
        if known.is_empty() || fitting.len() > PLANNED_FOOTERS_MAX {
            return Ok(Known::default());
        }
        // They are kept, and the question reads these chunks.
        let mut each = Vec::with_capacity(fitting.len());
        for chunk in fitting {
            each.push(self.reads.chunks.open(&chunk.meta, &self.reads.usage));
        }
        let mut readers = stream::iter(each).buffered(FOOTERS_AT_ONCE);
        while let Some(reader) = readers.try_next().await? {
            known.add(reader.footer().parquet());
        }
        Ok(known)
    }

    /// The plans that read chunks, part by part.
    fn chunk_plans(
        &self,
        planning: &Planning<'_>,
        chunks: Vec<CutChunk>,
        counts: &ScanCounts,
    ) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        if !self.columns.is_of_fields(planning.projection) {
            return self.part_plans(planning, None, chunks, counts);
        }
        let mut parts: BTreeMap<Part, Vec<CutChunk>> = BTreeMap::new();
        for chunk in chunks {
            parts.entry(Part::of(&chunk.meta)).or_default().push(chunk);
        }
        let mut plans = Vec::new();
        for (part, chunks) in parts {
            plans.extend(self.part_plans(planning, Some(part), chunks, counts)?);
        }
        Ok(plans)
    }

    /// The plans that read one part's chunks: one for those that lie within the
    /// cut, and one, with a filter, for those that are cut through.
    fn part_plans(
        &self,
        planning: &Planning<'_>,
        part: Option<Part>,
        chunks: Vec<CutChunk>,
        counts: &ScanCounts,
    ) -> Result<Vec<Arc<dyn ExecutionPlan>>> {
        let Planning { state, projection, limit, computed, known } = *planning;
        let schema = self.columns.schema();
        let is_heavy = |index: &usize| is_heavy(schema.field(*index).name().as_str());
        // Where a filter's columns are themselves made of the value, deciding by
        // them first would take every value apart twice.
        let is_plain = part.is_none_or(|part| part == Part::Fitting);
        let is_late = is_plain && projection.iter().any(is_heavy);
        let (cut, whole): (Vec<_>, Vec<_>) = chunks.into_iter().partition(CutChunk::is_cut);
        let readers = || ChunkReaders {
            access: self.reads.chunks.clone(),
            usage: self.reads.usage.clone(),
            counts: counts.clone(),
        };
        let adapters = part.map(|part| -> Arc<dyn PhysicalExprAdapterFactory> {
            Adapters::new(&self.columns, computed, part, projection)
        });
        let config = state.config_options();
        let known = (part == Some(Part::Fitting)).then_some(known);
        let scan = ChunkScan { schema, projection, is_late, limit, config, adapters, known };
        let mut plans = Vec::new();
        if !whole.is_empty() {
            plans.push(scan.plan(&whole, readers())?);
        }
        if !cut.is_empty() {
            let wider = self.with_place(projection);
            let scan = ChunkScan { projection: &wider, limit: None, ..scan };
            let filter = FilterExecBuilder::new(
                self.place_filter(&wider, &cut)?,
                scan.plan(&cut, readers())?,
            );
            let wanted = (0..projection.len()).collect();
            let filter: FilterExec = filter.apply_projection(Some(wanted))?.build()?;
            plans.push(Arc::new(filter));
        }
        Ok(plans)
    }

    /// The projection with `_partition` and `_offset` behind it, where it lacks
    /// them.
    fn with_place(&self, projection: &[usize]) -> Vec<usize> {
        let mut wider = projection.to_vec();
        for name in [PARTITION, OFFSET] {
            if let Ok(index) = self.columns.schema().index_of(name)
                && !wider.contains(&index)
            {
                wider.push(index);
            }
        }
        wider
    }

    /// Whether a row lies within the cut, over the columns of `projection`.
    fn place_filter(
        &self,
        projection: &[usize],
        cut: &[CutChunk],
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let schema = self.columns.schema().project(projection)?;
        let partition: Arc<dyn PhysicalExpr> =
            Arc::new(Column::new_with_schema(PARTITION, &schema)?);
        let offset: Arc<dyn PhysicalExpr> = Arc::new(Column::new_with_schema(OFFSET, &schema)?);
        let compare = |left: &Arc<dyn PhysicalExpr>, operator, right: Literal| {
            Arc::new(BinaryExpr::new(left.clone(), operator, Arc::new(right)))
                as Arc<dyn PhysicalExpr>
        };
        // All chunks of a partition are cut by the same start and end.
        let mut ranges: HashMap<Partition, (Offset, Offset)> = HashMap::new();
        for chunk in cut {
            let range = ranges.entry(chunk.meta.partition).or_insert((chunk.from, chunk.end));
            *range = (range.0.min(chunk.from), range.1.max(chunk.end));
        }
        let mut ranges: Vec<_> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let each = ranges.into_iter().map(|(at, (from, end))| {
            let index = Literal::new(partition_value(at.index).into());
            conjunction([
                compare(&partition, Operator::Eq, index),
                compare(&offset, Operator::GtEq, Literal::new(from.0.into())),
                compare(&offset, Operator::Lt, Literal::new(end.0.into())),
            ])
        });
        let either = |left: Arc<dyn PhysicalExpr>, right| -> Arc<dyn PhysicalExpr> {
            Arc::new(BinaryExpr::new(left, Operator::Or, right))
        };
        Ok(each.reduce(either).unwrap_or_else(|| Arc::new(Literal::new(true.into()))))
    }
}

/// The chunks of a partition that have records of the cut, in order.
pub(crate) fn cut_chunks(partition: &TablePartition) -> Vec<CutChunk> {
    let (start, end) = (partition.start, partition.tiered.min(partition.end));
    let within = partition.chunks.iter().filter(|chunk| {
        // Of nothing that lies within a chunk, the chunk has no part either.
        start < end && chunk.records > 0 && chunk.next > start && chunk.base < end
    });
    let mut chunks: Vec<CutChunk> = within
        .map(|chunk| CutChunk {
            meta: Arc::new(chunk.clone()),
            from: chunk.base.max(start),
            end: chunk.next.min(end),
            access: None,
        })
        .collect();
    chunks.sort_by_key(|chunk| chunk.meta.base);
    chunks
}

fn tail_bounds(tail: &TailRange) -> Bounds {
    Bounds {
        partition: tail.partition.index,
        base: tail.from,
        next: tail.end,
        timestamps: None,
        appended_max: None,
    }
}

#[cfg(test)]
mod tests;
