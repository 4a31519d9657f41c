//! The language of searches: text → [`Query`].
//!
//! ```text
//! query  = or
//! or     = and { "OR" and }
//! and    = not { ["AND"] not }
//! not    = ("NOT" | "-" | "+") not | "(" or ")" | clause
//! clause = [name ":"] (word | phrase) | name ":" range | name ":" "(" or ")"
//! range  = ("[" | "{") bound "TO" bound ("]" | "}") | (">" | ">=" | "<" | "<=" | "=") bound
//! ```
//!
//! What is wrong is said with its place. Nothing here panics or recurses deeper
//! than [`DEPTH_MAX`], whatever comes in.

use aquifer_chunk::TOKEN_BYTES_MAX;
use aquifer_types::Timestamp;

use crate::lexer::{Lexer, Word};
use crate::pattern::{Pattern, Unusable};
use crate::query::{Bound, Bounds, Leaf, Node, Query, Scalar, Scope, Span};
use crate::{number, time};

/// The longest query in bytes.
pub const QUERY_BYTES_MAX: usize = 8 << 10;
/// How deep parentheses and negations may be nested.
pub const DEPTH_MAX: u32 = 32;
/// The most conditions of a query.
pub const CONDITIONS_MAX: usize = 256;

/// What is wrong with a query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at character {position}")]
pub struct SyntaxError {
    /// Where, in characters from 1.
    pub position: u64,
    /// What, and the mend.
    pub message: String,
}

impl Query {
    /// Understands `text`; an empty one is matched by every record. `now` is
    /// what relative times are counted from.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, SyntaxError> {
        if text.len() > QUERY_BYTES_MAX {
            let message =
                format!("the query has {} bytes, it may have {QUERY_BYTES_MAX}", text.len());
            return Err(SyntaxError { position: 1, message });
        }
        let mut parser = Parser { lexer: Lexer::new(text), now, depth: 0, conditions: 0 };
        parser.lexer.skip_space();
        if parser.lexer.is_at_end() {
            return Ok(Self::everything());
        }
        let root = parser.any(&Scope::Anywhere)?;
        if !parser.lexer.is_at_end() {
            return Err(parser.lexer.error("this ')' closes nothing; to search for it, quote it"));
        }
        Ok(Self { root })
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    now: Timestamp,
    depth: u32,
    conditions: usize,
}

