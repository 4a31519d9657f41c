//! The examples of docs/sql.md are run.

use super::Fixture;

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

#[tokio::test]
async fn what_the_documentation_shows_is_what_is_answered() {
    let fixture = Fixture::new();
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
