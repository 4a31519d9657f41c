//! Questions of a store in this process, answered by the real binary as engine.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a step that fails is the test's failure, and it looks at the machine's processes"
)]

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aquifer_query::wire::{EngineReady, Refusal, StartEngine};
use aquifer_query::{
    AnswerForm, Ask, EngineCommand, EngineOptions, FrameReader, FrameWriter, Limits, Part, Queries,
    QueryEnvironment, QueryMetrics, QueryOptions, Question, SqlQuestion,
};
use aquifer_stream::{
    AppendRequest, Environment, NewStream, Operation, Options, PartitionAppend, StreamStore,
};
use aquifer_types::{
    BatchBuilder, PartitionIndex, StreamClass, StreamConfig, StreamName, StreamPath, TenantName,
    Timestamp,
};
use prometheus_client::registry::Registry;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Longer than anything here takes on a busy machine.
const HANG: Duration = Duration::from_secs(120);
const PARTITIONS: u32 = 3;
/// Of each writer.
const APPENDS: u64 = 1_000;

struct Server {
    store: StreamStore,
    queries: Queries,
    _directory: tempfile::TempDir,
}

fn path(name: &str) -> StreamPath {
    StreamPath::new(TenantName::default_tenant(), StreamName::new(name).unwrap())
}

