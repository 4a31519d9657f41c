//! What a word or phrase of a query asks of a text: tokens, side by side.

use aquifer_chunk::tokens_of_text;
use memchr::memmem;

/// Stands for `*` while a word is cut into tokens. A letter without case, so
/// that it is a part of tokens like any other; words that have it themselves
/// are refused.
const WILD: char = '\u{A015}';

/// Tokens that must follow one another in one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    pub(crate) tokens: Vec<TokenPattern>,
}

/// What is asked of one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenPattern {
    /// It is this.
    Exact(String),
    /// It begins with this.
    Prefix(String),
    /// It has these parts in this order. The first is where it begins and the
    /// last where it ends; either may be empty.
    Glob(Vec<String>),
}

/// Why a word is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// It has no letters or digits.
    Empty,
    /// A part of it with `*` is longer than tokens are.
    TooLong,
    /// It has the letter that stands for `*`.
    Reserved,
}

impl Pattern {
    /// The pattern of a text without wildcards.
    pub(crate) fn of_text(text: &str) -> Result<Self, Unusable> {
        let tokens: Vec<_> = tokens_of_text(text).into_iter().map(TokenPattern::Exact).collect();
        if tokens.is_empty() { Err(Unusable::Empty) } else { Ok(Self { tokens }) }
    }

    /// The pattern of literal parts with any letters and digits between them.
    pub(crate) fn of_parts(parts: &[String]) -> Result<Self, Unusable> {
        if let [text] = parts {
            return Self::of_text(text);
        }
        if parts.iter().any(|part| part.contains(WILD)) {
            return Err(Unusable::Reserved);
        }
        // Longer words are cut, and what was cut off could be the wildcard's.
        let is_letter = |c: char| c.is_alphanumeric() || c == '_';
        let joined = parts.join(WILD.encode_utf8(&mut [0; 4]));
        for word in joined.split(|c| !is_letter(c)).filter(|word| word.contains(WILD)) {
            if tokens_of_text(word).len() != 1 {
                return Err(Unusable::TooLong);
            }
        }
        let tokens: Vec<_> = tokens_of_text(&joined).iter().map(|t| TokenPattern::of(t)).collect();
        if tokens.iter().all(TokenPattern::is_anything) {
            return Err(Unusable::Empty);
        }
        Ok(Self { tokens })
    }
}

impl TokenPattern {
    fn of(token: &str) -> Self {
        let mut parts: Vec<String> = token.split(WILD).map(ToOwned::to_owned).collect();
        // Two wildcards side by side are one.
        let last = parts.len() - 1;
        let mut place = 0;
        parts.retain(|part| {
            let is_inner = place != 0 && place != last;
            place += 1;
            !(is_inner && part.is_empty())
        });
        match parts.as_mut_slice() {
            [whole] => Self::Exact(std::mem::take(whole)),
            [start, end] if end.is_empty() => Self::Prefix(std::mem::take(start)),
            _ => Self::Glob(parts),
        }
    }

    fn is_anything(&self) -> bool {
        match self {
            Self::Exact(_) => false,
            Self::Prefix(start) => start.is_empty(),
            Self::Glob(parts) => parts.iter().all(String::is_empty),
        }
    }

    /// Whether a token is as asked.
    pub(crate) fn fits(&self, token: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted.as_bytes() == token,
            Self::Prefix(start) => token.starts_with(start.as_bytes()),
            Self::Glob(parts) => glob(parts, token),
        }
    }

    /// The longest part that every token which fits has in it.
    pub(crate) fn literal(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
            Self::Glob(parts) => {
                parts.iter().max_by_key(|part| part.len()).map_or("", String::as_str)
            }
        }
    }
}

/// Taking each inner part where it comes first leaves the most for the rest.
fn glob(parts: &[String], token: &[u8]) -> bool {
    let [first, inner @ .., last] = parts else { return false };
    let Some(rest) = token.strip_prefix(first.as_bytes()) else { return false };
    let Some(mut rest) = rest.strip_suffix(last.as_bytes()) else { return false };
    for part in inner {
        let Some(at) = memmem::find(rest, part.as_bytes()) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use aquifer_chunk::TOKEN_BYTES_MAX;

    use super::*;

    fn pattern(word: &str) -> Result<Pattern, Unusable> {
        let parts: Vec<String> = word.split('*').map(ToOwned::to_owned).collect();
        Pattern::of_parts(&parts)
    }

    #[test]
    fn words_are_cut_into_tokens() {
        use TokenPattern::{Exact, Glob, Prefix};
        let owned = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
        let check = |word, tokens: &[TokenPattern]| {
            assert_eq!(pattern(word).unwrap().tokens, tokens, "{word}");
        };
        check("Error", &[Exact("error".into())]);
        check("user-42", &[Exact("user".into()), Exact("42".into())]);
        check("err*", &[Prefix("err".into())]);
        check("user-4*", &[Exact("user".into()), Prefix("4".into())]);
        check("*err", &[Glob(owned(&["", "err"]))]);
        check("a**b*", &[Glob(owned(&["a", "b", ""]))]);
        for (word, why) in [
            ("", Unusable::Empty),
            ("--", Unusable::Empty),
            ("**", Unusable::Empty),
            ("a\u{A015}*", Unusable::Reserved),
        ] {
            assert_eq!(pattern(word), Err(why), "{word}");
        }
        let long = format!("{}*", "x".repeat(TOKEN_BYTES_MAX));
        assert_eq!(pattern(&long), Err(Unusable::TooLong));
    }

    #[test]
    fn tokens_fit_or_do_not() {
        let check = |word: &str, token: &str, fits| {
            let pattern = pattern(word).unwrap();
            assert_eq!(pattern.tokens[0].fits(token.as_bytes()), fits, "{word} and {token}");
        };
        check("ab", "ab", true);
        check("ab", "abc", false);
        check("ab*", "abc", true);
        check("ab*", "ab", true);
        check("*bc", "abc", true);
        check("*bc", "bcd", false);
        check("a*c", "abc", true);
        check("a*a", "a", false);
        check("*b*b*", "abab", true);
        check("*b*b*", "aba", false);
        check("a*b*c", "a_b_b_c", true);
        check("a*bc*bc", "abcbc", true);
        check("a*bc*bc", "abc", false);
    }
}
