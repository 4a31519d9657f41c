//! An as-of join in a logical plan, and the rules about it.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchemaRef, JoinType, Result, internal_datafusion_err};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Extension, Filter, Join, LogicalPlan, Operator, UserDefinedLogicalNodeCore,
    build_join_schema,
};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::syntax::{MARK, unknown};
use crate::refusal::external;

/// Each row on the left with the nearest on the right.
///
/// Its conditions are comparisons of an expression over the left with one over
/// the right. They stay whole, so that their types are brought together as
/// those of all comparisons are; a rule may have turned their sides around.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AsOfJoin {
    left: Arc<LogicalPlan>,
    right: Arc<LogicalPlan>,
    equalities: Vec<Expr>,
    nearest: Expr,
    is_outer: bool,
    schema: DFSchemaRef,
}

impl AsOfJoin {
    fn try_new(
        left: Arc<LogicalPlan>,
        right: Arc<LogicalPlan>,
        equalities: Vec<Expr>,
        nearest: Expr,
        is_outer: bool,
    ) -> Result<Self> {
        let kind = if is_outer { JoinType::Left } else { JoinType::Inner };
        let schema = Arc::new(build_join_schema(left.schema(), right.schema(), &kind)?);
        Ok(Self { left, right, equalities, nearest, is_outer, schema })
    }

    /// The join that `join` is, whose condition is marked.
    fn of(join: &Join, condition: Expr) -> Result<Self> {
        let is_outer = match join.join_type {
            JoinType::Inner => false,
            JoinType::Left => true,
            _ => return Err(external(unknown("it is ASOF JOIN or ASOF LEFT JOIN"))),
        };
        let (mut equalities, mut nearest) = (Vec::new(), None);
        for part in split_conjunction_owned(condition) {
            let comparison = oriented(&part, join.left.schema(), join.right.schema());
            let Some(comparison) = comparison.filter(|_| !has_subquery(&part)) else {
                return Err(external(unknown(
                    "each part of its condition compares a value of the left side with one of \
                     the right side",
                )));
            };
            match comparison.op {
                Operator::Eq => equalities.push(Expr::BinaryExpr(comparison)),
                _ if nearest.is_none() => nearest = Some(Expr::BinaryExpr(comparison)),
                _ => return Err(external(unknown("it has more than one of >=, >, <= and <"))),
            }
        }
        let Some(nearest) = nearest else {
            return Err(external(unknown("it has none of >=, >, <= and <")));
        };
        Self::try_new(join.left.clone(), join.right.clone(), equalities, nearest, is_outer)
    }

    pub(super) fn is_outer(&self) -> bool {
        self.is_outer
    }

    /// The equalities, left and right.
    pub(super) fn keys(&self) -> Result<Vec<(Expr, Expr)>> {
        let sides = |expr| self.sides(expr).map(|(left, _, right)| (left, right));
        self.equalities.iter().map(sides).collect()
    }

    /// The times, and how that of the left is compared with that of the right.
    pub(super) fn times(&self) -> Result<(Expr, Operator, Expr)> {
        self.sides(&self.nearest)
    }

    fn sides(&self, expr: &Expr) -> Result<(Expr, Operator, Expr)> {
        let comparison = oriented(expr, self.left.schema(), self.right.schema());
        let BinaryExpr { left, op, right } = comparison
            .ok_or_else(|| internal_datafusion_err!("{expr} is no condition of an as-of join"))?;
        Ok((*left, op, *right))
    }
}

/// A comparison with the side of `left` on its left, if it has such sides.
fn oriented(expr: &Expr, left: &DFSchemaRef, right: &DFSchemaRef) -> Option<BinaryExpr> {
    // A comparison that the simplifier turned round is wrapped in its old name.
    let expr = match expr {
        Expr::Alias(alias) => alias.expr.as_ref(),
        other => other,
    };
    let Expr::BinaryExpr(comparison) = expr else { return None };
    let is_of = |expr: &Expr, schema: &DFSchemaRef| {
        let columns = expr.column_refs();
        !columns.is_empty()
            && !expr.contains_outer()
            && columns.iter().all(|column| schema.has_column(column))
    };
    let op = comparison.op;
    if !matches!(op, Operator::Eq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq) {
        return None;
    }
    if is_of(&comparison.left, left) && is_of(&comparison.right, right) {
        return Some(comparison.clone());
    }
    let is_turned = is_of(&comparison.left, right) && is_of(&comparison.right, left);
    let op = op.swap().filter(|_| is_turned)?;
    Some(BinaryExpr { left: comparison.right.clone(), op, right: comparison.left.clone() })
}

