//! Aquifer's own JSON of a record, as reads over HTTP and exports write it:
//! nothing of the record is lost. Its partition and offset name where it was,
//! and do not count where it goes.

use std::borrow::Cow;

use aquifer_types::{Header, NewRecord, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRecord<'a> {
    #[serde(default, rename = "partition")]
    _partition: Option<IgnoredAny>,
    #[serde(default, rename = "offset")]
    _offset: Option<IgnoredAny>,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(borrow, default)]
    key: Option<JsonBytes<'a>>,
    #[serde(borrow, default)]
    headers: Vec<JsonHeader<'a>>,
    #[serde(borrow, default)]
    value: Option<JsonBytes<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonHeader<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, default)]
    value: Option<JsonBytes<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "bytes are a string or {\"base64\":…}")]
enum JsonBytes<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Base64(Base64<'a>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64<'a> {
    #[serde(borrow)]
    base64: Cow<'a, str>,
}

impl JsonBytes<'_> {
    fn into_bytes(self) -> Result<Bytes, String> {
        match self {
            Self::Text(text) => Ok(Bytes::from(text.into_owned())),
            Self::Base64(Base64 { base64 }) => STANDARD
                .decode(base64.as_bytes())
                .map(Bytes::from)
                .map_err(|error| format!("its base64 cannot be decoded: {error}")),
        }
    }
}

/// Reads one record.
pub(crate) fn parse(line: &[u8]) -> Result<NewRecord, String> {
    // A derived reader takes a list for an object as well.
    if line.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err("a record is an object".to_owned());
    }
    let record: JsonRecord<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let bytes = |given: Option<JsonBytes<'_>>| given.map(JsonBytes::into_bytes).transpose();
    let headers = record.headers.into_iter().map(|header| {
        let key = Bytes::from(header.key.into_owned());
        Ok(Header { key, value: bytes(header.value)? })
    });
    Ok(NewRecord {
        timestamp: record.timestamp.map(Timestamp),
        headers: headers.collect::<Result<_, String>>()?,
        key: bytes(record.key)?,
        value: bytes(record.value)?,
    })
}

#[cfg(test)]
mod tests {
    use aquifer_types::{Offset, PartitionIndex, Record, write_record_json};

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let header = |value: Option<&'static [u8]>| Header {
            key: "h\"".into(),
            value: value.map(Bytes::from_static),
        };
        for (key, value, headers) in [
            (None, None, vec![]),
            (Some(&b""[..]), Some(&b"{\"a\":\"\xc3\xa4\\\"\"}"[..]), vec![header(None)]),
            (Some(b"\xff\0"), Some(b"\n\xfe"), vec![header(Some(b"\x80")), header(Some(b""))]),
        ] {
            let record = Record {
                offset: Offset(7),
                timestamp: Timestamp(-5),
                key: key.map(Bytes::from_static),
                headers,
                value: value.map(Bytes::from_static),
            };
            let mut line = Vec::new();
            write_record_json(&mut line, PartitionIndex(3), &record);
            let found = parse(&line).unwrap();
            let expected = NewRecord {
                timestamp: Some(record.timestamp),
                key: record.key,
                headers: record.headers,
                value: record.value,
            };
            assert_eq!(found, expected);
        }
        for (line, part) in [
            ("{\"value\":{\"base64\":\"?\"}}", "base64"),
            ("{\"value\":5}", "bytes are a string"),
            ("{\"values\":5}", "unknown field"),
            ("[]", "is an object"),
        ] {
            let why = parse(line.as_bytes()).unwrap_err();
            assert!(why.contains(part), "{line}: {why}");
        }
    }
}
