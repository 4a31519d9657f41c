//! Which statements there are: an allow-list over the parsed statement.
//!
//! What is not in the list is refused by name, wherever in a statement it
//! stands. It decides by the statement's form alone, before any name in it is
//! looked up.

use std::ops::ControlFlow;

use aquifer_query::wire::Refusal;
use datafusion::sql::sqlparser::ast::{
    CreateTableOptions, CreateView, Ident, ObjectName, ObjectType, Query, Select,
    ShowStatementFilter, ShowStatementFilterPosition, ShowStatementOptions, Statement, TableFactor,
    Visit, Visitor,
};

use crate::refusal::{invalid, statement_refused};

/// A statement that is allowed.
#[derive(Debug)]
pub(crate) enum Command {
    /// Rows are wanted; a query, or the EXPLAIN of one.
    Rows {
        /// What PostgreSQL calls it.
        tag: &'static str,
    },
    /// All streams and views.
    ShowTables {
        /// A pattern for their names.
        like: Option<String>,
    },
    /// The columns of one.
    Describe {
        /// Which.
        name: ObjectName,
    },
    /// A setting's value.
    ShowSetting {
        /// Its name, or `all`.
        name: String,
    },
    /// A query under a name.
    CreateView {
        /// The name.
        name: ObjectName,
        /// Whether one of that name may be there.
        replace: bool,
        /// The query.
        query: Box<Query>,
    },
    /// A name no longer.
    DropView {
        /// The name.
        name: ObjectName,
        /// Whether it is no error that there is none.
        if_exists: bool,
    },
}

impl Command {
    /// What `statement` asks for, if that is allowed.
    pub(crate) fn of(statement: &Statement) -> Result<Self, Refusal> {
        if let ControlFlow::Break(refusal) = statement.visit(&mut Refuser { depth: 0 }) {
            return Err(refusal);
        }
        match statement {
            Statement::Query(_) => Ok(Self::Rows { tag: "SELECT" }),
            Statement::Explain { statement, analyze, .. } => match statement.as_ref() {
                Statement::Query(_) if *analyze => Ok(Self::Rows { tag: "EXPLAIN ANALYZE" }),
                Statement::Query(_) => Ok(Self::Rows { tag: "EXPLAIN" }),
                other => Err(statement_refused(&format!("EXPLAIN of {}", first_words(other)))),
            },
            Statement::ExplainTable { table_name, .. } => {
                Ok(Self::Describe { name: table_name.clone() })
            }
            Statement::ShowColumns { show_options, .. } => show_columns(show_options),
            Statement::ShowTables { show_options, .. } => {
                Ok(Self::ShowTables { like: like(show_options)? })
            }
            Statement::ShowVariable { variable } => {
                Ok(Self::ShowSetting { name: joined(variable) })
            }
            Statement::CreateView(view) => create_view(view),
            Statement::Drop {
                object_type: ObjectType::View, if_exists, names, cascade, ..
            } => match names.as_slice() {
                [name] if !cascade => {
                    Ok(Self::DropView { name: name.clone(), if_exists: *if_exists })
                }
                _ => Err(statement_refused("DROP VIEW of more than one, or with CASCADE,")),
            },
            other => Err(statement_refused(&first_words(other))),
        }
    }
}

/// Finds what has no place in a statement that only reads.
struct Refuser {
    depth: usize,
}

impl Visitor for Refuser {
    type Break = Refusal;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Refusal> {
        self.depth += 1;
        let is_within = self.depth > 1 && !matches!(statement, Statement::Query(_));
        if is_within {
            ControlFlow::Break(statement_refused(&first_words(statement)))
        } else {
            ControlFlow::Continue(())
        }
    }

