//! How much a call makes out of little: `repeat('x', 1000000000)` is twenty
//! bytes of SQL and a gigabyte of memory that no pool counts.
//!
//! The size is reckoned before the function runs, and the call is refused where
//! it is above the limit. Where only the most is known that it can be, and that
//! is too much, the function runs over a few rows at a time and what it made is
//! counted. What cannot be reckoned is let through: the process's own limit is
//! behind this one.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::kernels::length::length;
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::{DataType, Int64Type, IntervalUnit, TimeUnit};
use datafusion::common::cast::as_interval_mdn_array;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF};

use super::text::is_text;
use crate::refusal::{external, refusal};
use crate::size::held;

/// About the bytes of one element of a list.
const ELEMENT_BYTES: u64 = 8;
/// A format's most verbose parts are so many times as long in the result.
const FORMAT_GROWTH: u64 = 20;
const DAY_NS: i64 = 86_400_000_000_000;
const MONTH_NS: i64 = 30 * DAY_NS;

/// How the size of a call's result follows from its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// `f(text, n)`: the text's length times `n`.
    Repeat,
    /// `f(text, n)`: `n`.
    Fill,
    /// `f(value, n)`: `n` times the value.
    Copies,
    /// `f(list, n, value)`: `n` times the value.
    Resize,
    /// `f(stop)`, `f(start, stop)`, `f(start, stop, step)`: the steps between.
    Series,
    /// `f(text, …)`: all of them together.
    Sum,
    /// `f(separator, text, …)`: all of them, with the first one between.
    Joined,
    /// `f(text, from, to)`: at most `to` in the place of every `from`.
    Replace,
    /// `f(text, pattern, to, flags)`: at most `to` beside every character, and
    /// the text once more for each reference in `to`.
    RegexpReplace,
    /// `f(value, format)`: at most some times the format.
    Format,
}

impl Growth {
    /// Whether what is reckoned is more than what is made, as a rule.
    const fn is_rough(self) -> bool {
        matches!(self, Self::Replace | Self::RegexpReplace | Self::Format)
    }
}

/// How the result of the function `name` grows, if out of proportion.
pub(super) fn growth_of(name: &str) -> Option<Growth> {
    match name {
        "repeat" => Some(Growth::Repeat),
        "lpad" | "rpad" => Some(Growth::Fill),
        "array_repeat" => Some(Growth::Copies),
        "array_resize" => Some(Growth::Resize),
        "range" | "generate_series" => Some(Growth::Series),
        "concat" | "overlay" => Some(Growth::Sum),
        "concat_ws" => Some(Growth::Joined),
        "replace" => Some(Growth::Replace),
        "regexp_replace" => Some(Growth::RegexpReplace),
        "to_char" => Some(Growth::Format),
        _ => None,
    }
}

/// Calls `function`, which makes at most `bytes_max`.
///
/// # Errors
/// A refusal where it would make more; those of the function.
pub(super) fn invoke(
    function: &ScalarUDF,
    growth: Growth,
    args: ScalarFunctionArgs,
    bytes_max: u64,
) -> Result<ColumnarValue> {
    let is_single = !args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_)));
    let rows = if is_single { 1 } else { args.number_rows };
    let sizes = sizes(growth, &args.args, rows)?;
    let total = sizes.iter().fold(0_u64, |total, size| total.saturating_add(*size));
    if total <= bytes_max {
        return function.invoke_with_args(args);
    }
    if is_single || !growth.is_rough() || sizes.iter().any(|size| *size > bytes_max) {
        return Err(too_large(function.name(), bytes_max));
    }
    let mut made = Vec::new();
    let mut made_bytes = 0_u64;
    for rows in runs(&sizes, bytes_max) {
        let count = rows.len();
        let part = function.invoke_with_args(part(&args, rows))?.into_array(count)?;
        made_bytes = made_bytes.saturating_add(held(part.as_ref()) as u64);
        if made_bytes > bytes_max {
            return Err(too_large(function.name(), bytes_max));
        }
        made.push(part);
    }
    let made: Vec<&dyn Array> = made.iter().map(AsRef::as_ref).collect();
    Ok(ColumnarValue::Array(concat(&made)?))
}

