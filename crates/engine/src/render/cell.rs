//! One value of a column as JSON.
//!
//! Columns are looked into once a batch; what is left for each value is a match.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, StructArray,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type,
    DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType, DurationSecondType,
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType,
    Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::error::ArrowError;

use super::time;

/// The deepest nesting that is looked into; types are no deeper, since values
/// cannot choose them.
const DEPTH_MAX: usize = 64;

/// A column whose values can be written.
pub(crate) struct Cells {
    nulls: Option<NullBuffer>,
    values: Values,
}

enum Values {
    Null,
    Boolean(datafusion::arrow::array::BooleanArray),
    Whole(PrimitiveArray<Int64Type>),
    WholeUnsigned(PrimitiveArray<UInt64Type>),
    Float32(PrimitiveArray<Float32Type>),
    Float64(PrimitiveArray<Float64Type>),
    /// Decimals, as their own text.
    Digits(Box<dyn Fn(usize) -> String + Send>),
    Text(datafusion::arrow::array::StringArray),
    TextView(datafusion::arrow::array::StringViewArray),
    Bytes(datafusion::arrow::array::BinaryArray),
    BytesView(datafusion::arrow::array::BinaryViewArray),
    Date(PrimitiveArray<Int64Type>),
    Timestamp {
        values: PrimitiveArray<Int64Type>,
        per_second: i64,
        is_utc: bool,
    },
    Time {
        values: PrimitiveArray<Int64Type>,
        per_second: i64,
    },
    Span {
        values: PrimitiveArray<Int64Type>,
        per_second: i64,
    },
    Interval(PrimitiveArray<IntervalMonthDayNanoType>),
    List {
        cells: Box<Cells>,
        ranges: Box<dyn Fn(usize) -> std::ops::Range<usize> + Send>,
    },
    Struct(Vec<(String, Cells)>),
    Map {
        keys: Box<Cells>,
        values: Box<Cells>,
        offsets: Vec<usize>,
    },
}

impl Cells {
    /// Looks into `array`.
    pub(crate) fn new(array: &ArrayRef) -> Result<Self, ArrowError> {
        Self::nested(array, 0)
    }

    fn nested(array: &ArrayRef, depth: usize) -> Result<Self, ArrowError> {
        if depth > DEPTH_MAX {
            return Err(ArrowError::NotYetImplemented(format!("values {DEPTH_MAX} deep")));
        }
        let nulls = array.logical_nulls();
        Ok(Self { nulls, values: values(array, depth)? })
    }

