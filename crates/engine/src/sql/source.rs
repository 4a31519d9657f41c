//! A statement's text, as bounded tokens that parse into one statement.
//!
//! The dialect is PostgreSQL's. Two things are changed in the tokens, before
//! anything is parsed: a reserved word beside a dot is a name (`user.username`),
//! and a name without quotes is spelled as the column or table that it means,
//! whatever its case. Nothing here knows what tables there are.

use std::collections::HashMap;

use aquifer_query::EngineOptions;
use aquifer_query::wire::Refusal;
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Word};

use crate::asof;
use crate::near;
use crate::refusal::{invalid, of_parser, position, too_complex};

/// The most operators in a row, between commas and parentheses: each is a step
/// of recursion in what comes later. A list of values is written with IN.
const OPERATORS_IN_A_ROW_MAX: usize = 1000;
/// How deep functions may be called within functions: what a planner does for
/// each grows with those within it.
const CALLS_DEPTH_MAX: usize = 16;
/// How deep statements may stand within statements: a planner walks through the
/// inner ones anew for each of those around them.
const SUBQUERIES_DEPTH_MAX: usize = 16;
/// How deep the parser may call itself; each parenthesis costs it several calls.
const PARSER_DEPTH_MAX: usize = 300;

/// A statement's tokens.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    text: String,
    tokens: Vec<TokenWithSpan>,
}

impl Source {
    /// Reads `text`, which is bounded in bytes, tokens and depth.
    pub(crate) fn read(text: &str, options: &EngineOptions) -> Result<Self, Refusal> {
        if text.len() > options.statement_bytes_max {
            return Err(too_complex(format!(
                "the statement has {} bytes; at most {} can be",
                text.len(),
                options.statement_bytes_max
            )));
        }
        let tokens = Tokenizer::new(&PostgreSqlDialect {}, text)
            .tokenize_with_location()
            .map_err(|error| of_parser(&ParserError::TokenizerError(error.to_string()), text))?;
        let mut tokens: Vec<_> = tokens
            .into_iter()
            .filter(|token| !matches!(token.token, Token::Whitespace(_)))
            .flat_map(split_sign)
            .collect();
        check_bounds(&tokens, text, options)?;
        free_names_beside_dots(&mut tokens);
        asof::mark_tokens(&mut tokens, text)?;
        Ok(Self { text: text.to_owned(), tokens })
    }

    /// The text that was read.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Spells names without quotes as `known` does: exactly where there is one,
    /// else the only one that differs by case. Names that are not known keep the
    /// spelling that they are first met with, so that an alias is found again.
    /// `user` is a name where it is known, and else who asks.
    pub(crate) fn spell<'a>(&mut self, known: impl IntoIterator<Item = &'a str>) {
        let mut spellings: HashMap<String, Vec<String>> = HashMap::new();
        let mut add = |name: &str| {
            let spelled = spellings.entry(name.to_lowercase()).or_default();
            if !spelled.iter().any(|known| known == name) {
                spelled.push(name.to_owned());
            }
        };
        let mut has_user = false;
        for name in known {
            has_user |= name.eq_ignore_ascii_case("user");
            add(name);
        }
        for token in &self.tokens {
            if let Token::Word(Word { value, quote_style: Some(_), .. }) = &token.token {
                add(value);
            }
        }
        for token in &mut self.tokens {
            let Token::Word(word @ Word { quote_style: None, .. }) = &mut token.token else {
                continue;
            };
            if has_user && word.keyword == Keyword::USER {
                word.keyword = Keyword::NoKeyword;
            }
            let folded = word.value.to_lowercase();
            let spelled = spellings.entry(folded.clone()).or_default();
            match spelled.as_slice() {
                [] => spelled.push(word.value.clone()),
                [only] => word.value.clone_from(only),
                many if many.contains(&word.value) => {}
                many if many.contains(&folded) => word.value = folded,
                _ => {}
            }
        }
    }

    /// The one statement that the tokens are.
    pub(crate) fn parse(&self) -> Result<Statement, Refusal> {
        let dialect = PostgreSqlDialect {};
        let mut parser = Parser::new(&dialect)
            .with_recursion_limit(PARSER_DEPTH_MAX)
            .with_tokens_with_locations(self.tokens.clone());
        let mut statements = parser
            .parse_statements()
            .map_err(|error| self.with_hint(of_parser(&error, &self.text)))?;
        let statement = statements.pop();
        match statement {
            Some(statement) if statements.is_empty() => Ok(statement),
            Some(_) => Err(invalid(
                "statement-count",
                "42601",
                "more than one statement; send them one by one",
            )),
            None => Err(invalid("statement-count", "42601", "there is no statement")),
        }
    }

    /// `FROM audit-log` is a subtraction to SQL: says how to write it.
    fn with_hint(&self, mut refusal: Refusal) -> Refusal {
        for (at, lead) in self.tokens.iter().enumerate() {
            let is_lead = matches!(&lead.token, Token::Word(word) if matches!(
                word.keyword,
                Keyword::FROM | Keyword::JOIN | Keyword::DESCRIBE
            ));
            if is_lead && let Some(name) = self.dashed_name(at + 1) {
                refusal.message.push_str(&format!(
                    "; a name with a dash is written in quotes: {}",
                    near::quoted(&name)
                ));
                break;
            }
        }
        refusal
    }

    /// The name from the token `at` on, if it has a dash: words and numbers with
    /// dots and dashes between them.
    fn dashed_name(&self, at: usize) -> Option<String> {
        let mut name = String::new();
        let mut is_part_due = true;
        for token in self.tokens.get(at..)? {
            match &token.token {
                Token::Word(word) if is_part_due => name.push_str(&word.value),
                Token::Number(number, _) if is_part_due => {
                    name.push_str(number);
                    // `2.` is a number too.
                    if number.ends_with('.') {
                        continue;
                    }
                }
                Token::Minus if !is_part_due => name.push('-'),
                Token::Period if !is_part_due => name.push('.'),
                _ => break,
            }
            is_part_due = !is_part_due;
        }
        (name.contains('-') && !is_part_due).then_some(name)
    }
}

