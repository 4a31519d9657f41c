//! The values that a client binds to placeholders: one row of Arrow, as the
//! engine takes it.
//!
//! Arrow's own reader panics on a schema that is not as it should be, so the
//! row is read here, from bytes of which every place is checked. Numbers and
//! booleans keep their kind; everything else goes as text, which the engine
//! reads as what the statement needs.

use aquifer_query::Parameter;
use arrow_buffer::i256;
use arrow_flight::FlightData;
use arrow_ipc::{
    Buffer, DateUnit, Endianness, Field, FieldNode, Precision, RecordBatch, TimeUnit, Type,
    root_as_message,
};
use chrono::{DateTime, NaiveDate, NaiveTime};

use crate::problem::Problem;

/// The most placeholders of one statement, as the engine has it.
const PARAMETERS_MAX: usize = 65_535;
/// The longest decimal.
const SCALE_MAX: i32 = 76;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// How a column's values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Int {
        bytes: usize,
        is_signed: bool,
    },
    Float {
        bytes: usize,
    },
    Decimal {
        bytes: usize,
        scale: usize,
    },
    Date {
        bytes: usize,
    },
    Time {
        bytes: usize,
        per_second: i64,
    },
    Timestamp {
        per_second: i64,
        has_zone: bool,
    },
    /// Bytes behind offsets of so many bytes.
    Text {
        offset_bytes: usize,
    },
    View,
    Fixed {
        bytes: usize,
    },
}

/// What a client binds, message by message.
#[derive(Debug, Default)]
pub(crate) struct Binding {
    kinds: Option<Vec<Kind>>,
    row: Option<Vec<Parameter>>,
}

impl Binding {
    /// Takes the next message in.
    ///
    /// # Errors
    /// What is no Arrow, types that cannot be bound, or a second row.
    pub(crate) fn feed(&mut self, data: &FlightData) -> Result<(), Problem> {
        // Messages may carry nothing but a descriptor.
        if data.data_header.is_empty() {
            return Ok(());
        }
        let message = root_as_message(&data.data_header).map_err(|_| malformed("a message"))?;
        if let Some(schema) = message.header_as_schema() {
            if self.kinds.is_some() {
                return Err(malformed("a second schema"));
            }
            if schema.endianness() != Endianness::Little {
                return Err(unsupported("values in big-endian order"));
            }
            let fields = schema.fields().map(|fields| fields.iter()).into_iter().flatten();
            let kinds = fields.zip(1..).map(|(field, number)| kind(&field, number));
            self.kinds = Some(kinds.collect::<Result<_, _>>()?);
            return Ok(());
        }
        let batch = message.header_as_record_batch().ok_or_else(|| unsupported("a dictionary"))?;
        let kinds = self.kinds.as_deref().ok_or_else(|| malformed("rows without a schema"))?;
        match batch.length() {
            0 => Ok(()),
            1 if self.row.is_none() => {
                self.row = Some(row(&batch, &data.data_body, kinds)?);
                Ok(())
            }
            _ => Err(Problem::invalid(
                "parameter-rows",
                "a statement is run with one row of values: bind one, and run it for each",
            )),
        }
    }

    /// Whether a row came.
    pub(crate) fn is_bound(&self) -> bool {
        self.row.is_some()
    }

    /// The values; none where none were bound.
    pub(crate) fn finish(self) -> Vec<Parameter> {
        self.row.unwrap_or_default()
    }
}

fn malformed(what: &str) -> Problem {
    Problem::invalid(
        "parameter-malformed",
        format!("the values to bind: {what} that is not as Arrow has it"),
    )
}

fn unsupported(what: &str) -> Problem {
    let mend = "bind numbers, booleans, text, bytes, dates and times";
    Problem::invalid("parameter-type", format!("{what} cannot be bound: {mend}"))
}