    /// Whether the value of a row is null.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        matches!(self.values, Values::Null)
            || self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Writes the value of a row as JSON.
    pub(crate) fn json(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return;
        }
        match &self.values {
            Values::Text(values) => string(out, values.value(row)),
            Values::TextView(values) => string(out, values.value(row)),
            Values::Bytes(values) => bytes(out, values.value(row)),
            Values::BytesView(values) => bytes(out, values.value(row)),
            Values::Float32(values) => float(out, f64::from(values.value(row)), &values.value(row)),
            Values::Float64(values) => float(out, values.value(row), &values.value(row)),
            Values::List { cells, ranges } => {
                out.push(b'[');
                separated(out, ranges(row), |out, at| cells.json(at, out));
                out.push(b']');
            }
            Values::Struct(fields) => {
                out.push(b'{');
                separated(out, 0..fields.len(), |out, at| {
                    if let Some((name, cells)) = fields.get(at) {
                        string(out, name);
                        out.push(b':');
                        cells.json(row, out);
                    }
                });
                out.push(b'}');
            }
            Values::Map { keys, values, offsets } => {
                out.push(b'{');
                let range = offsets.get(row).zip(offsets.get(row + 1));
                separated(out, range.map_or(0..0, |(from, to)| *from..*to), |out, at| {
                    let mut key = Vec::new();
                    keys.plain(at, &mut key);
                    string(out, &String::from_utf8_lossy(&key));
                    out.push(b':');
                    values.json(at, out);
                });
                out.push(b'}');
            }
            Values::Null
            | Values::Boolean(_)
            | Values::Whole(_)
            | Values::WholeUnsigned(_)
            | Values::Digits(_) => self.plain(row, out),
            Values::Date(_)
            | Values::Timestamp { .. }
            | Values::Time { .. }
            | Values::Span { .. }
            | Values::Interval(_) => {
                out.push(b'"');
                self.plain(row, out);
                out.push(b'"');
            }
        }
    }

    /// Writes the value of a row as it is, without quotes; nothing for null.
    pub(crate) fn plain(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            return;
        }
        // Writing into memory cannot fail.
        match &self.values {
            Values::Null => {}
            Values::Boolean(values) => {
                out.extend_from_slice(if values.value(row) { b"true" } else { b"false" });
            }
            Values::Whole(values) => {
                let _ = write!(out, "{}", values.value(row));
            }
            Values::WholeUnsigned(values) => {
                let _ = write!(out, "{}", values.value(row));
            }
            Values::Float32(values) => {
                plain_float(out, f64::from(values.value(row)), &values.value(row))
            }
            Values::Float64(values) => plain_float(out, values.value(row), &values.value(row)),
            Values::Digits(digits) => out.extend_from_slice(digits(row).as_bytes()),
            Values::Text(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Values::TextView(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Values::Bytes(values) => plain_bytes(out, values.value(row)),
            Values::BytesView(values) => plain_bytes(out, values.value(row)),
            Values::Date(values) => time::date(out, values.value(row)),
            Values::Timestamp { values, per_second, is_utc } => {
                time::timestamp(out, values.value(row), *per_second, *is_utc);
            }
            Values::Time { values, per_second } => time::time(out, values.value(row), *per_second),
            Values::Span { values, per_second } => {
                time::interval(out, 0, 0, values.value(row), *per_second);
            }
            Values::Interval(values) => {
                let value = values.value(row);
                let (months, days) = (i64::from(value.months), i64::from(value.days));
                time::interval(out, months, days, value.nanoseconds, 1_000_000_000);
            }
            Values::List { .. } | Values::Struct(_) | Values::Map { .. } => self.json(row, out),
        }
    }
}

fn separated(
    out: &mut Vec<u8>,
    places: std::ops::Range<usize>,
    mut write: impl FnMut(&mut Vec<u8>, usize),
) {
    let first = places.start;
    for place in places {
        if place > first {
            out.push(b',');
        }
        write(out, place);
    }
}

/// A JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => string(out, text),
        Err(_) => {
            out.extend_from_slice(b"{\"base64\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}

fn plain_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => out.extend_from_slice(text.as_bytes()),
        Err(_) => {
            out.extend_from_slice(b"base64:");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        }
    }
}

/// The shortest digits that read back as `value`; JSON has no NaN and no
/// infinity.
fn float<T: serde::Serialize>(out: &mut Vec<u8>, wide: f64, value: &T) {
    if wide.is_finite() {
        let _ = serde_json::to_writer(out, value);
    } else {
        out.extend_from_slice(b"null");
    }
}

