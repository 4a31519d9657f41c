//! Values of an answer as text for a terminal.

use serde_json::value::RawValue;
use unicode_width::UnicodeWidthChar as _;

/// What stands for a value that is null, which is not an empty text.
const NULL: &str = "∅";
/// A longer cell is cut before it is laid out: nobody reads it on a terminal.
pub(super) const CELL_CHARS_MAX: usize = 10_000;

/// A value as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) is_number: bool,
    pub(super) is_null: bool,
}

impl Cell {
    /// The cell of a JSON value: a string's content, another value's JSON.
    /// Numbers keep all their digits.
    pub(super) fn of(value: &RawValue) -> Self {
        let raw = value.get();
        match raw.as_bytes().first() {
            Some(b'n') => Self { text: NULL.to_owned(), is_number: false, is_null: true },
            Some(b'"') => {
                let text: String = serde_json::from_str(raw).unwrap_or_else(|_| raw.to_owned());
                Self { text: printable(&text), is_number: false, is_null: false }
            }
            first => {
                let is_number = first.is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-');
                Self { text: printable(raw), is_number, is_null: false }
            }
        }
    }
}

/// Text without what moves a terminal's cursor: control characters are shown as
/// escapes, so that a record cannot draw over what stands beside it.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(CELL_CHARS_MAX));
    for (place, letter) in text.chars().enumerate() {
        if place == CELL_CHARS_MAX {
            shown.push('…');
            break;
        }
        match letter {
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            // What turns the direction of writing confuses as much.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.extend(letter.escape_unicode());
            }
            letter if letter.is_control() => shown.extend(letter.escape_unicode()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// The columns that text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(|letter| letter.width().unwrap_or(0)).sum()
}

/// The beginning of `text` that fits into `columns`, with `…` where it is cut.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut shown = String::new();
    let mut used = 0;
    for letter in text.chars() {
        let letter_width = letter.width().unwrap_or(0);
        if used + letter_width + 1 > columns {
            break;
        }
        used += letter_width;
        shown.push(letter);
    }
    shown.push('…');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_cells() {
        let check = |raw: &str, text: &str, is_number: bool| {
            let value: Box<RawValue> = serde_json::from_str(raw).unwrap();
            let cell = Cell::of(&value);
            assert_eq!((cell.text.as_str(), cell.is_number), (text, is_number), "{raw}");
        };
        check("null", "∅", false);
        check("true", "true", false);
        check("123456789012345678901", "123456789012345678901", true);
        check("-0.10", "-0.10", true);
        check("\"a\\n\\u001b[2Jb\"", "a\\n\\u{1b}[2Jb", false);
        check("\"\"", "", false);
        check("{\"base64\":\"/w==\"}", "{\"base64\":\"/w==\"}", false);
        check("[1,2]", "[1,2]", false);
        check("\"\\u202eabc\"", "\\u{202e}abc", false);
    }

    #[test]
    fn text_is_cut_by_columns() {
        let check = |text: &str, columns, expected: &str| {
            assert_eq!(cut(text, columns), expected);
            assert!(width(&cut(text, columns)) <= columns.max(1));
        };
        check("abc", 3, "abc");
        check("abcd", 3, "ab…");
        check("日本語", 6, "日本語");
        check("日本語", 5, "日本…");
        check("日本語", 4, "日…");
        check("ab", 1, "…");
    }
}
