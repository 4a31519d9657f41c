//! Bytes that a record must have in it for a condition to hold: what lets most
//! records be passed over without a look at their words.
//!
//! The tokeniser lowers letters, so a literal is looked for in any case, and two
//! characters outside of ASCII that have an ASCII letter for their lower case
//! (`K`, the sign of Kelvin, and `İ`) count as hits, as does the escape `\u` of
//! JSON, behind which any letter may hide. So a literal that is not there proves
//! that the token is not either; one that is there proves nothing.

use regex::bytes::{Regex, RegexBuilder};

/// What might stand for a letter of ASCII.
const HIDDEN: &str = r"\\u|\xE2\x84\xAA|\xC4\xB0";

/// A finder of bytes that must be there.
#[derive(Debug, Clone)]
pub(crate) struct Literal {
    finder: Regex,
}

impl Literal {
    /// A finder for the longest run of plain letters, digits and `_` in `text`;
    /// nothing where there is none.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let run = text.split(|c| !is_plain(c)).max_by_key(|run| run.len())?;
        // More than this finds nothing faster.
        let run = run.get(..run.len().min(32)).filter(|run| !run.is_empty())?;
        let finder = RegexBuilder::new(&format!("(?i:{run})|{HIDDEN}")).unicode(false).build();
        finder.ok().map(|finder| Self { finder })
    }

    /// Whether `bytes` can have the literal's token in them.
    pub(crate) fn may_be_in(&self, bytes: &[u8]) -> bool {
        self.finder.is_match(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_found_is_not_there() {
        let check = |literal: &str, bytes: &str, may_be| {
            let literal = Literal::of(literal).unwrap();
            assert_eq!(literal.may_be_in(bytes.as_bytes()), may_be, "{literal:?} in {bytes}");
        };
        check("error", "an ERROR here", true);
        check("error", "an err or", false);
        check("größe", "GRÖSSE", true);
        check("größe", "weiß", false);
        check("größe", "größe", true);
        check("kelvin", "300 \u{212A}elvin", true);
        check("i", "\u{130}", true);
        check("error", r#"{"a":"\u0065rror"}"#, true);
        check("error", r#"{"a":"\nx"}"#, false);
        for nothing in ["", "日本", "é"] {
            assert!(Literal::of(nothing).is_none(), "{nothing}");
        }
    }

    #[test]
    fn every_character_with_an_ascii_lower_case_is_known() {
        let plain = |c: &char| c.is_ascii();
        let hidden: Vec<char> = ('\u{80}'..=char::MAX)
            .filter(|c| c.to_lowercase().any(|lower| plain(&lower)))
            .collect();
        assert_eq!(hidden, ['\u{130}', '\u{212A}']);
    }
}
