//! The columns that every table has, and what is known of them.
//!
//! They are those of a chunk. Keys and values are read as views, which share the
//! bytes that they were decompressed into; nothing else differs. What a stream's
//! values add to them is `fields`'s part.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};

pub(crate) const PARTITION: &str = "_partition";
pub(crate) const OFFSET: &str = "_offset";
pub(crate) const TIMESTAMP: &str = "_timestamp";
pub(crate) const APPENDED: &str = "_appended";
pub(crate) const HEADERS: &str = "_headers";
pub(crate) const KEY: &str = "_key";
pub(crate) const VALUE: &str = "_value";
pub(crate) const UNFIT: &str = "_unfit";

/// The columns that every table has, in their order.
#[must_use]
pub fn table_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| viewed(&aquifer_chunk::schema()));
    SCHEMA.clone()
}

/// The schema with its columns of bytes and text as views.
fn viewed(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(viewed_field).collect::<Vec<_>>()))
}

/// The column as a view where it is bytes or text. What is nested stays as it
/// is, so that it is handed on as it was decoded.
pub(crate) fn viewed_field(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Binary => DataType::BinaryView,
        DataType::Utf8 => DataType::Utf8View,
        other => other.clone(),
    };
    Arc::new(Field::clone(field).with_data_type(data_type))
}

/// Whether most of a record's bytes are likely to be in this column. What does
/// not touch such a column is cheap to decide, and decides how much of them is
/// to be read.
pub(crate) fn is_heavy(column: &str) -> bool {
    column == VALUE || column == HEADERS
}
