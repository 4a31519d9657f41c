//! `DescribeConfigs`: the settings of topics and of the broker.

use std::collections::HashSet;

use aquifer_types::StreamConfig;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::broker_setting::{BrokerSetting, broker_settings};
use super::{RESOURCE_BROKER, RESOURCE_TOPIC, Source, TOPIC_SETTINGS, TopicSetting};
use crate::authorizer::{Action, Resource};
use crate::broker::NODE_ID;
use crate::call::Call;
use crate::refusal::Refusal;
use crate::topic::Topic;

/// What to tell of each setting.
#[derive(Debug, Clone, Copy)]
struct Wants {
    synonyms: bool,
    documentation: bool,
}

pub(crate) async fn describe(
    call: &Call,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let wants =
        Wants { synonyms: request.include_synonyms, documentation: request.include_documentation };
    // All settings of a resource that is named often are told once.
    let mut seen = HashSet::new();
    let asked = request.resources.into_iter();
    let asked = asked.filter(|of| seen.insert((of.resource_type, of.resource_name.clone())));
    let results = asked.map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match of_resource(call, &resource, wants) {
            Ok(mut configs) => {
                // No keys at all are all of them, as to Kafka.
                let keys = resource.configuration_keys.unwrap_or_default();
                if !keys.is_empty() {
                    configs.retain(|config| keys.contains(&config.name));
                }
                result.with_error_message(None).with_configs(configs)
            }
            Err(refusal) => {
                result.with_error_code(refusal.code.code()).with_error_message(refusal.text())
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn of_resource(
    call: &Call,
    resource: &DescribeConfigsResource,
    wants: Wants,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let name = &resource.resource_name;
    match resource.resource_type {
        RESOURCE_TOPIC => {
            if !call.allows(Action::DescribeConfigs, Resource::Stream(name)) {
                return Err(ResponseError::TopicAuthorizationFailed.into());
            }
            let config = Topic::named(call, name)?.shape.config;
            let settings = TOPIC_SETTINGS.iter();
            Ok(settings.map(|setting| of_topic(setting, &config, wants)).collect())
        }
        RESOURCE_BROKER => {
            if !call.allows(Action::DescribeConfigs, Resource::Cluster) {
                return Err(ResponseError::ClusterAuthorizationFailed.into());
            }
            // Without a name it means what was set for all brokers at once.
            if name.is_empty() {
                return Ok(Vec::new());
            }
            if **name != *NODE_ID.to_string() {
                return Err(Refusal::new(
                    ResponseError::InvalidRequest,
                    format!("there is no broker {}, only {NODE_ID}", &**name),
                ));
            }
            let settings = broker_settings(&call.broker, call.session.listener);
            Ok(settings.into_iter().map(|setting| of_broker(setting, wants)).collect())
        }
        other => Err(Refusal::new(
            ResponseError::InvalidRequest,
            format!("resources of type {other} have no settings here"),
        )),
    }
}

fn of_topic(
    setting: &TopicSetting,
    config: &StreamConfig,
    wants: Wants,
) -> DescribeConfigsResourceResult {
    let value = text(setting.value(config));
    let is_set = setting.is_set(config);
    let mut synonyms = Vec::new();
    if wants.synonyms {
        if is_set {
            synonyms.push(synonym(setting.name, value.clone(), Source::Topic));
        }
        let default = text(setting.default_value());
        synonyms.extend(setting.of_broker.map(|name| synonym(name, default, Source::Default)));
    }
    let source = if is_set { Source::Topic } else { Source::Default };
    let documentation = wants.documentation.then(|| text(setting.documentation));
    DescribeConfigsResourceResult::default()
        .with_name(text(setting.name))
        .with_value(Some(value))
        .with_read_only(setting.is_fixed())
        .with_config_source(source as i8)
        .with_synonyms(synonyms)
        .with_config_type(setting.form as i8)
        .with_documentation(documentation)
}

fn of_broker(setting: BrokerSetting, wants: Wants) -> DescribeConfigsResourceResult {
    let value = text(setting.value);
    let synonyms = if wants.synonyms {
        vec![synonym(setting.name, value.clone(), setting.source)]
    } else {
        Vec::new()
    };
    let documentation = wants.documentation.then(|| text(setting.documentation));
    DescribeConfigsResourceResult::default()
        .with_name(text(setting.name))
        .with_value(Some(value))
        .with_read_only(true)
        .with_config_source(setting.source as i8)
        .with_synonyms(synonyms)
        .with_config_type(setting.form as i8)
        .with_documentation(documentation)
}

fn synonym(name: &str, value: StrBytes, source: Source) -> DescribeConfigsSynonym {
    DescribeConfigsSynonym::default()
        .with_name(text(name))
        .with_value(Some(value))
        .with_source(source as i8)
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}
