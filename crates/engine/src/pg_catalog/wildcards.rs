//! Columns that a SELECT from catalogs has by name and by a `*` too.
//!
//! `SELECT c.oid, c.* FROM pg_class c` is how tools ask for ids and for the
//! rest: `*` has no `oid` in the version that the server answers as. DataFusion
//! wants each column once. Such a `*` is written out, without what is named.

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Select, SelectItem, SelectItemQualifiedWildcardKind, TableFactor,
    WildcardAdditionalOptions,
};

/// Each column that is written out is looked for among the others: a statement
/// that asks for more than this is left as it is.
const LOOKS_MAX: usize = 1 << 20;

/// A catalog in FROM: the name that it goes by, and its columns.
struct Table {
    name: Ident,
    columns: Vec<&'static str>,
}

/// Writes out each `*` of `select` that has a column which is named as well,
/// or all of them where `is_whole`; whether there was one. `columns` gives those
/// of a catalog.
pub(super) fn write_out(
    select: &mut Select,
    is_whole: bool,
    columns: impl Fn(&ObjectName) -> Option<Vec<&'static str>>,
) -> bool {
    let is_wildcard = |item: &&SelectItem| {
        matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
    };
    let wildcards = select.projection.iter().filter(is_wildcard).count();
    if wildcards == 0 {
        return false;
    }
    let factors = select.from.iter().flat_map(|from| {
        std::iter::once(&from.relation).chain(from.joins.iter().map(|join| &join.relation))
    });
    let tables: Vec<Option<Table>> = factors.map(|factor| table(factor, &columns)).collect();
    let written: usize = tables.iter().flatten().map(|table| table.columns.len()).sum();
    if written.saturating_mul(wildcards).saturating_mul(select.projection.len()) > LOOKS_MAX {
        return false;
    }
    let items = std::mem::take(&mut select.projection);
    let mut is_changed = false;
    for (at, item) in items.iter().enumerate() {
        let catalogs = meant(item, &tables);
        let is_named = |table: &Table, column: &str| {
            items.iter().enumerate().any(|(other, item)| names(item, other < at, table, column))
        };
        let has_named = |table: &&Table| table.columns.iter().any(|of| is_named(table, of));
        if catalogs.is_empty() || !is_whole && !catalogs.iter().any(has_named) {
            select.projection.push(item.clone());
            continue;
        }
        is_changed = true;
        for table in catalogs {
            for column in &table.columns {
                if !is_named(table, column) {
                    let parts = vec![table.name.clone(), Ident::new(*column)];
                    let column = SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts));
                    select.projection.push(column);
                }
            }
        }
    }
    is_changed
}

/// A table of FROM that is a catalog; none where it is something else.
fn table(
    factor: &TableFactor,
    columns: impl Fn(&ObjectName) -> Option<Vec<&'static str>>,
) -> Option<Table> {
    let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
    let own = match alias {
        Some(alias) if alias.columns.is_empty() => alias.name.clone(),
        Some(_) => return None,
        None => name.0.last()?.as_ident()?.clone(),
    };
    Some(Table { name: own, columns: columns(name)? })
}

/// The catalogs that an item has all columns of: none where it is no `*`, or one
/// that has others too.
fn meant<'a>(item: &SelectItem, tables: &'a [Option<Table>]) -> Vec<&'a Table> {
    let plain = WildcardAdditionalOptions::default();
    match item {
        SelectItem::Wildcard(options) if *options == plain => {
            tables.iter().map(Option::as_ref).collect::<Option<_>>().unwrap_or_default()
        }
        SelectItem::QualifiedWildcard(
            SelectItemQualifiedWildcardKind::ObjectName(name),
            options,
        ) if *options == plain => {
            let last = name.0.last().and_then(|part| part.as_ident());
            let is_meant = |table: &&Table| last.is_some_and(|last| is_same(last, &table.name));
            tables.iter().flatten().find(is_meant).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

/// Whether `item` gives a column of `table` the name that it has in a `*`; what
/// else is called so counts before the `*` alone, where readers find it first.
fn names(item: &SelectItem, is_before: bool, table: &Table, column: &str) -> bool {
    let is_column = |name: &Ident| name.value.eq_ignore_ascii_case(column);
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => is_column(name),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => match parts.as_slice() {
            [.., of, name] => is_same(of, &table.name) && is_column(name),
            _ => false,
        },
        SelectItem::ExprWithAlias { alias, .. } => is_before && is_column(alias),
        _ => false,
    }
}

fn is_same(one: &Ident, other: &Ident) -> bool {
    one.value.eq_ignore_ascii_case(&other.value)
}