/// Refuses what would cost too much to look at, let alone to plan.
fn check_bounds(
    tokens: &[TokenWithSpan],
    text: &str,
    options: &EngineOptions,
) -> Result<(), Refusal> {
    if tokens.len() > options.statement_tokens_max {
        return Err(too_complex(format!(
            "the statement has more than {} words, signs and values",
            options.statement_tokens_max
        )));
    }
    let refused = |token: &TokenWithSpan, message: String| {
        let mut refusal = too_complex(message);
        refusal.position = Some(position(text, token.span.start.line, token.span.start.column));
        Err(refusal)
    };
    if deepest_calls(tokens) > CALLS_DEPTH_MAX {
        return Err(too_complex(format!(
            "functions are called within functions deeper than {CALLS_DEPTH_MAX}"
        )));
    }
    if deepest_subqueries(tokens) > SUBQUERIES_DEPTH_MAX {
        return Err(too_complex(format!(
            "statements stand within statements deeper than {SUBQUERIES_DEPTH_MAX}"
        )));
    }
    let mut levels = vec![Level::default()];
    for token in tokens {
        match &token.token {
            opening if is_opening(opening) => {
                if levels.len() > options.statement_depth_max {
                    let max = options.statement_depth_max;
                    return refused(token, format!("parentheses are nested deeper than {max}"));
                }
                deepen(&mut levels);
                levels.push(Level::default());
            }
            closing if is_closing(closing) && levels.len() > 1 => {
                let inner = levels.pop().map_or(0, |inner| inner.deepest.max(inner.depth()));
                if let Some(level) = levels.last_mut() {
                    level.within = level.within.max(inner);
                }
            }
            Token::Comma | Token::SemiColon => {
                if let Some(level) = levels.last_mut() {
                    let deepest = level.deepest.max(level.depth());
                    *level = Level { deepest, ..Level::default() };
                }
            }
            other if is_operator(other) => deepen(&mut levels),
            _ => {}
        }
        if levels.last().is_some_and(|level| level.depth() > OPERATORS_IN_A_ROW_MAX) {
            return refused(
                token,
                format!(
                    "more than {OPERATORS_IN_A_ROW_MAX} operators in a row, those in parentheses \
                     counted in; many values are compared with IN (…)"
                ),
            );
        }
    }
    Ok(())
}

/// How deep the tree gets that a statement's parenthesis stands for.
#[derive(Default)]
struct Level {
    /// Operators in a row since the last comma.
    run: usize,
    /// The deepest of what lies in parentheses since then.
    within: usize,
    /// The deepest before it.
    deepest: usize,
}

impl Level {
    fn depth(&self) -> usize {
        self.run + self.within
    }
}

fn deepen(levels: &mut [Level]) {
    if let Some(level) = levels.last_mut() {
        level.run += 1;
    }
}

/// How deep parentheses behind names lie in each other.
fn deepest_calls(tokens: &[TokenWithSpan]) -> usize {
    let mut open: Vec<bool> = Vec::new();
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    let mut is_behind_name = false;
    for token in tokens {
        match &token.token {
            Token::LParen => {
                open.push(is_behind_name);
                depth += usize::from(is_behind_name);
                deepest = deepest.max(depth);
            }
            Token::RParen if open.pop() == Some(true) => depth -= 1,
            _ => {}
        }
        is_behind_name = matches!(&token.token, Token::Word(word) if !matches!(
            word.keyword,
            Keyword::AND | Keyword::AS | Keyword::BY | Keyword::ELSE | Keyword::EXISTS
                | Keyword::FROM | Keyword::IN | Keyword::JOIN | Keyword::NOT | Keyword::ON
                | Keyword::OR | Keyword::OVER | Keyword::SELECT | Keyword::THEN | Keyword::UNION
                | Keyword::WHEN | Keyword::WHERE
        ));
    }
    deepest
}

