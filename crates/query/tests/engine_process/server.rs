//! The server's side: a real store, and questions over it.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use aquifer_query::wire::Refusal;
use aquifer_query::{
    Answer, AnswerForm, Ask, EngineCommand, Limits, Part, Queries, QueryEnvironment, QueryMetrics,
    QueryOptions, Question, SqlQuestion,
};
use aquifer_stream::{
    AppendRequest, Environment, NewStream, Options, PartitionAppend, StreamStore,
};
use aquifer_types::{
    BatchBuilder, PartitionIndex, StreamClass, StreamConfig, StreamName, StreamPath, TenantName,
    Timestamp,
};
use prometheus_client::registry::Registry;

pub(crate) struct Server {
    pub(crate) queries: Queries,
    store: StreamStore,
    registry: Registry,
    options: QueryOptions,
    directory: tempfile::TempDir,
    next: AtomicI64,
}

impl Server {
    pub(crate) async fn start(options: QueryOptions) -> Self {
        let program = std::env::current_exe().unwrap();
        Self::start_with(options, program.to_str().unwrap(), &["engine"]).await
    }

    pub(crate) async fn start_with(
        options: QueryOptions,
        program: &str,
        arguments: &[&str],
    ) -> Self {
        Self::open(options, program, arguments, tempfile::tempdir().unwrap()).await
    }

    async fn open(
        options: QueryOptions,
        program: &str,
        arguments: &[&str],
        directory: tempfile::TempDir,
    ) -> Self {
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
            ..Options::default()
        };
        let store = StreamStore::open(store_options, environment, &mut registry).await.unwrap();
        let engine = EngineCommand {
            program: program.into(),
            name: program.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            variables_left_out: Vec::new(),
            temporary_directory: std::env::temp_dir(),
            log_filter: "info".to_owned(),
        };
        let environment = QueryEnvironment { clock, random, metrics, engine };
        let queries = Queries::new(store.clone(), options.clone(), environment);
        Self { queries, store, registry, options, directory, next: AtomicI64::new(0) }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.queries.stop().await;
        self.store.shutdown().await.unwrap();
        self.directory
    }

    pub(crate) async fn restart(self) -> Self {
        let options = self.options.clone();
        let directory = self.stop().await;
        let program = std::env::current_exe().unwrap();
        Self::open(options, program.to_str().unwrap(), &["engine"], directory).await
    }

    pub(crate) async fn ask(&self, statement: &str) -> Result<Answer, Refusal> {
        self.ask_within(statement, Limits::NONE).await
    }

    pub(crate) async fn ask_within(
        &self,
        statement: &str,
        limits: Limits,
    ) -> Result<Answer, Refusal> {
        let sql = statement.to_owned();
        let sql = SqlQuestion { sql, parameters: Vec::new(), describe_only: false };
        let question = Question {
            tenant: TenantName::default_tenant(),
            ask: Ask::Sql(sql),
            form: AnswerForm::Ndjson,
            limits,
            wants_progress: false,
        };
        self.queries.ask(question).await
    }

    /// The rows of the whole answer.
    pub(crate) async fn outcome(&self, statement: &str) -> Result<u64, Refusal> {
        drain(self.ask(statement).await?).await
    }

    /// The process that answers.
    pub(crate) async fn engine_process(&self) -> u64 {
        self.outcome("process").await.unwrap()
    }

    /// A sample of the metrics; 0 where there is none yet.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let sample = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        sample.map_or(0.0, |value| value.parse().unwrap())
    }

    pub(crate) async fn eventually(&self, what: &str, condition: impl Fn() -> bool) {
        for _ in 0..6_000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: it did not come true within a minute");
    }

    pub(crate) async fn create(&self, name: &str, partitions: u32) {
        self.create_with(name, partitions).await.unwrap();
    }

    pub(crate) async fn try_create(&self, name: &str) -> Result<(), aquifer_stream::Error> {
        self.create_with(name, 1).await
    }

    async fn create_with(&self, name: &str, partitions: u32) -> Result<(), aquifer_stream::Error> {
        let config = StreamConfig {
            chunk_target_bytes: 64 << 10,
            chunk_max_age_ms: 100,
            ..StreamConfig::default()
        };
        let class = StreamClass::Durable;
        let new = NewStream { path: path(name), partitions, class, config };
        self.store.create_stream(new).await.map(|_| ())
    }

    /// Appends to each partition in one commit; the number of records.
    pub(crate) async fn append(&self, name: &str, records: u64) -> u64 {
        let partitions = self.store.stream_shape(&path(name)).unwrap().partitions;
        let append = |partition| {
            let mut builder = BatchBuilder::default();
            for _ in 0..records {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let value = format!("value {number} {}", "x".repeat(40));
                builder.push(Timestamp(number), Some(b"k"), &[], Some(value.as_bytes()));
            }
            let (partition, batch) = (PartitionIndex(partition), builder.finish());
            PartitionAppend { partition, batch, expected_offset: None }
        };
        let appends = (0..partitions).map(append).collect();
        let request = AppendRequest { path: path(name), appends, idempotency_key: None };
        self.store.append(request).await.unwrap();
        records * u64::from(partitions)
    }
}

pub(crate) async fn drain(mut answer: Answer) -> Result<u64, Refusal> {
    let mut total = 0;
    while let Some(part) = answer.next().await? {
        if let Part::Data { rows, .. } = part {
            total += rows;
        }
    }
    Ok(total)
}

fn path(name: &str) -> StreamPath {
    StreamPath::new(TenantName::default_tenant(), StreamName::new(name).unwrap())
}
