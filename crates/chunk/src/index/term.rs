//! Terms: what the index has blocks for, and how each becomes a number.
//!
//! A term is a 64-bit hash, XXH64, of what it stands for; its seed keeps kinds
//! apart. A field's own hash is the seed of its terms.
//!
//! | term | seed | bytes |
//! |---|---|---|
//! | a word | 1 | the token |
//! | the start of a word | 2 | the first characters of a token that has as many, [`PREFIX_CHARACTERS`] |
//! | a field | 3 | its path; the lowest bit is cleared |
//! | a token in a field's text or literal | the field | the token |
//! | a number in a field | the field + 1 | the `f64`, little endian; −0 is 0 |

use twox_hash::XxHash64;

use crate::fields::path_of_query;
use crate::tokens::TOKEN_BYTES_MAX;

const WORD: u64 = 1;
const PREFIX: u64 = 2;
const FIELD: u64 = 3;
/// Of the starts of words those of so many characters have terms.
pub const PREFIX_CHARACTERS: [usize; 2] = [3, 5];

pub(super) fn word(token: &[u8]) -> u64 {
    XxHash64::oneshot(WORD, token)
}

/// The start of a token, where it has `characters` at least.
pub(super) fn prefix(token: &[u8], characters: usize) -> Option<u64> {
    // Most tokens are ASCII, where characters are bytes.
    if token.is_ascii() {
        return token.get(..characters).map(|start| XxHash64::oneshot(PREFIX, start));
    }
    let is_first = |byte: &u8| !matches!(*byte, 0x80..=0xbf);
    let mut ends = token.iter().enumerate().filter(|(_, byte)| is_first(byte)).map(|(at, _)| at);
    let start = match ends.nth(characters) {
        Some(end) => token.get(..end)?,
        None if token.iter().filter(|byte| is_first(byte)).count() == characters => token,
        None => return None,
    };
    Some(XxHash64::oneshot(PREFIX, start))
}

pub(super) fn field(path: &str) -> u64 {
    XxHash64::oneshot(FIELD, path.as_bytes()) & !1
}

pub(super) fn field_token(field: u64, token: &[u8]) -> u64 {
    XxHash64::oneshot(field, token)
}

pub(super) fn field_number(field: u64, number: f64) -> u64 {
    // One zero: the two are equal.
    let number = if number == 0.0 { 0.0 } else { number };
    XxHash64::oneshot(field + 1, &number.to_le_bytes())
}

/// What blocks are asked for. A record that answers it lies in one of the blocks
/// that are given; that a block is given does not say that one lies there.
///
/// Tokens and paths are taken as they are: tokens come from
/// [`crate::tokens_of_text`], which gives them in lower case.
#[derive(Debug, Clone, PartialEq)]
pub enum TermQuery {
    /// Anything: all blocks. What the index cannot tell is asked for so.
    Anything,
    /// Records with this token in key, headers or value.
    Word(String),
    /// Records with a token that begins so.
    Prefix(String),
    /// Records whose value is a JSON object that has the field.
    FieldExists(String),
    /// The same, with this token in a string or literal of the field, whose
    /// path comes first.
    FieldWord(String, String),
    /// The same, with this number in the field.
    FieldNumber(String, f64),
    /// Records that answer all of them; all records where there is none.
    All(Vec<TermQuery>),
    /// Records that answer one of them at least.
    Any(Vec<TermQuery>),
}

/// What a query looks up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    Term(u64),
    /// A field, and a term in it if one is asked for.
    Field(u64, Option<u64>),
    /// The index has no term for it.
    Unknown,
}

impl TermQuery {
    pub(super) fn lookup(&self) -> Lookup {
        match self {
            Self::Word(token) if is_token(token) => Lookup::Term(word(token.as_bytes())),
            Self::Prefix(start) if is_token(start) => {
                let longest = PREFIX_CHARACTERS.iter().rev();
                let term = longest.filter_map(|count| prefix(start.as_bytes(), *count)).next();
                term.map_or(Lookup::Unknown, Lookup::Term)
            }
            Self::FieldExists(path) => in_field(path, |_| None),
            Self::FieldWord(path, token) if is_token(token) => {
                in_field(path, |field| Some(field_token(field, token.as_bytes())))
            }
            Self::FieldNumber(path, number) => {
                in_field(path, |field| Some(field_number(field, *number)))
            }
            _ => Lookup::Unknown,
        }
    }
}

fn in_field(path: &str, term: impl Fn(u64) -> Option<u64>) -> Lookup {
    let Some(path) = path_of_query(path) else { return Lookup::Unknown };
    let field = field(&path);
    Lookup::Field(field, term(field))
}

/// Longer ones are no tokens: the index must not say that there is none.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= TOKEN_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_counted_in_characters() {
        let check = |token: &str, count: usize, start: Option<&str>| {
            let expected = start.map(|start| XxHash64::oneshot(PREFIX, start.as_bytes()));
            assert_eq!(prefix(token.as_bytes(), count), expected, "{token}");
        };
        check("ab", 3, None);
        check("abc", 3, Some("abc"));
        check("abcd", 3, Some("abc"));
        check("äöü", 3, Some("äöü"));
        check("äöüß", 3, Some("äöü"));
        check("", 3, None);
    }

    #[test]
    fn what_has_no_term_is_unknown() {
        let check = |query: TermQuery, is_known: bool| {
            assert_eq!(query.lookup() != Lookup::Unknown, is_known, "{query:?}");
        };
        check(TermQuery::Anything, false);
        check(TermQuery::Word("x".into()), true);
        check(TermQuery::Word(String::new()), false);
        check(TermQuery::Word("x".repeat(129)), false);
        check(TermQuery::Prefix("ab".into()), false);
        check(TermQuery::Prefix("abc".into()), true);
        check(TermQuery::FieldExists(String::new()), false);
        check(TermQuery::FieldNumber("a".into(), -0.0), true);
        let zero = |number| TermQuery::FieldNumber("a".into(), number).lookup();
        assert_eq!(zero(0.0), zero(-0.0));
    }
}
