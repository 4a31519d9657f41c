//! Parquet: any file's rows as JSON objects; Aquifer's own, chunks and exports,
//! as the records that they were.
//!
//! Rows are read some at a time, never a row group as a whole: as many as have
//! about [`BATCH_BYTES`] on the average. A file that does not say how long its
//! values are (most writers do) and repeats long ones out of a dictionary can
//! need up to [`BATCH_ROWS_MAX`] times the longest. The library is not made for
//! files of somebody who means harm: what it panics at, the caller turns into an
//! error.

use std::sync::Arc;

use aquifer_types::{Header, NewRecord, Record, Timestamp};
use arrow_array::builder::{
    BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, StructBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{TimestampMicrosecondType, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow_json::writer::{LineDelimited, WriterBuilder};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, Length as _};

use crate::ranges::Ranges;
use crate::rows::{Halt, Rows};

/// Rows that are decoded together, at most, and about how many bytes.
const BATCH_ROWS_MAX: u64 = 1024;
const BATCH_BYTES: u64 = 4 << 20;
/// The most bytes of a file's footer.
const FOOTER_BYTES_MAX: u32 = 64 << 20;
const KEY: &str = "_key";
const HEADERS: &str = "_headers";
const TIMESTAMP: &str = "_timestamp";
const VALUE: &str = "_value";

/// Decodes a file. `ratio_max` bounds how many rows it may say that it has for
/// each of its bytes.
pub(crate) fn decode(file: Ranges, ratio_max: u64, rows: &mut Rows) -> Result<(), Halt> {
    read(file, ratio_max, rows).unwrap_or_else(|why| Err(rows.broken(why)))
}

/// The outer error is the file's, the inner one the end.
fn read(file: Ranges, ratio_max: u64, rows: &mut Rows) -> Result<Result<(), Halt>, String> {
    let text = |error: parquet::errors::ParquetError| error.to_string();
    let length = file.len();
    check_footer(&file)?;
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options);
    let builder = builder.map_err(text)?;
    let metadata = builder.metadata().clone();
    let total = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(u64::MAX);
    if builder.schema().fields().is_empty() || total > length.saturating_mul(ratio_max) {
        return Err(format!("it has {total} rows in {length} bytes (objects.ratio_max)"));
    }
    let batch_rows = batch_rows(&metadata);
    let passed = rows.skippable().min(total);
    rows.pass(passed);
    let is_own = is_own(builder.schema());
    let builder = match is_own {
        true => {
            let mask = own_columns(builder.schema());
            let mask = ProjectionMask::roots(builder.parquet_schema(), mask);
            builder.with_projection(mask)
        }
        false => builder,
    };
    let reader = builder
        .with_batch_size(usize::try_from(batch_rows).unwrap_or(1))
        .with_offset(usize::try_from(passed).unwrap_or(usize::MAX))
        .build()
        .map_err(text)?;
    for batch in reader {
        let batch = batch.map_err(|error| error.to_string())?;
        let pushed = match is_own {
            true => push_records(&batch, rows)?,
            false => push_rows(&batch, rows)?,
        };
        if pushed.is_err() {
            return Ok(pushed);
        }
    }
    Ok(Ok(()))
}

/// How many rows are decoded together: few where those of any row group are
/// long.
fn batch_rows(metadata: &ParquetMetaData) -> u64 {
    let bytes = |count: i64| u64::try_from(count).unwrap_or(u64::MAX);
    let row_bytes = metadata.row_groups().iter().map(|group| {
        // A dictionary has a value once, however many rows it becomes.
        let columns = group.columns().iter().map(|column| {
            let values = column.unencoded_byte_array_data_bytes().unwrap_or_default();
            bytes(values.max(column.uncompressed_size()))
        });
        let of_group = columns.fold(0, u64::saturating_add).max(bytes(group.total_byte_size()));
        of_group / bytes(group.num_rows()).max(1)
    });
    let longest = row_bytes.max().unwrap_or_default();
    (BATCH_BYTES / longest.max(1)).clamp(1, BATCH_ROWS_MAX)
}

