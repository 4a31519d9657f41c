//! How much a call makes out of little: `repeat('x', 1000000000)` is twenty
//! bytes of SQL and a gigabyte of memory that no pool counts.
//!
//! The size is reckoned before the function runs, and the call is refused where
//! it is above the limit. What cannot be reckoned is let through: the process's
//! own limit is behind this one.

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::length::length;
use datafusion::arrow::datatypes::{DataType, Int64Type, IntervalUnit, TimeUnit};
use datafusion::common::Result;
use datafusion::common::cast::as_interval_mdn_array;
use datafusion::logical_expr::ColumnarValue;

use crate::refusal::{external, refusal};

/// About the bytes of one element of a list.
const ELEMENT_BYTES: u64 = 8;
const DAY_NS: i64 = 86_400_000_000_000;
const MONTH_NS: i64 = 30 * DAY_NS;

/// How the size of a call's result follows from its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// `f(text, n)`: the text's length times `n`.
    Repeat,
    /// `f(value, n)`: `n`.
    Fill,
    /// `f(stop)`, `f(start, stop)`, `f(start, stop, step)`: the steps between.
    Series,
}

/// How the result of the function `name` grows, if out of proportion.
pub(super) fn growth_of(name: &str) -> Option<Growth> {
    match name {
        "repeat" => Some(Growth::Repeat),
        "lpad" | "rpad" | "array_repeat" | "array_resize" => Some(Growth::Fill),
        "range" | "generate_series" => Some(Growth::Series),
        _ => None,
    }
}

/// Refuses the call of `name` with `args` for `rows` rows where it makes more
/// than `bytes_max`.
pub(super) fn check(
    name: &str,
    growth: Growth,
    args: &[ColumnarValue],
    rows: usize,
    bytes_max: u64,
) -> Result<()> {
    let arrays = args.iter().map(array).collect::<Result<Vec<_>>>()?;
    let rows = if args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_))) { rows } else { 1 };
    let numbers: Vec<Option<ArrayRef>> = arrays.iter().map(numbers).collect();
    let number = |arg: usize, row: usize| -> Option<i64> { at(numbers.get(arg)?.as_ref()?, row) };
    let mut bytes = 0_u64;
    let lengths = match growth {
        Growth::Repeat => arrays
            .first()
            .and_then(|array| length(array.as_ref()).ok())
            .and_then(|lengths| cast(&lengths, &DataType::Int64).ok()),
        Growth::Fill | Growth::Series => None,
    };
    for row in 0..rows {
        let made = match growth {
            Growth::Repeat => {
                let len = lengths.as_ref().and_then(|lengths| at(lengths, row)).unwrap_or(0);
                product(len, number(1, row).unwrap_or(0))
            }
            Growth::Fill => product(number(1, row).unwrap_or(0), ELEMENT_BYTES as i64),
            Growth::Series => {
                let (start, stop) = match args.len() {
                    1 => (Some(0), number(0, row)),
                    _ => (number(0, row), number(1, row)),
                };
                let step = number(2, row).filter(|step| *step != 0).unwrap_or(1);
                let span = stop.unwrap_or(0).abs_diff(start.unwrap_or(0));
                (span / step.unsigned_abs()).saturating_mul(ELEMENT_BYTES)
            }
        };
        bytes = bytes.saturating_add(made);
        if bytes > bytes_max {
            return Err(external(refusal(
                aquifer_types::ErrorKind::TooLarge,
                "query-memory",
                "53200",
                format!("{name} would make more than {bytes_max} bytes at once; ask for less"),
            )));
        }
    }
    Ok(())
}

fn array(value: &ColumnarValue) -> Result<ArrayRef> {
    match value {
        ColumnarValue::Array(array) => Ok(std::sync::Arc::clone(array)),
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
            Some(std::sync::Arc::new(nanos.collect::<datafusion::arrow::array::Int64Array>()))
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

fn product(a: i64, b: i64) -> u64 {
    u64::try_from(a.max(0)).unwrap_or(0).saturating_mul(u64::try_from(b.max(0)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use datafusion::common::ScalarValue;

    use super::*;

    #[test]
    fn what_makes_too_much_is_refused_before_it_does() {
        let text = |text: &str| ColumnarValue::Scalar(ScalarValue::from(text));
        let number = |number: i64| ColumnarValue::Scalar(ScalarValue::from(number));
        let is_refused = |name: &str, args: &[ColumnarValue]| {
            let growth = growth_of(name).expect("it grows");
            super::check(name, growth, args, 8192, 1000).is_err()
        };
        let check = |name: &str, args: &[ColumnarValue], expected: bool| {
            assert_eq!(is_refused(name, args), expected, "{name} {args:?}");
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
    }
}
