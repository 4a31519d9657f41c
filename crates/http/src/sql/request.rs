//! A request's body: from JSON to a question.

use aquifer_query::{Ask, Limits, Parameter, Question, SqlQuestion};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::form::Form;
use crate::Problem;
use crate::app::tenant;
use crate::input::document;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    sql: String,
    #[serde(default)]
    params: Vec<Box<RawValue>>,
    #[serde(default)]
    limits: LimitsBody,
}

/// What is absent is as the server limits it.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct LimitsBody {
    rows_max: Option<u64>,
    bytes_max: Option<u64>,
    time_ms_max: Option<u64>,
    memory_bytes_max: Option<u64>,
}

/// The question of a body.
pub(super) fn question(body: &[u8], form: Form) -> Result<Question, Problem> {
    let Body { sql, params, limits } = document(body)?;
    let parameters = params.iter().enumerate();
    let parameters = parameters.map(|(place, raw)| parameter(place + 1, raw.get()));
    let parameters = parameters.collect::<Result<_, _>>()?;
    // The server's own limits bound these.
    let limits = Limits {
        rows_max: limits.rows_max.unwrap_or(u64::MAX),
        bytes_max: limits.bytes_max.unwrap_or(u64::MAX),
        time_ms_max: limits.time_ms_max.unwrap_or(u64::MAX),
        memory_bytes_max: limits.memory_bytes_max.unwrap_or(u64::MAX),
    };
    Ok(Question {
        tenant: tenant(),
        ask: Ask::Sql(SqlQuestion { sql, parameters, describe_only: false }),
        form: form.answer_form(),
        limits,
        wants_progress: form == Form::Events,
    })
}

/// A value as its JSON has it. Whole numbers that 64 bits do not hold stay
/// exact: they go as text, which takes the type that the statement needs.
fn parameter(number: usize, raw: &str) -> Result<Parameter, Problem> {
    let refused = |what: &str| {
        Problem::invalid(format!(
            "parameter ${number} is {what}: it should be null, a boolean, a number or a string"
        ))
        .member("parameter", number)
    };
    let text = |raw: &str| serde_json::from_str(raw).map_err(|_| refused("not a valid string"));
    match raw.as_bytes().first() {
        Some(b'n') => Ok(Parameter::Null),
        Some(b't') => Ok(Parameter::Boolean(true)),
        Some(b'f') => Ok(Parameter::Boolean(false)),
        Some(b'"') => Ok(Parameter::Text(text(raw)?)),
        Some(b'[') => Err(refused("an array")),
        Some(b'{') => Err(refused("an object")),
        _ => {
            if let Ok(whole) = raw.parse() {
                return Ok(Parameter::Integer(whole));
            }
            if raw.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
                return Ok(Parameter::Text(raw.to_owned()));
            }
            match raw.parse::<f64>() {
                Ok(float) if float.is_finite() => Ok(Parameter::Float(float)),
                _ => Err(refused("a number that is too large")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aquifer_query::AnswerForm;

    use super::*;

    #[test]
    fn bodies_are_read() {
        let check = |body: &str, expected: Result<&[Parameter], &str>| match (
            question(body.as_bytes(), Form::Rows(AnswerForm::Csv)),
            expected,
        ) {
            (Ok(Question { ask: Ask::Sql(found), form, wants_progress, .. }), Ok(expected)) => {
                assert_eq!(found.sql, "select 1", "{body}");
                assert_eq!(found.parameters, expected, "{body}");
                assert_eq!((form, wants_progress), (AnswerForm::Csv, false));
            }
            (Err(problem), Err(part)) => {
                assert_eq!(problem.status().as_u16(), 400);
                assert!(problem.detail().contains(part), "{body}: {}", problem.detail());
            }
            (found, expected) => panic!("{body}: {found:?}, not {expected:?}"),
        };
        let with = |params: &str| format!("{{\"sql\":\"select 1\",\"params\":[{params}]}}");
        check(r#"{"sql":"select 1"}"#, Ok(&[]));
        check(
            &with(r#"null,true, -7 ,2.5,"a\u00e4\n","""#),
            Ok(&[
                Parameter::Null,
                Parameter::Boolean(true),
                Parameter::Integer(-7),
                Parameter::Float(2.5),
                Parameter::Text("aä\n".into()),
                Parameter::Text(String::new()),
            ]),
        );
        // More digits than a number of 64 bits has are not lost.
        check(
            &with("9223372036854775807,9223372036854775808,-9223372036854775809"),
            Ok(&[
                Parameter::Integer(i64::MAX),
                Parameter::Text("9223372036854775808".into()),
                Parameter::Text("-9223372036854775809".into()),
            ]),
        );
        check(&with("1,[2]"), Err("parameter $2 is an array"));
        check(&with("{}"), Err("parameter $1 is an object"));
        check(&with("1e999"), Err("too large"));
        check(r#"{"sql":"x","parameters":[]}"#, Err("unknown field `parameters`"));
        check(r#"{"sql":"x","limits":{"rows":1}}"#, Err("unknown field `rows`"));
        check(r#"{"params":[]}"#, Err("missing field `sql`"));
        check("select 1", Err("the body is not as it should be"));
    }

    #[test]
    fn limits_are_taken_and_progress_is_for_events() {
        let body = br#"{"sql":"x","limits":{"rows_max":5,"time_ms_max":10}}"#;
        let found = question(body, Form::Events).unwrap();
        assert!(found.wants_progress);
        assert_eq!(found.form, AnswerForm::Rows);
        assert_eq!((found.limits.rows_max, found.limits.time_ms_max), (5, 10));
        assert_eq!(found.limits.bytes_max, u64::MAX);
    }

    #[test]
    fn fuzz_sql_bodies() {
        let seeds =
            [br#"{"sql":"select $1","params":[1,null,"a",-2.5e3,true],"limits":{"rows_max":1}}"#
                .to_vec()];
        aquifer_testkit::fuzz("sql_bodies", 0.2, &seeds, |bytes| {
            let _ = question(bytes, Form::Events);
        });
    }
}
