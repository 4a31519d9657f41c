//! An answer's bytes as rows: an Arrow IPC stream in, `DataRow` messages out.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use bytes::{Bytes, BytesMut};

use crate::error::{Problem, sqlstate};
use crate::reply::{self, ColumnHead};
use crate::request::Format;
use crate::types;
use crate::values::Encoder;

/// The rows of one answer that have come and were not sent.
pub(crate) struct Rows {
    decoder: StreamDecoder,
    schema: Schema,
    heads: Vec<ColumnHead>,
    /// The types that the rows come in: those of the schema, or others that
    /// clients are told of alike.
    types: Vec<DataType>,
    encoders: Vec<Encoder>,
    waiting: VecDeque<RecordBatch>,
    /// The next row of the first of them.
    at: usize,
}

impl Rows {
    /// Those of an answer that has begun.
    ///
    /// # Errors
    /// A schema that cannot be read, or formats that are not of its columns.
    pub(crate) fn new(schema: &[u8], formats: &[Format]) -> Result<Self, Problem> {
        let schema = arrow_ipc::convert::try_schema_from_ipc_buffer(schema).map_err(broken)?;
        let mut rows = Self {
            decoder: StreamDecoder::new(),
            types: schema.fields().iter().map(|field| field.data_type().clone()).collect(),
            schema,
            heads: Vec::new(),
            encoders: Vec::new(),
            waiting: VecDeque::new(),
            at: 0,
        };
        rows.set_formats(formats)?;
        Ok(rows)
    }

    /// From now on values are written in these: none for text, one for all
    /// columns, or one each.
    ///
    /// # Errors
    /// Another number of formats than of columns.
    pub(crate) fn set_formats(&mut self, formats: &[Format]) -> Result<(), Problem> {
        let fields = self.schema.fields();
        if formats.len() > 1 && formats.len() != fields.len() {
            let (formats, columns) = (formats.len(), fields.len());
            let message = format!("there are {formats} formats for {columns} columns");
            return Err(Problem::new(sqlstate::PROTOCOL_VIOLATION, message));
        }
        let format_of = |at| match formats {
            [] => Format::Text,
            [one] => *one,
            each => each.get(at).copied().unwrap_or(Format::Text),
        };
        let head = |(at, field): (usize, &Arc<Field>)| ColumnHead {
            name: field.name().clone(),
            pg_type: types::of_field(field),
            format: format_of(at),
        };
        self.heads = fields.iter().enumerate().map(head).collect();
        self.choose_encoders();
        Ok(())
    }

    fn choose_encoders(&mut self) {
        let pairs = self.types.iter().zip(&self.heads);
        let encoder =
            |(of, head): (&DataType, &ColumnHead)| Encoder::new(of, head.pg_type, head.format);
        self.encoders = pairs.map(encoder).collect();
    }

    /// Takes the types of rows that come; what the encoders were chosen for,
    /// they find.
    fn expect(&mut self, batch: &RecordBatch) -> Result<(), Problem> {
        let schema = batch.schema();
        let fields = schema.fields();
        if fields.iter().map(|field| field.data_type()).eq(&self.types) {
            return Ok(());
        }
        let is_told = |(field, head): (&Arc<Field>, &ColumnHead)| {
            types::of_arrow(field.data_type()) == head.pg_type
                || head.pg_type == types::of_field(field)
        };
        let fits = self.waiting.is_empty()
            && fields.len() == self.heads.len()
            && fields.iter().zip(&self.heads).all(is_told);
        if !fits {
            let message = "the engine's rows are not of the columns that it named";
            return Err(Problem::new(sqlstate::INTERNAL, message));
        }
        self.types = fields.iter().map(|field| field.data_type().clone()).collect();
        self.choose_encoders();
        Ok(())
    }

    /// The columns.
    pub(crate) fn heads(&self) -> &[ColumnHead] {
        &self.heads
    }

    /// Takes a part of the answer in.
    ///
    /// # Errors
    /// Bytes that are not rows of these columns.
    pub(crate) fn feed(&mut self, bytes: Bytes) -> Result<(), Problem> {
        let mut bytes = Buffer::from(bytes);
        while !bytes.is_empty() {
            let Some(batch) = self.decoder.decode(&mut bytes).map_err(broken)? else { continue };
            self.expect(&batch)?;
            if batch.num_rows() > 0 {
                self.waiting.push_back(batch);
            }
        }
        Ok(())
    }

