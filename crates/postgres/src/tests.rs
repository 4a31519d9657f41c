//! The door over real sockets, message by message. What the engine answers is
//! tested with real clients, end to end; here there is none, and that is an
//! answer too.

use std::sync::Arc;
use std::time::Duration;

use aquifer_query::{EngineCommand, Queries, QueryEnvironment, QueryMetrics, QueryOptions};
use aquifer_stream::{Environment, Options, StreamStore};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{PostgresEnvironment, PostgresMetrics, PostgresOptions, PostgresServer};

struct Mounted {
    server: PostgresServer,
    store: StreamStore,
    metrics: PostgresMetrics,
    _directory: tempfile::TempDir,
}

async fn mount(options: PostgresOptions) -> Mounted {
    let directory = tempfile::tempdir().unwrap();
    let mut registry = Registry::default();
    let metrics = PostgresMetrics::register(&mut registry);
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
    let environment = PostgresEnvironment { clock, random, metrics: metrics.clone(), queries };
    let options = PostgresOptions { listen: "127.0.0.1:0".parse().unwrap(), ..options };
    let server = PostgresServer::start(store.clone(), options, environment).await.unwrap();
    Mounted { server, store, metrics, _directory: directory }
}

impl Mounted {
    async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.server.address()).await.unwrap() }
    }

    /// A client that is logged in.
    async fn client(&self) -> Client {
        let mut client = self.connect().await;
        client.start_up(&[("user", "alice"), ("database", "default")]).await;
        let greeting = client.until_ready().await;
        assert!(greeting.starts_with("R"), "{greeting}");
        client
    }

    async fn stop(self) {
        self.server.stop().await;
        self.store.shutdown().await.unwrap();
    }
}

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn raw(&mut self, bytes: &[u8]) {
        // Whoever was turned away cannot be written to: what it reads tells.
        let _ = self.stream.write_all(bytes).await;
    }

    async fn packet(&mut self, body: &[u8]) {
        self.raw(&(body.len() as u32 + 4).to_be_bytes()).await;
        self.raw(body).await;
    }

    async fn start_up(&mut self, parameters: &[(&str, &str)]) {
        let mut body = b"\0\x03\0\0".to_vec();
        for (name, value) in parameters {
            body.extend(format!("{name}\0{value}\0").bytes());
        }
        body.push(0);
        self.packet(&body).await;
    }

    async fn send(&mut self, kind: u8, body: &[u8]) {
        self.raw(&[kind]).await;
        self.packet(body).await;
    }

    /// The next message; none at the end.
    async fn message(&mut self) -> Option<(char, Vec<u8>)> {
        let kind = self.stream.read_u8().await.ok()?;
        let length = self.stream.read_u32().await.ok()? as usize;
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).await.ok()?;
        Some((char::from(kind), body))
    }

    /// What comes up to readiness or the end: the kinds, errors with their
    /// codes, the values of rows, tags, and the state of the transaction.
    async fn until_ready(&mut self) -> String {
        let mut seen = Vec::new();
        while let Some((kind, body)) = self.message().await {
            let shown = match kind {
                'E' => {
                    let fields = body.split(|byte| *byte == 0);
                    let code = fields.into_iter().find(|field| field.first() == Some(&b'C'));
                    format!("E:{}", String::from_utf8_lossy(&code.unwrap()[1..]))
                }
                'C' => format!("C:{}", String::from_utf8_lossy(&body[..body.len() - 1])),
                'D' => format!("D:{}", String::from_utf8_lossy(&body[6..])),
                'Z' => format!("Z:{}", char::from(body[0])),
                other => other.to_string(),
            };
            seen.push(shown);
            if kind == 'Z' {
                break;
            }
        }
        seen.join(" ")
    }

    async fn query(&mut self, sql: &str) -> String {
        self.send(b'Q', format!("{sql}\0").as_bytes()).await;
        self.until_ready().await
    }
}

