//! Which tokens a record must have for a query to match: what the index of a
//! chunk can be asked.
//!
//! It may ask for too little, never for what a matching record can lack.

use aquifer_chunk::{TermQuery, tokens_of_text};

use crate::pattern::TokenPattern;
use crate::query::{Leaf, Node, Query, Scalar, Scope};

impl Query {
    /// What records that match must have.
    #[must_use]
    pub fn need(&self) -> TermQuery {
        self.root.need()
    }
}

impl Node {
    fn need(&self) -> TermQuery {
        match self {
            Self::Everything | Self::Not(_) => TermQuery::Anything,
            Self::All(parts) => all(parts.iter().map(Self::need)),
            Self::Any(parts) => {
                let needs: Vec<TermQuery> = parts.iter().map(Self::need).collect();
                if needs.contains(&TermQuery::Anything) {
                    TermQuery::Anything
                } else {
                    TermQuery::Any(needs)
                }
            }
            Self::Leaf(leaf) => leaf.need(),
        }
    }
}

impl Leaf {
    fn need(&self) -> TermQuery {
        match self {
            Self::Text { scope: Scope::Field(path), pattern, scalar } => {
                let words = pattern.tokens.iter().map(|token| match token {
                    TokenPattern::Exact(token) => field_token(path, token),
                    other => token_need(other),
                });
                all([tokens(path), with_number(path, all(words), scalar.as_ref())])
            }
            Self::Text { scope, pattern, .. } => {
                all([scope.need(), all(pattern.tokens.iter().map(token_need))])
            }
            Self::Exact { scope: Scope::Field(path), text, scalar } => {
                let words = tokens_of_text(text).into_iter();
                let words = all(words.map(|token| field_token(path, &token)));
                all([tokens(path), with_number(path, words, scalar.as_ref())])
            }
            Self::Exact { scope, text, .. } => all([scope.need(), tokens_as_stored(text)]),
            Self::Exists(scope) | Self::Within { scope, .. } => scope.need(),
            Self::Timestamp(_) | Self::Partition(_) | Self::Offset(_) => TermQuery::Anything,
        }
    }
}

impl Scope {
    /// The names of a field or header are tokens too.
    fn need(&self) -> TermQuery {
        match self {
            Self::Field(path) => tokens(path),
            Self::Header(name) => tokens_as_stored(name),
            Self::Anywhere | Self::Key | Self::Value | Self::Headers => TermQuery::Anything,
        }
    }
}

/// A token of a field is a token of the record, too. An index that has no terms
/// of the field still has the token.
fn field_token(path: &str, token: &str) -> TermQuery {
    let token = token.to_owned();
    TermQuery::All(vec![
        TermQuery::FieldWord(path.to_owned(), token.clone()),
        TermQuery::Word(token),
    ])
}

/// `words`, or the number that may stand there in their place. Numbers that are
/// equal are so as floating-point numbers, too.
fn with_number(path: &str, words: TermQuery, scalar: Option<&Scalar>) -> TermQuery {
    let Some(Scalar::Number(number)) = scalar else { return words };
    match (number.parse::<f64>(), words) {
        (Ok(_), TermQuery::Anything) | (Err(_), _) => TermQuery::Anything,
        (Ok(number), words) => {
            TermQuery::Any(vec![words, TermQuery::FieldNumber(path.to_owned(), number)])
        }
    }
}

fn token_need(token: &TokenPattern) -> TermQuery {
    match token {
        TokenPattern::Exact(token) => TermQuery::Word(token.clone()),
        TokenPattern::Prefix(start) if !start.is_empty() => TermQuery::Prefix(start.clone()),
        TokenPattern::Glob(parts) => match parts.first() {
            Some(start) if !start.is_empty() => TermQuery::Prefix(start.clone()),
            _ => TermQuery::Anything,
        },
        TokenPattern::Prefix(_) => TermQuery::Anything,
    }
}

fn tokens(text: &str) -> TermQuery {
    all(tokens_of_text(text).into_iter().map(TermQuery::Word))
}

/// The tokens of what is stored exactly so, escapes of JSON and all.
fn tokens_as_stored(text: &str) -> TermQuery {
    let mut needs = Vec::new();
    aquifer_chunk::tokens(text.as_bytes(), |token| {
        needs.push(TermQuery::Word(String::from_utf8_lossy(token.text).into_owned()));
    });
    all(needs)
}

/// Joins what is needed, without repetitions.
fn all(needs: impl IntoIterator<Item = TermQuery>) -> TermQuery {
    let mut joined = Vec::new();
    for need in needs {
        match need {
            TermQuery::Anything => {}
            TermQuery::All(parts) => {
                for part in parts {
                    if !joined.contains(&part) {
                        joined.push(part);
                    }
                }
            }
            other if joined.contains(&other) => {}
            other => joined.push(other),
        }
    }
    match joined.pop() {
        None => TermQuery::Anything,
        Some(only) if joined.is_empty() => only,
        Some(last) => {
            joined.push(last);
            TermQuery::All(joined)
        }
    }
}

#[cfg(test)]
mod tests {
    use aquifer_types::Timestamp;

    use super::*;

    #[test]
    fn what_is_needed() {
        let check = |text: &str, expected: &str| {
            let need = Query::parse(text, Timestamp(0)).unwrap().need();
            assert_eq!(show(&need), expected, "{text}");
        };
        check("", "?");
        check("Error", "error");
        check("user-42 user", "(user & 42)");
        check("a b OR c", "((a & b) | c)");
        check("a OR -b", "?");
        check("a -b", "a");
        check("err* *x a*b", "(err* & a*)");
        check("user.Name:ada", "(user & name & user.Name=ada & ada)");
        check("verb:del*", "(verb & del*)");
        check("a:\"b c\"", "(a & a=b & b & a=c & c)");
        check("status:500", "(status & ((status=500 & 500) | status#500))");
        check("status:=1.50", "(status & ((status=1 & 1 & status=50 & 50) | status#1.5))");
        check("status:>=500", "status");
        check("_headers.trace:\"a b\"", "(trace & a & b)");
        check("_key:x _timestamp:>5", "x");
        check("field:*", "field");
        check("ok:true", "(ok & ok=true & true)");
        check("ok:=\"\"", "ok");
    }

    fn show(query: &TermQuery) -> String {
        let join = |parts: &[TermQuery], with: &str| {
            format!("({})", parts.iter().map(show).collect::<Vec<_>>().join(with))
        };
        match query {
            TermQuery::Anything => "?".into(),
            TermQuery::All(parts) => join(parts, " & "),
            TermQuery::Any(parts) => join(parts, " | "),
            TermQuery::Word(token) => token.clone(),
            TermQuery::Prefix(start) => format!("{start}*"),
            TermQuery::FieldExists(path) => format!("{path}?"),
            TermQuery::FieldWord(path, token) => format!("{path}={token}"),
            TermQuery::FieldNumber(path, number) => format!("{path}#{number}"),
        }
    }
}