pub(super) fn too_large(name: &str, bytes_max: u64) -> DataFusionError {
    external(refusal(
        aquifer_types::ErrorKind::TooLarge,
        "query-memory",
        "53200",
        format!("{name} would make more than {bytes_max} bytes at once; ask for less"),
    ))
}

/// The most that a call with `args` makes for each of `rows` rows.
pub(super) fn sizes(growth: Growth, args: &[ColumnarValue], rows: usize) -> Result<Vec<u64>> {
    let args = Args::new(args)?;
    let references = match growth {
        Growth::RegexpReplace => args.references(2),
        _ => Vec::new(),
    };
    let size = |row: usize| match growth {
        Growth::Repeat => product(args.length(0, row), args.count(1, row)),
        Growth::Fill => product(args.count(1, row), ELEMENT_BYTES),
        Growth::Copies => {
            product(args.count(1, row), args.held(0, row).saturating_add(ELEMENT_BYTES))
        }
        Growth::Resize => {
            product(args.count(1, row), args.held(2, row).saturating_add(ELEMENT_BYTES))
        }
        Growth::Series => {
            let (start, stop) = match args.arrays.len() {
                1 => (Some(0), args.number(0, row)),
                _ => (args.number(0, row), args.number(1, row)),
            };
            let step = args.number(2, row).filter(|step| *step != 0).unwrap_or(1);
            let span = stop.unwrap_or(0).abs_diff(start.unwrap_or(0));
            product(span / step.unsigned_abs(), ELEMENT_BYTES)
        }
        Growth::Sum => args.sum(row),
        Growth::Joined => {
            let between = product(args.length(0, row), args.arrays.len() as u64);
            args.sum(row).saturating_add(between)
        }
        Growth::Replace => {
            let (len, from) = (args.length(0, row), args.length(1, row));
            let places = len / from.max(1) + 1;
            len.saturating_add(product(places, args.length(2, row)))
        }
        Growth::RegexpReplace => {
            let len = args.length(0, row);
            // Of a constant it is counted once, however many rows there are.
            let of_row = if references.len() == 1 { 0 } else { row };
            let references = references.get(of_row).copied().unwrap_or(0);
            let to = args.length(2, row);
            let is_global = args.arrays.get(3).is_some();
            let places = if is_global { len.saturating_add(1) } else { 1 };
            product(len, references.saturating_add(1)).saturating_add(product(places, to))
        }
        Growth::Format => product(args.length(1, row), FORMAT_GROWTH),
    };
    Ok((0..rows).map(size).collect())
}

/// Rows that make at most `bytes_max` together, one run behind the other.
fn runs(sizes: &[u64], bytes_max: u64) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut start, mut bytes) = (0, 0_u64);
    for (row, size) in sizes.iter().enumerate() {
        bytes = bytes.saturating_add(*size);
        if bytes > bytes_max && row > start {
            runs.push(start..row);
            (start, bytes) = (row, *size);
        }
    }
    if start < sizes.len() {
        runs.push(start..sizes.len());
    }
    runs
}

fn part(args: &ScalarFunctionArgs, rows: Range<usize>) -> ScalarFunctionArgs {
    let slice = |arg: &ColumnarValue| match arg {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(rows.start, rows.len())),
        scalar => scalar.clone(),
    };
    let values = args.args.iter().map(slice).collect();
    ScalarFunctionArgs { args: values, number_rows: rows.len(), ..args.clone() }
}

/// The arguments of a call, as far as they say how much it makes.
struct Args {
    arrays: Vec<ArrayRef>,
    numbers: Vec<Option<ArrayRef>>,
    lengths: Vec<Option<ArrayRef>>,
}

