//! Why there is no answer, as a problem.

use aquifer_query::wire::Refusal;
use aquifer_types::ErrorKind;

use crate::Problem;

/// The problem of a refusal: the kind decides the status, the code is the type.
pub(crate) fn problem(refusal: Refusal) -> Problem {
    let Refusal { kind, code, sqlstate, message, position } = refusal;
    let mut problem = Problem::new(kind, message);
    // The message of what depends on the statement says how to mend it.
    if let ErrorKind::InvalidRequest | ErrorKind::NotFound | ErrorKind::TooLarge = kind {
        problem = problem.next("Change what is asked, as the detail says.");
    }
    // It becomes a part of a URN, and is what programs compare.
    let is_name = |code: &str| {
        !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    if is_name(&code) {
        problem = problem.named(code);
    }
    problem = problem.member("sqlstate", sqlstate);
    match position {
        Some(position) => problem.member("position", position),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn refusals_are_problems_of_their_kind_and_code() {
        let check = |kind, code: &str, position, status: u16, name: &str| {
            let refusal = Refusal {
                kind,
                code: code.to_owned(),
                sqlstate: "42601".to_owned(),
                message: "what is wrong".to_owned(),
                position,
            };
            let problem = problem(refusal);
            assert_eq!(problem.status().as_u16(), status);
            let found: Value = serde_json::from_slice(&problem.to_json()).unwrap();
            assert_eq!(found["type"], format!("urn:aquifer:problem:{name}"));
            assert_eq!(found["detail"], "what is wrong");
            assert_eq!(found["sqlstate"], "42601");
            assert_eq!(found.get("position").cloned(), position.map(|at: u64| json!(at)));
        };
        check(ErrorKind::InvalidRequest, "sql-syntax", Some(8), 400, "sql-syntax");
        check(ErrorKind::NotFound, "unknown-table", None, 404, "unknown-table");
        check(ErrorKind::Throttled, "query-queue-full", None, 429, "query-queue-full");
        check(ErrorKind::TooLarge, "not a name", None, 413, "too-large");
        check(ErrorKind::Internal, "", None, 500, "internal");
    }
}
