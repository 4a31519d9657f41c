//! Columns of an answer that have the same name: `SELECT _offset, *`.
//!
//! DataFusion wants names that differ. Where it refuses a statement for that, the
//! columns that repeat one are called something else in the plan, and by their
//! own names again in the answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{Expr, Ident, Select, SelectItem, SetExpr, Statement, Value};

/// A statement with so many `#` side by side is left as it is.
const MARK_MAX: usize = 16;

/// What columns of a plan are called in its answer, where that is not the same.
#[derive(Debug, Default)]
pub(crate) struct Titles(HashMap<String, String>);

/// Which columns are called something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    /// Those whose names stand before them already, and those of a table that a
    /// `*` has as well.
    Columns,
    /// Beside a `*`, those too that the statement itself has named. ORDER BY may
    /// be by such a name, so this comes second.
    Named,
}

impl Titles {
    /// The schema with the names of the answer.
    pub(crate) fn of(&self, schema: &SchemaRef) -> SchemaRef {
        if self.0.is_empty() {
            return Arc::clone(schema);
        }
        let fields = schema.fields().iter().map(|field| match self.0.get(field.name()) {
            Some(title) => Arc::new(field.as_ref().clone().with_name(title)),
            None => Arc::clone(field),
        });
        let fields: Vec<_> = fields.collect();
        Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
    }

    /// Whether they say nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Calls columns of `statement` something else that `text`, as which it was sent,
/// does not have.
pub(crate) fn tell_apart(statement: &mut Statement, text: &str, chosen: Chosen) -> Titles {
    match statement {
        Statement::Explain { statement, .. } => tell_apart(statement, text, chosen),
        Statement::Query(query) => match (query.body.as_mut(), mark(text)) {
            (SetExpr::Select(select), Some(mark)) => of_select(select, &mark, chosen),
            _ => Titles::default(),
        },
        _ => Titles::default(),
    }
}

/// What names that are made here have and `text` has not: a `#` more than it has
/// side by side.
fn mark(text: &str) -> Option<String> {
    let longest = text.split(|of| of != '#').map(str::len).max().unwrap_or(0);
    (longest < MARK_MAX).then(|| "#".repeat(longest + 1))
}

fn of_select(select: &mut Select, mark: &str, chosen: Chosen) -> Titles {
    let is_wildcard = |item: &SelectItem| {
        matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
    };
    let has_wildcard = select.projection.iter().any(is_wildcard);
    let mut seen: HashSet<String> = HashSet::new();
    let mut titles = Titles::default();
    for item in &mut select.projection {
        let (name, is_own) = match &*item {
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => (name, false),
            SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => match names.last() {
                Some(name) => (name, false),
                None => continue,
            },
            SelectItem::ExprWithAlias { alias, .. } => (alias, true),
            _ => continue,
        };
        let title = name.value.clone();
        let is_repeated = !seen.insert(title.to_lowercase());
        if !is_repeated && (!has_wildcard || is_own && chosen == Chosen::Columns) {
            continue;
        }
        let number = titles.0.len() + 2;
        let alias = Ident::with_quote('"', format!("{title} {mark}{number}"));
        titles.0.insert(alias.value.clone(), title);
        let expr = match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
                std::mem::replace(expr, Expr::value(Value::Null))
            }
            _ => continue,
        };
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
    titles
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn check(sql: &str, chosen: Chosen, expected: &str) {
        let mut statement = Parser::parse_sql(&GenericDialect {}, sql).unwrap().remove(0);
        let titles = tell_apart(&mut statement, sql, chosen);
        assert_eq!(statement.to_string(), expected);
        assert_eq!(titles.is_empty(), sql == expected, "{sql}");
    }

    #[test]
    fn only_what_may_repeat_a_name_is_called_something_else() {
        use Chosen::{Columns, Named};
        for chosen in [Columns, Named] {
            check("SELECT a, b FROM s", chosen, "SELECT a, b FROM s");
            check("SELECT * FROM s", chosen, "SELECT * FROM s");
            check(
                "SELECT a FROM s UNION SELECT a FROM t",
                chosen,
                "SELECT a FROM s UNION SELECT a FROM t",
            );
            check(
                "SELECT a, A, s.a FROM s",
                chosen,
                "SELECT a, A AS \"A #2\", s.a AS \"a #3\" FROM s",
            );
            check("SELECT 1 AS x, 2 AS x", chosen, "SELECT 1 AS x, 2 AS \"x #2\"");
            check("SELECT a, * FROM s", chosen, "SELECT a AS \"a #2\", * FROM s");
            check("SELECT s.*, s.a FROM s", chosen, "SELECT s.*, s.a AS \"a #2\" FROM s");
            check("EXPLAIN SELECT a, a FROM s", chosen, "EXPLAIN SELECT a, a AS \"a #2\" FROM s");
            let taken = "SELECT a, a FROM s WHERE \"a #2\" = 1";
            check(taken, chosen, "SELECT a, a AS \"a ##2\" FROM s WHERE \"a #2\" = 1");
            let many = format!("SELECT a, a FROM s WHERE b = '{}'", "#".repeat(MARK_MAX));
            check(&many, chosen, &many);
        }
        check("SELECT 1 AS x, * FROM s", Columns, "SELECT 1 AS x, * FROM s");
        check("SELECT 1 AS x, * FROM s", Named, "SELECT 1 AS \"x #2\", * FROM s");
    }
}
