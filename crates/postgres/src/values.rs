//! Single values of Arrow arrays in PostgreSQL's text and binary forms.
//!
//! A column gets one [`Encoder`], chosen once for a batch, so that nothing is
//! decided anew for each value.

mod binary;
mod json;
mod text;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DecimalType, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
    DurationSecondType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalYearMonthType,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, PrimitiveArray};
use arrow_schema::{DataType, IntervalUnit, TimeUnit};
use bytes::BytesMut;

use crate::request::Format;
use crate::types::PgType;

pub(crate) use binary::numeric_text;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL counts from.
const EPOCH_DAYS: i64 = 10_957;
const DAY_MICROS: i64 = 86_400_000_000;

/// A value, in a form that both ways of writing understand.
#[derive(Debug, Clone, PartialEq)]
enum Value<'a> {
    Bool(bool),
    Integer(i64),
    Float4(f32),
    Float8(f64),
    /// Digits with a sign and a point, as they are written out.
    Numeric(String),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Since 1970-01-01.
    Days(i64),
    /// Since 1970-01-01 00:00.
    Timestamp {
        micros: i64,
        has_zone: bool,
    },
    /// Since midnight.
    Time(i64),
    Interval {
        months: i32,
        days: i32,
        micros: i64,
    },
    Json(String),
    Null,
}

type Reader = Box<dyn for<'a> Fn(&'a dyn Array, usize) -> Value<'a> + Send + Sync>;

/// Writes the values of one column.
pub(crate) struct Encoder {
    read: Reader,
    format: Format,
    pg_type: PgType,
}

impl Encoder {
    /// For arrays of `data_type`, told as `pg_type`.
    pub(crate) fn new(data_type: &DataType, pg_type: PgType, format: Format) -> Self {
        Self { read: reader(data_type), format, pg_type }
    }

    /// Puts the value at `row`, or null, with its length.
    pub(crate) fn put(&self, array: &ArrayRef, row: usize, to: &mut BytesMut) {
        let value = if array.is_null(row) { Value::Null } else { (self.read)(array.as_ref(), row) };
        match (&value, self.format) {
            (Value::Null, _) => crate::reply::null(to),
            (value, Format::Text) => crate::reply::value(to, |to| text::put(value, to)),
            (value, Format::Binary) => {
                crate::reply::value(to, |to| binary::put(value, self.pg_type, to));
            }
        }
    }

    /// Puts the text of the value at `row`, without a length; false for null.
    pub(crate) fn put_text(&self, array: &ArrayRef, row: usize, to: &mut BytesMut) -> bool {
        if array.is_null(row) {
            return false;
        }
        let value = (self.read)(array.as_ref(), row);
        text::put(&value, to);
        value != Value::Null
    }
}

/// Reads a number of a known type and makes a value of it.
macro_rules! numbers {
    ($type:ty, $make:expr) => {
        Box::new(|array, row| {
            let make: fn(<$type as arrow_array::ArrowPrimitiveType>::Native) -> Value<'static> =
                $make;
            make(array.as_primitive::<$type>().value(row))
        })
    };
}

fn reader(data_type: &DataType) -> Reader {
    match data_type {
        DataType::Boolean => Box::new(|array, row| Value::Bool(array.as_boolean().value(row))),
        DataType::Int8 => numbers!(Int8Type, |of| Value::Integer(of.into())),
        DataType::Int16 => numbers!(Int16Type, |of| Value::Integer(of.into())),
        DataType::Int32 => numbers!(Int32Type, |of| Value::Integer(of.into())),
        DataType::Int64 => numbers!(Int64Type, Value::Integer),
        DataType::UInt8 => numbers!(UInt8Type, |of| Value::Integer(of.into())),
        DataType::UInt16 => numbers!(UInt16Type, |of| Value::Integer(of.into())),
        DataType::UInt32 => numbers!(UInt32Type, |of| Value::Integer(of.into())),
        DataType::UInt64 => numbers!(UInt64Type, |of| Value::Numeric(of.to_string())),
        DataType::Float16 => numbers!(Float16Type, |of| Value::Float4(of.to_f32())),
        DataType::Float32 => numbers!(Float32Type, Value::Float4),
        DataType::Float64 => numbers!(Float64Type, Value::Float8),
        DataType::Decimal32(..) => decimals::<Decimal32Type>(),
        DataType::Decimal64(..) => decimals::<Decimal64Type>(),
        DataType::Decimal128(..) => decimals::<Decimal128Type>(),
        DataType::Decimal256(..) => decimals::<Decimal256Type>(),
        DataType::Utf8 => Box::new(|array, row| Value::Text(array.as_string::<i32>().value(row))),
        DataType::LargeUtf8 => {
            Box::new(|array, row| Value::Text(array.as_string::<i64>().value(row)))
        }
        DataType::Utf8View => Box::new(|array, row| Value::Text(array.as_string_view().value(row))),
        DataType::Binary => {
            Box::new(|array, row| Value::Bytes(array.as_binary::<i32>().value(row)))
        }
        DataType::LargeBinary => {
            Box::new(|array, row| Value::Bytes(array.as_binary::<i64>().value(row)))
        }
        DataType::BinaryView => {
            Box::new(|array, row| Value::Bytes(array.as_binary_view().value(row)))
        }
        DataType::FixedSizeBinary(_) => {
            Box::new(|array, row| Value::Bytes(array.as_fixed_size_binary().value(row)))
        }
        DataType::Dictionary(keys, values) => {
            let (place, read) = (reader(keys), reader(values));
            Box::new(move |array, row| {
                let dictionary = array.as_any_dictionary();
                let values = dictionary.values();
                let key = match place(dictionary.keys(), row) {
                    Value::Integer(key) => usize::try_from(key).ok(),
                    Value::Numeric(digits) => digits.parse().ok(),
                    _ => None,
                };
                match key.filter(|key| dictionary.is_valid(row) && *key < values.len()) {
                    Some(key) if values.is_valid(key) => read(values.as_ref(), key),
                    _ => Value::Null,
                }
            })
        }
        DataType::Null => Box::new(|_, _| Value::Null),
        other => {
            times(other).unwrap_or_else(|| Box::new(|array, row| Value::Json(json::of(array, row))))
        }
    }
}

