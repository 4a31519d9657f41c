//! The types of SQL (`GetXdbcTypeInfo`), in the words that answers have for them.

use std::sync::LazyLock;

use arrow_array::RecordBatch;
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType, XdbcDatetimeSubcode};
use arrow_schema::SchemaRef;

use crate::batches::failed;
use crate::problem::Problem;

static DATA: LazyLock<Result<XdbcTypeInfoData, String>> = LazyLock::new(|| {
    let mut builder = XdbcTypeInfoDataBuilder::new();
    all().for_each(|info| builder.append(info));
    builder.build().map_err(|error| error.to_string())
});

/// A type, by its name and its code; the digits or characters that a value of it
/// has at most.
struct Type(&'static str, XdbcDataType, Option<i32>);

fn all() -> impl Iterator<Item = XdbcTypeInfo> {
    use XdbcDataType::{
        XdbcBigint, XdbcBit, XdbcDate, XdbcDouble, XdbcInteger, XdbcInterval, XdbcNumeric,
        XdbcReal, XdbcSmallint, XdbcTime, XdbcTimestamp, XdbcVarbinary, XdbcVarchar,
    };
    let types = [
        Type("boolean", XdbcBit, Some(1)),
        Type("smallint", XdbcSmallint, Some(5)),
        Type("integer", XdbcInteger, Some(10)),
        Type("bigint", XdbcBigint, Some(19)),
        Type("real", XdbcReal, Some(24)),
        Type("double precision", XdbcDouble, Some(53)),
        Type("numeric", XdbcNumeric, Some(76)),
        Type("text", XdbcVarchar, None),
        Type("binary", XdbcVarbinary, None),
        Type("date", XdbcDate, Some(10)),
        Type("time", XdbcTime, Some(15)),
        Type("timestamp", XdbcTimestamp, Some(26)),
        Type("timestamp with time zone", XdbcTimestamp, Some(32)),
        Type("interval", XdbcInterval, None),
    ];
    types.into_iter().map(info)
}

fn info(Type(name, data_type, column_size): Type) -> XdbcTypeInfo {
    use XdbcDataType::{
        XdbcBigint, XdbcDate, XdbcDatetime, XdbcDouble, XdbcInteger, XdbcNumeric, XdbcReal,
        XdbcSmallint, XdbcTime, XdbcTimestamp, XdbcVarchar,
    };
    let is_exact = matches!(data_type, XdbcSmallint | XdbcInteger | XdbcBigint | XdbcNumeric);
    let is_binary = matches!(data_type, XdbcReal | XdbcDouble);
    let is_number = is_exact || is_binary;
    let (sql_data_type, datetime_subcode) = match data_type {
        // One is the code of dates, whatever it is called here.
        XdbcDate => (XdbcDatetime, Some(XdbcDatetimeSubcode::XdbcSubcodeYear)),
        XdbcTime => (XdbcDatetime, Some(XdbcDatetimeSubcode::XdbcSubcodeTime)),
        XdbcTimestamp if name == "timestamp" => {
            (XdbcDatetime, Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp))
        }
        XdbcTimestamp => {
            (XdbcDatetime, Some(XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone))
        }
        other => (other, None),
    };
    // `x'0a'` is bytes; what is in quotes is text, and read as what is wanted.
    let literal_prefix = match name {
        "binary" => Some("x'"),
        _ if is_number || name == "boolean" => None,
        _ => Some("'"),
    };
    XdbcTypeInfo {
        type_name: name.to_owned(),
        data_type,
        column_size,
        literal_prefix: literal_prefix.map(str::to_owned),
        literal_suffix: literal_prefix.map(|_| "'".to_owned()),
        create_params: (data_type == XdbcNumeric)
            .then(|| vec!["precision".to_owned(), "scale".to_owned()]),
        nullable: Nullable::NullabilityNullable,
        case_sensitive: data_type == XdbcVarchar,
        searchable: Searchable::Full,
        unsigned_attribute: is_number.then_some(false),
        fixed_prec_scale: false,
        auto_increment: is_number.then_some(false),
        local_type_name: Some(name.to_owned()),
        minimum_scale: is_exact.then_some(0),
        maximum_scale: is_exact.then_some(if data_type == XdbcNumeric { 76 } else { 0 }),
        sql_data_type,
        datetime_subcode,
        num_prec_radix: is_number.then_some(if is_binary { 2 } else { 10 }),
        interval_precision: None,
    }
}

/// The columns of every answer.
pub(crate) fn schema() -> SchemaRef {
    XdbcTypeInfoDataBuilder::new().schema()
}

/// The types of this code; all of them where none is asked for.
///
/// # Errors
/// What Arrow says of it, which is a fault of ours.
pub(crate) fn batch(asked: Option<i32>) -> Result<RecordBatch, Problem> {
    let data = DATA.as_ref().map_err(|error| failed(error))?;
    data.record_batch(asked).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_by_their_codes() {
        let rows = |asked: Option<i32>| batch(asked).unwrap().num_rows();
        assert_eq!(rows(None), 14);
        assert_eq!(rows(Some(XdbcDataType::XdbcTimestamp.into())), 2);
        assert_eq!(rows(Some(XdbcDataType::XdbcBigint.into())), 1);
        assert_eq!(rows(Some(i32::MAX)), 0);
        assert_eq!(batch(None).unwrap().schema(), schema());
    }
}
