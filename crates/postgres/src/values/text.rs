//! Values as text.

use std::fmt::Write as _;

use bytes::{BufMut as _, BytesMut};
use chrono::{DateTime, Datelike as _, NaiveDate, Timelike as _};

use super::{DAY_MICROS, Value};

/// Puts a value's text.
pub(super) fn put(value: &Value<'_>, to: &mut BytesMut) {
    match value {
        Value::Bool(true) => to.put_u8(b't'),
        Value::Bool(false) => to.put_u8(b'f'),
        Value::Integer(number) => write(to, format_args!("{number}")),
        Value::Float4(number) => float(to, f64::from(*number), &format!("{number:e}"), number),
        Value::Float8(number) => float(to, *number, &format!("{number:e}"), number),
        Value::Numeric(text) => to.put_slice(text.as_bytes()),
        Value::Text(text) => put_bytes(text.as_bytes(), to),
        Value::Bytes(bytes) => put_bytes(bytes, to),
        Value::Days(days) => date(to, *days),
        Value::Timestamp { micros, has_zone } => timestamp(to, *micros, *has_zone),
        Value::Time(micros) => time(to, *micros),
        Value::Interval { months, days, micros } => interval(to, *months, *days, *micros),
        Value::Json(text) => to.put_slice(text.as_bytes()),
        Value::Null => {}
    }
}

/// Bytes as text: themselves where they are text that PostgreSQL could hold,
/// else in hex behind `\x`.
fn put_bytes(bytes: &[u8], to: &mut BytesMut) {
    if std::str::from_utf8(bytes).is_ok() && !bytes.contains(&0) {
        to.put_slice(bytes);
        return;
    }
    to.reserve(2 + 2 * bytes.len());
    to.put_slice(b"\\x");
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            to.put_u8(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        }
    }
}

fn write(to: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // A buffer that grows takes everything.
    let _ = to.write_fmt(text);
}

/// As PostgreSQL writes them since 12: the shortest digits that mean the same
/// number, with an exponent where that is below -4 or from 15 on.
fn float(to: &mut BytesMut, number: f64, scientific: &str, shown: &dyn std::fmt::Display) {
    if number.is_nan() {
        return to.put_slice(b"NaN");
    }
    if number.is_infinite() {
        return to.put_slice(if number > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..15).contains(&exponent) {
        return write(to, format_args!("{shown}"));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    write(to, format_args!("{digits}e{sign}{:02}", exponent.unsigned_abs()));
}

fn date(to: &mut BytesMut, days: i64) {
    match i32::try_from(days).ok().and_then(NaiveDate::from_epoch_days) {
        Some(date) => {
            year_month_day(to, date);
            if date.year() < 1 {
                to.put_slice(b" BC");
            }
        }
        // Beyond what a calendar has.
        None => to.put_slice(if days > 0 { b"infinity" } else { b"-infinity" }),
    }
}

fn year_month_day(to: &mut BytesMut, date: NaiveDate) {
    // There was no year 0: the one before 1 is 1 BC.
    let year = if date.year() < 1 { 1 - date.year() } else { date.year() };
    write(to, format_args!("{year:04}-{:02}-{:02}", date.month(), date.day()));
}

fn timestamp(to: &mut BytesMut, micros: i64, has_zone: bool) {
    let Some(at) = DateTime::from_timestamp_micros(micros) else {
        return to.put_slice(if micros > 0 { b"infinity" } else { b"-infinity" });
    };
    year_month_day(to, at.date_naive());
    to.put_u8(b' ');
    time(to, micros.rem_euclid(DAY_MICROS));
    if has_zone {
        to.put_slice(b"+00");
    }
    if at.year() < 1 {
        to.put_slice(b" BC");
    }
    debug_assert!(at.hour() < 24);
}

fn time(to: &mut BytesMut, micros: i64) {
    let seconds = micros.div_euclid(1_000_000);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    write(to, format_args!("{hours:02}:{minutes:02}:{:02}", seconds % 60));
    fraction(to, micros.rem_euclid(1_000_000));
}

/// Microseconds behind a point, without zeros at the end.
fn fraction(to: &mut BytesMut, micros: i64) {
    if micros != 0 {
        let digits = format!("{micros:06}");
        write(to, format_args!(".{}", digits.trim_end_matches('0')));
    }
}

fn interval(to: &mut BytesMut, months: i32, days: i32, micros: i64) {
    let mut parts = Vec::new();
    let mut part = |number: i32, unit: &str| {
        if number != 0 {
            let plural = if number == 1 { "" } else { "s" };
            parts.push(format!("{number} {unit}{plural}"));
        }
    };
    part(months / 12, "year");
    part(months % 12, "mon");
    part(days, "day");
    let text = parts.join(" ");
    to.put_slice(text.as_bytes());
    if micros == 0 && !text.is_empty() {
        return;
    }
    if !text.is_empty() {
        to.put_u8(b' ');
    }
    if micros < 0 {
        to.put_u8(b'-');
    }
    let all = micros.unsigned_abs();
    let (seconds, rest) = (all / 1_000_000, all % 1_000_000);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    write(to, format_args!("{hours:02}:{minutes:02}:{:02}", seconds % 60));
    fraction(to, rest.cast_signed());
}
