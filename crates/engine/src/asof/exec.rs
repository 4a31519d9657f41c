//! The operator of an as-of join.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_datafusion_err, internal_err};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_expr::{
    EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr, PhysicalSortExpr,
};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, Partitioning, PlanProperties, SendableRecordBatchStream,
};

use super::merge::{Converters, Merge, Side};
use super::syntax::unknown;
use crate::refusal::external;

type Expr = Arc<dyn PhysicalExpr>;
type Input = Arc<dyn ExecutionPlan>;

/// Which of the rows on the right is the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nearest {
    /// The last one before, or else the first one behind.
    pub(super) is_before: bool,
    /// Whether one of the same time is near.
    pub(super) takes_equal: bool,
}

/// Merges two inputs that are sorted by keys and time.
#[derive(Debug)]
pub(crate) struct AsOfJoinExec {
    left: Input,
    right: Input,
    keys: Vec<(Expr, Expr)>,
    times: (Expr, Expr),
    nearest: Nearest,
    is_outer: bool,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl AsOfJoinExec {
    pub(super) fn try_new(
        (left, right): (Input, Input),
        keys: Vec<(Expr, Expr)>,
        times: (Expr, Expr),
        nearest: Nearest,
        is_outer: bool,
        schema: SchemaRef,
    ) -> Result<Self> {
        for (on_left, on_right) in keys.iter().chain([&times]) {
            let of_left = on_left.data_type(&left.schema())?;
            let of_right = on_right.data_type(&right.schema())?;
            // Rows are compared as bytes, which those of two types are not.
            let is_comparable = of_left == of_right
                && RowConverter::supports_fields(&[SortField::new(of_left.clone())]);
            if !is_comparable {
                return Err(external(unknown("values of these types cannot be compared in it")));
            }
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(left.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let metrics = ExecutionPlanMetricsSet::new();
        let properties = Arc::new(properties);
        Ok(Self { left, right, keys, times, nearest, is_outer, schema, properties, metrics })
    }

    fn on_left(&self) -> Vec<Expr> {
        self.keys.iter().map(|(left, _)| left.clone()).collect()
    }

    fn on_right(&self) -> Vec<Expr> {
        self.keys.iter().map(|(_, right)| right.clone()).collect()
    }

    fn converters(&self) -> Result<Converters> {
        let schema = self.left.schema();
        let field = |expr: &Expr| expr.data_type(&schema).map(SortField::new);
        let keys = self.keys.iter().map(|(left, _)| field(left)).collect::<Result<Vec<_>>>()?;
        let keys = if keys.is_empty() { None } else { Some(RowConverter::new(keys)?) };
        let times = RowConverter::new(vec![field(&self.times.0)?])?;
        Ok(Converters { keys, times })
    }
}

fn order(keys: Vec<Expr>, time: &Expr) -> Option<OrderingRequirements> {
    let by = |expr| PhysicalSortExpr { expr, options: SortOptions::default() };
    let order = LexOrdering::new(keys.into_iter().chain([time.clone()]).map(by));
    order.map(OrderingRequirements::from)
}

impl DisplayAs for AsOfJoinExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_outer { "Left" } else { "Inner" };
        write!(f, "AsOfJoinExec: {kind}, on=[")?;
        for (at, (left, right)) in self.keys.iter().enumerate() {
            write!(f, "{}({left}, {right})", if at == 0 { "" } else { ", " })?;
        }
        let op = match (self.nearest.is_before, self.nearest.takes_equal) {
            (true, true) => ">=",
            (true, false) => ">",
            (false, true) => "<=",
            (false, false) => "<",
        };
        write!(f, "], nearest={} {op} {}", self.times.0, self.times.1)
    }
}

impl ExecutionPlan for AsOfJoinExec {
    fn name(&self) -> &'static str {
        "AsOfJoinExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        self.input_distribution_requirements().into_per_child()
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        if self.keys.is_empty() {
            let alone = vec![Distribution::SinglePartition, Distribution::SinglePartition];
            return InputDistributionRequirements::new(alone);
        }
        InputDistributionRequirements::co_partitioned(vec![
            Distribution::KeyPartitioned(self.on_left()),
            Distribution::KeyPartitioned(self.on_right()),
        ])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![order(self.on_left(), &self.times.0), order(self.on_right(), &self.times.1)]
    }

    fn children(&self) -> Vec<&Input> {
        vec![&self.left, &self.right]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Input>) -> Result<Input> {
        let Ok([left, right]) = <[Input; 2]>::try_from(children) else {
            return internal_err!("an as-of join has two inputs");
        };
        Ok(Arc::new(Self::try_new(
            (left, right),
            self.keys.clone(),
            self.times.clone(),
            self.nearest,
            self.is_outer,
            self.schema.clone(),
        )?))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Expr) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let pairs = self.keys.iter().chain([&self.times]);
        for expr in pairs.flat_map(|(left, right)| [left, right]) {
            if f(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let count = |input: &Input| input.output_partitioning().partition_count();
        if count(&self.left) != count(&self.right) {
            return Err(internal_datafusion_err!(
                "an as-of join of {} parts with {}",
                count(&self.left),
                count(&self.right)
            ));
        }
        let left = self.left.execute(partition, context.clone())?;
        let right = self.right.execute(partition, context.clone())?;
        let memory = MemoryConsumer::new(format!("AsOfJoin[{partition}]"));
        let merge = Merge::new(
            Side::new(left, self.on_left(), self.times.0.clone()),
            Side::new(right, self.on_right(), self.times.1.clone()),
            self.converters()?,
            self.nearest,
            self.is_outer,
            self.schema.clone(),
            context.session_config().batch_size(),
            memory.register(context.memory_pool()),
        );
        let counted = BaselineMetrics::new(&self.metrics, partition);
        let rows =
            futures::stream::try_unfold((merge, counted), |(mut merge, counted)| async move {
                let Some(batch) = merge.next(counted.elapsed_compute()).await? else {
                    return Ok(None);
                };
                counted.record_output(batch.num_rows());
                Ok(Some((batch, (merge, counted))))
            });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
