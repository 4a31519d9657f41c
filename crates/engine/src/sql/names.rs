//! Which streams and views a statement names.
//!
//! A name means what it says exactly, else the only stream or view that differs
//! from it by case. It may carry the tenant (`default.audit`) or `public`, as
//! PostgreSQL's tools write it. A stream's own name may have dots and dashes;
//! dots may stand without quotes. What a WITH defines hides a stream of that
//! name inside of it.

use std::ops::ControlFlow;

use aquifer_query::wire::Refusal;
use aquifer_types::{ErrorKind, StreamName};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    Statement, TableFactor, VisitMut, VisitorMut, With,
};

use crate::near;
use crate::refusal::{invalid, refusal};

/// The schema of a tenant's streams and views.
pub(crate) const PUBLIC: &str = "public";
/// The schema that describes them.
pub(crate) const INFORMATION: &str = "information_schema";
/// The schema that describes them to PostgreSQL's tools.
pub(crate) const PG_CATALOG: &str = "pg_catalog";

/// The streams and views of a tenant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listing {
    /// The tenant.
    pub(crate) tenant: String,
    /// All streams.
    pub(crate) streams: Vec<StreamName>,
    /// All views, with their SQL.
    pub(crate) views: Vec<(String, String)>,
    /// Tables of `pg_catalog`, which need no schema before their names.
    pub(crate) system: Vec<String>,
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Named {
    /// A stream.
    Stream(StreamName),
    /// A view.
    View(String),
    /// A table of a schema that describes.
    System(&'static str, String),
}

impl Listing {
    /// What `name` means.
    pub(crate) fn resolve(&self, name: &ObjectName) -> Result<Named, Refusal> {
        let parts = parts(name)?;
        let is = |part: Option<&&str>, known: &str| {
            part.is_some_and(|part| part.eq_ignore_ascii_case(known))
        };
        if let Some(found) = self.find(&parts.join(".")) {
            return Ok(found);
        }
        let mut rest = parts.as_slice();
        if rest.len() > 1 && is(rest.first(), &self.tenant) {
            rest = rest.get(1..).unwrap_or_default();
        }
        for schema in [INFORMATION, PG_CATALOG] {
            if let [first, table] = rest
                && first.eq_ignore_ascii_case(schema)
            {
                return Ok(Named::System(schema, table.to_ascii_lowercase()));
            }
        }
        if rest.len() > 1 && is(rest.first(), PUBLIC) {
            rest = rest.get(1..).unwrap_or_default();
        }
        if rest.len() < parts.len()
            && let Some(found) = self.find(&rest.join("."))
        {
            return Ok(found);
        }
        if let [only] = rest
            && let Some(table) = self.system.iter().find(|table| table.eq_ignore_ascii_case(only))
        {
            return Ok(Named::System(PG_CATALOG, table.clone()));
        }
        Err(self.unknown(&rest.join(".")))
    }

    /// A stream or view of this name, exactly or but for case if only one is.
    fn find(&self, name: &str) -> Option<Named> {
        let names = || {
            let streams = self.streams.iter().map(|stream| Named::Stream(stream.clone()));
            streams.chain(self.views.iter().map(|(view, _)| Named::View(view.clone())))
        };
        names().find(|named| named.name() == name).or_else(|| {
            let mut near = names().filter(|named| named.name().eq_ignore_ascii_case(name));
            near.next().filter(|_| near.next().is_none())
        })
    }

    /// There is nothing of this name.
    pub(crate) fn unknown(&self, name: &str) -> Refusal {
        let known = self.streams.iter().map(StreamName::as_str);
        let near = near::names(name, known.chain(self.views.iter().map(|(view, _)| view.as_str())));
        let mut message = format!("there is no stream or view {}", near::quoted(name));
        if near.is_empty() {
            message.push_str("; SHOW TABLES lists them");
        } else {
            message.push_str(&format!("; near it: {}", near.join(", ")));
        }
        refusal(ErrorKind::NotFound, "unknown-table", "42P01", message)
    }
}

impl Named {
    /// As it is stored.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Stream(name) => name.as_str(),
            Self::View(name) | Self::System(_, name) => name,
        }
    }
}

/// The parts of a name.
pub(crate) fn parts(name: &ObjectName) -> Result<Vec<&str>, Refusal> {
    if !name.0.iter().all(|name| name.as_ident().is_some()) {
        return Err(invalid("sql-syntax", "42601", "the name of a table cannot be computed"));
    }
    Ok(name.0.iter().filter_map(|name| name.as_ident()).map(|ident| ident.value.as_str()).collect())
}

