use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, NullArray,
    StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, UInt64Array,
};
use arrow_buffer::IntervalMonthDayNano;
use arrow_schema::{DataType, Field};

use super::*;
use crate::types;

fn put(array: ArrayRef, format: Format) -> Option<Vec<u8>> {
    let pg_type = types::of_arrow(array.data_type());
    let encoder = Encoder::new(array.data_type(), pg_type, format);
    let mut to = BytesMut::new();
    encoder.put(&array, 0, &mut to);
    let (length, value) = to.split_first_chunk::<4>().unwrap();
    match i32::from_be_bytes(*length) {
        -1 => None,
        length => {
            assert_eq!(value.len(), length as usize);
            Some(value.to_vec())
        }
    }
}

#[test]
fn text_is_as_postgresql_writes_it() {
    fn check(array: impl Array + 'static, expected: &str) {
        let found = put(Arc::new(array), Format::Text).unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), expected);
    }
    check(BooleanArray::from(vec![true]), "t");
    check(Int64Array::from(vec![i64::MIN]), "-9223372036854775808");
    check(UInt64Array::from(vec![u64::MAX]), "18446744073709551615");
    for (float, expected) in [
        (1.0, "1"),
        (200.5, "200.5"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (1e14, "100000000000000"),
        (1.5e15, "1.5e+15"),
        (1e300, "1e+300"),
        (-1e-300, "-1e-300"),
        (f64::NAN, "NaN"),
        (f64::NEG_INFINITY, "-Infinity"),
        (-0.0, "-0"),
    ] {
        check(Float64Array::from(vec![float]), expected);
    }
    check(Float32Array::from(vec![0.1_f32]), "0.1");
    check(Decimal128Array::from(vec![-12_345]).with_precision_and_scale(10, 2).unwrap(), "-123.45");
    check(StringArray::from(vec!["grün"]), "grün");
    check(StringArray::from(vec!["a\0b"]), "\\x610062");
    check(BinaryArray::from(vec![&b"text"[..]]), "text");
    check(BinaryArray::from(vec![&b"\xff\x00a"[..]]), "\\xff0061");
    check(Date32Array::from(vec![19_789]), "2024-03-07");
    check(Date32Array::from(vec![-719_163]), "0001-12-31 BC");
    check(Date32Array::from(vec![i32::MAX]), "infinity");
    let zoned = |micros| TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC");
    check(zoned(0), "1970-01-01 00:00:00+00");
    check(zoned(1_500_000), "1970-01-01 00:00:01.5+00");
    check(zoned(-1), "1969-12-31 23:59:59.999999+00");
    check(zoned(i64::MAX), "infinity");
    check(TimestampMillisecondArray::from(vec![1_709_812_800_123]), "2024-03-07 12:00:00.123");
    check(Time64MicrosecondArray::from(vec![3_661_000_010]), "01:01:01.00001");
    let interval = |months, days, nanos| {
        IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(months, days, nanos)])
    };
    check(interval(14, 1, 0), "1 year 2 mons 1 day");
    check(interval(0, 0, 0), "00:00:00");
    check(interval(0, 2, -1_500_000_000), "2 days -00:00:01.5");
    check("a b a".split(' ').collect::<DictionaryArray<arrow_array::types::Int8Type>>(), "a");
}

#[test]
fn nested_values_are_json() {
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("a"), None]);
    let lists: ArrayRef = Arc::new(lists.finish());
    let integers: ArrayRef = Arc::new(Int64Array::from(vec![9_007_199_254_740_993]));
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"v"[..]]));
    let field = |name, of: &ArrayRef| Arc::new(Field::new(name, of.data_type().clone(), true));
    let structure = StructArray::from(vec![
        (field("l", &lists), lists.clone()),
        (field("n", &integers), integers),
        (field("f", &floats), floats),
        (field("b", &bytes), bytes),
    ]);
    let found = put(Arc::new(structure), Format::Text).unwrap();
    let expected = r#"{"b":"v","f":null,"l":["a",null],"n":9007199254740993}"#;
    assert_eq!(String::from_utf8(found).unwrap(), expected);
    assert_eq!(types::of_arrow(lists.data_type()), types::JSON);
}

#[test]
fn binary_is_as_postgresql_sends_it() {
    fn check(array: impl Array + 'static, expected: &[u8]) {
        assert_eq!(put(Arc::new(array), Format::Binary).as_deref(), Some(expected));
    }
    check(BooleanArray::from(vec![true]), &[1]);
    check(Int16Array::from(vec![-2]), &[0xff, 0xfe]);
    check(Int32Array::from(vec![7]), &[0, 0, 0, 7]);
    check(Int64Array::from(vec![7]), &[0, 0, 0, 0, 0, 0, 0, 7]);
    check(Float32Array::from(vec![1.0]), &[0x3f, 0x80, 0, 0]);
    check(StringArray::from(vec!["ab"]), b"ab");
    check(Date32Array::from(vec![10_958]), &[0, 0, 0, 1]);
    check(
        TimestampMicrosecondArray::from(vec![EPOCH_DAYS * DAY_MICROS + 258]),
        &[0, 0, 0, 0, 0, 0, 1, 2],
    );
    check(
        IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(3, 2, 1_000)]),
        &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3],
    );
    let decimal = |number, scale| {
        Decimal128Array::from(vec![number]).with_precision_and_scale(30, scale).unwrap()
    };
    // 123.45: the groups 123 and 4500, the first of weight 0.
    check(decimal(12_345, 2), &[0, 2, 0, 0, 0, 0, 0, 2, 0, 123, 0x11, 0x94]);
    check(decimal(0, 2), &[0, 0, 0, 0, 0, 0, 0, 2]);
    check(decimal(-10_000, 0), &[0, 1, 0, 1, 0x40, 0, 0, 0, 0, 1]);
    check(decimal(1, 5), &[0, 1, 0xff, 0xfe, 0, 0, 0, 5, 0x03, 0xe8]);
}

#[test]
fn numerics_come_back_as_they_went() {
    for text in ["0", "1", "-1", "123.45", "0.00001", "10000", "-99999999.9999", "1234567890123"] {
        let mut to = BytesMut::new();
        binary::put(&Value::Numeric(text.to_owned()), types::NUMERIC, &mut to);
        assert_eq!(numeric_text(&to).as_deref(), Some(text));
    }
    for bad in [&b""[..], b"\0\x01\0\0\0\0\0\0", b"\0\0\0\0\x12\x34\0\0", b"\0\0\0\0\0\0\0\0\0"] {
        assert_eq!(numeric_text(bad), None);
    }
}

#[test]
fn null_is_null_in_every_form() {
    for format in [Format::Text, Format::Binary] {
        assert_eq!(put(Arc::new(NullArray::new(1)), format), None);
        assert_eq!(put(Arc::new(Int64Array::from(vec![None::<i64>])), format), None);
        let keys = arrow_array::Int8Array::from(vec![0]);
        let values: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
        assert_eq!(put(Arc::new(DictionaryArray::new(keys, values)), format), None);
    }
    assert_eq!(DataType::Null, NullArray::new(1).data_type().clone());
}