#[tokio::test]
async fn a_connection_begins_as_postgresql_has_it() {
    let mounted = mount(PostgresOptions::default()).await;
    let mut client = mounted.connect().await;
    for wish in [80_877_104_u32, 80_877_103] {
        client.packet(&wish.to_be_bytes()).await;
        assert_eq!(client.stream.read_u8().await.unwrap(), b'N');
    }
    client.start_up(&[("user", "alice"), ("database", "default"), ("DateStyle", "ISO")]).await;
    let greeting = client.until_ready().await;
    assert!(greeting.starts_with("R S S") && greeting.ends_with("K Z:I"), "{greeting}");
    for (parameters, code) in [
        (&[("user", "alice")][..], "3D000"),
        (&[("user", "alice"), ("database", "other")], "3D000"),
        (&[("database", "default")], "28000"),
        (&[("user", "a"), ("database", "default"), ("replication", "true")], "0A000"),
        (&[("user", "a"), ("database", "default"), ("client_encoding", "LATIN1")], "22023"),
        (&[("user", "a"), ("database", "default"), ("nothing_known", "1")], "42704"),
    ] {
        let mut client = mounted.connect().await;
        client.start_up(parameters).await;
        assert_eq!(client.until_ready().await, format!("E:{code}"), "{parameters:?}");
    }
    // A user's name is the database where none is named, as with PostgreSQL.
    let mut client = mounted.connect().await;
    client.start_up(&[("user", "default"), ("options", "-c statement_timeout=5s")]).await;
    client.until_ready().await;
    assert_eq!(client.query("SHOW statement_timeout").await, "T D:5000ms C:SHOW Z:I");
    // Version 3.2 is answered with what there is.
    let mut client = mounted.connect().await;
    client.packet(b"\0\x03\0\x02user\0default\0\0").await;
    assert!(client.until_ready().await.starts_with("v R S"));
    mounted.stop().await;
}

#[tokio::test]
async fn what_is_no_beginning_is_refused() {
    let mounted = mount(PostgresOptions::default()).await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0\0\0\x08\0\x02\0\0",
        b"\0\0\0\x04",
        b"\0\0\0\x09\0\x03\0\0x",
        b"\xff\xff\xff\xff",
    ] {
        let mut client = mounted.connect().await;
        client.raw(bytes).await;
        let answer = client.until_ready().await;
        assert!(answer == "E:08P01" || answer == "E:0A000", "{bytes:?}: {answer}");
    }
    assert!(mounted.metrics.malformed.get() > 0);
    mounted.stop().await;
}

#[tokio::test]
async fn transactions_are_kept_account_of() {
    let mounted = mount(PostgresOptions::default()).await;
    let mut client = mounted.client().await;
    for (sql, expected) in [
        ("", "I Z:I"),
        ("BEGIN", "C:BEGIN Z:T"),
        ("begin", "N C:BEGIN Z:T"),
        ("SET application_name = 'a'", "S C:SET Z:T"),
        ("SAVEPOINT x", "C:SAVEPOINT Z:T"),
        ("SHOW nothing_known", "E:42704 Z:E"),
        ("SHOW timezone", "E:25P02 Z:E"),
        ("ROLLBACK TO x", "C:ROLLBACK Z:T"),
        ("FETCH c", "E:34000 Z:E"),
        ("COMMIT", "S S S S S S S S S S S C:ROLLBACK Z:I"),
        ("SHOW application_name", "T D: C:SHOW Z:I"),
        ("ROLLBACK", "N C:ROLLBACK Z:I"),
        ("BEGIN; COMMIT; SHOW server_encoding", "C:BEGIN C:COMMIT T D:UTF8 C:SHOW Z:I"),
        ("SHOW timezone; SHOW nothing; SHOW timezone", "T D:UTC C:SHOW E:42704 Z:I"),
        ("DECLARE c CURSOR FOR SELECT 1", "E:25P01 Z:I"),
        ("COPY a FROM STDIN", "E:0A000 Z:I"),
        ("DISCARD ALL", "S S S S S S S S S S S C:DISCARD ALL Z:I"),
    ] {
        assert_eq!(client.query(sql).await, expected, "{sql}");
    }
    mounted.stop().await;
}

