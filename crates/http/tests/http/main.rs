//! The HTTP door over a real store, as clients see it.

#![allow(clippy::unwrap_used, reason = "a step that fails is the test's failure")]
#![allow(clippy::disallowed_methods, reason = "tests use real files")]

mod connections;
mod groups;
mod objects;
mod questions;
mod records;
mod streams;
mod tables;
mod tail;
mod users;

use std::sync::Arc;

use aquifer_http::{HttpEnvironment, HttpMetrics, HttpOptions, HttpServer};
use aquifer_objects::{ObjectEnvironment, ObjectMetrics, ObjectOptions, Objects};
use aquifer_query::{EngineCommand, Queries, QueryEnvironment, QueryMetrics, QueryOptions};
use aquifer_stream::{Environment, Options, StreamStore};
use aquifer_tables::{TableEnvironment, TableMetrics, TableOptions, Tables};
use prometheus_client::registry::Registry;
use reqwest::{Method, Response};
use serde_json::{Value, json};

struct Server {
    http: Option<HttpServer>,
    store: StreamStore,
    url: String,
    client: reqwest::Client,
    _directory: tempfile::TempDir,
}

impl Server {
    async fn start(options: HttpOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut registry = Registry::with_prefix("aquifer");
        let metrics = HttpMetrics::register(&mut registry);
        let query_metrics = QueryMetrics::register(&mut registry);
        let environment = Environment::real();
        let (clock, random) = (environment.clock.clone(), environment.random.clone());
        let store_options = Options {
            data: directory.path().join("data"),
            journal_file_bytes: 1 << 20,
            ..Options::default()
        };
        let store = StreamStore::open(store_options, environment, &mut registry).await.unwrap();
        let table_environment = TableEnvironment {
            clock: clock.clone(),
            random: random.clone(),
            metrics: TableMetrics::register(&mut registry),
        };
        let tables = Tables::new(store.clone(), TableOptions::default(), table_environment);
        let object_environment = ObjectEnvironment {
            clock: clock.clone(),
            random: random.clone(),
            metrics: ObjectMetrics::register(&mut registry),
        };
        let object_options = ObjectOptions {
            allowed: vec![format!("file://{}/", directory.path().display())],
            ..ObjectOptions::default()
        };
        let objects = Objects::start(store.clone(), object_options, object_environment);
        // Nothing here asks a statement that is answered: an engine would be the
        // whole binary, which the end-to-end tests start.
        let engine = EngineCommand {
            program: directory.path().join("no-engine"),
            name: "engine".to_owned(),
            variables_left_out: Vec::new(),
            arguments: Vec::new(),
            temporary_directory: directory.path().to_owned(),
            log_filter: "info".to_owned(),
        };
        let query_environment = QueryEnvironment {
            clock: clock.clone(),
            random: random.clone(),
            metrics: query_metrics,
            engine,
        };
        let queries = Queries::new(store.clone(), QueryOptions::default(), query_environment);
        let environment = HttpEnvironment {
            clock,
            random,
            queries,
            tables: Some(tables),
            objects: Some(objects),
            metrics,
            registries: vec![Arc::new(registry)],
        };
        let options = HttpOptions { listen: "127.0.0.1:0".parse().unwrap(), ..options };
        let http = HttpServer::start(store.clone(), options, environment).await.unwrap();
        let url = format!("http://{}", http.address());
        let client = reqwest::Client::new();
        Self { http: Some(http), store, url, client, _directory: directory }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Response {
        let request = self.request(method, path).header("content-type", "application/json");
        request.body(body.to_string()).send().await.unwrap()
    }

    async fn create(&self, name: &str, partitions: u32) {
        let body = json!({ "name": name, "partitions": partitions });
        let answer = self.send(Method::POST, "/v1/streams", body).await;
        assert_eq!(answer.status(), 201);
    }

    async fn append(&self, path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Response {
        let request = self.request(Method::POST, path).header("content-type", content_type);
        request.body(body.into()).send().await.unwrap()
    }

    async fn stop(mut self) {
        self.http.take().unwrap().stop().await;
        self.store.shutdown().await.unwrap();
    }
}

async fn json_of(answer: Response) -> Value {
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

/// The status and the problem's name, detail and members.
async fn problem_of(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem = json_of(answer).await;
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().unwrap().starts_with("urn:aquifer:problem:"));
    assert!(!problem["next"].as_str().unwrap().is_empty());
    (status, problem)
}
