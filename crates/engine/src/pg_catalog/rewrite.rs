//! What PostgreSQL's SQL has and DataFusion's has not, written in other words.
//!
//! | PostgreSQL | becomes |
//! |---|---|
//! | `pg_catalog.f(…)` | `f(…)` |
//! | `x OPERATOR(pg_catalog.~) y`, `x COLLATE c` | `x ~ y`, `x` |
//! | `'audit'::regclass`, `x::regclass::text` | the id; the name |
//! | `x::pg_catalog.text`, `x::name`, `x::oid` | a cast to what there is |
//! | `x = ANY(list)`, `x <> ALL(list)` | `array_has`, or `IN` of what the list has |
//! | `current_schema`, `session_user` without parentheses | calls |
//! | `array_upper(list, 1)` | its length |
//! | a SELECT from a catalog that never has rows | no rows, of the same columns |
//! | `ARRAY(SELECT …)` from catalogs, a subquery over the search path | null; the search path |
//!
//! The statement is printed and read again afterwards, so nothing here relies on
//! positions in it.

use std::collections::HashSet;
use std::ops::ControlFlow;

use aquifer_query::wire::Refusal;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, JoinOperator, ObjectName, Query,
    Select, SelectItem, SetExpr, Statement, TableFactor, TableWithJoins, UnaryOperator, Value,
    VisitMut, VisitorMut,
};

use super::TABLES;
use super::names::{Oids, type_of_name};
use crate::refusal::refusal;
use crate::sql::{Listing, Named, PG_CATALOG};

