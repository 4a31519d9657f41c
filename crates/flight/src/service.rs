//! The calls of Flight, with the commands of Flight SQL in them.

use std::sync::Arc;

use aquifer_query::Parameter;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{Any, Command, DoPutPreparedStatementResult, DoPutUpdateResult};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use arrow_schema::Schema;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use crate::actions::{self, no_transactions};
use crate::metrics::result;
use crate::parameters::Binding;
use crate::problem::Problem;
use crate::questions::Asker;
use crate::server::Door;
use crate::tickets::{RunId, StatementTicket};
use crate::{catalog, outgoing, schema, statements};

type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// The service.
pub(crate) struct FlightSql {
    door: Arc<Door>,
}

impl FlightSql {
    pub(crate) fn new(door: Arc<Door>) -> Self {
        Self { door }
    }

    fn asker<T>(&self, request: &Request<T>) -> Result<Asker, Status> {
        Asker::of(&self.door, request)
    }
}

#[tonic::async_trait]
impl FlightService for FlightSql {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    async fn handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        // Whoever came here was let in; the token is in a header of the answer.
        let answer = HandshakeResponse { protocol_version: 0, payload: Bytes::new() };
        Ok(Response::new(stream::iter([Ok(answer)]).boxed()))
    }

    async fn list_flights(
        &self,
        _request: Request<Criteria>,
    ) -> Result<Response<Self::ListFlightsStream>, Status> {
        let message = "flights are not listed: Flight SQL's GetTables names what can be asked for";
        Err(Problem::unsupported(message).into())
    }

    async fn get_flight_info(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let asker = self.asker(&request)?;
        let info = flight_info(&asker, request.into_inner()).await?;
        Ok(Response::new(info))
    }

    async fn poll_flight_info(
        &self,
        _request: Request<FlightDescriptor>,
    ) -> Result<Response<PollInfo>, Status> {
        Err(Problem::unsupported("answers begin at once: use GetFlightInfo").into())
    }

    async fn get_schema(
        &self,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<SchemaResult>, Status> {
        let asker = self.asker(&request)?;
        let schema = schema_of(&asker, &request.into_inner()).await?;
        Ok(Response::new(SchemaResult { schema: schema::bytes(&schema)? }))
    }

    async fn do_get(
        &self,
        request: Request<Ticket>,
    ) -> Result<Response<Self::DoGetStream>, Status> {
        let asker = self.asker(&request)?;
        let rows = get(asker, &request.into_inner().ticket).await;
        let rows = rows.inspect_err(|_| {
            self.door.metrics.statements.get_or_create(&result(false)).inc();
        })?;
        Ok(Response::new(rows))
    }

    async fn do_put(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoPutStream>, Status> {
        let asker = self.asker(&request)?;
        let app_metadata = put(&asker, request.into_inner()).await?;
        Ok(Response::new(stream::iter([Ok(PutResult { app_metadata })]).boxed()))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(Problem::unsupported("nothing is exchanged here: use DoGet").into())
    }

    async fn do_action(
        &self,
        request: Request<Action>,
    ) -> Result<Response<Self::DoActionStream>, Status> {
        let asker = self.asker(&request)?;
        let body = actions::act(&asker, request.get_ref()).await?;
        let results: Vec<_> =
            body.into_iter().map(|body| Ok(arrow_flight::Result { body })).collect();
        Ok(Response::new(stream::iter(results).boxed()))
    }

    async fn list_actions(
        &self,
        _request: Request<Empty>,
    ) -> Result<Response<Self::ListActionsStream>, Status> {
        Ok(Response::new(stream::iter(actions::kinds().map(Ok)).boxed()))
    }
}

/// Reads a command.
fn command(bytes: &[u8]) -> Result<Command, Problem> {
    let malformed = || {
        let message = "this is no command of Flight SQL: a packed message of it has to be there";
        Problem::invalid("flight-malformed", message)
    };
    let any = Any::decode(bytes).map_err(|_| malformed())?;
    Command::try_from(any).map_err(|_| malformed())
}

fn command_of(descriptor: &FlightDescriptor) -> Result<Command, Problem> {
    if descriptor.r#type != i32::from(DescriptorType::Cmd) {
        let message = "flights are named by commands of Flight SQL, not by paths";
        return Err(Problem::invalid("flight-malformed", message));
    }
    command(&descriptor.cmd)
}

