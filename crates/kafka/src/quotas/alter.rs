//! `AlterClientQuotas`: quotas set and taken away (KIP-546).
//!
//! The quotas of one entity change together or not at all. The answer comes when
//! they are stored, and from then on they hold.

use std::collections::HashSet;

use aquifer_stream::{DocumentExpectation, DocumentKey, DocumentKind, Error};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_client_quotas_request::OpData;
use kafka_protocol::messages::alter_client_quotas_response::{EntityData, EntryData};
use kafka_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse};

use super::entity::{ClientQuota, Entity, Quota, Quotas};
use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::refusal::Refusal;

/// How often a change is tried anew where somebody else changed the same entity.
const ATTEMPTS_MAX: usize = 16;

/// New limits, and those that go.
type Changes = Vec<(Quota, Option<f64>)>;

pub(crate) async fn alter(
    call: &Call,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    let is_allowed = call.allows(Action::AlterConfigs, Resource::Cluster);
    let mut seen = HashSet::new();
    let mut entries = Vec::with_capacity(request.entries.len());
    for entry in request.entries {
        let parts = entry.entity.iter();
        let parts = parts.map(|part| (part.entity_type.as_str(), part.entity_name.as_deref()));
        let done = match Entity::of(parts) {
            _ if !is_allowed => Err(ResponseError::ClusterAuthorizationFailed.into()),
            Ok(entity) if !seen.insert(entity.clone()) => {
                Err(invalid("the entity is named twice in one request"))
            }
            Ok(entity) => change(call, &entity, &entry.ops, request.validate_only).await,
            Err(why) => Err(invalid(why)),
        };
        let entity = entry.entity.into_iter().map(|part| {
            EntityData::default()
                .with_entity_type(part.entity_type)
                .with_entity_name(part.entity_name)
        });
        let answer = EntryData::default().with_entity(entity.collect());
        entries.push(match done {
            Ok(()) => answer.with_error_message(None),
            Err(refusal) => {
                answer.with_error_code(refusal.code.code()).with_error_message(refusal.text())
            }
        });
    }
    call.broker.quotas.load();
    AlterClientQuotasResponse::default().with_entries(entries)
}

async fn change(
    call: &Call,
    entity: &Entity,
    operations: &[OpData],
    validate_only: bool,
) -> Result<(), Refusal> {
    let changes = changes(entity, operations)?;
    let name = entity.document_name();
    let key = DocumentKey::new(call.principal.tenant.clone(), DocumentKind::ClientQuota, name);
    for _ in 0..ATTEMPTS_MAX {
        let document = call.store().document(&key);
        let mut quotas = match &document {
            Some(document) => read(&key, &document.value)?,
            None => Quotas::new(),
        };
        let before = quotas.clone();
        for (quota, limit) in &changes {
            match limit {
                Some(limit) => quotas.insert(*quota, *limit),
                None => quotas.remove(quota),
            };
        }
        if validate_only || quotas == before {
            return Ok(());
        }
        let expected = document.map_or(DocumentExpectation::Absent, |document| {
            DocumentExpectation::Version(document.version)
        });
        let done = if quotas.is_empty() {
            call.store().delete_document(key.clone(), expected).await
        } else {
            let value = written(&ClientQuota { entity: entity.clone(), quotas })?;
            call.store().put_document(key.clone(), value, expected).await.map(|_| ())
        };
        match done {
            Err(Error::DocumentChanged { .. }) => {}
            other => return Ok(other?),
        }
    }
    let why = "the entity's quotas are changed by others all the time";
    Err(Refusal::new(ResponseError::RequestTimedOut, why))
}

fn changes(entity: &Entity, operations: &[OpData]) -> Result<Changes, Refusal> {
    let mut seen = HashSet::new();
    let mut changes = Changes::with_capacity(operations.len());
    for operation in operations {
        let brief: String = operation.key.chars().take(80).collect();
        if !seen.insert(operation.key.as_str()) {
            return Err(invalid(format!("Duplicate quota key {brief}")));
        }
        let quota = Quota::find(&operation.key).filter(|quota| entity.takes(*quota));
        match quota {
            Some(quota) if operation.remove => changes.push((quota, None)),
            Some(quota) => {
                quota.check(operation.value).map_err(invalid)?;
                changes.push((quota, Some(operation.value)));
            }
            // What cannot be there is not there.
            None if operation.remove => {}
            None => return Err(invalid(format!("Invalid configuration key {brief}"))),
        }
    }
    Ok(changes)
}

fn read(key: &DocumentKey, value: &str) -> Result<Quotas, Refusal> {
    let quota = serde_json::from_str::<ClientQuota>(value).map_err(|error| {
        let why = format!("the quota {} cannot be read: {error}", key.name);
        Refusal::new(ResponseError::UnknownServerError, why)
    })?;
    Ok(quota.quotas)
}

fn written(quota: &ClientQuota) -> Result<String, Refusal> {
    serde_json::to_string(quota)
        .map_err(|error| Refusal::new(ResponseError::UnknownServerError, error.to_string()))
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, why)
}
