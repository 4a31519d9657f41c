//! Which joins may be held in memory, and that all let others have their turn.
//!
//! A hash join keeps one side in memory and cannot put it to disk: where that
//! side is larger than a question may hold, it would fail after all its work.
//! Such joins become sort-merge joins, which spill. What is small, or cannot be
//! written as one, stays a hash join.

use std::sync::Arc;

use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::JoinType;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryLimit;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec,
};
use datafusion::physical_plan::{ExecutionPlan, StatisticsArgs, StatisticsContext};

use crate::asof::AsOfJoinExec;

/// A hash table of a side takes about so many times the side's own bytes, and
/// other operators want memory as well.
const MEMORY_SHARE: usize = 4;
/// About what a row takes where nothing better is known.
const ROW_BYTES_ASSUMED: usize = 64;
/// The rule behind which the sides of joins are fixed.
const SIDES_ARE_FIXED_BY: &str = "join_selection";
/// The rule that moves filters into scans, the first of its name.
const FILTERS_ARE_MOVED_BY: &str = "FilterPushdown";

/// The rules for the plans of a question that runs in `environment`: those of
/// DataFusion, and what is said above.
#[must_use]
pub(crate) fn physical_rules(
    environment: &RuntimeEnv,
) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    match environment.memory_pool.memory_limit() {
        MemoryLimit::Finite(bytes) => rules_with(bytes / MEMORY_SHARE),
        _ => filters_first(),
    }
}

/// DataFusion's rules, with filters moved into scans before the sides of joins
/// are fixed: what is known of the values of chunks is not known of the tail's,
/// so that only a filter right above the chunks is estimated by it.
fn filters_first() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    let place = |name| rules.iter().position(|rule| rule.name() == name);
    if let (Some(sides), Some(filters)) = (place(SIDES_ARE_FIXED_BY), place(FILTERS_ARE_MOVED_BY))
        && sides < filters
    {
        let rule = rules.remove(filters);
        rules.insert(sides, rule);
    }
    rules
}

fn rules_with(build_bytes_max: usize) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = filters_first();
    // Distribution and order, which a merge needs, are seen to by a later rule.
    let fixed = rules.iter().position(|rule| rule.name() == SIDES_ARE_FIXED_BY);
    rules.insert(fixed.map_or(0, |at| at + 1), Arc::new(SpillingJoins { build_bytes_max }));
    rules.push(Arc::new(YieldingJoins));
    rules
}

/// Makes joins give others their turn: one that makes many rows of few asks its
/// inputs seldom, and who adds its rows up would keep its thread for minutes.
#[derive(Debug)]
struct YieldingJoins;

impl PhysicalOptimizerRule for YieldingJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let changed = plan.transform_up(|plan| {
            let multiplies = plan.is::<CrossJoinExec>()
                || plan.is::<NestedLoopJoinExec>()
                || plan.is::<HashJoinExec>()
                || plan.is::<SortMergeJoinExec>()
                || plan.is::<AsOfJoinExec>();
            Ok(if multiplies {
                Transformed::yes(Arc::new(CooperativeExec::new(plan)) as _)
            } else {
                Transformed::no(plan)
            })
        })?;
        Ok(changed.data)
    }

    fn name(&self) -> &'static str {
        "yielding_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct SpillingJoins {
    build_bytes_max: usize,
}

impl PhysicalOptimizerRule for SpillingJoins {
    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let changed = plan.transform_up(|plan| {
            let join = plan.downcast_ref::<HashJoinExec>();
            Ok(match join.map(|join| self.merged(join)).transpose()?.flatten() {
                Some(merged) => Transformed::yes(merged),
                None => Transformed::no(plan),
            })
        })?;
        Ok(changed.data)
    }

    fn name(&self) -> &'static str {
        "spilling_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether a merge can compare the keys: the one for joins that only ask whether
