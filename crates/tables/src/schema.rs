//! A table's columns: those of the chunks, by their permanent field ids.
//!
//! A version of the stream's schema is the table's schema of that number. Each
//! has the columns of those before it and some more, so a file that was written
//! under an older one is null in these, which is what Iceberg's readers make of
//! a column that a file has not.
//!
//! Readers find a column in a file by its id, so a table may name one otherwise
//! than the file does. One is: `_partition` is the name of a metadata column in
//! Iceberg, and Spark refuses each query that touches a table's own column of
//! that name, `SELECT *` included.

use aquifer_types::StreamSchema;
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use serde_json::{Value, json};

use crate::Error;

/// What `_partition` is called in tables.
pub const PARTITION_COLUMN: &str = "_partition_id";
/// The column of the chunks that has another name in tables.
const PARTITION: &str = "_partition";
/// Where Parquet's Arrow schemas keep a field's id.
const FIELD_ID: &str = "PARQUET:field_id";

/// The field ids of the columns that tables know bounds of.
pub(crate) const PARTITION_ID: i32 = 1;
pub(crate) const OFFSET_ID: i32 = 2;
pub(crate) const TIMESTAMP_ID: i32 = 3;
pub(crate) const APPENDED_ID: i32 = 4;
/// The columns that are never null and no list.
pub(crate) const REQUIRED_IDS: [i32; 4] = [PARTITION_ID, OFFSET_ID, TIMESTAMP_ID, APPENDED_ID];

/// The id of the one partition field.
pub(crate) const PARTITION_FIELD_ID: i32 = 1000;
pub(crate) const SPEC_ID: i32 = 0;
pub(crate) const SORT_ORDER_ID: i32 = 1;

/// The schema of a table over a stream, as its metadata has it.
pub(crate) fn of_stream(schema: &StreamSchema) -> Result<Value, Error> {
    let id = i32::try_from(schema.version()).map_err(Error::internal)?;
    Ok(numbered(&fields(&aquifer_chunk::schema_with(schema))?, id))
}

/// The number of a schema.
pub(crate) fn id(schema: &Value) -> i32 {
    let id = schema.get("schema-id").and_then(Value::as_i64);
    id.and_then(|id| i32::try_from(id).ok()).unwrap_or(0)
}

/// The fields of a table over chunks of `schema`.
fn fields(schema: &Schema) -> Result<Value, Error> {
    schema.fields().iter().map(|field| field_of(field)).collect()
}

/// The highest field id in `fields`.
pub(crate) fn last_column_id(fields: &Value) -> i64 {
    match fields {
        Value::Object(members) => {
            let own = ["id", "element-id"].into_iter().filter_map(|key| members.get(key)?.as_i64());
            own.chain(members.values().map(last_column_id)).max().unwrap_or(0)
        }
        Value::Array(all) => all.iter().map(last_column_id).max().unwrap_or(0),
        _ => 0,
    }
}

/// A schema as table metadata has it.
fn numbered(fields: &Value, id: i32) -> Value {
    json!({ "type": "struct", "schema-id": id, "fields": fields })
}

/// The fields of the one partition spec.
pub(crate) fn spec_fields() -> Value {
    json!([{
        "name": PARTITION_COLUMN,
        "transform": "identity",
        "source-id": PARTITION_ID,
        "field-id": PARTITION_FIELD_ID,
    }])
}

/// The sort orders: none, and that of the rows in each file.
pub(crate) fn sort_orders() -> Value {
    json!([
        { "order-id": 0, "fields": [] },
        { "order-id": SORT_ORDER_ID, "fields": [{
            "transform": "identity",
            "source-id": OFFSET_ID,
            "direction": "asc",
            "null-order": "nulls-first",
        }] },
    ])
}

fn field_of(field: &Field) -> Result<Value, Error> {
    let name = if field.name() == PARTITION { PARTITION_COLUMN } else { field.name() };
    Ok(json!({
        "id": id_of(field)?,
        "name": name,
        "required": !field.is_nullable(),
        "type": type_of(field)?,
    }))
}

fn id_of(field: &Field) -> Result<i32, Error> {
    let id = field.metadata().get(FIELD_ID).and_then(|id| id.parse().ok());
    id.ok_or_else(|| Error::internal(format!("the column {} has no field id", field.name())))
}