/// How deep parentheses lie in each other that a statement stands in.
fn deepest_subqueries(tokens: &[TokenWithSpan]) -> usize {
    let mut open: Vec<bool> = Vec::new();
    let (mut depth, mut deepest) = (0_usize, 0_usize);
    for (at, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen => {
                let is_statement = matches!(
                    tokens.get(at + 1).map(|next| &next.token),
                    Some(Token::Word(word)) if matches!(word.keyword, Keyword::SELECT | Keyword::WITH)
                );
                open.push(is_statement);
                depth += usize::from(is_statement);
                deepest = deepest.max(depth);
            }
            Token::RParen if open.pop() == Some(true) => depth -= 1,
            _ => {}
        }
    }
    deepest
}

fn is_opening(token: &Token) -> bool {
    match token {
        Token::LParen | Token::LBracket | Token::LBrace => true,
        Token::Word(word) => word.keyword == Keyword::CASE,
        _ => false,
    }
}

fn is_closing(token: &Token) -> bool {
    match token {
        Token::RParen | Token::RBracket | Token::RBrace => true,
        Token::Word(word) => word.keyword == Keyword::END,
        _ => false,
    }
}

/// Whether each of its kind in a row makes the statement's tree deeper.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::IN
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::COLLATE
                | Keyword::AT
                | Keyword::JOIN
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::EXPLAIN
                | Keyword::NOTNULL
        ),
        Token::EOF
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::Comma
        | Token::Whitespace(_)
        | Token::LParen
        | Token::RParen
        | Token::Placeholder(_)
        | Token::SemiColon => false,
        // Periods are signs too: a name of many parts is no deeper, but a
        // thousand parts are no name.
        _ => true,
    }
}

/// `a>-1` compares with minus one, and `a->>-1` is the last element: as in
/// PostgreSQL, an operator of such signs does not end in a minus or plus, which
/// the tokeniser takes for a part of it.
fn split_sign(token: TokenWithSpan) -> Vec<TokenWithSpan> {
    let split = match &token.token {
        Token::CustomBinaryOperator(operator) => {
            let base = operator.trim_end_matches(['-', '+']);
            known_operator(base).zip(operator.get(base.len()..))
        }
        _ => None,
    };
    let Some((base, signs)) = split else { return vec![token] };
    let signs = signs.chars().map(|sign| if sign == '-' { Token::Minus } else { Token::Plus });
    std::iter::once(base).chain(signs).map(|part| TokenWithSpan::new(part, token.span)).collect()
}

fn known_operator(operator: &str) -> Option<Token> {
    Some(match operator {
        "<" => Token::Lt,
        "<=" => Token::LtEq,
        ">" => Token::Gt,
        ">=" => Token::GtEq,
        "<>" => Token::Neq,
        "<<" => Token::ShiftLeft,
        ">>" => Token::ShiftRight,
        "->" => Token::Arrow,
        "->>" => Token::LongArrow,
        _ => return None,
    })
}

