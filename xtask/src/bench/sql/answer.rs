//! What a statement is answered with, and whether two answers are the same.

use serde_json::Value;

/// Numbers that are so near to each other are the same: sums of floating-point
/// numbers depend on the order in which they are made.
const RELATIVE_MAX: f64 = 1e-6;
/// The most of a row that is shown.
const SHOWN_MAX: usize = 200;

/// All rows of an answer, and how long it took to have them.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) seconds: f64,
    pub(super) rows: Vec<Vec<Value>>,
}

impl Answer {
    /// How `other` differs in the same order of rows; none if it does not.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        if self.rows.len() != other.rows.len() {
            return Some(format!("{} rows and {}", self.rows.len(), other.rows.len()));
        }
        let mut pairs = self.rows.iter().zip(&other.rows);
        let (one, other) = pairs.find(|(one, other)| !same_row(one, other))?;
        Some(format!("{} and {}", shown(one), shown(other)))
    }
}

fn same_row(one: &[Value], other: &[Value]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
}

fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            if one == other {
                return true;
            }
            let (Some(one), Some(other)) = (one.as_f64(), other.as_f64()) else { return false };
            (one - other).abs() <= RELATIVE_MAX * one.abs().max(other.abs())
        }
        (one, other) => one == other,
    }
}

fn shown(row: &[Value]) -> String {
    let text = Value::from(row).to_string();
    text.chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_differ_in_more_than_the_last_digits() {
        let check = |one: Value, other: Value, is_same: bool| {
            let answer = |rows: &Value| Answer {
                seconds: 0.0,
                rows: serde_json::from_value(rows.clone()).unwrap(),
            };
            let difference = answer(&one).difference(&answer(&other));
            assert_eq!(difference.is_none(), is_same, "{one} {other}: {difference:?}");
        };
        check(json!([]), json!([]), true);
        check(json!([["a", 1, null]]), json!([["a", 1, null]]), true);
        check(json!([[0.1 + 0.2]]), json!([[0.3]]), true);
        check(json!([[2]]), json!([[2.0]]), true);
        check(json!([[1.0]]), json!([[1.1]]), false);
        check(json!([["1"]]), json!([[1]]), false);
        check(json!([[null]]), json!([[0]]), false);
        check(json!([[1], [2]]), json!([[2], [1]]), false);
        check(json!([[1]]), json!([[1], [1]]), false);
        check(json!([[1]]), json!([[1, 2]]), false);
    }
}
