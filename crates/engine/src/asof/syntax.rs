//! The words of an as-of join.
//!
//! | written | rows on the left without a partner |
//! |---|---|
//! | `a ASOF JOIN b ON …` (DuckDB) | are left out |
//! | `a ASOF LEFT JOIN b ON …` (DuckDB) | have nulls |
//! | `a ASOF JOIN b MATCH_CONDITION (…) ON …` (Snowflake) | have nulls |
//!
//! The parser knows the last one alone. Of the others, the word ASOF is given to
//! it as GLOBAL, a word before joins that means nothing here and is refused
//! where it is written; [`written`] turns it back.

use std::fmt::Display;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use aquifer_query::wire::Refusal;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Join, JoinConstraint, JoinOperator, Select, Statement, TableFactor,
    VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::exprs::call;
use crate::refusal::{invalid, position};

/// What the condition of an as-of join is marked with on its way to the plan.
pub(super) const MARK: &str = "asof_condition";

/// Gives the parser the forms that it does not know in words that it does.
///
/// # Errors
/// The word that stands for them is there already.
pub(crate) fn mark_tokens(tokens: &mut [TokenWithSpan], text: &str) -> Result<(), Refusal> {
    for at in 0..tokens.len() {
        let Some(behind) = behind_join(tokens, at).filter(|_| is_behind_table(tokens, at)) else {
            continue;
        };
        match keyword(tokens.get(at)) {
            Keyword::GLOBAL => {
                let start = tokens.get(at).map(|token| token.span.start);
                let refusal = invalid("sql-syntax", "42601", "there are no global joins");
                let position = start.map(|start| position(text, start.line, start.column));
                return Err(Refusal { position, ..refusal });
            }
            Keyword::ASOF if !has_match_condition(tokens, behind) => {
                if let Some(token) = tokens.get_mut(at) {
                    token.token = Token::make_keyword("GLOBAL");
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A statement's text, as-of joins as people write them.
pub(crate) fn written(statement: &impl Display) -> String {
    let mut text = statement.to_string();
    let dialect = PostgreSqlDialect {};
    let Ok(tokens) = Tokenizer::new(&dialect, &text).tokenize_with_location() else { return text };
    let tokens: Vec<_> =
        tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    let marked = (0..tokens.len()).filter(|at| {
        keyword(tokens.get(*at)) == Keyword::GLOBAL
            && behind_join(&tokens, *at).is_some()
            && is_behind_table(&tokens, *at)
    });
    let places: Vec<u64> = marked
        .filter_map(|at| tokens.get(at))
        .map(|token| position(&text, token.span.start.line, token.span.start.column))
        .collect();
    // From behind, so that the places before stay what they are.
    for place in places.into_iter().rev() {
        let chars = usize::try_from(place.saturating_sub(1)).unwrap_or(usize::MAX);
        if let Some((from, _)) = text.char_indices().nth(chars) {
            text.replace_range(from..from + "GLOBAL".len(), "ASOF");
        }
    }
    text
}

/// Where the table's name begins if a join's words stand behind `at`.
fn behind_join(tokens: &[TokenWithSpan], at: usize) -> Option<usize> {
    let mut next = at + 1;
    match keyword(tokens.get(next)) {
        Keyword::INNER => next += 1,
        Keyword::LEFT => {
            next += 1;
            if keyword(tokens.get(next)) == Keyword::OUTER {
                next += 1;
            }
        }
        _ => {}
    }
    (keyword(tokens.get(next)) == Keyword::JOIN).then_some(next + 1)
}

/// Whether a table, or its alias, may end before `at`: elsewhere the word is a
/// name itself.
fn is_behind_table(tokens: &[TokenWithSpan], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
    match before.map(|before| &before.token) {
        Some(Token::RParen) => true,
        Some(Token::Word(word)) => {
            !matches!(
                word.keyword,
                Keyword::FROM | Keyword::JOIN | Keyword::AS | Keyword::LATERAL | Keyword::ONLY
            ) || word.quote_style.is_some()
        }
        _ => false,
    }
}

fn has_match_condition(tokens: &[TokenWithSpan], from: usize) -> bool {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return false,
            Token::RParen => depth -= 1,
            _ if depth > 0 => {}
            _ => match keyword(tokens.get(at)) {
                Keyword::MATCH_CONDITION => return true,
                Keyword::ON | Keyword::USING | Keyword::JOIN | Keyword::WHERE => return false,
                _ => {}
            },
        }
    }
    false
}

fn keyword(token: Option<&TokenWithSpan>) -> Keyword {
    match token.map(|token| &token.token) {
        Some(Token::Word(word)) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// Makes plain joins of as-of joins, whose conditions are marked.
///
/// # Errors
/// A form of them that there is not.
pub(crate) fn mark(statement: &mut Statement) -> Result<(), Refusal> {
    match statement.visit(&mut Marker) {
        ControlFlow::Break(refusal) => Err(refusal),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Marker;

impl VisitorMut for Marker {
    type Break = Refusal;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Refusal> {
        each(select.from.iter_mut().flat_map(|from| &mut from.joins))
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<Refusal> {
        match table {
            TableFactor::NestedJoin { table_with_joins, .. } => each(&mut table_with_joins.joins),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn each<'a>(joins: impl IntoIterator<Item = &'a mut Join>) -> ControlFlow<Refusal> {
    for join in joins {
        match marked(join) {
            Ok(Some(operator)) => (join.join_operator, join.global) = (operator, false),
            Ok(None) => {}
            Err(refusal) => return ControlFlow::Break(refusal),
        }
    }
    ControlFlow::Continue(())
}

fn marked(join: &Join) -> Result<Option<JoinOperator>, Refusal> {
    let on = |constraint: &JoinConstraint| match constraint {
        JoinConstraint::On(condition) => Ok(condition.clone()),
        _ => Err(unknown("it takes ON, and neither USING nor NATURAL")),
    };
    match &join.join_operator {
        JoinOperator::AsOf { match_condition, constraint } => {
            let condition = match constraint {
                JoinConstraint::None => match_condition.clone(),
                keys => both(match_condition.clone(), on(keys)?),
            };
            Ok(Some(JoinOperator::LeftOuter(JoinConstraint::On(condition_call(condition)))))
        }
        _ if !join.global => Ok(None),
        JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => {
            Ok(Some(JoinOperator::Inner(JoinConstraint::On(condition_call(on(constraint)?)))))
        }
        JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
            Ok(Some(JoinOperator::LeftOuter(JoinConstraint::On(condition_call(on(constraint)?)))))
        }
        _ => Err(unknown("it is ASOF JOIN or ASOF LEFT JOIN")),
    }
}

/// What is wrong with an as-of join.
pub(super) fn unknown(why: &str) -> Refusal {
    invalid("asof-join", "42601", format!("this as-of join cannot be done: {why}"))
}

fn both(one: Expr, other: Expr) -> Expr {
    let nested = |expr| Box::new(Expr::Nested(Box::new(expr)));
    Expr::BinaryOp { left: nested(one), op: BinaryOperator::And, right: nested(other) }
}

fn condition_call(condition: Expr) -> Expr {
    call(MARK, vec![condition])
}

/// The function that marks conditions. It is gone before anything runs.
pub(crate) fn condition() -> Arc<ScalarUDF> {
    static CONDITION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        let signature = Signature::exact(vec![DataType::Boolean], Volatility::Volatile);
        Arc::new(ScalarUDF::new_from_impl(Condition { signature }))
    });
    CONDITION.clone()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Condition {
    signature: Signature,
}

impl ScalarUDFImpl for Condition {
    fn name(&self) -> &'static str {
        MARK
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        plan_err!("{MARK} is the condition of an ASOF JOIN and nothing else")
    }
}

#[cfg(test)]
mod tests {
    use aquifer_query::EngineOptions;

    use super::*;
    use crate::sql::Source;

    #[test]
    fn forms_are_told_apart_and_written_as_they_were() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let read = Source::read(text, &EngineOptions::default()).and_then(|it| it.parse());
            let marked = read.and_then(|mut statement| {
                assert_eq!(written(&statement), text);
                mark(&mut statement).map(|()| statement.to_string())
            });
            let found = marked.as_deref().map_err(|refusal| refusal.message.as_str());
            match (found, expected) {
                (Err(message), Err(part)) => assert!(message.contains(part), "{text}: {message}"),
                (found, expected) => assert_eq!(found, expected, "{text}"),
            }
        };
        check(
            "SELECT * FROM a ASOF JOIN b ON a.t >= b.t",
            Ok("SELECT * FROM a INNER JOIN b ON asof_condition(a.t >= b.t)"),
        );
        check(
            "SELECT 'GLOBAL JOIN' FROM a ASOF LEFT JOIN (SELECT 1) AS b ON a.t >= b.t",
            Ok("SELECT 'GLOBAL JOIN' FROM a LEFT OUTER JOIN (SELECT 1) AS b \
                ON asof_condition(a.t >= b.t)"),
        );
        check(
            "SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.t > b.t) ON a.k = b.k",
            Ok("SELECT * FROM a LEFT OUTER JOIN b ON asof_condition((a.t > b.t) AND (a.k = b.k))"),
        );
        check(
            "SELECT * FROM a ASOF JOIN b MATCH_CONDITION (a.t > b.t) ASOF JOIN c ON a.t > c.t",
            Ok("SELECT * FROM a LEFT OUTER JOIN b ON asof_condition(a.t > b.t) \
                INNER JOIN c ON asof_condition(a.t > c.t)"),
        );
        check(
            "SELECT asof FROM asof JOIN b ON asof.x = b.x",
            Ok("SELECT asof FROM asof JOIN b ON asof.x = b.x"),
        );
        for plain in [
            "SELECT * FROM global JOIN b ON global.x = b.x",
            "SELECT * FROM a AS global JOIN b ON global.x = b.x",
        ] {
            check(plain, Ok(plain));
        }
        check("SELECT * FROM a ASOF JOIN b USING(t)", Err("it takes ON"));
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for text in [
            "SELECT * FROM a GLOBAL JOIN b ON a.t >= b.t",
            "SELECT * FROM a ASOF RIGHT JOIN b ON a.t >= b.t",
            "SELECT * FROM a ASOF b",
        ] {
            let read = Source::read(text, &EngineOptions::default()).and_then(|it| it.parse());
            assert_eq!(read.expect_err(text).sqlstate, "42601", "{text}");
        }
    }
}
