//! `InitProducerId`: an id and an epoch for an idempotent or transactional
//! producer. Taking a transactional id over fences whoever had it.

use aquifer_stream::NewTransactional;
use aquifer_types::{ProducerEpoch, ProducerId, TransactionalId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::authorizer::{Action, Resource};
use crate::call::Call;
use crate::offsets::coordinator_code;

/// Clients below it know one code for every producer that was fenced (KIP-588).
const FENCED_MIN: i16 = 4;

pub(crate) async fn handle(call: &Call, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let answer = InitProducerIdResponse::default();
    match init(call, &request).await {
        Ok((id, epoch)) => {
            answer.with_producer_id(id.get().into()).with_producer_epoch(epoch.get())
        }
        Err(error) => {
            let answer = answer.with_error_code(error.code());
            answer.with_producer_id((-1).into()).with_producer_epoch(-1)
        }
    }
}

async fn init(
    call: &Call,
    request: &InitProducerIdRequest,
) -> Result<(ProducerId, ProducerEpoch), ResponseError> {
    let transactional = match &request.transactional_id {
        None => None,
        Some(id) => Some(transactional(call, id, request)?),
    };
    let initialized = call.store().init_producer(&call.principal.tenant, transactional).await;
    initialized.map_err(|error| match coordinator_code(&error) {
        ResponseError::InvalidProducerEpoch if call.version >= FENCED_MIN => {
            ResponseError::ProducerFenced
        }
        error => error,
    })
}

fn transactional(
    call: &Call,
    id: &str,
    request: &InitProducerIdRequest,
) -> Result<NewTransactional, ResponseError> {
    if !call.allows(Action::Write, Resource::TransactionalId(id)) {
        return Err(ResponseError::TransactionalIdAuthorizationFailed);
    }
    let id = TransactionalId::new(id).map_err(|_| ResponseError::InvalidRequest)?;
    let timeout_ms = u32::try_from(request.transaction_timeout_ms).ok().filter(|ms| *ms > 0);
    let timeout_ms = timeout_ms.ok_or(ResponseError::InvalidTransactionTimeout)?;
    let expected = match (request.producer_id.0, request.producer_epoch) {
        (-1, -1) => None,
        (id, epoch) if id >= 0 && epoch >= 0 => Some((ProducerId(id), ProducerEpoch(epoch))),
        _ => return Err(ResponseError::InvalidRequest),
    };
    Ok(NewTransactional { id, timeout_ms, expected })
}