fn not_done(command: &Command) -> Problem {
    if matches!(command, Command::CommandStatementIngest(_)) {
        let message = "records are not written here: append them over HTTP or Kafka's protocol";
        return Problem::unsupported(message);
    }
    let name: String = command.type_url().chars().take(128).collect();
    let name = name.rsplit('.').next().unwrap_or_default();
    Problem::unsupported(format!("{name:?} is not done by this call, or not here at all"))
}

/// The handle of a prepared statement.
fn handle(handle: &[u8]) -> Result<RunId, Problem> {
    RunId::of_handle(handle).ok_or_else(statements::unknown)
}

fn check_transaction(id: Option<&Bytes>) -> Result<(), Problem> {
    match id.is_some_and(|id| !id.is_empty()) {
        true => Err(no_transactions()),
        false => Ok(()),
    }
}

async fn flight_info(asker: &Asker, descriptor: FlightDescriptor) -> Result<FlightInfo, Problem> {
    let (schema, ticket) = match command_of(&descriptor)? {
        Command::CommandStatementQuery(query) => {
            check_transaction(query.transaction_id.as_ref())?;
            let answer = asker.describe(&query.query).await?;
            let schema = schema::bytes(&schema::of_answer(&answer.schema)?)?;
            let run = RunId::new(asker.door.random.as_ref());
            (schema, StatementTicket { run, sql: query.query }.to_ticket())
        }
        Command::CommandPreparedStatementQuery(prepared) => {
            let id = handle(&prepared.prepared_statement_handle)?;
            asker.door.statements.get(&asker.caller.owner, id, asker.door.now())?;
            // The client was told its schema when it was prepared.
            (Bytes::new(), descriptor.cmd.clone())
        }
        other => match catalog::schema_of(&other) {
            Some(schema) => (schema::bytes(&schema)?, descriptor.cmd.clone()),
            None => return Err(not_done(&other)),
        },
    };
    let endpoint = FlightEndpoint::new().with_ticket(Ticket { ticket });
    let mut info = FlightInfo::new().with_endpoint(endpoint).with_descriptor(descriptor);
    info.schema = schema;
    Ok(info)
}

async fn schema_of(asker: &Asker, descriptor: &FlightDescriptor) -> Result<Schema, Problem> {
    let sql = match command_of(descriptor)? {
        Command::CommandStatementQuery(query) => {
            check_transaction(query.transaction_id.as_ref())?;
            query.query
        }
        Command::CommandPreparedStatementQuery(prepared) => {
            let id = handle(&prepared.prepared_statement_handle)?;
            let bound = asker.door.statements.get(&asker.caller.owner, id, asker.door.now())?;
            bound.sql.to_string()
        }
        other => {
            let schema = catalog::schema_of(&other).ok_or_else(|| not_done(&other))?;
            return Ok(schema.as_ref().clone());
        }
    };
    let answer = asker.describe(&sql).await?;
    schema::of_answer(&answer.schema)
}

async fn get(asker: Asker, ticket: &[u8]) -> Result<Answers<FlightData>, Problem> {
    let (run, sql, parameters) = match command(ticket)? {
        Command::TicketStatementQuery(ticket) => {
            let ticket = StatementTicket::of_handle(&ticket.statement_handle)?;
            (ticket.run, ticket.sql, Vec::new())
        }
        Command::CommandPreparedStatementQuery(prepared) => {
            let id = handle(&prepared.prepared_statement_handle)?;
            let bound = asker.door.statements.get(&asker.caller.owner, id, asker.door.now())?;
            (id, bound.sql.to_string(), bound.parameters)
        }
        other => {
            let refused = not_done(&other);
            return catalog::rows(asker, other).await?.ok_or(refused);
        }
    };
    // From before the engine is asked: planning can take long, too.
    let mut run = asker.door.runs.enter(asker.caller.owner.clone(), run);
    let answer = tokio::select! {
        biased;
        () = run.cancelled() => return Err(Problem::cancelled()),
        answer = asker.ask(&sql, parameters) => answer?,
    };
    outgoing::messages(&asker.door, answer, run)
}

