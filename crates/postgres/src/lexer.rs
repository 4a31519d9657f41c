//! The tokens of SQL, as far as the session has to tell them apart: where a
//! statement ends, and what its first words are. It never fails; what is not
//! closed ends with the text, and the engine says so.

use std::ops::Range;

/// A token's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A name or a keyword, not in quotes.
    Word,
    /// A name in double quotes.
    QuotedName,
    /// A string in single quotes, or between dollars.
    Text,
    /// Digits, with what belongs to them.
    Number,
    /// One character that is none of these.
    Symbol,
}

/// A piece of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
    /// In bytes.
    pub(crate) range: Range<usize>,
}

impl Token<'_> {
    /// Whether it is this word, which is in lower case, or this symbol.
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Symbol) && self.text.eq_ignore_ascii_case(text)
    }

    /// What it names: a word in lower case, a quoted name as it stands.
    pub(crate) fn name(&self) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text.to_lowercase()),
            Kind::QuotedName => Some(unquote(self.text, '"')),
            _ => None,
        }
    }

    /// The value of a string in single quotes; the text of anything else.
    pub(crate) fn value(&self) -> String {
        match self.kind {
            Kind::Text if self.text.starts_with('\'') => unquote(self.text, '\''),
            Kind::Text if self.text.starts_with(['e', 'E']) => unescape(self.text),
            Kind::QuotedName => unquote(self.text, '"'),
            _ => self.text.to_owned(),
        }
    }
}

fn unquote(text: &str, quote: char) -> String {
    let inner = text.strip_prefix(quote).unwrap_or(text);
    let inner = inner.strip_suffix(quote).unwrap_or(inner);
    inner.replace(&format!("{quote}{quote}"), &quote.to_string())
}

/// The value of `E'…'`. What follows a backslash stands for itself but for a
/// few letters; characters by their numbers are not resolved.
fn unescape(text: &str) -> String {
    let mut value = String::new();
    let mut characters = text.chars().skip("E'".len());
    while let Some(character) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|escaped| match escaped {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            })),
            '\'' => match characters.next() {
                Some(doubled) => value.push(doubled),
                None => break,
            },
            other => value.push(other),
        }
    }
    value
}

/// Walks the tokens of a text; comments and space are left out.
#[derive(Debug, Clone)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Goes over space and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if trimmed.starts_with("--") {
                self.at += trimmed.find('\n').unwrap_or(trimmed.len());
            } else if trimmed.starts_with("/*") {
                self.at += comment(trimmed);
            } else {
                return;
            }
        }
    }
}

/// The length of a comment, which may hold others.
fn comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            b"/*" => (at, depth) = (at + 2, depth + 1),
            b"*/" => {
                (at, depth) = (at + 2, depth - 1);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The length of what begins with `quote`, in which a doubled one is a part.
fn quoted(text: &str, quote: u8, has_escapes: bool) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        if has_escapes && *byte == b'\\' {
            at += 2;
        } else if *byte != quote {
            at += 1;
        } else if bytes.get(at + 1) == Some(&quote) {
            at += 2;
        } else {
            return at + 1;
        }
    }
    bytes.len()
}

/// The length of `$tag$ … $tag$`; none where it is no such string.
fn dollar_quoted(text: &str) -> Option<usize> {
    let end = text.get(1..)?.find('$')? + 1;
    let tag = text.get(1..end)?;
    let is_tag = tag.chars().all(|c| c == '_' || c.is_alphanumeric())
        && !tag.starts_with(|c: char| c.is_ascii_digit());
    let delimiter = text.get(..=end)?;
    if !is_tag {
        return None;
    }
    let body = text.get(end + 1..)?;
    Some(body.find(delimiter).map_or(text.len(), |at| end + 1 + at + delimiter.len()))
}

const fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || character == '_'
        || character == '$'
        || !character.is_ascii()
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip();
        let rest = self.rest();
        let first = rest.chars().next()?;
        let word = || rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (kind, length) = match first {
            '\'' => (Kind::Text, quoted(rest, b'\'', false)),
            'e' | 'E' if rest.get(1..2) == Some("'") => {
                (Kind::Text, 1 + quoted(rest.get(1..).unwrap_or_default(), b'\'', true))
            }
            '"' => (Kind::QuotedName, quoted(rest, b'"', false)),
            '$' => match dollar_quoted(rest) {
                Some(length) => (Kind::Text, length),
                None => (Kind::Symbol, word()),
            },
            '0'..='9' => {
                let end = |c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_';
                (Kind::Number, rest.find(end).unwrap_or(rest.len()))
            }
            c if is_word(c) => (Kind::Word, word()),
            c => (Kind::Symbol, c.len_utf8()),
        };
        // An escape at the very end, or in front of more than one byte, must
        // not lead out of the text.
        let mut end = (self.at + length).min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        let range = self.at..end;
        self.at = end;
        let text = self.text.get(range.clone())?;
        Some(Token { kind, text, range })
    }
}

/// The statements of a text, each with the bytes in front of it. Empty ones are
/// left out.
pub(crate) fn statements(text: &str) -> Vec<(usize, &str)> {
    let mut statements = Vec::new();
    let (mut start, mut end) = (None, 0);
    for token in Lexer::new(text) {
        if token.is(";") {
            if let Some(start) = start.take() {
                statements.push((start, text.get(start..end).unwrap_or_default()));
            }
            continue;
        }
        start = start.or(Some(token.range.start));
        end = token.range.end;
    }
    if let Some(start) = start {
        statements.push((start, text.get(start..end).unwrap_or_default()));
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_where_they_end() {
        let check = |text: &str, expected: &[&str]| {
            let found: Vec<_> = statements(text).into_iter().map(|(_, text)| text).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("", &[]);
        check(" ; ;-- nothing\n", &[]);
        check("select 1", &["select 1"]);
        check("select 1; select 2;", &["select 1", "select 2"]);
        check("select ';' ; select \";\"", &["select ';'", "select \";\""]);
        check("select 'it''s;' ;x", &["select 'it''s;'", "x"]);
        check("select E'\\';' ;x", &["select E'\\';'", "x"]);
        check("select $$;$$, $a$ $$; $a$; x", &["select $$;$$, $a$ $$; $a$", "x"]);
        check("select $1;x", &["select $1", "x"]);
        check("/* ; /* ; */ ; */ a -- ;\n ; b", &["a", "b"]);
        check("select ';", &["select ';"]);
        check("select E'\\", &["select E'\\"]);
        check("/* ;", &[]);
    }

    #[test]
    fn strings_have_values() {
        let check = |text: &str, expected: &str| {
            let token = Lexer::new(text).next().expect("a token");
            assert_eq!((token.kind, token.value().as_str()), (Kind::Text, expected), "{text}");
        };
        check(r"'it''s \t'", r"it's \t");
        check(r"E'it\'s' x", "it's");
        check(r"e'a\tb\nc\\d''e'", "a\tb\nc\\d'e");
        check("E''", "");
        check(r"E'open\'", "open'");
        check(r"E'open\", "open");
    }

    #[test]
    fn fuzz_statements() {
        let seeds: Vec<Vec<u8>> = [
            "select 1; select ';' -- x\n, $a$ ; $a$, E'\\'' /* ; */; begin",
            "declare \"a\"\"b\" cursor for select 1e5; fetch 5 from c",
            "set x = 'a', b; show all",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec();
        aquifer_testkit::fuzz("postgres_statements", 0.2, &seeds, |input| {
            let text = String::from_utf8_lossy(input);
            let mut end = 0;
            for token in Lexer::new(&text) {
                assert!(token.range.start >= end && token.range.end > token.range.start);
                assert!(token.value().len() <= token.text.len());
                end = token.range.end;
            }
            for (start, statement) in statements(&text) {
                assert_eq!(text.get(start..start + statement.len()), Some(statement));
                // What it is is free; that it comes back is what counts.
                let _ = crate::command::Command::parse(statement);
            }
        });
    }
}
