//! What PostgreSQL's SQL has and DataFusion's has not, written in other words.
//!
//! | PostgreSQL | becomes |
//! |---|---|
//! | `pg_catalog.f(…)` | `f(…)` |
//! | `x OPERATOR(pg_catalog.~) y`, `x COLLATE c` | `x ~ y`, `x` |
//! | `'audit'::regclass`, `x::regclass::text` | the id; the name |
//! | `x::pg_catalog.text`, `x::name`, `x::oid` | a cast to what there is |
//! | `x = ANY(list)`, `x <> ALL(list)` | `array_has`, or `IN` of what the list has |
//! | `x = ANY(ARRAY(SELECT …))` | `x IN (SELECT …)` |
//! | `(SELECT count(*) …)` of a catalog that never has rows | `0` |
//! | `current_schema`, `session_user` without parentheses | calls |
//! | `SELECT version()`, without FROM | `SELECT version() AS "version"` |
//! | `array_upper(list, 1)` | its length |
//! | `generate_series(…) AS n` | with a column of that name: `AS n (n)` |
//! | `pg_get_keywords()` and its like in FROM | a catalog |
//! | a SELECT from a catalog that never has rows, or of privileges | no rows, of the same columns |
//! | `SELECT c.oid, c.* FROM pg_class c` | `oid` is there once ([`wildcards`]) |
//! | `ARRAY(SELECT …)` from catalogs, a subquery over the search path | null; the search path |
//!
//! The statement is printed and read again afterwards, so nothing here relies on
//! positions in it.

mod empty;
mod lists;
mod types;

use std::ops::ControlFlow;

use aquifer_query::wire::Refusal;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArguments,
    GroupByExpr, Ident, ObjectName, Query, SelectItem, SetExpr, Statement, TableAlias,
    TableAliasColumnDef, TableFactor, TableWithJoins, Value, Visit, VisitMut as _, Visitor,
    VisitorMut, visit_relations,
};

use self::empty::{has_aggregate, reads_privileges};
use self::lists::{elements_of, member, unnested};
use self::types::{known_type, type_name};
use super::names::{Oids, namespace, type_of_name};
use super::{TABLES, information, titles, wildcards};
use crate::exprs::{boolean, call, literal, null, null_text, take, text};
use crate::refusal::{invalid, refusal};
use crate::sql::{INFORMATION, Listing, Named, PG_CATALOG};

/// Rewrites `statement`; whether there was anything to rewrite.
pub(super) fn rewrite(statement: &mut Statement, listing: &Listing) -> Result<bool, Refusal> {
    let mut defined = Defined::default();
    let _: ControlFlow<()> = Visit::visit(&*statement, &mut defined);
    let left = defined.leave(listing);
    let listing = left.as_ref().unwrap_or(listing);
    let mut rewriter =
        Rewriter { listing, oids: Oids::new(listing), is_changed: false, is_system: false };
    match statement.visit(&mut rewriter) {
        ControlFlow::Break(refusal) => return Err(refusal),
        ControlFlow::Continue(()) => {}
    }
    if rewriter.is_system {
        titles::name_all(statement);
        return Ok(true);
    }
    Ok(titles::name_calls(statement) || rewriter.is_changed)
}

/// The catalogs that a statement has queries of WITH for, which stand before
/// them.
#[derive(Debug, Default)]
struct Defined {
    names: Vec<String>,
}

impl Defined {
    /// The listing without them; none where there are none.
    fn leave(&self, listing: &Listing) -> Option<Listing> {
        let is_defined = |table: &String| self.names.contains(table);
        listing.system.iter().any(is_defined).then(|| {
            let mut left = listing.clone();
            left.system.retain(|table| !is_defined(table));
            left
        })
    }
}

impl Visitor for Defined {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.names.extend(tables.map(|cte| cte.alias.name.value.to_lowercase()));
        ControlFlow::Continue(())
    }
}