/// Takes what a client puts; what it is answered with.
async fn put(asker: &Asker, mut messages: Streaming<FlightData>) -> Result<Bytes, Status> {
    let first = messages.message().await?.ok_or_else(|| {
        Problem::invalid("flight-malformed", "nothing was put: a descriptor has to come first")
    })?;
    let command = command_of(first.flight_descriptor.as_ref().unwrap_or(&Default::default()))?;
    let done = match command {
        Command::CommandPreparedStatementQuery(prepared) => {
            let id = handle(&prepared.prepared_statement_handle)?;
            let values = values(first, messages).await?.finish();
            let door = &asker.door;
            door.statements.bind(&asker.caller.owner, id, values, door.now())?;
            let handle = Some(prepared.prepared_statement_handle);
            DoPutPreparedStatementResult { prepared_statement_handle: handle }.encode_to_vec()
        }
        Command::CommandStatementUpdate(update) => {
            check_transaction(update.transaction_id.as_ref())?;
            values(first, messages).await?;
            self::update(asker, &update.query, Vec::new()).await?.encode_to_vec()
        }
        Command::CommandPreparedStatementUpdate(prepared) => {
            let id = handle(&prepared.prepared_statement_handle)?;
            let bound = asker.door.statements.get(&asker.caller.owner, id, asker.door.now())?;
            let values = values(first, messages).await?;
            let parameters = if values.is_bound() { values.finish() } else { bound.parameters };
            self::update(asker, &bound.sql, parameters).await?.encode_to_vec()
        }
        other => return Err(not_done(&other).into()),
    };
    Ok(done.into())
}

/// Takes everything that is put, so that its client is not cut off in the
/// middle.
async fn values(first: FlightData, mut messages: Streaming<FlightData>) -> Result<Binding, Status> {
    let mut binding = Binding::default();
    binding.feed(&first)?;
    while let Some(message) = messages.message().await? {
        binding.feed(&message)?;
    }
    Ok(binding)
}

/// Runs a statement that has no rows to answer with.
async fn update(
    asker: &Asker,
    sql: &str,
    parameters: Vec<Parameter>,
) -> Result<DoPutUpdateResult, Problem> {
    let done = run_to_its_end(asker, sql, parameters).await;
    asker.door.metrics.statements.get_or_create(&result(done.is_ok())).inc();
    done.map(|()| DoPutUpdateResult { record_count: 0 })
}

async fn run_to_its_end(
    asker: &Asker,
    sql: &str,
    parameters: Vec<Parameter>,
) -> Result<(), Problem> {
    let mut answer = asker.ask(sql, parameters).await?;
    if !answer.columns.is_empty() {
        let message = "this statement answers with rows: ask it as a query, not as an update";
        return Err(Problem::invalid("statement-has-rows", message));
    }
    while answer.next().await?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::{CommandStatementIngest, CommandStatementQuery, ProstMessageExt as _};
    use tonic::Code;

    use super::*;

    #[test]
    fn commands_are_read_or_refused_by_name() {
        let query = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
        let packed = query.as_any().encode_to_vec();
        assert_eq!(command(&packed).unwrap(), Command::CommandStatementQuery(query));
        assert_eq!(command(b"SELECT 1").unwrap_err().code, Code::InvalidArgument);
        let path = FlightDescriptor::new_path(vec!["audit".to_owned()]);
        assert!(command_of(&path).unwrap_err().message.contains("paths"));
        let unknown = command(b"").unwrap();
        assert_eq!(not_done(&unknown).code, Code::Unimplemented);
        let ingest = Command::CommandStatementIngest(CommandStatementIngest::default());
        assert!(not_done(&ingest).message.contains("HTTP"));
    }

    #[test]
    fn fuzz_flight_commands() {
        let query = CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None };
        let descriptor = FlightDescriptor::new_cmd(query.as_any().encode_to_vec());
        let corpus = [descriptor.encode_to_vec(), query.as_any().encode_to_vec()];
        aquifer_testkit::fuzz("flight_commands", 0.2, &corpus, |bytes| {
            if let Ok(command) = command(bytes) {
                let _ = (not_done(&command), catalog::schema_of(&command));
            }
            if let Ok(descriptor) = FlightDescriptor::decode(bytes) {
                let _ = command_of(&descriptor);
            }
        });
    }
}
