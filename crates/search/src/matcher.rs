//! Decides whether a record matches a query, and says what in it does.
//!
//! The one place that knows what a query means for a record: the tail, chunks
//! without an index, and what an index proposes all go through it. It works on
//! borrowed bytes. Most records are decided by the bytes that they lack
//! ([`crate::literal`]); only the rest is cut into words.

use std::ops::Range;

use aquifer_chunk::{Row, tokens, tokens_of_json_string, unescaped};
use aquifer_types::{PartitionIndex, Record};

use crate::json::{self, Value};
use crate::literal::Literal;
use crate::number;
use crate::query::{Bound, Bounds, Leaf, Node, Query, Scalar, Scope};

/// The most ranges that one record is marked with, the first ones.
const MARKS_MAX: usize = 1_000;

/// Takes a header's key and value; false where it wants no more.
pub type EachHeader<'a> = &'a mut dyn FnMut(&[u8], Option<&[u8]>) -> bool;

/// What can be searched.
pub trait Searchable {
    /// Its timestamp in ms, its partition, its offset.
    fn place(&self) -> (i64, i64, i64);
    /// Its key.
    fn key(&self) -> Option<&[u8]>;
    /// Its value.
    fn value(&self) -> Option<&[u8]>;
    /// Calls `each` with keys and values of its headers, until it answers false.
    fn each_header(&self, each: EachHeader<'_>);
}

impl Searchable for (PartitionIndex, &Record) {
    fn place(&self) -> (i64, i64, i64) {
        (self.1.timestamp.0, i64::from(self.0.get()), self.1.offset.0)
    }

    fn key(&self) -> Option<&[u8]> {
        self.1.key.as_deref()
    }

    fn value(&self) -> Option<&[u8]> {
        self.1.value.as_deref()
    }

    fn each_header(&self, each: EachHeader<'_>) {
        for header in &self.1.headers {
            if !each(&header.key, header.value.as_deref()) {
                return;
            }
        }
    }
}

impl Searchable for (PartitionIndex, Row<'_>) {
    fn place(&self) -> (i64, i64, i64) {
        (self.1.timestamp().0, i64::from(self.0.get()), self.1.offset().0)
    }

    fn key(&self) -> Option<&[u8]> {
        self.1.key()
    }

    fn value(&self) -> Option<&[u8]> {
        self.1.value()
    }

    fn each_header(&self, each: EachHeader<'_>) {
        for (key, value) in self.1.headers() {
            if !each(key, value) {
                return;
            }
        }
    }
}

/// A part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Its key.
    Key,
    /// The key of the header in this place.
    HeaderKey(usize),
    /// The value of the header in this place.
    HeaderValue(usize),
    /// Its value.
    Value,
}

/// What matched in one part of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// Which part.
    pub part: Part,
    /// Ranges of its bytes, in order, apart from each other.
    pub ranges: Vec<Range<usize>>,
}

/// A query that is ready to be put to records. Shared by all who read.
#[derive(Debug)]
pub struct Matcher {
    root: Compiled,
    leaves: Vec<CompiledLeaf>,
    wants_fields: bool,
}

/// Memory that one reader uses for record after record.
#[derive(Debug, Default)]
pub struct Scratch {
    words: Words,
    found: Vec<bool>,
}

/// A condition with its leaves by number.
#[derive(Debug)]
enum Compiled {
    Known(bool),
    All(Vec<Compiled>),
    Any(Vec<Compiled>),
    Not(Box<Compiled>),
    Leaf(usize),
}

#[derive(Debug)]
struct CompiledLeaf {
    leaf: Leaf,
    literal: Option<Literal>,
    /// Whether a match of it makes the record match, not the lack of one.
    is_wanted: bool,
}

/// What is known before words are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Yes,
    No,
    Open,
}

impl Matcher {
    /// Makes `query` ready.
    #[must_use]
    pub fn new(query: &Query) -> Self {
        let mut leaves = Vec::new();
        let root = compile(&query.root, true, &mut leaves);
        let wants_fields = leaves.iter().any(|leaf| leaf.leaf.field().is_some());
        Self { root, leaves, wants_fields }
    }

    /// Whether the record matches.
    pub fn matches(&self, record: &impl Searchable, scratch: &mut Scratch) -> bool {
        match self.quick(&self.root, record) {
            Verdict::Yes => true,
            Verdict::No => false,
            Verdict::Open => self.matches_slowly(record, scratch),
        }
    }

