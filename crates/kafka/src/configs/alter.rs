//! `AlterConfigs` and `IncrementalAlterConfigs`: changes of topics' settings.
//!
//! The settings of one topic change together or not at all. The broker's own
//! are not changed through this door.

use std::collections::{BTreeSet, HashSet};

use aquifer_stream::Error;
use aquifer_types::StreamConfig;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{Form, RESOURCE_BROKER, RESOURCE_TOPIC, TOPIC_SETTINGS, TopicSetting};
use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::refusal::Refusal;
use crate::topic::Topic;

/// How often a change is tried anew where somebody else changed the same stream.
const ATTEMPTS_MAX: usize = 16;

/// What happens to one setting, in Kafka's numbers (`AlterConfigOp.OpType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Set = 0,
    Delete = 1,
    Append = 2,
    Subtract = 3,
}

/// One setting of a request: its name, what happens to it, and the value.
type Item = (StrBytes, Result<Change, i8>, Option<StrBytes>);

/// Sets what a request names, and gives everything else its default.
pub(crate) async fn alter(call: &Call, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let mut seen = HashSet::new();
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let is_first = seen.insert((kind, name.clone()));
        let items = resource.configs.into_iter();
        let items = items.map(|config| (config.name, Ok(Change::Set), config.value)).collect();
        let done = change(call, (kind, &name, is_first), items, true, request.validate_only).await;
        let response = AlterConfigsResourceResponse::default();
        let response = response.with_resource_type(kind).with_resource_name(name);
        responses.push(match done {
            Ok(()) => response.with_error_message(None),
            Err(refusal) => {
                response.with_error_code(refusal.code.code()).with_error_message(refusal.text())
            }
        });
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// Changes what a request names, and leaves everything else.
pub(crate) async fn incremental_alter(
    call: &Call,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let mut seen = HashSet::new();
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let is_first = seen.insert((kind, name.clone()));
        let items = resource.configs.into_iter();
        let items = items
            .map(|config| (config.name, Change::of(config.config_operation), config.value))
            .collect();
        let done = change(call, (kind, &name, is_first), items, false, request.validate_only).await;
        let response = IncrementalResponse::default();
        let response = response.with_resource_type(kind).with_resource_name(name);
        responses.push(match done {
            Ok(()) => response.with_error_message(None),
            Err(refusal) => {
                response.with_error_code(refusal.code.code()).with_error_message(refusal.text())
            }
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

/// Changes one resource, whose kind, name and first mention are given.
async fn change(
    call: &Call,
    (kind, name, is_first): (i8, &StrBytes, bool),
    items: Vec<Item>,
    replaces: bool,
    validate_only: bool,
) -> Result<(), Refusal> {
    if !is_first {
        return Err(invalid("the resource is named twice in one request"));
    }
    match kind {
        RESOURCE_TOPIC => {}
        RESOURCE_BROKER if !call.allows(Action::AlterConfigs, Resource::Cluster) => {
            return Err(ResponseError::ClusterAuthorizationFailed.into());
        }
        RESOURCE_BROKER => {
            return Err(Refusal::new(
                ResponseError::InvalidConfig,
                "the broker's settings are changed in the server's configuration, with a restart",
            ));
        }
        other => {
            return Err(invalid(format!("resources of type {other} have no settings here")));
        }
    }
    if !call.allows(Action::AlterConfigs, Resource::Stream(name)) {
        return Err(ResponseError::TopicAuthorizationFailed.into());
    }
    // Changes through this door wait for each other, so that they are tried anew
    // for those through other doors only.
    let _altering = call.broker.altering.lock().await;
    for _ in 0..ATTEMPTS_MAX {
        let topic = Topic::named(call, name)?;
        let before = &*topic.shape.config;
        let mut config = before.clone();
        apply(&mut config, &items, replaces)?;
        call.store()
            .check_config(&config)
            .map_err(|error| Refusal::new(ResponseError::InvalidConfig, error.to_string()))?;
        if validate_only || config == *before {
            return Ok(());
        }
        match call.store().replace_config(&topic.path, before, config).await {
            Err(Error::ConfigChanged(_)) => {}
            other => return Ok(other?),
        }
    }
    let why = "the settings are changed by others all the time";
    Err(Refusal::new(ResponseError::RequestTimedOut, why))
}

/// The configuration after a request's items.
fn apply(config: &mut StreamConfig, items: &[Item], replaces: bool) -> Result<(), Refusal> {
    let names: HashSet<&StrBytes> = items.iter().map(|(name, _, _)| name).collect();
    if names.len() < items.len() {
        return Err(invalid("a setting is named twice"));
    }
    if replaces {
        for setting in TOPIC_SETTINGS {
            setting.reset(config);
        }
    }
    for (name, change, value) in items {
        let setting = TopicSetting::find(name).ok_or_else(|| unknown(name))?;
        let change = change.map_err(|code| invalid(format!("operation {code} is not known")))?;
        if change == Change::Delete {
            setting.reset(config);
            continue;
        }
        let value = value
            .as_ref()
            .ok_or_else(|| invalid(format!("Null value not supported for : {}", &**name)))?;
        let value = match change {
            Change::Set | Change::Delete => value.to_string(),
            _ if setting.form != Form::List => {
                return Err(config_refused(format!(
                    "Can't {} to key {}, it is not a list",
                    if change == Change::Append { "append" } else { "subtract" },
                    setting.name
                )));
            }
            Change::Append | Change::Subtract => joined(&setting.value(config), value, change),
        };
        setting.set(config, &value).map_err(config_refused)?;
    }
    Ok(())
}

/// A list with other items added or taken out.
fn joined(list: &str, items: &str, change: Change) -> String {
    fn words(list: &str) -> impl Iterator<Item = &str> {
        list.split(',').map(str::trim).filter(|word| !word.is_empty())
    }
    let items: Vec<&str> = words(items).collect();
    let mut seen = BTreeSet::new();
    let kept = words(list).filter(|word| change == Change::Append || !items.contains(word));
    let added = items.iter().copied().filter(|_| change == Change::Append);
    let all: Vec<&str> = kept.chain(added).filter(|word| seen.insert(*word)).collect();
    all.join(",")
}

impl Change {
    const fn of(code: i8) -> Result<Self, i8> {
        match code {
            0 => Ok(Self::Set),
            1 => Ok(Self::Delete),
            2 => Ok(Self::Append),
            3 => Ok(Self::Subtract),
            other => Err(other),
        }
    }
}

/// The configuration of a new topic.
pub(crate) fn configured<'a>(
    settings: impl Iterator<Item = (&'a StrBytes, Option<&'a StrBytes>)>,
) -> Result<StreamConfig, Refusal> {
    let items: Vec<Item> =
        settings.map(|(name, value)| (name.clone(), Ok(Change::Set), value.cloned())).collect();
    let mut config = StreamConfig::default();
    apply(&mut config, &items, false)?;
    Ok(config)
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, why)
}

fn config_refused(why: String) -> Refusal {
    Refusal::new(ResponseError::InvalidConfig, why)
}

fn unknown(name: &str) -> Refusal {
    let name: String = name.chars().take(80).collect();
    config_refused(format!("Unknown topic config name: {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_grow_and_shrink() {
        let check = |list, items, change, expected: &str| {
            assert_eq!(joined(list, items, change), expected, "{list} {change:?} {items}");
        };
        check("delete", "compact", Change::Append, "delete,compact");
        check("delete", "delete", Change::Append, "delete");
        check("", "0:1, 1:1", Change::Append, "0:1,1:1");
        check("delete,compact", "delete", Change::Subtract, "compact");
        check("delete", "compact", Change::Subtract, "delete");
        check("0:1", "0:1", Change::Subtract, "");
    }

    #[test]
    fn operations_bear_kafkas_numbers() {
        for change in [Change::Set, Change::Delete, Change::Append, Change::Subtract] {
            assert_eq!(Change::of(change as i8), Ok(change));
        }
        assert_eq!(Change::of(4), Err(4));
    }
}
