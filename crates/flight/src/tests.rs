//! The door over real sockets, with Arrow's own client. What the engine answers
//! is tested end to end; here there is none, and that is an answer too.

use std::sync::Arc;
use std::time::Duration;

use aquifer_query::{EngineCommand, Queries, QueryEnvironment, QueryMetrics, QueryOptions};
use aquifer_stream::{Environment, Options, StreamStore};
use aquifer_types::TenantName;
use aquifer_users::{Creation, Password, UserName, Users};
use arrow_array::cast::AsArray as _;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    ActionBeginTransactionRequest, CommandGetDbSchemas, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetTables, CommandGetXdbcTypeInfo, ProstMessageExt as _, SqlInfo,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Empty, FlightData,
    FlightDescriptor, FlightInfo, Ticket,
};
use futures::TryStreamExt as _;
use prometheus_client::registry::Registry;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, IntoRequest as _, Status};

use crate::tickets::{RunId, StatementTicket};
use crate::wire_types::{CloseSessionResult, CloseSessionStatus};
use crate::{FlightEnvironment, FlightMetrics, FlightOptions, FlightSecurity, FlightServer};

type Client = FlightSqlServiceClient<Channel>;

struct Mounted {
    server: FlightServer,
    store: StreamStore,
    users: Users,
    metrics: FlightMetrics,
    _directory: tempfile::TempDir,
}

async fn mount(options: FlightOptions) -> Mounted {
    let directory = tempfile::tempdir().unwrap();
    let mut registry = Registry::default();
    let metrics = FlightMetrics::register(&mut registry);
    let query_metrics = QueryMetrics::register(&mut registry);
    let environment = Environment::real();
    let (clock, random) = (environment.clock.clone(), environment.random.clone());
    let data = directory.path().join("data");
    let store_options = Options { data, journal_file_bytes: 1 << 20, ..Options::default() };
    let store = StreamStore::open(store_options, environment, &mut registry).await.unwrap();
    let engine = EngineCommand {
        program: directory.path().join("no-engine"),
        name: "engine".to_owned(),
        arguments: Vec::new(),
        variables_left_out: Vec::new(),
        temporary_directory: directory.path().to_owned(),
        log_filter: "info".to_owned(),
    };
    let query_environment = QueryEnvironment {
        clock: Arc::clone(&clock),
        random: Arc::clone(&random),
        metrics: query_metrics,
        engine,
    };
    let queries = Queries::new(store.clone(), QueryOptions::default(), query_environment);
    let users = Users::new(store.clone(), Arc::clone(&clock), Arc::clone(&random));
    let environment = FlightEnvironment { clock, random, metrics: metrics.clone(), queries };
    let options = FlightOptions { listen: "127.0.0.1:0".parse().unwrap(), ..options };
    let server = FlightServer::start(store.clone(), options, environment).await.unwrap();
    Mounted { server, store, users, metrics, _directory: directory }
}

impl Mounted {
    async fn client(&self) -> Client {
        let url = format!("http://{}", self.server.address());
        Client::new(Endpoint::from_shared(url).unwrap().connect().await.unwrap())
    }

    async fn create_user(&self, name: &str, password: &str) {
        let (name, password) = (UserName::new(name).unwrap(), Password::new(password).unwrap());
        let tenant = TenantName::default_tenant();
        self.users.create(&tenant, &name, password, Some(4096), Creation::New).await.unwrap();
    }

    async fn stop(self) {
        self.server.stop().await;
        self.store.shutdown().await.unwrap();
    }
}

/// The rows of a flight, whatever they are.
async fn fetch(client: &mut Client, info: FlightInfo) -> Vec<arrow_array::RecordBatch> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let told = info.try_decode_schema().unwrap();
    let batches: Vec<_> = client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
    for batch in &batches {
        assert_eq!(batch.schema().fields(), told.fields());
    }
    batches
}

fn rows(batches: &[arrow_array::RecordBatch]) -> usize {
    batches.iter().map(arrow_array::RecordBatch::num_rows).sum()
}