    /// The same, by a look at every word.
    pub(crate) fn matches_slowly(&self, record: &impl Searchable, scratch: &mut Scratch) -> bool {
        scratch.found.clear();
        scratch.found.resize(self.leaves.len(), false);
        self.look(record, scratch, None);
        self.decide(&self.root, &scratch.found)
    }

    /// What in a record that matches makes it do so.
    pub fn marks(&self, record: &impl Searchable, scratch: &mut Scratch) -> Vec<Marks> {
        let mut marks = Vec::new();
        scratch.found.clear();
        scratch.found.resize(self.leaves.len(), false);
        self.look(record, scratch, Some(&mut marks));
        marks.sort_by_key(|(part, range): &(Part, Range<usize>)| (*part, range.start, range.end));
        marks.truncate(MARKS_MAX);
        let mut joined: Vec<Marks> = Vec::new();
        for (part, range) in marks {
            match joined.last_mut() {
                Some(last) if last.part == part => match last.ranges.last_mut() {
                    Some(before) if range.start <= before.end => {
                        before.end = before.end.max(range.end);
                    }
                    _ => last.ranges.push(range),
                },
                _ => joined.push(Marks { part, ranges: vec![range] }),
            }
        }
        joined
    }

    /// Decides by place, and by the bytes that are not there.
    fn quick(&self, node: &Compiled, record: &impl Searchable) -> Verdict {
        match node {
            Compiled::Known(true) => Verdict::Yes,
            Compiled::Known(false) => Verdict::No,
            Compiled::Not(part) => match self.quick(part, record) {
                Verdict::Yes => Verdict::No,
                Verdict::No => Verdict::Yes,
                Verdict::Open => Verdict::Open,
            },
            Compiled::All(parts) => {
                let mut verdict = Verdict::Yes;
                for part in parts {
                    match self.quick(part, record) {
                        Verdict::No => return Verdict::No,
                        Verdict::Open => verdict = Verdict::Open,
                        Verdict::Yes => {}
                    }
                }
                verdict
            }
            Compiled::Any(parts) => {
                let mut verdict = Verdict::No;
                for part in parts {
                    match self.quick(part, record) {
                        Verdict::Yes => return Verdict::Yes,
                        Verdict::Open => verdict = Verdict::Open,
                        Verdict::No => {}
                    }
                }
                verdict
            }
            Compiled::Leaf(number) => {
                self.leaves.get(*number).map_or(Verdict::Open, |leaf| leaf.quick(record))
            }
        }
    }

    fn decide(&self, node: &Compiled, found: &[bool]) -> bool {
        match node {
            Compiled::Known(known) => *known,
            Compiled::All(parts) => parts.iter().all(|part| self.decide(part, found)),
            Compiled::Any(parts) => parts.iter().any(|part| self.decide(part, found)),
            Compiled::Not(part) => !self.decide(part, found),
            Compiled::Leaf(number) => found.get(*number).copied().unwrap_or(false),
        }
    }

    /// Finds out which leaves hold; with `marks`, also where.
    fn look(
        &self,
        record: &impl Searchable,
        scratch: &mut Scratch,
        mut marks: Option<&mut Vec<(Part, Range<usize>)>>,
    ) {
        let Scratch { words, found } = scratch;
        let (timestamp, partition, offset) = record.place();
        for (leaf, found) in self.leaves.iter().zip(found.iter_mut()) {
            *found = match leaf.leaf {
                Leaf::Timestamp(span) => span.contains(timestamp),
                Leaf::Partition(span) => span.contains(partition),
                Leaf::Offset(span) => span.contains(offset),
                _ => false,
            };
        }
        let mut part = |part, name: &[u8], bytes: &[u8]| {
            let mut at = Look { part, name, bytes, words, marks: marks.as_deref_mut() };
            at.look(&self.leaves, found);
        };
        if let Some(key) = record.key() {
            part(Part::Key, &[], key);
        }
        let mut place = 0;
        record.each_header(&mut |key, value| {
            part(Part::HeaderKey(place), key, key);
            if let Some(value) = value {
                part(Part::HeaderValue(place), key, value);
            }
            place += 1;
            true
        });
        if let Some(value) = record.value() {
            part(Part::Value, &[], value);
            if self.wants_fields {
                self.look_at_fields(value, words, found, marks);
            }
        }
    }

