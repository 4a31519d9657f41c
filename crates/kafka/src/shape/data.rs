//! Requests for records, offsets and what topics there are.

use kafka_protocol::messages::ApiKey;

use super::{
    BLOB, BOOL, INT8, INT16, INT32, INT64, Shape, TEXT, UUID, list, optional, structure, values,
};

pub(super) const SHAPES: &[Shape] = &[
    Shape {
        api: ApiKey::Produce,
        flexible: 9,
        fields: &[TEXT, INT16, INT32, list(&[TEXT.to(12), UUID.from(13), list(&[INT32, BLOB])])],
    },
    Shape {
        api: ApiKey::Fetch,
        flexible: 12,
        fields: &[
            INT32.to(14),
            INT32,
            INT32,
            INT32,
            INT8,
            INT32.from(7),
            INT32.from(7),
            list(&[
                TEXT.to(12),
                UUID.from(13),
                list(&[
                    INT32,
                    INT32.from(9),
                    INT64,
                    INT32.from(12),
                    INT64.from(5),
                    INT32,
                    UUID.tag(0).from(17),
                    INT64.tag(1).from(18),
                ]),
            ]),
            list(&[TEXT.to(12), UUID.from(13), values(&INT32)]).from(7),
            TEXT.from(11),
            TEXT.tag(0).from(12),
            structure(&[INT32, INT64]).tag(1).from(15),
        ],
    },
    Shape {
        api: ApiKey::ListOffsets,
        flexible: 6,
        fields: &[
            INT32,
            INT8.from(2),
            list(&[TEXT, list(&[INT32, INT32.from(4), INT64])]),
            INT32.from(10),
        ],
    },
    Shape {
        api: ApiKey::OffsetForLeaderEpoch,
        flexible: 4,
        fields: &[INT32.from(3), list(&[TEXT, list(&[INT32, INT32, INT32])])],
    },
    Shape {
        api: ApiKey::DeleteRecords,
        flexible: 2,
        fields: &[list(&[TEXT, list(&[INT32, INT64])]), INT32],
    },
    Shape {
        api: ApiKey::Metadata,
        flexible: 9,
        fields: &[list(&[UUID.from(10), TEXT]), BOOL.from(4), BOOL.from(8).to(10), BOOL.from(8)],
    },
    Shape {
        api: ApiKey::DescribeTopicPartitions,
        flexible: 0,
        fields: &[list(&[TEXT]), INT32, optional(&[TEXT, INT32])],
    },
];