/// A reserved word before or behind a dot is a name.
fn free_names_beside_dots(tokens: &mut [TokenWithSpan]) {
    for at in 0..tokens.len() {
        let is_dot = |token: Option<&TokenWithSpan>| {
            token.is_some_and(|token| matches!(token.token, Token::Period))
        };
        let beside = is_dot(tokens.get(at + 1)) || at > 0 && is_dot(tokens.get(at - 1));
        if let Some(TokenWithSpan { token: Token::Word(word), .. }) = tokens.get_mut(at)
            && beside
            && word.quote_style.is_none()
        {
            word.keyword = Keyword::NoKeyword;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Statement, Refusal> {
        Source::read(text, &EngineOptions::default())?.parse()
    }

    #[test]
    fn one_statement_is_read_and_nothing_else_is() {
        let check = |text: &str, expected: Result<&str, (&str, Option<u64>)>| {
            let found = read(text);
            match (&found, expected) {
                (Ok(statement), Ok(expected)) => assert_eq!(statement.to_string(), expected),
                (Err(refusal), Err((code, place))) => {
                    assert_eq!((refusal.code.as_str(), refusal.position), (code, place), "{text}");
                }
                _ => panic!("{text}: {found:?}"),
            }
        };
        check("select 1;", Ok("SELECT 1"));
        check("SELECT user.username FROM t", Ok("SELECT user.username FROM t"));
        check("SELECT t.order, t.select FROM t", Ok("SELECT t.order, t.select FROM t"));
        check("SELECT a->>'x' = 'y'", Ok("SELECT a ->> 'x' = 'y'"));
        check("SELECT a>-1, a<=-1, a->-1, a->>-1", Ok("SELECT a > -1, a <= -1, a -> -1, a ->> -1"));
        check("SELECT a=-1, a*-1, a<>-1", Ok("SELECT a = -1, a * -1, a <> -1"));
        check("", Err(("statement-count", None)));
        check(" ; ; ", Err(("statement-count", None)));
        check("SELECT 1; SELECT 2", Err(("statement-count", None)));
        check("SELECT\n  )", Err(("sql-syntax", Some(10))));
        check("SELECT 'open", Err(("sql-syntax", Some(8))));
        check(&"(".repeat(200), Err(("statement-too-complex", Some(129))));
    }

    #[test]
    fn what_is_too_long_or_deep_is_refused_quickly() {
        let check = |text: String, code: &str| {
            let refusal = read(&text).expect_err("it is too much");
            assert_eq!(refusal.code, code, "{}", refusal.message);
        };
        check(format!("SELECT '{}'", "x".repeat(10 << 20)), "statement-too-complex");
        check(format!("SELECT 1 {}", "OR 1 = 1 ".repeat(10_000)), "statement-too-complex");
        check(format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(10_000)), "statement-too-complex");
        check(format!("SELECT {} 1", "NOT ".repeat(10_000)), "statement-too-complex");
        check(format!("SELECT {} 1", "- ".repeat(10_000)), "statement-too-complex");
        check(format!("SELECT 1{}", "::int".repeat(10_000)), "statement-too-complex");
        check(format!("SELECT a{}", "[1]".repeat(10_000)), "statement-too-complex");
        check(format!("SELECT a{}", ".a".repeat(10_000)), "statement-too-complex");
        check(format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000)), "statement-too-complex");
        check(format!("SELECT {}", "1,".repeat(200_000)), "statement-too-complex");
        check(
            format!("SELECT {} 1 {}", "CASE WHEN true THEN ".repeat(990), "END ".repeat(990)),
            "statement-too-complex",
        );
        check(format!("{} SELECT 1", "EXPLAIN ".repeat(2000)), "statement-too-complex");
    }

    #[test]
    fn names_are_spelled_as_they_are_known() {
        let check = |text: &str, known: &[&str], expected: &str| {
            let mut source = Source::read(text, &EngineOptions::default()).expect("it is read");
            source.spell(known.iter().copied());
            assert_eq!(source.parse().expect("it parses").to_string(), expected);
        };
        check("SELECT VERB FROM Audit", &["verb", "audit"], "SELECT verb FROM audit");
        check("SELECT VERB FROM t", &["Verb", "verb"], "SELECT verb FROM t");
        check("SELECT Verb FROM t", &["Verb", "verb"], "SELECT Verb FROM t");
        check("SELECT \"VERB\" FROM t", &["verb"], "SELECT \"VERB\" FROM t");
        check(
            "SELECT count(*) AS Total FROM t ORDER BY total",
            &["t"],
            "SELECT count(*) AS Total FROM t ORDER BY Total",
        );
        check("SELECT USER.Username FROM t", &["user", "username"], "SELECT user.username FROM t");
        check("SELECT user FROM t", &["user"], "SELECT user FROM t");
    }

    #[test]
    fn a_dash_in_a_name_is_explained() {
        let refusal = read("SELECT * FROM audit-log WHERE x").expect_err("a dash");
        assert!(refusal.message.ends_with("\"audit-log\""), "{}", refusal.message);
        let refusal = read("SELECT 1 FROM shop.eu-west-2.orders").expect_err("a dash");
        assert!(refusal.message.ends_with("\"shop.eu-west-2.orders\""), "{}", refusal.message);
    }

    #[test]
    fn fuzz_statement_source() {
        let corpus = [
            b"SELECT user.username, count(*) FROM audit WHERE _value->>'verb' = 'delete' GROUP BY 1".to_vec(),
            b"WITH a AS (SELECT 1) SELECT * FROM a JOIN \"b-c\" ON a.x = b.y".to_vec(),
            b"CREATE OR REPLACE VIEW v AS SELECT * FROM t; EXPLAIN ANALYZE VALUES (1, $1)".to_vec(),
        ];
        let options = EngineOptions { statement_bytes_max: 4096, ..EngineOptions::default() };
        aquifer_testkit::fuzz("statement_source", 0.3, &corpus, |bytes| {
            if let Ok(mut source) = Source::read(&String::from_utf8_lossy(bytes), &options) {
                source.spell(["verb", "audit"]);
                let _ = source.parse();
            }
        });
    }
}
