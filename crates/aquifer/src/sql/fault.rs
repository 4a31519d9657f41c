//! What went wrong, with the place in the statement.

use unicode_width::UnicodeWidthChar as _;

use crate::client::{Problem, RequestError};
use crate::failure::Failure;

/// What is shown of a line before and behind the place.
const SHOWN_CHARS_BEFORE: usize = 50;
const SHOWN_CHARS_BEHIND: usize = 30;

/// A failure that points into the statement where the server did.
pub(super) fn failure(error: RequestError, statement: &str) -> Failure {
    match error {
        RequestError::Refused(_, problem, _) => {
            let Problem { detail, next, position, sqlstate, .. } = problem;
            let place = position.and_then(|position| pointed(statement, position));
            let why = match place {
                Some(place) => format!("{detail}\n{place}"),
                None => detail,
            };
            // What a statement is refused for says how to mend it.
            Failure::Failed(why, next.filter(|_| sqlstate.is_none()))
        }
        other => other.into(),
    }
}

/// The line of `statement` with a caret under the character at `position`, from
/// 1. A position behind the end points there.
fn pointed(statement: &str, position: usize) -> Option<String> {
    let at = position.checked_sub(1)?;
    let mut first = 0;
    for (number, line) in statement.split('\n').enumerate() {
        let letters = line.chars().count();
        if at <= first + letters {
            let column = at - first;
            let skipped = column.saturating_sub(SHOWN_CHARS_BEFORE);
            let shown = line.chars().skip(skipped).take(column - skipped + SHOWN_CHARS_BEHIND);
            let shown: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
            let ellipsis = if skipped > 0 { "…" } else { "" };
            let label = format!("  line {}: {ellipsis}", number + 1);
            let before = shown.chars().take(column - skipped);
            let before: usize = before.map(|c| c.width().unwrap_or(0)).sum();
            let indent = label.chars().count() + before;
            return Some(format!("{label}{shown}\n{:indent$}^", ""));
        }
        first += letters + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_under_the_place() {
        let check = |statement: &str, position, expected: Option<&str>| {
            assert_eq!(pointed(statement, position).as_deref(), expected, "{statement} {position}");
        };
        check("select x", 8, Some("  line 1: select x\n                 ^"));
        check("select\n\tx", 9, Some("  line 2:  x\n           ^"));
        // Wide letters take two columns.
        check("日本 x", 4, Some("  line 1: 日本 x\n               ^"));
        check("a", 2, Some("  line 1: a\n           ^"));
        check("a", 9, None);
        check("a", 0, None);
        let long = format!("{}x{}", " ".repeat(200), "y".repeat(200));
        let found = pointed(&long, 201).unwrap();
        let (line, caret) = found.split_once('\n').unwrap();
        assert!(line.chars().count() < 100, "{line}");
        assert_eq!(line.chars().position(|c| c == 'x'), Some(caret.chars().count() - 1));
    }
}