/// The last eight bytes say how long the footer is, and the library would take
/// as much memory.
fn check_footer(file: &Ranges) -> Result<(), String> {
    let Some(start) = file.len().checked_sub(8) else {
        return Err("it is too short for a Parquet file".to_owned());
    };
    let end = file.get_bytes(start, 8).map_err(|error| error.to_string())?;
    let (length, magic) = end.split_first_chunk::<4>().ok_or("it ends early")?;
    if magic != b"PAR1" {
        return Err("it does not end as a Parquet file that is not encrypted".to_owned());
    }
    let length = u32::from_le_bytes(*length);
    match length > FOOTER_BYTES_MAX {
        true => Err(format!("its footer has {length} bytes, {FOOTER_BYTES_MAX} may be")),
        false => Ok(()),
    }
}

/// Each row as a JSON object.
fn push_rows(batch: &RecordBatch, rows: &mut Rows) -> Result<Result<(), Halt>, String> {
    let text = |error: arrow_schema::ArrowError| error.to_string();
    let mut writer =
        WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(batch).map_err(text)?;
    writer.finish().map_err(text)?;
    let lines = Bytes::from(writer.into_inner());
    let mut from = 0;
    let mut count = 0;
    for (end, _) in lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        // A copy, so that a record does not hold the whole batch in memory.
        let line = Bytes::copy_from_slice(lines.get(from..end).unwrap_or_default());
        if let Err(halt) = rows.json(line) {
            return Ok(Err(halt));
        }
        (from, count) = (end + 1, count + 1);
    }
    match count == batch.num_rows() {
        true => Ok(Ok(())),
        false => Err(format!("{} rows became {count} lines", batch.num_rows())),
    }
}

/// Whether a file holds records as Aquifer writes them.
fn is_own(schema: &Schema) -> bool {
    let is = |name: &str, wanted: fn(&DataType) -> bool| {
        schema.field_with_name(name).is_ok_and(|field| wanted(field.data_type()))
    };
    is("_offset", |kind| *kind == DataType::Int64)
        && is(TIMESTAMP, |kind| {
            matches!(
                kind,
                DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Millisecond, Some(_))
            )
        })
        && is(KEY, |kind| *kind == DataType::Binary)
        && is(VALUE, |kind| *kind == DataType::Binary)
        && is(HEADERS, is_headers)
}

fn is_headers(kind: &DataType) -> bool {
    let DataType::List(element) = kind else { return false };
    let DataType::Struct(fields) = element.data_type() else { return false };
    let kinds: Vec<_> = fields.iter().map(|field| field.data_type()).collect();
    kinds == [&DataType::Utf8, &DataType::Binary]
}

fn own_columns(schema: &Schema) -> Vec<usize> {
    let names = [TIMESTAMP, KEY, HEADERS, VALUE];
    let places = schema.fields().iter().enumerate();
    places
        .filter(|(_, field)| names.contains(&field.name().as_str()))
        .map(|(place, _)| place)
        .collect()
}

/// Each row as the record that it was.
fn push_records(batch: &RecordBatch, rows: &mut Rows) -> Result<Result<(), Halt>, String> {
    let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no {name}"));
    let (times, keys) = (column(TIMESTAMP)?, column(KEY)?.as_binary::<i32>());
    let (headers, values) = (column(HEADERS)?.as_list::<i32>(), column(VALUE)?.as_binary::<i32>());
    for row in 0..batch.num_rows() {
        let record = NewRecord {
            timestamp: time_at(times, row).map(Timestamp),
            key: bytes_at(keys, row),
            headers: match headers.is_null(row) {
                true => Vec::new(),
                false => headers_of(&headers.value(row))?,
            },
            value: bytes_at(values, row),
        };
        if let Err(halt) = rows.record(record) {
            return Ok(Err(halt));
        }
    }
    Ok(Ok(()))
}