fn has_subquery(expr: &Expr) -> bool {
    expr.exists(|part| {
        Ok(matches!(
            part,
            Expr::ScalarSubquery(_)
                | Expr::InSubquery(_)
                | Expr::Exists(_)
                | Expr::SetComparison(_)
        ))
    })
    .unwrap_or(true)
}

impl PartialOrd for AsOfJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for AsOfJoin {
    fn name(&self) -> &'static str {
        "AsOfJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.equalities.iter().chain([&self.nearest]).cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_outer { "AsOfJoin: Left" } else { "AsOfJoin: Inner" })?;
        for equality in &self.equalities {
            write!(f, " {equality}")?;
        }
        write!(f, " nearest {}", self.nearest)
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        let wrong = || internal_datafusion_err!("an as-of join has two inputs and its conditions");
        let nearest = exprs.pop().ok_or_else(wrong)?;
        let [left, right] = <[LogicalPlan; 2]>::try_from(inputs).map_err(|_| wrong())?;
        Self::try_new(Arc::new(left), Arc::new(right), exprs, nearest, self.is_outer)
    }

    fn necessary_children_exprs(&self, output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let width = self.left.schema().fields().len();
        let left = output.iter().copied().filter(|column| *column < width).collect();
        let right = output.iter().filter_map(|column| column.checked_sub(width)).collect();
        Some(vec![left, right])
    }
}

/// The plan with as-of joins in the place of joins whose condition is marked.
pub(crate) fn unmarked(plan: LogicalPlan) -> Result<LogicalPlan> {
    let changed = plan.transform_up_with_subqueries(|plan| {
        let LogicalPlan::Join(join) = &plan else { return Ok(Transformed::no(plan)) };
        let Some(condition) = condition_of(join) else { return Ok(Transformed::no(plan)) };
        let node = AsOfJoin::of(join, condition)?;
        Ok(Transformed::yes(LogicalPlan::Extension(Extension { node: Arc::new(node) })))
    })?;
    Ok(changed.data)
}

fn condition_of(join: &Join) -> Option<Expr> {
    match join.filter.as_ref()? {
        Expr::ScalarFunction(call) if call.func.name() == MARK => call.args.first().cloned(),
        _ => None,
    }
}

/// Filters what is left of an as-of join before it is joined, where the filter
/// looks at nothing else: a row on the left does not change what others find.
#[derive(Debug)]
pub(crate) struct FilterBeneath;

impl OptimizerRule for FilterBeneath {
    fn name(&self) -> &'static str {
        "filter_beneath_asof_join"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else { return Ok(Transformed::no(plan)) };
        let LogicalPlan::Extension(Extension { node }) = filter.input.as_ref() else {
            return Ok(Transformed::no(plan));
        };
        let Some(join) = node.as_any().downcast_ref::<AsOfJoin>() else {
            return Ok(Transformed::no(plan));
        };
        let is_of_left = |part: &Expr| {
            let columns = part.column_refs();
            !columns.is_empty()
                && !part.is_volatile()
                && !has_subquery(part)
                && columns.iter().all(|column| join.left.schema().has_column(column))
        };
        let (beneath, above): (Vec<_>, Vec<_>) =
            split_conjunction_owned(filter.predicate.clone()).into_iter().partition(is_of_left);
        let Some(beneath) = conjunction(beneath) else { return Ok(Transformed::no(plan)) };
        let left = LogicalPlan::Filter(Filter::try_new(beneath, join.left.clone())?);
        let join = AsOfJoin { left: Arc::new(left), ..join.clone() };
        let joined = LogicalPlan::Extension(Extension { node: Arc::new(join) });
        Ok(Transformed::new(
            match conjunction(above) {
                Some(above) => LogicalPlan::Filter(Filter::try_new(above, Arc::new(joined))?),
                None => joined,
            },
            true,
            TreeNodeRecursion::Continue,
        ))
    }
}