fn batch(from: u64, count: u64) -> aquifer_types::Batch {
    let mut builder = BatchBuilder::default();
    for n in from..from + count {
        let value = format!(r#"{{"n":{n},"pad":"{}"}}"#, "x".repeat(50));
        builder.push(Timestamp(1_000 + n as i64), None, &[], Some(value.as_bytes()));
    }
    builder.finish()
}

impl Server {
    /// Everything is tiered and compacted as soon as it can be.
    async fn start(options: QueryOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut registry = Registry::default();
        let metrics = QueryMetrics::register(&mut registry);
        let environment = Environment::real();
        let (clock, random) = (environment.clock.clone(), environment.random.clone());
        let store_options = Options {
            data: directory.path().join("data"),
            journal_file_bytes: 1 << 20,
            journal_bytes_max: 64 << 20,
            disk_reserve_bytes: 0,
            tier_interval_ms: 10,
            compaction_chunks_min: 4,
            chunk_grace_ms: 0,
            ..Options::default()
        };
        let store = StreamStore::open(store_options, environment, &mut registry).await.unwrap();
        let engine = EngineCommand {
            program: env!("CARGO_BIN_EXE_aquifer").into(),
            name: "aquifer".to_owned(),
            arguments: vec!["engine".to_owned()],
            variables_left_out: Vec::new(),
            temporary_directory: std::env::temp_dir(),
            log_filter: "warn".to_owned(),
        };
        let environment = QueryEnvironment { clock, random, metrics, engine };
        let queries = Queries::new(store.clone(), options, environment);
        Self { store, queries, _directory: directory }
    }

    async fn stop(self) {
        self.queries.stop().await;
        self.store.shutdown().await.unwrap();
    }

    async fn create(&self, name: &str, partitions: u32) {
        let config = StreamConfig {
            chunk_target_bytes: 64 << 10,
            chunk_max_age_ms: 100,
            ..StreamConfig::default()
        };
        let class = StreamClass::Durable;
        let new = NewStream { path: path(name), partitions, class, config };
        self.store.create_stream(new).await.unwrap();
    }

    async fn ask(&self, sql: &str) -> Result<Vec<Value>, Refusal> {
        let sql = SqlQuestion { sql: sql.to_owned(), parameters: Vec::new(), describe_only: false };
        let question = Question {
            tenant: TenantName::default_tenant(),
            ask: Ask::Sql(sql),
            form: AnswerForm::Ndjson,
            limits: Limits::NONE,
            wants_progress: false,
        };
        let mut answer = self.queries.ask(question).await?;
        let mut text = Vec::new();
        while let Some(part) = answer.next().await? {
            if let Part::Data { bytes, .. } = part {
                text.extend_from_slice(&bytes);
            }
        }
        let text = String::from_utf8(text).unwrap();
        Ok(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    async fn number(&self, sql: &str) -> i64 {
        let rows = self.ask(sql).await.unwrap();
        rows[0]["n"].as_i64().unwrap_or_else(|| panic!("{sql}: {rows:?}"))
    }
}

/// The engine of this process's server.
fn engine() -> Option<Pid> {
    for entry in std::fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(process) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').take(2).collect();
        if fields[0] != "Z" && fields[1].parse() == Ok(std::process::id()) {
            return Pid::from_raw(process);
        }
    }
    None
}

/// Waits until a process has used half a second of processor more.
async fn until_it_works(process: Pid) {
    const TICKS: u64 = 50;
    let ticks = || {
        let stat = format!("/proc/{}/stat", process.as_raw_nonzero());
        let stat = std::fs::read_to_string(stat).unwrap();
        let (_, rest) = stat.rsplit_once(") ").unwrap();
        rest.split(' ').skip(11).take(2).map(|of| of.parse::<u64>().unwrap()).sum::<u64>()
    };
    let before = ticks();
    let works = async {
        while ticks() < before + TICKS {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, works).await.unwrap();
}

/// Engines are found as children of this process: one test at a time has them.
static ENGINES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
async fn one_engine_answers_dies_and_comes_back() {
    let _alone = ENGINES.lock().await;
    let options =
        QueryOptions { time_ms_max: 60_000, question_retries_max: 0, ..QueryOptions::default() };
    let server = Server::start(options).await;
    assert_eq!(engine(), None, "a server that nobody asks has none");
    a_statement_reads_one_cut(&server).await;
    server.create("big", 1).await;
    for from in 0..20 {
        let appends = vec![PartitionAppend {
            partition: PartitionIndex(0),
            batch: batch(from * 2_000, 2_000),
            expected_offset: None,
        }];
        let request = AppendRequest { path: path("big"), appends, idempotency_key: None };
        server.store.append(request).await.unwrap();
    }
    for round in 0..2 {
        let first = engine().unwrap();
        // What is counted alone is known from statistics.
        let long = "SELECT sum(a._offset + b._offset + c._offset) AS n FROM big a CROSS JOIN big b \
                    CROSS JOIN big c";
        let killing = async {
            // It would run for hours.
            until_it_works(first).await;
            kill_process(first, Signal::KILL).unwrap();
        };
        let (answer, ()) = tokio::join!(server.ask(long), killing);
        let refusal = answer.unwrap_err();
        assert_eq!(refusal.code, "engine-killed", "round {round}: {refusal:?}");
        assert!(refusal.is_retriable());
        assert_eq!(server.number("SELECT count(*) AS n FROM big").await, 40_000);
        assert_ne!(engine().unwrap(), first);
    }
    let last = engine().unwrap();
    server.stop().await;
    assert!(!Path::new(&format!("/proc/{}", last.as_raw_nonzero())).exists());
}

/// Appends go on, are tiered and compacted, and every answer is of one cut.
async fn a_statement_reads_one_cut(server: &Server) {
    server.create("plain", PARTITIONS).await;
    server.create("left", 1).await;
    server.create("right", 1).await;
    let acked: Arc<Vec<AtomicU64>> = Arc::new((0..PARTITIONS).map(|_| AtomicU64::new(0)).collect());
    let mut writers = Vec::new();
    for partition in 0..PARTITIONS {
        let (store, acked) = (server.store.clone(), acked.clone());
        writers.push(tokio::spawn(async move {
            let mut next = 0;
            for _ in 0..APPENDS {
                let count = 1 + next % 37;
                let appends = vec![PartitionAppend {
                    partition: PartitionIndex(partition),
                    batch: batch(next, count),
                    expected_offset: None,
                }];
                let path = path("plain");
                let request = AppendRequest { path, appends, idempotency_key: None };
                store.append(request).await.unwrap();
                next += count;
                acked[partition as usize].store(next, Ordering::SeqCst);
            }
        }));
    }
    let store = server.store.clone();
    let of = |name: &str| {
        let stream = server.store.stream(&path(name)).unwrap();
        stream.partition(PartitionIndex(0)).unwrap().partition()
    };
    let (left, right) = (of("left"), of("right"));
    writers.push(tokio::spawn(async move {
        for _ in 0..APPENDS {
            let append = |partition| Operation::Append {
                partition,
                batch: batch(0, 3),
                expected_offset: None,
            };
            store.commit(vec![append(left), append(right)]).await.unwrap();
        }
    }));
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        check_cut(server, &acked).await;
    }
    check_cut(server, &acked).await;
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(!server.store.list_chunks(&path("plain")).unwrap().is_empty(), "nothing was tiered");
    assert!(acked.iter().all(|of| of.load(Ordering::SeqCst) > APPENDS));
}

async fn check_cut(server: &Server, acked: &[AtomicU64]) {
    let before: Vec<u64> = acked.iter().map(|of| of.load(Ordering::SeqCst)).collect();
    let rows = server
        .ask(
            "SELECT _partition AS p, count(*) AS n, count(DISTINCT _offset) AS d, \
             min(_offset) AS low, max(_offset) AS high FROM plain GROUP BY _partition",
        )
        .await
        .unwrap();
    let mut found = vec![0; acked.len()];
    for row in rows {
        let of = |column: &str| row[column].as_i64().unwrap();
        assert_eq!((of("low"), of("n"), of("d")), (0, of("high") + 1, of("high") + 1), "{row}");
        found[of("p") as usize] = of("n") as u64;
    }
    for (partition, (found, before)) in found.iter().zip(before).enumerate() {
        assert!(*found >= before, "{partition}: {before} were acknowledged, {found} found");
    }
    let wrong = "SELECT count(*) AS n FROM plain WHERE (_value->>'n')::bigint <> _offset";
    assert_eq!(server.number(wrong).await, 0, "a record in another's place");
    let pairs = "SELECT l.n - r.n AS n FROM (SELECT count(*) AS n FROM \"left\") l \
                 CROSS JOIN (SELECT count(*) AS n FROM \"right\") r";
    assert_eq!(server.number(pairs).await, 0, "a part of a commit");
}

/// The engine ends with the connection that the server holds, whatever else it
/// does.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_does_not_outlive_its_server() {
    let _alone = ENGINES.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut child = tokio::process::Command::from(Command::new(env!("CARGO_BIN_EXE_aquifer")))
        .arg("engine")
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut connection = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let options = EngineOptions {
        tier2: format!("file://{}", directory.path().display()),
        spill_directory: directory.path().join("spill"),
        ..EngineOptions::default()
    };
    let start = StartEngine { options, log_filter: "warn".to_owned() };
    FrameWriter::new(&mut connection).message(&start).await.unwrap();
    let ready: Option<EngineReady> = FrameReader::new(&mut connection).message().await.unwrap();
    assert!(ready.is_some());
    assert!(child.try_wait().unwrap().is_none());
    let process = child.id().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{process}/oom_score_adj")).unwrap();
    assert_eq!(status.trim(), "900");
    drop(connection);
    tokio::time::timeout(HANG, child.wait()).await.unwrap().unwrap();
}
