//! PostgreSQL's types that are not SQL's own.

use datafusion::sql::sqlparser::ast::DataType;

/// What there is for a type that is not SQL's own.
pub(super) fn known_type(name: &str) -> Option<DataType> {
    Some(match name {
        "text" | "name" | "char" | "bpchar" | "varchar" | "unknown" | "cstring" | "oidvector"
        | "int2vector" | "aclitem" | "json" | "jsonb" | "uuid" | "xml" | "sql_identifier"
        | "character_data" | "yes_or_no" => DataType::Text,
        "oid" | "xid" | "regrole" | "int8" | "cardinal_number" => DataType::BigInt(None),
        "int4" => DataType::Integer(None),
        "int2" => DataType::SmallInt(None),
        "bool" => DataType::Boolean,
        "float4" => DataType::Real,
        "float8" => DataType::DoublePrecision,
        _ => return None,
    })
}

/// The last part of the name of a type that is not SQL's own, in lower case.
pub(super) fn type_name(data_type: &DataType) -> Option<String> {
    match data_type {
        DataType::Regclass => Some("regclass".to_owned()),
        DataType::JSON => Some("json".to_owned()),
        DataType::JSONB => Some("jsonb".to_owned()),
        DataType::Uuid => Some("uuid".to_owned()),
        DataType::Custom(name, modifiers) if modifiers.is_empty() => {
            let last = name.0.last()?.as_ident()?;
            Some(last.value.to_lowercase())
        }
        _ => None,
    }
}
