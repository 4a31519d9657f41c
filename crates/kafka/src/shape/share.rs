//! Requests of share groups (KIP-932).

use kafka_protocol::messages::ApiKey;

use super::{BOOL, INT8, INT32, INT64, Shape, TEXT, UUID, list, values};

pub(super) const SHAPES: &[Shape] = &[
    Shape {
        api: ApiKey::ShareGroupHeartbeat,
        flexible: 1,
        fields: &[TEXT, TEXT, INT32, TEXT, values(&TEXT)],
    },
    Shape { api: ApiKey::ShareGroupDescribe, flexible: 1, fields: &[values(&TEXT), BOOL] },
    Shape {
        api: ApiKey::ShareFetch,
        flexible: 1,
        fields: &[
            TEXT,
            TEXT,
            INT32,
            INT32,
            INT32,
            INT32,
            INT32,
            INT32,
            list(&[UUID, list(&[INT32, list(&[INT64, INT64, values(&INT8)])])]),
            list(&[UUID, values(&INT32)]),
        ],
    },
    Shape {
        api: ApiKey::ShareAcknowledge,
        flexible: 1,
        fields: &[
            TEXT,
            TEXT,
            INT32,
            list(&[UUID, list(&[INT32, list(&[INT64, INT64, values(&INT8)])])]),
        ],
    },
    Shape {
        api: ApiKey::DescribeShareGroupOffsets,
        flexible: 0,
        fields: &[list(&[TEXT, list(&[TEXT, values(&INT32)])])],
    },
    Shape {
        api: ApiKey::AlterShareGroupOffsets,
        flexible: 0,
        fields: &[TEXT, list(&[TEXT, list(&[INT32, INT64])])],
    },
    Shape { api: ApiKey::DeleteShareGroupOffsets, flexible: 0, fields: &[TEXT, list(&[TEXT])] },
];
