//! Puts derived columns into a statement's plan: where an expression reads a
//! field of an object, or a path of the JSON in `_value` that a field answers, it
//! reads a column of the scan.
//!
//! The rule goes first in every pass of the optimiser, so that what comes behind
//! it sees plain columns: filters over them reach the scan and prune. A column is
//! handed up only through what hands on every column, and cut off above the
//! expression that wanted it, so that no other part of the plan changes.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, TableReference, internal_err};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::logical_plan::TableScanBuilder;
use datafusion::logical_expr::{
    Expr, Filter, Join, Limit, LogicalPlan, LogicalPlanBuilder, Projection, Sort, SubqueryAlias,
    TableScan,
};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use super::access::Access;
use super::derived::Derived;
use crate::StreamTable;

/// The rule.
#[derive(Debug)]
pub(crate) struct FieldsAsColumns;

impl OptimizerRule for FieldsAsColumns {
    fn name(&self) -> &'static str {
        "fields_as_columns"
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        // Subqueries become joins first; the next pass finds them there.
        plan.transform_up(rewritten)
    }
}

/// A read that becomes a column.
struct Found {
    /// What a derived column is called.
    name: String,
    /// The column that is read, as the node's expressions call it.
    base: Column,
    /// Which input it comes from.
    input: usize,
    derived: Arc<Derived>,
    /// What the node's expressions call the derived column, once it is there.
    column: Option<Column>,
}

/// What a node does with the columns of its inputs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handing {
    /// It has columns of its own, and no others.
    Own,
    /// It hands them on, and columns of its own.
    OnNamed,
    /// It hands them on.
    On,
}

fn handing(plan: &LogicalPlan) -> Option<Handing> {
    match plan {
        LogicalPlan::Projection(_) => Some(Handing::Own),
        // A grouping set is one expression and has no name to keep.
        LogicalPlan::Aggregate(aggregate) => {
            let is_set = |expr: &Expr| matches!(expr, Expr::GroupingSet(_));
            (!aggregate.group_expr.iter().any(is_set)).then_some(Handing::Own)
        }
        LogicalPlan::Window(_) => Some(Handing::OnNamed),
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Join(_) => Some(Handing::On),
        _ => None,
    }
}

