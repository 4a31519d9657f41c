//! Requests of consumer groups and about them.

use kafka_protocol::messages::ApiKey;

use super::{BLOB, BOOL, INT8, INT32, INT64, Shape, TEXT, UUID, list, values};

pub(super) const SHAPES: &[Shape] = &[
    Shape {
        api: ApiKey::FindCoordinator,
        flexible: 3,
        fields: &[TEXT.to(3), INT8.from(1), values(&TEXT).from(4)],
    },
    Shape {
        api: ApiKey::JoinGroup,
        flexible: 6,
        fields: &[
            TEXT,
            INT32,
            INT32.from(1),
            TEXT,
            TEXT.from(5),
            TEXT,
            list(&[TEXT, BLOB]),
            TEXT.from(8),
        ],
    },
    Shape { api: ApiKey::Heartbeat, flexible: 4, fields: &[TEXT, INT32, TEXT, TEXT.from(3)] },
    Shape {
        api: ApiKey::LeaveGroup,
        flexible: 4,
        fields: &[TEXT, TEXT.to(2), list(&[TEXT, TEXT, TEXT.from(5)]).from(3)],
    },
    Shape {
        api: ApiKey::SyncGroup,
        flexible: 4,
        fields: &[TEXT, INT32, TEXT, TEXT.from(3), TEXT.from(5), TEXT.from(5), list(&[TEXT, BLOB])],
    },
    Shape {
        api: ApiKey::OffsetCommit,
        flexible: 8,
        fields: &[
            TEXT,
            INT32,
            TEXT,
            TEXT.from(7),
            INT64.to(4),
            list(&[TEXT, list(&[INT32, INT64, INT32.from(6), TEXT])]),
        ],
    },
    Shape {
        api: ApiKey::OffsetFetch,
        flexible: 6,
        fields: &[
            TEXT.to(7),
            list(&[TEXT, values(&INT32)]).to(7),
            list(&[TEXT, TEXT.from(9), INT32.from(9), list(&[TEXT, values(&INT32)])]).from(8),
            BOOL.from(7),
        ],
    },
    Shape {
        api: ApiKey::OffsetDelete,
        flexible: i16::MAX,
        fields: &[TEXT, list(&[TEXT, list(&[INT32])])],
    },
    Shape { api: ApiKey::DescribeGroups, flexible: 5, fields: &[values(&TEXT), BOOL.from(3)] },
    Shape {
        api: ApiKey::ListGroups,
        flexible: 3,
        fields: &[values(&TEXT).from(4), values(&TEXT).from(5)],
    },
    Shape { api: ApiKey::DeleteGroups, flexible: 2, fields: &[values(&TEXT)] },
    Shape {
        api: ApiKey::ConsumerGroupHeartbeat,
        flexible: 0,
        fields: &[
            TEXT,
            TEXT,
            INT32,
            TEXT,
            TEXT,
            INT32,
            values(&TEXT),
            TEXT.from(1),
            TEXT,
            list(&[UUID, values(&INT32)]),
        ],
    },
    Shape { api: ApiKey::ConsumerGroupDescribe, flexible: 0, fields: &[values(&TEXT), BOOL] },
];
