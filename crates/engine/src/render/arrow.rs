//! Rows as an Arrow IPC stream.
//!
//! Views of text and bytes are written as plain text and bytes: every reader of
//! Arrow has those.

use std::ops::Range;
use std::sync::Arc;

use arrow_ipc::writer::StreamWriter;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;

use crate::size::held_bytes;

/// Writes an IPC stream.
pub(crate) struct Ipc {
    schema: SchemaRef,
    writer: StreamWriter<Vec<u8>>,
}

impl Ipc {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .map(|field| field.as_ref().clone().with_data_type(plain(field.data_type())))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let writer = StreamWriter::try_new(Vec::new(), &schema)?;
        Ok(Self { schema, writer })
    }

    /// Moves what was written to `out`.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        out.append(self.writer.get_mut());
    }

    pub(super) fn rows(
        &mut self,
        batch: &RecordBatch,
        rows: Range<usize>,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, ArrowError> {
        // Messages of about the wanted size, by the mean size of a row.
        let left = batch.slice(rows.start, rows.len());
        let row_bytes = (held_bytes(&left) / rows.len().max(1)).max(1);
        let room = bytes_max.saturating_sub(out.len()).max(1);
        let count = (room / row_bytes).clamp(1, rows.len().max(1)).min(rows.len());
        if count == 0 {
            return Ok(rows.end);
        }
        let slice = batch.slice(rows.start, count);
        let columns = slice
            .columns()
            .iter()
            .zip(self.schema.fields())
            .map(|(column, field)| cast(column, field.data_type()))
            .collect::<Result<Vec<_>, _>>()?;
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)?;
        self.take(out);
        Ok(rows.start + count)
    }

    pub(super) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.writer.finish()?;
        self.take(out);
        Ok(())
    }
}

/// The type without views, in lists and structs too.
fn plain(of: &DataType) -> DataType {
    let field = |field: &Arc<Field>| {
        Arc::new(field.as_ref().clone().with_data_type(plain(field.data_type())))
    };
    match of {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::FixedSizeList(item, len) => DataType::FixedSizeList(field(item), *len),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}