fn kind(field: &Field<'_>, number: usize) -> Result<Kind, Problem> {
    let of = field.type_type();
    let refused = || {
        let name = of.variant_name().unwrap_or("unknown");
        unsupported(&format!("${number}, of Arrow's type {name},"))
    };
    if number > PARAMETERS_MAX {
        return Err(Problem::limit(format!("parameters are $1 to ${PARAMETERS_MAX}")));
    }
    if field.dictionary().is_some() {
        return Err(unsupported(&format!("${number}, a dictionary,")));
    }
    let kind = match of {
        Type::Null => Some(Kind::Null),
        Type::Bool => Some(Kind::Bool),
        Type::Utf8 | Type::Binary => Some(Kind::Text { offset_bytes: 4 }),
        Type::LargeUtf8 | Type::LargeBinary => Some(Kind::Text { offset_bytes: 8 }),
        Type::Utf8View | Type::BinaryView => Some(Kind::View),
        Type::FixedSizeBinary => field
            .type_as_fixed_size_binary()
            .and_then(|of| usize::try_from(of.byteWidth()).ok().map(|bytes| Kind::Fixed { bytes })),
        Type::Int => field.type_as_int().and_then(|of| {
            let bytes = bytes_of(of.bitWidth(), &[8, 16, 32, 64])?;
            Some(Kind::Int { bytes, is_signed: of.is_signed() })
        }),
        Type::FloatingPoint => field.type_as_floating_point().and_then(|of| match of.precision() {
            Precision::SINGLE => Some(Kind::Float { bytes: 4 }),
            Precision::DOUBLE => Some(Kind::Float { bytes: 8 }),
            _ => None,
        }),
        Type::Decimal => field.type_as_decimal().and_then(|of| {
            let bytes = bytes_of(of.bitWidth(), &[32, 64, 128, 256])?;
            let scale = Some(of.scale()).filter(|scale| (0..=SCALE_MAX).contains(scale))?;
            Some(Kind::Decimal { bytes, scale: usize::try_from(scale).ok()? })
        }),
        Type::Date => field.type_as_date().and_then(|of| match of.unit() {
            DateUnit::DAY => Some(Kind::Date { bytes: 4 }),
            DateUnit::MILLISECOND => Some(Kind::Date { bytes: 8 }),
            _ => None,
        }),
        Type::Time => field.type_as_time().and_then(|of| {
            let bytes = bytes_of(of.bitWidth(), &[32, 64])?;
            Some(Kind::Time { bytes, per_second: per_second(of.unit())? })
        }),
        Type::Timestamp => field.type_as_timestamp().and_then(|of| {
            let has_zone = of.timezone().is_some_and(|zone| !zone.is_empty());
            Some(Kind::Timestamp { per_second: per_second(of.unit())?, has_zone })
        }),
        _ => None,
    };
    kind.ok_or_else(refused)
}

fn bytes_of(bits: i32, allowed: &[i32]) -> Option<usize> {
    allowed.contains(&bits).then(|| usize::try_from(bits / 8).ok()).flatten()
}

fn per_second(unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::SECOND => Some(1),
        TimeUnit::MILLISECOND => Some(1_000),
        TimeUnit::MICROSECOND => Some(1_000_000),
        TimeUnit::NANOSECOND => Some(NANOS_PER_SECOND),
        _ => None,
    }
}

/// Reads the only row of a batch.
fn row(batch: &RecordBatch<'_>, body: &[u8], kinds: &[Kind]) -> Result<Vec<Parameter>, Problem> {
    if batch.compression().is_some() {
        return Err(unsupported("compressed values"));
    }
    let mut columns = Columns {
        body,
        nodes: batch.nodes().map(|all| all.iter()).into_iter().flatten(),
        buffers: batch.buffers().map(|all| all.iter()).into_iter().flatten(),
        variadic: batch.variadicBufferCounts().map(|all| all.iter()).into_iter().flatten(),
    };
    let read = |(kind, number): (&Kind, usize)| {
        let cell = columns.cell(*kind).ok_or_else(|| malformed("a row"))?;
        match cell {
            None => Ok(Parameter::Null),
            Some(bytes) => value(*kind, bytes).ok_or_else(|| {
                let what = "is not a value of its type, or not UTF-8";
                Problem::invalid("parameter-type", format!("${number} {what}"))
            }),
        }
    };
    kinds.iter().zip(1..).map(read).collect()
}

