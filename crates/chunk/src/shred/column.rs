//! One column while its values are collected: only the rows that have one, so
//! that a row costs what it holds, however many fields the schema has, and that
//! the last row can be taken back.

use std::sync::Arc;

use aquifer_types::FieldKind;
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};

use super::json::{Literal, Number, Text};
use super::times;
use crate::Error;

/// What a field has in some rows.
#[derive(Debug)]
pub(super) struct Column {
    /// Which rows these are, growing.
    rows: Vec<u32>,
    cells: Cells,
}

#[derive(Debug)]
enum Cells {
    Boolean(Vec<bool>),
    Int64(Vec<i64>),
    Float64(Vec<f64>),
    Text(Texts),
    Timestamp(Vec<i64>),
    Date(Vec<i32>),
    /// That something is there is all there is.
    Object,
}

/// Texts, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Texts {
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl Column {
    pub(super) fn new(kind: FieldKind) -> Self {
        let cells = match kind {
            FieldKind::Boolean => Cells::Boolean(Vec::new()),
            FieldKind::Int64 => Cells::Int64(Vec::new()),
            FieldKind::Float64 => Cells::Float64(Vec::new()),
            FieldKind::Text => Cells::Text(Texts::default()),
            FieldKind::Timestamp => Cells::Timestamp(Vec::new()),
            FieldKind::Date => Cells::Date(Vec::new()),
            FieldKind::Object | FieldKind::Opaque => Cells::Object,
        };
        Self { rows: Vec::new(), cells }
    }

    /// Each `put` says whether the value fits, and keeps what does.
    pub(super) fn put_object(&mut self, row: u32) {
        if matches!(self.cells, Cells::Object) {
            self.rows.push(row);
        }
    }

    pub(super) fn put_literal(&mut self, row: u32, literal: Literal) -> bool {
        match (&mut self.cells, literal) {
            (_, Literal::Null) => return true,
            (Cells::Boolean(cells), literal) => cells.push(literal == Literal::True),
            _ => return false,
        }
        self.rows.push(row);
        true
    }

    pub(super) fn put_number(&mut self, row: u32, number: Number<'_>) -> bool {
        match &mut self.cells {
            Cells::Int64(cells) => match number.to_i64() {
                Some(whole) => cells.push(whole),
                None => return false,
            },
            Cells::Float64(cells) => match number.to_f64() {
                Some(number) => cells.push(number),
                None => return false,
            },
            _ => return false,
        }
        self.rows.push(row);
        true
    }

    pub(super) fn put_text(&mut self, row: u32, text: Text<'_>, scratch: &mut Vec<u8>) -> bool {
        let fits = match &mut self.cells {
            Cells::Text(texts) => texts.push(text),
            Cells::Timestamp(cells) => keep(cells, plain(text, scratch).and_then(times::timestamp)),
            Cells::Date(cells) => keep(cells, plain(text, scratch).and_then(times::date)),
            _ => false,
        };
        if fits {
            self.rows.push(row);
        }
        fits
    }

    /// Takes back what the row `row`, the last one, has.
    pub(super) fn take_back(&mut self, row: u32) {
        if self.rows.last() != Some(&row) {
            return;
        }
        self.rows.pop();
        let kept = self.rows.len();
        match &mut self.cells {
            Cells::Boolean(cells) => cells.truncate(kept),
            Cells::Int64(cells) | Cells::Timestamp(cells) => cells.truncate(kept),
            Cells::Float64(cells) => cells.truncate(kept),
            Cells::Text(texts) => texts.truncate(kept),
            Cells::Date(cells) => cells.truncate(kept),
            Cells::Object => {}
        }
    }

    /// Which of `count` rows have something; `None` where all have. The column
    /// is empty again.
    pub(super) fn finish_object(&mut self, count: usize) -> Option<NullBuffer> {
        nulls(&std::mem::take(&mut self.rows), count)
    }

    /// The column of `count` rows; it is empty again.
    pub(super) fn finish(&mut self, count: usize) -> Result<ArrayRef, Error> {
        let room = self.rows.len();
        let rows = std::mem::replace(&mut self.rows, Vec::with_capacity(room));
        let nulls = nulls(&rows, count);
        Ok(match &mut self.cells {
            Cells::Boolean(cells) => {
                let cells = spread(&rows, std::mem::take(cells), count);
                Arc::new(BooleanArray::new(cells.into(), nulls))
            }
            Cells::Int64(cells) => {
                let cells = spread(&rows, taken(cells), count);
                Arc::new(Int64Array::new(cells.into(), nulls))
            }
            Cells::Float64(cells) => {
                let cells = spread(&rows, taken(cells), count);
                Arc::new(Float64Array::new(cells.into(), nulls))
            }
            Cells::Timestamp(cells) => {
                let cells = spread(&rows, taken(cells), count);
                let times = TimestampMicrosecondArray::new(cells.into(), nulls);
                Arc::new(times.with_timezone("UTC"))
            }
            Cells::Date(cells) => {
                let cells = spread(&rows, taken(cells), count);
                Arc::new(Date32Array::new(cells.into(), nulls))
            }
            Cells::Text(texts) => Arc::new(texts.finish(&rows, nulls, count)?),
            Cells::Object => return Err(Error::encode("an object is no column of its own")),
        })
    }
}

