//! Rows as JSON: objects in lines, or one document of arrays.

use std::collections::HashSet;
use std::ops::Range;

use aquifer_query::wire::Column;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;

use super::cell::{Cells, string};

/// An object a row, and a line each.
pub(crate) struct Objects {
    /// `"name":`, with what comes before it.
    heads: Vec<Vec<u8>>,
}

impl Objects {
    /// Objects with the columns of `schema`. A name that comes again gets a
    /// number, since an object has it once.
    pub(crate) fn new(schema: &SchemaRef) -> Self {
        let mut seen: HashSet<String> = HashSet::new();
        let heads = schema.fields().iter().enumerate().map(|(place, field)| {
            let mut name = field.name().clone();
            let mut number = 2;
            while !seen.insert(name.clone()) {
                name = format!("{}_{number}", field.name());
                number += 1;
            }
            let mut head = vec![if place == 0 { b'{' } else { b',' }];
            string(&mut head, &name);
            head.push(b':');
            head
        });
        Self { heads: heads.collect() }
    }

    pub(super) fn rows(
        &self,
        batch: &RecordBatch,
        rows: Range<usize>,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, ArrowError> {
        each_row(batch, rows, bytes_max, out, |cells, row, out| {
            for (head, cells) in self.heads.iter().zip(cells) {
                out.extend_from_slice(head);
                cells.json(row, out);
            }
            out.extend_from_slice(if cells.is_empty() { b"{}\n" } else { b"}\n" });
        })
    }
}

/// An array a row, and a line each.
pub(crate) struct Arrays;

impl Arrays {
    pub(super) fn rows(
        &self,
        batch: &RecordBatch,
        rows: Range<usize>,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, ArrowError> {
        each_row(batch, rows, bytes_max, out, |cells, row, out| {
            array(cells, row, out);
            out.push(b'\n');
        })
    }
}

/// `{"columns":[…],"rows":[[…]]}`, which can be read as it arrives.
pub(crate) struct Document {
    head: Vec<u8>,
    is_first: bool,
}

impl Document {
    pub(super) fn new(columns: &[Column]) -> Self {
        let mut head = b"{\"columns\":[".to_vec();
        for (place, column) in columns.iter().enumerate() {
            head.extend_from_slice(if place == 0 { b"{\"name\":" } else { b",{\"name\":" });
            string(&mut head, &column.name);
            head.extend_from_slice(b",\"type\":");
            string(&mut head, &column.sql_type);
            head.push(b'}');
        }
        head.extend_from_slice(b"],\"rows\":[");
        Self { head, is_first: true }
    }

    pub(super) fn begin(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.head);
    }

    pub(super) fn rows(
        &mut self,
        batch: &RecordBatch,
        rows: Range<usize>,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, ArrowError> {
        each_row(batch, rows, bytes_max, out, |cells, row, out| {
            out.extend_from_slice(if self.is_first { b"\n" } else { b",\n" });
            self.is_first = false;
            array(cells, row, out);
        })
    }

    pub(super) fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.is_first { b"]}\n" } else { b"\n]}\n" });
    }
}

fn array(cells: &[Cells], row: usize, out: &mut Vec<u8>) {
    out.push(b'[');
    for (place, cells) in cells.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        cells.json(row, out);
    }
    out.push(b']');
}

/// Writes row after row until `out` has `bytes_max`; the row to go on with.
fn each_row(
    batch: &RecordBatch,
    rows: Range<usize>,
    bytes_max: usize,
    out: &mut Vec<u8>,
    mut write: impl FnMut(&[Cells], usize, &mut Vec<u8>),
) -> Result<usize, ArrowError> {
    let cells = batch.columns().iter().map(Cells::new).collect::<Result<Vec<_>, _>>()?;
    for row in rows.clone() {
        if out.len() >= bytes_max {
            return Ok(row);
        }
        write(&cells, row, out);
    }
    Ok(rows.end)
}
