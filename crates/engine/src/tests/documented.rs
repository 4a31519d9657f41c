//! The examples of docs/sql.md are run.

use std::sync::Arc;

use aquifer_chunk::FieldWalk;
use aquifer_types::{StreamName, StreamSchema};
use arrow_array::RecordBatch;
use datafusion::catalog::MemTable;

use super::{Fixture, events};
use crate::fields::{Columns, shred};

/// Statements in fenced blocks of SQL, each with the lines that follow it in a
/// block of `text`, if one does.
fn examples(document: &str) -> Vec<(String, Option<String>)> {
    let mut examples: Vec<(String, Option<String>)> = Vec::new();
    let mut blocks = document.split("```");
    blocks.next();
    while let Some(block) = blocks.next() {
        if let Some(sql) = block.strip_prefix("sql\n") {
            let statements = sql.split(';').map(str::trim).filter(|sql| !sql.is_empty());
            examples.extend(statements.map(|sql| (sql.to_owned(), None)));
        } else if let Some(text) = block.strip_prefix("text\n")
            && let Some((_, expected)) = examples.last_mut()
        {
            *expected = Some(text.to_owned());
        }
        blocks.next();
    }
    examples
}

/// A stream whose values have fields.
fn audit() -> MemTable {
    let values: [&[u8]; 4] = [
        br#"{"verb":"get","user":{"name":"ann","id":1},"size":10}"#,
        br#"{"verb":"delete","user":{"name":"bob","id":2},"size":20}"#,
        br#"{"verb":"get","user":{"name":"eve","id":3},"size":"many"}"#,
        br#"{"verb":"list","user":null,"size":40}"#,
    ];
    let rows = events(&values.map(Some));
    let mut walk = FieldWalk::new();
    values.iter().for_each(|value| walk.look(Some(value)));
    let schema = walk.extend(&StreamSchema::default());
    let fields = shred(&schema, rows.column_by_name("_value").expect("values")).expect("columns");
    let columns = Columns::new(schema).schema().clone();
    let each = columns.fields().iter().map(|column| {
        let field = fields.iter().find(|(field, _)| field.name() == column.name());
        field
            .map_or_else(|| rows.column_by_name(column.name()).expect("fixed"), |(_, of)| of)
            .clone()
    });
    let batch = RecordBatch::try_new(columns.clone(), each.collect()).expect("rows");
    MemTable::try_new(columns, vec![vec![batch]]).expect("a table")
}

#[tokio::test]
async fn what_the_documentation_shows_is_what_is_answered() {
    let mut fixture = Fixture::new();
    let name = StreamName::new("audit").expect("a name");
    fixture.server.streams.insert(name, Arc::new(audit()));
    let examples = examples(include_str!("../../../../docs/sql.md"));
    assert!(examples.len() > 10, "{} examples", examples.len());
    for (sql, expected) in examples {
        let found = match fixture.ask(&sql).await {
            Ok(found) => found.text(),
            Err(refusal) => format!("{} {}: {}\n", refusal.sqlstate, refusal.code, refusal.message),
        };
        match expected {
            Some(expected) => assert_eq!(found, expected, "{sql}"),
            None => assert!(!found.starts_with(|c: char| c.is_ascii_digit()), "{sql}: {found}"),
        }
    }
}
