//! Values in PostgreSQL's binary forms.
//!
//! What a type's `…send` function writes: numbers big-endian, times counted
//! from 2000-01-01, numbers with many digits in groups of four.

use bytes::{BufMut as _, BytesMut};

use super::{DAY_MICROS, EPOCH_DAYS, Value, text};
use crate::types::{self, PgType};

/// Puts a value of the type that its column was told as.
pub(super) fn put(value: &Value<'_>, pg_type: PgType, to: &mut BytesMut) {
    match value {
        Value::Bool(is_true) => to.put_u8((*is_true).into()),
        Value::Integer(number) => match pg_type {
            // The column's type holds all numbers of its array.
            types::INT2 => to.put_i16(saturated(*number)),
            types::INT4 => to.put_i32(saturated(*number)),
            types::OID => to.put_u32(saturated(*number)),
            _ => to.put_i64(*number),
        },
        Value::Float4(number) => to.put_f32(*number),
        Value::Float8(number) => to.put_f64(*number),
        Value::Numeric(digits) => numeric(digits, to),
        Value::Days(days) => to.put_i32(saturated(days.saturating_sub(EPOCH_DAYS))),
        Value::Timestamp { micros, .. } => {
            to.put_i64(micros.saturating_sub(EPOCH_DAYS * DAY_MICROS));
        }
        Value::Time(micros) => to.put_i64(*micros),
        Value::Interval { months, days, micros } => {
            to.put_i64(*micros);
            to.put_i32(*days);
            to.put_i32(*months);
        }
        Value::Text(_) | Value::Bytes(_) | Value::Json(_) | Value::Null => text::put(value, to),
    }
}

fn saturated<T: TryFrom<i64> + Bounds>(number: i64) -> T {
    T::try_from(number).unwrap_or(if number < 0 { T::LEAST } else { T::GREATEST })
}

trait Bounds {
    const LEAST: Self;
    const GREATEST: Self;
}

macro_rules! bounds {
    ($($number:ty),*) => {
        $(impl Bounds for $number {
            const LEAST: Self = Self::MIN;
            const GREATEST: Self = Self::MAX;
        })*
    };
}
bounds!(i16, i32, u32);

/// Decimal digits as groups of four: their number, the weight of the first, the
/// sign, the digits behind the point, the groups.
fn numeric(text: &str, to: &mut BytesMut) {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = fraction.len();
    // Both sides are filled up to whole groups, away from the point.
    let lead = (4 - whole.len() % 4) % 4;
    let padded =
        format!("{}{whole}{fraction}{}", "0".repeat(lead), "0".repeat((4 - scale % 4) % 4));
    let mut groups: Vec<u16> = padded
        .as_bytes()
        .chunks(4)
        .map(|group| {
            group.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit.wrapping_sub(b'0')))
        })
        .collect();
    let mut weight = i16::try_from(whole.len().div_ceil(4)).unwrap_or(i16::MAX) - 1;
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    groups.drain(..zeros);
    weight = weight.saturating_sub(i16::try_from(zeros).unwrap_or(i16::MAX));
    while groups.last() == Some(&0) {
        groups.pop();
    }
    if groups.is_empty() {
        weight = 0;
    }
    to.put_u16(u16::try_from(groups.len()).unwrap_or(u16::MAX));
    to.put_i16(weight);
    to.put_u16(if is_negative && !groups.is_empty() { 0x4000 } else { 0 });
    to.put_u16(u16::try_from(scale).unwrap_or(u16::MAX));
    groups.iter().for_each(|group| to.put_u16(*group));
}

/// The decimal text of such groups; none where they are not sound.
pub(crate) fn numeric_text(mut bytes: &[u8]) -> Option<String> {
    let mut next = || {
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        bytes = rest;
        Some(u16::from_be_bytes(*head))
    };
    let (count, weight) = (usize::from(next()?), i32::from(next()?.cast_signed()));
    let sign = match next()? {
        0 => "",
        0x4000 => "-",
        0xc000 => return Some("NaN".to_owned()),
        _ => return None,
    };
    let scale = usize::from(next()?);
    let groups =
        (0..count).map(|_| next().filter(|group| *group < 10_000)).collect::<Option<Vec<_>>>()?;
    if !bytes.is_empty() {
        return None;
    }
    let group =
        |at: i32| usize::try_from(at).ok().and_then(|at| groups.get(at)).copied().unwrap_or(0);
    let mut whole = String::new();
    (0..=weight).for_each(|at| whole.push_str(&format!("{:04}", group(at))));
    let whole = whole.trim_start_matches('0');
    let mut fraction = String::new();
    let mut at = weight + 1;
    while fraction.len() < scale {
        fraction.push_str(&format!("{:04}", group(at)));
        at += 1;
    }
    fraction.truncate(scale);
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if scale == 0 { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}