/// A batch of one row, column by column.
struct Columns<'a, N, B, V> {
    body: &'a [u8],
    nodes: N,
    buffers: B,
    variadic: V,
}

impl<'a, N, B, V> Columns<'a, N, B, V>
where
    N: Iterator<Item = &'a FieldNode>,
    B: Iterator<Item = &'a Buffer>,
    V: Iterator<Item = i64>,
{
    fn buffer(&mut self) -> Option<&'a [u8]> {
        let buffer = self.buffers.next()?;
        let start = usize::try_from(buffer.offset()).ok()?;
        let length = usize::try_from(buffer.length()).ok()?;
        self.body.get(start..start.checked_add(length)?)
    }

    /// The bytes of the next column's only value, and nothing where it is null.
    fn cell(&mut self, kind: Kind) -> Option<Option<&'a [u8]>> {
        let node = self.nodes.next()?;
        if node.length() != 1 {
            return None;
        }
        if kind == Kind::Null {
            return Some(None);
        }
        let validity = self.buffer()?;
        let is_null = node.null_count() > 0 && validity.first()? & 1 == 0;
        let cell = self.bytes(kind, is_null);
        if is_null { Some(None) } else { cell.map(Some) }
    }

    /// Takes a column's buffers; of a null, whatever they are.
    fn bytes(&mut self, kind: Kind, is_null: bool) -> Option<&'a [u8]> {
        let first = self.buffer()?;
        match kind {
            Kind::Null => None,
            Kind::Bool => first.get(..1),
            Kind::Int { bytes, .. }
            | Kind::Float { bytes }
            | Kind::Decimal { bytes, .. }
            | Kind::Date { bytes }
            | Kind::Time { bytes, .. }
            | Kind::Fixed { bytes } => first.get(..bytes),
            Kind::Timestamp { .. } => first.get(..8),
            Kind::Text { offset_bytes } => {
                let data = self.buffer()?;
                let start = offset(first, 0, offset_bytes)?;
                data.get(start..offset(first, 1, offset_bytes)?)
            }
            Kind::View => {
                let count = usize::try_from(self.variadic.next()?).ok()?;
                // Each of them has to be there, so that no count is believed.
                let mut place = None;
                let view = first.get(..16);
                let (length, at) = view.and_then(view_parts).unwrap_or((0, None));
                for index in 0..count {
                    let data = self.buffer()?;
                    if at.is_some_and(|(buffer, _)| buffer == index) {
                        place = Some(data);
                    }
                }
                match at {
                    _ if is_null => None,
                    None => view?.get(4..4 + length),
                    Some((_, start)) => place?.get(start..start.checked_add(length)?),
                }
            }
        }
    }
}

/// The length of a view's text and, where it is not in the view itself, its
/// buffer and place in it.
fn view_parts(view: &[u8]) -> Option<(usize, Option<(usize, usize)>)> {
    let part = |at: usize| -> Option<usize> {
        let bytes = view.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(i32::from_le_bytes(bytes)).ok()
    };
    let length = part(0)?;
    let at = if length <= 12 { None } else { Some((part(8)?, part(12)?)) };
    Some((length, at))
}

fn offset(offsets: &[u8], index: usize, bytes: usize) -> Option<usize> {
    let of = offsets.get(index * bytes..(index + 1) * bytes)?;
    usize::try_from(signed(of)?).ok()
}

/// A whole number of up to 16 bytes, little-endian.
fn signed(bytes: &[u8]) -> Option<i128> {
    let mut all = if bytes.last()? & 0x80 == 0 { [0; 16] } else { [0xff; 16] };
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i128::from_le_bytes(all))
}

