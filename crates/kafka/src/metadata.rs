//! `Metadata`: the broker, and topics with their partitions.

use std::collections::HashSet;

use aquifer_stream::{Error, NewStream};
use aquifer_types::{StreamClass, StreamConfig};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::authorizer::{Action, Resource};
use crate::broker::NODE_ID;
use crate::call::Call;
use crate::topic::{
    OPERATIONS_NOT_ASKED, Topic, cluster_operations, may_create, replicas, topic_operations,
};

/// The first version whose topics may be asked for by their ids.
const IDS_FROM_VERSION: i16 = 12;

pub(crate) async fn handle(call: &Call, request: MetadataRequest) -> MetadataResponse {
    let asks_operations = request.include_topic_authorized_operations;
    let topics = match request.topics {
        // Version 0 says "all" with an empty list, later ones with none.
        Some(topics) if !(topics.is_empty() && call.version == 0) => {
            let creates =
                request.allow_auto_topic_creation && call.broker.options.auto_create_topics;
            named(call, topics, creates, asks_operations).await
        }
        _ => all(call, asks_operations),
    };
    let (host, port) = call.broker.advertised(call.session.listener);
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(StrBytes::from_string(host))
        .with_port(port.into());
    let asks_cluster = request.include_cluster_authorized_operations && call.version <= 10;
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(call.broker.cluster_id().await.map(StrBytes::from_string))
        .with_controller_id(BrokerId(NODE_ID))
        .with_topics(topics)
        .with_cluster_authorized_operations(if asks_cluster {
            cluster_operations(call)
        } else {
            OPERATIONS_NOT_ASKED
        })
}

/// Every topic that the principal may see.
fn all(call: &Call, asks_operations: bool) -> Vec<MetadataResponseTopic> {
    let streams = call.store().list_stream_shapes(&call.principal.tenant);
    let topics = streams.into_iter().map(|(path, shape)| Topic { path, shape });
    topics
        .filter(|topic| call.allows(Action::Describe, Resource::Stream(topic.path.name.as_str())))
        .map(|topic| described(call, &topic, asks_operations))
        .collect()
}

/// The topics that were asked for, each once.
async fn named(
    call: &Call,
    topics: Vec<MetadataRequestTopic>,
    creates: bool,
    asks_operations: bool,
) -> Vec<MetadataResponseTopic> {
    let mut seen = HashSet::with_capacity(topics.len());
    let mut answers = Vec::with_capacity(topics.len());
    for topic in topics {
        let knows_ids = call.version >= IDS_FROM_VERSION;
        // Where there is a name, that alone says which topic it is: one that comes
        // with ever other ids is not described as often. Java's client has an empty
        // name beside an id.
        let is_by_id = |name: &TopicName| name.is_empty() && !topic.topic_id.is_nil();
        let name = topic.name.filter(|name| !(knows_ids && is_by_id(name)));
        let id = if name.is_some() { Uuid::nil() } else { topic.topic_id };
        if !seen.insert((id, name.clone())) {
            continue;
        }
        let found = match &name {
            Some(name) => by_name(call, name, creates).await,
            None if knows_ids => by_id(call, id),
            None => Err(ResponseError::InvalidRequest),
        };
        answers.push(match found {
            Ok(topic) => described(call, &topic, asks_operations),
            Err(code) => failed(call, name, id, code),
        });
    }
    answers
}

fn by_id(call: &Call, id: Uuid) -> Result<Topic, ResponseError> {
    let topic = Topic::with_id(call, id)?;
    // Whoever may not see a topic does not learn that it exists.
    if !call.allows(Action::Describe, Resource::Stream(topic.path.name.as_str())) {
        return Err(ResponseError::UnknownTopicId);
    }
    Ok(topic)
}

async fn by_name(call: &Call, name: &TopicName, creates: bool) -> Result<Topic, ResponseError> {
    if !call.allows(Action::Describe, Resource::Stream(name)) {
        return Err(ResponseError::TopicAuthorizationFailed);
    }
    match Topic::named(call, name) {
        Err(ResponseError::UnknownTopicOrPartition) if creates => create(call, name).await,
        found => found,
    }
}

/// Creates a topic that a client asked after. It is there with the answer.
async fn create(call: &Call, name: &TopicName) -> Result<Topic, ResponseError> {
    if !may_create(call, name) {
        return Err(ResponseError::TopicAuthorizationFailed);
    }
    let new = NewStream {
        path: call.path(name)?,
        partitions: call.broker.options.partitions_default,
        class: StreamClass::default(),
        config: StreamConfig::default(),
    };
    match call.store().create_stream(new).await {
        Ok(_) => tracing::info!(topic = %**name, "created a topic that a client asked after"),
        // Somebody else's request was first.
        Err(Error::StreamExists(_)) => {}
        Err(error) => {
            tracing::warn!(topic = %**name, %error, "a topic could not be created");
            return Err(match error {
                Error::Throttled { .. } => ResponseError::PolicyViolation,
                // Retriable: the next request for it tries again.
                _ => ResponseError::LeaderNotAvailable,
            });
        }
    }
    Topic::named(call, name)
}

fn described(call: &Call, topic: &Topic, asks_operations: bool) -> MetadataResponseTopic {
    let epoch = i32::try_from(topic.shape.epoch.get()).unwrap_or(i32::MAX);
    let partitions = (0..topic.shape.partitions).map(|index| {
        MetadataResponsePartition::default()
            .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(epoch)
            .with_replica_nodes(replicas())
            .with_isr_nodes(replicas())
    });
    MetadataResponseTopic::default()
        .with_name(Some(topic.name()))
        .with_topic_id(topic.shape.id.0)
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(if asks_operations {
            topic_operations(call, topic.path.name.as_str())
        } else {
            OPERATIONS_NOT_ASKED
        })
}

fn failed(
    call: &Call,
    name: Option<TopicName>,
    id: Uuid,
    code: ResponseError,
) -> MetadataResponseTopic {
    // Only later versions know topics without a name.
    let name = name.or_else(|| (call.version < IDS_FROM_VERSION).then(TopicName::default));
    MetadataResponseTopic::default()
        .with_error_code(code.code())
        .with_name(name)
        .with_topic_id(id)
        .with_topic_authorized_operations(OPERATIONS_NOT_ASKED)
}
