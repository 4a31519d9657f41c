//! `DescribeClientQuotas`: which quotas there are (KIP-546).

use std::collections::BTreeMap;

use aquifer_stream::DocumentKind;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use kafka_protocol::messages::{DescribeClientQuotasRequest, DescribeClientQuotasResponse};
use kafka_protocol::protocol::StrBytes;

use super::entity::{ClientQuota, Entity, EntityKind};
use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::refusal::Refusal;

/// What is asked of one part of an entity.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Named(StrBytes),
    Others,
    /// That it is there.
    Any,
}

/// What is asked of an entity.
#[derive(Debug)]
struct Filter {
    parts: BTreeMap<EntityKind, Wanted>,
    /// An entity has no other parts.
    is_strict: bool,
}

pub(crate) async fn describe(
    call: &Call,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    match find(call, &request) {
        Ok(found) => DescribeClientQuotasResponse::default()
            .with_entries(Some(found.iter().map(entry).collect())),
        Err(refusal) => DescribeClientQuotasResponse::default()
            .with_error_code(refusal.code.code())
            .with_error_message(refusal.text())
            .with_entries(None),
    }
}

fn find(call: &Call, request: &DescribeClientQuotasRequest) -> Result<Vec<ClientQuota>, Refusal> {
    if !call.allows(Action::DescribeConfigs, Resource::Cluster) {
        return Err(ResponseError::ClusterAuthorizationFailed.into());
    }
    let filter = Filter::of(&request.components, request.strict)?;
    let documents = call.store().documents(&call.principal.tenant, DocumentKind::ClientQuota);
    let mut found = Vec::new();
    for (name, document) in documents {
        let quota: ClientQuota = serde_json::from_str(&document.value).map_err(|error| {
            let why = format!("the quota {name} cannot be read: {error}");
            Refusal::new(ResponseError::UnknownServerError, why)
        })?;
        if filter.matches(&quota.entity) {
            found.push(quota);
        }
    }
    Ok(found)
}

impl Filter {
    fn of(components: &[ComponentData], is_strict: bool) -> Result<Self, Refusal> {
        let invalid = |why: String| Refusal::new(ResponseError::InvalidRequest, why);
        let mut parts = BTreeMap::new();
        for component in components {
            let name = component.entity_type.as_str();
            if name.is_empty() {
                return Err(invalid("Invalid empty entity type.".to_owned()));
            }
            let brief: String = name.chars().take(80).collect();
            let kind = EntityKind::find(name).ok_or_else(|| {
                let why = format!("Unsupported entity type {brief}");
                Refusal::new(ResponseError::UnsupportedVersion, why)
            })?;
            let wanted = match (component.match_type, &component._match) {
                (0, Some(name)) => Wanted::Named(name.clone()),
                (1, None) => Wanted::Others,
                (2, None) => Wanted::Any,
                (0..=2, _) => {
                    return Err(invalid("a name goes with an exact match only".to_owned()));
                }
                (other, _) => return Err(invalid(format!("Unknown match type {other}"))),
            };
            if parts.insert(kind, wanted).is_some() {
                return Err(invalid(format!(
                    "Entity type {brief} cannot appear more than once in the filter."
                )));
            }
        }
        if parts.contains_key(&EntityKind::Ip) && parts.len() > 1 {
            return Err(invalid("ip goes with neither user nor client-id".to_owned()));
        }
        Ok(Self { parts, is_strict })
    }

    fn matches(&self, entity: &Entity) -> bool {
        let is_met = |(kind, wanted): (&EntityKind, &Wanted)| {
            entity.part(*kind).is_some_and(|name| match wanted {
                Wanted::Named(wanted) => name == Some(wanted.as_str()),
                Wanted::Others => name.is_none(),
                Wanted::Any => true,
            })
        };
        self.parts.iter().all(is_met)
            && (!self.is_strict || entity.parts().len() == self.parts.len())
    }
}

fn entry(quota: &ClientQuota) -> EntryData {
    let entity = quota.entity.parts().map(|(kind, name)| {
        EntityData::default()
            .with_entity_type(StrBytes::from_static_str(kind.as_str()))
            .with_entity_name(name.map(|name| StrBytes::from_string(name.to_owned())))
    });
    let values = quota.quotas.iter().map(|(quota, limit)| {
        ValueData::default().with_key(StrBytes::from_static_str(quota.as_str())).with_value(*limit)
    });
    EntryData::default().with_entity(entity.collect()).with_values(values.collect())
}