/// there is a partner refuses these types when it runs, not when it is planned.
fn can_merge(join: &HashJoinExec) -> bool {
    use JoinType::{Full, Inner, Left, Right};
    if matches!(join.join_type(), Inner | Left | Right | Full) {
        return true;
    }
    let schema = join.left().schema();
    join.on().iter().all(|(key, _)| {
        key.data_type(&schema).is_ok_and(|of| {
            !of.is_nested()
                && !matches!(
                    of,
                    DataType::Timestamp(_, Some(_))
                        | DataType::Time32(_)
                        | DataType::Time64(_)
                        | DataType::Duration(_)
                        | DataType::Interval(_)
                        | DataType::Float16
                        | DataType::Decimal32(..)
                        | DataType::Decimal64(..)
                        | DataType::Decimal256(..)
                        | DataType::Dictionary(..)
                )
        })
    })
}

impl SpillingJoins {
    /// The join as one that spills; `None` where it is to stay as it is.
    fn merged(&self, join: &HashJoinExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        if join.null_aware
            || join.contains_projection()
            || !can_merge(join)
            || self.is_small(join.left())?
        {
            return Ok(None);
        }
        let merged = SortMergeJoinExec::try_new(
            join.left().clone(),
            join.right().clone(),
            join.on().to_vec(),
            join.filter().cloned(),
            *join.join_type(),
            vec![SortOptions::default(); join.on().len()],
            join.null_equality(),
        );
        // What a merge cannot do stays with the hash table.
        Ok(merged.ok().map(|merged| Arc::new(merged) as _))
    }

    fn is_small(&self, side: &Arc<dyn ExecutionPlan>) -> Result<bool> {
        let statistics = StatisticsContext::new().compute(side.as_ref(), &StatisticsArgs::new())?;
        let bytes = match (&statistics.total_byte_size, &statistics.num_rows) {
            (Precision::Exact(bytes) | Precision::Inexact(bytes), _) => Some(*bytes),
            (_, Precision::Exact(rows) | Precision::Inexact(rows)) => {
                // Texts that are wide say so.
                let known = statistics.column_statistics.iter();
                let known = known.filter_map(|column| column.byte_size.get_value());
                let known = known.fold(0, |sum: usize, bytes| sum.saturating_add(*bytes));
                Some(rows.saturating_mul(ROW_BYTES_ASSUMED).max(known))
            }
            _ => None,
        };
        // Nothing is known of what functions and aggregates make; most of them
        // make little.
        Ok(bytes.is_none_or(|bytes| bytes <= self.build_bytes_max))
    }
}

#[cfg(test)]
mod tests {
    use aquifer_env::TierStore;
    use aquifer_testkit::rand::SeedableRng;
    use aquifer_testkit::rand::rngs::StdRng;
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::execution::session_state::SessionStateBuilder;
    use datafusion::object_store::memory::InMemory;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use url::Url;

    use super::*;
    use crate::chunk_scan::STORE_URL;
    use crate::test_stream::{Shape, TestStream};

    #[tokio::test]
    async fn a_join_too_large_for_memory_is_merged_and_answers_the_same() {
        let shape = Shape { partitions: 1, batches: 200, chunks: 20, ..Shape::default() };
        let mut random = StdRng::seed_from_u64(1);
        let stream = TestStream::new(TierStore::in_memory(), &shape, &mut random).await;
        let cut = stream.whole();
        let sql = "SELECT count(*), sum(a._offset - b._offset) FROM s a JOIN s b \
                   ON a._offset = b._offset AND a._key = b._key";
        let mut answers = Vec::new();
        for (build_bytes_max, operator) in [(1 << 30, "HashJoinExec"), (64, "SortMergeJoinExec")] {
            let config = SessionConfig::new().with_target_partitions(2).with_batch_size(128);
            let state = SessionStateBuilder::new()
                .with_config(config)
                .with_default_features()
                .with_object_store(&Url::parse(STORE_URL).unwrap(), Arc::new(InMemory::new()))
                .with_physical_optimizer_rules(rules_with(build_bytes_max))
                .build();
            let context = SessionContext::new_with_state(state);
            context.register_table("s", stream.table(&cut, stream.reads(&cut))).unwrap();
            let plan = context.sql(&format!("EXPLAIN {sql}")).await.unwrap().collect().await;
            let plan = pretty_format_batches(&plan.unwrap()).unwrap().to_string();
            assert!(plan.contains(operator), "{build_bytes_max}: {plan}");
            let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
            answers.push(pretty_format_batches(&rows).unwrap().to_string());
        }
        assert_eq!(answers[0], answers[1]);
    }
}
