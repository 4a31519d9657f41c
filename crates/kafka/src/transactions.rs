//! `AddOffsetsToTxn` and `EndTxn`, and what all requests of a transaction have
//! in common: whose it is, and how clients are told that it cannot go on.

use aquifer_stream::Error;
use aquifer_types::{ProducerEpoch, ProducerId, TransactionalId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, EndTxnRequest, EndTxnResponse,
};

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::membership::{code, readable};
use crate::offsets::coordinator_code;

/// Clients below it know one code for every producer that was fenced (KIP-588).
const FENCED_MIN: i16 = 2;

/// Who a request says that it is from.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    pub(crate) id: TransactionalId,
    pub(crate) producer: (ProducerId, ProducerEpoch),
}

impl Writer {
    /// The writer, if the principal may be it.
    pub(crate) fn allowed(
        call: &Call,
        id: &str,
        producer: i64,
        epoch: i16,
    ) -> Result<Self, ResponseError> {
        if !call.allows(Action::Write, Resource::TransactionalId(id)) {
            return Err(ResponseError::TransactionalIdAuthorizationFailed);
        }
        let id = TransactionalId::new(id).map_err(|_| ResponseError::InvalidRequest)?;
        Ok(Self { id, producer: (ProducerId(producer), ProducerEpoch(epoch)) })
    }
}

/// What a client is told where its transaction was refused.
pub(crate) fn transaction_code(error: &Error) -> ResponseError {
    match error {
        // Whoever has a producer's id was initialised once; that it is
        // forgotten makes the id wrong, not unknown.
        Error::TransactionalIdNotFound(_) => ResponseError::InvalidProducerIdMapping,
        Error::InvalidTransactionState(_) => ResponseError::InvalidTxnState,
        // A stream was deleted on the way.
        Error::Overtaken(_) => ResponseError::UnknownTopicOrPartition,
        error => coordinator_code(error),
    }
}

/// [`transaction_code`] for the requests that told fenced producers apart from
/// version 2 on.
pub(crate) fn versioned_code(version: i16, error: &Error) -> ResponseError {
    match transaction_code(error) {
        ResponseError::InvalidProducerEpoch if version >= FENCED_MIN => {
            ResponseError::ProducerFenced
        }
        code => code,
    }
}

pub(crate) async fn add_offsets(
    call: &Call,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    AddOffsetsToTxnResponse::default().with_error_code(code(add_group(call, &request).await))
}

async fn add_group(call: &Call, request: &AddOffsetsToTxnRequest) -> Result<(), ResponseError> {
    let (producer, epoch) = (request.producer_id.0, request.producer_epoch);
    let writer = Writer::allowed(call, &request.transactional_id, producer, epoch)?;
    let key = readable(call, &request.group_id)?;
    let added = call.store().add_group(&key.tenant, &writer.id, writer.producer, &key.group).await;
    added.map_err(|error| versioned_code(call.version, &error))
}

/// A commit may be repeated, also after a restart of the server or the client:
/// whoever lost the answer asks again.
pub(crate) async fn end(call: &Call, request: EndTxnRequest) -> EndTxnResponse {
    EndTxnResponse::default().with_error_code(code(end_one(call, &request).await))
}

async fn end_one(call: &Call, request: &EndTxnRequest) -> Result<(), ResponseError> {
    let (producer, epoch) = (request.producer_id.0, request.producer_epoch);
    let writer = Writer::allowed(call, &request.transactional_id, producer, epoch)?;
    let tenant = &call.principal.tenant;
    let store = call.store();
    let ended = store.end_transaction(tenant, &writer.id, writer.producer, request.committed).await;
    ended.map_err(|error| versioned_code(call.version, &error))
}
