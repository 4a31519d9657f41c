//! The parts of a stream's scan side by side: chunks, and the tail.
//!
//! As a union of them would, it hands filters, projections and limits on to each
//! part. Beyond that it decides which filters go into the scan of chunks (those
//! that touch no heavy column), asks for an order only when the question has
//! one (chunks and tail are in the order of offsets, and nearly in that of
//! time), and shows what was left out and read.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Statistics, internal_datafusion_err};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr, conjunction};
use datafusion::physical_plan::execution_plan::{
    CardinalityEffect, ChildrenPropertiesMode, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::filter_pushdown::{
    ChildFilterDescription, ChildPushdownResult, FilterDescription, FilterPushdownPhase,
    FilterPushdownPropagation, PushedDown,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::{ProjectionExec, make_with_child};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{
    ChildStats, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    PlanProperties, SendableRecordBatchStream, SortOrderPushdownResult, StatisticsArgs,
};

use crate::chunk_scan::in_offset_order;
use crate::estimate::{passing, with_distinct};
use crate::schema::is_heavy;
use crate::tail::TailExec;

/// The scan of one stream.
#[derive(Debug, Clone)]
pub(crate) struct StreamExec {
    inputs: Vec<Arc<dyn ExecutionPlan>>,
    /// A union of the inputs; the input itself where there is only one.
    union: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl StreamExec {
    /// The parts `inputs`, of one schema and not none. `metrics` has what their
    /// readers count.
    pub(crate) fn try_new(
        inputs: Vec<Arc<dyn ExecutionPlan>>,
        metrics: ExecutionPlanMetricsSet,
    ) -> Result<Self> {
        let union = UnionExec::try_new(inputs.clone())?;
        let inputs = match inputs.len() {
            1 => inputs,
            // With what a union does to make their schemas one.
            _ => union.children().into_iter().cloned().collect(),
        };
        let mut properties = Arc::clone(union.properties());
        if inputs.len() > 1 {
            // What is the same in each input, such as a partition's number, but not
            // in all: a sort that is pushed down takes it for one that it need not
            // look at, and its merge does so too.
            let mut equivalences = properties.eq_properties.clone();
            equivalences.clear_per_partition_constants();
            let own = PlanProperties::clone(&properties).with_eq_properties(equivalences);
            properties = Arc::new(own);
        }
        Ok(Self { inputs, union, properties, metrics })
    }

    fn with_inputs(&self, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Self> {
        Self::try_new(inputs, self.metrics.clone())
    }

    fn is_single(&self) -> bool {
        self.inputs.len() == 1
    }
}

impl DisplayAs for StreamExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamExec")
    }
}

impl ExecutionPlan for StreamExec {
    fn name(&self) -> &'static str {
        "StreamExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        match self.is_single() {
            true => vec![true],
            false => self.union.maintains_input_order(),
        }
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false; self.inputs.len()]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.inputs.iter().collect()
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.with_inputs(children)?))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let mut at = partition;
        for input in &self.inputs {
            let streams = input.output_partitioning().partition_count();
            match at.checked_sub(streams) {
                None => return input.execute(at, context),
                Some(behind) => at = behind,
            }
        }
        Err(internal_datafusion_err!("the scan of a stream has no part {partition}"))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        args: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        if args.partition().is_some() {
            return match (inputs, self.is_single()) {
                ([input], true) => Ok(input.clone()),
                _ => self.union.statistics_from_inputs(inputs, args),
            };
        }
        let inputs: Vec<Arc<Statistics>> =
            inputs.iter().zip(&self.inputs).map(|(of, input)| filtered(of, input)).collect();
        if let ([input], true) = (inputs.as_slice(), self.is_single()) {
            return Ok(input.clone());
        }
        let union = self.union.statistics_from_inputs(&inputs, args)?;
        Ok(Arc::new(with_distinct(Arc::unwrap_or_clone(union), &inputs)))
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        match self.is_single() {
            true => vec![ChildStats::At(partition)],
            false => self.union.child_stats_requests(partition),
        }
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::GreaterEqual
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExec,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        // One that does not narrow is cheaper once than in each part.
        if projection.expr().len() >= self.schema().fields().len() && !self.is_single() {
            return Ok(None);
        }
        let inputs = self.inputs.iter().map(|input| make_with_child(projection, input));
        Ok(Some(Arc::new(self.with_inputs(inputs.collect::<Result<_>>()?)?)))
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let mut description = FilterDescription::new();
        for input in &self.inputs {
            // A column that a filter may not refer to makes it one that is not
            // pushed into this input.
            let schema = input.schema();
            let is_light =
                |index: &usize| is_tail(input) || !is_heavy(schema.field(*index).name().as_str());
            let allowed = (0..schema.fields().len()).filter(is_light).collect();
            description = description.with_child(
                ChildFilterDescription::from_child_with_allowed_indices(&filters, allowed, input)?,
            );
        }
        Ok(description)
    }

    fn handle_child_pushdown_result(
        &self,
        phase: FilterPushdownPhase,
        pushed: ChildPushdownResult,
        _: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn ExecutionPlan>>> {
        if phase != FilterPushdownPhase::Pre {
            return Ok(FilterPushdownPropagation::if_all(pushed));
        }
        // What an input does not take is filtered right above it, so that the
        // others need not be filtered twice.
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for (at, input) in self.inputs.iter().enumerate() {
            let is_left = |result: &PushedDown| matches!(result, PushedDown::No);
            let left: Vec<Arc<dyn PhysicalExpr>> = pushed
                .parent_filters
                .iter()
                .filter(|filter| filter.child_results.get(at).is_none_or(is_left))
                .map(|filter| filter.filter.clone())
                .collect();
            inputs.push(match left.is_empty() {
                true => input.clone(),
                false => Arc::new(FilterExec::try_new(conjunction(left), input.clone())?) as _,
            });
        }
        let filters = vec![PushedDown::Yes; pushed.parent_filters.len()];
        Ok(FilterPushdownPropagation::with_parent_pushdown_result(filters)
            .with_updated_node(Arc::new(self.with_inputs(inputs)?)))
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        let mut inputs = Vec::with_capacity(self.inputs.len());
        let (mut is_exact, mut is_changed) = (true, false);
        for input in &self.inputs {
            match sorted(input, order)? {
                SortOrderPushdownResult::Exact { inner } => {
                    inputs.push(inner);
                    is_changed = true;
                }
                SortOrderPushdownResult::Inexact { inner } => {
                    inputs.push(inner);
                    is_exact = false;
                    is_changed = true;
                }
                SortOrderPushdownResult::Unsupported => {
                    inputs.push(input.clone());
                    is_exact = false;
                }
            }
        }
        if !is_changed {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        let inner: Arc<dyn ExecutionPlan> = Arc::new(self.with_inputs(inputs)?);
        let is_sorted = inner.equivalence_properties().ordering_satisfy(order.iter().cloned())?;
        // A sort over several streams also makes one of them, which nobody would
        // do in its place.
        let is_one = inner.output_partitioning().partition_count() == 1;
        Ok(match is_exact && is_sorted && is_one {
            true => SortOrderPushdownResult::Exact { inner },
            false => SortOrderPushdownResult::Inexact { inner },
        })
    }
}

/// The statistics of an input, fewer where its scan decides upon rows itself,
/// which it does not count in.
fn filtered(of: &Arc<Statistics>, input: &Arc<dyn ExecutionPlan>) -> Arc<Statistics> {
    let scan = input.downcast_ref::<DataSourceExec>();
    let config = scan.and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>());
    if config.is_none_or(|config| config.file_source().filter().is_none()) {
        return of.clone();
    }
    Arc::new(passing(of.as_ref().clone()))
}