/// Finds what `statement` names and writes the names as they are stored, so
/// that planning needs no more than the stored name. Every naming is given,
/// in order: what is named twice is there twice.
pub(crate) fn resolve_all(
    statement: &mut Statement,
    listing: &Listing,
) -> Result<Vec<Named>, Refusal> {
    let mut resolver = Resolver {
        listing,
        hidden: Vec::new(),
        scopes: Vec::new(),
        long: Vec::new(),
        found: Vec::new(),
    };
    match statement.visit(&mut resolver) {
        ControlFlow::Break(refusal) => return Err(refusal),
        ControlFlow::Continue(()) => {}
    }
    let Resolver { long, found, .. } = resolver;
    if !long.is_empty() {
        let _: ControlFlow<()> = statement.visit(&mut Shorten { long });
    }
    Ok(found)
}

/// The longest name that a column has from the words of its expression; longer
/// ones keep what the planner calls them.
const TITLE_CHARS_MAX: usize = 60;

/// Names the columns of `statement` that have no names as they are written:
/// `SELECT 1 + 1` has a column `1 + 1`.
pub(crate) fn title_columns(statement: &mut Statement) {
    if let Statement::Query(query) = statement
        && let SetExpr::Select(select) = query.body.as_mut()
        // There, what is sorted by has to be what is selected, to the letter.
        && select.distinct.is_none()
    {
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
                continue;
            }
            let title = expr.to_string();
            if title.chars().count() > TITLE_CHARS_MAX {
                continue;
            }
            *item = SelectItem::ExprWithAlias {
                expr: expr.clone(),
                alias: Ident::with_quote('"', title),
            };
        }
    }
}

/// Whether `statement` names any table at all, apart from those of a WITH.
pub(crate) fn names_any(statement: &Statement) -> bool {
    let nothing = Listing::default();
    resolve_all(&mut statement.clone(), &nothing).map_or(true, |found| !found.is_empty())
}

struct Resolver<'a> {
    listing: &'a Listing,
    /// The names that a WITH around has defined, innermost last.
    hidden: Vec<String>,
    /// For each query that is open: its WITH, taken out while its body is
    /// looked at, and how many names were hidden before.
    scopes: Vec<(Option<With>, usize)>,
    /// Names of several parts, with what they are stored as.
    long: Vec<(Vec<String>, String)>,
    found: Vec<Named>,
}

impl Resolver<'_> {
    fn is_hidden(&self, name: &ObjectName) -> bool {
        match name.0.as_slice() {
            [part] => part.as_ident().is_some_and(|ident| {
                self.hidden.iter().any(|hidden| hidden.eq_ignore_ascii_case(&ident.value))
            }),
            _ => false,
        }
    }

    fn rename(&mut self, name: &mut ObjectName) -> Result<(), Refusal> {
        let named = self.listing.resolve(name)?;
        let given: Vec<String> = parts(name)?.into_iter().map(str::to_owned).collect();
        let stored = Ident::with_quote('"', named.name());
        if given.len() > 1 {
            self.long.push((given, named.name().to_owned()));
        }
        *name = match &named {
            Named::System(schema, _) => {
                ObjectName::from(vec![Ident::with_quote('"', *schema), stored])
            }
            _ => ObjectName::from(vec![stored]),
        };
        self.found.push(named);
        Ok(())
    }
}

