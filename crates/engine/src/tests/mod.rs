//! Statements in, rows or refusals out.

mod asof;
mod documented;
mod fields;
mod hostile;
mod real;
mod search;
mod spills;
mod statements;
mod views;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aquifer_env::TierStore;
use aquifer_query::wire::{Column, Progress, Refusal, Spent};
use aquifer_query::{AnswerForm, Ask, EngineOptions, Limits, Parameter, Question, SqlQuestion};
use aquifer_types::{ErrorKind, StreamName, TenantName};
use async_trait::async_trait;
use datafusion::arrow::array::{
    Array, ArrayRef, BinaryViewArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray, TimestampMicrosecondArray, new_empty_array,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{MemTable, TableProvider};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::answer::Sink;
use crate::engine::Engine;
use crate::refusal::refusal;
use crate::sql::{Resolved, Server};
use crate::{Usage, table_schema};

/// Values that records have: JSON of all kinds, text that is none, bytes that
/// are no text, and null.
pub(crate) const VALUES: &[Option<&[u8]>] = &[
    Some(br#"{"verb":"delete","n":1,"user":{"username":"ann"},"tags":["a","b"],"big":9007199254740993}"#),
    Some(br#"{"verb":"get","n":2.5,"user":{"username":"bob"},"nothing":null,"big":12345678901234567890}"#),
    Some(br#"{"verb":"delete","n":"3","user":null}"#),
    Some(br#"{"verb":"list","n":"many","quote":"a\"b\u00e4"}"#),
    Some(b"no json at all"),
    Some(b"\xff\xfe no text"),
    None,
    Some(br#"[1,{"x":true}]"#),
];

/// An engine, and the server that it asks.
pub(crate) struct Fixture {
    pub(crate) engine: Arc<Engine>,
    pub(crate) server: FakeServer,
    _directory: TempDir,
}

/// The streams that questions see: tables in memory.
#[derive(Default)]
pub(crate) struct FakeServer {
    streams: BTreeMap<StreamName, Arc<dyn TableProvider>>,
    pub(crate) views: Mutex<Vec<(String, String)>>,
    pub(crate) cuts: AtomicUsize,
}

#[async_trait]
impl Server for FakeServer {
    async fn list(&self) -> Result<(Vec<StreamName>, Vec<(String, String)>), Refusal> {
        Ok((self.streams.keys().cloned().collect(), self.views.lock().clone()))
    }

    async fn columns(&self, streams: &[StreamName]) -> Result<Vec<SchemaRef>, Refusal> {
        let columns = |name: &StreamName| self.streams.get(name).map(|table| table.schema());
        Ok(streams.iter().filter_map(columns).collect())
    }

    async fn resolve(&self, streams: Vec<StreamName>) -> Result<Vec<Resolved>, Refusal> {
        self.cuts.fetch_add(1, Ordering::Relaxed);
        let found = |name: StreamName| {
            let table = self.streams.get(&name).map(Arc::clone);
            let table = table.ok_or_else(|| {
                refusal(ErrorKind::NotFound, "unknown-table", "42P01", "there is no such stream")
            });
            Ok((name, table?))
        };
        streams.into_iter().map(found).collect()
    }

    async fn put_view(&self, name: String, sql: String, replace: bool) -> Result<(), Refusal> {
        let mut views = self.views.lock();
        if !replace && views.iter().any(|(view, _)| *view == name) {
            let message = format!("there is a view {name} already");
            return Err(refusal(ErrorKind::AlreadyExists, "name-taken", "42P07", message));
        }
        views.retain(|(view, _)| *view != name);
        views.push((name, sql));
        Ok(())
    }

    async fn drop_view(&self, name: String, _: bool) -> Result<(), Refusal> {
        self.views.lock().retain(|(view, _)| *view != name);
        Ok(())
    }
}

/// An answer as it came.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) columns: Vec<Column>,
    pub(crate) parameters: Vec<String>,
    pub(crate) command: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) rows: u64,
    pub(crate) parts: usize,
    pub(crate) progress: Vec<Progress>,
}

impl Collected {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).expect("an answer of text")
    }
}

#[derive(Default)]
struct Collector(Mutex<Collected>);

#[async_trait]
impl Sink for Collector {
    async fn begin(
        &self,
        columns: Vec<Column>,
        _: Vec<u8>,
        parameters: Vec<String>,
        command: String,
    ) -> Result<(), Refusal> {
        *self.0.lock() = Collected { columns, parameters, command, ..Collected::default() };
        Ok(())
    }

    async fn data(&self, rows: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let mut collected = self.0.lock();
        collected.rows += rows;
        collected.parts += 1;
        collected.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn progress(&self, progress: Progress) -> Result<(), Refusal> {
        self.0.lock().progress.push(progress);
        Ok(())
    }
}

pub(crate) fn question(sql: &str) -> (Question, SqlQuestion) {
    let sql = SqlQuestion { sql: sql.to_owned(), parameters: Vec::new(), describe_only: false };
    let question = Question {
        tenant: TenantName::default_tenant(),
        ask: Ask::Sql(sql.clone()),
        form: AnswerForm::Ndjson,
        limits: Limits {
            rows_max: 100_000,
            bytes_max: 64 << 20,
            time_ms_max: 60_000,
            memory_bytes_max: 64 << 20,
        },
        wants_progress: false,
    };
    (question, sql)
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let options = EngineOptions {
            memory_bytes_max: 64 << 20,
            spill_bytes_max: 64 << 20,
            function_bytes_max: 8 << 20,
            ..EngineOptions::default()
        };
        Self::with(options, streams())
    }

    /// An engine with these limits, whose questions see what `server` has.
    fn with(options: EngineOptions, server: FakeServer) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let options = EngineOptions { spill_directory: directory.path().to_owned(), ..options };
        let engine = Engine::new(options, TierStore::in_memory()).expect("an engine");
        Self { engine: Arc::new(engine), server, _directory: directory }
    }

    pub(crate) async fn ask(&self, sql: &str) -> Result<Collected, Refusal> {
        let (question, sql) = question(sql);
        self.ask_as(&question, &sql).await.map(|(collected, _)| collected)
    }

    pub(crate) async fn ask_with(
        &self,
        sql: &str,
        parameters: Vec<Parameter>,
    ) -> Result<Collected, Refusal> {
        let (question, sql) = question(sql);
        let sql = SqlQuestion { parameters, ..sql };
        self.ask_as(&question, &sql).await.map(|(collected, _)| collected)
    }

    pub(crate) async fn ask_as(
        &self,
        question: &Question,
        sql: &SqlQuestion,
    ) -> Result<(Collected, Spent), Refusal> {
        let sink = Collector::default();
        let usage = Usage::default();
        let spent = self.engine.sql_with(question, sql, &self.server, &sink, &usage).await?;
        Ok((sink.0.into_inner(), spent))
    }
}

fn streams() -> FakeServer {
    let tables: [(&str, RecordBatch); 4] = [
        ("events", events(VALUES)),
        ("shop.orders-eu", typed()),
        ("Users", users()),
        ("many", numbers()),
    ];
    let streams = tables.map(|(name, batch)| {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("a table");
        (StreamName::new(name).expect("a name"), Arc::new(table) as Arc<dyn TableProvider>)
    });
    FakeServer { streams: streams.into(), ..FakeServer::default() }
}

/// Records of partition 0 with these values, from offset 0 on, a second apart.
pub(crate) fn events(values: &[Option<&[u8]>]) -> RecordBatch {
    let count = i64::try_from(values.len()).expect("a few");
    let times: Vec<i64> = (0..count).map(|at| 1_700_000_000_000_000 + at * 1_000_000).collect();
    let time = || -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC"))
    };
    let keys: Vec<Option<&[u8]>> =
        (0..count).map(|at| if at % 2 == 0 { Some(&b"even"[..]) } else { None }).collect();
    let DataType::List(item) = table_schema().field(5).data_type().clone() else {
        panic!("headers are a list");
    };
    let lengths = std::iter::repeat_n(0, values.len());
    let none = new_empty_array(item.data_type());
    let empty = ListArray::new(item, OffsetBuffer::from_lengths(lengths), none, None);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![0; values.len()])),
        Arc::new(Int64Array::from((0..count).collect::<Vec<i64>>())),
        time(),
        time(),
        Arc::new(BinaryViewArray::from(keys)),
        Arc::new(empty),
        Arc::new(BinaryViewArray::from(values.to_vec())),
    ];
    RecordBatch::try_new(table_schema(), columns).expect("events")
}