fn time_at(times: &ArrayRef, row: usize) -> Option<i64> {
    if times.is_null(row) {
        return None;
    }
    if let Some(times) = times.as_primitive_opt::<TimestampMicrosecondType>() {
        return Some(times.value(row).div_euclid(1000));
    }
    Some(times.as_primitive_opt::<TimestampMillisecondType>()?.value(row))
}

fn bytes_at(bytes: &BinaryArray, row: usize) -> Option<Bytes> {
    (!bytes.is_null(row)).then(|| Bytes::copy_from_slice(bytes.value(row)))
}

fn headers_of(elements: &ArrayRef) -> Result<Vec<Header>, String> {
    let elements = elements.as_struct();
    let column = |place: usize| elements.columns().get(place).ok_or("a header is not whole");
    let keys: &StringArray = column(0)?.as_string::<i32>();
    let values: &BinaryArray = column(1)?.as_binary::<i32>();
    let headers = (0..elements.len()).map(|place| Header {
        key: match keys.is_null(place) {
            true => Bytes::new(),
            false => Bytes::copy_from_slice(keys.value(place).as_bytes()),
        },
        value: bytes_at(values, place),
    });
    Ok(headers.collect())
}

fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
    ])
}

/// The columns of an exported file: those of a chunk that a record has by
/// itself.
fn own_schema() -> SchemaRef {
    let element = Field::new("element", DataType::Struct(header_fields()), false);
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new(TIMESTAMP, time, false),
        Field::new(KEY, DataType::Binary, true),
        Field::new(HEADERS, DataType::List(Arc::new(element)), false),
        Field::new(VALUE, DataType::Binary, true),
    ]))
}

/// Writes records as a file, compressed with zstd.
pub(crate) fn encode(partition: u32, records: &[Record]) -> Result<Vec<u8>, String> {
    let text = |error: parquet::errors::ParquetError| error.to_string();
    let level = ZstdLevel::try_new(3).map_err(text)?;
    // The same records are the same bytes, whenever they are written.
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by("aquifer version 1.0 (build export-1)".to_owned())
        .build();
    let mut writer =
        ArrowWriter::try_new(Vec::new(), own_schema(), Some(properties)).map_err(text)?;
    for records in records.chunks(8192) {
        let batch = to_batch(partition, records).map_err(|error| error.to_string())?;
        writer.write(&batch).map_err(text)?;
    }
    writer.into_inner().map_err(text)
}