impl Args {
    fn new(args: &[ColumnarValue]) -> Result<Self> {
        let arrays = args.iter().map(array).collect::<Result<Vec<_>>>()?;
        let lengths_of = |array: &ArrayRef| {
            let lengths = is_text(array.data_type()).then(|| length(array.as_ref()).ok())??;
            cast(&lengths, &DataType::Int64).ok()
        };
        Ok(Self {
            numbers: arrays.iter().map(numbers).collect(),
            lengths: arrays.iter().map(lengths_of).collect(),
            arrays,
        })
    }

    fn number(&self, arg: usize, row: usize) -> Option<i64> {
        at(self.numbers.get(arg)?.as_ref()?, row)
    }

    /// A number of things: none where it is below zero, or unknown.
    fn count(&self, arg: usize, row: usize) -> u64 {
        u64::try_from(self.number(arg, row).unwrap_or(0)).unwrap_or(0)
    }

    /// A text's length; none of what is no text.
    fn length(&self, arg: usize, row: usize) -> u64 {
        let length = self.lengths.get(arg).and_then(Option::as_ref);
        let length = length.and_then(|lengths| at(lengths, row)).unwrap_or(0);
        u64::try_from(length).unwrap_or(0)
    }

    fn sum(&self, row: usize) -> u64 {
        (0..self.arrays.len()).fold(0, |sum, arg| sum.saturating_add(self.length(arg, row)))
    }

    /// What a value holds, of whatever type.
    fn held(&self, arg: usize, row: usize) -> u64 {
        let Some(array) = self.arrays.get(arg) else { return 0 };
        let row = if array.len() == 1 { 0 } else { row };
        if row >= array.len() { 0 } else { held(array.slice(row, 1).as_ref()) as u64 }
    }

    /// How often each replacement refers to what was found.
    fn references(&self, arg: usize) -> Vec<u64> {
        let Some(array) = self.arrays.get(arg) else { return Vec::new() };
        let count = |text: Option<&str>| {
            let bytes = text.unwrap_or_default().bytes();
            bytes.filter(|byte| matches!(byte, b'\\' | b'$')).count() as u64
        };
        match array.data_type() {
            DataType::Utf8 => array.as_string::<i32>().iter().map(count).collect(),
            DataType::LargeUtf8 => array.as_string::<i64>().iter().map(count).collect(),
            DataType::Utf8View => array.as_string_view().iter().map(count).collect(),
            _ => Vec::new(),
        }
    }
}

fn array(value: &ColumnarValue) -> Result<ArrayRef> {
    match value {
        ColumnarValue::Array(array) => Ok(Arc::clone(array)),
        ColumnarValue::Scalar(scalar) => scalar.to_array(),
    }
}

/// Numbers, and times as nanoseconds; none for other types.
fn numbers(array: &ArrayRef) -> Option<ArrayRef> {
    match array.data_type() {
        of if of.is_integer() => cast(array, &DataType::Int64).ok(),
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => {
            let times = cast(array, &DataType::Timestamp(TimeUnit::Nanosecond, None)).ok()?;
            cast(&times, &DataType::Int64).ok()
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let intervals = as_interval_mdn_array(array.as_ref()).ok()?;
            let nanos = intervals.iter().map(|interval| {
                interval.map(|of| {
                    i64::from(of.months)
                        .saturating_mul(MONTH_NS)
                        .saturating_add(i64::from(of.days).saturating_mul(DAY_NS))
                        .saturating_add(of.nanoseconds)
                })
            });
            Some(Arc::new(nanos.collect::<datafusion::arrow::array::Int64Array>()))
        }
        _ => None,
    }
}

/// The number of a row; a single one counts for all rows.
fn at(numbers: &ArrayRef, row: usize) -> Option<i64> {
    let numbers = numbers.as_primitive_opt::<Int64Type>()?;
    let row = if numbers.len() == 1 { 0 } else { row };
    (row < numbers.len() && numbers.is_valid(row)).then(|| numbers.value(row))
}