/// The status of an error of the client.
fn status(error: arrow_flight::error::FlightError) -> Status {
    match error {
        arrow_flight::error::FlightError::Tonic(status) => *status,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_server_says_what_it_is() {
    let mounted = mount(FlightOptions::default()).await;
    let mut client = mounted.client().await;
    let info = vec![SqlInfo::FlightSqlServerName];
    let found = client.get_sql_info(info).await.unwrap();
    let found = fetch(&mut client, found).await;
    assert_eq!(rows(&found), 1);
    let value = found[0].column(1).as_union().value(0);
    assert_eq!(value.as_string::<i32>().value(0), "Aquifer");
    let catalogs = client.get_catalogs().await.unwrap();
    let catalogs = fetch(&mut client, catalogs).await;
    assert_eq!(catalogs[0].column(0).as_string::<i32>().value(0), "default");
    let asked = CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: None };
    let schemas = client.get_db_schemas(asked).await.unwrap();
    assert_eq!(rows(&fetch(&mut client, schemas).await), 2);
    let kinds = client.get_table_types().await.unwrap();
    assert_eq!(rows(&fetch(&mut client, kinds).await), 2);
    let types =
        client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap();
    assert_eq!(rows(&fetch(&mut client, types).await), 14);
    let asked = CommandGetPrimaryKeys { table: "audit".to_owned(), ..Default::default() };
    let keys = client.get_primary_keys(asked).await.unwrap();
    assert_eq!(rows(&fetch(&mut client, keys).await), 0);
    // Another catalog has no tables; the engine is not asked.
    let asked = CommandGetTables { catalog: Some("other".to_owned()), ..Default::default() };
    let tables = client.get_tables(asked).await.unwrap();
    assert_eq!(rows(&fetch(&mut client, tables).await), 0);
    let asked = CommandGetSqlInfo { info: vec![7_000_000] }.as_any().encode_to_vec();
    let descriptor = FlightDescriptor::new_cmd(asked);
    let schema = client.inner_mut().get_schema(descriptor).await.unwrap().into_inner();
    assert!(!schema.schema.is_empty());
    let actions = client.inner_mut().list_actions(Empty {}).await.unwrap().into_inner();
    let actions: Vec<_> = actions.try_collect().await.unwrap();
    assert_eq!(actions.len(), 5);
    mounted.stop().await;
}

#[tokio::test]
async fn what_is_not_done_is_refused_by_name() {
    let mounted = mount(FlightOptions::default()).await;
    let mut client = mounted.client().await;
    let transaction = client.begin_transaction().await.map_err(status).unwrap_err();
    assert_eq!(transaction.code(), Code::Unimplemented);
    assert!(transaction.message().contains("transactions"), "{transaction}");
    assert_eq!(transaction.metadata().get("aquifer-code").unwrap(), "flight-unsupported");
    let raw = client.inner_mut();
    let begin = ActionBeginTransactionRequest {}.as_any().encode_to_vec();
    for (code, found) in [
        (Code::InvalidArgument, raw.do_get(Ticket::new("nonsense")).await.map(drop)),
        (
            Code::InvalidArgument,
            raw.get_flight_info(FlightDescriptor::new_path(vec!["a".to_owned()])).await.map(drop),
        ),
        (Code::Unimplemented, raw.do_get(Ticket::new(begin)).await.map(drop)),
        (Code::Unimplemented, raw.do_action(Action::new("Nothing", "")).await.map(drop)),
        (
            Code::InvalidArgument,
            raw.do_action(Action::new("CancelQuery", "nonsense")).await.map(drop),
        ),
        (
            Code::InvalidArgument,
            raw.do_put(futures::stream::iter([FlightData::default()])).await.map(drop),
        ),
        (
            Code::InvalidArgument,
            raw.do_put(futures::stream::iter(Vec::<FlightData>::new())).await.map(drop),
        ),
        (
            Code::Unimplemented,
            raw.do_exchange(futures::stream::iter(Vec::<FlightData>::new())).await.map(drop),
        ),
        (Code::Unimplemented, raw.poll_flight_info(FlightDescriptor::new_cmd("")).await.map(drop)),
    ] {
        assert_eq!(found.unwrap_err().code(), code);
    }
    // Nothing runs under this ticket.
    let ticket = StatementTicket { run: RunId([1; 16]), sql: "SELECT 1".to_owned() }.to_ticket();
    let endpoint = arrow_flight::FlightEndpoint::new().with_ticket(Ticket { ticket });
    let cancel = CancelFlightInfoRequest::new(FlightInfo::new().with_endpoint(endpoint));
    let action = Action::new("CancelFlightInfo", cancel.encode_to_vec());
    let results: Vec<_> =
        raw.do_action(action).await.unwrap().into_inner().try_collect().await.unwrap();
    let result = CancelFlightInfoResult::decode(&*results[0].body).unwrap();
    assert_eq!(result.status(), CancelStatus::NotCancellable);
    mounted.stop().await;
}

#[tokio::test]
async fn without_an_engine_a_statement_is_refused_and_the_connection_goes_on() {
    let mounted = mount(FlightOptions::default()).await;
    let mut client = mounted.client().await;
    for _ in 0..2 {
        let refused = client.execute("SELECT 1".to_owned(), None).await.map_err(status);
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert_eq!(refused.metadata().get("aquifer-sqlstate").unwrap(), "57P03");
    }
    assert!(client.prepare("SELECT $1".to_owned(), None).await.is_err());
    let update = client.execute_update("CREATE VIEW a AS SELECT 1".to_owned(), None).await;
    assert_eq!(status(update.unwrap_err()).code(), Code::Unavailable);
    let ticket = StatementTicket { run: RunId([1; 16]), sql: "SELECT 1".to_owned() }.to_ticket();
    let refused = client.do_get(Ticket { ticket }).await.map(drop).map_err(status);
    assert_eq!(refused.unwrap_err().code(), Code::Unavailable);
    mounted.stop().await;
}

#[tokio::test]
async fn a_password_is_asked_for_where_it_has_to_be() {
    let mounted = mount(FlightOptions {
        security: FlightSecurity::Password,
        login_delay_ms_max: 1,
        ..FlightOptions::default()
    })
    .await;
    mounted.create_user("alice", "pencil").await;
    let mut client = mounted.client().await;
    let refused = client.get_catalogs().await.map_err(status).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    for (user, password) in [("alice", "pen"), ("bob", "pencil"), ("", ""), ("alice", "")] {
        assert!(client.handshake(user, password).await.is_err(), "{user} {password}");
    }
    client.set_token("made up".to_owned());
    assert!(client.get_catalogs().await.is_err());
    client.clear_token();
    client.handshake("alice", "pencil").await.unwrap();
    let token = client.token().unwrap().clone();
    assert!(token.len() > 40, "{token}");
    client.get_catalogs().await.unwrap();
    // A token is good on any connection, until its session is closed.
    let mut other = mounted.client().await;
    other.set_token(token.clone());
    other.get_catalogs().await.unwrap();
    let mut close = Action::new("CloseSession", "").into_request();
    let bearer = format!("Bearer {token}").parse().unwrap();
    close.metadata_mut().insert("authorization", bearer);
    let closed = other.inner_mut().do_action(close).await.unwrap().into_inner();
    let closed: Vec<_> = closed.try_collect().await.unwrap();
    let closed = CloseSessionResult::decode(&*closed[0].body).unwrap();
    assert_eq!(closed.status(), CloseSessionStatus::Closed);
    let refused = client.get_catalogs().await.map_err(status).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("log in anew"), "{refused}");
    // Name and password may come with any call.
    let mut call = FlightDescriptor::new_cmd(
        arrow_flight::sql::CommandGetCatalogs {}.as_any().encode_to_vec(),
    )
    .into_request();
    call.metadata_mut().insert("authorization", "Basic YWxpY2U6cGVuY2ls".parse().unwrap());
    let answer = other.inner_mut().get_flight_info(call).await.unwrap();
    assert!(answer.metadata().get("authorization").is_some());
    mounted.stop().await;
}

