//! Times as people and programs write them.

use aquifer_types::Timestamp;
use chrono::DateTime;

/// What [`parse`] takes.
pub(crate) const FORM: &str = "milliseconds since 1970 or an RFC 3339 time such as \
                               2026-03-01T12:00:00Z (in a URL, write + as %2B)";

/// Reads milliseconds since the epoch or an RFC 3339 time.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(ms) = text.parse::<i64>() {
        return Some(Timestamp(ms));
    }
    // A `+` that was not escaped in a URL has become a space.
    let text = text.replace(' ', "+");
    DateTime::parse_from_rfc3339(&text).ok().map(|time| Timestamp(time.timestamp_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        for (text, ms) in [
            ("0", Some(0)),
            ("-5", Some(-5)),
            ("1970-01-01T00:00:01Z", Some(1000)),
            ("1970-01-01T01:00:00.250+01:00", Some(250)),
            ("1970-01-01T01:00:00 01:00", Some(0)),
            ("yesterday", None),
            ("", None),
            ("1970-01-01", None),
        ] {
            assert_eq!(parse(text).map(|time| time.0), ms, "{text}");
        }
    }
}