    fn post_visit_statement(&mut self, _: &Statement) -> ControlFlow<Refusal> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Refusal> {
        let what = if !query.locks.is_empty() {
            "FOR UPDATE or FOR SHARE"
        } else if query.for_clause.is_some() {
            "FOR XML or FOR JSON"
        } else if query.settings.is_some() || query.format_clause.is_some() {
            "SETTINGS or FORMAT"
        } else if !query.pipe_operators.is_empty() {
            "the operator |>"
        } else {
            return ControlFlow::Continue(());
        };
        ControlFlow::Break(statement_refused(what))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Refusal> {
        if select.into.is_some() {
            return ControlFlow::Break(statement_refused("SELECT INTO"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<Refusal> {
        if let TableFactor::Table { version: Some(_), .. } = table {
            return ControlFlow::Break(statement_refused("a table at another time"));
        }
        if let TableFactor::Table { sample: Some(_), .. } = table {
            return ControlFlow::Break(statement_refused("TABLESAMPLE"));
        }
        ControlFlow::Continue(())
    }
}

fn show_columns(options: &ShowStatementOptions) -> Result<Command, Refusal> {
    let name = options.show_in.as_ref().and_then(|shown| shown.parent_name.clone());
    match name {
        Some(name) if options.filter_position.is_none() => Ok(Command::Describe { name }),
        _ => {
            Err(invalid("sql-syntax", "42601", "SHOW COLUMNS is written SHOW COLUMNS FROM stream"))
        }
    }
}

fn like(options: &ShowStatementOptions) -> Result<Option<String>, Refusal> {
    match &options.filter_position {
        None if options.show_in.is_none() => Ok(None),
        Some(
            ShowStatementFilterPosition::Infix(ShowStatementFilter::Like(pattern))
            | ShowStatementFilterPosition::Suffix(ShowStatementFilter::Like(pattern)),
        ) => Ok(Some(pattern.clone())),
        _ => Err(invalid(
            "sql-syntax",
            "42601",
            "SHOW TABLES takes LIKE 'pattern' and nothing else; information_schema.tables has more",
        )),
    }
}

fn create_view(view: &CreateView) -> Result<Command, Refusal> {
    let is_plain = !(view.or_alter
        || view.materialized
        || view.secure
        || view.temporary
        || view.if_not_exists
        || view.with_no_schema_binding
        || view.copy_grants)
        && matches!(view.options, CreateTableOptions::None)
        && view.cluster_by.is_empty()
        && view.comment.is_none()
        && view.to.is_none();
    if !is_plain {
        return Err(statement_refused("this kind of view"));
    }
    if !view.columns.is_empty() {
        return Err(invalid(
            "sql-syntax",
            "42601",
            "a view's columns are named in its SELECT, with AS",
        ));
    }
    Ok(Command::CreateView {
        name: view.name.clone(),
        replace: view.or_replace,
        query: view.query.clone(),
    })
}

fn joined(idents: &[Ident]) -> String {
    let parts: Vec<&str> = idents.iter().map(|ident| ident.value.as_str()).collect();
    parts.join(".").to_lowercase()
}

/// What a statement begins with, in capitals.
fn first_words(statement: &Statement) -> String {
    let text = statement.to_string();
    let words: Vec<String> = text
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map_while(|word| word.chars().all(|c| c.is_ascii_uppercase()).then(|| word.to_owned()))
        .take(3)
        .collect();
    if words.is_empty() { "this statement".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use aquifer_query::EngineOptions;

    use super::*;
    use crate::sql::source::Source;

    #[test]
    fn what_reads_is_allowed_and_everything_else_is_refused() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = Source::read(text, &EngineOptions::default())
                .and_then(|source| source.parse())
                .and_then(|statement| Command::of(&statement));
            match (&found, expected) {
                (Ok(command), Ok(expected)) => {
                    let text = format!("{command:?}");
                    assert!(text.starts_with(expected), "{text}");
                }
                (Err(refusal), Err(code)) => assert_eq!(refusal.code, code, "{text}: {refusal:?}"),
                _ => panic!("{text}: {found:?}"),
            }
        };
        for text in [
            "SELECT 1",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "VALUES (1), (2)",
            "SELECT 1 UNION ALL SELECT 2",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE VERBOSE SELECT 1",
        ] {
            check(text, Ok("Rows"));
        }
        check("SHOW TABLES", Ok("ShowTables"));
        check("SHOW TABLES LIKE 'a%'", Ok("ShowTables"));
        check("SHOW COLUMNS FROM t", Ok("Describe"));
        check("DESCRIBE t", Ok("Describe"));
        check("SHOW datafusion.execution.batch_size", Ok("ShowSetting"));
        check("CREATE OR REPLACE VIEW v AS SELECT 1", Ok("CreateView"));
        check("DROP VIEW IF EXISTS v", Ok("DropView"));
        for text in [
            "INSERT INTO t VALUES (1)",
            "UPDATE t SET a = 1",
            "DELETE FROM t",
            "TRUNCATE TABLE t",
            "CREATE TABLE t (a int)",
            "CREATE TABLE t AS SELECT 1",
            "DROP TABLE t",
            "ALTER TABLE t ADD COLUMN a int",
            "CREATE MATERIALIZED VIEW v AS SELECT 1",
            "COPY t TO '/tmp/x'",
            "COPY (SELECT 1) TO '/tmp/x'",
            "SET datafusion.execution.batch_size = 1",
            "EXPLAIN DELETE FROM t",
            "WITH a AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM a",
            "SELECT 1 INTO t",
            "SELECT * FROM t FOR UPDATE",
            "CREATE DATABASE x",
            "CREATE SCHEMA x",
            "CREATE FUNCTION f() RETURNS int RETURN 1",
            "PREPARE p AS SELECT 1",
            "EXECUTE p",
            "BEGIN",
            "GRANT ALL ON t TO u",
            "ANALYZE t",
            "SHOW FUNCTIONS",
            "KILL 1",
        ] {
            check(text, Err("statement-refused"));
        }
        check("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'", Err("sql-syntax"));
    }
}