/// A stream with fields as columns, nested and in mixed case.
fn typed() -> RecordBatch {
    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("ann"), Some("bob"), None]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let user = StructArray::from(vec![
        (Arc::new(Field::new("username", DataType::Utf8, true)), names),
        (Arc::new(Field::new("Id", DataType::Int64, false)), ids),
    ]);
    let schema = Schema::new(vec![
        Field::new("user", user.data_type().clone(), true),
        Field::new("Verb", DataType::Utf8, true),
        Field::new("amount", DataType::Int64, true),
        Field::new("Amount2", DataType::Int64, true),
        Field::new("order", DataType::Utf8, true),
    ]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(user),
        Arc::new(StringArray::from(vec!["delete", "get", "delete"])),
        Arc::new(Int64Array::from(vec![Some(10), None, Some(30)])),
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(StringArray::from(vec!["x", "y", "z"])),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).expect("orders")
}

fn users() -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] = [
        ("name", Arc::new(StringArray::from(vec!["ann", "bob", "eve"]))),
        ("city", Arc::new(StringArray::from(vec!["Ulm", "Bern", "Graz"]))),
    ];
    RecordBatch::try_from_iter(columns).expect("users")
}

fn numbers() -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from((0..50_000).collect::<Vec<i64>>()));
    RecordBatch::try_from_iter([("n", numbers)]).expect("numbers")
}
