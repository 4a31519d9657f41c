//! What a client binds to placeholders, as the engine takes it.
//!
//! Numbers and booleans keep their kind; everything else goes as text, which
//! the engine reads as what the statement needs.

use aquifer_query::Parameter;
use bytes::Bytes;
use chrono::{DateTime, NaiveDate};

use crate::error::{Problem, sqlstate};
use crate::request::Format;
use crate::types::{
    BOOL, BPCHAR, BYTEA, CHAR, DATE, FLOAT4, FLOAT8, INT2, INT4, INT8, INTERVAL, JSON, JSONB, NAME,
    NUMERIC, OID, TEXT, TIME, TIMESTAMP, TIMESTAMPTZ, UNKNOWN, UUID, VARCHAR,
};
use crate::values::numeric_text;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Reads the value of placeholder `number`, which has the type `oid` (0 where
/// nobody said).
///
/// # Errors
/// A value that is not of its type, or a type whose binary form is not known.
pub(crate) fn read(
    number: usize,
    oid: u32,
    format: Format,
    value: Option<&Bytes>,
) -> Result<Parameter, Problem> {
    let Some(value) = value else { return Ok(Parameter::Null) };
    match format {
        Format::Text => of_text(oid, value),
        Format::Binary => of_binary(oid, value),
    }
    .map_err(|problem| Problem { message: format!("${number}: {}", problem.message), ..problem })
}

fn of_text(oid: u32, value: &[u8]) -> Result<Parameter, Problem> {
    let text = utf8(value)?;
    let wrong = || {
        let message = format!("{text:?} is not of the type that it was declared as");
        Problem::new(sqlstate::INVALID_TEXT, message)
    };
    let trimmed = text.trim();
    let is = |of: crate::types::PgType| of.oid == oid;
    if is(BOOL) {
        return match trimmed.to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => Ok(Parameter::Boolean(true)),
            "f" | "false" | "n" | "no" | "off" | "0" => Ok(Parameter::Boolean(false)),
            _ => Err(wrong()),
        };
    }
    if is(INT2) || is(INT4) || is(INT8) || is(OID) {
        return trimmed.parse().map(Parameter::Integer).map_err(|_| wrong());
    }
    if is(FLOAT4) || is(FLOAT8) {
        return trimmed.parse().map(float).map_err(|_| wrong());
    }
    if is(BYTEA) {
        return match text.strip_prefix("\\x") {
            Some(digits) => text_of(unhex(digits).ok_or_else(wrong)?),
            None => Ok(Parameter::Text(text.to_owned())),
        };
    }
    Ok(Parameter::Text(text.to_owned()))
}

