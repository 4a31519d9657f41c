//! The values of `$1`, `$2` and so on.
//!
//! A placeholder has the type that the statement needs in its place. A value is
//! brought to it: text is read as a number, a time or what else is needed; where
//! the statement does not say, the value keeps its own type.

use std::ops::ControlFlow;

use aquifer_query::Parameter;
use aquifer_query::wire::Refusal;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Expr, Statement, Value, visit_expressions};

use super::types::sql_type;
use crate::refusal::{invalid, of, too_complex};

/// The most placeholders of one statement; PostgreSQL's protocol counts them in
/// 16 bits.
const PARAMETERS_MAX: usize = 65_535;

/// The types of the placeholders of `plan`, from `$1` on; none where the
/// statement does not say.
pub(crate) fn types(plan: &LogicalPlan) -> Result<Vec<Option<DataType>>, Refusal> {
    let found = plan.get_parameter_types().map_err(|error| of(&error, ""))?;
    let mut types = Vec::new();
    for (id, of) in found {
        let Some(number) = id.strip_prefix('$').and_then(|id| id.parse::<usize>().ok()) else {
            return Err(invalid(
                "parameter-name",
                "42P02",
                format!("{id}: parameters are $1, $2 …"),
            ));
        };
        if number == 0 || number > PARAMETERS_MAX {
            return Err(too_complex(format!("parameters are $1 to ${PARAMETERS_MAX}")));
        }
        if types.len() < number {
            types.resize(number, None);
        }
        if let Some(place) = types.get_mut(number - 1) {
            *place = of.filter(|of| *of != DataType::Null);
        }
    }
    Ok(types)
}

/// How many parameters a statement has, by the highest of `$1`, `$2` and so on.
pub(crate) fn places(statement: &Statement) -> usize {
    let mut places = 0;
    let _: ControlFlow<()> = visit_expressions(statement, |expr| {
        if let Expr::Value(value) = expr
            && let Value::Placeholder(id) = &value.value
            && let Some(number) = id.strip_prefix('$').and_then(|id| id.parse::<usize>().ok())
        {
            places = places.max(number.min(PARAMETERS_MAX));
        }
        ControlFlow::Continue(())
    });
    places
}

/// SQL's words for the types.
pub(crate) fn words(types: &[Option<DataType>]) -> Vec<String> {
    types.iter().map(|of| of.as_ref().map_or_else(|| "text".to_owned(), sql_type)).collect()
}

/// `plan` with `values` in the places of its placeholders.
pub(crate) fn bind(
    plan: LogicalPlan,
    types: &[Option<DataType>],
    values: &[Parameter],
) -> Result<LogicalPlan, Refusal> {
    if types.len() != values.len() {
        return Err(invalid(
            "parameter-count",
            "08P01",
            format!("the statement has {} parameters, {} were given", types.len(), values.len()),
        ));
    }
    if types.is_empty() {
        return Ok(plan);
    }
    let values = values
        .iter()
        .zip(types)
        .zip(1..)
        .map(|((value, of), number)| scalar(value, of.as_ref(), number))
        .collect::<Result<Vec<_>, _>>()?;
    plan.with_param_values(values).map_err(|error| of(&error, ""))
}

fn scalar(
    value: &Parameter,
    wanted: Option<&DataType>,
    number: usize,
) -> Result<ScalarValue, Refusal> {
    let own = match value {
        Parameter::Null => ScalarValue::Null,
        Parameter::Boolean(value) => ScalarValue::Boolean(Some(*value)),
        Parameter::Integer(value) => ScalarValue::Int64(Some(*value)),
        Parameter::Float(value) => ScalarValue::Float64(Some(*value)),
        Parameter::Text(value) => ScalarValue::Utf8(Some(value.clone())),
    };
    let Some(wanted) = wanted else { return Ok(own) };
    own.cast_to(wanted).ok().filter(|cast| own.is_null() || !cast.is_null()).ok_or_else(|| {
        invalid(
            "parameter-type",
            "22P02",
            format!("parameter ${number} cannot be read as {}", sql_type(wanted)),
        )
    })
}
