//! The prepared statements of a connection, bounded in number and bytes.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::command::Command;
use crate::error::{Problem, sqlstate};

/// What a statement is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing but space and comments.
    Empty,
    /// Of the session.
    Command(Command),
    /// For the engine.
    Question,
}

/// A statement that was parsed.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) sql: String,
    pub(crate) kind: Kind,
    /// What the client said of its placeholders; 0 where it left that open.
    pub(crate) declared: Vec<u32>,
    /// What the engine said, once it was asked.
    pub(crate) described: OnceLock<Vec<u32>>,
}

impl Prepared {
    /// Tells what a statement is.
    ///
    /// # Errors
    /// Several statements in one, or a command that is not whole.
    pub(crate) fn new(sql: String, declared: Vec<u32>) -> Result<Self, Problem> {
        let statements = crate::lexer::statements(&sql);
        let (kind, sql) = match statements.as_slice() {
            [] => (Kind::Empty, String::new()),
            [(_, statement)] => match Command::parse(statement)? {
                Some(command) => (Kind::Command(command), (*statement).to_owned()),
                // As it came, so that positions in it stay.
                None => (Kind::Question, sql.clone()),
            },
            _ => {
                let message = "a prepared statement is one statement, not several";
                return Err(Problem::new(sqlstate::SYNTAX, message));
            }
        };
        Ok(Self { sql, kind, declared, described: OnceLock::new() })
    }

    /// The type of a placeholder as far as it is known, 0 where it is not.
    pub(crate) fn type_of(&self, at: usize) -> u32 {
        let declared = self.declared.get(at).copied().filter(|oid| *oid != 0);
        let described = || self.described.get().and_then(|types| types.get(at)).copied();
        declared.or_else(described).unwrap_or_default()
    }

    /// Whether it is one of those that change something and have no rows.
    pub(crate) fn changes(&self) -> bool {
        let first = crate::lexer::Lexer::new(&self.sql).next();
        first.is_some_and(|first| first.is("create") || first.is("drop"))
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.sql.len() + self.declared.len() * size_of::<u32>()
    }
}

/// Statements by name; the empty one is replaced by each that comes.
#[derive(Debug)]
pub(crate) struct Statements {
    of: HashMap<String, Arc<Prepared>>,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

impl Statements {
    pub(crate) fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { of: HashMap::new(), bytes: 0, count_max, bytes_max }
    }

    /// Keeps a statement.
    ///
    /// # Errors
    /// Its name is taken, or there are enough.
    pub(crate) fn put(&mut self, name: String, prepared: Prepared) -> Result<(), Problem> {
        if name.is_empty() {
            self.remove(&name);
        } else if self.of.contains_key(&name) {
            let message = format!("there is a prepared statement \"{name}\" already");
            return Err(Problem::new(sqlstate::DUPLICATE_STATEMENT, message));
        }
        let bytes = prepared.bytes() + name.len();
        if self.of.len() >= self.count_max || self.bytes.saturating_add(bytes) > self.bytes_max {
            let message = format!(
                "a connection has at most {} prepared statements, of {} bytes together",
                self.count_max, self.bytes_max
            );
            return Err(Problem::new(sqlstate::LIMIT_EXCEEDED, message)
                .hint("close some; postgres.statements_max and _bytes_max are the limits"));
        }
        self.bytes += bytes;
        self.of.insert(name, Arc::new(prepared));
        Ok(())
    }

    /// A statement.
    ///
    /// # Errors
    /// There is none of that name.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Prepared>, Problem> {
        self.of.get(name).cloned().ok_or_else(|| {
            let message = format!("there is no prepared statement \"{name}\"");
            Problem::new(sqlstate::NO_STATEMENT, message)
        })
    }

    /// Forgets a statement; false where there is none.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let removed = self.of.remove(name);
        if let Some(prepared) = &removed {
            self.bytes -= prepared.bytes() + name.len();
        }
        removed.is_some()
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.of.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(sql: &str) -> Prepared {
        Prepared::new(sql.to_owned(), Vec::new()).unwrap()
    }

    #[test]
    fn they_are_bounded() {
        let mut statements = Statements::new(3, 10_000);
        for name in ["", "a", "b"] {
            statements.put(name.to_owned(), prepared("select 1")).unwrap();
        }
        statements.put(String::new(), prepared("select 2")).unwrap();
        let refused = |put: Result<(), Problem>| put.unwrap_err().sqlstate;
        let again = statements.put("a".to_owned(), prepared("x"));
        assert_eq!(refused(again), sqlstate::DUPLICATE_STATEMENT);
        let more = statements.put("c".to_owned(), prepared("x"));
        assert_eq!(refused(more), sqlstate::LIMIT_EXCEEDED);
        assert!(statements.remove("a") && !statements.remove("a"));
        let long = statements.put("c".to_owned(), prepared(&"x".repeat(10_000)));
        assert_eq!(refused(long), sqlstate::LIMIT_EXCEEDED);
        statements.clear();
        assert_eq!(statements.bytes, 0);
        assert_eq!(statements.get("b").unwrap_err().sqlstate, sqlstate::NO_STATEMENT);
    }

    #[test]
    fn a_statement_is_what_it_is() {
        assert_eq!(prepared(" -- nothing").kind, Kind::Empty);
        assert_eq!(prepared("begin;").kind, Kind::Command(Command::Begin));
        assert_eq!(prepared(" select 1 ;").kind, Kind::Question);
        assert_eq!(prepared(" select 1 ;").sql, " select 1 ;");
        Prepared::new("select 1; select 2".to_owned(), Vec::new()).unwrap_err();
    }
}
