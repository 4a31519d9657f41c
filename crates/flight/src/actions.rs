//! Actions: what is done besides getting and putting rows.

use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any,
    ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightInfo,
};
use bytes::Bytes;
use prost::Message;

use crate::metrics::result;
use crate::problem::Problem;
use crate::questions::Asker;
use crate::schema;
use crate::tickets::{self, RunId};
use crate::wire_types::{CloseSessionResult, CloseSessionStatus};

const CREATE_PREPARED_STATEMENT: &str = "CreatePreparedStatement";
const CLOSE_PREPARED_STATEMENT: &str = "ClosePreparedStatement";
const CANCEL_QUERY: &str = "CancelQuery";
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const CLOSE_SESSION: &str = "CloseSession";

/// Tickets of one flight; ours have one.
const ENDPOINTS_MAX: usize = 64;

/// What can be done.
pub(crate) fn kinds() -> [ActionType; 5] {
    let kind = |name: &str, description: &str| ActionType {
        r#type: name.to_owned(),
        description: description.to_owned(),
    };
    [
        kind(
            CREATE_PREPARED_STATEMENT,
            "keeps a statement: ActionCreatePreparedStatementRequest, answered with \
             ActionCreatePreparedStatementResult",
        ),
        kind(
            CLOSE_PREPARED_STATEMENT,
            "forgets a prepared statement: ActionClosePreparedStatementRequest, answered with \
             nothing",
        ),
        kind(
            CANCEL_QUERY,
            "ends a statement that runs: ActionCancelQueryRequest, answered with \
             ActionCancelQueryResult",
        ),
        kind(
            CANCEL_FLIGHT_INFO,
            "ends a statement that runs: CancelFlightInfoRequest, answered with \
             CancelFlightInfoResult",
        ),
        kind(
            CLOSE_SESSION,
            "ends what the caller's token is good for: CloseSessionRequest, answered with \
             CloseSessionResult",
        ),
    ]
}

/// Does what is asked; what it is answered with.
///
/// # Errors
/// What cannot be read or done.
pub(crate) async fn act(asker: &Asker, action: &Action) -> Result<Option<Bytes>, Problem> {
    match action.r#type.as_str() {
        CREATE_PREPARED_STATEMENT => {
            let prepared = prepare(asker, &packed(&action.body)?).await?;
            Ok(Some(pack(&prepared)))
        }
        CLOSE_PREPARED_STATEMENT => {
            let asked: ActionClosePreparedStatementRequest = packed(&action.body)?;
            if let Some(id) = RunId::of_handle(&asked.prepared_statement_handle) {
                asker.door.statements.close(&asker.caller.owner, id);
            }
            Ok(None)
        }
        CANCEL_QUERY => {
            let asked: ActionCancelQueryRequest = packed(&action.body)?;
            let status = cancel(asker, &plain(&asked.info)?);
            // Both kinds of cancel count their outcomes alike.
            Ok(Some(pack(&ActionCancelQueryResult { result: status.into() })))
        }
        CANCEL_FLIGHT_INFO => {
            let asked: CancelFlightInfoRequest = plain(&action.body)?;
            let status = cancel(asker, &asked.info.unwrap_or_default());
            Ok(Some(CancelFlightInfoResult::new(status).encode_to_vec().into()))
        }
        CLOSE_SESSION => {
            let status = match asker.caller.session {
                Some(session) => {
                    asker.door.sessions.close(session);
                    CloseSessionStatus::Closed
                }
                // Where nobody logs in there is nothing to end.
                None => CloseSessionStatus::NotCloseable,
            };
            let result = CloseSessionResult { status: status.into() };
            Ok(Some(result.encode_to_vec().into()))
        }
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
            Err(no_transactions())
        }
        other => {
            let shown: String = other.chars().take(64).collect();
            Err(Problem::unsupported(format!(
                "the action {shown:?} is not done here; ListActions names those that are"
            )))
        }
    }
}

/// Each statement reads what was there when it began.
pub(crate) fn no_transactions() -> Problem {
    Problem::unsupported(
        "there are no transactions: each statement reads what was acknowledged when it began",
    )
}

/// Reads a message of Flight SQL, which lies in an `Any`.
fn packed<M: ProstMessageExt>(body: &[u8]) -> Result<M, Problem> {
    let any: Any = plain(body)?;
    match any.unpack::<M>() {
        Ok(Some(message)) => Ok(message),
        _ => Err(malformed()),
    }
}

fn plain<M: Message + Default>(body: &[u8]) -> Result<M, Problem> {
    M::decode(body).map_err(|_| malformed())
}

fn malformed() -> Problem {
    Problem::invalid("flight-malformed", "the body of the action is not what its kind has")
}

fn pack<M: ProstMessageExt>(message: &M) -> Bytes {
    message.as_any().encode_to_vec().into()
}

async fn prepare(
    asker: &Asker,
    asked: &ActionCreatePreparedStatementRequest,
) -> Result<ActionCreatePreparedStatementResult, Problem> {
    if asked.transaction_id.as_ref().is_some_and(|id| !id.is_empty()) {
        return Err(no_transactions());
    }
    let answer = asker.describe(&asked.query).await?;
    let door = &asker.door;
    let id = door.statements.prepare(
        &asker.caller.owner,
        &asked.query,
        door.random.as_ref(),
        door.now(),
    )?;
    Ok(ActionCreatePreparedStatementResult {
        prepared_statement_handle: id.to_handle(),
        dataset_schema: schema::bytes(&schema::of_answer(&answer.schema)?)?,
        parameter_schema: schema::bytes(&schema::of_parameters(&answer.parameters))?,
    })
}

/// Ends what runs of a flight.
fn cancel(asker: &Asker, flight: &FlightInfo) -> CancelStatus {
    let tickets = flight.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
    let runs = tickets.take(ENDPOINTS_MAX).filter_map(|ticket| tickets::run_of(&ticket.ticket));
    let told = runs.filter(|run| asker.door.runs.cancel(&asker.caller.owner, *run)).count();
    asker.door.metrics.cancels.get_or_create(&result(told > 0)).inc();
    if told > 0 { CancelStatus::Cancelled } else { CancelStatus::NotCancellable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_by_their_kind() {
        let close = ActionClosePreparedStatementRequest {
            prepared_statement_handle: Bytes::from_static(b"handle"),
        };
        let body = pack(&close);
        assert_eq!(packed::<ActionClosePreparedStatementRequest>(&body).unwrap(), close);
        for body in [&b""[..], b"\xff\xff", &close.encode_to_vec()] {
            assert!(packed::<ActionCancelQueryRequest>(body).is_err(), "{body:?}");
        }
        assert!(packed::<ActionCancelQueryRequest>(&body).is_err());
        // The numbers of both kinds of cancel are the same.
        assert_eq!(i32::from(CancelStatus::NotCancellable), 3);
    }

    #[test]
    fn fuzz_flight_actions() {
        let prepare = ActionCreatePreparedStatementRequest {
            query: "SELECT 1".to_owned(),
            transaction_id: None,
        };
        let info = FlightInfo::new().encode_to_vec();
        let cancel = ActionCancelQueryRequest { info: info.into() };
        let corpus = [pack(&prepare).to_vec(), pack(&cancel).to_vec()];
        aquifer_testkit::fuzz("flight_actions", 0.2, &corpus, |bytes| {
            let _ = packed::<ActionCreatePreparedStatementRequest>(bytes);
            if let Ok(asked) = packed::<ActionCancelQueryRequest>(bytes) {
                let _ = plain::<FlightInfo>(&asked.info);
            }
        });
    }
}