fn unsigned(bytes: &[u8]) -> Option<u64> {
    let mut all = [0; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u64::from_le_bytes(all))
}

fn value(kind: Kind, bytes: &[u8]) -> Option<Parameter> {
    let whole = || signed(bytes).and_then(|number| i64::try_from(number).ok());
    match kind {
        Kind::Null => Some(Parameter::Null),
        Kind::Bool => bytes.first().map(|byte| Parameter::Boolean(byte & 1 == 1)),
        Kind::Int { is_signed: true, .. } => whole().map(Parameter::Integer),
        Kind::Int { is_signed: false, .. } => {
            let number = unsigned(bytes)?;
            let text = || Parameter::Text(number.to_string());
            Some(i64::try_from(number).map_or_else(|_| text(), Parameter::Integer))
        }
        Kind::Float { bytes: 4 } => Some(float(f32::from_le_bytes(bytes.try_into().ok()?).into())),
        Kind::Float { .. } => Some(float(f64::from_le_bytes(bytes.try_into().ok()?))),
        Kind::Decimal { bytes: 32, scale } => {
            let number = i256::from_le_bytes(bytes.try_into().ok()?);
            Some(Parameter::Text(decimal(&number.to_string(), scale)))
        }
        Kind::Decimal { scale, .. } => {
            Some(Parameter::Text(decimal(&signed(bytes)?.to_string(), scale)))
        }
        Kind::Date { bytes: 4 } => {
            let date = NaiveDate::from_epoch_days(i32::try_from(whole()?).ok()?)?;
            Some(Parameter::Text(date.format("%Y-%m-%d").to_string()))
        }
        Kind::Date { .. } => {
            let date = DateTime::from_timestamp_millis(whole()?)?;
            Some(Parameter::Text(date.format("%Y-%m-%d").to_string()))
        }
        Kind::Time { per_second, .. } => time(whole()?, per_second).map(Parameter::Text),
        Kind::Timestamp { per_second, has_zone } => {
            let (seconds, nanos) = split(whole()?, per_second);
            let at = DateTime::from_timestamp(seconds, nanos)?;
            let zone = if has_zone { "Z" } else { "" };
            Some(Parameter::Text(format!("{}{zone}", at.format("%Y-%m-%dT%H:%M:%S%.f"))))
        }
        Kind::Text { .. } | Kind::View | Kind::Fixed { .. } => {
            std::str::from_utf8(bytes).ok().map(|text| Parameter::Text(text.to_owned()))
        }
    }
}

/// JSON, which the question travels in, has neither infinity nor NaN.
fn float(number: f64) -> Parameter {
    if number.is_finite() { Parameter::Float(number) } else { Parameter::Text(number.to_string()) }
}

/// Seconds and nanoseconds.
fn split(number: i64, per_second: i64) -> (i64, u32) {
    let nanos = number.rem_euclid(per_second) * (NANOS_PER_SECOND / per_second);
    (number.div_euclid(per_second), u32::try_from(nanos).unwrap_or_default())
}

fn time(number: i64, per_second: i64) -> Option<String> {
    let (seconds, nanos) = split(number, per_second);
    let seconds = u32::try_from(seconds).ok()?;
    let time = NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos)?;
    Some(time.format("%H:%M:%S%.f").to_string())
}