fn product(a: u64, b: u64) -> u64 {
    a.saturating_mul(b)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::StringArray;
    use datafusion::arrow::datatypes::Field;
    use datafusion::common::ScalarValue;
    use datafusion::common::config::ConfigOptions;

    use super::*;

    fn text(text: &str) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::from(text))
    }

    fn number(number: i64) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::from(number))
    }

    fn texts(each: &str, rows: usize) -> ColumnarValue {
        let array = StringArray::from_iter_values(std::iter::repeat_n(each, rows));
        ColumnarValue::Array(Arc::new(array))
    }

    #[test]
    fn what_makes_too_much_is_known_before_it_does() {
        let check = |name: &str, args: &[ColumnarValue], expected: bool| {
            let growth = growth_of(name).expect("it grows");
            let rows =
                if args.iter().any(|it| matches!(it, ColumnarValue::Array(_))) { 10 } else { 1 };
            let sizes = super::sizes(growth, args, rows).expect("sizes");
            let total = sizes.iter().fold(0_u64, |total, size| total.saturating_add(*size));
            assert_eq!(total > 1000, expected, "{name} {args:?}: {total}");
        };
        check("repeat", &[text("x"), number(1000)], false);
        check("repeat", &[text("x"), number(1001)], true);
        check("repeat", &[text("x"), number(-1)], false);
        check("repeat", &[text(&"x".repeat(500)), number(i64::MAX)], true);
        check("lpad", &[text("x"), number(1_000_000_000), text("y")], true);
        check("range", &[number(100)], false);
        check("range", &[number(1_000_000_000)], true);
        check("generate_series", &[number(0), number(1000), number(100)], false);
        check("generate_series", &[number(i64::MIN), number(i64::MAX), number(-1)], true);
        check("array_repeat", &[text("x"), number(1 << 40)], true);
        check("array_repeat", &[text(&"x".repeat(500)), number(3)], true);
        check("array_repeat", &[text("x"), number(3)], false);
        check("concat", &[text("x"), texts("y", 10)], false);
        // A single value counts for each row.
        check("concat", &[text(&"x".repeat(100)), texts("y", 10)], true);
        check("concat_ws", &[text(&"x".repeat(100)), texts("y", 10), texts("y", 10)], true);
        check("replace", &[texts("aaa", 10), text("a"), text("bb")], false);
        check("replace", &[texts("aaa", 10), text("a"), text(&"b".repeat(100))], true);
        check("replace", &[texts("", 10), text(""), text(&"b".repeat(101))], true);
        check("regexp_replace", &[text("aaa"), text("a"), text(&"b".repeat(300))], false);
        check("regexp_replace", &[text("aaa"), text(""), text(&"b".repeat(300)), text("g")], true);
        check(
            "regexp_replace",
            &[text(&"a".repeat(50)), text(".*"), text(&"\\0".repeat(30))],
            true,
        );
        check("to_char", &[number(1), text(&"%Y".repeat(1000))], true);
    }

    #[test]
    fn what_may_make_too_much_is_made_in_parts() {
        let replace = datafusion::functions::string::replace();
        let check = |each: &str, to: &str, expected: Option<&str>| {
            let args = vec![texts(each, 100), text("a"), text(to)];
            let field = |of| Arc::new(Field::new("c", of, true));
            let args = ScalarFunctionArgs {
                arg_fields: args.iter().map(|arg| field(arg.data_type())).collect(),
                args,
                number_rows: 100,
                return_field: field(DataType::Utf8),
                config_options: Arc::new(ConfigOptions::default()),
            };
            let made = invoke(&replace, Growth::Replace, args, 3000);
            let made = made.and_then(|made| made.into_array(100));
            match (made, expected) {
                (Ok(made), Some(expected)) => {
                    let expected = std::iter::repeat_n(expected, 100);
                    assert_eq!(made.as_ref(), &StringArray::from_iter_values(expected));
                }
                (Err(_), None) => {}
                (made, _) => panic!("{each} {to}: {made:?}"),
            }
        };
        // It could be 32 bytes a row, and is 11.
        check("xxxxxxxxax", "aa", Some("xxxxxxxxaax"));
        check("aaaaaaaaaa", "bbb", None);
    }
}
