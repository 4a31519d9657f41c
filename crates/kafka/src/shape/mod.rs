//! The wire shapes of requests, and the walk that checks a body against one
//! before it is decoded.
//!
//! The codec makes room for as many elements as a list announces, so four bytes
//! could ask for all memory. A body that has been walked cannot: every length
//! and every count was within the bytes behind it, all lists together had at
//! most `request_elements_max` elements, and tagged fields came in order and were
//! as long as they said. A walk allocates nothing.
//!
//! Shapes say how many bytes a field takes, not what it means: whether a null
//! or a text is valid is the codec's to say. They are those of Kafka's message
//! definitions; a test holds each version of each against the codec.

mod admin;
mod data;
mod groups;
mod sessions;
mod share;
mod transactions;
mod walk;

use kafka_protocol::messages::ApiKey;

use self::walk::Walk;
pub(crate) use self::walk::{ShapeError, header};

/// The shape of an API's requests in all versions.
#[derive(Debug)]
struct Shape {
    api: ApiKey,
    /// From this version on lengths are compact, and structures end in tagged
    /// fields (KIP-482).
    flexible: i16,
    fields: &'static [Field],
}

/// A field, and the versions that have it.
#[derive(Debug, Clone, Copy)]
struct Field {
    kind: Kind,
    from: i16,
    to: i16,
    /// Its tag, if it is among the tagged fields.
    tag: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A length of two bytes, or compact, and a text.
    Text,
    /// A length of four bytes, or compact, and bytes.
    Blob,
    /// A count and so many structures.
    List(&'static [Field]),
    /// A count and so many plain values.
    Values(&'static Field),
    Structure(&'static [Field]),
    /// -1 for none, or 1 and a structure.
    Optional(&'static [Field]),
}

/// Fields are written as tables: `list(&[TEXT, INT32.from(2)]).to(7)`.
const BOOL: Field = Field::of(Kind::Fixed(1));
const INT8: Field = Field::of(Kind::Fixed(1));
const INT16: Field = Field::of(Kind::Fixed(2));
const INT32: Field = Field::of(Kind::Fixed(4));
const INT64: Field = Field::of(Kind::Fixed(8));
const UUID: Field = Field::of(Kind::Fixed(16));
const TEXT: Field = Field::of(Kind::Text);
const BLOB: Field = Field::of(Kind::Blob);

const fn list(fields: &'static [Field]) -> Field {
    Field::of(Kind::List(fields))
}

const fn values(of: &'static Field) -> Field {
    Field::of(Kind::Values(of))
}

const fn structure(fields: &'static [Field]) -> Field {
    Field::of(Kind::Structure(fields))
}

const fn optional(fields: &'static [Field]) -> Field {
    Field::of(Kind::Optional(fields))
}

impl Field {
    const fn of(kind: Kind) -> Self {
        Self { kind, from: 0, to: i16::MAX, tag: None }
    }

    const fn from(self, version: i16) -> Self {
        Self { from: version, ..self }
    }

    const fn to(self, version: i16) -> Self {
        Self { to: version, ..self }
    }

    const fn tag(self, tag: u32) -> Self {
        Self { tag: Some(tag), ..self }
    }

    const fn is_in(&self, version: i16) -> bool {
        self.from <= version && version <= self.to
    }
}

fn find(api: ApiKey) -> Option<&'static Shape> {
    let all = [
        data::SHAPES,
        groups::SHAPES,
        transactions::SHAPES,
        admin::SHAPES,
        sessions::SHAPES,
        share::SHAPES,
    ];
    all.into_iter().flatten().find(|shape| shape.api == api)
}

/// Walks a request's body; how many elements its lists have together.
pub(crate) fn check(
    api: ApiKey,
    version: i16,
    body: &[u8],
    elements_max: usize,
) -> Result<usize, ShapeError> {
    let shape = find(api).ok_or(ShapeError::NoShape)?;
    let mut walk = Walk::new(body, version, version >= shape.flexible, elements_max);
    walk.structure(shape.fields)?;
    Ok(walk.elements())
}

#[cfg(test)]
mod tests;
