//! Bodies of appends: from bytes of one of four media types to records.
//!
//! Records are handed on one by one, so that a body of a million tiny lines
//! never becomes a million allocations.

use aquifer_types::{Header, NewRecord, PartitionIndex};
use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::Problem;
use crate::problem::HttpProblem;

/// How the records lie in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// A line of JSON, a record; the line is its value, byte for byte.
    Ndjson,
    /// `{"records":[…]}` with keys, headers, timestamps and partitions.
    Json,
    /// A line, a record.
    Lines,
    /// The body is one record's value.
    Octets,
}

impl Format {
    /// The format of a media type.
    pub(crate) fn of_media_type(content_type: Option<&str>) -> Result<Self, Problem> {
        const KNOWN: &str = "application/x-ndjson, application/json, text/plain or \
                             application/octet-stream";
        let Some(content_type) = content_type else {
            return Err(Problem::http(
                HttpProblem::UnsupportedMediaType,
                format!("the request has no Content-Type; records come as {KNOWN}"),
            ));
        };
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Self::Ndjson),
            "application/json" => Ok(Self::Json),
            "text/plain" => Ok(Self::Lines),
            "application/octet-stream" => Ok(Self::Octets),
            other => {
                let other: String = other.chars().take(80).collect();
                Err(Problem::http(
                    HttpProblem::UnsupportedMediaType,
                    format!("records come as {KNOWN}, not as '{other}'"),
                ))
            }
        }
    }
}

/// Where the records of a body get their keys from, where they bring none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Keys {
    /// One key for all.
    pub(crate) fixed: Option<Bytes>,
    /// The path of a field in each line's JSON object.
    pub(crate) field: Option<Vec<String>>,
}

/// Takes one record after the other, with the partition that it names.
pub(crate) type Sink<'a> =
    &'a mut dyn FnMut(Option<PartitionIndex>, &NewRecord) -> Result<(), Problem>;

/// Hands each record of `body` to `sink`, in order, with the partition that it
/// names.
pub(crate) fn parse(
    format: Format,
    body: &Bytes,
    keys: &Keys,
    sink: Sink<'_>,
) -> Result<(), Problem> {
    match format {
        Format::Ndjson => ndjson(body, keys, sink),
        Format::Lines => lines(body, keys, sink),
        Format::Json => crate::json_records::parse(body, keys, sink),
        Format::Octets => {
            let record = NewRecord { key: keys.fixed.clone(), ..NewRecord::value(body.clone()) };
            sink(None, &record)
        }
    }
}

/// The lines of a body with their numbers, from 1, without their line ends;
/// empty ones are left out.
fn split(body: &Bytes) -> impl Iterator<Item = (usize, Bytes)> {
    let mut rest = body.clone();
    let mut number = 0;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            number += 1;
            let line = match memchr::memchr(b'\n', &rest) {
                Some(end) => {
                    let line = rest.split_to(end);
                    // The line end itself; it is there, it was just found.
                    let _ = rest.split_to(1);
                    line
                }
                None => std::mem::take(&mut rest),
            };
            let line = match line.strip_suffix(b"\r") {
                Some(short) => line.slice(..short.len()),
                None => line,
            };
            if !line.is_empty() {
                return Some((number, line));
            }
        }
        None
    })
}

fn lines(body: &Bytes, keys: &Keys, sink: Sink<'_>) -> Result<(), Problem> {
    let mut record = NewRecord { key: keys.fixed.clone(), ..NewRecord::default() };
    for (_, line) in split(body) {
        record.value = Some(line);
        sink(None, &record)?;
    }
    Ok(())
}

fn ndjson(body: &Bytes, keys: &Keys, sink: Sink<'_>) -> Result<(), Problem> {
    // JSON is UTF-8; checked here because the check of a line skips strings.
    if let Err(error) = std::str::from_utf8(body) {
        let before = body.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        return Err(line_problem(line, "it is not valid UTF-8"));
    }
    let mut record = NewRecord { key: keys.fixed.clone(), ..NewRecord::default() };
    for (number, line) in split(body) {
        let refused = |error: serde_json::Error| {
            // The position in the line; serde_json counts lines of its own.
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            line_problem(number, &format!("{text} at column {}", error.column()))
        };
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        serde_json::from_slice::<IgnoredAny>(&line).map_err(refused)?;
        if let Some(path) = &keys.field {
            record.key = key_of_field(&line, path).map_err(refused)?;
        }
        record.value = Some(line);
        sink(None, &record)?;
    }
    Ok(())
}

fn line_problem(line: usize, why: &str) -> Problem {
    Problem::invalid(format!("line {line} is not JSON: {why}"))
        .member("line", line)
        .next("Mend the line, or send lines that are not JSON as text/plain; nothing was appended.")
}

/// The text of a field of a JSON object: a string's content, another value's
/// JSON; none where it is absent or null.
fn key_of_field(line: &[u8], path: &[String]) -> Result<Option<Bytes>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let found = crate::json_records::find(&mut deserializer, path)?;
    Ok(found.map(Bytes::from))
}

/// Whether a header's key and value may be stored.
pub(crate) fn header(key: String, value: Option<Bytes>) -> Header {
    Header { key: Bytes::from(key), value }
}

