//! What an expression reads out of a column: a field of an object, or a path of
//! the JSON in `_value`.

use aquifer_types::StreamSchema;
use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr::{Cast, TryCast};

use super::derived::literal_text;
use crate::schema::VALUE;

/// An expression that reads out of one column, along names that are written in
/// the statement.
#[derive(Debug)]
pub(crate) struct Access {
    /// The column as the expression calls it.
    pub(crate) base: Column,
    /// The names down to what is read, from the top.
    pub(crate) path: Vec<String>,
    /// What is read.
    pub(crate) read: Read,
}

/// What is read at the end of a path.
#[derive(Debug)]
pub(crate) enum Read {
    /// The field itself.
    Field,
    /// What a function over JSON gives; `call` is it, over the table's columns.
    Json { wanted: Wanted, call: Expr },
    /// The same, tried to be cast from text. A cast that can fail is none: it
    /// would be made for rows that a filter leaves out.
    TryCast { data_type: DataType, call: Expr },
}

/// What a function over JSON gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Anything, as text.
    AsText,
    /// Strings.
    Text,
    /// Whole numbers.
    Whole,
    /// Numbers.
    Float,
    /// Truth values.
    Boolean,
}

impl Wanted {
    fn of(function: &str) -> Option<Self> {
        Some(match function {
            "json_as_text" => Self::AsText,
            "json_get_str" => Self::Text,
            "json_get_int" => Self::Whole,
            "json_get_float" => Self::Float,
            "json_get_bool" => Self::Boolean,
            _ => return None,
        })
    }
}

impl Access {
    /// What `expr` reads, if it is a read and nothing else.
    pub(crate) fn of(expr: &Expr) -> Option<Self> {
        match expr {
            Expr::ScalarFunction(call) if call.func.name() == "get_field" => of_field(expr),
            Expr::ScalarFunction(_) => of_json(expr),
            Expr::TryCast(TryCast { expr: inner, field }) => {
                of_cast(expr, inner, field.data_type())
            }
            _ => None,
        }
    }

    /// What a column is called that stands for it: no field is called so, as it
    /// has a dot or a space in it, and two reads are called the same only if they
    /// are.
    pub(crate) fn name(&self) -> String {
        let path = self.path.join(".");
        match &self.read {
            Read::Field => path,
            Read::Json { wanted, .. } => format!("{VALUE} {wanted:?} {path}"),
            Read::TryCast { data_type, .. } => format!("{VALUE} {data_type} {path}"),
        }
    }
}

fn of_field(expr: &Expr) -> Option<Access> {
    let mut names = Vec::new();
    let mut at = expr;
    loop {
        match at {
            Expr::Alias(alias) => at = &alias.expr,
            Expr::Column(base) => {
                names.push(base.name.clone());
                names.reverse();
                return Some(Access { base: base.clone(), path: names, read: Read::Field });
            }
            Expr::ScalarFunction(call) if call.func.name() == "get_field" => {
                let (first, steps) = call.args.split_first()?;
                for step in steps.iter().rev() {
                    names.push(literal_text(step)?);
                }
                at = first;
            }
            _ => return None,
        }
    }
}

fn of_json(expr: &Expr) -> Option<Access> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let wanted = Wanted::of(call.func.name())?;
    let (first, steps) = call.args.split_first()?;
    let base = value_column(first)?.clone();
    let path = path(steps)?;
    let call = unqualified(expr)?;
    Some(Access { base, path, read: Read::Json { wanted, call } })
}

fn of_cast(whole: &Expr, inner: &Expr, wanted: &DataType) -> Option<Access> {
    let access = of_json(without_alias(inner))?;
    let is_text = matches!(&access.read, Read::Json { wanted: Wanted::AsText, .. });
    is_text.then_some(())?;
    let (data_type, call) = (wanted.clone(), unqualified(whole)?);
    Some(Access { read: Read::TryCast { data_type, call }, ..access })
}

fn without_alias(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => without_alias(&alias.expr),
        other => other,
    }
}

/// The column `_value` that `expr` is the text of.
fn value_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => (column.name == VALUE).then_some(column),
        Expr::Alias(alias) => value_column(&alias.expr),
        Expr::Cast(Cast { expr, field }) => {
            is_text(field.data_type()).then(|| value_column(expr))?
        }
        Expr::ScalarFunction(call) if call.func.name() == "text" => match call.args.as_slice() {
            [only] => value_column(only),
            _ => None,
        },
        _ => None,
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The names of a path: each a step, or all of them in one list.
fn path(steps: &[Expr]) -> Option<Vec<String>> {
    let path: Vec<String> = match steps {
        [Expr::ScalarFunction(list)] if list.func.name() == "make_array" => {
            list.args.iter().map(literal_text).collect::<Option<_>>()?
        }
        [Expr::Literal(ScalarValue::List(list), _)] if list.len() == 1 => {
            let names = list.value(0);
            let each = names.as_string_opt::<i32>()?;
            each.iter().map(|name| name.map(str::to_owned)).collect::<Option<_>>()?
        }
        steps => steps.iter().map(literal_text).collect::<Option<_>>()?,
    };
    // Nothing else is a field; and with a dot in a name two paths would be named alike.
    let are_names = path.iter().all(|name| StreamSchema::is_name(name));
    (are_names && !path.is_empty()).then_some(path)
}

/// The expression over the table's columns as the table calls them.
fn unqualified(expr: &Expr) -> Option<Expr> {
    let changed = expr.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::from_name(column.name))),
            // Names of parts are of no use within.
            Expr::Alias(alias) => Transformed::yes(*alias.expr),
            other => Transformed::no(other),
        })
    });
    changed.ok().map(|changed| changed.data)
}

#[cfg(test)]
mod tests {
    use datafusion::functions::core::expr_fn::get_field;
    use datafusion::logical_expr::expr::ScalarFunction;
    use datafusion::prelude::{col, lit};
    use datafusion_functions_json::udfs;

    use super::*;
    use crate::functions::text;

    #[test]
    fn a_read_is_told_from_what_is_none() {
        let call = |func, args| Expr::ScalarFunction(ScalarFunction { func, args });
        let value = || call(text(), vec![col("s._value")]);
        let as_text = |args| call(udfs::json_as_text_udf(), args);
        let check = |expr: Expr, expected: Option<&str>| {
            let found = Access::of(&expr);
            assert_eq!(found.map(|found| found.name()).as_deref(), expected, "{expr}");
        };
        check(as_text(vec![value(), lit("a"), lit("b")]), Some("_value AsText a.b"));
        check(as_text(vec![value().alias("x"), lit("a")]), Some("_value AsText a"));
        check(as_text(vec![value(), lit(1_i64)]), None);
        check(as_text(vec![value(), col("a")]), None);
        check(as_text(vec![col("_key"), lit("a")]), None);
        check(as_text(vec![value(), lit("a.b")]), None);
        check(as_text(vec![value()]), None);
        let aliased = || Box::new(as_text(vec![value(), lit("a")]).alias("x"));
        check(Expr::TryCast(TryCast::new(aliased(), DataType::Int64)), Some("_value Int64 a"));
        check(Expr::Cast(Cast::new(aliased(), DataType::Int64)), None);
        let get = call(udfs::json_get_json_udf(), vec![value(), lit("a")]);
        check(get, None);
        check(get_field(get_field(col("s.user"), "a"), "b"), Some("user.a.b"));
        check(col("s.user"), None);
    }
}