fn rewritten(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let Some(handing) = handing(&plan) else { return Ok(Transformed::no(plan)) };
    let mut found = Vec::new();
    plan.apply_expressions(|expr| {
        expr.apply(|expr| Ok(look(&plan, expr, &mut found)))?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if found.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let before: Vec<Expr> = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let mut input = 0;
    let plan = plan.map_children(|child| {
        let own: Vec<&mut Found> = found.iter_mut().filter(|found| found.input == input).collect();
        input += 1;
        match own.is_empty() {
            true => Ok(Transformed::no(child)),
            false => extended_for(child, own).map(Transformed::yes),
        }
    })?;
    let plan = plan.data;
    let names = NamePreserver::new(&plan);
    let plan = plan.map_expressions(|expr| {
        let name = (handing != Handing::On).then(|| names.save(&expr));
        let changed = expr.transform_down(|expr| Ok(replaced(expr, &found)))?;
        Ok(changed.update_data(|expr| match name {
            Some(name) => name.restore(expr),
            None => expr,
        }))
    })?;
    let plan = plan.data.recompute_schema()?;
    let plan = match handing {
        Handing::Own => plan,
        Handing::On | Handing::OnNamed => {
            LogicalPlanBuilder::from(plan).project(before)?.build()?
        }
    };
    Ok(Transformed::yes(plan))
}

/// Notes what `expr` reads, if a column can stand for it.
fn look(plan: &LogicalPlan, expr: &Expr, found: &mut Vec<Found>) -> TreeNodeRecursion {
    let Some(access) = Access::of(expr) else { return TreeNodeRecursion::Continue };
    let name = access.name();
    if found.iter().any(|known| known.name == name && known.base == access.base) {
        return TreeNodeRecursion::Jump;
    }
    let inputs = plan.inputs();
    let from = inputs.iter().enumerate().find_map(|(at, input)| {
        let derived = with_table(input, &access.base, &|table, name| {
            // What was given another name on the way is not what it says.
            (name == access.base.name).then(|| table.derived(&access))?
        })??;
        Some((at, derived))
    });
    let Some((input, derived)) = from else { return TreeNodeRecursion::Continue };
    let Access { base, .. } = access;
    found.push(Found { name, base, input, derived: Arc::new(derived), column: None });
    TreeNodeRecursion::Jump
}

fn replaced(expr: Expr, found: &[Found]) -> Transformed<Expr> {
    let Some(access) = Access::of(&expr) else { return Transformed::no(expr) };
    let name = access.name();
    let known = found.iter().find(|known| known.name == name && known.base == access.base);
    match known.and_then(|known| known.column.clone()) {
        Some(column) => Transformed::new(Expr::Column(column), true, TreeNodeRecursion::Jump),
        None => Transformed::no(expr),
    }
}

/// What `look` says of the table whose column of that name `column` is, where
/// nothing lies between that does not hand on every column.
fn with_table<T>(
    plan: &LogicalPlan,
    column: &Column,
    look: &dyn Fn(&StreamTable, &str) -> T,
) -> Option<T> {
    let at = plan.schema().maybe_index_of_column(column)?;
    match plan {
        LogicalPlan::TableScan(scan) => {
            let provider = source_as_provider(&scan.source).ok()?;
            provider.downcast_ref::<StreamTable>().map(|table| look(table, &column.name))
        }
        LogicalPlan::Projection(Projection { expr, input, .. }) => {
            with_table(input, handed_on(expr.get(at)?)?, look)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (relation, field) = alias.input.schema().qualified_field(at);
            with_table(&alias.input, &Column::new(relation.cloned(), field.name()), look)
        }
        LogicalPlan::Filter(Filter { input, .. })
        | LogicalPlan::Sort(Sort { input, .. })
        | LogicalPlan::Limit(Limit { input, .. }) => with_table(input, column, look),
        LogicalPlan::Join(Join { left, right, .. }) => {
            with_table(left, column, look).or_else(|| with_table(right, column, look))
        }
        _ => None,
    }
}

/// The column that an expression is, behind any alias.
fn handed_on(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => handed_on(&alias.expr),
        _ => None,
    }
}

/// The plan with the derived columns of what is `wanted` of it; each is told
/// what it is called there.
fn extended_for(plan: LogicalPlan, wanted: Vec<&mut Found>) -> Result<LogicalPlan> {
    let asked: Vec<(Column, Arc<Derived>)> =
        wanted.iter().map(|found| (found.base.clone(), found.derived.clone())).collect();
    let (plan, columns) = extended(plan, &asked)?;
    for (found, column) in wanted.into_iter().zip(columns) {
        found.column = Some(column);
    }
    Ok(plan)
}

/// The plan with each of these behind the column that it is read from, and what
/// it is called.
fn extended(
    plan: LogicalPlan,
    asked: &[(Column, Arc<Derived>)],
) -> Result<(LogicalPlan, Vec<Column>)> {
    match plan {
        LogicalPlan::TableScan(scan) => extended_scan(scan, asked),
        LogicalPlan::SubqueryAlias(alias) => {
            let below = asked.iter().map(|(base, derived)| {
                let at = alias.schema.index_of_column(base)?;
                let (relation, field) = alias.input.schema().qualified_field(at);
                Ok((Column::new(relation.cloned(), field.name()), derived.clone()))
            });
            let below = below.collect::<Result<Vec<_>>>()?;
            let (input, columns) = extended(Arc::unwrap_or_clone(alias.input), &below)?;
            let columns = columns
                .into_iter()
                .map(|column| Column::new(Some(alias.alias.clone()), column.name))
                .collect();
            let alias = SubqueryAlias::try_new(Arc::new(input), alias.alias)?;
            Ok((LogicalPlan::SubqueryAlias(alias), columns))
        }
        LogicalPlan::Projection(projection) => extended_projection(projection, asked),
        LogicalPlan::Join(join) => extended_join(join, asked),
        other => {
            // A filter, a sort or a limit.
            let mut columns = Vec::new();
            let plan = other.map_children(|child| {
                let (child, own) = extended(child, asked)?;
                columns = own;
                Ok(Transformed::yes(child))
            })?;
            Ok((plan.data.recompute_schema()?, columns))
        }
    }
}

fn extended_projection(
    projection: Projection,
    asked: &[(Column, Arc<Derived>)],
) -> Result<(LogicalPlan, Vec<Column>)> {
    let Projection { mut expr, input, schema, .. } = projection;
    let below = asked.iter().map(|(base, derived)| {
        let column = expr.get(schema.index_of_column(base)?).and_then(handed_on);
        match column {
            Some(column) => Ok((column.clone(), derived.clone())),
            None => internal_err!("{base} is not handed on"),
        }
    });
    let below = below.collect::<Result<Vec<_>>>()?;
    let (input, columns) = extended(Arc::unwrap_or_clone(input), &below)?;
    for column in &columns {
        let read = Expr::Column(column.clone());
        if !expr.contains(&read) {
            expr.push(read);
        }
    }
    let projection = Projection::try_new(expr, Arc::new(input))?;
    Ok((LogicalPlan::Projection(projection), columns))
}

fn extended_join(
    join: Join,
    asked: &[(Column, Arc<Derived>)],
) -> Result<(LogicalPlan, Vec<Column>)> {
    let is_left: Vec<bool> =
        asked.iter().map(|(base, _)| with_table(&join.left, base, &|_, _| ()).is_some()).collect();
    let side = |left: bool| {
        let own = asked.iter().zip(&is_left).filter(move |(_, is_left)| **is_left == left);
        own.map(|(asked, _)| asked.clone()).collect::<Vec<_>>()
    };
    let (left, of_left) = match side(true) {
        none if none.is_empty() => (join.left, Vec::new()),
        own => {
            let (plan, columns) = extended(Arc::unwrap_or_clone(join.left), &own)?;
            (Arc::new(plan), columns)
        }
    };
    let (right, of_right) = match side(false) {
        none if none.is_empty() => (join.right, Vec::new()),
        own => {
            let (plan, columns) = extended(Arc::unwrap_or_clone(join.right), &own)?;
            (Arc::new(plan), columns)
        }
    };
    let (mut of_left, mut of_right) = (of_left.into_iter(), of_right.into_iter());
    let columns = is_left
        .iter()
        .filter_map(|is_left| if *is_left { of_left.next() } else { of_right.next() })
        .collect();
    let join = LogicalPlan::Join(Join { left, right, ..join });
    Ok((join.recompute_schema()?, columns))
}

fn extended_scan(
    scan: TableScan,
    asked: &[(Column, Arc<Derived>)],
) -> Result<(LogicalPlan, Vec<Column>)> {
    let provider = source_as_provider(&scan.source)?;
    let Some(table) = provider.downcast_ref::<StreamTable>() else {
        return Ok((LogicalPlan::TableScan(scan), Vec::new()));
    };
    let table = table.with_derived(asked.iter().map(|(_, derived)| derived.clone()));
    let schema = datafusion::catalog::TableProvider::schema(&table);
    let mut projection = scan.projection.clone();
    let mut columns = Vec::with_capacity(asked.len());
    for (_, derived) in asked {
        let index = schema.index_of(derived.name())?;
        if let Some(projection) = &mut projection
            && !projection.contains(&index)
        {
            projection.push(index);
        }
        let relation: TableReference = scan.table_name.clone();
        columns.push(Column::new(Some(relation), derived.name()));
    }
    let builder =
        TableScanBuilder::new(scan.table_name.clone(), provider_as_source(Arc::new(table)))
            .with_projection(projection)
            .with_filters(scan.filters)
            .with_fetch(scan.fetch)
            .with_statistics_requests(scan.statistics_requests);
    Ok((LogicalPlan::TableScan(builder.build()?), columns))
}