impl Parser<'_> {
    fn any(&mut self, scope: &Scope) -> Result<Node, SyntaxError> {
        let mut parts = vec![self.all(scope)?];
        while self.lexer.take_keyword("OR") {
            parts.push(self.all(scope)?);
        }
        Ok(one_or(parts, Node::Any))
    }

    fn all(&mut self, scope: &Scope) -> Result<Node, SyntaxError> {
        let mut parts = vec![self.not(scope)?];
        loop {
            let is_and = self.lexer.take_keyword("AND");
            let is_over =
                self.lexer.is_at_end() || self.lexer.sees(")") || self.lexer.sees_keyword("OR");
            if is_over && !is_and {
                return Ok(one_or(parts, Node::All));
            }
            parts.push(self.not(scope)?);
        }
    }

    fn not(&mut self, scope: &Scope) -> Result<Node, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let message = format!("the query is nested deeper than {DEPTH_MAX} levels");
            return Err(self.lexer.error(message));
        }
        let node = if self.lexer.take_keyword("NOT") || self.lexer.take_sign('-') {
            Node::Not(Box::new(self.not(scope)?))
        } else if self.lexer.take_sign('+') {
            self.not(scope)?
        } else if self.lexer.sees("(") {
            self.group(scope)?
        } else {
            self.clause(scope)?
        };
        self.depth -= 1;
        self.lexer.skip_space();
        Ok(node)
    }

    /// What stands between parentheses.
    fn group(&mut self, scope: &Scope) -> Result<Node, SyntaxError> {
        let open = self.lexer.position();
        self.lexer.take("(");
        self.lexer.skip_space();
        let node = self.any(scope)?;
        if !self.lexer.take(")") {
            return Err(Lexer::error_at(open, "this '(' is not closed"));
        }
        Ok(node)
    }

    fn clause(&mut self, scope: &Scope) -> Result<Node, SyntaxError> {
        let start = self.lexer.position();
        self.conditions += 1;
        if self.conditions > CONDITIONS_MAX {
            let message = format!("the query has more than {CONDITIONS_MAX} conditions");
            return Err(self.lexer.error(message));
        }
        for keyword in ["AND", "OR"] {
            if self.lexer.sees_keyword(keyword) {
                let message = format!(
                    "{keyword} needs something on both sides; to search for the word, quote it"
                );
                return Err(self.lexer.error(message));
            }
        }
        if self.lexer.is_at_end() || self.lexer.sees(")") {
            return Err(self.lexer.error("something to search for is missing here"));
        }
        if let Some(name) = self.lexer.take_name()? {
            if *scope != Scope::Anywhere {
                let message = format!("the field '{name}' stands within another field's group");
                return Err(Lexer::error_at(start, message));
            }
            return self.field(&name, start);
        }
        if self.lexer.sees("\"") {
            return self.phrase(scope, start);
        }
        let word = self.lexer.word("")?;
        self.word(scope, &word, start)
    }

    /// What follows `name:`.
    fn field(&mut self, name: &str, start: u64) -> Result<Node, SyntaxError> {
        if let Some(kind) = Place::named(name) {
            return self.place(kind);
        }
        let scope = scope_named(name, start)?;
        let here = self.lexer.position();
        if self.lexer.is_at_end() || self.lexer.sees_space() || self.lexer.sees(")") {
            let message = format!(
                "the value of '{name}' must follow the ':' directly; to search for a text with \
                 a ':', quote it"
            );
            return Err(self.lexer.error(message));
        }
        if self.lexer.sees("(") {
            return self.group(&scope);
        }
        if let Some((from, to)) = self.range()? {
            return Ok(Node::Leaf(Leaf::Within { scope, bounds: bounds(from, to) }));
        }
        if self.lexer.take("=") {
            let word = self.bound("")?;
            let scalar = if word.is_quoted { None } else { scalar(&word.text()) };
            return Ok(Node::Leaf(Leaf::Exact { scope, text: word.text(), scalar }));
        }
        if self.lexer.sees("\"") {
            return self.phrase(&scope, here);
        }
        let word = self.lexer.word("")?;
        if word.is_star() {
            return Ok(Node::Leaf(Leaf::Exists(scope)));
        }
        self.word(&scope, &word, here)
    }

    /// What follows `_timestamp:`, `_partition:` or `_offset:`.
    fn place(&mut self, place: Place) -> Result<Node, SyntaxError> {
        if self.lexer.sees("(") {
            let message =
                format!("'{}' takes one value or range; join several with OR", place.name());
            return Err(self.lexer.error(message));
        }
        if let Some((from, to)) = self.range()? {
            let first = match from {
                None => i64::MIN,
                Some((word, at, is_included)) => {
                    let span = self.moment(place, &word, at)?;
                    if is_included { span.first } else { span.last.saturating_add(1) }
                }
            };
            let last = match to {
                None => i64::MAX,
                Some((word, at, is_included)) => {
                    let span = self.moment(place, &word, at)?;
                    if is_included { span.last } else { span.first.saturating_sub(1) }
                }
            };
            return Ok(Node::Leaf(place.leaf(Span { first, last })));
        }
        self.lexer.take("=");
        let at = self.lexer.position();
        let word = self.bound("")?;
        if word.is_star() {
            return Ok(Node::Everything);
        }
        let span = self.moment(place, &word, at)?;
        Ok(Node::Leaf(place.leaf(span)))
    }

    fn moment(&self, place: Place, word: &Word, at: u64) -> Result<Span, SyntaxError> {
        let text = word.text();
        match place {
            Place::Timestamp => time::parse(&text, self.now).ok_or_else(|| {
                Lexer::error_at(at, format!("'{}' is no time; {}", short(&text), time::FORM))
            }),
            _ => match text.parse::<i64>() {
                Ok(number) => Ok(Span { first: number, last: number }),
                Err(_) => {
                    let what = place.name();
                    let message = format!("'{}' is no number, as '{what}' needs", short(&text));
                    Err(Lexer::error_at(at, message))
                }
            },
        }
    }

    /// A range in brackets or with a sign, if there is one. Each bound has its
    /// word, where it stands, and whether it belongs to the range.
    #[allow(clippy::type_complexity, reason = "two ends, each of them optional")]
    fn range(
        &mut self,
    ) -> Result<Option<(Option<(Word, u64, bool)>, Option<(Word, u64, bool)>)>, SyntaxError> {
        for (sign, is_from, is_included) in
            [(">=", true, true), ("<=", false, true), (">", true, false), ("<", false, false)]
        {
            if self.lexer.take(sign) {
                let at = self.lexer.position();
                let bound = Some((self.bound("")?, at, is_included));
                return Ok(Some(if is_from { (bound, None) } else { (None, bound) }));
            }
        }
        let open = self.lexer.position();
        let from_included = if self.lexer.take("[") {
            true
        } else if self.lexer.take("{") {
            false
        } else {
            return Ok(None);
        };
        self.lexer.skip_space();
        let from_at = self.lexer.position();
        let from = self.bound("]}")?;
        self.lexer.skip_space();
        if !self.lexer.take_keyword("TO") {
            return Err(self.lexer.error("a range is written as [from TO to]; TO is missing here"));
        }
        let to_at = self.lexer.position();
        let to = self.bound("]}")?;
        self.lexer.skip_space();
        let to_included = if self.lexer.take("]") {
            true
        } else if self.lexer.take("}") {
            false
        } else {
            return Err(Lexer::error_at(open, "this range is not closed by ']' or '}'"));
        };
        let end =
            |word: Word, at, is_included| (!word.is_star()).then_some((word, at, is_included));
        Ok(Some((end(from, from_at, from_included), end(to, to_at, to_included))))
    }

    /// A value as it stands: quoted, or up to a space, a parenthesis, or one of
    /// `ends`.
    fn bound(&mut self, ends: &str) -> Result<Word, SyntaxError> {
        if self.lexer.sees("\"") {
            return self.lexer.quoted();
        }
        let word = self.lexer.word(ends)?;
        if word.is_empty() {
            return Err(self.lexer.error("a value is missing here"));
        }
        Ok(word)
    }

    fn phrase(&mut self, scope: &Scope, start: u64) -> Result<Node, SyntaxError> {
        let word = self.lexer.quoted()?;
        let pattern = Pattern::of_text(&word.text());
        let pattern = pattern.map_err(|why| unusable(why, &word, start))?;
        Ok(Node::Leaf(Leaf::Text { scope: scope.clone(), pattern, scalar: None }))
    }

    fn word(&mut self, scope: &Scope, word: &Word, start: u64) -> Result<Node, SyntaxError> {
        if word.is_star() && *scope == Scope::Anywhere {
            return Ok(Node::Everything);
        }
        let is_field = matches!(scope, Scope::Field(_));
        let scalar = if is_field { scalar(&word.text()) } else { None };
        let pattern = Pattern::of_parts(&word.parts);
        let pattern = pattern.map_err(|why| unusable(why, word, start))?;
        Ok(Node::Leaf(Leaf::Text { scope: scope.clone(), pattern, scalar }))
    }
}