impl VisitorMut for Resolver<'_> {
    type Break = Refusal;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Refusal> {
        let before = self.hidden.len();
        let mut with = query.with.take();
        if let Some(with) = &mut with {
            // A definition sees those before it, and itself only if recursive.
            for cte in &mut with.cte_tables {
                let name = cte.alias.name.value.clone();
                if with.recursive {
                    self.hidden.push(name.clone());
                }
                cte.query.visit(self)?;
                if !with.recursive {
                    self.hidden.push(name);
                }
            }
        }
        self.scopes.push((with, before));
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Refusal> {
        if let Some((with, before)) = self.scopes.pop() {
            query.with = with;
            self.hidden.truncate(before);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Refusal> {
        if let TableFactor::Table { name, args: None, .. } = table
            && !self.is_hidden(name)
            && let Err(refusal) = self.rename(name)
        {
            return ControlFlow::Break(refusal);
        }
        ControlFlow::Continue(())
    }
}

/// Writes columns that carry a table's name of several parts (`public.t.x`,
/// `a.b.x` of the stream `a.b`) with the stored name alone.
struct Shorten {
    long: Vec<(Vec<String>, String)>,
}

impl Shorten {
    fn shorten(&self, idents: &mut Vec<Ident>, least: usize) {
        for (parts, stored) in &self.long {
            let fits = idents.len() >= parts.len() + least
                && parts
                    .iter()
                    .zip(idents.iter())
                    .all(|(part, ident)| part.eq_ignore_ascii_case(&ident.value));
            if fits {
                idents.splice(..parts.len(), [Ident::with_quote('"', stored)]);
                return;
            }
        }
    }
}

impl VisitorMut for Shorten {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(idents) = expr {
            self.shorten(idents, 1);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) =
                item
            else {
                continue;
            };
            let mut idents: Vec<Ident> =
                name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
            if idents.len() == name.0.len() {
                self.shorten(&mut idents, 0);
                *name = ObjectName::from(idents);
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use aquifer_query::EngineOptions;

    use super::*;
    use crate::sql::source::Source;

    fn listing() -> Listing {
        let stream = |name| StreamName::new(name).expect("a name");
        Listing {
            tenant: "default".into(),
            streams: ["audit", "Orders", "a.b", "app-log", "x", "X"].map(stream).into(),
            views: vec![("recent".into(), "SELECT 1".into())],
            system: vec!["pg_class".into()],
        }
    }

    #[test]
    fn names_are_found_and_written_as_they_are_stored() {
        let check = |text: &str, expected: Result<(&str, &[&str]), &str>| {
            let mut statement =
                Source::read(text, &EngineOptions::default()).and_then(|s| s.parse()).expect("SQL");
            let found = resolve_all(&mut statement, &listing());
            match (found, expected) {
                (Ok(found), Ok((sql, names))) => {
                    assert_eq!(statement.to_string(), sql);
                    assert_eq!(found.iter().map(Named::name).collect::<Vec<_>>(), names, "{text}");
                }
                (Err(refusal), Err(message)) => {
                    assert_eq!(refusal.code, "unknown-table");
                    assert!(refusal.message.contains(message), "{}", refusal.message);
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        };
        check("SELECT * FROM audit", Ok(("SELECT * FROM \"audit\"", &["audit"])));
        check("SELECT * FROM ORDERS", Ok(("SELECT * FROM \"Orders\"", &["Orders"])));
        check(
            "SELECT a.b._key, a.b.* FROM a.b WHERE a.b._offset > 1",
            Ok(("SELECT \"a.b\"._key, \"a.b\".* FROM \"a.b\" WHERE \"a.b\"._offset > 1", &["a.b"])),
        );
        check(
            "SELECT default.audit._key FROM default.audit",
            Ok(("SELECT \"audit\"._key FROM \"audit\"", &["audit"])),
        );
        check("SELECT * FROM public.\"app-log\"", Ok(("SELECT * FROM \"app-log\"", &["app-log"])));
        check(
            "SELECT * FROM default.public.recent r",
            Ok(("SELECT * FROM \"recent\" r", &["recent"])),
        );
        check(
            "WITH audit AS (SELECT * FROM audit), o AS (SELECT * FROM audit) SELECT * FROM o, audit",
            Ok((
                "WITH audit AS (SELECT * FROM \"audit\"), o AS (SELECT * FROM audit) \
                 SELECT * FROM o, audit",
                &["audit"],
            )),
        );
        check(
            "SELECT * FROM (SELECT 1) s WHERE EXISTS (SELECT 1 FROM audit JOIN recent ON true)",
            Ok((
                "SELECT * FROM (SELECT 1) s WHERE EXISTS (SELECT 1 FROM \"audit\" JOIN \"recent\" ON true)",
                &["audit", "recent"],
            )),
        );
        check(
            "SELECT * FROM INFORMATION_SCHEMA.TABLES",
            Ok(("SELECT * FROM \"information_schema\".\"tables\"", &["tables"])),
        );
        check(
            "SELECT * FROM pg_class",
            Ok(("SELECT * FROM \"pg_catalog\".\"pg_class\"", &["pg_class"])),
        );
        check(
            "SELECT * FROM generate_series(1, 3)",
            Ok(("SELECT * FROM generate_series(1, 3)", &[])),
        );
        check("SELECT * FROM x, \"X\"", Ok(("SELECT * FROM \"x\", \"X\"", &["x", "X"])));
        check("SELECT * FROM aduit", Err("near it: audit"));
        check("SELECT * FROM app_log", Err("near it: \"app-log\""));
        check("SELECT * FROM '/etc/passwd'", Err("there is no stream"));
        check("SELECT * FROM nothing_near", Err("SHOW TABLES"));
        check("WITH c AS (SELECT 1) SELECT * FROM (SELECT * FROM d) x", Err("stream or view d"));
    }
}