#[tokio::test]
async fn what_is_set_for_a_transaction_ends_with_it() {
    let mounted = mount(PostgresOptions::default()).await;
    let mut client = mounted.client().await;
    let all = "S S S S S S S S S S S";
    let shown = "SHOW application_name";
    for (sql, expected) in [
        ("SET LOCAL application_name = 'a'", "N C:SET Z:I"),
        (shown, "T D: C:SHOW Z:I"),
        ("BEGIN", "C:BEGIN Z:T"),
        ("SET LOCAL application_name = 'a'", "S C:SET Z:T"),
        ("SET search_path = x", "C:SET Z:T"),
        (shown, "T D:a C:SHOW Z:T"),
        ("COMMIT", &format!("{all} C:COMMIT Z:I")),
        (shown, "T D: C:SHOW Z:I"),
        ("SHOW search_path", "T D:x C:SHOW Z:I"),
        // What is set last counts, and what is not local stays.
        (
            "BEGIN; SET application_name = 'b'; SET LOCAL application_name = 'c'",
            "C:BEGIN S C:SET S C:SET Z:T",
        ),
        ("END", &format!("{all} C:COMMIT Z:I")),
        (shown, "T D:b C:SHOW Z:I"),
        (
            "BEGIN; SET LOCAL application_name = 'c'; SET application_name = 'd'",
            "C:BEGIN S C:SET S C:SET Z:T",
        ),
        ("COMMIT", "C:COMMIT Z:I"),
        (shown, "T D:d C:SHOW Z:I"),
        (
            "BEGIN; SET LOCAL application_name = 'c'; RESET application_name",
            &format!("C:BEGIN S C:SET {all} C:RESET Z:T"),
        ),
        ("COMMIT", "C:COMMIT Z:I"),
        (shown, "T D: C:SHOW Z:I"),
    ] {
        assert_eq!(client.query(sql).await, expected, "{sql}");
    }
    mounted.stop().await;
}

#[tokio::test]
async fn a_cursor_is_bounded_like_a_portal() {
    let options = PostgresOptions { statements_bytes_max: 64 << 10, ..PostgresOptions::default() };
    let mounted = mount(options).await;
    let mut client = mounted.client().await;
    let statement = format!("DECLARE c CURSOR WITH HOLD FOR SELECT '{}'", "x".repeat(70_000));
    assert_eq!(client.query(&statement).await, "E:53400 Z:I");
    mounted.stop().await;
}

#[tokio::test]
async fn the_extended_protocol_passes_over_what_follows_an_error() {
    let mounted = mount(PostgresOptions::default()).await;
    let mut client = mounted.client().await;
    client.send(b'P', b"s\0SHOW timezone\0\0\0").await;
    client.send(b'B', b"\0s\0\0\0\0\0\0\0").await;
    client.send(b'D', b"P\0").await;
    client.send(b'E', b"\0\0\0\0\0").await;
    client.send(b'S', b"").await;
    assert_eq!(client.until_ready().await, "1 2 T D:UTC C:SHOW Z:I");
    // The name is taken; nothing of what follows is answered.
    client.send(b'P', b"s\0SHOW timezone\0\0\0").await;
    client.send(b'D', b"Ss\0").await;
    client.send(b'Q', b"SHOW timezone\0").await;
    client.send(b'S', b"").await;
    assert_eq!(client.until_ready().await, "E:42P05 Z:I");
    client.send(b'D', b"Ss\0").await;
    client.send(b'C', b"Ss\0").await;
    client.send(b'C', b"Ss\0").await;
    client.send(b'S', b"").await;
    assert_eq!(client.until_ready().await, "t T 3 3 Z:I");
    client.send(b'B', b"\0s\0\0\0\0\0\0\0").await;
    client.send(b'S', b"").await;
    assert_eq!(client.until_ready().await, "E:26000 Z:I");
    client.send(b'P', b"\0 -- nothing\0\0\0").await;
    client.send(b'B', b"\0\0\0\0\0\0\0\0").await;
    client.send(b'D', b"P\0").await;
    client.send(b'E', b"\0\0\0\0\0").await;
    client.send(b'S', b"").await;
    assert_eq!(client.until_ready().await, "1 2 n I Z:I");
    client.send(b'P', b"\0a; b\0\0\0").await;
    client.send(b'S', b"").await;
    assert_eq!(client.until_ready().await, "E:42601 Z:I");
    client.send(b'X', b"").await;
    assert!(client.message().await.is_none());
    mounted.stop().await;
}

