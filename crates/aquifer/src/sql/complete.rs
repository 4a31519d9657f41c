//! What a word at the shell's prompt may become.

use std::collections::BTreeSet;

/// The words of statements that are worth completing.
const KEYWORDS: [&str; 62] = [
    "ALL",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COUNT",
    "CREATE",
    "CROSS",
    "CURRENT_TIMESTAMP",
    "DATE_BIN",
    "DATE_TRUNC",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTRACT",
    "FALSE",
    "FILTER",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INTERSECT",
    "INTERVAL",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "REPLACE",
    "RIGHT",
    "SELECT",
    "SHOW",
    "TABLES",
    "THEN",
    "TRUE",
    "UNION",
    "VIEW",
    "WHEN",
    "WHERE",
    "WITH",
];
/// The columns of every stream.
const COLUMNS: [&str; 7] =
    ["_appended", "_headers", "_key", "_offset", "_partition", "_timestamp", "_value"];
const COMMANDS: [&str; 5] = ["\\?", "\\d", "\\q", "\\timing", "\\x"];
/// More candidates than these are no help.
const CANDIDATES_MAX: usize = 200;

/// The names that the shell knows of the server.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Streams and views.
    pub(super) tables: BTreeSet<String>,
    /// Columns, beyond those of every stream.
    pub(super) columns: BTreeSet<String>,
}

impl Names {
    /// Where the word before `at` begins, and what it may become.
    pub(super) fn complete(&self, line: &str, at: usize) -> (usize, Vec<String>) {
        let before = line.get(..at).unwrap_or(line);
        let is_word = |letter: char| {
            letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.' | '"' | '\\')
        };
        let start = before
            .char_indices()
            .rev()
            .take_while(|(_, letter)| is_word(*letter))
            .last()
            .map_or(before.len(), |(start, _)| start);
        let word = before.get(start..).unwrap_or_default();
        let is_command = before.trim_start().starts_with('\\');
        let mut found = Vec::new();
        if word.starts_with('\\') {
            found
                .extend(COMMANDS.iter().filter(|name| name.starts_with(word)).map(|n| (*n).into()));
        } else if is_command {
            found.extend(matching(&self.tables, word).cloned());
        } else if !word.is_empty() {
            let bare = word.trim_start_matches('"');
            let tables = matching(&self.tables, bare).map(|name| quoted(name));
            let columns = matching(&self.columns, bare).map(|name| quoted(name));
            let fixed = COLUMNS.iter().filter(|name| begins(name, bare));
            found.extend(tables.chain(columns).chain(fixed.map(|name| (*name).to_owned())));
            if word == bare {
                let is_lower = !word.chars().any(char::is_uppercase);
                let keywords = KEYWORDS.iter().filter(|keyword| begins(keyword, word));
                found.extend(keywords.map(|keyword| match is_lower {
                    true => keyword.to_lowercase(),
                    false => (*keyword).to_owned(),
                }));
            }
        }
        found.sort();
        found.dedup();
        found.truncate(CANDIDATES_MAX);
        (start, found)
    }
}

fn matching<'a>(names: &'a BTreeSet<String>, word: &str) -> impl Iterator<Item = &'a String> {
    names.iter().filter(move |name| begins(name, word))
}

fn begins(name: &str, word: &str) -> bool {
    let mut letters = name.chars().flat_map(char::to_lowercase);
    word.chars().flat_map(char::to_lowercase).all(|letter| letters.next() == Some(letter))
}

/// A name as a statement has it.
pub(super) fn quoted(name: &str) -> String {
    let mut letters = name.chars();
    let is_first = |letter: char| letter.is_ascii_alphabetic() || letter == '_';
    let is_plain = letters.next().is_some_and(is_first)
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        && !KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(name));
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_keywords_tables_and_columns() {
        let names = Names {
            tables: ["audit", "audit-k8s", "Orders"].map(str::to_owned).into(),
            columns: ["user", "order"].map(str::to_owned).into(),
        };
        let check = |line: &str, start: usize, expected: &[&str]| {
            assert_eq!(names.complete(line, line.len()), (start, words(expected)), "{line}");
        };
        fn words(words: &[&str]) -> Vec<String> {
            words.iter().map(|word| (*word).to_owned()).collect()
        }
        check("sel", 0, &["select"]);
        check("SEL", 0, &["SELECT"]);
        check("select * from au", 14, &["\"audit-k8s\"", "audit"]);
        check("select * from ORD", 14, &["\"order\"", "ORDER", "Orders"]);
        check("select _o", 7, &["_offset"]);
        check("select \"aud", 7, &["\"audit-k8s\"", "audit"]);
        check("\\d", 0, &["\\d"]);
        check("\\d au", 3, &["audit", "audit-k8s"]);
        check("select ", 7, &[]);
        check("", 0, &[]);
        check("größe sel", 8, &["select"]);
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        for (name, expected) in [
            ("a_1", "a_1"),
            ("a-b", "\"a-b\""),
            ("1a", "\"1a\""),
            ("a\"b", "\"a\"\"b\""),
            ("order", "\"order\""),
        ] {
            assert_eq!(quoted(name), expected);
        }
    }
}
