//! Lists, structures and maps as JSON.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use serde_json::{Map, Number, Value};

use super::text_at;

/// The JSON of the value at `row`.
pub(super) fn of(array: &dyn Array, row: usize) -> String {
    value(array, row).to_string()
}

fn value(array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64 => number(&text_at(array, row)),
        DataType::Float32 => of_float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => of_float(array.as_primitive::<Float64Type>().value(row)),
        DataType::List(_) => list(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row)),
        DataType::ListView(_) => list(&array.as_list_view::<i32>().value(row)),
        DataType::LargeListView(_) => list(&array.as_list_view::<i64>().value(row)),
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(row)),
        DataType::Struct(_) => {
            let array = array.as_struct();
            let names = array.column_names().into_iter().map(str::to_owned);
            let fields = names.zip(array.columns());
            Value::Object(fields.map(|(name, of)| (name, value(of, row))).collect())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let [keys, values] = entries.columns() else { return Value::Null };
            let entry = |at| (text_at(keys, at), value(values, at));
            Value::Object((0..entries.len()).map(entry).collect::<Map<_, _>>())
        }
        DataType::Union(..) => {
            let array = array.as_union();
            value(&array.value(row), 0)
        }
        DataType::RunEndEncoded(..) => Value::Null,
        _ => Value::String(text_at(array, row)),
    }
}

fn list(elements: &ArrayRef) -> Value {
    Value::Array((0..elements.len()).map(|at| value(elements, at)).collect())
}

fn number(text: &str) -> Value {
    text.parse().map_or_else(|_| Value::String(text.to_owned()), Value::Number)
}

/// JSON has neither infinity nor what is no number.
fn of_float(float: f64) -> Value {
    Number::from_f64(float).map_or(Value::Null, Value::Number)
}
