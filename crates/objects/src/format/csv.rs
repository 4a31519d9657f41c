//! CSV (RFC 4180) under a header: a row becomes a JSON object with the header's
//! names, in their order.
//!
//! A number is taken over as it is written, so that nothing is rounded. A row
//! has as many fields as the header, or it is a bad row.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use csv::{ByteRecord, ReaderBuilder};

use crate::rows::{Halt, Rows};
use crate::spec::CsvTypes;

/// The reader's own buffer, which may run ahead of a row.
const BUFFER_BYTES: usize = 64 << 10;
/// The most columns.
const COLUMNS_MAX: usize = 10_000;

/// Decodes rows of fields.
pub(crate) fn decode(
    input: impl Read,
    delimiter: u8,
    types: CsvTypes,
    rows: &mut Rows,
) -> Result<(), Halt> {
    let row_bytes_max = (rows.record_bytes_max().max(4096) + 2 * BUFFER_BYTES) as u64;
    let left = Arc::new(AtomicU64::new(row_bytes_max));
    let input = Rationed { input, left: left.clone(), row_bytes_max };
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(BUFFER_BYTES)
        .from_reader(input);
    let mut row = ByteRecord::new();
    let mut names = None;
    loop {
        left.store(row_bytes_max, Ordering::Relaxed);
        match reader.read_byte_record(&mut row) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(rows.broken(error.to_string())),
        }
        let Some(names) = &names else {
            names = Some(header(&row).map_err(|why| rows.broken(why))?);
            continue;
        };
        if rows.skippable() > 0 {
            rows.pass(1);
            continue;
        }
        if row.len() != names.len() {
            rows.bad(format!("it has {} fields, the header {}", row.len(), names.len()))?;
            continue;
        }
        match object(names, &row, types) {
            Ok(value) => rows.json(value)?,
            Err(why) => rows.bad(why)?,
        }
    }
}

/// The names of the columns, each as the JSON text that begins a member.
fn header(row: &ByteRecord) -> Result<Vec<String>, String> {
    if row.len() > COLUMNS_MAX {
        return Err(format!("the header has {} columns, {COLUMNS_MAX} may be", row.len()));
    }
    let mut names = Vec::with_capacity(row.len());
    let mut seen = std::collections::BTreeSet::new();
    for (place, name) in row.iter().enumerate() {
        let name = match place {
            0 => name.strip_prefix(b"\xef\xbb\xbf").unwrap_or(name),
            _ => name,
        };
        let name = std::str::from_utf8(name)
            .map_err(|_| format!("the name of column {} is not UTF-8", place + 1))?;
        let name = match name.trim() {
            "" => format!("column_{}", place + 1),
            name => name.to_owned(),
        };
        if !seen.insert(name.clone()) {
            return Err(format!("the header names {name:?} twice"));
        }
        names.push(serde_json::to_string(&name).map_err(|error| error.to_string())?);
    }
    Ok(names)
}

fn object(names: &[String], row: &ByteRecord, types: CsvTypes) -> Result<Bytes, String> {
    let size = names.iter().map(|name| name.len() + 4).sum::<usize>() + row.as_slice().len();
    let mut out = Vec::with_capacity(size + 2);
    out.push(b'{');
    for (place, (name, field)) in names.iter().zip(row.iter()).enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        let is_bare =
            types == CsvTypes::Infer && (is_number(field) || matches!(field, b"true" | b"false"));
        match field {
            b"" if types == CsvTypes::Infer => out.extend_from_slice(b"null"),
            field if is_bare => out.extend_from_slice(field),
            field => {
                let text = std::str::from_utf8(field)
                    .map_err(|_| format!("its field {} is not UTF-8", place + 1))?;
                serde_json::to_writer(&mut out, text).map_err(|error| error.to_string())?;
            }
        }
    }
    out.push(b'}');
    Ok(out.into())
}

/// Whether a text is a number by JSON's grammar (RFC 8259, section 6): so a
/// number that begins with 0, such as a postal code, stays a text.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest.first() == Some(&b'0')) {
        return false;
    }
    rest = rest.get(whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = fraction.get(length..).unwrap_or_default();
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent =
            exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let length = digits(exponent);
        if length == 0 {
            return false;
        }
        rest = exponent.get(length..).unwrap_or_default();
    }
    rest.is_empty()
}

/// Ends a row that never does: a quote that is not closed would take all of the
/// object into memory.
struct Rationed<R> {
    input: R,
    left: Arc<AtomicU64>,
    row_bytes_max: u64,
}

impl<R: Read> Read for Rationed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            let why = format!("a row is longer than {} bytes", self.row_bytes_max);
            return Err(io::Error::other(why));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let bytes = self.input.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left.store(left - bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::{LIMITS, collect, spec, values};
    use crate::rows::{Part, RowLimits};
    use crate::spec::{ImportSpec, OnError};

    fn run(text: &[u8], types: CsvTypes) -> (Vec<Part>, Result<(), Halt>) {
        let spec = ImportSpec { on_error: OnError::Skip, ..spec() };
        collect(&spec, LIMITS, 0, |rows| decode(text, b',', types, rows))
    }

    #[test]
    fn rows_become_objects() {
        let text = b"\xef\xbb\xbfa,\"b c\",\n1,\"x, \"\"y\"\"\n\",true\r\n,007,1e5\n1.50,-0,-.5\n";
        let (parts, _) = run(text, CsvTypes::Infer);
        let expected = [
            r#"{"a":1,"b c":"x, \"y\"\n","column_3":true}"#,
            r#"{"a":null,"b c":"007","column_3":1e5}"#,
            r#"{"a":1.50,"b c":-0,"column_3":"-.5"}"#,
        ];
        assert_eq!(values(&parts), expected);
        let (parts, _) = run(b"a,b\n1,\n", CsvTypes::Text);
        assert_eq!(values(&parts), [r#"{"a":"1","b":""}"#]);
    }

    #[test]
    fn rows_that_do_not_fit_are_named() {
        let (parts, _) = run(b"a,b\n1\n1,2,3\n\"\xff\",x\n1,2\n", CsvTypes::Infer);
        assert_eq!(values(&parts), [r#"{"a":1,"b":2}"#]);
        let rows: Vec<_> = parts[0].errors.iter().map(|bad| bad.row).collect();
        assert_eq!(rows, [1, 2, 3]);
        let (_, result) = run(b"a,a\n1,2\n", CsvTypes::Infer);
        let Err(Halt::Broken(bad)) = result else { panic!("{result:?}") };
        assert!(bad.why.contains("\"a\" twice"), "{bad:?}");
    }

    #[test]
    fn a_quote_that_is_not_closed_ends() {
        let mut text = b"a\n\"".to_vec();
        text.extend(std::iter::repeat_n(b'x', 1 << 20));
        let limits = RowLimits { record_bytes_max: 1000, ..LIMITS };
        let (_, result) =
            collect(&spec(), limits, 0, |rows| decode(&text[..], b',', CsvTypes::Infer, rows));
        let Err(Halt::Broken(bad)) = result else { panic!("{result:?}") };
        assert!(bad.why.contains("a row is longer than"), "{bad:?}");
    }

    #[test]
    fn fuzz_csv() {
        let corpus = [b"a,b\n1,\"x\"\"\"\n".to_vec(), b"a;b\r\n\r\n".to_vec()];
        aquifer_testkit::fuzz("csv", 0.2, &corpus, |bytes| {
            let (parts, _) = run(bytes, CsvTypes::Infer);
            for value in values(&parts) {
                serde_json::from_str::<serde_json::Value>(&value).expect("JSON");
            }
        });
    }
}