    fn look_at_fields(
        &self,
        value: &[u8],
        words: &mut Words,
        found: &mut [bool],
        mut marks: Option<&mut Vec<(Part, Range<usize>)>>,
    ) {
        let mut left = self.leaves.iter().filter(|leaf| leaf.leaf.field().is_some()).count();
        json::walk(value, |path, here| {
            for (leaf, found) in self.leaves.iter().zip(found.iter_mut()) {
                if leaf.leaf.field() != Some(path) || (*found && marks.is_none()) {
                    continue;
                }
                let mut spans = Vec::new();
                if leaf.leaf.fits_field(value, &here, words, &mut spans) {
                    left -= usize::from(!*found);
                    *found = true;
                    if let Some(marks) = marks.as_deref_mut().filter(|_| leaf.is_wanted) {
                        marks.extend(spans.into_iter().map(|span| (Part::Value, span)));
                    }
                }
            }
            left > 0 || marks.is_some()
        });
    }
}

fn compile(node: &Node, is_wanted: bool, leaves: &mut Vec<CompiledLeaf>) -> Compiled {
    let mut parts =
        |parts: &[Node]| parts.iter().map(|part| compile(part, is_wanted, leaves)).collect();
    match node {
        Node::Everything => Compiled::Known(true),
        Node::All(all) => Compiled::All(parts(all)),
        Node::Any(any) => Compiled::Any(parts(any)),
        Node::Not(part) => Compiled::Not(Box::new(compile(part, !is_wanted, leaves))),
        Node::Leaf(leaf) => {
            let literal = leaf.literal();
            leaves.push(CompiledLeaf { leaf: leaf.clone(), literal, is_wanted });
            Compiled::Leaf(leaves.len() - 1)
        }
    }
}

impl CompiledLeaf {
    fn quick(&self, record: &impl Searchable) -> Verdict {
        let (timestamp, partition, offset) = record.place();
        let known = |holds| if holds { Verdict::Yes } else { Verdict::No };
        let scope = match &self.leaf {
            Leaf::Timestamp(span) => return known(span.contains(timestamp)),
            Leaf::Partition(span) => return known(span.contains(partition)),
            Leaf::Offset(span) => return known(span.contains(offset)),
            Leaf::Text { scope, .. }
            | Leaf::Exact { scope, .. }
            | Leaf::Exists(scope)
            | Leaf::Within { scope, .. } => scope,
        };
        let Some(literal) = &self.literal else { return Verdict::Open };
        let may_be = |bytes: Option<&[u8]>| bytes.is_some_and(|bytes| literal.may_be_in(bytes));
        let in_headers = || {
            let mut is_there = false;
            record.each_header(&mut |key, value| {
                is_there = literal.may_be_in(key) || may_be(value);
                !is_there
            });
            is_there
        };
        let is_open = match scope {
            Scope::Anywhere => may_be(record.value()) || may_be(record.key()) || in_headers(),
            Scope::Key => may_be(record.key()),
            Scope::Value | Scope::Field(_) => may_be(record.value()),
            Scope::Headers | Scope::Header(_) => in_headers(),
        };
        if is_open { Verdict::Open } else { Verdict::No }
    }
}

impl Leaf {
    fn field(&self) -> Option<&str> {
        match self {
            Self::Text { scope: Scope::Field(path), .. }
            | Self::Exact { scope: Scope::Field(path), .. }
            | Self::Exists(Scope::Field(path))
            | Self::Within { scope: Scope::Field(path), .. } => Some(path),
            _ => None,
        }
    }

    /// What a record must have in its bytes for this to hold.
    fn literal(&self) -> Option<Literal> {
        let text = match self {
            Self::Text { scalar: Some(Scalar::Number(number)), .. }
            | Self::Exact { scalar: Some(Scalar::Number(number)), .. } => {
                // What is behind the point can be written with more zeros.
                Some(number.trim_start_matches('-').split('.').next().unwrap_or_default())
            }
            Self::Text { pattern, .. } => {
                pattern.tokens.iter().map(|token| token.literal()).max_by_key(|text| text.len())
            }
            Self::Exact { text, .. } => Some(text.as_str()),
            _ => None,
        };
        let scope = match self {
            Self::Text { scope, .. }
            | Self::Exact { scope, .. }
            | Self::Exists(scope)
            | Self::Within { scope, .. } => scope,
            Self::Timestamp(_) | Self::Partition(_) | Self::Offset(_) => return None,
        };
        let name = match scope {
            Scope::Field(name) | Scope::Header(name) => Some(name.as_str()),
            _ => None,
        };
        text.and_then(Literal::of).or_else(|| name.and_then(Literal::of))
    }