/// Reads a whole JSON document of a request that is not an append.
pub(crate) fn document<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = T::deserialize(&mut deserializer).and_then(|value| {
        deserializer.end()?;
        Ok(value)
    });
    value.map_err(|error| Problem::invalid(format!("the body is not as it should be: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body gives, as `partition key=value` lines.
    fn parsed(format: Format, body: &[u8], keys: &Keys) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        let text = |bytes: &Option<Bytes>| match bytes {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => "∅".to_owned(),
        };
        parse(format, &Bytes::copy_from_slice(body), keys, &mut |partition, record| {
            assert!(partition.is_none());
            found.push(format!("{}={}", text(&record.key), text(&record.value)));
            Ok(())
        })
        .map_err(|problem| problem.detail().to_owned())?;
        Ok(found)
    }

    #[test]
    fn lines_are_records_byte_for_byte() {
        let check = |format, body: &[u8], expected: &[&str]| {
            assert_eq!(parsed(format, body, &Keys::default()).unwrap(), expected);
        };
        check(Format::Lines, b"a\n\nb\r\n c \n", &["∅=a", "∅=b", "∅= c "]);
        check(Format::Lines, b"no end", &["∅=no end"]);
        check(Format::Lines, b"", &[]);
        check(Format::Lines, b"\n\r\n", &[]);
        check(
            Format::Ndjson,
            b"{\"a\": 1 }\n  \n[1]\nnull\r\n\"x\"",
            &["∅={\"a\": 1 }", "∅=[1]", "∅=null", "∅=\"x\""],
        );
        check(Format::Octets, b"a\nb", &["∅=a\nb"]);
        check(Format::Octets, b"", &["∅="]);
    }

    #[test]
    fn a_line_that_is_not_json_is_named() {
        let check = |body: &[u8], part: &str| {
            let error = parsed(Format::Ndjson, body, &Keys::default()).unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        check(b"{}\n\n{\"a\":}\n", "line 3 is not JSON: expected value at column 6");
        check(b"{} {}\n", "line 1 is not JSON: trailing characters");
        check(b"{}\n\"\xff\"\n", "line 2 is not JSON: it is not valid UTF-8");
        check(b"{\"a\":1", "line 1 is not JSON: EOF");
        let deep = "[".repeat(100_000);
        check(deep.as_bytes(), "EOF");
    }

    #[test]
    fn keys_are_fixed_or_a_field() {
        let keys = Keys { fixed: Some("k".into()), field: None };
        assert_eq!(parsed(Format::Lines, b"a\nb", &keys).unwrap(), ["k=a", "k=b"]);
        let keys = Keys { fixed: None, field: Some(vec!["user".into(), "id".into()]) };
        let body = b"{\"x\":0,\"user\":{\"id\":\"\\u0041\"}}\n{\"user\":{\"id\":7}}\n{\"user\":3}\n[]\n{\"user\":{\"id\":null}}";
        let found = parsed(Format::Ndjson, body, &keys).unwrap();
        let keys: Vec<_> = found.iter().filter_map(|line| line.split('=').next()).collect();
        assert_eq!(keys, ["A", "7", "∅", "∅", "∅"]);
        let check = |id: &str, expected: &str| {
            let body = format!("{{\"user\":{{\"id\":{id}}}}}");
            let keys = Keys { fixed: None, field: Some(vec!["user".into(), "id".into()]) };
            let found = parsed(Format::Ndjson, body.as_bytes(), &keys).unwrap();
            assert_eq!(found, [format!("{expected}={body}")]);
        };
        // Numbers as they are given, however many digits they have.
        check("123456789012345678901", "123456789012345678901");
        check("123456789012345678902", "123456789012345678902");
        check("1.50", "1.50");
        check("true", "true");
        check("[1]", "∅");
        check("{\"a\":1}", "∅");
    }

    #[test]
    fn media_types_are_known_or_named() {
        let of = |text| Format::of_media_type(text);
        assert_eq!(of(Some("Application/X-NDJSON; charset=utf-8")), Ok(Format::Ndjson));
        assert_eq!(of(Some("text/plain")), Ok(Format::Lines));
        assert_eq!(of(Some("text/csv")).unwrap_err().status().as_u16(), 415);
        assert_eq!(of(None).unwrap_err().status().as_u16(), 415);
    }

    #[test]
    fn fuzz_http_bodies() {
        let seeds: [&[u8]; 3] = [
            b"{\"records\":[{\"key\":\"a\",\"value\":{\"base64\":\"AAEC\"},\"headers\":[{\"key\":\"h\",\"value\":null}],\"timestamp\":5,\"partition\":1}]}",
            b"{\"records\":[{\"value\":{\"a\":[1,2,{\"b\":null}]},\"headers\":{\"x\":\"y\"},\"timestamp\":\"2026-01-01T00:00:00Z\"}]}",
            b"{\"a\":1}\n[true]\n\n\"\\u00e4\"\n",
        ];
        let seeds = seeds.map(<[u8]>::to_vec);
        aquifer_testkit::fuzz("http_bodies", 0.3, &seeds, |bytes| {
            let body = Bytes::copy_from_slice(bytes);
            let keys = Keys { fixed: None, field: Some(vec!["a".into(), "b".into()]) };
            for format in [Format::Ndjson, Format::Json, Format::Lines, Format::Octets] {
                let mut bytes = 0;
                let _ = parse(format, &body, &keys, &mut |_, record| {
                    bytes += record.payload_bytes();
                    Ok(())
                });
                assert!(bytes <= body.len() * 2 + 64, "records larger than their body");
            }
        });
    }
}
