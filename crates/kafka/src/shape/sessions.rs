//! Requests about a connection itself.

use kafka_protocol::messages::ApiKey;

use super::{BLOB, Shape, TEXT};

pub(super) const SHAPES: &[Shape] = &[
    Shape { api: ApiKey::ApiVersions, flexible: 3, fields: &[TEXT.from(3), TEXT.from(3)] },
    Shape { api: ApiKey::SaslHandshake, flexible: i16::MAX, fields: &[TEXT] },
    Shape { api: ApiKey::SaslAuthenticate, flexible: 2, fields: &[BLOB] },
];
