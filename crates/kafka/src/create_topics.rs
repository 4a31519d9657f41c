//! `CreateTopics`.

use std::collections::HashMap;

use aquifer_stream::NewStream;
use aquifer_types::{PARTITIONS_MAX, StreamClass, StreamConfig};
use futures::StreamExt as _;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::authorizer::{Action, Resource};
use crate::broker::NODE_ID;
use crate::call::Call;
use crate::configs::{Source, TOPIC_SETTINGS, configured};
use crate::refusal::Refusal;
use crate::topic::may_create;

/// Topics of one request that are created beside each other, so that they share
/// a sync.
pub(crate) const TOGETHER: usize = 32;

/// What became of a topic.
#[derive(Debug)]
struct Created {
    id: Uuid,
    partitions: u32,
    config: StreamConfig,
}

pub(crate) async fn handle(call: &Call, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut mentions: HashMap<TopicName, usize> = HashMap::new();
    for topic in &request.topics {
        *mentions.entry(topic.name.clone()).or_default() += 1;
    }
    // Each that is only looked at would be answered with all of its settings.
    let is_too_many = mentions.len() as u64 > call.store().options().streams_max;
    let (mentions, validate_only) = (&mentions, request.validate_only);
    let topics = request.topics.into_iter().map(|topic| async move {
        let is_repeated = mentions.get(&topic.name).is_some_and(|count| *count > 1);
        let created = if is_repeated {
            Err(Refusal::new(ResponseError::InvalidRequest, "the topic is named twice"))
        } else if is_too_many {
            let why = "the request names more topics than there may be (streams_max)";
            Err(Refusal::new(ResponseError::PolicyViolation, why))
        } else {
            create(call, &topic, validate_only).await
        };
        result(call, topic.name, created)
    });
    let topics: Vec<_> = futures::stream::iter(topics).buffered(TOGETHER).collect().await;
    // One answer for all mentions of a name.
    let mut told = std::collections::HashSet::new();
    let topics = topics.into_iter().filter(|topic| told.insert(topic.name.clone())).collect();
    CreateTopicsResponse::default().with_topics(topics)
}

async fn create(
    call: &Call,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<Created, Refusal> {
    if !may_create(call, &topic.name) {
        return Err(ResponseError::TopicAuthorizationFailed.into());
    }
    let path = call.path(&topic.name).map_err(|code| {
        let why = aquifer_types::StreamName::new(&topic.name).err();
        Refusal::new(code, why.map_or_else(String::new, |why| why.to_string()))
    })?;
    let partitions = partitions(call, topic)?;
    let settings = topic.configs.iter().map(|config| (&config.name, config.value.as_ref()));
    let config = configured(settings)?;
    call.store()
        .check_config(&config)
        .map_err(|error| Refusal::new(ResponseError::InvalidConfig, error.to_string()))?;
    let class = StreamClass::default();
    let new = NewStream { path, partitions, class, config: config.clone() };
    if validate_only {
        call.store().check_new_stream(&new)?;
        return Ok(Created { id: Uuid::nil(), partitions, config });
    }
    let created = call.store().create_stream(new).await?;
    Ok(Created { id: created.summary.id.0, partitions, config })
}

/// The number of partitions that a topic asks for. There is one broker to put
/// their replicas on.
fn partitions(call: &Call, topic: &CreatableTopic) -> Result<u32, Refusal> {
    let refused = |code, why: String| Err(Refusal::new(code, why));
    if !topic.assignments.is_empty() {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let why = "with assignments, neither partitions nor a replication factor are given";
            return refused(ResponseError::InvalidRequest, why.into());
        }
        let mut indexes: Vec<i32> = topic.assignments.iter().map(|a| a.partition_index).collect();
        indexes.sort_unstable();
        let is_whole = indexes.iter().zip(0..).all(|(index, expected)| *index == expected);
        let is_here = topic.assignments.iter().all(|a| is_here(&a.broker_ids));
        if !is_whole || !is_here {
            let why =
                format!("assignments are of all partitions from 0, each to broker {NODE_ID} alone");
            return refused(ResponseError::InvalidReplicaAssignment, why);
        }
        return checked(indexes.len() as i64);
    }
    if !matches!(topic.replication_factor, -1 | 1) {
        let why = format!(
            "Unable to replicate the partition {} time(s): there is 1 broker",
            topic.replication_factor
        );
        return refused(ResponseError::InvalidReplicationFactor, why);
    }
    match topic.num_partitions {
        -1 => Ok(call.broker.options.partitions_default),
        asked => checked(asked.into()),
    }
}

fn checked(partitions: i64) -> Result<u32, Refusal> {
    let sound = u32::try_from(partitions).ok().filter(|count| (1..=PARTITIONS_MAX).contains(count));
    sound.ok_or_else(|| {
        let why = format!("a topic has 1 to {PARTITIONS_MAX} partitions, not {partitions}");
        Refusal::new(ResponseError::InvalidPartitions, why)
    })
}

/// Whether replicas are to lie on this broker, once.
pub(crate) fn is_here(brokers: &[kafka_protocol::messages::BrokerId]) -> bool {
    matches!(brokers, [only] if only.0 == NODE_ID)
}

fn result(call: &Call, name: TopicName, created: Result<Created, Refusal>) -> CreatableTopicResult {
    let result = CreatableTopicResult::default();
    let created = match created {
        Ok(created) => created,
        Err(refusal) => {
            return result
                .with_name(name)
                .with_error_code(refusal.code.code())
                .with_error_message(refusal.text());
        }
    };
    let result = result.with_topic_id(created.id).with_error_message(None);
    // Whoever may create a topic need not be allowed to see its settings.
    if !call.allows(Action::DescribeConfigs, Resource::Stream(&name)) {
        return result
            .with_name(name)
            .with_topic_config_error_code(ResponseError::TopicAuthorizationFailed.code())
            .with_configs(None);
    }
    result
        .with_name(name)
        .with_num_partitions(i32::try_from(created.partitions).unwrap_or(i32::MAX))
        .with_replication_factor(1)
        .with_configs(Some(settings(&created.config)))
}

fn settings(config: &StreamConfig) -> Vec<CreatableTopicConfigs> {
    let settings = TOPIC_SETTINGS.iter().map(|setting| {
        let source = if setting.is_set(config) { Source::Topic } else { Source::Default };
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(setting.name))
            .with_value(Some(StrBytes::from_string(setting.value(config))))
            .with_read_only(setting.is_fixed())
            .with_config_source(source as i8)
    });
    settings.collect()
}
