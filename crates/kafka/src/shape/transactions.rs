//! Requests of transactions and about them.

use kafka_protocol::messages::ApiKey;

use super::{BOOL, INT16, INT32, INT64, Shape, TEXT, list, values};

pub(super) const SHAPES: &[Shape] = &[
    Shape {
        api: ApiKey::InitProducerId,
        flexible: 2,
        fields: &[TEXT, INT32, INT64.from(3), INT16.from(3)],
    },
    Shape {
        api: ApiKey::AddPartitionsToTxn,
        flexible: 3,
        fields: &[
            list(&[TEXT, INT64, INT16, BOOL, list(&[TEXT, values(&INT32)])]).from(4),
            TEXT.to(3),
            INT64.to(3),
            INT16.to(3),
            list(&[TEXT, values(&INT32)]).to(3),
        ],
    },
    Shape { api: ApiKey::AddOffsetsToTxn, flexible: 3, fields: &[TEXT, INT64, INT16, TEXT] },
    Shape { api: ApiKey::EndTxn, flexible: 3, fields: &[TEXT, INT64, INT16, BOOL] },
    Shape {
        api: ApiKey::TxnOffsetCommit,
        flexible: 3,
        fields: &[
            TEXT,
            TEXT,
            INT64,
            INT16,
            INT32.from(3),
            TEXT.from(3),
            TEXT.from(3),
            list(&[TEXT, list(&[INT32, INT64, INT32.from(2), TEXT])]),
        ],
    },
    Shape { api: ApiKey::DescribeProducers, flexible: 0, fields: &[list(&[TEXT, values(&INT32)])] },
    Shape { api: ApiKey::DescribeTransactions, flexible: 0, fields: &[values(&TEXT)] },
    Shape {
        api: ApiKey::ListTransactions,
        flexible: 0,
        fields: &[values(&TEXT), values(&INT64), INT64.from(1), TEXT.from(2)],
    },
];