#[tokio::test]
async fn anybody_may_shake_hands_where_nobody_is_asked() {
    let mounted = mount(FlightOptions::default()).await;
    let mut client = mounted.client().await;
    client.handshake("anyone", "anything").await.unwrap();
    assert!(client.token().is_some());
    client.get_catalogs().await.unwrap();
    mounted.stop().await;
}

#[tokio::test]
async fn a_client_is_bounded() {
    let mounted = mount(FlightOptions {
        message_bytes_max: 64 << 10,
        messages_bytes_max: 64 << 10,
        login_ms_max: 100,
        connections_per_address_max: 2,
        ..FlightOptions::default()
    })
    .await;
    let mut client = mounted.client().await;
    let large = client.execute("x".repeat(1 << 20), None).await.map_err(status).unwrap_err();
    assert!(matches!(large.code(), Code::OutOfRange | Code::ResourceExhausted), "{large}");
    client.get_catalogs().await.unwrap();
    // What is no HTTP/2 is closed, and so is who says nothing.
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b""]
    {
        let mut stream = TcpStream::connect(mounted.server.address()).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        // It ends with an error or without.
        let _ = tokio::time::timeout(Duration::from_secs(60), read).await.unwrap();
    }
    let held = TcpStream::connect(mounted.server.address()).await.unwrap();
    let mut refused = TcpStream::connect(mounted.server.address()).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(60), refused.read(&mut [0])).await;
    assert!(matches!(read.unwrap(), Ok(0) | Err(_)));
    drop(held);
    assert!(mounted.metrics.connections.refused.get() > 0);
    client.get_catalogs().await.unwrap();
    mounted.stop().await;
}