    /// Whether what stands at the field's path is as asked; `spans` are of the
    /// bytes of the value that make it so.
    fn fits_field(
        &self,
        value: &[u8],
        here: &Value,
        words: &mut Words,
        spans: &mut Vec<Range<usize>>,
    ) -> bool {
        let of = |range: &Range<usize>| value.get(range.clone()).unwrap_or_default();
        let is_there = match self {
            Self::Exists(_) => *here != Value::Null,
            Self::Text { pattern, scalar, .. } => match here {
                Value::String(range) => {
                    words.of_string(of(range), range.start);
                    words.find(pattern, |span| spans.push(span));
                    return !spans.is_empty();
                }
                other => scalar.as_ref().is_some_and(|scalar| scalar.is(value, other)),
            },
            Self::Exact { text, scalar, .. } => match here {
                Value::String(range) => string_is(of(range), text),
                other => scalar.as_ref().is_some_and(|scalar| scalar.is(value, other)),
            },
            Self::Within { bounds, .. } => match (bounds, here) {
                (Bounds::Numbers { from, to }, Value::Number(range)) => {
                    std::str::from_utf8(of(range)).is_ok_and(|number| {
                        is_json_number(number) && is_number_within(number, from, to)
                    })
                }
                (Bounds::Texts { from, to }, Value::String(range)) => {
                    is_text_within(unescaped(of(range)).as_bytes(), from, to)
                }
                _ => false,
            },
            Self::Timestamp(_) | Self::Partition(_) | Self::Offset(_) => false,
        };
        if let (true, Value::String(range) | Value::Number(range)) = (is_there, here) {
            spans.push(range.clone());
        }
        is_there
    }

    /// Whether the leaf looks at this part of a record, whole.
    fn looks_at(&self, part: Part, name: &[u8]) -> bool {
        let scope = match self {
            Self::Text { scope, .. }
            | Self::Exact { scope, .. }
            | Self::Exists(scope)
            | Self::Within { scope, .. } => scope,
            Self::Timestamp(_) | Self::Partition(_) | Self::Offset(_) => return false,
        };
        match scope {
            Scope::Anywhere => true,
            Scope::Key => part == Part::Key,
            Scope::Value => part == Part::Value,
            Scope::Headers => matches!(part, Part::HeaderKey(_) | Part::HeaderValue(_)),
            Scope::Header(wanted) => {
                matches!(part, Part::HeaderValue(_)) && wanted.as_bytes() == name
            }
            Scope::Field(_) => false,
        }
    }
}

impl Scalar {
    fn is(&self, value: &[u8], here: &Value) -> bool {
        match (self, here) {
            (Self::True, Value::True) | (Self::False, Value::False) | (Self::Null, Value::Null) => {
                true
            }
            (Self::Number(wanted), Value::Number(range)) => {
                let number = value.get(range.clone()).and_then(|n| std::str::from_utf8(n).ok());
                number.filter(|number| is_json_number(number)).is_some_and(|number| {
                    number == wanted || number::canonical(number).as_deref() == Some(wanted)
                })
            }
            _ => false,
        }
    }
}

/// A part of a record that is looked at.
struct Look<'a> {
    part: Part,
    /// Of a header: its key.
    name: &'a [u8],
    bytes: &'a [u8],
    words: &'a mut Words,
    marks: Option<&'a mut Vec<(Part, Range<usize>)>>,
}

