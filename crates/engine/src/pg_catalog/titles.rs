//! The names that PostgreSQL gives columns: clients of its catalogs read by name.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArguments, Ident, Query, Select, SelectItem, SetExpr, Statement, Value,
    VisitMut as _, VisitorMut,
};

/// Names the columns of all queries in a statement.
pub(super) fn name_all(statement: &mut Statement) {
    let _: ControlFlow<()> = statement.visit(&mut Namer { is_inner: false });
}

/// Names the columns of a statement that only calls functions, such as
/// `SELECT version()`, after these; whether there were any.
pub(super) fn name_calls(statement: &mut Statement) -> bool {
    let Statement::Query(query) = statement else { return false };
    let SetExpr::Select(select) = query.body.as_mut() else { return false };
    if !select.from.is_empty() {
        return false;
    }
    let mut taken = given_names(select);
    let mut is_changed = false;
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr @ Expr::Function(_)) = item
            && !is_array_query(expr)
        {
            *item = named(expr, &mut taken);
            is_changed = true;
        }
    }
    is_changed
}

#[derive(Debug)]
struct Namer {
    /// The outermost query has been seen: clients read no names of others.
    is_inner: bool,
}

impl VisitorMut for Namer {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let is_inner = std::mem::replace(&mut self.is_inner, true);
        if let SetExpr::Select(select) = query.body.as_mut() {
            let mut taken = given_names(select);
            for item in &mut select.projection {
                if let SelectItem::ExprWithAlias { alias, .. } = item
                    && alias.quote_style.is_none()
                    && !is_inner
                {
                    // Else it is spelled as a word that stands before it.
                    *alias = Ident::with_quote('"', folded(alias));
                }
                if let SelectItem::UnnamedExpr(expr) = item
                    && !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
                {
                    *item = named(expr, &mut taken);
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// An expression, with a name that none of `taken` is.
fn named(expr: &mut Expr, taken: &mut HashSet<String>) -> SelectItem {
    let alias = Ident::with_quote('"', free(taken, column_name(expr)));
    let expr = std::mem::replace(expr, Expr::value(Value::Null));
    SelectItem::ExprWithAlias { expr, alias }
}

/// The names that a SELECT gives to columns itself.
fn given_names(select: &Select) -> HashSet<String> {
    let name = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.clone()),
        _ => None,
    };
    select.projection.iter().filter_map(name).collect()
}

/// The names of a SELECT's columns; none where it does not name them all.
pub(super) fn names_of(select: &Select) -> Option<Vec<String>> {
    let mut taken = HashSet::new();
    let name = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::UnnamedExpr(expr) => Some(column_name(expr)),
        _ => None,
    };
    let named = select.projection.iter().map(|item| Some(free(&mut taken, name(item)?)));
    named.collect()
}

/// A name as PostgreSQL reads it: in lower case, unless it is in quotes.
fn folded(name: &Ident) -> String {
    match name.quote_style {
        Some(_) => name.value.clone(),
        None => name.value.to_lowercase(),
    }
}

/// A name that no other column has.
fn free(taken: &mut HashSet<String>, name: String) -> String {
    let mut own = name.clone();
    let mut count = 1;
    while !taken.insert(own.clone()) {
        count += 1;
        own = format!("{name}_{count}");
    }
    own
}

/// What PostgreSQL calls a column that has no name of its own.
fn column_name(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(name) => name.value.clone(),
        Expr::CompoundIdentifier(names) => {
            names.last().map_or_else(|| "?column?".to_owned(), |name| name.value.clone())
        }
        Expr::Function(function) => function
            .name
            .0
            .last()
            .and_then(|part| part.as_ident())
            .map_or_else(|| "?column?".to_owned(), |name| name.value.to_lowercase()),
        Expr::Cast { expr, .. } | Expr::Nested(expr) | Expr::Collate { expr, .. } => {
            column_name(expr)
        }
        Expr::Case { .. } => "case".to_owned(),
        Expr::Exists { .. } => "exists".to_owned(),
        _ => "?column?".to_owned(),
    }
}

/// Whether it is `ARRAY(SELECT …)`, which is read as a function too.
fn is_array_query(expr: &Expr) -> bool {
    matches!(expr, Expr::Function(function)
        if matches!(function.args, FunctionArguments::Subquery(_)))
}
