//! Lines: JSON values, Aquifer's records, or any text.
//!
//! A line ends with LF or CRLF; the last one may have no end. Lines without
//! text are nothing. A line that is longer than a record may be is passed
//! without being held.

use std::io::BufRead;

use aquifer_types::NewRecord;
use bytes::Bytes;
use serde::de::IgnoredAny;

use super::record;
use crate::rows::{Halt, Rows};

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Json,
    Record,
    Text,
}

/// A record's line may be longer than the record: escapes, base64, names.
const RECORD_LINE_FACTOR: usize = 8;
/// UTF-8's mark at the beginning of a file.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Decodes lines.
pub(crate) fn decode(mut input: impl BufRead, kind: Line, rows: &mut Rows) -> Result<(), Halt> {
    let line_bytes_max = match kind {
        Line::Json | Line::Text => rows.record_bytes_max(),
        Line::Record => rows.record_bytes_max().saturating_mul(RECORD_LINE_FACTOR).max(4096),
    };
    let mut is_first = true;
    loop {
        // Two more for its end.
        let mut line = match next_line(&mut input, line_bytes_max.saturating_add(2)) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error) => return Err(rows.broken(error.to_string())),
        };
        if line.is_whole && std::mem::take(&mut is_first) && line.bytes.starts_with(MARK) {
            line.bytes.drain(..MARK.len());
        }
        is_first = false;
        if !line.is_whole {
            rows.bad(format!("the line is longer than {line_bytes_max} bytes"))?;
            continue;
        }
        if line.bytes.last() == Some(&b'\r') {
            line.bytes.pop();
        }
        if line.bytes.iter().all(u8::is_ascii_whitespace) {
            rows.nothing()?;
            continue;
        }
        match kind {
            Line::Text => rows.record(NewRecord::value(line.bytes))?,
            // What was imported before need not be looked at.
            _ if rows.skippable() > 0 => rows.pass(1),
            Line::Json => match serde_json::from_slice::<IgnoredAny>(&line.bytes) {
                Ok(IgnoredAny) => rows.json(Bytes::from(line.bytes))?,
                Err(error) => rows.bad(format!("the line is not JSON: {error}"))?,
            },
            Line::Record => match record::parse(&line.bytes) {
                Ok(record) => rows.record(record)?,
                Err(why) => rows.bad(format!("the line is no record: {why}"))?,
            },
        }
    }
}

struct Found {
    bytes: Vec<u8>,
    /// Whether all of it is here.
    is_whole: bool,
}

/// The next line without its LF. Of one that is longer than `bytes_max`, the
/// rest is passed.
fn next_line(input: &mut impl BufRead, bytes_max: usize) -> std::io::Result<Option<Found>> {
    let mut bytes = Vec::new();
    let mut is_whole = true;
    let mut is_anything = false;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(is_anything.then_some(Found { bytes, is_whole }));
        }
        is_anything = true;
        let end = available.iter().position(|byte| *byte == b'\n');
        let piece = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
        if bytes.len() + piece.len() <= bytes_max {
            bytes.extend_from_slice(piece);
        } else {
            is_whole = false;
            bytes.clear();
        }
        let used = piece.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return Ok(Some(Found { bytes, is_whole }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::{LIMITS, collect, spec, values};
    use crate::rows::{BadRow, RowLimits};
    use crate::spec::{ImportSpec, OnError};

    fn check(text: &[u8], kind: Line, expected: &[&str], bad: &[(u64, &str)]) {
        let spec = ImportSpec { on_error: OnError::Skip, ..spec() };
        let limits = RowLimits { record_bytes_max: 12, ..LIMITS };
        for skip in [0, 1] {
            let (parts, result) = collect(&spec, limits, skip, |rows| decode(text, kind, rows));
            assert_eq!(result, Ok(()));
            let found = values(&parts);
            assert!(expected.ends_with(&found.iter().map(String::as_str).collect::<Vec<_>>()));
            if skip == 0 {
                assert_eq!(found, expected);
                let errors: Vec<&BadRow> = parts.iter().flat_map(|part| &part.errors).collect();
                assert_eq!(errors.len(), bad.len(), "{errors:?}");
                for (error, (row, why)) in errors.iter().zip(bad) {
                    assert!(error.row == *row && error.why.contains(why), "{error:?}");
                }
            }
        }
    }

    #[test]
    fn lines_are_json() {
        check(b"\xef\xbb\xbf{\"a\": 1}\r\n\n[2]\n3", Line::Json, &["{\"a\": 1}", "[2]", "3"], &[]);
        check(b"1\n{\n2\n", Line::Json, &["1", "2"], &[(2, "not JSON")]);
        check(b"1\n\"aaaaaaaaaaaaaaaaa\"\n2", Line::Json, &["1", "2"], &[(2, "longer than 12")]);
        check(b"", Line::Json, &[], &[]);
        check(b"\n \n", Line::Json, &[], &[]);
        check(b"{\"a\":1} {}", Line::Json, &[], &[(1, "trailing")]);
    }

    #[test]
    fn lines_are_text() {
        check(b"a\r\n\n b \n\xff", Line::Text, &["a", " b ", "\u{fffd}"], &[]);
    }

    #[test]
    fn lines_are_records() {
        let text = br#"{"partition":1,"offset":3,"timestamp":5,"key":"k","headers":[],"value":"v"}
{"value":null}
{"valu":1}"#;
        check(text, Line::Record, &["v", "-"], &[(3, "valu")]);
    }

    #[test]
    fn fuzz_lines() {
        let corpus = [b"{\"a\":1}\n[2]\n".to_vec(), b"{\"value\":\"v\",\"key\":null}\n".to_vec()];
        aquifer_testkit::fuzz("lines", 0.2, &corpus, |bytes| {
            for kind in [Line::Json, Line::Record, Line::Text] {
                let _ = collect(&spec(), LIMITS, 0, |rows| decode(bytes, kind, rows));
            }
        });
    }
}
