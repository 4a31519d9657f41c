//! Times as text.

use std::io::Write;

const DAY_S: i64 = 86_400;

/// The date of a day, counted from 1970-01-01: year, month and day of the
/// proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, u32, u32) {
    // Eras of 400 years that begin in March, so that leap days come last.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, u32::try_from(month).unwrap_or(1), u32::try_from(day).unwrap_or(1))
}

/// A date, from days since 1970-01-01.
pub(crate) fn date(out: &mut Vec<u8>, days: i64) {
    let (year, month, day) = civil(days);
    let sign = match year {
        ..0 => "-",
        0..=9999 => "",
        _ => "+",
    };
    // Writing into memory cannot fail.
    let _ = write!(out, "{sign}{:04}-{month:02}-{day:02}", year.abs());
}

/// A point in time, in units of which there are `per_second` in a second.
pub(crate) fn timestamp(out: &mut Vec<u8>, value: i64, per_second: i64, is_utc: bool) {
    let seconds = value.div_euclid(per_second);
    date(out, seconds.div_euclid(DAY_S));
    out.push(b'T');
    time_of_day(out, seconds.rem_euclid(DAY_S), value.rem_euclid(per_second), per_second);
    if is_utc {
        out.push(b'Z');
    }
}

/// A time of day, in units of which there are `per_second` in a second.
pub(crate) fn time(out: &mut Vec<u8>, value: i64, per_second: i64) {
    time_of_day(out, value.div_euclid(per_second), value.rem_euclid(per_second), per_second);
}

fn time_of_day(out: &mut Vec<u8>, seconds: i64, fraction: i64, per_second: i64) {
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    self::fraction(out, fraction, per_second);
}

/// As many digits behind the point as are needed, none where there are none.
fn fraction(out: &mut Vec<u8>, fraction: i64, per_second: i64) {
    if fraction == 0 {
        return;
    }
    let digits = per_second.ilog10() as usize;
    let text = format!("{fraction:0digits$}");
    out.push(b'.');
    out.extend_from_slice(text.trim_end_matches('0').as_bytes());
}

/// A span of time in ISO 8601: months, days, and units of which there are
/// `per_second` in a second.
pub(crate) fn interval(out: &mut Vec<u8>, months: i64, days: i64, rest: i64, per_second: i64) {
    out.push(b'P');
    let mut is_empty = true;
    let mut part = |out: &mut Vec<u8>, value: i64, unit: &str| {
        if value != 0 {
            is_empty = false;
            let _ = write!(out, "{value}{unit}");
        }
    };
    part(out, months / 12, "Y");
    part(out, months % 12, "M");
    part(out, days, "D");
    let seconds = rest / per_second;
    if rest != 0 {
        out.push(b'T');
        part(out, seconds / 3600, "H");
        part(out, seconds / 60 % 60, "M");
        let (seconds, left) = (seconds % 60, rest % per_second);
        if seconds != 0 || left != 0 {
            is_empty = false;
            let sign = if rest < 0 { "-" } else { "" };
            let _ = write!(out, "{sign}{}", seconds.abs());
            fraction(out, left.abs(), per_second);
            out.push(b'S');
        }
    }
    if is_empty {
        out.extend_from_slice(b"T0S");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_and_iso_8601_say() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).expect("it is text")
        };
        let micros = |value: i64| written(&|out| timestamp(out, value, 1_000_000, true));
        assert_eq!(micros(0), "1970-01-01T00:00:00Z");
        assert_eq!(micros(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(micros(1_709_210_096_120_000), "2024-02-29T12:34:56.12Z");
        assert_eq!(micros(i64::MAX), "+294247-01-10T04:00:54.775807Z");
        assert_eq!(micros(i64::MIN), "-290308-12-21T19:59:05.224192Z");
        assert_eq!(written(&|out| timestamp(out, 1, 1, false)), "1970-01-01T00:00:01");
        assert_eq!(written(&|out| date(out, 19_782)), "2024-02-29");
        assert_eq!(written(&|out| date(out, -719_528)), "0000-01-01");
        assert_eq!(
            written(&|out| time(out, 3_723_000_000_001, 1_000_000_000)),
            "01:02:03.000000001"
        );
        assert_eq!(written(&|out| interval(out, 14, 3, 5_400_500, 1000)), "P1Y2M3DT1H30M0.5S");
        assert_eq!(written(&|out| interval(out, 0, 0, -1500, 1000)), "PT-1.5S");
        assert_eq!(written(&|out| interval(out, 0, 0, 0, 1000)), "PT0S");
    }
}
