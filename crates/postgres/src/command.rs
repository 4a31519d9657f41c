//! The statements that concern the session alone. Everything else is a question
//! for the engine.

use crate::error::{Problem, sqlstate};
use crate::lexer::{Kind, Lexer, Token};

/// A statement that is answered here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Begin,
    Commit,
    Rollback,
    /// Inside of a transaction, without an effect: nothing can be undone.
    Savepoint(&'static str),
    Set {
        name: String,
        value: Option<String>,
        /// It ends with the transaction.
        is_local: bool,
    },
    Show {
        name: String,
    },
    ShowAll,
    Reset {
        name: Option<String>,
    },
    /// Accepted, since it changes nothing: its tag.
    Nothing(&'static str),
    DiscardAll,
    Deallocate {
        name: Option<String>,
    },
    Declare {
        name: String,
        sql: String,
        is_held: bool,
    },
    Fetch {
        name: String,
        count: Option<u64>,
        is_move: bool,
    },
    CloseCursor {
        name: Option<String>,
    },
    CopyOut {
        sql: String,
        form: CopyForm,
    },
}

/// How `COPY … TO STDOUT` writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyForm {
    pub(crate) is_csv: bool,
    pub(crate) has_header: bool,
    pub(crate) delimiter: u8,
    pub(crate) null: String,
}

impl Command {
    /// The command that a statement is; none where it is for the engine.
    ///
    /// # Errors
    /// A command that is not whole, or asks for what there is not.
    pub(crate) fn parse(sql: &str) -> Result<Option<Self>, Problem> {
        let mut words = Words { sql, tokens: Lexer::new(sql), peeked: None };
        let Some(first) = words.next() else { return Ok(None) };
        if first.kind != Kind::Word {
            return Ok(None);
        }
        let command = match first.text.to_ascii_lowercase().as_str() {
            "begin" => words.begin()?,
            "start" => {
                words.expect("transaction")?;
                words.begin()?
            }
            "commit" | "end" => Self::Commit,
            "rollback" | "abort" => words.rollback(),
            "savepoint" => Self::Savepoint("SAVEPOINT"),
            "release" => Self::Savepoint("RELEASE"),
            "set" => words.set()?,
            "reset" => match words.setting_name()? {
                all if all == "all" => Self::Reset { name: None },
                name => Self::Reset { name: Some(name) },
            },
            "show" => return words.show(),
            "discard" => match words.next() {
                Some(what) if what.is("all") => Self::DiscardAll,
                _ => Self::Nothing("DISCARD"),
            },
            "deallocate" => {
                words.skip("prepare");
                Self::Deallocate { name: words.name_or_all()? }
            }
            "declare" => words.declare()?,
            "fetch" => words.fetch(false)?,
            "move" => words.fetch(true)?,
            "close" => Self::CloseCursor { name: words.name_or_all()? },
            "listen" => Self::Nothing("LISTEN"),
            "unlisten" => Self::Nothing("UNLISTEN"),
            "copy" => words.copy()?,
            _ => return Ok(None),
        };
        Ok(Some(command))
    }

    /// Whether it may run in a transaction that has failed.
    pub(crate) const fn ends_transaction(&self) -> bool {
        matches!(self, Self::Commit | Self::Rollback)
    }
}

