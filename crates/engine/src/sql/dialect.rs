//! What SQL has and DataFusion calls otherwise.
//!
//! | written | planned |
//! |---|---|
//! | `x LIKE 'a/_%' ESCAPE '/'` | `x LIKE 'a\_%'` |
//! | `x LIKE y ESCAPE '/'` | `x LIKE like_pattern(y, '/')` |
//! | `every(x)`, `variance(x)` | `bool_and(x)`, `var_samp(x)` |

use std::ops::ControlFlow;

use aquifer_query::wire::Refusal;
use datafusion::sql::sqlparser::ast::{
    Expr, Function, Ident, ObjectName, Statement, Value, ValueWithSpan, VisitMut as _, VisitorMut,
};

use crate::exprs::{call, take, text};
use crate::functions::{LIKE_PATTERN, like_pattern};
use crate::refusal::invalid;

/// Functions that have another name.
const RENAMED: [(&str, &str); 2] = [("every", "bool_and"), ("variance", "var_samp")];

/// Writes `statement` as it is planned.
///
/// # Errors
/// An escape of more than one character.
pub(super) fn adopt(statement: &mut Statement) -> Result<(), Refusal> {
    match statement.visit(&mut Adopter) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Adopter;

impl VisitorMut for Adopter {
    type Break = Refusal;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Refusal> {
        match expr {
            Expr::Function(function) => rename(function),
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                if let Err(refusal) = change_escape(pattern, escape_char) {
                    return ControlFlow::Break(refusal);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn rename(function: &mut Function) {
    let [name] = function.name.0.as_slice() else { return };
    let Some(name) = name.as_ident().filter(|name| name.quote_style.is_none()) else { return };
    let known = RENAMED.iter().find(|(of, _)| name.value.eq_ignore_ascii_case(of));
    if let Some((_, known)) = known {
        function.name = ObjectName::from(vec![Ident::new(*known)]);
    }
}

/// Writes a pattern with the escape that DataFusion has.
fn change_escape(
    pattern: &mut Box<Expr>,
    escape: &mut Option<ValueWithSpan>,
) -> Result<(), Refusal> {
    let Some(value) = escape.as_mut().map(|escape| &mut escape.value) else { return Ok(()) };
    let (Value::SingleQuotedString(other) | Value::EscapedStringLiteral(other)) = &*value else {
        return Ok(());
    };
    if other.chars().count() > 1 {
        let message = format!("ESCAPE takes one character or none, not '{other}'");
        return Err(invalid("invalid-value", "22019", message));
    }
    if other == "\\" {
        *value = Value::SingleQuotedString("\\".to_owned());
        return Ok(());
    }
    let given = match pattern.as_ref() {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(given), .. }) => Some(given),
        _ => None,
    };
    **pattern = match given {
        Some(given) => text(&like_pattern(given, other)),
        None => {
            let escape = text(other);
            call(LIKE_PATTERN, vec![take(pattern), escape])
        }
    };
    *escape = None;
    Ok(())
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn check(sql: &str, expected: Result<&str, &str>) {
        let mut statement = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0);
        let found = adopt(&mut statement).map(|()| statement.to_string());
        let found = found.as_deref().map_err(|refusal| refusal.sqlstate.as_str());
        assert_eq!(found, expected, "{sql}");
    }

    #[test]
    fn what_is_called_otherwise_is_planned() {
        check(
            "SELECT 1 FROM s WHERE a LIKE 'x/_%' ESCAPE '/'",
            Ok(r"SELECT 1 FROM s WHERE a LIKE 'x\_%'"),
        );
        check(
            "SELECT 1 FROM s WHERE a NOT ILIKE b || '%' ESCAPE '/'",
            Ok("SELECT 1 FROM s WHERE a NOT ILIKE like_pattern(b || '%', '/')"),
        );
        check(
            r"SELECT 1 FROM s WHERE a LIKE b ESCAPE E'\\'",
            Ok(r"SELECT 1 FROM s WHERE a LIKE b ESCAPE '\'"),
        );
        check("SELECT 1 FROM s WHERE a LIKE 'x' ESCAPE 'ab'", Err("22019"));
        check(
            "SELECT VARIANCE(n), every(ok), var_pop(n) FROM s",
            Ok("SELECT var_samp(n), bool_and(ok), var_pop(n) FROM s"),
        );
        check(
            "SELECT a FROM s WHERE b IN (SELECT every(c) FROM t)",
            Ok("SELECT a FROM s WHERE b IN (SELECT bool_and(c) FROM t)"),
        );
    }
}