/// Rewrites `statement`; whether there was anything to rewrite.
pub(super) fn rewrite(statement: &mut Statement, listing: &Listing) -> Result<bool, Refusal> {
    let mut rewriter =
        Rewriter { listing, oids: Oids::new(listing), is_changed: false, is_system: false };
    match statement.visit(&mut rewriter) {
        ControlFlow::Break(refusal) => return Err(refusal),
        ControlFlow::Continue(()) => {}
    }
    if rewriter.is_system {
        let _: ControlFlow<()> = statement.visit(&mut Namer);
    }
    Ok(rewriter.is_changed || rewriter.is_system)
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
        if self.empty_out(&mut query.body) {
            // What the rows were ordered by is gone with them.
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Refusal> {
        if let TableFactor::Table { name, args, .. } = table {
            if args.is_some() {
                self.unqualify(name);
            } else if self.catalog(name).is_some() || is_information(name) {
                self.is_system = true;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refusal> {
        let replaced = match expr {
            Expr::Subquery(query) if self.is_empty_query(query) => Some(null_text()),
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
                Some(null_text())
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

    /// Whether a query is a SELECT from catalogs, and from nothing else.
    fn is_of_catalogs(&self, query: &Query) -> bool {
        let SetExpr::Select(select) = query.body.as_ref() else { return false };
        let is_catalog = |from: &TableWithJoins| {
            self.is_catalog_table(&from.relation)
                && from.joins.iter().all(|join| self.is_catalog_table(&join.relation))
        };
        query.with.is_none() && !select.from.is_empty() && select.from.iter().all(is_catalog)
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

    /// Makes a SELECT that has no rows one that needs no tables; whether the
    /// whole of `body` is such.
    fn empty_out(&mut self, body: &mut SetExpr) -> bool {
        match body {
            SetExpr::Select(select) if self.is_empty_select(select) => {
                let Some(names) = names_of(select) else { return false };
                select.projection = names
                    .into_iter()
                    .map(|name| SelectItem::ExprWithAlias {
                        expr: null_text(),
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
                let left = self.empty_out(left);
                self.empty_out(right) && left
            }
            _ => false,
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

    fn is_empty_query(&self, query: &Query) -> bool {
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
        select.from.iter().any(|from| self.is_empty_from(from))
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
        let known = match name.as_str() {
            "text" | "name" | "char" | "bpchar" | "varchar" | "unknown" | "cstring"
            | "oidvector" | "int2vector" | "aclitem" | "json" | "jsonb" | "uuid" | "xml"
            | "sql_identifier" | "character_data" | "yes_or_no" => DataType::Text,
            "oid" | "xid" | "regrole" | "int8" | "cardinal_number" => DataType::BigInt(None),
            "int4" => DataType::Integer(None),
            "int2" => DataType::SmallInt(None),
            "bool" => DataType::Boolean,
            "float4" => DataType::Real,
            "float8" => DataType::DoublePrecision,
            _ => return Ok(None),
        };
        *data_type = known;
        self.is_changed = true;
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

/// Gives columns the names that PostgreSQL gives them: clients of its catalogs
/// read by name.
struct Namer;

impl VisitorMut for Namer {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        if let SetExpr::Select(select) = query.body.as_mut() {
            let mut taken: HashSet<String> = select
                .projection
                .iter()
                .filter_map(|item| match item {
                    SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
                    SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.clone()),
                    _ => None,
                })
                .collect();
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) = item
                    && !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
                {
                    let name = free(&mut taken, column_name(expr));
                    let expr = std::mem::replace(expr, null_text());
                    let alias = Ident::with_quote('"', name);
                    *item = SelectItem::ExprWithAlias { expr, alias };
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The names of a SELECT's columns; none where it does not name them all.
fn names_of(select: &Select) -> Option<Vec<String>> {
    let mut taken = HashSet::new();
    let name = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(expr) => Some(column_name(expr)),
        _ => None,
    };
    let named = select.projection.iter().map(|item| Some(free(&mut taken, name(item)?)));
    named.collect()
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

fn has_aggregate(select: &Select) -> bool {
    const AGGREGATES: [&str; 12] = [
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
    ];
    let is_aggregate = |item: &SelectItem| {
        let text = item.to_string().to_lowercase();
        AGGREGATES.iter().any(|name| text.contains(&format!("{name}(")))
    };
    select.projection.iter().any(is_aggregate)
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

/// Whether `left` is among what the list on the right has; none where that is a
/// query, which DataFusion knows, or text that is not plain, which it refuses.
fn member(left: &mut Box<Expr>, right: &mut Box<Expr>, negated: bool) -> Option<Expr> {
    let list = unnested(right);
    if matches!(list, Expr::Subquery(_)) {
        return None;
    }
    let elements = match (&*list, literal(list)) {
        (_, Some(text)) => Some(elements_of(&text)?),
        (Expr::Array(array), None) => Some(array.elem.clone()),
        _ => None,
    };
    let left = take(left);
    Some(match elements {
        Some(elements) if elements.is_empty() => boolean(negated),
        Some(elements) => Expr::InList { expr: Box::new(left), list: elements, negated },
        None => {
            let has = call("array_has", vec![std::mem::replace(list, null_text()), left]);
            match negated {
                true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(has) },
                false => has,
            }
        }
    })
}

/// The elements of an array that is written as text; none where it is not one,
/// or has quotes, escapes, nulls or arrays in it.
fn elements_of(text: &str) -> Option<Vec<Expr>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    if inner.trim().is_empty() {
        return Some(Vec::new());
    }
    if inner.contains(['"', '\\', '{', '}']) {
        return None;
    }
    let element = |item: &str| {
        let item = item.trim();
        (!item.is_empty() && !item.eq_ignore_ascii_case("null")).then(|| self::text(item))
    };
    inner.split(',').map(element).collect()
}

fn unnested(expr: &mut Expr) -> &mut Expr {
    match expr {
        Expr::Nested(inner) => unnested(inner),
        other => other,
    }
}

/// The last part of the name of a type that is not SQL's own, in lower case.
fn type_name(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Regclass => Some("regclass".to_owned()),
        DataType::JSON => Some("json".to_owned()),
        DataType::JSONB => Some("jsonb".to_owned()),
        DataType::Uuid => Some("uuid".to_owned()),
        DataType::Custom(name, modifiers) if modifiers.is_empty() => {
            let last = name.0.last()?.as_ident()?;
            Some(last.value.to_lowercase())
        }
        _ => None,
    }
}

fn namespace(text: &str) -> i64 {
    match text.trim_matches('"') {
        "pg_catalog" => super::names::PG_CATALOG_ID,
        "public" => super::names::PUBLIC_ID,
        "information_schema" => super::names::INFORMATION_ID,
        _ => 0,
    }
}

/// The text of a literal.
fn literal(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                Some(text.clone())
            }
            Value::Number(number, _) => Some(number.clone()),
            _ => None,
        },
        Expr::Nested(inner) => literal(inner),
        _ => None,
    }
}

fn take(expr: &mut Box<Expr>) -> Expr {
    std::mem::replace(expr.as_mut(), null_text())
}

fn text(text: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(text.to_owned()))
}

fn boolean(is_true: bool) -> Expr {
    Expr::value(Value::Boolean(is_true))
}

fn null_text() -> Expr {
    Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::value(Value::Null)),
        data_type: DataType::Text,
        array: false,
        format: None,
    }
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments
        .into_iter()
        .map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)))
        .collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use aquifer_query::EngineOptions;
    use aquifer_types::StreamName;

    use super::*;
    use crate::sql::Source;

    fn listing() -> Listing {
        Listing {
            tenant: "default".into(),
            streams: vec![StreamName::new("audit").expect("a name")],
            views: Vec::new(),
            system: TABLES.names().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn what_is_postgresqls_is_written_in_other_words() {
        let id = Oids::new(&listing()).of("audit");
        let check = |text: &str, expected: &str| {
            let source = Source::read(text, &EngineOptions::default()).expect("it is read");
            let mut statement = source.parse().expect(text);
            let before = statement.to_string();
            let is_changed = rewrite(&mut statement, &listing()).expect(text);
            assert_eq!(statement.to_string(), expected.replace("ID", &id.to_string()), "{text}");
            assert!(is_changed || statement.to_string() == before, "{text}");
        };
        check("SELECT verb FROM audit", "SELECT verb FROM audit");
        check("SELECT count(*) FROM audit", "SELECT count(*) FROM audit");
        check("SELECT pg_catalog.version()", "SELECT version()");
        check("SELECT 'audit'::regclass", "SELECT ID");
        check("SELECT 'public.audit'::pg_catalog.regclass::oid", "SELECT ID::BIGINT");
        check(
            "SELECT c.oid::pg_catalog.regclass FROM pg_class c",
            "SELECT regclass_name(c.oid) AS \"regclass_name\" FROM pg_class c",
        );
        check(
            "SELECT 1 FROM pg_class c WHERE c.relname OPERATOR(pg_catalog.~) '^(a)$' COLLATE pg_catalog.default",
            "SELECT 1 AS \"?column?\" FROM pg_class c WHERE c.relname ~ '^(a)$'",
        );
        check(
            "SELECT 'a'::pg_catalog.text, b::name FROM audit",
            "SELECT 'a'::TEXT, b::TEXT FROM audit",
        );
        check("SELECT a = ANY('{x, y}') FROM audit", "SELECT a IN ('x', 'y') FROM audit");
        check("SELECT a = ANY(ARRAY['x']) FROM audit", "SELECT a IN ('x') FROM audit");
        check("SELECT a = ANY('{}'), a <> ALL('{ }') FROM audit", "SELECT false, true FROM audit");
        check("SELECT a <> ALL(ARRAY[]) FROM audit", "SELECT true FROM audit");
        for unsure in [r#"{"x"}"#, r"{x\y}", "{{x}}", "{x, Null}", "{x,}", "x"] {
            let text = format!("SELECT a = ANY('{unsure}') FROM audit");
            check(&text, &text);
        }
        check(
            "SELECT n = ANY(current_schemas(false)) FROM audit",
            "SELECT array_has(current_schemas(false), n) FROM audit",
        );
        check(
            "SELECT * FROM generate_series(1, array_upper(current_schemas(false), 1)) AS s(r)",
            "SELECT * FROM generate_series(1, CAST(array_length(current_schemas(false), 1) AS BIGINT)) AS s (r)",
        );
        for kept in [
            "SELECT ARRAY(SELECT verb FROM audit)",
            "SELECT ARRAY(SELECT verb FROM audit UNION SELECT 'x')",
            "SELECT ARRAY(SELECT 1)",
        ] {
            check(kept, kept);
        }
        check(
            "SELECT ARRAY(SELECT a.verb FROM pg_class c JOIN audit a ON true)",
            "SELECT ARRAY(SELECT a.verb FROM pg_class c JOIN audit a ON true) AS \"array\"",
        );
        check(
            "SELECT ARRAY(SELECT c.relname FROM pg_class c JOIN pg_namespace n ON true) FROM audit",
            "SELECT CAST(NULL AS TEXT) FROM audit",
        );
        check("SELECT current_schema", "SELECT current_schema()");
        check(
            "SELECT i.indexrelid, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON true ORDER BY 1",
            "SELECT CAST(NULL AS TEXT) AS \"indexrelid\", CAST(NULL AS TEXT) AS \"pg_get_indexdef\" WHERE false",
        );
        check("SELECT count(*) FROM pg_index", "SELECT count(*) AS \"count\" FROM pg_index");
        check(
            "SELECT a.attname, (SELECT d.adsrc FROM pg_attrdef d WHERE d.adnum = a.attnum LIMIT 1) FROM pg_attribute a",
            "SELECT a.attname, CAST(NULL AS TEXT) AS \"?column?\" FROM pg_attribute a",
        );
        check(
            "SELECT typname FROM pg_type t WHERE (SELECT c.relkind = 'c' FROM pg_class c WHERE c.oid = t.typrelid)",
            "SELECT typname FROM pg_type t WHERE (SELECT max(c.relkind = 'c') AS \"max\" FROM pg_class c WHERE c.oid = t.typrelid)",
        );
        check(
            "SELECT c.relname FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid",
            "SELECT c.relname FROM pg_class c LEFT JOIN pg_index i ON i.indrelid = c.oid",
        );
        check(
            "SELECT c.relname FROM pg_index i RIGHT JOIN pg_class c ON i.indrelid = c.oid",
            "SELECT c.relname FROM pg_index i RIGHT JOIN pg_class c ON i.indrelid = c.oid",
        );
        check(
            "SELECT relname FROM pg_class WHERE EXISTS (SELECT 1 FROM pg_trigger) OR oid IN (SELECT tgrelid FROM pg_trigger)",
            "SELECT relname FROM pg_class WHERE false OR false",
        );
        let mut statement = Source::read("SELECT 'nothing'::regclass", &EngineOptions::default())
            .and_then(|source| source.parse())
            .expect("SQL");
        assert_eq!(rewrite(&mut statement, &listing()).expect_err("unknown").code, "unknown-table");
    }
}