/// A number's digits with the point in its place.
fn decimal(number: &str, scale: usize) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    if scale == 0 {
        return number.to_owned();
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::{Int32Type, UInt64Type};
    use arrow_array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Date64Array, Decimal128Array,
        Decimal256Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int64Array,
        LargeStringArray, ListArray, NullArray, PrimitiveArray, StringArray, StringViewArray,
        Time32SecondArray, Time64NanosecondArray, TimestampMicrosecondArray, TimestampSecondArray,
    };
    use arrow_flight::utils::batches_to_flight_data;
    use arrow_schema::{DataType, Schema};
    use bytes::Bytes;

    use super::*;

    fn messages(columns: Vec<ArrayRef>) -> Vec<FlightData> {
        let named = columns.into_iter().zip(0..).map(|(column, at)| (format!("{at}"), column));
        let batch = arrow_array::RecordBatch::try_from_iter_with_nullable(
            named.map(|(name, column)| (name, column, true)),
        )
        .unwrap();
        batches_to_flight_data(&batch.schema(), vec![batch]).unwrap()
    }

    fn bind(messages: &[FlightData]) -> Result<Vec<Parameter>, Problem> {
        let mut binding = Binding::default();
        for message in messages {
            binding.feed(message)?;
        }
        Ok(binding.finish())
    }

    fn bound(column: impl arrow_array::Array + 'static) -> Result<Parameter, String> {
        let found = bind(&messages(vec![Arc::new(column)])).map_err(|problem| problem.name);
        found.map(|mut all| all.pop().unwrap())
    }

    fn text(text: &str) -> Result<Parameter, String> {
        Ok(Parameter::Text(text.to_owned()))
    }

    #[test]
    fn values_are_read_by_their_type() {
        let long = "longer than a view has room for";
        for (found, expected) in [
            (bound(NullArray::new(1)), Ok(Parameter::Null)),
            (bound(BooleanArray::from(vec![true])), Ok(Parameter::Boolean(true))),
            (bound(Int8Array::from(vec![-7])), Ok(Parameter::Integer(-7))),
            (bound(Int64Array::from(vec![i64::MIN])), Ok(Parameter::Integer(i64::MIN))),
            (bound(Int64Array::from(vec![None::<i64>])), Ok(Parameter::Null)),
            (bound(PrimitiveArray::<UInt64Type>::from(vec![7])), Ok(Parameter::Integer(7))),
            (
                bound(PrimitiveArray::<UInt64Type>::from(vec![u64::MAX])),
                text("18446744073709551615"),
            ),
            (bound(Float32Array::from(vec![0.5])), Ok(Parameter::Float(0.5))),
            (bound(Float64Array::from(vec![-0.1])), Ok(Parameter::Float(-0.1))),
            (bound(Float64Array::from(vec![f64::NAN])), text("NaN")),
            (bound(StringArray::from(vec!["ä"])), text("ä")),
            (bound(StringArray::from(vec![None::<&str>])), Ok(Parameter::Null)),
            (bound(LargeStringArray::from(vec!["x"])), text("x")),
            (bound(StringViewArray::from(vec!["short"])), text("short")),
            (bound(StringViewArray::from(vec![long])), text(long)),
            (bound(StringViewArray::from(vec![None::<&str>])), Ok(Parameter::Null)),
            (bound(BinaryArray::from(vec![&b"ab"[..]])), text("ab")),
            (bound(BinaryArray::from(vec![&b"\xff"[..]])), Err("parameter-type".to_owned())),
            (
                bound(FixedSizeBinaryArray::try_from_iter([b"abc"].into_iter()).unwrap()),
                text("abc"),
            ),
            (bound(Date32Array::from(vec![-1])), text("1969-12-31")),
            (bound(Date32Array::from(vec![i32::MAX])), Err("parameter-type".to_owned())),
            (bound(Date64Array::from(vec![86_400_000])), text("1970-01-02")),
            (bound(Time32SecondArray::from(vec![61])), text("00:01:01")),
            (bound(Time32SecondArray::from(vec![-1])), Err("parameter-type".to_owned())),
            (bound(Time64NanosecondArray::from(vec![1])), text("00:00:00.000000001")),
            (bound(TimestampSecondArray::from(vec![-1])), text("1969-12-31T23:59:59")),
            (
                bound(TimestampMicrosecondArray::from(vec![-1]).with_timezone("UTC")),
                text("1969-12-31T23:59:59.999999Z"),
            ),
            (
                bound(TimestampMicrosecondArray::from(vec![i64::MAX])),
                Err("parameter-type".to_owned()),
            ),
            (
                bound(Decimal128Array::from(vec![-5]).with_precision_and_scale(10, 2).unwrap()),
                text("-0.05"),
            ),
            (
                bound(
                    Decimal256Array::from(vec![i256::from(1234)])
                        .with_precision_and_scale(70, 3)
                        .unwrap(),
                ),
                text("1.234"),
            ),
            (
                bound(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1)])])),
                Err("parameter-type".to_owned()),
            ),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_row_is_read_in_order_and_only_one() {
        let columns = |rows: usize| -> Vec<ArrayRef> {
            vec![
                Arc::new(StringViewArray::from(vec!["a text that is long enough"; rows])),
                Arc::new(NullArray::new(rows)),
                Arc::new(StringArray::from(vec!["x"; rows])),
                Arc::new(Int64Array::from(vec![3; rows])),
            ]
        };
        let found = bind(&messages(columns(1))).unwrap();
        let words = |text: &str| Parameter::Text(text.to_owned());
        let expected = [
            words("a text that is long enough"),
            Parameter::Null,
            words("x"),
            Parameter::Integer(3),
        ];
        assert_eq!(found, expected);
        assert_eq!(bind(&messages(columns(0))).unwrap(), []);
        assert_eq!(bind(&[FlightData::default()]).unwrap(), []);
        assert_eq!(bind(&messages(columns(2))).unwrap_err().name, "parameter-rows");
        let all = messages(columns(1));
        let twice = [&all[..], &all[1..]].concat();
        assert_eq!(bind(&twice).unwrap_err().name, "parameter-rows");
        assert_eq!(bind(&all[1..]).unwrap_err().name, "parameter-malformed");
        assert_eq!(bind(&[&all[..1], &all[..1]].concat()).unwrap_err().name, "parameter-malformed");
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let schema = Schema::new(vec![arrow_schema::Field::new("d", dictionary, true)]);
        let refused = bind(&[crate::schema::message(&schema)]).unwrap_err();
        assert!(refused.message.contains("$1, a dictionary"), "{refused:?}");
        let mut short = all.clone();
        short[1].data_body = short[1].data_body.slice(..8);
        assert_eq!(bind(&short).unwrap_err().name, "parameter-malformed");
    }

    #[test]
    fn fuzz_flight_parameters() {
        let all = messages(vec![
            Arc::new(StringArray::from(vec!["x"])),
            Arc::new(StringViewArray::from(vec!["a text that is long enough"])),
            Arc::new(Decimal128Array::from(vec![7])),
            Arc::new(TimestampMicrosecondArray::from(vec![1])),
            Arc::new(BooleanArray::from(vec![true])),
        ]);
        // A message's header, and a body of the first length of it.
        let write = |of: &FlightData| {
            let length = (of.data_header.len() as u32).to_le_bytes();
            [&length[..], &of.data_header, &of.data_body].concat()
        };
        let read = |bytes: &[u8]| {
            let (length, rest) = bytes.split_first_chunk::<4>()?;
            let header = usize::try_from(u32::from_le_bytes(*length)).ok()?.min(rest.len());
            let (header, body) = rest.split_at(header);
            Some(FlightData {
                data_header: Bytes::copy_from_slice(header),
                data_body: Bytes::copy_from_slice(body),
                ..FlightData::default()
            })
        };
        let corpus = [write(&all[0]), write(&all[1])];
        aquifer_testkit::fuzz("flight_parameters", 0.4, &corpus, |bytes| {
            let Some(message) = read(bytes) else { return };
            let mut binding = Binding::default();
            // As a schema whose rows are the good ones, and as rows of the good schema.
            if binding.feed(&message).is_ok() {
                let _ = binding.feed(&all[1]);
            }
            let mut binding = Binding::default();
            binding.feed(&all[0]).unwrap();
            let _ = binding.feed(&message);
        });
    }
}