impl Texts {
    /// `false` where it is no text.
    fn push(&mut self, text: Text<'_>) -> bool {
        if !text.has_escapes {
            self.bytes.extend_from_slice(text.raw);
        } else if !text.unescape(&mut self.bytes) {
            self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
            return false;
        }
        self.ends.push(self.bytes.len());
        true
    }

    pub(super) fn push_plain(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.ends.push(self.bytes.len());
    }

    fn truncate(&mut self, count: usize) {
        self.ends.truncate(count);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// All of them, one a row.
    pub(super) fn finish_all(&mut self) -> Result<StringArray, Error> {
        let rows: Vec<u32> = (0..self.ends.len() as u32).collect();
        self.finish(&rows, None, rows.len())
    }

    fn finish(
        &mut self,
        rows: &[u32],
        nulls: Option<NullBuffer>,
        count: usize,
    ) -> Result<StringArray, Error> {
        let bytes = taken(&mut self.bytes);
        let ends = taken(&mut self.ends);
        // Arrow's positions have 31 bits; the last is the highest.
        i32::try_from(bytes.len()).map_err(|_| {
            Error::encode(format!("a column of one field has {} bytes at once", bytes.len()))
        })?;
        let mut positions = Vec::with_capacity(count + 1);
        positions.push(0_i32);
        let mut last = 0;
        for (row, end) in rows.iter().zip(ends) {
            positions.resize(*row as usize + 1, last);
            last = end as i32;
            positions.push(last);
        }
        positions.resize(count + 1, last);
        let positions = OffsetBuffer::new(ScalarBuffer::from(positions));
        StringArray::try_new(positions, Buffer::from_vec(bytes), nulls).map_err(Error::encode)
    }
}

fn keep<T>(cells: &mut Vec<T>, cell: Option<T>) -> bool {
    let fits = cell.is_some();
    cells.extend(cell);
    fits
}

/// The characters of a text; `None` where it is none.
fn plain<'a>(text: Text<'a>, scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    if !text.has_escapes {
        return Some(text.raw);
    }
    scratch.clear();
    text.unescape(scratch).then_some(scratch.as_slice())
}

/// What is there, and as much room for what follows.
fn taken<T>(cells: &mut Vec<T>) -> Vec<T> {
    let room = cells.len();
    std::mem::replace(cells, Vec::with_capacity(room))
}

/// One cell a row.
fn spread<T: Copy + Default>(rows: &[u32], cells: Vec<T>, count: usize) -> Vec<T> {
    if cells.len() == count {
        return cells;
    }
    let mut all = vec![T::default(); count];
    for (row, cell) in rows.iter().zip(cells) {
        if let Some(place) = all.get_mut(*row as usize) {
            *place = cell;
        }
    }
    all
}

fn nulls(rows: &[u32], count: usize) -> Option<NullBuffer> {
    if rows.len() == count {
        return None;
    }
    let mut bits = vec![0_u8; count.div_ceil(8)];
    for row in rows {
        if let Some(byte) = bits.get_mut(*row as usize / 8) {
            *byte |= 1 << (row % 8);
        }
    }
    Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(bits), 0, count)))
}