#[tokio::test]
async fn without_an_engine_a_question_is_refused_and_the_session_goes_on() {
    let mounted = mount(PostgresOptions::default()).await;
    let mut client = mounted.client().await;
    let answer = client.query("SELECT 1").await;
    assert!(answer.starts_with("E:") && answer.ends_with("Z:I"), "{answer}");
    client.query("BEGIN").await;
    client.send(b'P', b"\0SELECT $1\0\0\0").await;
    client.send(b'D', b"S\0").await;
    client.send(b'S', b"").await;
    let answer = client.until_ready().await;
    assert!(answer.starts_with("1 E:") && answer.ends_with("Z:E"), "{answer}");
    assert_eq!(client.query("ROLLBACK").await.split(' ').next_back(), Some("Z:I"));
    mounted.stop().await;
}

#[tokio::test]
async fn a_client_is_bounded() {
    let mounted = mount(PostgresOptions {
        connections_max: 1,
        message_bytes_max: 64 << 10,
        login_ms_max: 100,
        ..PostgresOptions::default()
    })
    .await;
    // Who says nothing is given up.
    let mut silent = mounted.connect().await;
    assert!(silent.message().await.is_none());
    drop(silent);
    let mut client = loop {
        // Its place is free soon, if not at once.
        let mut client = mounted.connect().await;
        client.start_up(&[("user", "default")]).await;
        if client.until_ready().await.ends_with("Z:I") {
            break client;
        }
    };
    let mut second = mounted.connect().await;
    assert_eq!(second.until_ready().await, "E:53300");
    client.raw(b"Q\x7f\0\0\0").await;
    assert_eq!(client.until_ready().await, "E:54000");
    mounted.stop().await;
}

#[tokio::test]
async fn a_stop_tells_those_who_wait() {
    let mounted = mount(PostgresOptions::default()).await;
    let mut client = mounted.client().await;
    // A secret that does not fit says nothing, and does nothing.
    let mut canceller = mounted.connect().await;
    canceller.packet(&[80_877_102_u32.to_be_bytes(), [0, 0, 0, 1], [0; 4]].concat()).await;
    assert!(canceller.message().await.is_none());
    assert_eq!(client.query("SHOW timezone").await, "T D:UTC C:SHOW Z:I");
    let stopped = tokio::spawn(mounted.stop());
    assert_eq!(client.until_ready().await, "E:57P01");
    drop(client);
    tokio::time::timeout(Duration::from_secs(60), stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_password_is_asked_for_where_it_has_to_be() {
    let mounted = mount(PostgresOptions {
        security: crate::PostgresSecurity::Password,
        ..PostgresOptions::default()
    })
    .await;
    let mut client = mounted.connect().await;
    client.start_up(&[("user", "alice"), ("database", "default")]).await;
    let (kind, body) = client.message().await.unwrap();
    assert_eq!((kind, &body[..]), ('R', &b"\0\0\0\x0aSCRAM-SHA-256\0\0"[..]));
    client.send(b'p', b"SCRAM-SHA-256\0\0\0\0\x0cn,,n=,r=abcd").await;
    let (kind, body) = client.message().await.unwrap();
    assert!(kind == 'R' && body.starts_with(b"\0\0\0\x0br=abcd"));
    let nonce = String::from_utf8(body[4..].to_vec()).unwrap();
    let nonce = nonce.split(',').next().unwrap();
    let proof = format!("c=biws,{nonce},p={}=", "A".repeat(43));
    client.send(b'p', proof.as_bytes()).await;
    assert_eq!(client.until_ready().await, "E:28P01");
    // Another mechanism, or a statement in a login's place.
    for body in [&b"PLAIN\0\0\0\0\0"[..], b"SCRAM-SHA-256\0\0\0\0\x02xx", b""] {
        let mut client = mounted.connect().await;
        client.start_up(&[("user", "bob"), ("database", "default")]).await;
        client.message().await.unwrap();
        client.send(b'p', body).await;
        assert_eq!(client.until_ready().await, "E:08P01", "{body:?}");
    }
    let mut client = mounted.connect().await;
    client.start_up(&[("user", "bob"), ("database", "default")]).await;
    client.message().await.unwrap();
    client.send(b'Q', b"SHOW timezone\0").await;
    assert_eq!(client.until_ready().await, "E:08P01");
    mounted.stop().await;
}