impl Look<'_> {
    fn look(&mut self, leaves: &[CompiledLeaf], found: &mut [bool]) {
        let mut has_words = false;
        for (leaf, found) in leaves.iter().zip(found) {
            if (*found && self.marks.is_none()) || !leaf.leaf.looks_at(self.part, self.name) {
                continue;
            }
            let mut spans = Vec::new();
            match &leaf.leaf {
                Leaf::Text { pattern, .. } => {
                    if !has_words {
                        self.words.of_part(self.bytes);
                        has_words = true;
                    }
                    self.words.find(pattern, |span| spans.push(span));
                }
                Leaf::Exact { text, .. } if text.as_bytes() == self.bytes => {
                    spans.push(0..self.bytes.len());
                }
                Leaf::Exists(_) => *found = true,
                Leaf::Within { bounds: Bounds::Texts { from, to }, .. }
                    if is_text_within(self.bytes, from, to) =>
                {
                    spans.push(0..self.bytes.len());
                }
                Leaf::Within { bounds: Bounds::Numbers { from, to }, .. }
                    if std::str::from_utf8(self.bytes)
                        .is_ok_and(|number| is_number_within(number, from, to)) =>
                {
                    spans.push(0..self.bytes.len());
                }
                _ => {}
            }
            *found |= !spans.is_empty();
            if let Some(marks) = self.marks.as_deref_mut().filter(|_| leaf.is_wanted) {
                let spans = spans.into_iter().filter(|span| !span.is_empty());
                marks.extend(spans.map(|span| (self.part, span)));
            }
        }
    }
}

/// The words of one text.
#[derive(Debug, Default)]
struct Words {
    text: Vec<u8>,
    /// For each word, where it ends in `text`, and where it stands in its part.
    words: Vec<(usize, Range<usize>)>,
}

impl Words {
    fn of_part(&mut self, bytes: &[u8]) {
        self.text.clear();
        self.words.clear();
        let Self { text, words } = self;
        tokens(bytes, |token| {
            text.extend_from_slice(token.text);
            words.push((text.len(), token.range));
        });
    }

    /// Of the inside of a string in JSON, which begins at `start` of its part.
    fn of_string(&mut self, raw: &[u8], start: usize) {
        self.text.clear();
        self.words.clear();
        let Self { text, words } = self;
        tokens_of_json_string(raw, |token| {
            text.extend_from_slice(token.text);
            words.push((text.len(), start + token.range.start..start + token.range.end));
        });
    }

    fn word(&self, place: usize) -> &[u8] {
        let end_of = |place: usize| self.words.get(place).map_or(0, |(end, _)| *end);
        let start = place.checked_sub(1).map_or(0, end_of);
        self.text.get(start..end_of(place)).unwrap_or_default()
    }

    /// Calls `found` with where a pattern stands.
    fn find(&self, pattern: &crate::pattern::Pattern, mut found: impl FnMut(Range<usize>)) {
        let count = pattern.tokens.len();
        for first in 0..(self.words.len() + 1).saturating_sub(count) {
            let fits = |(place, token): (usize, &crate::pattern::TokenPattern)| {
                token.fits(self.word(first + place))
            };
            if pattern.tokens.iter().enumerate().all(fits) {
                let start = self.words.get(first).map_or(0, |(_, range)| range.start);
                let end = self.words.get(first + count - 1).map_or(0, |(_, range)| range.end);
                found(start..end);
            }
        }
    }
}

/// JSON has no leading zeros, so that equal whole parts are the same word.
fn is_json_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    !matches!(digits, [b'0', b'0'..=b'9', ..])
}

fn string_is(raw: &[u8], text: &str) -> bool {
    unescaped(raw) == text
}

fn is_text_within(text: &[u8], from: &Option<Bound<String>>, to: &Option<Bound<String>>) -> bool {
    let is_behind = from.as_ref().is_none_or(|from| {
        let from_text = from.value.as_bytes();
        text > from_text || (from.is_included && text == from_text)
    });
    is_behind
        && to.as_ref().is_none_or(|to| {
            let to_text = to.value.as_bytes();
            text < to_text || (to.is_included && text == to_text)
        })
}

fn is_number_within(
    number: &str,
    from: &Option<Bound<String>>,
    to: &Option<Bound<String>>,
) -> bool {
    let holds = |bound: &Option<Bound<String>>, is_right: fn(std::cmp::Ordering) -> bool| {
        let Some(bound) = bound else { return number::is_number(number) };
        number::compare(number, &bound.value)
            .is_some_and(|order| is_right(order) || (bound.is_included && order.is_eq()))
    };
    holds(from, std::cmp::Ordering::is_gt) && holds(to, std::cmp::Ordering::is_lt)
}