fn plain_float<T: serde::Serialize>(out: &mut Vec<u8>, wide: f64, value: &T) {
    if wide.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if wide.is_infinite() {
        out.extend_from_slice(if wide > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        float(out, wide, value);
    }
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// The values of any primitive type as whole numbers.
fn whole<T: ArrowPrimitiveType>(array: &ArrayRef) -> PrimitiveArray<Int64Type>
where
    T::Native: Into<i64>,
{
    array.as_primitive::<T>().unary(Into::into)
}

fn values(array: &ArrayRef, depth: usize) -> Result<Values, ArrowError> {
    let digits = |of: Box<dyn Fn(usize) -> String + Send>| Ok(Values::Digits(of));
    match array.data_type() {
        DataType::Null => Ok(Values::Null),
        DataType::Boolean => Ok(Values::Boolean(array.as_boolean().clone())),
        DataType::Int8 => Ok(Values::Whole(whole::<Int8Type>(array))),
        DataType::Int16 => Ok(Values::Whole(whole::<Int16Type>(array))),
        DataType::Int32 => Ok(Values::Whole(whole::<Int32Type>(array))),
        DataType::Int64 => Ok(Values::Whole(whole::<Int64Type>(array))),
        DataType::UInt8 => Ok(Values::Whole(whole::<UInt8Type>(array))),
        DataType::UInt16 => Ok(Values::Whole(whole::<UInt16Type>(array))),
        DataType::UInt32 => Ok(Values::Whole(whole::<UInt32Type>(array))),
        DataType::UInt64 => Ok(Values::WholeUnsigned(array.as_primitive().clone())),
        DataType::Float16 => {
            Ok(Values::Float32(array.as_primitive::<Float16Type>().unary(|value| value.to_f32())))
        }
        DataType::Float32 => Ok(Values::Float32(array.as_primitive().clone())),
        DataType::Float64 => Ok(Values::Float64(array.as_primitive().clone())),
        DataType::Decimal32(..) => {
            let values = array.as_primitive::<Decimal32Type>().clone();
            digits(Box::new(move |row| values.value_as_string(row)))
        }
        DataType::Decimal64(..) => {
            let values = array.as_primitive::<Decimal64Type>().clone();
            digits(Box::new(move |row| values.value_as_string(row)))
        }
        DataType::Decimal128(..) => {
            let values = array.as_primitive::<Decimal128Type>().clone();
            digits(Box::new(move |row| values.value_as_string(row)))
        }
        DataType::Decimal256(..) => {
            let values = array.as_primitive::<Decimal256Type>().clone();
            digits(Box::new(move |row| values.value_as_string(row)))
        }
        DataType::Utf8 => Ok(Values::Text(array.as_string().clone())),
        DataType::Utf8View => Ok(Values::TextView(array.as_string_view().clone())),
        DataType::LargeUtf8 => values(&cast(array, &DataType::Utf8View)?, depth),
        DataType::Binary => Ok(Values::Bytes(array.as_binary().clone())),
        DataType::BinaryView => Ok(Values::BytesView(array.as_binary_view().clone())),
        DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            values(&cast(array, &DataType::BinaryView)?, depth)
        }
        DataType::Dictionary(_, of) => values(&cast(array, of)?, depth),
        DataType::RunEndEncoded(_, of) => values(&cast(array, of.data_type())?, depth),
        DataType::Date32
        | DataType::Date64
        | DataType::Timestamp(..)
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Duration(_)
        | DataType::Interval(_) => temporal(array),
        _ => nested(array, depth),
    }
}

fn temporal(array: &ArrayRef) -> Result<Values, ArrowError> {
    let values = match array.data_type() {
        DataType::Date32 => Values::Date(whole::<Date32Type>(array)),
        DataType::Date64 => Values::Date(
            array.as_primitive::<Date64Type>().unary(|value| value.div_euclid(86_400_000)),
        ),
        DataType::Timestamp(unit, zone) => Values::Timestamp {
            values: match unit {
                TimeUnit::Second => whole::<TimestampSecondType>(array),
                TimeUnit::Millisecond => whole::<TimestampMillisecondType>(array),
                TimeUnit::Microsecond => whole::<TimestampMicrosecondType>(array),
                TimeUnit::Nanosecond => whole::<TimestampNanosecondType>(array),
            },
            per_second: per_second(*unit),
            is_utc: zone.is_some(),
        },
        DataType::Time32(unit) => Values::Time {
            values: match unit {
                TimeUnit::Second => whole::<Time32SecondType>(array),
                _ => whole::<Time32MillisecondType>(array),
            },
            per_second: per_second(*unit),
        },
        DataType::Time64(unit) => Values::Time {
            values: match unit {
                TimeUnit::Microsecond => whole::<Time64MicrosecondType>(array),
                _ => whole::<Time64NanosecondType>(array),
            },
            per_second: per_second(*unit),
        },
        DataType::Duration(unit) => Values::Span {
            values: match unit {
                TimeUnit::Second => whole::<DurationSecondType>(array),
                TimeUnit::Millisecond => whole::<DurationMillisecondType>(array),
                TimeUnit::Microsecond => whole::<DurationMicrosecondType>(array),
                TimeUnit::Nanosecond => whole::<DurationNanosecondType>(array),
            },
            per_second: per_second(*unit),
        },
        DataType::Interval(unit) => Values::Interval(match unit {
            IntervalUnit::MonthDayNano => array.as_primitive().clone(),
            IntervalUnit::YearMonth => array
                .as_primitive::<IntervalYearMonthType>()
                .unary(|months| IntervalMonthDayNanoType::make_value(months, 0, 0)),
            IntervalUnit::DayTime => array.as_primitive::<IntervalDayTimeType>().unary(|value| {
                let nanos = i64::from(value.milliseconds) * 1_000_000;
                IntervalMonthDayNanoType::make_value(0, value.days, nanos)
            }),
        }),
        other => return Err(unknown(other)),
    };
    Ok(values)
}

fn nested(array: &ArrayRef, depth: usize) -> Result<Values, ArrowError> {
    let list = |items: &ArrayRef, ranges| {
        Ok(Values::List { cells: Box::new(Cells::nested(items, depth + 1)?), ranges })
    };
    match array.data_type() {
        DataType::List(_) => {
            let array = array.as_list::<i32>().clone();
            let items = array.values().clone();
            list(
                &items,
                Box::new(move |row| {
                    let offsets = array.value_offsets();
                    range(offsets.get(row).copied(), offsets.get(row + 1).copied())
                }),
            )
        }
        DataType::LargeList(_) => {
            let array = array.as_list::<i64>().clone();
            let items = array.values().clone();
            list(
                &items,
                Box::new(move |row| {
                    let offsets = array.value_offsets();
                    range(offsets.get(row).copied(), offsets.get(row + 1).copied())
                }),
            )
        }
        DataType::FixedSizeList(_, _) => {
            let array = array.as_fixed_size_list().clone();
            let items = array.values().clone();
            let len = usize::try_from(array.value_length()).unwrap_or(0);
            list(&items, Box::new(move |row| row * len..(row + 1) * len))
        }
        DataType::ListView(field) | DataType::LargeListView(field) => {
            let plain = cast(array, &DataType::LargeList(field.clone()))?;
            nested(&plain, depth)
        }
        DataType::Struct(_) => Ok(Values::Struct(fields(array.as_struct(), depth)?)),
        DataType::Map(..) => {
            let map = array.as_map();
            Ok(Values::Map {
                keys: Box::new(Cells::nested(map.keys(), depth + 1)?),
                values: Box::new(Cells::nested(map.values(), depth + 1)?),
                offsets: map.offsets().iter().map(|at| usize::try_from(*at).unwrap_or(0)).collect(),
            })
        }
        other => Err(unknown(other)),
    }
}

fn range<T: TryInto<usize>>(from: Option<T>, to: Option<T>) -> std::ops::Range<usize> {
    let place = |at: Option<T>| at.and_then(|at| at.try_into().ok()).unwrap_or(0);
    place(from)..place(to)
}

fn fields(array: &StructArray, depth: usize) -> Result<Vec<(String, Cells)>, ArrowError> {
    let names = array.fields().iter().map(|field| field.name().clone());
    names
        .zip(array.columns())
        .map(|(name, column)| Ok((name, Cells::nested(column, depth + 1)?)))
        .collect()
}

fn unknown(of: &DataType) -> ArrowError {
    ArrowError::NotYetImplemented(format!("values of type {of} in an answer"))
}
