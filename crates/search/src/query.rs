//! A query as it was understood: a tree of conditions on one record.
//!
//! It says what is meant, never how it is found: [`crate::Matcher`] decides a
//! record by it, and the execution draws from it what can be left unread.

use aquifer_types::Timestamp;

use crate::pattern::Pattern;

/// A query. [`Query::parse`] makes one of text.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub(crate) root: Node,
}

impl Query {
    /// The query that every record matches.
    #[must_use]
    pub const fn everything() -> Self {
        Self { root: Node::Everything }
    }

    /// Whether every record matches, as far as the text goes.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.root == Node::Everything
    }
}

/// A condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Everything,
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Leaf(Leaf),
}

/// A condition that has no parts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Leaf {
    /// The pattern is in one of the texts of `scope`. In a field it may be a
    /// number or a literal, too.
    Text { scope: Scope, pattern: Pattern, scalar: Option<Scalar> },
    /// One of the strings of `scope` is exactly this.
    Exact { scope: Scope, text: String, scalar: Option<Scalar> },
    /// There is such a part, and it is not null.
    Exists(Scope),
    /// One of the values of `scope` lies within.
    Within { scope: Scope, bounds: Bounds },
    /// The record's time, in ms, both included.
    Timestamp(Span),
    /// The record's partition, both included.
    Partition(Span),
    /// The record's offset, both included.
    Offset(Span),
}

/// Where a condition looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Key, headers and value.
    Anywhere,
    /// The record's key.
    Key,
    /// The record's value, as a whole.
    Value,
    /// Names and values of all headers.
    Headers,
    /// The values of the headers of this name.
    Header(String),
    /// The field of a JSON object at this path, names joined by dots.
    Field(String),
}

/// What an unquoted word can be beside a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    /// The number in its shortest form, as [`crate::number::canonical`] has it.
    Number(String),
    True,
    False,
    Null,
}

/// From first to last; nothing where `first > last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Span {
    pub(crate) const ALL: Self = Self { first: i64::MIN, last: i64::MAX };
    pub(crate) const NONE: Self = Self { first: i64::MAX, last: i64::MIN };

    pub(crate) const fn contains(self, value: i64) -> bool {
        self.first <= value && value <= self.last
    }

    pub(crate) fn intersect(self, other: Self) -> Self {
        Self { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    /// The smallest span that has both in it.
    pub(crate) fn cover(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.first > self.last
    }

    /// Whether both have something in common.
    pub(crate) fn meets(self, other: Self) -> bool {
        !self.intersect(other).is_empty()
    }
}

/// The bounds of a range over the values of a field: of numbers where every
/// bound that was given is one, else of texts, byte by byte.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bounds {
    Numbers { from: Option<Bound<String>>, to: Option<Bound<String>> },
    Texts { from: Option<Bound<String>>, to: Option<Bound<String>> },
}

/// One end of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound<T> {
    pub(crate) value: T,
    pub(crate) is_included: bool,
}

/// What can be said of times, partitions and offsets of all records that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) timestamps: Span,
    pub(crate) partitions: Span,
    pub(crate) offsets: Span,
}

impl Envelope {
    const ALL: Self = Self { timestamps: Span::ALL, partitions: Span::ALL, offsets: Span::ALL };
    const NONE: Self = Self { timestamps: Span::NONE, partitions: Span::NONE, offsets: Span::NONE };

    fn zip(self, other: Self, with: fn(Span, Span) -> Span) -> Self {
        Self {
            timestamps: with(self.timestamps, other.timestamps),
            partitions: with(self.partitions, other.partitions),
            offsets: with(self.offsets, other.offsets),
        }
    }
}

impl Query {
    /// Outside of it nothing matches.
    pub(crate) fn envelope(&self) -> Envelope {
        self.root.envelope()
    }

    /// Whether exactly those records match that lie within the envelope.
    pub(crate) fn is_place_range(&self) -> bool {
        match &self.root {
            Node::All(parts) => parts.iter().all(Node::is_range),
            other => other.is_range(),
        }
    }

    /// The query, of records from `from` (included) to `to` (left out) only.
    #[must_use]
    pub fn within(self, from: Option<Timestamp>, to: Option<Timestamp>) -> Self {
        if from.is_none() && to.is_none() {
            return self;
        }
        let first = from.map_or(i64::MIN, |from| from.0);
        let last = match to {
            None => i64::MAX,
            Some(Timestamp(i64::MIN)) => return Self { root: Node::Leaf(NOTHING) },
            Some(to) => to.0 - 1,
        };
        let time = Node::Leaf(Leaf::Timestamp(Span { first, last }));
        let root = match self.root {
            Node::Everything => time,
            other => Node::All(vec![time, other]),
        };
        Self { root }
    }
}

/// What no record is.
const NOTHING: Leaf = Leaf::Timestamp(Span::NONE);

impl Node {
    fn envelope(&self) -> Envelope {
        match self {
            Self::Everything | Self::Not(_) => Envelope::ALL,
            Self::All(parts) => parts
                .iter()
                .fold(Envelope::ALL, |all, part| all.zip(part.envelope(), Span::intersect)),
            Self::Any(parts) => {
                parts.iter().fold(Envelope::NONE, |all, part| all.zip(part.envelope(), Span::cover))
            }
            Self::Leaf(Leaf::Timestamp(timestamps)) => {
                Envelope { timestamps: *timestamps, ..Envelope::ALL }
            }
            Self::Leaf(Leaf::Partition(partitions)) => {
                Envelope { partitions: *partitions, ..Envelope::ALL }
            }
            Self::Leaf(Leaf::Offset(offsets)) => Envelope { offsets: *offsets, ..Envelope::ALL },
            Self::Leaf(_) => Envelope::ALL,
        }
    }

    fn is_range(&self) -> bool {
        let is_place =
            |leaf: &Leaf| matches!(leaf, Leaf::Timestamp(_) | Leaf::Partition(_) | Leaf::Offset(_));
        match self {
            Self::Everything => true,
            Self::Leaf(leaf) => is_place(leaf),
            Self::All(parts) => parts.iter().all(Self::is_range),
            Self::Any(_) | Self::Not(_) => false,
        }
    }

    /// Whether nothing but time, partition and offset decides.
    pub(crate) fn is_of_place(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::All(parts) | Self::Any(parts) => parts.iter().all(Self::is_of_place),
            Self::Not(part) => part.is_of_place(),
            Self::Leaf(leaf) => {
                matches!(leaf, Leaf::Timestamp(_) | Leaf::Partition(_) | Leaf::Offset(_))
            }
        }
    }
}
