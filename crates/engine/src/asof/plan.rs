//! From the node to the operator.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SessionState;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, Operator, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use super::exec::{AsOfJoinExec, Nearest};
use super::node::AsOfJoin;
use crate::fields::HasJoins;

/// DataFusion's planner, that knows as-of joins, and lets scans know of others.
#[derive(Debug)]
pub(crate) struct AsOfPlanner;

#[async_trait]
impl QueryPlanner for AsOfPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Joins)]);
        let state = session.as_any().downcast_ref::<SessionState>();
        let Some(state) = state.filter(|_| has_joins(plan)) else {
            return planner.create_physical_plan(plan, session).await;
        };
        let mut state = state.clone();
        state.config_mut().set_extension(Arc::new(HasJoins));
        planner.create_physical_plan(plan, &state).await
    }
}

fn has_joins(plan: &LogicalPlan) -> bool {
    let mut has_joins = false;
    let visited = plan.apply_with_subqueries(|node| {
        has_joins |= matches!(node, LogicalPlan::Join(_));
        Ok(if has_joins { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    visited.is_ok() && has_joins
}

struct Joins;

#[async_trait]
impl ExtensionPlanner for Joins {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical: &[&LogicalPlan],
        physical: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(join) = node.as_any().downcast_ref::<AsOfJoin>() else { return Ok(None) };
        let ([left, right], [left_input, right_input]) = (logical, physical) else {
            return Ok(None);
        };
        let on_left =
            |expr: &_| planner.create_physical_expr(expr, left.schema(), session, context);
        let on_right =
            |expr: &_| planner.create_physical_expr(expr, right.schema(), session, context);
        let mut keys = Vec::new();
        for (left, right) in join.keys()? {
            keys.push((on_left(&left)?, on_right(&right)?));
        }
        let (left_time, op, right_time) = join.times()?;
        let times = (on_left(&left_time)?, on_right(&right_time)?);
        let nearest = Nearest {
            is_before: matches!(op, Operator::GtEq | Operator::Gt),
            takes_equal: matches!(op, Operator::GtEq | Operator::LtEq),
        };
        let schema = Arc::new(node.schema().as_arrow().clone());
        let exec = AsOfJoinExec::try_new(
            (left_input.clone(), right_input.clone()),
            keys,
            times,
            nearest,
            join.is_outer(),
            schema,
        )?;
        Ok(Some(Arc::new(exec)))
    }
}
