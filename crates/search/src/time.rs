//! Times as queries have them.

use aquifer_types::Timestamp;
use chrono::{DateTime, NaiveDate};

use crate::query::Span;

const DAY_MS: i64 = 86_400_000;

/// What [`parse`] takes.
pub(crate) const FORM: &str = "a time is milliseconds since 1970, an RFC 3339 time such as \
     2026-03-01T12:00:00Z, a day such as 2026-03-01, now, or now-15m (s, m, h, d, w)";

/// The time that is meant: a day is a span, everything else a moment.
pub(crate) fn parse(text: &str, now: Timestamp) -> Option<Span> {
    let moment = |ms| Some(Span { first: ms, last: ms });
    if let Ok(ms) = text.parse::<i64>() {
        return moment(ms);
    }
    if let Some(ago) = text.strip_prefix("now") {
        return moment(relative(ago, now)?);
    }
    if let Ok(day) = text.parse::<NaiveDate>() {
        let first = day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis();
        return Some(Span { first, last: first.checked_add(DAY_MS - 1)? });
    }
    moment(DateTime::parse_from_rfc3339(text).ok()?.timestamp_millis())
}

/// What follows `now`.
fn relative(ago: &str, now: Timestamp) -> Option<i64> {
    if ago.is_empty() {
        return Some(now.0);
    }
    let (sign, ago) = match ago.strip_prefix('-') {
        Some(ago) => (-1, ago),
        None => (1, ago.strip_prefix('+')?),
    };
    let unit = match ago.chars().last()? {
        's' => 1000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => DAY_MS,
        'w' => 7 * DAY_MS,
        _ => return None,
    };
    let count = ago.get(..ago.len() - 1)?;
    if !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let distance = count.parse::<i64>().ok()?.checked_mul(unit)?;
    now.0.checked_add(distance * sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let now = Timestamp(1_000_000_000);
        let check = |text: &str, span: Option<(i64, i64)>| {
            let found = parse(text, now).map(|span| (span.first, span.last));
            assert_eq!(found, span, "{text}");
        };
        let at = |ms| Some((ms, ms));
        check("-5", at(-5));
        check("now", at(1_000_000_000));
        check("now-15m", at(999_100_000));
        check("now+1s", at(1_000_001_000));
        check("1970-01-02", Some((DAY_MS, 2 * DAY_MS - 1)));
        check("1970-01-01T00:00:01.5Z", at(1500));
        check("1970-01-01T01:00:00+01:00", at(0));
        for wrong in ["", "now-", "now-m", "now-1y", "now--1m", "nowhere", "1970-13-01", "12:00"] {
            check(wrong, None);
        }
        check("now-9223372036854775807w", None);
        check("now-1ä", None);
    }
}
