//! Topics: streams as Kafka's clients see them.
//!
//! A topic is a stream of the principal's tenant, and its id is the stream's.
//! There is one broker, so every partition has that one replica.

use aquifer_stream::{StreamHandle, StreamShape};
use aquifer_types::{StreamId, StreamPath};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{BrokerId, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::authorizer::{Action, Resource};
use crate::broker::NODE_ID;
use crate::call::Call;
use crate::error_code::error_code;
use crate::groups::consumer;

/// What stands where authorized operations were not asked for.
pub(crate) const OPERATIONS_NOT_ASKED: i32 = i32::MIN;

/// Kafka's numbers of operations on resources (`AclOperation`).
const TOPIC_OPERATIONS: &[(Action, u8)] = &[
    (Action::Read, 3),
    (Action::Write, 4),
    (Action::Create, 5),
    (Action::Delete, 6),
    (Action::Alter, 7),
    (Action::Describe, 8),
    (Action::DescribeConfigs, 10),
    (Action::AlterConfigs, 11),
];
const CLUSTER_OPERATIONS: &[(Action, u8)] = &[
    (Action::Create, 5),
    (Action::Alter, 7),
    (Action::Describe, 8),
    // What brokers may do among themselves, here to add partitions to the
    // transactions of others.
    (Action::Alter, 9),
    (Action::DescribeConfigs, 10),
    (Action::AlterConfigs, 11),
    // Idempotent producers need no right of their own, only that to write.
    (Action::Describe, 12),
];

/// A stream that was looked up.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) path: StreamPath,
    pub(crate) shape: StreamShape,
}

impl Topic {
    /// The topic of this name.
    pub(crate) fn named(call: &Call, name: &str) -> Result<Self, ResponseError> {
        let path = call.path(name)?;
        let shape = call.store().stream_shape(&path).map_err(|error| error_code(&error))?;
        Ok(Self { path, shape })
    }

    /// The topic with this id, if it is of the principal's tenant.
    pub(crate) fn with_id(call: &Call, id: Uuid) -> Result<Self, ResponseError> {
        let path = call.store().stream_path(StreamId(id));
        let path = path.filter(|path| path.tenant == call.principal.tenant);
        let path = path.ok_or(ResponseError::UnknownTopicId)?;
        let shape = call.store().stream_shape(&path).ok().filter(|shape| shape.id.0 == id);
        let shape = shape.ok_or(ResponseError::UnknownTopicId)?;
        Ok(Self { path, shape })
    }

    pub(crate) fn name(&self) -> TopicName {
        topic_name(self.path.name.as_str())
    }
}

/// The topics of the principal's tenant, as groups look them up.
#[derive(Debug)]
pub(crate) struct StoreTopics<'a> {
    call: &'a Call,
    /// Whether names that the principal may not see are told.
    tells_all: bool,
}

impl<'a> StoreTopics<'a> {
    /// Those that the principal may see.
    pub(crate) const fn visible(call: &'a Call) -> Self {
        Self { call, tells_all: false }
    }

    /// All of them.
    pub(crate) const fn all(call: &'a Call) -> Self {
        Self { call, tells_all: true }
    }
}

impl consumer::Topics for StoreTopics<'_> {
    fn version(&self) -> u64 {
        self.call.store().shapes_version()
    }

    fn find(&self, name: &str) -> Option<consumer::Topic> {
        let shape = Topic::named(self.call, name).ok()?.shape;
        Some(consumer::Topic { id: shape.id, partitions: shape.partitions })
    }

    fn names(&self) -> Vec<String> {
        let all = self.call.store().list_stream_shapes(&self.call.principal.tenant);
        let names = all.into_iter().map(|(path, _)| path.name.to_string());
        let is_told = |name: &String| {
            self.tells_all || self.call.allows(Action::Describe, Resource::Stream(name))
        };
        names.filter(is_told).collect()
    }
}

/// The stream that a request names by its topic's name, or by its id where it
/// has no name, looked up once.
pub(crate) fn stream(call: &Call, name: &str, id: Uuid) -> Result<StreamHandle, ResponseError> {
    if name.is_empty() && !id.is_nil() {
        let found = call.store().stream_by_id(StreamId(id));
        let found = found.filter(|stream| stream.path().tenant == call.principal.tenant);
        return found.ok_or(ResponseError::UnknownTopicId);
    }
    call.store().stream(&call.path(name)?).map_err(|error| error_code(&error))
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// The one replica of every partition.
pub(crate) fn replicas() -> Vec<BrokerId> {
    vec![BrokerId(NODE_ID)]
}

/// What the principal may do to a topic, as Kafka's bits.
pub(crate) fn topic_operations(call: &Call, name: &str) -> i32 {
    operations(call, TOPIC_OPERATIONS, Resource::Stream(name))
}

/// What the principal may do to the server, as Kafka's bits.
pub(crate) fn cluster_operations(call: &Call) -> i32 {
    operations(call, CLUSTER_OPERATIONS, Resource::Cluster)
}

fn operations(call: &Call, known: &[(Action, u8)], resource: Resource<'_>) -> i32 {
    let allowed = known.iter().filter(|(action, _)| call.allows(*action, resource));
    allowed.fold(0, |bits, (_, number)| bits | 1 << number)
}

/// Whether the principal may create this topic: by a right to the topic, or to
/// create any.
pub(crate) fn may_create(call: &Call, name: &str) -> bool {
    call.allows(Action::Create, Resource::Cluster)
        || call.allows(Action::Create, Resource::Stream(name))
}