fn type_of(field: &Field) -> Result<Value, Error> {
    let name = match field.data_type() {
        DataType::Boolean => "boolean",
        DataType::Int32 => "int",
        DataType::Int64 => "long",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Date32 => "date",
        DataType::Utf8 | DataType::LargeUtf8 => "string",
        DataType::Binary | DataType::LargeBinary => "binary",
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamptz",
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp",
        DataType::Decimal128(precision, scale) => {
            return Ok(json!(format!("decimal({precision}, {scale})")));
        }
        DataType::List(element) => {
            return Ok(json!({
                "type": "list",
                "element-id": id_of(element)?,
                "element": type_of(element)?,
                "element-required": !element.is_nullable(),
            }));
        }
        DataType::Struct(parts) => {
            let parts: Value = parts.iter().map(|part| field_of(part)).collect::<Result<_, _>>()?;
            return Ok(json!({ "type": "struct", "fields": parts }));
        }
        other => {
            return Err(Error::internal(format!("the column {} is {other}", field.name())));
        }
    };
    Ok(json!(name))
}

#[cfg(test)]
mod tests {
    use aquifer_types::{FieldKind, NewField};

    use super::*;

    #[test]
    fn the_columns_of_chunks_are_the_columns_of_tables() {
        let fields = fields(&aquifer_chunk::schema()).unwrap();
        let expected = json!([
            { "id": 1, "name": "_partition_id", "required": true, "type": "int" },
            { "id": 2, "name": "_offset", "required": true, "type": "long" },
            { "id": 3, "name": "_timestamp", "required": true, "type": "timestamptz" },
            { "id": 4, "name": "_appended", "required": true, "type": "timestamptz" },
            { "id": 5, "name": "_key", "required": false, "type": "binary" },
            { "id": 6, "name": "_headers", "required": true, "type": {
                "type": "list", "element-id": 7, "element-required": true, "element": {
                    "type": "struct", "fields": [
                        { "id": 8, "name": "key", "required": true, "type": "string" },
                        { "id": 9, "name": "value", "required": false, "type": "binary" },
                    ]
                }
            } },
            { "id": 10, "name": "_value", "required": false, "type": "binary" },
        ]);
        assert_eq!(fields, expected);
        assert_eq!(last_column_id(&fields), 10);
        for id in REQUIRED_IDS {
            let named = expected.as_array().unwrap().iter().any(|field| field["id"] == id);
            assert!(named, "{id}");
        }
    }

    #[test]
    fn fields_are_columns_under_their_ids() {
        let new = |path: &str, kind: FieldKind| {
            let path = path.split('.').map(str::to_owned).collect();
            NewField { path, kind, is_declared: false }
        };
        let schema = StreamSchema::default().extended(&[
            new("verb", FieldKind::Text),
            new("user.id", FieldKind::Int64),
            new("user.since", FieldKind::Timestamp),
            new("tags", FieldKind::Opaque),
            new("day", FieldKind::Date),
            new("ratio", FieldKind::Float64),
            new("ok", FieldKind::Boolean),
        ]);
        let schema = of_stream(&schema).unwrap();
        assert_eq!((id(&schema), last_column_id(&schema)), (1, 1007));
        let fields = schema["fields"].as_array().unwrap();
        let expected = json!([
            { "id": 11, "name": "_unfit", "required": false, "type": {
                "type": "list", "element-id": 12, "element-required": true, "element": "string"
            } },
            { "id": 1000, "name": "verb", "required": false, "type": "string" },
            { "id": 1001, "name": "user", "required": false, "type": {
                "type": "struct", "fields": [
                    { "id": 1002, "name": "id", "required": false, "type": "long" },
                    { "id": 1003, "name": "since", "required": false, "type": "timestamptz" },
                ]
            } },
            { "id": 1005, "name": "day", "required": false, "type": "date" },
            { "id": 1006, "name": "ratio", "required": false, "type": "double" },
            { "id": 1007, "name": "ok", "required": false, "type": "boolean" },
        ]);
        assert_eq!(json!(fields.get(7..).unwrap()), expected);
        assert_eq!(
            of_stream(&StreamSchema::default()).unwrap()["fields"].as_array().unwrap().len(),
            7
        );
    }

    #[test]
    fn what_iceberg_does_not_know_is_refused() {
        let check = |data_type: DataType, has_id: bool| {
            let mut field = Field::new("a", data_type.clone(), true);
            if has_id {
                let id = [(FIELD_ID.to_owned(), "1000".to_owned())].into();
                field = field.with_metadata(id);
            }
            assert!(fields(&Schema::new(vec![field])).is_err(), "{data_type}");
        };
        check(DataType::UInt64, true);
        check(DataType::Timestamp(TimeUnit::Millisecond, None), true);
        check(DataType::Int64, false);
    }
}
