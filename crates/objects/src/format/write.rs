//! Records as the bytes of an object. Equal records are equal bytes, whenever
//! they are written.

use std::io::Write as _;

use aquifer_types::{PartitionIndex, Record, write_record_json};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{avro, parquet};
use crate::export::ExportCompression;

/// The marker between Avro's blocks is to be one that does not occur in them; a
/// fixed one keeps equal records equal bytes.
const AVRO_MARKER: [u8; 16] = *b"\xc3\x1faquifer.avro\xa7\x5e";
const ZSTD_LEVEL: i32 = 3;

/// What exported objects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// Values alone, one a line; each is JSON.
    Ndjson,
    /// Whole records, one a line, as reads over HTTP answer them.
    Records,
    /// Values alone, one a line; none holds a line end.
    Text,
    /// A header and a row a record: partition, offset, timestamp, key, headers,
    /// value. What is no UTF-8 is `{"base64":…}`.
    Csv,
    /// Whole records, under the names that chunks have.
    Parquet,
    /// Whole records.
    Avro,
}

impl ExportFormat {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Records => "records",
            Self::Text => "txt",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
            Self::Avro => "avro",
        }
    }
}

/// The bytes of an object.
///
/// # Errors
/// Which record the format cannot hold, and why.
pub(crate) fn encode(
    format: ExportFormat,
    compression: ExportCompression,
    partition: PartitionIndex,
    records: &[Record],
) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match format {
        ExportFormat::Parquet => return parquet::encode(partition.get(), records),
        ExportFormat::Avro => return avro::encode(partition.get(), records, AVRO_MARKER),
        ExportFormat::Records => {
            for record in records {
                write_record_json(&mut out, partition, record);
                out.push(b'\n');
            }
        }
        ExportFormat::Ndjson | ExportFormat::Text => {
            for record in records {
                put_value(&mut out, format, partition, record)?;
            }
        }
        ExportFormat::Csv => put_csv(&mut out, partition, records)?,
    }
    let failed = |error: std::io::Error| error.to_string();
    match compression {
        ExportCompression::None => Ok(out),
        ExportCompression::Gzip => {
            // Its header has no time, so that equal records are equal bytes.
            let level = flate2::Compression::default();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(&out).map_err(failed)?;
            encoder.finish().map_err(failed)
        }
        ExportCompression::Zstd => zstd::bulk::compress(&out, ZSTD_LEVEL).map_err(failed),
    }
}

fn put_value(
    out: &mut Vec<u8>,
    format: ExportFormat,
    partition: PartitionIndex,
    record: &Record,
) -> Result<(), String> {
    let name = || format!("the value of offset {} of partition {partition}", record.offset);
    // A tombstone has no value, and so no line.
    let Some(value) = &record.value else { return Ok(()) };
    if format == ExportFormat::Ndjson && serde_json::from_slice::<IgnoredAny>(value).is_err() {
        return Err(format!("{} is not JSON: export it as records or Parquet", name()));
    }
    if !value.contains(&b'\n') {
        out.extend_from_slice(value);
    } else if format == ExportFormat::Ndjson {
        // Between the tokens of JSON a line end is only space, and within one
        // there is none.
        out.extend(value.iter().map(|byte| match byte {
            b'\n' | b'\r' => b' ',
            byte => *byte,
        }));
    } else {
        return Err(format!("{} has a line end: export it as records or Parquet", name()));
    }
    out.push(b'\n');
    Ok(())
}

fn put_csv(out: &mut Vec<u8>, partition: PartitionIndex, records: &[Record]) -> Result<(), String> {
    out.extend_from_slice(b"_partition,_offset,_timestamp,_key,_headers,_value\n");
    for record in records {
        // The JSON of a record has its parts as this format shows them.
        let mut json = Vec::new();
        write_record_json(&mut json, partition, record);
        let parts: Parts<'_> = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
        let time = record.timestamp.get();
        out.extend_from_slice(format!("{partition},{},{time},", record.offset).as_bytes());
        put_cell(out, parts.key.get())?;
        out.push(b',');
        if !record.headers.is_empty() {
            quoted(out, parts.headers.get());
        }
        out.push(b',');
        put_cell(out, parts.value.get())?;
        out.push(b'\n');
    }
    Ok(())
}

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    key: &'a serde_json::value::RawValue,
    #[serde(borrow)]
    headers: &'a serde_json::value::RawValue,
    #[serde(borrow)]
    value: &'a serde_json::value::RawValue,
}

/// Nothing for null, a quoted text for anything else: so an empty text is not
/// null.
fn put_cell(out: &mut Vec<u8>, json: &str) -> Result<(), String> {
    if json == "null" {
        return Ok(());
    }
    if json.starts_with('"') {
        let text: String = serde_json::from_str(json).map_err(|error| error.to_string())?;
        quoted(out, &text);
    } else {
        quoted(out, json);
    }
    Ok(())
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use aquifer_types::{Header, Offset, Timestamp};
    use bytes::Bytes;

    use super::*;

    fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> Record {
        Record {
            offset: Offset(7),
            timestamp: Timestamp(5),
            key: key.map(Bytes::from_static),
            headers: match key {
                Some(_) => vec![Header { key: "h".into(), value: Some("v".into()) }],
                None => Vec::new(),
            },
            value: value.map(Bytes::from_static),
        }
    }

    fn check(format: ExportFormat, records: &[Record], expected: Result<&str, &str>) {
        let found = encode(format, ExportCompression::None, PartitionIndex(2), records);
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(String::from_utf8(found).unwrap(), expected),
            (Err(found), Err(part)) => assert!(found.contains(part), "{found}"),
            (found, expected) => panic!("{found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn each_format_has_its_lines() {
        use ExportFormat as F;
        let json = [record(None, Some(b"{\"a\":\n1}")), record(None, None)];
        check(F::Ndjson, &json, Ok("{\"a\": 1}\n"));
        check(F::Ndjson, &[record(None, Some(b"text"))], Err("offset 7 of partition 2"));
        check(F::Text, &[record(None, Some(b"text"))], Ok("text\n"));
        check(F::Text, &[record(None, Some(b"a\nb"))], Err("line end"));
        check(
            F::Records,
            &[record(None, Some(b""))],
            Ok(
                "{\"partition\":2,\"offset\":7,\"timestamp\":5,\"key\":null,\"headers\":[],\"value\":\"\"}\n",
            ),
        );
        check(
            F::Csv,
            &[record(Some(b"k\"\n"), Some(b"\xff")), record(None, None), record(None, Some(b""))],
            Ok("_partition,_offset,_timestamp,_key,_headers,_value\n\
                2,7,5,\"k\"\"\n\",\"[{\"\"key\"\":\"\"h\"\",\"\"value\"\":\"\"v\"\"}]\",\"{\"\"base64\"\":\"\"/w==\"\"}\"\n\
                2,7,5,,,\n\
                2,7,5,,,\"\"\n"),
        );
    }

    #[test]
    fn equal_records_are_equal_bytes() {
        use ExportCompression as C;
        use ExportFormat as F;
        let records = [record(Some(b"k"), Some(b"{}")), record(None, None)];
        for format in [F::Ndjson, F::Records, F::Text, F::Csv, F::Parquet, F::Avro] {
            for compression in [C::None, C::Gzip, C::Zstd] {
                let encode = || encode(format, compression, PartitionIndex(0), &records).unwrap();
                assert_eq!(encode(), encode());
            }
        }
    }
}