/// JSON, which the question travels in, has neither infinity nor NaN.
fn float(number: f64) -> Parameter {
    if number.is_finite() { Parameter::Float(number) } else { Parameter::Text(number.to_string()) }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

fn of_binary(oid: u32, value: &[u8]) -> Result<Parameter, Problem> {
    let wrong = || {
        let message = format!("{} bytes are not a value of its type in binary form", value.len());
        Problem::new(sqlstate::INVALID_BINARY, message)
    };
    let is = |of: crate::types::PgType| of.oid == oid;
    let texts = [TEXT, VARCHAR, BPCHAR, NAME, CHAR, UNKNOWN, JSON];
    if oid == 0 || texts.iter().any(|text| is(*text)) {
        return utf8(value).map(|text| Parameter::Text(text.to_owned()));
    }
    let text = |text: Option<String>| text.map(Parameter::Text).ok_or_else(wrong);
    if is(BOOL) {
        match value {
            [byte] => Ok(Parameter::Boolean(*byte != 0)),
            _ => Err(wrong()),
        }
    } else if is(INT2) {
        fixed(value).map(|of| Parameter::Integer(i16::from_be_bytes(of).into())).ok_or_else(wrong)
    } else if is(INT4) {
        fixed(value).map(|of| Parameter::Integer(i32::from_be_bytes(of).into())).ok_or_else(wrong)
    } else if is(OID) {
        fixed(value).map(|of| Parameter::Integer(u32::from_be_bytes(of).into())).ok_or_else(wrong)
    } else if is(INT8) {
        fixed(value).map(|of| Parameter::Integer(i64::from_be_bytes(of))).ok_or_else(wrong)
    } else if is(FLOAT4) {
        fixed(value).map(|of| float(f32::from_be_bytes(of).into())).ok_or_else(wrong)
    } else if is(FLOAT8) {
        fixed(value).map(|of| float(f64::from_be_bytes(of))).ok_or_else(wrong)
    } else if is(BYTEA) {
        text_of(value.to_vec())
    } else if is(JSONB) {
        match value.split_first() {
            Some((1, json)) => utf8(json).map(|text| Parameter::Text(text.to_owned())),
            _ => Err(wrong()),
        }
    } else if is(NUMERIC) {
        text(numeric_text(value))
    } else if is(DATE) {
        text(fixed(value).and_then(|of| date(i32::from_be_bytes(of))))
    } else if is(TIME) {
        text(fixed(value).and_then(|of| time(i64::from_be_bytes(of))))
    } else if is(TIMESTAMP) {
        text(fixed(value).and_then(|of| timestamp(i64::from_be_bytes(of), "")))
    } else if is(TIMESTAMPTZ) {
        text(fixed(value).and_then(|of| timestamp(i64::from_be_bytes(of), "Z")))
    } else if is(INTERVAL) {
        text(fixed(value).map(interval))
    } else if is(UUID) {
        text(fixed(value).map(uuid))
    } else {
        let message = format!("the type {oid} is not known in binary form: send it as text");
        Err(Problem::new(sqlstate::FEATURE_NOT_SUPPORTED, message))
    }
}

fn fixed<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

fn utf8(value: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(value)
        .map_err(|_| Problem::new(sqlstate::STRING_NOT_UTF8, "it is not UTF-8"))
}

fn text_of(bytes: Vec<u8>) -> Result<Parameter, Problem> {
    String::from_utf8(bytes).map(Parameter::Text).map_err(|_| {
        let message = "bytes that are not UTF-8 cannot be a parameter yet";
        Problem::new(sqlstate::FEATURE_NOT_SUPPORTED, message)
            .hint("write them into the statement as X'…'")
    })
}

fn date(days: i32) -> Option<String> {
    let date = NaiveDate::from_epoch_days(days.checked_add(EPOCH_DAYS)?)?;
    Some(date.format("%Y-%m-%d").to_string())
}

fn time(micros: i64) -> Option<String> {
    let at = DateTime::from_timestamp_micros(micros)?;
    (0..=86_400_000_000).contains(&micros).then(|| at.format("%H:%M:%S%.6f").to_string())
}

fn timestamp(micros: i64, zone: &str) -> Option<String> {
    let at = DateTime::from_timestamp_micros(micros.checked_add(EPOCH_MICROS)?)?;
    Some(format!("{}{zone}", at.format("%Y-%m-%dT%H:%M:%S%.6f")))
}

fn interval(of: [u8; 16]) -> String {
    let all = i128::from_be_bytes(of);
    let micros = (all >> 64) as i64;
    let (days, months) = ((all >> 32) as i32, all as i32);
    format!("{months} months {days} days {micros} microseconds")
}

fn uuid(of: [u8; 16]) -> String {
    let digits: String = of.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from, to| digits.get(from..to).unwrap_or_default();
    let parts = [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Result<Parameter, &'static str> {
        Ok(Parameter::Text(text.to_owned()))
    }

    #[test]
    fn values_are_read_by_their_type() {
        use Format::{Binary, Text};
        let check = |oid, format, value: &[u8], expected: Result<Parameter, &str>| {
            let found = read(1, oid, format, Some(&Bytes::copy_from_slice(value)));
            let found = found.as_ref().map_err(|problem| problem.sqlstate.as_str());
            assert_eq!(found, expected.as_ref().map_err(|code| *code), "{oid} {value:?}");
        };
        check(0, Text, b"delete", text("delete"));
        check(INT8.oid, Text, b" -7 ", Ok(Parameter::Integer(-7)));
        check(INT4.oid, Text, b"7.5", Err(sqlstate::INVALID_TEXT));
        check(BOOL.oid, Text, b"T", Ok(Parameter::Boolean(true)));
        check(FLOAT8.oid, Text, b"1e3", Ok(Parameter::Float(1000.0)));
        check(FLOAT8.oid, Text, b"NaN", text("NaN"));
        check(NUMERIC.oid, Text, b"1.50", text("1.50"));
        check(BYTEA.oid, Text, b"\\x6162", text("ab"));
        check(BYTEA.oid, Text, b"\\x6", Err(sqlstate::INVALID_TEXT));
        check(0, Text, b"\xff", Err(sqlstate::STRING_NOT_UTF8));
        check(0, Binary, b"ab", text("ab"));
        check(INT4.oid, Binary, &[0, 0, 1, 0], Ok(Parameter::Integer(256)));
        check(INT4.oid, Binary, &[0, 0, 1], Err(sqlstate::INVALID_BINARY));
        check(INT8.oid, Binary, &[0xff; 8], Ok(Parameter::Integer(-1)));
        check(BOOL.oid, Binary, &[1], Ok(Parameter::Boolean(true)));
        check(DATE.oid, Binary, &1_i32.to_be_bytes(), text("2000-01-02"));
        check(DATE.oid, Binary, &i32::MAX.to_be_bytes(), Err(sqlstate::INVALID_BINARY));
        let micros = 1_500_000_i64.to_be_bytes();
        check(TIMESTAMP.oid, Binary, &micros, text("2000-01-01T00:00:01.500000"));
        check(TIMESTAMPTZ.oid, Binary, &micros, text("2000-01-01T00:00:01.500000Z"));
        check(TIMESTAMPTZ.oid, Binary, &i64::MAX.to_be_bytes(), Err(sqlstate::INVALID_BINARY));
        check(TIME.oid, Binary, &micros, text("00:00:01.500000"));
        let parts = [&micros[..], &2_i32.to_be_bytes(), &(-3_i32).to_be_bytes()].concat();
        check(INTERVAL.oid, Binary, &parts, text("-3 months 2 days 1500000 microseconds"));
        let bytes: Vec<u8> = (0..16).collect();
        check(UUID.oid, Binary, &bytes, text("00010203-0405-0607-0809-0a0b0c0d0e0f"));
        check(NUMERIC.oid, Binary, &[0, 1, 0, 0, 0x40, 0, 0, 1, 0, 5], text("-5.0"));
        check(JSONB.oid, Binary, b"\x01{}", text("{}"));
        check(BYTEA.oid, Binary, b"\xff", Err(sqlstate::FEATURE_NOT_SUPPORTED));
        check(600, Binary, b"", Err(sqlstate::FEATURE_NOT_SUPPORTED));
        assert_eq!(read(1, 0, Text, None), Ok(Parameter::Null));
    }
}
