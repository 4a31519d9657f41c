//! The bytes of an answer.
//!
//! A renderer writes rows into a buffer that its caller empties; nothing here
//! keeps rows. What a value looks like:
//!
//! | type | JSON | CSV |
//! |---|---|---|
//! | boolean | `true` | `true` |
//! | whole and decimal numbers | every digit | the same |
//! | floating-point numbers | shortest that reads back the same; null for NaN and infinity | the same; `NaN`, `Infinity`, `-Infinity` |
//! | text | string | as it is, quoted where it must be |
//! | bytes | string where UTF-8, else `{"base64":"…"}` | as it is where UTF-8, else `base64:…` |
//! | timestamp with time zone | RFC 3339 with `Z` and as many digits as needed | the same |
//! | timestamp, date, time | the same without zone | the same |
//! | interval | ISO 8601, `P1DT2H` | the same |
//! | list, struct, map | array, object, object | as JSON |
//! | null | `null` | nothing; an empty text is `""` |

mod arrow;
mod cell;
mod csv;
mod json;
mod time;

use std::ops::Range;

use aquifer_query::AnswerForm;
use aquifer_query::wire::{Column, Refusal};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::refusal::internal;
use crate::sql::sql_type;

/// Writes the rows of one answer.
#[expect(clippy::large_enum_variant, reason = "there is one a question")]
pub(crate) enum Renderer {
    /// Lines of objects.
    Ndjson(json::Objects),
    /// Lines of arrays.
    Rows(json::Arrays),
    /// One document.
    Json(json::Document),
    /// Lines of values.
    Csv(csv::Csv),
    /// Arrow's own.
    Arrow(arrow::Ipc),
}

impl Renderer {
    /// Renders rows of `schema` as `form`.
    pub(crate) fn new(form: AnswerForm, schema: &SchemaRef) -> Result<Self, Refusal> {
        Ok(match form {
            AnswerForm::Ndjson => Self::Ndjson(json::Objects::new(schema)),
            AnswerForm::Rows => Self::Rows(json::Arrays),
            AnswerForm::Json => Self::Json(json::Document::new(&columns(schema))),
            AnswerForm::Csv => Self::Csv(csv::Csv::new(schema)),
            AnswerForm::Arrow => Self::Arrow(arrow::Ipc::new(schema).map_err(failed)?),
        })
    }

    /// Writes what comes before the rows.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Ndjson(_) | Self::Rows(_) => {}
            Self::Json(document) => document.begin(out),
            Self::Csv(csv) => csv.begin(out),
            Self::Arrow(ipc) => ipc.take(out),
        }
    }

    /// Writes rows of `batch` from `rows.start` on until `out` has about
    /// `bytes_max` or the range ends; the row to go on with.
    pub(crate) fn rows(
        &mut self,
        batch: &RecordBatch,
        rows: Range<usize>,
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, Refusal> {
        match self {
            Self::Ndjson(objects) => objects.rows(batch, rows, bytes_max, out).map_err(failed),
            Self::Rows(arrays) => arrays.rows(batch, rows, bytes_max, out).map_err(failed),
            Self::Json(document) => document.rows(batch, rows, bytes_max, out).map_err(failed),
            Self::Csv(csv) => csv.rows(batch, rows, bytes_max, out).map_err(failed),
            Self::Arrow(ipc) => ipc.rows(batch, rows, bytes_max, out).map_err(failed),
        }
    }

    /// Writes what comes behind the rows.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Refusal> {
        match self {
            Self::Ndjson(_) | Self::Rows(_) | Self::Csv(_) => Ok(()),
            Self::Json(document) => {
                document.end(out);
                Ok(())
            }
            Self::Arrow(ipc) => ipc.end(out).map_err(failed),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn failed(error: datafusion::arrow::error::ArrowError) -> Refusal {
    internal(format!("an answer could not be written: {error}"))
}

/// The columns of an answer, as doors tell of them.
pub(crate) fn columns(schema: &SchemaRef) -> Vec<Column> {
    let column = |field: &datafusion::arrow::datatypes::FieldRef| Column {
        name: field.name().clone(),
        sql_type: sql_type(field.data_type()),
        nullable: field.is_nullable(),
    };
    schema.fields().iter().map(column).collect()
}

/// The Arrow schema of an answer, as the message that its IPC stream begins with.
pub(crate) fn schema_message(schema: &SchemaRef) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::new();
    arrow::Ipc::new(schema).map_err(failed)?.take(&mut out);
    Ok(out)
}

#[cfg(test)]
mod tests;