#[tokio::test]
async fn calls_have_places() {
    let mounted = mount(FlightOptions { calls_max: 1, ..FlightOptions::default() }).await;
    let mut client = mounted.client().await;
    // A call that does not come to its end holds the only place.
    let (sender, receiver) = tokio::sync::mpsc::channel::<FlightData>(1);
    let never = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|message| (message, receiver))
    });
    let mut other = client.inner().clone();
    let put = tokio::spawn(async move { other.do_put(never).await.map(drop) });
    let refused = loop {
        match client.get_catalogs().await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break status(error),
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("flight.calls_max"), "{refused}");
    drop(sender);
    assert_eq!(put.await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    // The place is free soon, if not at once.
    while client.get_catalogs().await.is_err() {
        tokio::task::yield_now().await;
    }
    mounted.stop().await;
}

#[tokio::test]
async fn whoever_fails_to_log_in_keeps_nobody_out() {
    let mounted = mount(FlightOptions {
        security: FlightSecurity::Password,
        login_delay_ms_max: 200,
        calls_max: 16,
        ..FlightOptions::default()
    })
    .await;
    mounted.create_user("alice", "pencil").await;
    let mut client = mounted.client().await;
    client.handshake("alice", "pencil").await.unwrap();
    let mut failing = Vec::new();
    for _ in 0..32 {
        let mut other = mounted.client().await;
        let login = async move { other.handshake("alice", "pen").await.is_err() };
        failing.push(tokio::spawn(login));
    }
    // Twice as many wait to be told that they are wrong as there are places.
    while failing.iter().any(|login| !login.is_finished()) {
        client.get_catalogs().await.unwrap();
    }
    for login in failing {
        assert!(login.await.unwrap());
    }
    mounted.stop().await;
}

#[tokio::test]
async fn a_stop_ends_idle_connections() {
    let mounted = mount(FlightOptions::default()).await;
    let mut client = mounted.client().await;
    client.get_catalogs().await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), mounted.stop()).await.unwrap();
    assert!(client.get_catalogs().await.is_err());
}
