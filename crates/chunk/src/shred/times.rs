//! Times as RFC 3339 writes them. Nothing is guessed: what has another form, or
//! names no day, is no time.

/// Days from 1970 on, of a text `YYYY-MM-DD`.
pub(super) fn date(text: &[u8]) -> Option<i32> {
    (text.len() == 10).then(|| days(text)).flatten().and_then(|days| i32::try_from(days).ok())
}

/// Microseconds from 1970 on, UTC, of a date and time with its offset; digits
/// behind the sixth of a second's fraction are left out. A leap second is none.
pub(super) fn timestamp(text: &[u8]) -> Option<i64> {
    let days = days(text.get(..10)?)?;
    if !matches!(text.get(10)?, b'T' | b't') {
        return None;
    }
    let minutes = clock(text.get(11..16)?)?;
    if text.get(16)? != &b':' {
        return None;
    }
    let seconds = number(text.get(17..19)?).filter(|seconds| *seconds < 60)?;
    let mut rest = text.get(19..)?;
    let mut micros = 0;
    if let Some(behind) = rest.strip_prefix(b".") {
        let length = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, behind) = behind.split_at(length);
        let kept = digits.get(..length.min(6))?;
        micros = number(kept)? * 10_i64.pow(6 - kept.len() as u32);
        rest = behind;
    }
    let offset = match rest {
        b"Z" | b"z" => 0,
        [b'+', offset @ ..] => clock(offset)?,
        [b'-', offset @ ..] => -clock(offset)?,
        _ => return None,
    };
    Some(((days * 1440 + minutes - offset) * 60 + seconds) * 1_000_000 + micros)
}

/// Minutes of a text `HH:MM`.
fn clock(text: &[u8]) -> Option<i64> {
    let [h1, h2, b':', m1, m2] = text else { return None };
    let hours = number(&[*h1, *h2]).filter(|hours| *hours < 24)?;
    let minutes = number(&[*m1, *m2]).filter(|minutes| *minutes < 60)?;
    Some(hours * 60 + minutes)
}

fn days(text: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let year = number(&[*y1, *y2, *y3, *y4])?;
    let month = number(&[*m1, *m2])?;
    let day = number(&[*d1, *d2])?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // The year begins in March, so that the leap day is its last; days are
    // counted from March of year 0 on, which is 719,468 days before 1970.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(days + (month * 153 + 2) / 5 + day - 1 - 719_468)
}

/// One digit or more, few enough for 64 bits.
fn number(digits: &[u8]) -> Option<i64> {
    let are_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    are_digits.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days() {
        let check = |text: &str, days: Option<i32>| {
            assert_eq!(date(text.as_bytes()), days, "{text}");
        };
        check("1970-01-01", Some(0));
        check("1969-12-31", Some(-1));
        check("2000-02-29", Some(11_016));
        check("2024-03-01", Some(19_783));
        check("0000-01-01", Some(-719_528));
        check("9999-12-31", Some(2_932_896));
        for text in ["1900-02-29", "2023-02-29", "2023-13-01", "2023-00-01", "2023-01-32"] {
            check(text, None);
        }
        for text in ["2023-1-01", "2023-01-01 ", "20230101", "+023-01-01", "2023-01-00", ""] {
            check(text, None);
        }
    }

    #[test]
    fn timestamps_are_microseconds() {
        let check = |text: &str, micros: Option<i64>| {
            assert_eq!(timestamp(text.as_bytes()), micros, "{text}");
        };
        check("1970-01-01T00:00:00Z", Some(0));
        check("1970-01-01t00:00:00.5z", Some(500_000));
        check("1970-01-01T00:00:00.123456789Z", Some(123_456));
        check("1970-01-01T01:00:00+01:00", Some(0));
        check("1969-12-31T23:59:59.999999-00:00", Some(-1));
        check("2023-11-14T22:13:20Z", Some(1_700_000_000_000_000));
        for text in [
            "1970-01-01 00:00:00Z",
            "1970-01-01T00:00:00",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:60:00Z",
            "2016-12-31T23:59:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00+1:00",
            "1970-01-01T00:00:00+24:00",
            "1970-01-01T00:00:00Zx",
            "1970-01-01T00:00Z",
            "1970-01-01",
            "",
        ] {
            check(text, None);
        }
    }
}
