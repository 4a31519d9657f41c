//! What reads of catalogs that never have rows. It is known without looking, and
//! what DataFusion has no plan for may stand in it.

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, JoinOperator, Query, Select, SelectItem, SetExpr, TableFactor,
    TableWithJoins, Value,
};

use super::{Rewriter, is_called};
use crate::exprs::boolean;
use crate::pg_catalog::{TABLES, titles};

impl Rewriter<'_> {
    /// Whether a query counts the rows of a catalog that never has any.
    pub(super) fn is_empty_count(&self, query: &Query) -> bool {
        let SetExpr::Select(select) = query.body.as_ref() else { return false };
        let [SelectItem::UnnamedExpr(Expr::Function(function))] = select.projection.as_slice()
        else {
            return false;
        };
        let is_grouped =
            !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
        is_called(&function.name, "count")
            && !is_grouped
            && select.having.is_none()
            && select.from.iter().any(|from| self.is_empty_from(from))
    }

    /// Makes a SELECT that has no rows one that needs no tables, with `value` for
    /// each column; whether the whole of `body` is such.
    pub(super) fn empty_out(&mut self, body: &mut SetExpr, value: &Expr) -> bool {
        match body {
            SetExpr::Select(select) if self.is_empty_select(select) => {
                let Some(names) = titles::names_of(select) else { return false };
                select.projection = names
                    .into_iter()
                    .map(|name| SelectItem::ExprWithAlias {
                        expr: value.clone(),
                        alias: Ident::with_quote('"', name),
                    })
                    .collect();
                select.from = Vec::new();
                select.distinct = None;
                select.selection = Some(boolean(false));
                select.group_by = GroupByExpr::Expressions(Vec::new(), Vec::new());
                select.having = None;
                select.qualify = None;
                select.named_window = Vec::new();
                select.lateral_views = Vec::new();
                self.is_changed = true;
                self.is_system = true;
                true
            }
            SetExpr::SetOperation { left, right, .. } => {
                // The types are those of the other side.
                let value = Expr::value(Value::Null);
                let left = self.empty_out(left, &value);
                self.empty_out(right, &value) && left
            }
            _ => false,
        }
    }

    pub(super) fn is_empty_query(&self, query: &Query) -> bool {
        match query.body.as_ref() {
            SetExpr::Select(select) => self.is_empty_select(select),
            _ => false,
        }
    }

    /// Whether a SELECT reads of a catalog that never has rows, in a way that
    /// leaves none: not by an outer join, and not into an aggregate.
    fn is_empty_select(&self, select: &Select) -> bool {
        let is_grouped =
            !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
        (select.from.iter().any(|from| self.is_empty_from(from)) || reads_privileges(select))
            && (is_grouped || !has_aggregate(select))
    }

    fn is_empty_from(&self, from: &TableWithJoins) -> bool {
        let is_empty = self.is_empty_factor(&from.relation)
            || from.joins.iter().any(|join| {
                let is_inner = matches!(
                    join.join_operator,
                    JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
                );
                is_inner && self.is_empty_factor(&join.relation)
            });
        // These have the rows of their right side, whatever the left one has.
        let has_right = from.joins.iter().any(|join| {
            matches!(
                join.join_operator,
                JoinOperator::Right(_)
                    | JoinOperator::RightOuter(_)
                    | JoinOperator::FullOuter(_)
                    | JoinOperator::RightSemi(_)
                    | JoinOperator::RightAnti(_)
            )
        });
        is_empty && !has_right
    }

    fn is_empty_factor(&self, factor: &TableFactor) -> bool {
        match factor {
            TableFactor::Table { name, args: None, .. } => {
                self.catalog(name).is_some_and(|table| TABLES.is_empty(&table))
            }
            TableFactor::Derived { subquery, .. } => self.is_empty_query(subquery),
            TableFactor::NestedJoin { table_with_joins, .. } => {
                self.is_empty_from(table_with_joins)
            }
            _ => false,
        }
    }
}

pub(super) fn has_aggregate(select: &Select) -> bool {
    const AGGREGATES: [&str; 17] = [
        "count",
        "sum",
        "min",
        "max",
        "avg",
        "array_agg",
        "string_agg",
        "bool_or",
        "bool_and",
        "every",
        "json_agg",
        "jsonb_agg",
        "stddev",
        "stddev_samp",
        "stddev_pop",
        "variance",
        "median",
    ];
    let is_aggregate = |item: &SelectItem| {
        let text = item.to_string().to_lowercase();
        AGGREGATES.iter().any(|name| text.contains(&format!("{name}(")))
    };
    select.having.is_some() || select.projection.iter().any(is_aggregate)
}

/// Whether a SELECT has a row for each privilege that was granted: none was.
pub(super) fn reads_privileges(select: &Select) -> bool {
    select.projection.iter().any(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => explodes(expr),
        _ => false,
    })
}

/// Whether it is `aclexplode(…)` or a part of what that gives.
fn explodes(expr: &Expr) -> bool {
    match expr {
        Expr::CompoundFieldAccess { root: inner, .. }
        | Expr::Nested(inner)
        | Expr::Cast { expr: inner, .. } => explodes(inner),
        Expr::Function(function) => is_called(&function.name, "aclexplode"),
        _ => false,
    }
}
