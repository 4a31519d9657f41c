//! Names, texts and patterns as PostgreSQL writes them.

use std::iter::Peekable;
use std::str::Chars;

/// The words that are no names without quotes, in order.
pub(super) const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "join",
    "lateral",
    "leading",
    "left",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "right",
    "select",
    "session_user",
    "some",
    "symmetric",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "window",
    "with",
];

/// A name as it stands in a statement: in quotes where it has to.
pub(super) fn quote_ident(name: &str) -> String {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_plain = !name.is_empty()
        && name.chars().all(is_word)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && RESERVED.binary_search(&name).is_err();
    if is_plain { name.to_owned() } else { quoted(name, '"') }
}

/// A text as it stands in a statement.
pub(super) fn quote_literal(text: &str) -> String {
    quoted(text, '\'')
}

fn quoted(text: &str, quote: char) -> String {
    format!("{quote}{}{quote}", text.replace(quote, &format!("{quote}{quote}")))
}

/// `format(pattern, …)`: `%s` is a value, `%I` a name, `%L` a text in quotes,
/// `%%` a percent sign; `%2$s` is the second value. None where the pattern asks
/// for something else.
pub(super) fn format(pattern: &str, values: &[Option<String>]) -> Option<String> {
    let mut out = String::new();
    let mut characters = pattern.chars().peekable();
    let mut next = 0;
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        if characters.next_if_eq(&'%').is_some() {
            out.push('%');
            continue;
        }
        let at = match number(&mut characters) {
            Some(number) => {
                characters.next_if_eq(&'$')?;
                number.checked_sub(1)?
            }
            None => next,
        };
        next = at + 1;
        let value = values.get(at)?.as_deref();
        match (characters.next()?, value) {
            ('s', value) => out.push_str(value.unwrap_or_default()),
            ('I', Some(value)) => out.push_str(&quote_ident(value)),
            ('L', Some(value)) => out.push_str(&quote_literal(value)),
            ('L', None) => out.push_str("NULL"),
            _ => return None,
        }
    }
    Some(out)
}

fn number(characters: &mut Peekable<Chars<'_>>) -> Option<usize> {
    let mut digits = String::new();
    while let Some(digit) = characters.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    digits.parse().ok()
}

/// A number of bytes for people: of the largest unit of which there are at least
/// ten, rounded.
pub(super) fn size_pretty(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let (mut size, mut unit, mut most) = (i128::from(bytes), 0, 10 * 1024);
    // From the first step on halves are counted, so that it is rounded once.
    while unit + 1 < UNITS.len() && size.abs() >= most {
        size /= if unit == 0 { 512 } else { 1024 };
        unit += 1;
        most = 20 * 1024;
    }
    if unit > 0 {
        size = (size + size.signum()) / 2;
    }
    format!("{size} {}", UNITS.get(unit).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_have_to_be() {
        assert!(RESERVED.is_sorted());
        for (name, expected) in [
            ("audit", "audit"),
            ("_value", "_value"),
            ("Orders", "\"Orders\""),
            ("app-log", "\"app-log\""),
            ("user", "\"user\""),
            ("1st", "\"1st\""),
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
        ] {
            assert_eq!(quote_ident(name), expected);
        }
        assert_eq!(quote_literal("it's"), "'it''s'");
    }

    #[test]
    fn values_are_put_into_patterns() {
        let values = ["public", "Orders"].map(|value| Some(value.to_owned()));
        let check = |pattern: &str, expected: Option<&str>| {
            assert_eq!(format(pattern, &values).as_deref(), expected, "{pattern}");
        };
        check("%s", Some("public"));
        check("%I.%I", Some("public.\"Orders\""));
        check("%2$I of %1$L: 100%%", Some("\"Orders\" of 'public': 100%"));
        check("%s %s %s", None);
        check("%0$s", None);
        check("%d", None);
        check("%", None);
        assert_eq!(format("%s%L", &[None, None]).as_deref(), Some("NULL"));
        assert_eq!(format("%I", &[None]), None);
    }

    #[test]
    fn sizes_are_told_for_people() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (-10_752, "-11 kB"),
            (20 << 20, "20 MB"),
            (5_000_000_000, "4768 MB"),
            (i64::MAX, "8388608 TB"),
        ] {
            assert_eq!(size_pretty(bytes), expected);
        }
    }
}
