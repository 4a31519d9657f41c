//! The fields of JSON values as columns.
//!
//! [`FieldWalk`] finds which fields there are, [`Shredder`] takes those of a
//! schema out of values. Both read a value once, without a tree, and agree on
//! what is JSON: RFC 8259 to the letter, UTF-8, nested at most 128 deep. Neither
//! fails for a value, whatever it is; what no column can hold stays in `_value`
//! alone. Never decides which schema counts: that is the stream's.
//!
//! # What a column holds
//!
//! Of a value that is an object (its first byte that is no white space is `{`):
//!
//! | a field's kind | what fits |
//! |---|---|
//! | boolean | `true`, `false` |
//! | int64 | whole numbers without fraction and exponent that 64 bits hold; not `-0` |
//! | float64 | numbers that are finite in 64 bits; whole ones up to 2^53 |
//! | text | strings; not with half a pair of surrogates |
//! | timestamp | strings that RFC 3339 calls a date and time, cut to microseconds |
//! | date | strings `YYYY-MM-DD` that name a day |
//! | object | objects; their fields have columns of their own |
//!
//! `null` fits everywhere, and is what an absent field is. Anything else is null
//! in its column and its path, with dots between the names, is in `_unfit`; so
//! is a name that is twice in one object. Where an object does not fit, nothing
//! below it is there and none of its paths is told beside it. What begins as an
//! object and is no JSON, or has more than 4 KiB of such paths, has nothing in
//! any column, and the empty path in `_unfit`. Where everything fits, `_unfit`
//! is null. All other values are null in all of these columns.
//!
//! Opaque fields, and objects without a field that has a column, have none.

mod column;
mod json;
mod names;
mod shredder;
#[cfg(test)]
mod tests;
mod times;
mod walk;

use std::collections::BTreeSet;
use std::sync::Arc;

use aquifer_types::{FieldKind, SchemaField, StreamSchema};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

pub use self::shredder::Shredder;
pub use self::walk::FieldWalk;
use crate::schema;

/// The column of what did not fit.
pub(crate) const UNFIT: &str = "_unfit";
const UNFIT_ID: i32 = 11;
const UNFIT_ELEMENT_ID: i32 = 12;

/// The columns that the fields of a schema have beside the fixed ones, in their
/// order, each with its field id: `_unfit`, and what is at the top. None where
/// no field has a column.
#[must_use]
pub fn field_columns(schema: &StreamSchema) -> Vec<Field> {
    let fields = columns_below(schema, None, &with_column(schema));
    if fields.is_empty() {
        return fields;
    }
    let unfit = DataType::List(Arc::new(unfit_element()));
    let unfit = schema::field(UNFIT_ID, UNFIT, unfit, true);
    [unfit].into_iter().chain(fields).collect()
}

/// The columns of a chunk that is written under a schema.
#[must_use]
pub fn schema_with(schema: &StreamSchema) -> SchemaRef {
    let fields = field_columns(schema);
    if fields.is_empty() {
        return schema::schema();
    }
    let fixed = schema::schema();
    let fixed = fixed.fields().iter().map(|field| Field::clone(field));
    Arc::new(Schema::new(fixed.chain(fields).collect::<Vec<_>>()))
}

fn unfit_element() -> Field {
    schema::field(UNFIT_ELEMENT_ID, "element", DataType::Utf8, false)
}

fn columns_below(
    schema: &StreamSchema,
    parent: Option<i32>,
    with_column: &BTreeSet<i32>,
) -> Vec<Field> {
    let fields = schema.children(parent).filter(|field| with_column.contains(&field.id));
    let column = |field: &SchemaField| {
        let data_type = match field.kind {
            FieldKind::Boolean => DataType::Boolean,
            FieldKind::Int64 => DataType::Int64,
            FieldKind::Float64 => DataType::Float64,
            FieldKind::Text => DataType::Utf8,
            FieldKind::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            FieldKind::Date => DataType::Date32,
            FieldKind::Object | FieldKind::Opaque => {
                let below = columns_below(schema, Some(field.id), with_column);
                DataType::Struct(below.into())
            }
        };
        schema::field(field.id, &field.name, data_type, true)
    };
    fields.map(column).collect()
}

/// The ids of the fields that have a column: scalars, and the objects above
/// them.
fn with_column(schema: &StreamSchema) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    // Parents come before their fields, so from the back each object's are
    // known before it is.
    for field in schema.fields().iter().rev() {
        if field.kind.is_scalar() || found.contains(&field.id) {
            found.insert(field.id);
            found.extend(field.parent);
        }
    }
    found
}