/// Whether an input reads the tail, where nothing is saved by looking at small
/// columns first: it is in memory.
fn is_tail(input: &Arc<dyn ExecutionPlan>) -> bool {
    input.is::<TailExec>()
}

/// An input in the order wanted, or nearer to it.
fn sorted(
    input: &Arc<dyn ExecutionPlan>,
    order: &[PhysicalSortExpr],
) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
    let satisfies = |plan: &Arc<dyn ExecutionPlan>| {
        plan.equivalence_properties().ordering_satisfy(order.iter().cloned())
    };
    let by_offset = regrouped(input)?;
    if satisfies(&by_offset)? {
        return Ok(SortOrderPushdownResult::Exact { inner: by_offset });
    }
    // What does not change the order of rows lets the wish through.
    if let Some(filter) = input.downcast_ref::<FilterExec>() {
        let below = beneath(order, |index| {
            let index = match filter.projection() {
                Some(projection) => *projection.get(index)?,
                None => index,
            };
            Some(Column::new(filter.input().schema().fields().get(index)?.name(), index))
        });
        return nearer(input, filter.input(), below);
    }
    if let Some(projection) = input.downcast_ref::<ProjectionExec>() {
        let below = beneath(order, |index| {
            projection.expr().get(index)?.expr.downcast_ref::<Column>().cloned()
        });
        return nearer(input, projection.input(), below);
    }
    input.try_pushdown_sort(order)
}

/// The order in terms of a plan's input, where it is one of plain columns.
fn beneath(
    order: &[PhysicalSortExpr],
    column: impl Fn(usize) -> Option<Column>,
) -> Option<Vec<PhysicalSortExpr>> {
    let each = order.iter().map(|by| {
        let expr = Arc::new(column(by.expr.downcast_ref::<Column>()?.index())?);
        Some(PhysicalSortExpr { expr, options: by.options })
    });
    each.collect()
}

/// `plan` over its only input, which is nearer to the order wanted.
fn nearer(
    plan: &Arc<dyn ExecutionPlan>,
    input: &Arc<dyn ExecutionPlan>,
    order: Option<Vec<PhysicalSortExpr>>,
) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
    let Some(order) = order else { return Ok(SortOrderPushdownResult::Unsupported) };
    Ok(match sorted(input, &order)? {
        SortOrderPushdownResult::Exact { inner } | SortOrderPushdownResult::Inexact { inner } => {
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            let inner = plan.clone().replace_children(vec![inner], options)?;
            SortOrderPushdownResult::Inexact { inner }
        }
        SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
    })
}

/// The plan with its scans of chunks in the order of offsets, where they can be.
fn regrouped(input: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let ordered = input.clone().transform_down(|plan| {
        let scan = plan.downcast_ref::<DataSourceExec>();
        let config = scan.and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>());
        let streams = plan.output_partitioning().partition_count();
        Ok(match config.and_then(|config| in_offset_order(config, streams)) {
            Some(config) => Transformed::yes(DataSourceExec::from_data_source(config) as _),
            None => Transformed::no(plan),
        })
    })?;
    Ok(ordered.data)
}
