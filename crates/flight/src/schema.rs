//! Schemas as clients are told of them.
//!
//! A plan and its description may differ in what can be null, and a statement
//! that is described now may run later: so that a client finds the schema that
//! it was told of, every field is said to be nullable, and has no metadata.

use std::sync::Arc;

use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use arrow_ipc::writer::IpcWriteOptions;
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use bytes::Bytes;

use crate::problem::Problem;

/// The schema of an answer, of the IPC message that it begins with.
pub(crate) fn of_answer(message: &[u8]) -> Result<Schema, Problem> {
    let schema = arrow_ipc::convert::try_schema_from_ipc_buffer(message).map_err(|error| {
        tracing::error!(%error, "the schema of an answer cannot be read");
        Problem::internal("the schema of the engine's answer cannot be read")
    })?;
    Ok(Schema::new(told_all(schema.fields())))
}

fn told_all(fields: &Fields) -> Fields {
    fields.iter().map(told).collect()
}

fn told(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), told_type(field.data_type()), true))
}

fn told_type(of: &DataType) -> DataType {
    match of {
        DataType::List(item) => DataType::List(told(item)),
        DataType::LargeList(item) => DataType::LargeList(told(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(told(item), *length),
        DataType::Struct(fields) => DataType::Struct(told_all(fields)),
        // Of the others, what is nested has rules of its own.
        other => other.clone(),
    }
}

/// The first message of a stream of rows.
pub(crate) fn message(schema: &Schema) -> FlightData {
    SchemaAsIpc::new(schema, &IpcWriteOptions::default()).into()
}

/// A schema as it stands in descriptions.
pub(crate) fn bytes(schema: &Schema) -> Result<Bytes, Problem> {
    let options = IpcWriteOptions::default();
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &options));
    let IpcMessage(bytes) =
        message.map_err(|error| Problem::internal(format!("a schema: {error}")))?;
    Ok(bytes)
}

/// The schema of a statement's placeholders, whose types are given in SQL's
/// words.
pub(crate) fn of_parameters(words: &[String]) -> Schema {
    let field =
        |(of, number): (&String, usize)| Field::new(format!("${number}"), of_words(of), true);
    Schema::new(words.iter().zip(1..).map(field).collect::<Vec<_>>())
}

/// The type that SQL's words name; text for what cannot be bound otherwise,
/// since it can be read as anything.
fn of_words(words: &str) -> DataType {
    let words = words.trim().to_ascii_lowercase();
    if let Some(digits) = words.strip_prefix("numeric(").and_then(|of| of.strip_suffix(')')) {
        let (precision, scale) = digits.split_once(',').unwrap_or((digits, "0"));
        return match (precision.trim().parse(), scale.trim().parse()) {
            (Ok(precision @ 1..=38), Ok(scale @ 0..=38)) => DataType::Decimal128(precision, scale),
            _ => DataType::Utf8,
        };
    }
    match words.as_str() {
        "boolean" => DataType::Boolean,
        "smallint" => DataType::Int16,
        "integer" => DataType::Int32,
        "bigint" => DataType::Int64,
        "real" => DataType::Float32,
        "double precision" => DataType::Float64,
        "date" => DataType::Date32,
        "time" => DataType::Time64(TimeUnit::Microsecond),
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        "timestamp with time zone" => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        "binary" => DataType::Binary,
        _ => DataType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn what_can_be_null_and_metadata_make_no_difference() {
        let build = |nullable: bool, metadata: HashMap<String, String>| {
            let inner = Field::new("s", DataType::Utf8, nullable).with_metadata(metadata.clone());
            let item = Field::new("item", DataType::Struct(vec![inner].into()), nullable);
            let list = DataType::List(Arc::new(item));
            let field = Field::new("list", list, nullable).with_metadata(metadata);
            bytes(&Schema::new(vec![field])).unwrap()
        };
        let one = of_answer(&build(false, [("a".to_owned(), "b".to_owned())].into())).unwrap();
        let other = of_answer(&build(true, HashMap::new())).unwrap();
        assert_eq!(one, other);
        assert!(one.field(0).is_nullable());
        assert_eq!(of_answer(b"nothing").unwrap_err().code, tonic::Code::Internal);
    }

    #[test]
    fn words_are_types() {
        for (words, expected) in [
            ("bigint", DataType::Int64),
            ("BOOLEAN", DataType::Boolean),
            ("numeric(20,0)", DataType::Decimal128(20, 0)),
            ("numeric(76,2)", DataType::Utf8),
            ("numeric(x)", DataType::Utf8),
            ("text", DataType::Utf8),
            ("struct(\"a\" bigint)", DataType::Utf8),
            ("", DataType::Utf8),
        ] {
            assert_eq!(of_words(words), expected, "{words}");
        }
        let schema = of_parameters(&["text".to_owned(), "date".to_owned()]);
        assert_eq!(schema.field(1), &Field::new("$2", DataType::Date32, true));
    }
}
