//! JSON in text: functions, and which of them an operator or a cast means.
//!
//! `->` and `json_get` give JSON text, `->>` gives text as it is (a string
//! without its quotes), and null for JSON's null and for what is missing. What
//! is no JSON is null. A cast of `->` reads the type out of the JSON itself.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::sqlparser::ast::BinaryOperator;
use datafusion::logical_expr::{Expr, ScalarUDF};
use datafusion_functions_json::udfs;

/// What `json_get` and `->` are: JSON text, since its readers are many and a
/// union of types has few.
const AS_JSON: &str = "json_get_json";
/// What `->>` is.
pub(super) const AS_TEXT: &str = "json_as_text";

/// The functions by their names.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(udfs::json_get_json_udf().as_ref().clone().with_aliases(["json_get"])),
        udfs::json_get_bool_udf(),
        udfs::json_get_float_udf(),
        udfs::json_get_int_udf(),
        udfs::json_get_str_udf(),
        udfs::json_as_text_udf(),
        udfs::json_contains_udf(),
        udfs::json_length_udf(),
        udfs::json_object_keys_udf(),
    ]
}

/// The function that an operator means, and its sign.
pub(super) fn of_operator(op: &BinaryOperator) -> Option<(Arc<ScalarUDF>, &'static str)> {
    let (function, sign) = match op {
        BinaryOperator::Arrow => (udfs::json_get_json_udf(), "->"),
        BinaryOperator::HashArrow => (udfs::json_get_json_udf(), "#>"),
        BinaryOperator::LongArrow => (udfs::json_as_text_udf(), "->>"),
        BinaryOperator::HashLongArrow => (udfs::json_as_text_udf(), "#>>"),
        BinaryOperator::Question => (udfs::json_contains_udf(), "?"),
        _ => return None,
    };
    Some((function, sign))
}

/// The call of `->` that `expr` is, behind any alias.
pub(super) fn as_get(expr: &Expr) -> Option<&ScalarFunction> {
    as_call(expr).filter(|call| call.func.name() == AS_JSON)
}

/// The call that `expr` is, behind any alias.
pub(super) fn as_call(expr: &Expr) -> Option<&ScalarFunction> {
    match expr {
        Expr::Alias(alias) => as_call(&alias.expr),
        Expr::ScalarFunction(call) => Some(call),
        _ => None,
    }
}

/// Whether `expr` reads a JSON field as text.
pub(super) fn is_read(expr: &Expr) -> bool {
    as_call(expr).is_some_and(|call| matches!(call.func.name(), AS_TEXT | AS_JSON))
}

/// Applies `function` to `left` with the step `right`; one walk for the whole
/// path where `left` is a walk itself.
pub(super) fn walk(function: Arc<ScalarUDF>, left: Expr, right: Expr) -> Expr {
    let is_step = |expr: &Expr| matches!(expr, Expr::Literal(..));
    let mut args = match as_get(&left) {
        Some(inner) if is_step(&right) && inner.args.iter().skip(1).all(is_step) => {
            inner.args.clone()
        }
        _ => vec![left],
    };
    args.push(right);
    Expr::ScalarFunction(ScalarFunction { func: function, args })
}

/// The function that reads `wanted` out of JSON, if one does exactly that.
pub(super) fn reader_of(wanted: &DataType) -> Option<Arc<ScalarUDF>> {
    let function = match wanted {
        DataType::Boolean => udfs::json_get_bool_udf(),
        DataType::Float64 | DataType::Float32 => udfs::json_get_float_udf(),
        DataType::Int64 | DataType::Int32 | DataType::Int16 | DataType::Int8 => {
            udfs::json_get_int_udf()
        }
        // Through text: exact for numbers of any length.
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..)
        | DataType::Date32
        | DataType::Timestamp(..) => udfs::json_as_text_udf(),
        _ => return None,
    };
    Some(function)
}