struct Rewriter<'a> {
    listing: &'a Listing,
    oids: Oids,
    is_changed: bool,
    /// A catalog is named.
    is_system: bool,
}

impl VisitorMut for Rewriter<'_> {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Refusal> {
        self.write_out(&mut query.body);
        if self.empty_out(&mut query.body, &null_text()) {
            // What the rows were ordered by is gone with them.
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Refusal> {
        if let TableFactor::Table { name, alias, args, .. } = table {
            if args.is_some() {
                self.unqualify(name);
                if let Some(catalog) = catalog_of_function(name) {
                    *name = catalog;
                    *args = None;
                    self.is_system = true;
                } else {
                    self.is_changed |= name_series(name, alias);
                }
            } else if self.catalog(name).is_some() || is_information(name) {
                self.is_system = true;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refusal> {
        if let Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } = expr
            && let Some(text) = literal(unnested(right))
            && elements_of(&text).is_none()
        {
            let message = format!("not a list of values: '{text}'; write '{{a,b}}' or ARRAY[…]");
            return ControlFlow::Break(invalid("invalid-value", "22P02", message));
        }
        let replaced = match expr {
            Expr::Subquery(query) if self.is_empty_query(query) => Some(null_text()),
            Expr::Subquery(query) if self.is_empty_count(query) => {
                Some(Expr::value(Value::Number("0".to_owned(), false)))
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                self.among(left, right)
            }
            Expr::Exists { subquery, negated } if self.is_empty_query(subquery) => {
                Some(boolean(*negated))
            }
            Expr::InSubquery { subquery, negated, .. } if self.is_empty_query(subquery) => {
                Some(boolean(*negated))
            }
            Expr::InSubquery { expr, subquery, negated } if is_search_path(subquery) => {
                let path = ["public", PG_CATALOG].map(text).to_vec();
                let expr = std::mem::replace(expr, Box::new(null_text()));
                Some(Expr::InList { expr, list: path, negated: *negated })
            }
            Expr::Function(function)
                if array_query(function).is_some_and(|query| self.is_of_catalogs(query)) =>
            {
                let texts = ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None);
                Some(null(DataType::Array(texts)))
            }
            Expr::Subquery(query) => {
                self.aggregate(query);
                None
            }
            _ => None,
        };
        if let Some(replaced) = replaced {
            self.is_changed = true;
            *expr = replaced;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refusal> {
        match self.replace(expr) {
            Ok(Some(replaced)) => {
                self.is_changed = true;
                *expr = replaced;
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(refusal) => ControlFlow::Break(refusal),
        }
    }
}

impl Rewriter<'_> {
    /// The catalog that a name means.
    fn catalog(&self, name: &ObjectName) -> Option<String> {
        match self.listing.resolve(name) {
            Ok(Named::System(PG_CATALOG, table)) => Some(table),
            _ => None,
        }
    }

    fn is_catalog_table(&self, factor: &TableFactor) -> bool {
        match factor {
            TableFactor::Table { name, args: None, .. } => self.catalog(name).is_some(),
            _ => false,
        }
    }

    /// Whether a query reads catalogs, and nothing else.
    fn is_of_catalogs(&self, query: &Query) -> bool {
        let with = query.with.iter().flat_map(|with| &with.cte_tables);
        let own: Vec<&str> = with.map(|cte| cte.alias.name.value.as_str()).collect();
        let mut is_any = false;
        let others = visit_relations(query, |name| {
            let is_own = own.iter().any(|own| name.to_string().eq_ignore_ascii_case(own));
            if !is_own && self.catalog(name).is_none() {
                return ControlFlow::Break(());
            }
            is_any = true;
            ControlFlow::Continue(())
        });
        is_any && others.is_continue()
    }

    /// Whether `left` is among the rows of `ARRAY(SELECT …)`; none where `right`
    /// is something else.
    fn among(&self, left: &mut Box<Expr>, right: &mut Box<Expr>) -> Option<Expr> {
        let Expr::Function(function) = unnested(right) else { return None };
        let query = array_query(function)?;
        let is_recursive = query.with.as_ref().is_some_and(|with| with.recursive);
        if is_recursive && self.is_of_catalogs(query) {
            // So it is asked which roles a role has by others: there are none.
            return Some(null(DataType::Boolean));
        }
        let subquery = Box::new(query.clone());
        Some(Expr::InSubquery { expr: Box::new(take(left)), subquery, negated: false })
    }

    /// Takes the schema off a function's name.
    fn unqualify(&mut self, name: &mut ObjectName) {
        let is_catalog = name.0.first().and_then(|part| part.as_ident()).is_some_and(|part| {
            part.value.eq_ignore_ascii_case(PG_CATALOG)
                || part.value.eq_ignore_ascii_case("information_schema")
        });
        if is_catalog && name.0.len() > 1 {
            name.0.remove(0);
            self.is_changed = true;
        }
    }

    /// Writes out what a SELECT has of a catalog twice.
    fn write_out(&mut self, body: &mut SetExpr) {
        match body {
            SetExpr::Select(select) => {
                let is_whole = reads_privileges(select);
                let columns = |name: &ObjectName| match self.listing.resolve(name) {
                    Ok(Named::System(PG_CATALOG, table)) => TABLES.columns(&table),
                    Ok(Named::System(INFORMATION, table)) => information::columns(&table),
                    _ => None,
                };
                self.is_changed |= wildcards::write_out(select, is_whole, columns);
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.write_out(left);
                self.write_out(right);
            }
            _ => {}
        }
    }

    /// A scalar subquery that may depend on the row around it has to be an
    /// aggregate for DataFusion. Of a catalog it has one row, whose greatest
    /// value it then is.
    fn aggregate(&mut self, query: &mut Query) {
        if query.limit_clause.is_some() {
            return;
        }
        let SetExpr::Select(select) = query.body.as_mut() else { return };
        let is_catalog = |from: &TableWithJoins| self.is_catalog_table(&from.relation);
        let is_plain = matches!(&select.group_by,
            GroupByExpr::Expressions(by, _) if by.is_empty())
            && !has_aggregate(select)
            && select.from.iter().all(is_catalog);
        if let ([SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }], true) =
            (select.projection.as_mut_slice(), is_plain)
        {
            let value = std::mem::replace(expr, null_text());
            *expr = call("max", vec![value]);
            query.order_by = None;
            self.is_changed = true;
        }
    }

    fn replace(&mut self, expr: &mut Expr) -> Result<Option<Expr>, Refusal> {
        Ok(match expr {
            Expr::Function(function) => {
                self.unqualify(&mut function.name);
                upper_bound(function)
            }
            Expr::Identifier(name) if name.quote_style.is_none() => {
                let special = ["current_schema", "session_user", "current_role"];
                let found = special.iter().find(|of| name.value.eq_ignore_ascii_case(of));
                found.map(|name| call(name, Vec::new()))
            }
            Expr::Collate { expr, .. } => Some(take(expr)),
            Expr::BinaryOp { op, .. } => {
                if let Some(known) = plain_operator(op) {
                    *op = known;
                    self.is_changed = true;
                }
                None
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                member(left, right, false)
            }
            Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => {
                member(left, right, true)
            }
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, ..
            } => self.cast(expr, data_type)?,
            _ => None,
        })
    }

    fn cast(
        &mut self,
        expr: &mut Box<Expr>,
        data_type: &mut DataType,
    ) -> Result<Option<Expr>, Refusal> {
        let Some(name) = type_name(data_type) else { return Ok(None) };
        // To an object: its id.
        if let Some(text) = literal(expr) {
            let id = match name.as_str() {
                "regclass" => Some(self.class(&text)?),
                "regtype" => type_of_name(&text).or(Some(0)),
                "regproc" | "regprocedure" => {
                    Some(if text.ends_with("array_in") { super::tables::ARRAY_IN } else { 0 })
                }
                "regnamespace" => Some(namespace(&text)),
                "regrole" => Some(super::names::OWNER_ID),
                _ => None,
            };
            if let Some(id) = id {
                return Ok(Some(Expr::value(Value::Number(id.to_string(), false))));
            }
        }
        let described = ["regclass", "regtype", "regproc", "regnamespace"];
        if let Some(described) = described.iter().find(|of| **of == name) {
            // A placeholder is looked up; an id that is read out is named.
            return Ok(Some(match expr.as_ref() {
                Expr::Value(_) => call("to_regclass", vec![take(expr)]),
                _ => call(&format!("{described}_name"), vec![take(expr)]),
            }));
        }
        if let Some(known) = known_type(&name) {
            *data_type = known;
            self.is_changed = true;
        }
        Ok(None)
    }

    fn class(&self, text: &str) -> Result<i64, Refusal> {
        self.oids.class(text).ok_or_else(|| {
            let mut unknown = self.listing.unknown(text);
            unknown.position = None;
            refusal(unknown.kind, "unknown-table", "42P01", unknown.message)
        })
    }
}

/// Whether a function has this name, in whatever schema.
fn is_called(name: &ObjectName, known: &str) -> bool {
    let last = name.0.last().and_then(|part| part.as_ident());
    last.is_some_and(|last| last.value.eq_ignore_ascii_case(known))
}

/// The catalog that has what a function in FROM gives.
fn catalog_of_function(name: &ObjectName) -> Option<ObjectName> {
    let function = name.0.last()?.as_ident()?.value.to_lowercase();
    let catalog = match function.as_str() {
        "pg_show_all_settings" => "pg_settings",
        other => other,
    };
    let is_known = TABLES.names().any(|table| table == catalog);
    is_known.then(|| ObjectName::from(vec![Ident::new(PG_CATALOG), Ident::new(catalog)]))
}

/// Gives the column of a series the name that PostgreSQL gives it: the alias, or
/// the function's own; whether it did.
fn name_series(name: &ObjectName, alias: &mut Option<TableAlias>) -> bool {
    let has_columns = alias.as_ref().is_some_and(|alias| !alias.columns.is_empty());
    if has_columns || !is_called(name, "generate_series") {
        return false;
    }
    let alias = alias.get_or_insert_with(|| TableAlias {
        explicit: true,
        name: Ident::new("generate_series"),
        columns: Vec::new(),
        at: None,
    });
    alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    true
}

fn is_information(name: &ObjectName) -> bool {
    name.0.iter().any(|part| {
        part.as_ident().is_some_and(|part| part.value.eq_ignore_ascii_case("information_schema"))
    })
}

/// Grafana asks which schemas are on the search path by taking it apart.
fn is_search_path(query: &Query) -> bool {
    query.to_string().to_lowercase().contains("current_setting('search_path')")
}

/// The query of `ARRAY(SELECT …)`.
fn array_query(function: &Function) -> Option<&Query> {
    match &function.args {
        FunctionArguments::Subquery(query)
            if function.name.to_string().eq_ignore_ascii_case("array") =>
        {
            Some(query)
        }
        _ => None,
    }
}

/// Lists begin at 1: the upper bound of one is its length.
fn upper_bound(function: &Function) -> Option<Expr> {
    if !function.name.to_string().eq_ignore_ascii_case("array_upper") {
        return None;
    }
    let mut length = function.clone();
    length.name = ObjectName::from(vec![Ident::new("array_length")]);
    Some(Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Function(length)),
        data_type: DataType::BigInt(None),
        array: false,
        format: None,
    })
}

/// `OPERATOR(pg_catalog.~)` and its like as operators.
fn plain_operator(op: &BinaryOperator) -> Option<BinaryOperator> {
    let BinaryOperator::PGCustomBinaryOperator(parts) = op else { return None };
    Some(match parts.last()?.as_str() {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "||" => BinaryOperator::StringConcat,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