fn times(data_type: &DataType) -> Option<Reader> {
    Some(match data_type {
        DataType::Date32 => numbers!(Date32Type, |of| Value::Days(of.into())),
        DataType::Date64 => numbers!(Date64Type, |of| Value::Days(of.div_euclid(86_400_000))),
        DataType::Time32(TimeUnit::Second) => {
            numbers!(Time32SecondType, |of| Value::Time(i64::from(of) * 1_000_000))
        }
        DataType::Time32(_) => {
            numbers!(Time32MillisecondType, |of| Value::Time(i64::from(of) * 1_000))
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            numbers!(Time64NanosecondType, |of| Value::Time(of.div_euclid(1_000)))
        }
        DataType::Time64(_) => numbers!(Time64MicrosecondType, Value::Time),
        DataType::Timestamp(unit, zone) => timestamps(*unit, zone.is_some()),
        DataType::Duration(TimeUnit::Second) => {
            numbers!(DurationSecondType, |of| micros(of, 1_000_000))
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            numbers!(DurationMillisecondType, |of| micros(of, 1_000))
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            numbers!(DurationMicrosecondType, |of| micros(of, 1))
        }
        DataType::Duration(TimeUnit::Nanosecond) => {
            numbers!(DurationNanosecondType, |of| micros(of.div_euclid(1_000), 1))
        }
        DataType::Interval(IntervalUnit::YearMonth) => numbers!(IntervalYearMonthType, |of| {
            Value::Interval { months: of, days: 0, micros: 0 }
        }),
        DataType::Interval(IntervalUnit::DayTime) => numbers!(IntervalDayTimeType, |of| {
            Value::Interval { months: 0, days: of.days, micros: i64::from(of.milliseconds) * 1_000 }
        }),
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            numbers!(IntervalMonthDayNanoType, |of| {
                let micros = of.nanoseconds.div_euclid(1_000);
                Value::Interval { months: of.months, days: of.days, micros }
            })
        }
        _ => return None,
    })
}

/// A length of time; one that is too long for microseconds is as long as can be.
const fn micros(of: i64, factor: i64) -> Value<'static> {
    Value::Interval { months: 0, days: 0, micros: of.saturating_mul(factor) }
}

fn timestamps(unit: TimeUnit, has_zone: bool) -> Reader {
    fn read<T: arrow_array::ArrowPrimitiveType<Native = i64>>(
        has_zone: bool,
        to_micros: fn(i64) -> i64,
    ) -> Reader {
        Box::new(move |array, row| {
            let micros = to_micros(array.as_primitive::<T>().value(row));
            Value::Timestamp { micros, has_zone }
        })
    }
    match unit {
        TimeUnit::Second => {
            read::<TimestampSecondType>(has_zone, |of| of.saturating_mul(1_000_000))
        }
        TimeUnit::Millisecond => {
            read::<TimestampMillisecondType>(has_zone, |of| of.saturating_mul(1_000))
        }
        TimeUnit::Microsecond => read::<TimestampMicrosecondType>(has_zone, |of| of),
        TimeUnit::Nanosecond => {
            read::<TimestampNanosecondType>(has_zone, |of| of.div_euclid(1_000))
        }
    }
}

fn decimals<T: DecimalType>() -> Reader {
    Box::new(|array, row| {
        let array: &PrimitiveArray<T> = array.as_primitive();
        Value::Numeric(array.value_as_string(row))
    })
}

/// The text of one value, as it stands inside of JSON or of a line.
fn text_at(array: &dyn Array, row: usize) -> String {
    let mut to = BytesMut::new();
    text::put(&reader(array.data_type())(array, row), &mut to);
    String::from_utf8_lossy(&to).into_owned()
}

#[cfg(test)]
mod tests;
