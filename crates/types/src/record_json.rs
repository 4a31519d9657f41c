//! A record as JSON, the same wherever one is written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{PartitionIndex, Record};

/// Writes `{"partition","offset","timestamp","key","headers","value"}`.
/// Key, value and header values are strings where they are UTF-8, else
/// `{"base64":…}`; null is null. Headers are a list, since their names may
/// repeat.
pub fn write_record_json(out: &mut Vec<u8>, partition: PartitionIndex, record: &Record) {
    out.extend_from_slice(b"{\"partition\":");
    number(out, partition.get().into());
    out.extend_from_slice(b",\"offset\":");
    number(out, record.offset.get());
    out.extend_from_slice(b",\"timestamp\":");
    number(out, record.timestamp.get());
    out.extend_from_slice(b",\"key\":");
    nullable(out, record.key.as_deref());
    out.extend_from_slice(b",\"headers\":[");
    for (place, header) in record.headers.iter().enumerate() {
        out.extend_from_slice(if place == 0 { b"{\"key\":" } else { b",{\"key\":" });
        string(out, &String::from_utf8_lossy(&header.key));
        out.extend_from_slice(b",\"value\":");
        nullable(out, header.value.as_deref());
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"value\":");
    nullable(out, record.value.as_deref());
    out.push(b'}');
}

fn number(out: &mut Vec<u8>, number: i64) {
    // Writing into memory cannot fail.
    let _ = serde_json::to_writer(out, &number);
}

fn string(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text);
}

fn nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes.map(|bytes| (std::str::from_utf8(bytes), bytes)) {
        None => out.extend_from_slice(b"null"),
        Some((Ok(text), _)) => string(out, text),
        Some((Err(_), bytes)) => {
            out.extend_from_slice(b"{\"base64\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Header, Offset, Timestamp};

    #[test]
    fn records_are_rendered_in_full() {
        let check = |key: Option<&'static [u8]>, value: Option<&'static [u8]>, headers, text| {
            let given = Record {
                offset: Offset(7),
                timestamp: Timestamp(-5),
                key: key.map(Bytes::from_static),
                headers,
                value: value.map(Bytes::from_static),
            };
            let mut out = Vec::new();
            write_record_json(&mut out, PartitionIndex(2), &given);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        };
        check(
            None,
            Some(b"{\"a\":\"\xc3\xa4\n\"}"),
            Vec::new(),
            "{\"partition\":2,\"offset\":7,\"timestamp\":-5,\"key\":null,\"headers\":[],\
             \"value\":\"{\\\"a\\\":\\\"ä\\n\\\"}\"}",
        );
        check(
            Some(b""),
            None,
            vec![
                Header { key: "h".into(), value: Some(Bytes::from_static(b"\xff")) },
                Header { key: "h".into(), value: None },
            ],
            "{\"partition\":2,\"offset\":7,\"timestamp\":-5,\"key\":\"\",\"headers\":\
             [{\"key\":\"h\",\"value\":{\"base64\":\"/w==\"}},{\"key\":\"h\",\"value\":null}],\
             \"value\":null}",
        );
    }
}
