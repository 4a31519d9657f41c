//! `DeleteTopics`, by name or by id.

use std::collections::HashSet;

use futures::StreamExt as _;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use uuid::Uuid;

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::create_topics::TOGETHER;
use crate::refusal::Refusal;
use crate::topic::Topic;

pub(crate) async fn handle(call: &Call, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil()));
    let by_either = request.topics.into_iter();
    let by_either = by_either.map(|DeleteTopicState { name, topic_id, .. }| (name, topic_id));
    let mut seen = HashSet::new();
    let topics: Vec<_> = by_name.chain(by_either).filter(|t| seen.insert(t.clone())).collect();
    let results = topics.into_iter().map(|(name, id)| async move {
        let result = DeletableTopicResult::default();
        let result = result.with_name(name.clone()).with_topic_id(id);
        match delete(call, name, id).await {
            Ok(topic) => result
                .with_name(Some(topic.name()))
                .with_topic_id(topic.shape.id.0)
                .with_error_message(None),
            Err(refusal) => {
                result.with_error_code(refusal.code.code()).with_error_message(refusal.text())
            }
        }
    });
    let responses = futures::stream::iter(results).buffered(TOGETHER).collect().await;
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete(call: &Call, name: Option<TopicName>, id: Uuid) -> Result<Topic, Refusal> {
    let topic = match &name {
        Some(_) if !id.is_nil() => {
            let why = "a topic is given by its name or by its id, not by both";
            return Err(Refusal::new(ResponseError::InvalidRequest, why));
        }
        Some(name) => {
            if !call.allows(Action::Delete, Resource::Stream(name)) {
                return Err(ResponseError::TopicAuthorizationFailed.into());
            }
            // A name that cannot be is one that is not there.
            Topic::named(call, name).map_err(|_| ResponseError::UnknownTopicOrPartition)?
        }
        None => Topic::with_id(call, id)?,
    };
    let stream = topic.path.name.as_str();
    if !call.allows(Action::Delete, Resource::Stream(stream)) {
        let may_see = call.allows(Action::Describe, Resource::Stream(stream));
        let code = ResponseError::TopicAuthorizationFailed;
        return Err(if may_see { code } else { ResponseError::UnknownTopicId }.into());
    }
    call.store().delete_stream(&topic.path).await?;
    Ok(topic)
}