/// A part of a record that is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Timestamp,
    Partition,
    Offset,
}

impl Place {
    fn named(name: &str) -> Option<Self> {
        [Self::Timestamp, Self::Partition, Self::Offset]
            .into_iter()
            .find(|place| place.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Timestamp => "_timestamp",
            Self::Partition => "_partition",
            Self::Offset => "_offset",
        }
    }

    const fn leaf(self, span: Span) -> Leaf {
        match self {
            Self::Timestamp => Leaf::Timestamp(span),
            Self::Partition => Leaf::Partition(span),
            Self::Offset => Leaf::Offset(span),
        }
    }
}

fn scope_named(name: &str, start: u64) -> Result<Scope, SyntaxError> {
    Ok(match name {
        "_key" => Scope::Key,
        "_value" => Scope::Value,
        "_headers" => Scope::Headers,
        "_appended" => {
            let message = "'_appended' cannot be searched; '_timestamp' can";
            return Err(Lexer::error_at(start, message));
        }
        _ => match name.strip_prefix("_headers.") {
            Some(header) => Scope::Header(header.to_owned()),
            None => Scope::Field(name.to_owned()),
        },
    })
}

fn bounds(from: Option<(Word, u64, bool)>, to: Option<(Word, u64, bool)>) -> Bounds {
    let is_number = |end: &Option<(Word, u64, bool)>| {
        end.as_ref().is_none_or(|(word, ..)| !word.is_quoted && number::is_number(&word.text()))
    };
    let are_numbers = (from.is_some() || to.is_some()) && is_number(&from) && is_number(&to);
    let end = |end: Option<(Word, u64, bool)>| {
        end.map(|(word, _, is_included)| Bound { value: word.text(), is_included })
    };
    let (from, to) = (end(from), end(to));
    if are_numbers { Bounds::Numbers { from, to } } else { Bounds::Texts { from, to } }
}

fn scalar(text: &str) -> Option<Scalar> {
    match text {
        "true" => Some(Scalar::True),
        "false" => Some(Scalar::False),
        "null" => Some(Scalar::Null),
        _ => number::canonical(text).map(Scalar::Number),
    }
}

fn unusable(why: Unusable, word: &Word, at: u64) -> SyntaxError {
    let text = short(&word.text());
    let message = match why {
        Unusable::Empty => {
            format!("'{text}' has no letter or digit, and nothing else can be searched for")
        }
        Unusable::TooLong => {
            format!("'{text}' has a '*' in a word of more than {TOKEN_BYTES_MAX} bytes")
        }
        Unusable::Reserved => format!("'{text}' has a '*' beside a letter that cannot be there"),
    };
    Lexer::error_at(at, message)
}

fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

fn one_or(mut parts: Vec<Node>, join: fn(Vec<Node>) -> Node) -> Node {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => Node::Everything,
    }
}
