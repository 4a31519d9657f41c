//! Arrow's types and SQL's words as PostgreSQL's types.

use arrow_schema::{DataType, Field};

/// A type as clients are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PgType {
    pub(crate) oid: u32,
    /// Of a value; negative where that varies.
    pub(crate) bytes: i16,
}

const fn of(oid: u32, bytes: i16) -> PgType {
    PgType { oid, bytes }
}

pub(crate) const BOOL: PgType = of(16, 1);
pub(crate) const BYTEA: PgType = of(17, -1);
pub(crate) const CHAR: PgType = of(18, 1);
pub(crate) const NAME: PgType = of(19, 64);
pub(crate) const INT8: PgType = of(20, 8);
pub(crate) const INT2: PgType = of(21, 2);
pub(crate) const INT4: PgType = of(23, 4);
pub(crate) const TEXT: PgType = of(25, -1);
pub(crate) const OID: PgType = of(26, 4);
pub(crate) const JSON: PgType = of(114, -1);
pub(crate) const FLOAT4: PgType = of(700, 4);
pub(crate) const FLOAT8: PgType = of(701, 8);
pub(crate) const UNKNOWN: PgType = of(705, -2);
pub(crate) const BPCHAR: PgType = of(1042, -1);
pub(crate) const VARCHAR: PgType = of(1043, -1);
pub(crate) const DATE: PgType = of(1082, 4);
pub(crate) const TIME: PgType = of(1083, 8);
pub(crate) const TIMESTAMP: PgType = of(1114, 8);
pub(crate) const TIMESTAMPTZ: PgType = of(1184, 8);
pub(crate) const INTERVAL: PgType = of(1186, 16);
pub(crate) const NUMERIC: PgType = of(1700, -1);
pub(crate) const UUID: PgType = of(2950, 16);
pub(crate) const JSONB: PgType = of(3802, -1);

/// The metadata of a field by which the engine says that PostgreSQL's catalogs
/// have a narrower type than Arrow can say.
const TYPE_KEY: &str = "postgres.type";

/// The type of a column.
pub(crate) fn of_field(field: &Field) -> PgType {
    match field.metadata().get(TYPE_KEY).map(String::as_str) {
        Some("oid") if field.data_type() == &DataType::UInt32 => OID,
        Some("oid") if field.data_type() == &DataType::Int64 => OID,
        Some("name") => NAME,
        Some("char") => CHAR,
        _ => of_arrow(field.data_type()),
    }
}

pub(crate) fn of_arrow(data_type: &DataType) -> PgType {
    match data_type {
        DataType::Boolean => BOOL,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => INT2,
        DataType::Int32 | DataType::UInt16 => INT4,
        DataType::Int64 | DataType::UInt32 => INT8,
        DataType::Float16 | DataType::Float32 => FLOAT4,
        DataType::Float64 => FLOAT8,
        DataType::UInt64
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => NUMERIC,
        DataType::Date32 | DataType::Date64 => DATE,
        DataType::Time32(_) | DataType::Time64(_) => TIME,
        DataType::Timestamp(_, None) => TIMESTAMP,
        DataType::Timestamp(_, Some(_)) => TIMESTAMPTZ,
        DataType::Interval(_) | DataType::Duration(_) => INTERVAL,
        DataType::List(_)
        | DataType::LargeList(_)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::FixedSizeList(..)
        | DataType::Struct(_)
        | DataType::Map(..)
        | DataType::Union(..) => JSON,
        DataType::Dictionary(_, values) => of_arrow(values),
        DataType::RunEndEncoded(_, values) => of_arrow(values.data_type()),
        // Keys and values are bytes that nearly always are text.
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_)
        | DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Null => TEXT,
    }
}

/// The type that SQL's words name, as the engine says what a placeholder is;
/// text for what is not known, since it can be read as anything.
pub(crate) fn of_words(words: &str) -> PgType {
    let words = words.trim().to_ascii_lowercase();
    let word = words.split(['(', '[']).next().unwrap_or_default().trim();
    match word {
        "boolean" | "bool" => BOOL,
        "tinyint" | "smallint" | "int2" | "tinyint unsigned" | "int8" | "int16" | "uint8" => INT2,
        "integer" | "int" | "int4" | "smallint unsigned" | "int32" | "uint16" => INT4,
        "bigint" | "integer unsigned" | "int unsigned" | "int64" | "uint32" => INT8,
        "bigint unsigned" | "uint64" | "decimal" | "numeric" | "decimal128" | "decimal256" => {
            NUMERIC
        }
        "real" | "float4" | "float32" => FLOAT4,
        "double" | "double precision" | "float" | "float8" | "float64" => FLOAT8,
        "date" | "date32" | "date64" => DATE,
        "time" | "time without time zone" | "time32" | "time64" => TIME,
        "timestamp with time zone" | "timestamptz" => TIMESTAMPTZ,
        "timestamp" if words.contains("with time zone") || words.contains("utc") => TIMESTAMPTZ,
        "timestamp" | "timestamp without time zone" => TIMESTAMP,
        "interval" | "duration" => INTERVAL,
        _ => TEXT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_types() {
        for (words, expected) in [
            ("BIGINT", INT8),
            ("INTEGER", INT4),
            ("DOUBLE", FLOAT8),
            ("DOUBLE PRECISION", FLOAT8),
            ("TIMESTAMP(6) WITH TIME ZONE", TIMESTAMPTZ),
            ("TIMESTAMP WITH TIME ZONE", TIMESTAMPTZ),
            ("TIMESTAMP", TIMESTAMP),
            ("DECIMAL(10, 2)", NUMERIC),
            ("VARCHAR", TEXT),
            ("BINARY", TEXT),
            ("", TEXT),
        ] {
            assert_eq!(of_words(words), expected, "{words}");
        }
    }
}
