//! Requests that create, describe, change and delete.

use kafka_protocol::messages::ApiKey;

use super::{BLOB, BOOL, INT8, INT16, INT32, INT64, Shape, TEXT, UUID, list, values};

pub(super) const SHAPES: &[Shape] = &[
    Shape {
        api: ApiKey::CreateTopics,
        flexible: 5,
        fields: &[
            list(&[TEXT, INT32, INT16, list(&[INT32, values(&INT32)]), list(&[TEXT, TEXT])]),
            INT32,
            BOOL,
        ],
    },
    Shape {
        api: ApiKey::DeleteTopics,
        flexible: 4,
        fields: &[list(&[TEXT, UUID]).from(6), values(&TEXT).to(5), INT32],
    },
    Shape {
        api: ApiKey::CreatePartitions,
        flexible: 2,
        fields: &[list(&[TEXT, INT32, list(&[values(&INT32)])]), INT32, BOOL],
    },
    Shape {
        api: ApiKey::DescribeConfigs,
        flexible: 4,
        fields: &[list(&[INT8, TEXT, values(&TEXT)]), BOOL, BOOL.from(3)],
    },
    Shape {
        api: ApiKey::AlterConfigs,
        flexible: 2,
        fields: &[list(&[INT8, TEXT, list(&[TEXT, TEXT])]), BOOL],
    },
    Shape {
        api: ApiKey::IncrementalAlterConfigs,
        flexible: 1,
        fields: &[list(&[INT8, TEXT, list(&[TEXT, INT8, TEXT])]), BOOL],
    },
    Shape {
        api: ApiKey::DescribeAcls,
        flexible: 2,
        fields: &[INT8, TEXT, INT8, TEXT, TEXT, INT8, INT8],
    },
    Shape {
        api: ApiKey::CreateAcls,
        flexible: 2,
        fields: &[list(&[INT8, TEXT, INT8, TEXT, TEXT, INT8, INT8])],
    },
    Shape {
        api: ApiKey::DeleteAcls,
        flexible: 2,
        fields: &[list(&[INT8, TEXT, INT8, TEXT, TEXT, INT8, INT8])],
    },
    Shape {
        api: ApiKey::DescribeClientQuotas,
        flexible: 1,
        fields: &[list(&[TEXT, INT8, TEXT]), BOOL],
    },
    Shape {
        api: ApiKey::AlterClientQuotas,
        flexible: 1,
        fields: &[list(&[list(&[TEXT, TEXT]), list(&[TEXT, INT64, BOOL])]), BOOL],
    },
    Shape { api: ApiKey::DescribeUserScramCredentials, flexible: 0, fields: &[list(&[TEXT])] },
    Shape {
        api: ApiKey::AlterUserScramCredentials,
        flexible: 0,
        fields: &[list(&[TEXT, INT8]), list(&[TEXT, INT8, INT32, BLOB, BLOB])],
    },
    Shape {
        api: ApiKey::DescribeCluster,
        flexible: 0,
        fields: &[BOOL, INT8.from(1), BOOL.from(2)],
    },
    Shape { api: ApiKey::DescribeLogDirs, flexible: 2, fields: &[list(&[TEXT, values(&INT32)])] },
    Shape {
        api: ApiKey::ElectLeaders,
        flexible: 2,
        fields: &[INT8.from(1), list(&[TEXT, values(&INT32)]), INT32],
    },
    Shape {
        api: ApiKey::AlterPartitionReassignments,
        flexible: 0,
        fields: &[INT32, BOOL.from(1), list(&[TEXT, list(&[INT32, values(&INT32)])])],
    },
    Shape {
        api: ApiKey::ListPartitionReassignments,
        flexible: 0,
        fields: &[INT32, list(&[TEXT, values(&INT32)])],
    },
    Shape {
        api: ApiKey::AlterReplicaLogDirs,
        flexible: 2,
        fields: &[list(&[TEXT, list(&[TEXT, values(&INT32)])])],
    },
    Shape { api: ApiKey::ListConfigResources, flexible: 0, fields: &[values(&INT8).from(1)] },
];
