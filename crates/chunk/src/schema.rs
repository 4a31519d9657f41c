//! The fixed columns and their permanent ids.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use aquifer_types::Timestamp;
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

/// The fields of JSON values get ids from here on; what lies below belongs to
/// this crate.
pub const FIELD_ID_SHREDDED_MIN: i32 = 1000;

/// The fixed columns' names, in their order.
pub(crate) const COLUMNS: [&str; 7] =
    ["_partition", "_offset", "_timestamp", "_appended", "_key", "_headers", "_value"];
/// The place of `_offset` among the fixed columns.
pub(crate) const OFFSET: usize = 1;
/// The place of `_timestamp` among the fixed columns.
pub(crate) const TIMESTAMP: usize = 2;

/// The place of `_value` among the fixed columns.
pub(crate) const VALUE: usize = 6;

/// Milliseconds beyond these do not fit into microseconds.
const MS_MAX: i64 = i64::MAX / 1000;
const MS_MIN: i64 = -MS_MAX;

/// The columns that every chunk has, in their order, each with its field id.
/// Arrow answers have the same.
#[must_use]
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(build);
    SCHEMA.clone()
}

fn build() -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        field(1, COLUMNS[0], DataType::Int32, false),
        field(2, COLUMNS[1], DataType::Int64, false),
        field(3, COLUMNS[2], time(), false),
        field(4, COLUMNS[3], time(), false),
        field(5, COLUMNS[4], DataType::Binary, true),
        field(6, COLUMNS[5], DataType::List(Arc::new(header_field())), false),
        field(10, COLUMNS[6], DataType::Binary, true),
    ]))
}

/// The element of `_headers`.
pub(crate) fn header_field() -> Field {
    field(7, "element", DataType::Struct(header_fields()), false)
}

/// The parts of one header.
pub(crate) fn header_fields() -> Fields {
    Fields::from(vec![
        field(8, "key", DataType::Utf8, false),
        field(9, "value", DataType::Binary, true),
    ])
}

pub(crate) fn field(id: i32, name: &str, data_type: DataType, is_nullable: bool) -> Field {
    Field::new(name, data_type, is_nullable)
        .with_metadata(HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]))
}

/// The microseconds that a timestamp is stored as; the nearest that fit.
pub(crate) fn to_micros(timestamp: Timestamp) -> i64 {
    timestamp.0.clamp(MS_MIN, MS_MAX) * 1000
}

/// The timestamp that microseconds stand for.
pub(crate) fn from_micros(micros: i64) -> Timestamp {
    Timestamp(micros.div_euclid(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_survive_or_saturate() {
        for ms in [0, -1, 1, 1_700_000_000_123, -62_135_596_800_000, MS_MAX, MS_MIN] {
            assert_eq!(from_micros(to_micros(Timestamp(ms))), Timestamp(ms));
        }
        assert_eq!(from_micros(to_micros(Timestamp(i64::MAX))), Timestamp(MS_MAX));
        assert_eq!(from_micros(to_micros(Timestamp(i64::MIN))), Timestamp(MS_MIN));
    }
}