fn to_batch(partition: u32, records: &[Record]) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let mut partitions = Int32Builder::new();
    let mut offsets = Int64Builder::new();
    let mut times = TimestampMicrosecondBuilder::new().with_timezone("UTC");
    let mut keys = BinaryBuilder::new();
    let element = Field::new("element", DataType::Struct(header_fields()), false);
    let mut headers =
        ListBuilder::new(StructBuilder::from_fields(header_fields(), 0)).with_field(element);
    let mut values = BinaryBuilder::new();
    for record in records {
        partitions.append_value(i32::try_from(partition).unwrap_or(i32::MAX));
        offsets.append_value(record.offset.get());
        times.append_value(record.timestamp.get().saturating_mul(1000));
        keys.append_option(record.key.as_deref());
        values.append_option(record.value.as_deref());
        let elements = headers.values();
        for header in &record.headers {
            if let Some(keys) = elements.field_builder::<StringBuilder>(0) {
                keys.append_value(String::from_utf8_lossy(&header.key));
            }
            if let Some(values) = elements.field_builder::<BinaryBuilder>(1) {
                values.append_option(header.value.as_deref());
            }
            elements.append(true);
        }
        headers.append(true);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(partitions.finish()),
        Arc::new(offsets.finish()),
        Arc::new(times.finish()),
        Arc::new(keys.finish()),
        Arc::new(headers.finish()),
        Arc::new(values.finish()),
    ];
    RecordBatch::try_new(own_schema(), columns)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use aquifer_types::Offset;
    use arrow_array::{Float64Array, Int64Array};

    use super::*;
    use crate::rows::Part;
    use crate::rows::tests::{LIMITS, collect, spec, values};

    fn run(bytes: Vec<u8>, skip: u64) -> (Vec<Part>, Result<(), Halt>) {
        let file = Ranges::of_bytes(Bytes::from(bytes));
        collect(&spec(), LIMITS, skip, |rows| decode(file, 1000, rows))
    }

    fn records() -> Vec<Record> {
        let header = |value: Option<&'static [u8]>| Header {
            key: "h".into(),
            value: value.map(Bytes::from_static),
        };
        let numbers = 0..3000_i64;
        let record = |number: i64| Record {
            offset: Offset(number * 2),
            timestamp: Timestamp(number - 7),
            key: (number % 3 > 0).then(|| Bytes::from(format!("k{}", number % 5))),
            headers: match number % 4 {
                0 => vec![header(None), header(Some(b"\xff"))],
                _ => Vec::new(),
            },
            value: (number % 7 > 0).then(|| Bytes::from(vec![0xff; (number % 11) as usize])),
        };
        numbers.map(record).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = encode(3, &records()).unwrap();
        assert_eq!(bytes, encode(3, &records()).unwrap(), "equal records are equal bytes");
        for skip in [0, 1, 2047, 3000] {
            let (parts, result) = run(bytes.clone(), skip);
            assert_eq!(result, Ok(()));
            assert_eq!(parts.last().unwrap().rows, 3000);
            let found: Vec<_> = parts.into_iter().flat_map(|part| part.records).collect();
            let expected = records().into_iter().skip(skip as usize).map(|record| NewRecord {
                timestamp: Some(record.timestamp),
                key: record.key,
                headers: record.headers,
                value: record.value,
            });
            assert_eq!(found, expected.collect::<Vec<_>>());
        }
    }

    fn table() -> Vec<u8> {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
            ("b", Arc::new(StringArray::from(vec!["x\n\"", "ä"]))),
            ("c", Arc::new(Float64Array::from(vec![1.5, f64::NAN]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let mut writer =
            ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    #[test]
    fn any_table_becomes_objects() {
        let (parts, result) = run(table(), 0);
        assert_eq!(result, Ok(()));
        let expected =
            [r#"{"a":9223372036854775807,"b":"x\n\"","c":1.5}"#, r#"{"a":null,"b":"ä","c":null}"#];
        assert_eq!(values(&parts), expected);
    }

    #[test]
    fn values_of_a_dictionary_count_in_each_row() {
        let check = |value: &str, expected: u64| {
            let values: ArrayRef = Arc::new(StringArray::from(vec![value; 500]));
            let batch = RecordBatch::try_from_iter([("a", values)]).unwrap();
            let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            let bytes = writer.into_inner().unwrap();
            assert!(bytes.len() < 1 << 20, "the value is there once");
            let file = Ranges::of_bytes(Bytes::from(bytes));
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            assert_eq!(batch_rows(builder.metadata()), expected);
        };
        check("x", BATCH_ROWS_MAX);
        let long = "x".repeat(64 << 10);
        check(&long, BATCH_BYTES / long.len() as u64);
    }

    #[test]
    fn what_is_no_parquet_is_refused() {
        for bytes in [vec![], b"PAR1PAR1".to_vec(), vec![0; 100], b"\xff\xff\xff\xffPAR1".to_vec()]
        {
            let (_, result) = run(bytes, 0);
            assert!(matches!(result, Err(Halt::Broken(_))), "{result:?}");
        }
    }

    #[test]
    fn fuzz_parquet() {
        let corpus = [table(), encode(0, &records()[..20]).unwrap()];
        aquifer_testkit::fuzz("parquet", 0.3, &corpus, |bytes| {
            // The library may panic; an import takes that for a file that is not
            // sound. It must end, and within memory.
            let _ = catch_unwind(AssertUnwindSafe(|| run(bytes.to_vec(), 0)));
        });
    }
}
