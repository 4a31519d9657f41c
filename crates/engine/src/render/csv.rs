//! Rows as comma-separated values (RFC 4180), with a line of names.

use std::ops::Range;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;

use super::cell::Cells;

/// Writes lines of values.
pub(crate) struct Csv {
    names: Vec<String>,
    value: Vec<u8>,
}

impl Csv {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        Self { names, value: Vec::new() }
    }

    pub(super) fn begin(&self, out: &mut Vec<u8>) {
        for (place, name) in self.names.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            field(out, name.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }

    pub(super) fn rows(
        &mut self,
        batch: &RecordBatch,
        rows: Range<usize>,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, ArrowError> {
        let columns = batch.columns().iter().map(Cells::new).collect::<Result<Vec<_>, _>>()?;
        for row in rows.clone() {
            if out.len() >= bytes_max {
                return Ok(row);
            }
            for (place, cells) in columns.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                if cells.is_null(row) {
                    continue;
                }
                self.value.clear();
                cells.plain(row, &mut self.value);
                field(out, &self.value);
            }
            out.extend_from_slice(b"\r\n");
        }
        Ok(rows.end)
    }
}

/// A value, in quotes where it needs them. What is there and empty has them, so
/// that it is not taken for null.
fn field(out: &mut Vec<u8>, value: &[u8]) {
    let is_plain = !value.is_empty()
        && !value.iter().any(|byte| matches!(byte, b'"' | b',' | b'\r' | b'\n'))
        && !value.starts_with(b" ")
        && !value.ends_with(b" ");
    if is_plain {
        out.extend_from_slice(value);
        return;
    }
    out.push(b'"');
    for byte in value {
        if *byte == b'"' {
            out.push(b'"');
        }
        out.push(*byte);
    }
    out.push(b'"');
}