    /// Whether a row waits.
    pub(crate) fn has_row(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Puts the next row; false where none waits.
    pub(crate) fn put(&mut self, to: &mut BytesMut) -> bool {
        let Some(batch) = self.waiting.front() else { return false };
        let row = self.at;
        reply::data_row(to, self.encoders.len(), |to| {
            for (encoder, column) in self.encoders.iter().zip(batch.columns()) {
                encoder.put(column, row, to);
            }
        });
        self.pass();
        true
    }

    /// Gives the text of each value of the next row, none for null, to `line`;
    /// false where no row waits.
    pub(crate) fn with_texts(&mut self, line: impl FnOnce(&[Option<Bytes>])) -> bool {
        let Some(batch) = self.waiting.front() else { return false };
        let row = self.at;
        let text = |(encoder, column): (&Encoder, &arrow_array::ArrayRef)| {
            let mut to = BytesMut::new();
            encoder.put_text(column, row, &mut to).then(|| to.freeze())
        };
        let texts: Vec<_> = self.encoders.iter().zip(batch.columns()).map(text).collect();
        line(&texts);
        self.pass();
        true
    }

    /// Goes over the next row; false where none waits.
    pub(crate) fn pass(&mut self) -> bool {
        let Some(batch) = self.waiting.front() else { return false };
        self.at += 1;
        if self.at >= batch.num_rows() {
            self.waiting.pop_front();
            self.at = 0;
        }
        true
    }
}

fn broken(error: ArrowError) -> Problem {
    tracing::error!(%error, "an answer of the engine cannot be read");
    Problem::new(sqlstate::INTERNAL, "an answer of the engine cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::{Int32Array, StringArray};
    use arrow_ipc::writer::StreamWriter;

    fn answer(rows: &[i32]) -> (Vec<u8>, Vec<u8>) {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int32, false),
            Field::new("t", DataType::Utf8, true),
        ]));
        let mut stream = StreamWriter::try_new(Vec::new(), &schema).unwrap();
        let head = stream.get_ref().clone();
        for row in rows {
            let text = (*row > 1).then(|| format!("row {row}"));
            let columns: Vec<arrow_array::ArrayRef> = vec![
                Arc::new(Int32Array::from(vec![*row])),
                Arc::new(StringArray::from(vec![text])),
            ];
            stream.write(&RecordBatch::try_new(schema.clone(), columns).unwrap()).unwrap();
        }
        (head, stream.into_inner().unwrap())
    }

    #[test]
    fn rows_come_out_as_they_went_in() {
        let (schema, stream) = answer(&[1, 2, 3]);
        let mut rows = Rows::new(&schema, &[]).unwrap();
        assert_eq!(rows.heads()[0].pg_type, types::INT4);
        // In pieces, as it may come.
        for piece in stream.chunks(7) {
            rows.feed(Bytes::copy_from_slice(piece)).unwrap();
        }
        let mut to = BytesMut::new();
        assert!(rows.put(&mut to));
        assert_eq!(&to[..], b"D\0\0\0\x0f\0\x02\0\0\0\x011\xff\xff\xff\xff");
        assert!(rows.pass());
        rows.set_formats(&[Format::Binary, Format::Text]).unwrap();
        to.clear();
        assert!(rows.put(&mut to));
        assert_eq!(&to[..], b"D\0\0\0\x17\0\x02\0\0\0\x04\0\0\0\x03\0\0\0\x05row 3");
        assert!(!rows.has_row() && !rows.put(&mut to));
    }

    #[test]
    fn what_is_no_answer_is_a_problem() {
        let (schema, stream) = answer(&[1]);
        assert!(Rows::new(b"nothing", &[]).is_err());
        assert!(Rows::new(&schema, &[Format::Text; 3]).is_err());
        let mut rows = Rows::new(&schema, &[]).unwrap();
        let mut bad = stream;
        bad[4] ^= 0x40;
        let fed = rows.feed(Bytes::from(bad));
        assert!(fed.is_err() || !rows.has_row());
    }
}
