//! SQL's words for types.

use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit};

/// What SQL calls `data_type`.
pub(crate) fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint".into(),
        DataType::Int32 | DataType::UInt16 => "integer".into(),
        DataType::Int64 | DataType::UInt32 => "bigint".into(),
        DataType::UInt64 => "numeric(20,0)".into(),
        DataType::Float16 | DataType::Float32 => "real".into(),
        DataType::Float64 => "double precision".into(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("numeric({precision},{scale})"),
        DataType::Timestamp(_, Some(_)) => "timestamp with time zone".into(),
        DataType::Timestamp(_, None) => "timestamp".into(),
        DataType::Date32 | DataType::Date64 => "date".into(),
        DataType::Time32(_) | DataType::Time64(_) => "time".into(),
        DataType::Duration(_)
        | DataType::Interval(
            IntervalUnit::YearMonth | IntervalUnit::DayTime | IntervalUnit::MonthDayNano,
        ) => "interval".into(),
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => "binary".into(),
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _) => format!("{}[]", sql_type(field.data_type())),
        DataType::Struct(fields) => {
            let parts: Vec<String> = fields.iter().map(|field| part(field)).collect();
            format!("struct({})", parts.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                let parts: Vec<String> =
                    fields.iter().map(|field| sql_type(field.data_type())).collect();
                format!("map({})", parts.join(", "))
            }
            other => format!("map({})", sql_type(other)),
        },
        DataType::Dictionary(_, value) => sql_type(value),
        DataType::RunEndEncoded(_, value) => sql_type(value.data_type()),
        DataType::Union(..) => "union".into(),
    }
}

fn part(field: &Field) -> String {
    format!("{} {}", crate::near::quoted(field.name()), sql_type(field.data_type()))
}

/// The names of columns and of what is nested in them, each once or more.
pub(crate) fn names_in(fields: &datafusion::arrow::datatypes::Fields, out: &mut Vec<String>) {
    for field in fields {
        out.push(field.name().clone());
        match field.data_type() {
            DataType::Struct(inner) => names_in(inner, out),
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                if let DataType::Struct(inner) = item.data_type() {
                    names_in(inner, out);
                }
            }
            _ => {}
        }
    }
}