/// A statement, word by word.
struct Words<'a> {
    sql: &'a str,
    tokens: Lexer<'a>,
    peeked: Option<Token<'a>>,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        self.peeked.take().or_else(|| self.tokens.next())
    }

    fn peek(&mut self) -> Option<&Token<'a>> {
        if self.peeked.is_none() {
            self.peeked = self.tokens.next();
        }
        self.peeked.as_ref()
    }

    /// Goes over a word if it is the next.
    fn skip(&mut self, word: &str) -> bool {
        let is_next = self.peek().is_some_and(|token| token.is(word));
        if is_next {
            self.peeked = None;
        }
        is_next
    }

    fn expect(&mut self, word: &str) -> Result<(), Problem> {
        if self.skip(word) { Ok(()) } else { Err(self.unexpected(&word.to_uppercase())) }
    }

    /// What is wrong here, and where.
    fn unexpected(&mut self, wanted: &str) -> Problem {
        let (found, at) = match self.peek() {
            Some(token) => (format!("\"{}\"", token.text), token.range.start),
            None => ("the end".to_owned(), self.sql.len()),
        };
        let before = self.sql.get(..at).unwrap_or_default();
        Problem {
            position: Some(before.chars().count() as u64 + 1),
            ..Problem::new(sqlstate::SYNTAX, format!("{wanted} was expected, not {found}"))
        }
    }

    fn name(&mut self) -> Result<String, Problem> {
        match self.peek().and_then(Token::name) {
            Some(name) => {
                self.peeked = None;
                Ok(name)
            }
            None => Err(self.unexpected("a name")),
        }
    }

    /// A name, or none for `ALL`.
    fn name_or_all(&mut self) -> Result<Option<String>, Problem> {
        if self.skip("all") { Ok(None) } else { self.name().map(Some) }
    }

    /// The name of a setting, in lower case: `a` or `a.b`, and those of two
    /// words.
    fn setting_name(&mut self) -> Result<String, Problem> {
        let mut name = self.name()?.to_lowercase();
        while self.skip(".") {
            name = format!("{name}.{}", self.name()?.to_lowercase());
        }
        match name.as_str() {
            "time" if self.skip("zone") => Ok("timezone".to_owned()),
            "session" if self.skip("authorization") => Ok("session_authorization".to_owned()),
            "transaction" if self.skip("isolation") => {
                self.expect("level")?;
                Ok("transaction_isolation".to_owned())
            }
            _ => Ok(name),
        }
    }

    fn begin(&mut self) -> Result<Command, Problem> {
        while let Some(token) = self.next() {
            // Nothing is ever written in one: that is not what was asked for.
            if token.is("write") {
                return Err(read_only());
            }
        }
        Ok(Command::Begin)
    }

    fn rollback(&mut self) -> Command {
        self.skip("work");
        self.skip("transaction");
        if self.skip("to") { Command::Savepoint("ROLLBACK") } else { Command::Rollback }
    }

    fn set(&mut self) -> Result<Command, Problem> {
        if self.skip("transaction") {
            return self.begin().map(|_| Command::Nothing("SET"));
        }
        if self.skip("session") {
            if self.skip("characteristics") {
                return self.begin().map(|_| Command::Nothing("SET"));
            }
            if self.skip("authorization") {
                return Ok(Command::Nothing("SET"));
            }
        }
        let is_local = self.skip("local");
        if self.skip("names") {
            let (name, value) = ("client_encoding".to_owned(), self.setting_value());
            return Ok(Command::Set { name, value, is_local });
        }
        if self.skip("role") || self.skip("constraints") {
            return Ok(Command::Nothing("SET"));
        }
        let name = self.setting_name()?;
        // A time zone follows without one.
        if !self.skip("=") && !self.skip("to") && name != "timezone" {
            return Err(self.unexpected("="));
        }
        let value = self.setting_value();
        Ok(Command::Set { name, value, is_local })
    }

    /// What follows, as one text; none for the default.
    fn setting_value(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut is_first = true;
        while let Some(token) = self.next() {
            if is_first && token.is("default") {
                return None;
            }
            is_first = false;
            match token.text {
                "," => value.push_str(", "),
                _ => value.push_str(&token.value()),
            }
        }
        (!value.is_empty() || !is_first).then_some(value)
    }

    fn show(&mut self) -> Result<Option<Command>, Problem> {
        // What the tables are the engine knows.
        let engine = ["tables", "columns", "functions", "views", "streams", "create"];
        let is_engines = self.peek().is_none_or(|next| engine.iter().any(|word| next.is(word)));
        if is_engines {
            return Ok(None);
        }
        if self.skip("all") {
            return Ok(Some(Command::ShowAll));
        }
        let name = self.setting_name()?;
        if self.peek().is_some() {
            return Ok(None);
        }
        Ok(Some(Command::Show { name }))
    }

    fn declare(&mut self) -> Result<Command, Problem> {
        let name = self.name()?;
        let (mut is_held, mut is_with) = (false, false);
        // `SCROLL` is passed over too: to go back fails when it is tried.
        while let Some(token) = self.next() {
            is_held |= is_with && token.is("hold");
            is_with = token.is("with");
            if token.is("for") {
                let sql = self.sql.get(token.range.end..).unwrap_or_default().trim();
                return Ok(Command::Declare { name, sql: sql.to_owned(), is_held });
            }
        }
        Err(self.unexpected("FOR"))
    }

    fn fetch(&mut self, is_move: bool) -> Result<Command, Problem> {
        let mut count = Some(1);
        if self.skip("all") {
            count = None;
        } else if self.skip("next") {
        } else {
            let is_forward = self.skip("forward");
            let backward = ["prior", "first", "last", "absolute", "relative", "backward", "-"];
            if self.peek().is_some_and(|token| backward.iter().any(|word| token.is(word))) {
                let message = "a cursor only goes forward";
                return Err(Problem::new(sqlstate::NOT_IN_STATE, message));
            }
            if is_forward && self.skip("all") {
                count = None;
            } else if self.peek().is_some_and(|token| token.kind == Kind::Number) {
                let number = self.next().and_then(|token| token.text.parse().ok());
                count = Some(number.ok_or_else(|| self.unexpected("a number of rows"))?);
            }
        }
        if !self.skip("from") {
            self.skip("in");
        }
        Ok(Command::Fetch { name: self.name()?, count, is_move })
    }

    /// `COPY (query) TO STDOUT [WITH] [(options) | CSV HEADER …]`, and of a
    /// table in a query's place.
    fn copy(&mut self) -> Result<Command, Problem> {
        let mut depth = 0_usize;
        let mut range: Option<(usize, usize)> = None;
        loop {
            let Some(token) = self.next() else { return Err(self.unexpected("TO STDOUT")) };
            if depth == 0 && token.is("to") {
                break;
            }
            if depth == 0 && token.is("from") {
                let message = "COPY … FROM is not supported: records are appended over HTTP or \
                               Kafka's protocol";
                return Err(Problem::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
            }
            if token.is("(") {
                depth += 1;
            } else if token.is(")") {
                depth = depth.saturating_sub(1);
            }
            let start = range.map_or(token.range.start, |(start, _)| start);
            range = Some((start, token.range.end));
        }
        if !self.skip("stdout") {
            let message = "the server writes no files: COPY … TO STDOUT is what there is";
            return Err(Problem::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
        }
        let (start, end) = range.unwrap_or_default();
        let source = self.sql.get(start..end).unwrap_or_default();
        let query = source.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        let sql = match query {
            Some(query) => query.trim().to_owned(),
            None => copy_of_table(source)?,
        };
        Ok(Command::CopyOut { sql, form: self.copy_form()? })
    }

    fn copy_form(&mut self) -> Result<CopyForm, Problem> {
        let (mut is_csv, mut has_header) = (false, false);
        let (mut delimiter, mut null) = (None, None);
        while let Some(token) = self.next() {
            if token.is("csv") {
                is_csv = true;
            } else if token.is("header") {
                has_header = !self.skip("false") && !self.skip("off");
            } else if token.is("delimiter") || token.is("null") {
                self.skip("as");
                let value = self.next().map(|token| token.value()).unwrap_or_default();
                if token.is("null") {
                    null = Some(value);
                } else {
                    delimiter = match value.as_bytes() {
                        [byte] if *byte != b'"' && *byte != b'\\' => Some(*byte),
                        _ => return Err(self.unexpected("a delimiter of one character")),
                    };
                }
            } else if token.is("binary") {
                let message = "COPY is written as text or CSV, not in binary form";
                return Err(Problem::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
            } else {
                let known = ["with", "(", ")", ",", "format", "text", "true", "on", "encoding"];
                let is_known = known.iter().any(|word| token.is(word))
                    || token.kind == Kind::Text && token.value().eq_ignore_ascii_case("utf8");
                if !is_known {
                    let message = format!("COPY has no option {} here", token.text);
                    return Err(Problem::new(sqlstate::FEATURE_NOT_SUPPORTED, message));
                }
            }
        }
        let delimiter = delimiter.unwrap_or(if is_csv { b',' } else { b'\t' });
        let null = null.unwrap_or_else(|| if is_csv { "" } else { "\\N" }.to_owned());
        Ok(CopyForm { is_csv, has_header, delimiter, null })
    }
}

/// `name (a, b)` as a query.
fn copy_of_table(source: &str) -> Result<String, Problem> {
    match source.split_once('(') {
        Some((table, columns)) => match columns.trim_end().strip_suffix(')') {
            Some(columns) => Ok(format!("SELECT {columns} FROM {table}")),
            None => Err(Problem::new(sqlstate::SYNTAX, "the list of columns has no end")),
        },
        None if source.is_empty() => {
            Err(Problem::new(sqlstate::SYNTAX, "COPY needs a query or a table"))
        }
        None => Ok(format!("SELECT * FROM {source}")),
    }
}

fn read_only() -> Problem {
    Problem::new(sqlstate::FEATURE_NOT_SUPPORTED, "a transaction only reads")
        .hint("records are appended over HTTP or Kafka's protocol")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: Option<&str>) -> Command {
        let value = value.map(str::to_owned);
        Command::Set { name: name.to_owned(), value, is_local: false }
    }

    #[test]
    fn commands_of_the_session_are_told_from_questions() {
        let check = |sql: &str, expected: Option<Command>| {
            assert_eq!(Command::parse(sql), Ok(expected), "{sql}");
        };
        for sql in [
            "select 1",
            "",
            "(select 1)",
            "SHOW TABLES",
            "with a as (select 1) select",
            "\"begin\"",
        ] {
            check(sql, None);
        }
        check("BEGIN", Some(Command::Begin));
        check("begin isolation level repeatable read, read only", Some(Command::Begin));
        check("/* x */ START TRANSACTION READ ONLY", Some(Command::Begin));
        check("COMMIT", Some(Command::Commit));
        check("rollback work", Some(Command::Rollback));
        check("rollback to savepoint a", Some(Command::Savepoint("ROLLBACK")));
        check("SET TIME ZONE 'UTC'", Some(set("timezone", Some("UTC"))));
        check("set search_path = a, \"B\"", Some(set("search_path", Some("a, B"))));
        check("SET SESSION statement_timeout TO 1", Some(set("statement_timeout", Some("1"))));
        let (name, value) = ("statement_timeout".to_owned(), Some("5000".to_owned()));
        check(
            "SET LOCAL statement_timeout TO 5000",
            Some(Command::Set { name, value, is_local: true }),
        );
        check("SET x.y = DEFAULT", Some(set("x.y", None)));
        check("SET NAMES 'utf8'", Some(set("client_encoding", Some("utf8"))));
        check(
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            Some(Command::Nothing("SET")),
        );
        check(
            "SHOW TRANSACTION ISOLATION LEVEL",
            Some(Command::Show { name: "transaction_isolation".to_owned() }),
        );
        check("show timezone", Some(Command::Show { name: "timezone".to_owned() }));
        check("DISCARD ALL", Some(Command::DiscardAll));
        check("DEALLOCATE ALL", Some(Command::Deallocate { name: None }));
        let (name, sql) = ("a".to_owned(), "SELECT 'for' ; x".to_owned());
        check(
            "DECLARE \"a\" NO SCROLL CURSOR WITHOUT HOLD FOR SELECT 'for' ; x",
            Some(Command::Declare { name, sql, is_held: false }),
        );
        let (name, sql) = ("c".to_owned(), "select 1".to_owned());
        check(
            "declare c cursor with hold for select 1",
            Some(Command::Declare { name, sql, is_held: true }),
        );
        let fetch = |count, is_move| Some(Command::Fetch { name: "c".to_owned(), count, is_move });
        check("FETCH FORWARD 100 FROM c", fetch(Some(100), false));
        check("FETCH ALL IN c", fetch(None, false));
        check("fetch forward all from \"c\"", fetch(None, false));
        check("FETCH c", fetch(Some(1), false));
        check("fetch next from c", fetch(Some(1), false));
        check("MOVE 5 FROM c", fetch(Some(5), true));
        let form =
            CopyForm { is_csv: false, has_header: false, delimiter: b'\t', null: "\\N".to_owned() };
        let copy = |sql: &str, form| Some(Command::CopyOut { sql: sql.to_owned(), form });
        check("COPY (select 1, (2)) TO STDOUT", copy("select 1, (2)", form.clone()));
        check("copy a.b to stdout", copy("SELECT * FROM a.b", form.clone()));
        check("copy b (x, y) to stdout", copy("SELECT x, y FROM b ", form));
        let csv = CopyForm { is_csv: true, has_header: true, delimiter: b';', null: String::new() };
        check(
            "copy (select 1) to stdout with (format csv, header, delimiter ';')",
            copy("select 1", csv.clone()),
        );
        check("copy (select 1) to stdout with csv header delimiter ';'", copy("select 1", csv));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let check = |sql: &str, sqlstate: &str| {
            assert_eq!(Command::parse(sql).unwrap_err().sqlstate, sqlstate, "{sql}");
        };
        check("BEGIN READ WRITE", sqlstate::FEATURE_NOT_SUPPORTED);
        check("COPY a FROM STDIN", sqlstate::FEATURE_NOT_SUPPORTED);
        check("COPY a TO '/etc/passwd'", sqlstate::FEATURE_NOT_SUPPORTED);
        check("COPY a TO STDOUT (FORMAT binary)", sqlstate::FEATURE_NOT_SUPPORTED);
        check("FETCH PRIOR FROM c", sqlstate::NOT_IN_STATE);
        check("FETCH BACKWARD 5 FROM c", sqlstate::NOT_IN_STATE);
        check("SET x", sqlstate::SYNTAX);
        check("DECLARE c CURSOR", sqlstate::SYNTAX);
        check("FETCH 1.5.2 FROM c", sqlstate::SYNTAX);
        assert_eq!(Command::parse("SET x 1").unwrap_err().position, Some(7));
    }
}
