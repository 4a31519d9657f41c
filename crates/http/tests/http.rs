//! The HTTP door over a real store, as clients see it.

#![allow(clippy::unwrap_used, reason = "a step that fails is the test's failure")]
#![allow(clippy::disallowed_methods, reason = "tests use real files")]

use std::sync::Arc;
use std::time::Duration;

use aquifer_http::{HttpEnvironment, HttpMetrics, HttpOptions, HttpServer, Token};
use aquifer_objects::{ObjectEnvironment, ObjectMetrics, ObjectOptions, Objects};
use aquifer_query::{EngineCommand, Queries, QueryEnvironment, QueryMetrics, QueryOptions};
use aquifer_stream::{
    AppendRequest, DocumentExpectation, DocumentKey, DocumentKind, Environment, Options,
    PartitionAppend, StreamStore,
};
use aquifer_tables::{TableEnvironment, TableMetrics, TableOptions, Tables};
use aquifer_types::{
    BatchBuilder, Compression, PartitionIndex, StreamName, StreamPath, TenantName, Timestamp,
};
use futures::StreamExt as _;
use prometheus_client::registry::Registry;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

#[tokio::test]
async fn records_come_back_as_they_went_in() {
    let server = Server::start(HttpOptions::default()).await;
    server.create("events", 1).await;
    let path = "/v1/streams/events/records";
    for (content_type, body, count) in [
        ("application/x-ndjson", &b"{\"a\": 1}\n\n[2 ]\n"[..], 2),
        ("text/plain", b"not json\r\nlast", 2),
        ("application/octet-stream", b"\x00\xff", 1),
        (
            "application/json",
            br#"{"records":[{"key":"k","value":"v","headers":{"h":"1"},"timestamp":5}]}"#,
            1,
        ),
    ] {
        let answer = server.append(path, content_type, body).await;
        assert_eq!(answer.status(), 200, "{content_type}");
        assert_eq!(json_of(answer).await["appends"][0]["count"], count, "{content_type}");
    }
    let answer = server.get(path).await;
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    for (name, value) in [("next", "6"), ("start", "0"), ("stable", "6"), ("end", "6")] {
        assert_eq!(answer.headers()[format!("aquifer-{name}-offset")], value, "{name}");
    }
    let text = answer.text().await.unwrap();
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let values: Vec<_> = records.iter().map(|record| record["value"].clone()).collect();
    let binary = json!({ "base64": "AP8=" });
    assert_eq!(
        values,
        [json!("{\"a\": 1}"), json!("[2 ]"), json!("not json"), json!("last"), binary, json!("v")]
    );
    assert_eq!(
        records[5],
        json!({
            "partition": 0, "offset": 5, "timestamp": 5, "key": "k",
            "headers": [{ "key": "h", "value": "1" }], "value": "v",
        })
    );

    let page = json_of(
        server
            .request(Method::GET, "/v1/streams/events/records?offset=1&limit=2")
            .header("accept", "application/json")
            .send()
            .await
            .unwrap(),
    )
    .await;
    let offsets: Vec<_> =
        page["records"].as_array().unwrap().iter().map(|r| r["offset"].clone()).collect();
    assert_eq!((offsets, &page["next_offset"]), (vec![json!(1), json!(2)], &json!(3)));
    server.stop().await;
}

#[tokio::test]
async fn an_append_is_one_thing() {
    let server = Server::start(HttpOptions::default()).await;
    server.create("s", 4).await;
    // Equal keys go to equal partitions, and a request to one answer.
    let lines = "{\"u\":\"a\"}\n{\"u\":\"b\"}\n{\"u\":\"a\"}\n";
    let path = "/v1/streams/s/records?key_field=u";
    let answer = json_of(server.append(path, "application/x-ndjson", lines).await).await;
    let counts: u64 =
        answer["appends"].as_array().unwrap().iter().map(|a| a["count"].as_u64().unwrap()).sum();
    assert_eq!(counts, 3);

    // One record that cannot be appended, and none is.
    let description = json_of(server.get("/v1/streams/s").await).await;
    let body = r#"{"records":[{"value":"x","partition":0},{"value":"y","partition":9}]}"#;
    let path = "/v1/streams/s/records";
    let (status, problem) = problem_of(server.append(path, "application/json", body).await).await;
    assert_eq!((status, &problem["record"]), (400, &json!(1)));
    assert_eq!(json_of(server.get("/v1/streams/s").await).await, description);

    // The same key gives the same answer, however late and wherever it went.
    let request = || {
        let path = "/v1/streams/s/records";
        let request = server.request(Method::POST, path).header("content-type", "text/plain");
        request.header("idempotency-key", "once")
    };
    let first = json_of(request().body("one").send().await.unwrap()).await;
    let mut again = json_of(request().body("one").send().await.unwrap()).await;
    assert_eq!(again["duplicate"], true);
    again.as_object_mut().unwrap().remove("duplicate");
    assert_eq!(first, again);
    let other = request().body("two").send().await.unwrap();
    assert_eq!(problem_of(other).await.0, 400);

    // An expected offset that is not the end appends nothing.
    server.create("one", 1).await;
    for (expected, status) in [(0, 200), (0, 409), (1, 200)] {
        let path = format!("/v1/streams/one/records?expected_offset={expected}");
        let answer = server.append(&path, "text/plain", "x").await;
        assert_eq!(answer.status(), status, "expected {expected}");
        if status == 409 {
            let (_, problem) = problem_of(answer).await;
            assert_eq!((&problem["expected"], &problem["actual"]), (&json!(0), &json!(1)));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn streams_live_and_die() {
    let server = Server::start(HttpOptions::default()).await;
    let body = json!({ "name": "s", "partitions": 2, "config": { "retention_ms": 60_000 } });
    let answer = server.send(Method::POST, "/v1/streams", body.clone()).await;
    assert_eq!(answer.headers()["location"], "/v1/streams/s");
    assert_eq!(json_of(answer).await["config"]["retention_ms"], 60_000);
    let (status, problem) = problem_of(server.send(Method::POST, "/v1/streams", body).await).await;
    assert_eq!(
        (status, problem["type"].as_str().unwrap()),
        (409, "urn:aquifer:problem:already-exists")
    );

    let change = json!({ "partitions": 3, "config": { "retention_ms": null } });
    let changed = json_of(server.send(Method::PATCH, "/v1/streams/s", change).await).await;
    assert_eq!(changed["partition_count"], 3);
    assert_eq!(changed["config"]["retention_ms"], Value::Null);
    assert_eq!(changed["config"]["chunk_max_age_ms"], 60_000);

    server.append("/v1/streams/s/records?partition=2", "text/plain", "a\nb\nc").await;
    let to = json!({ "partition": 2, "offset": 2 });
    let answer = json_of(server.send(Method::POST, "/v1/streams/s/truncate", to).await).await;
    assert_eq!(answer["partitions"][2]["start_offset"], 2);
    let (status, problem) =
        problem_of(server.get("/v1/streams/s/records?partition=2&offset=0").await).await;
    assert_eq!((status, &problem["earliest"]), (416, &json!(2)));

    let positions = json!({ "stream": "s", "positions": { "2": { "offset": 3 } } });
    let answer = server.send(Method::POST, "/v1/groups/g/positions", positions).await;
    assert_eq!(answer.status(), 204);
    let groups = json_of(server.get("/v1/groups").await).await;
    assert_eq!(groups, json!({ "groups": ["g"] }));
    let group = json_of(server.get("/v1/groups/g").await).await;
    assert_eq!(group["streams"]["s"]["2"]["offset"], 3);
    let answer = server.get("/v1/streams/s/records?partition=2&group=g").await;
    assert_eq!(answer.headers()["aquifer-next-offset"], "3");
    assert_eq!((&group["streams"]["s"]["2"]["lag"], &group["state"]), (&json!(0), &json!("empty")));
    let answer = server.get("/v1/streams/s/records?partition=2&group=new").await;
    assert_eq!(answer.text().await.unwrap().lines().count(), 1);

    let answer = server.request(Method::DELETE, "/v1/streams/s").send().await.unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(problem_of(server.get("/v1/streams/s").await).await.0, 404);
    assert_eq!(json_of(server.get("/v1/streams").await).await, json!({ "streams": [] }));
    server.stop().await;
}

#[tokio::test]
async fn declared_fields_are_there_from_the_start() {
    let server = Server::start(HttpOptions::default()).await;
    let schema = r#"{"properties":{"verb":{"type":"string"},"at":{"type":["string","null"],"format":"date-time"}}}"#;
    // By hand: the order of the properties counts.
    let body = format!(r#"{{"name":"s","schema":{schema}}}"#);
    let answer = server.append("/v1/streams", "application/json", body).await;
    assert_eq!(answer.status(), 201);
    let found = json_of(server.get("/v1/streams/s/schema").await).await;
    let field = |id: i32, path: &str, kind: &str, since: u32| json!({ "id": id, "path": path, "kind": kind, "since": since, "declared": true });
    let (verb, at) = (field(1000, "verb", "text", 1), field(1001, "at", "timestamp", 1));
    assert_eq!(found, json!({ "version": 1, "closed": false, "fields": [verb, at] }));

    let more =
        json!({ "properties": { "user": { "properties": { "id": { "type": "integer" } } } } });
    for _ in 0..2 {
        let answer = server.send(Method::PATCH, "/v1/streams/s/schema", more.clone()).await;
        let found = json_of(answer).await;
        let (user, id) = (field(1002, "user", "object", 2), field(1003, "user.id", "int64", 2));
        assert_eq!(found, json!({ "version": 2, "closed": false, "fields": [verb, at, user, id] }));
    }
    let other =
        json!({ "properties": { "user": { "properties": { "id": { "type": "string" } } } } });
    let answer = server.send(Method::PATCH, "/v1/streams/s/schema", other).await;
    let (status, problem) = problem_of(answer).await;
    assert_eq!((status, &problem["field"]), (409, &json!("user.id")), "{problem}");
    let bad = json!({ "name": "t", "schema": { "type": "text" } });
    let (status, problem) = problem_of(server.send(Method::POST, "/v1/streams", bad).await).await;
    assert_eq!((status, &problem["pointer"]), (400, &json!("#/type")), "{problem}");
    assert_eq!(problem_of(server.get("/v1/streams/t/schema").await).await.0, 404);

    // A stream of the same name has none of it.
    server.request(Method::DELETE, "/v1/streams/s").send().await.unwrap();
    server.create("s", 1).await;
    let found = json_of(server.get("/v1/streams/s/schema").await).await;
    assert_eq!(found, json!({ "version": 0, "closed": false, "fields": [] }));
    server.stop().await;
}

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let options = HttpOptions {
        request_bytes_max: 64 << 10,
        requests_bytes_max: 64 << 10,
        request_records_max: 100,
        ..HttpOptions::default()
    };
    let server = Server::start(options).await;
    server.create("s", 2).await;
    let check = async |answer: Response, status: u16, part: &str| {
        let (found, problem) = problem_of(answer).await;
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(found, status, "{problem}");
        assert!(detail.contains(part), "{detail}");
    };
    let records = "/v1/streams/s/records";
    check(server.get("/v1/streams/s/records?partitions=0").await, 400, "'partitions'").await;
    check(server.get("/v1/streams/s/records").await, 400, "2 partitions").await;
    check(server.get("/v1/streams/s/records?partition=7").await, 404, "no partition 7").await;
    check(server.get("/v1/streams/s/records?partition=0&time=noon").await, 400, "'time'").await;
    check(server.get("/v1/streams/a%20b").await, 400, "stream name").await;
    check(server.get("/v2").await, 404, "no such path").await;
    let answer = server.request(Method::PUT, records).send().await.unwrap();
    check(answer, 405, "no such method").await;
    let answer = server.request(Method::GET, "/v1/streams/s/records?partition=0");
    check(answer.header("accept", "text/csv").send().await.unwrap(), 406, "text/csv").await;
    check(server.append(records, "text/csv", "a").await, 415, "text/csv").await;
    let compressed = server.request(Method::POST, records).header("content-type", "text/plain");
    let compressed = compressed.header("content-encoding", "gzip").body("a").send().await;
    check(compressed.unwrap(), 415, "gzip").await;
    check(server.append(records, "text/plain", "\n\n").await, 400, "no records").await;
    check(server.append(records, "text/plain", "a\n".repeat(101)).await, 413, "100 records").await;
    check(server.append(records, "text/plain", vec![b'a'; 70_000]).await, 413, "request_bytes_max")
        .await;
    let many = "x\n".repeat(50);
    let pieces = (0..1000).map(move |_| Ok::<_, std::io::Error>(many.clone()));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let request = server.request(Method::POST, records).header("content-type", "text/plain");
    check(request.body(body).send().await.unwrap(), 413, "request_bytes_max").await;
    let body = json!({ "name": "t", "partition": 3 });
    check(server.send(Method::POST, "/v1/streams", body).await, 400, "`partition`").await;
    let body = json!({ "name": "t", "partitions": 10_001 });
    check(server.send(Method::POST, "/v1/streams", body).await, 400, "1 to 10000").await;
    let body = json!({ "name": "t", "class": "shared" });
    check(server.send(Method::POST, "/v1/streams", body).await, 501, "shared").await;
    let large = format!("\"{}\"", "a".repeat(1100));
    let body = json!({ "config": { "record_bytes_max": 1024 } });
    server.send(Method::PATCH, "/v1/streams/s", body).await;
    check(server.append(records, "application/x-ndjson", large).await, 413, "record_bytes_max")
        .await;
    // All that was reserved for them is given back.
    let metrics = server.get("/metrics").await.text().await.unwrap();
    for line in ["aquifer_http_requests_held_bytes 0", "aquifer_http_reads_held_bytes 0"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
    assert_eq!(server.get("/v1/streams/s/records?partition=0").await.text().await.unwrap(), "");
    server.stop().await;
}

#[tokio::test]
async fn a_read_waits_for_what_comes() {
    let server = Server::start(HttpOptions::default()).await;
    server.create("s", 1).await;
    let path = "/v1/streams/s/records?offset=latest&wait_ms=60000";
    let (answer, _) = tokio::join!(server.get(path), async {
        // It may come before the read: that then answers at once, at the end.
        server.append("/v1/streams/s/records", "text/plain", "first").await;
        server.append("/v1/streams/s/records", "text/plain", "second").await;
        for number in 0.. {
            // The read saw "latest" at some moment; one of these is behind it.
            let body = format!("more {number}");
            server.append("/v1/streams/s/records", "text/plain", body).await;
            if number == 20 {
                break;
            }
        }
    });
    assert_eq!(answer.status(), 200);
    assert!(!answer.text().await.unwrap().is_empty());
    server.stop().await;
}

/// The ids and data of the next `count` events with data.
async fn events(answer: Response, count: usize) -> Vec<(String, Value)> {
    let mut pieces = answer.bytes_stream();
    let mut text = String::new();
    let mut found = Vec::new();
    while found.len() < count {
        let piece = pieces.next().await.expect("the tail goes on").unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field = |name: &str| {
                event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
            };
            if let Some(data) = field("data: ") {
                found.push((
                    field("id: ").unwrap_or_default(),
                    serde_json::from_str(&data).unwrap(),
                ));
            }
            text = rest.to_owned();
        }
    }
    found.truncate(count);
    found
}

#[tokio::test]
async fn a_tail_goes_on_exactly_where_it_broke_off() {
    let server = Server::start(HttpOptions::default()).await;
    server.create("s", 3).await;
    let append = async |partition: u32, from: u32, count: u32| {
        let lines: String = (from..from + count).map(|n| format!("{partition}-{n}\n")).collect();
        let path = format!("/v1/streams/s/records?partition={partition}");
        assert_eq!(server.append(&path, "text/plain", lines).await.status(), 200);
    };
    for partition in 0..3 {
        append(partition, 0, 5).await;
    }
    let mut seen = Vec::new();
    let first = events(server.get("/v1/streams/s/tail?from=earliest").await, 4).await;
    let mut last_id = first.last().unwrap().0.clone();
    seen.extend(first);
    append(1, 5, 5).await;
    // Broken off again and again, and no record is seen twice or missed.
    while seen.len() < 20 {
        let request = server.request(Method::GET, "/v1/streams/s/tail");
        let answer = request.header("last-event-id", &last_id).send().await.unwrap();
        let more = events(answer, 3.min(20 - seen.len())).await;
        last_id = more.last().unwrap().0.clone();
        seen.extend(more);
    }
    let mut values: Vec<_> =
        seen.iter().map(|(_, record)| record["value"].as_str().unwrap().to_owned()).collect();
    values.sort();
    let mut expected: Vec<_> = (0..3)
        .flat_map(|p| (0..if p == 1 { 10 } else { 5 }).map(move |n| format!("{p}-{n}")))
        .collect();
    expected.sort();
    assert_eq!(values, expected);
    assert_eq!(last_id, "0:5,1:10,2:5");

    // Records behind the tail's position are gone: it says so and goes on.
    let cut = json!({ "cut": { "1": 8 } });
    assert_eq!(server.send(Method::POST, "/v1/streams/s/truncate", cut).await.status(), 200);
    let tail = server.get("/v1/streams/s/tail?partition=1&from=1:2").await;
    let after = events(tail, 2).await;
    assert_eq!(after[0].1, json!({ "partition": 1, "from": 2, "to": 8 }));
    assert_eq!(after[1].1["value"], "1-8");
    server.stop().await;
}

#[tokio::test]
async fn a_busy_tail_follows_partitions_that_are_added() {
    let options = HttpOptions { tail_keep_alive_ms: 3_600_000, ..HttpOptions::default() };
    let server = Server::start(options).await;
    server.create("s", 1).await;
    let tail = server.get("/v1/streams/s/tail?from=earliest").await;
    let more = server.send(Method::PATCH, "/v1/streams/s", json!({ "partitions": 2 })).await;
    assert_eq!(more.status(), 200);
    for (partition, line) in [(1, "new"), (0, "busy")] {
        let path = format!("/v1/streams/s/records?partition={partition}");
        assert_eq!(server.append(&path, "text/plain", line).await.status(), 200);
    }
    let found = tokio::time::timeout(Duration::from_secs(20), events(tail, 2)).await.unwrap();
    let mut values: Vec<_> = found.iter().map(|(_, record)| &record["value"]).collect();
    values.sort_by_key(|value| value.to_string());
    assert_eq!(values, [&json!("busy"), &json!("new")]);
    server.stop().await;
}

#[tokio::test]
async fn a_small_batch_of_many_records_comes_in_pieces() {
    const COUNT: usize = 60_000;
    let server = Server::start(HttpOptions::default()).await;
    server.create("s", 1).await;
    let mut builder = BatchBuilder::default().compression(Compression::Zstd);
    for _ in 0..COUNT {
        builder.push(Timestamp(1), None, &[], Some(b"v"));
    }
    let batch = builder.finish();
    assert!(batch.bytes().len() < 100_000);
    let path = StreamPath::new(TenantName::default_tenant(), StreamName::new("s").unwrap());
    let append = PartitionAppend { partition: PartitionIndex(0), batch, expected_offset: None };
    let request = AppendRequest { path, appends: vec![append], idempotency_key: None };
    server.store.append(request).await.unwrap();
    // Requests go on where the last one ended.
    let mut at = 0;
    while at < COUNT {
        let path = format!("/v1/streams/s/records?offset={at}&max_bytes=65536");
        let answer = server.get(&path).await;
        let next = answer.headers()["aquifer-next-offset"].to_str().unwrap().parse().unwrap();
        let text = answer.text().await.unwrap();
        assert!(text.len() < 300_000, "{}", text.len());
        assert_eq!(at + text.lines().count(), next);
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(first["offset"], at);
        at = next;
    }
    // So does a tail, all by itself.
    let mut pieces = server.get("/v1/streams/s/tail?from=earliest").await.bytes_stream();
    let mut bytes = Vec::new();
    let end = format!("id: 0:{COUNT}\nevent: record\n");
    let has_end = |bytes: &[u8]| {
        let last = &bytes[bytes.len().saturating_sub(500)..];
        last.ends_with(b"\n\n") && String::from_utf8_lossy(last).contains(&end)
    };
    while !has_end(&bytes) {
        bytes.extend_from_slice(&pieces.next().await.unwrap().unwrap());
    }
    let text = String::from_utf8(bytes).unwrap();
    let ids = text.lines().filter_map(|line| line.strip_prefix("id: 0:"));
    let ids: Vec<usize> = ids.map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids, (0..=COUNT).collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn the_server_stops_without_cutting_anyone_off() {
    let server = Server::start(HttpOptions::default()).await;
    server.create("s", 1).await;
    let mut tail = server.get("/v1/streams/s/tail").await.bytes_stream();
    assert!(tail.next().await.is_some());
    let request = server.request(Method::GET, "/v1/streams/s/records?wait_ms=60000");
    let waiting = tokio::spawn(request.send());
    // It is under way when the server counts it.
    loop {
        let metrics = server.get("/metrics").await.text().await.unwrap();
        if metrics.contains("aquifer_http_requests_in_flight 2") {
            break;
        }
        tokio::task::yield_now().await;
    }
    server.stop().await;
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (200, String::new()));
    assert!(tail.next().await.is_none());
}

#[tokio::test]
async fn a_token_is_needed_where_there_is_one() {
    let token = Some(Token::new("a-long-secret").unwrap());
    let server = Server::start(HttpOptions { token, ..HttpOptions::default() }).await;
    for (path, open) in [
        ("/healthz", true),
        ("/readyz", true),
        ("/", true),
        ("/metrics", false),
        ("/openapi.json", false),
        ("/v1/streams", false),
        ("/nowhere", false),
    ] {
        let status = server.get(path).await.status().as_u16();
        assert_eq!(status, if open { 200 } else { 401 }, "{path}");
    }
    let with = async |token: &str| {
        let request = server.request(Method::GET, "/v1/streams").bearer_auth(token);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(with("a-long-secret").await, 200);
    assert_eq!(with("a-long-secreT").await, 401);
    assert_eq!(with("").await, 401);
    server.stop().await;
}

#[tokio::test]
async fn pages_of_other_sites_cannot_append() {
    let server = Server::start(HttpOptions::default()).await;
    server.create("s", 1).await;
    let request = server
        .request(Method::POST, "/v1/streams/s/records")
        .header("content-type", "text/plain")
        .header("origin", "https://evil.example");
    assert_eq!(problem_of(request.body("x").send().await.unwrap()).await.0, 403);
    let request = server.request(Method::GET, "/v1/streams").header("host", "evil.example");
    assert_eq!(problem_of(request.send().await.unwrap()).await.0, 403);
    let page = server.get("/").await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    assert!(page.text().await.unwrap().contains(&format!("<script nonce=\"{nonce}\">")));
    server.stop().await;
}

#[tokio::test]
async fn clients_that_dawdle_are_let_go() {
    let options = HttpOptions { header_ms_max: 50, request_ms_max: 50, ..HttpOptions::default() };
    let server = Server::start(options).await;
    server.create("s", 1).await;
    let address = server.url.strip_prefix("http://").unwrap();
    let talk = async |text: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // Ends when the server closes the connection.
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(30), read).await.unwrap().unwrap();
        answer
    };
    let answer = talk("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let answer = talk(
        "POST /v1/streams/s/records HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\
         Content-Length: 100\r\n\r\nonly this",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("request_ms_max"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn who_announces_much_and_sends_nothing_holds_nobody_up() {
    let options = HttpOptions {
        request_bytes_max: 64 << 10,
        requests_bytes_max: 64 << 10,
        ..HttpOptions::default()
    };
    let server = Server::start(options).await;
    server.create("s", 1).await;
    let address = server.url.strip_prefix("http://").unwrap();
    let mut silent = Vec::new();
    for number in 1..=5 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /v1/streams/s/records HTTP/1.1\r\nhost: {address}\r\n\
             content-type: text/plain\r\ncontent-length: 65536\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        silent.push(stream);
        // It is under way when the server counts it, beside the one that asks.
        let in_flight = format!("aquifer_http_requests_in_flight {}\n", number + 1);
        let is_counted = async {
            while !server.get("/metrics").await.text().await.unwrap().contains(&in_flight) {
                tokio::task::yield_now().await;
            }
        };
        let counted = tokio::time::timeout(Duration::from_secs(20), is_counted).await;
        assert!(counted.is_ok(), "{number} are under way");
    }
    let answer = server.append("/v1/streams/s/records", "text/plain", "a\nb").await;
    assert_eq!(answer.status(), 200);
    drop(silent);
    server.stop().await;
}

#[tokio::test]
async fn users_are_created_and_their_passwords_never_shown() {
    let server = Server::start(HttpOptions::default()).await;
    let create = async |body: Value| server.send(Method::POST, "/v1/users", body).await;
    let alice = json!({ "name": "alice, 1", "password": "correct horse", "iterations": 4096 });
    let answer = create(alice.clone()).await;
    assert_eq!(answer.status(), 201);
    let user = json_of(answer).await;
    assert_eq!(user["name"], "alice, 1");
    assert_eq!(user["mechanisms"][0], json!({ "name": "SCRAM-SHA-256", "iterations": 4096 }));
    assert_eq!(user["mechanisms"][1]["name"], "SCRAM-SHA-512");
    assert_eq!(create(alice.clone()).await.status(), 409);
    let mut again = alice.clone();
    again["replace"] = json!(true);
    assert_eq!(create(again).await.status(), 201);
    let text = server.get("/v1/users").await.text().await.unwrap();
    assert!(text.contains("alice, 1") && !text.contains("horse") && !text.contains("key"));
    assert_eq!(json_of(server.get("/v1/users/alice%2C%201").await).await["name"], "alice, 1");

    let bad = [
        json!({ "name": "bob", "password": "correct horse", "iterations": 1 }),
        json!({ "name": "bob", "password": "correct horse\n" }),
        json!({ "name": "", "password": "correct horse" }),
        json!({ "name": "bob", "password": ["correct horse"] }),
        json!({ "name": "bob", "password": "correct horse", "passwort": "correct horse" }),
        json!({ "name": "bob" }),
    ];
    for body in bad {
        let answer = create(body.clone()).await;
        assert_eq!(answer.status(), 400, "{body}");
        assert!(!answer.text().await.unwrap().contains("horse"), "{body}");
    }
    let path = "/v1/users/alice%2C%201";
    assert_eq!(server.request(Method::DELETE, path).send().await.unwrap().status(), 204);
    assert_eq!(server.request(Method::DELETE, path).send().await.unwrap().status(), 404);
    assert_eq!(server.get(path).await.status(), 404);
    assert_eq!(json_of(server.get("/v1/users").await).await, json!({ "users": [] }));
    server.stop().await;
}

/// A group's document, as the coordinator of classic groups stores it.
const MEMBERS: &str = r#"{"type":"classic","generation":7,"protocol_type":"consumer","protocol":"range","leader":"a","members":[{"id":"a","client_id":"c","client_host":"/::1","session_ms":6000,"rebalance_ms":9000,"metadata":"AAE=","assignment":"AAAAAAABAAFzAAAAAQAAAAIAAAAA"}]}"#;
/// The same when its member has gone.
const EMPTY: &str = r#"{"empty_since_ms":5,"type":"classic","generation":8,"protocol_type":"consumer","protocol":null,"leader":null,"members":[]}"#;

async fn store_group(server: &Server, name: &str, text: &str) {
    let key = DocumentKey::new(TenantName::default_tenant(), DocumentKind::Group, name);
    server.store.put_document(key, text.into(), DocumentExpectation::Any).await.unwrap();
}

#[tokio::test]
async fn members_are_shown_and_keep_their_positions() {
    let server = Server::start(HttpOptions::default()).await;
    server.create("s", 3).await;
    server.append("/v1/streams/s/records?partition=2", "text/plain", "a\nb\nc").await;
    let positions = json!({ "stream": "s", "positions": { "2": { "offset": 1 } } });
    // Every name that Kafka allows: the slash is part of it.
    let path = "/v1/groups/a%2Fb%20%C3%A4";
    let commit = format!("{path}/positions");
    let reset = format!("{path}/reset");
    let answer = server.send(Method::POST, &commit, positions.clone()).await;
    assert_eq!(answer.status(), 204);
    store_group(&server, "a/b ä", MEMBERS).await;
    store_group(&server, "only members", MEMBERS).await;
    let groups = json_of(server.get("/v1/groups").await).await;
    assert_eq!(groups, json!({ "groups": ["a/b ä", "only members"] }));
    let group = json_of(server.get(path).await).await;
    assert_eq!(group["streams"]["s"]["2"]["lag"], 2);
    assert_eq!(group["streams"]["s"]["2"]["end_offset"], 3);
    let facts = ["state", "type", "protocol_type", "protocol"].map(|of| group[of].clone());
    assert_eq!(facts, ["stable", "classic", "consumer", "range"]);
    let member = json!({ "id": "a", "instance": null, "client_id": "c", "client_host": "/::1",
        "assignment": { "s": [2] } });
    assert_eq!((&group["members"], &group["generation"]), (&json!([member]), &json!(7)));
    let group = json_of(server.get("/v1/groups/only%20members").await).await;
    assert_eq!((&group["state"], &group["streams"]), (&json!("stable"), &json!({})));

    let to = json!({ "to": "earliest", "execute": true });
    for (method, path, body) in [
        (Method::POST, commit.as_str(), positions.clone()),
        (Method::POST, reset.as_str(), to),
        (Method::DELETE, path, Value::Null),
    ] {
        let (status, problem) = problem_of(server.send(method, path, body).await).await;
        assert_eq!((status, &problem["members"]), (409, &json!(1)), "{path}");
        assert!(problem["next"].as_str().unwrap().starts_with("Stop the group's consumers"));
    }
    let group = json_of(server.get(path).await).await;
    assert_eq!(group["streams"]["s"]["2"]["offset"], 1);

    store_group(&server, "a/b ä", EMPTY).await;
    let answer = server.send(Method::POST, &commit, positions).await;
    assert_eq!(answer.status(), 204);
    for path in [path, "/v1/groups/only%20members"] {
        store_group(&server, "only members", EMPTY).await;
        let answer = server.request(Method::DELETE, path).send().await.unwrap();
        assert_eq!(answer.status(), 204, "{path}");
        assert_eq!(server.get(path).await.status(), 404, "{path}");
    }
    let documents = server.store.documents(&TenantName::default_tenant(), DocumentKind::Group);
    assert_eq!(documents.len(), 0);
    store_group(&server, "torn", "{").await;
    let answer = server.request(Method::DELETE, "/v1/groups/torn").send().await.unwrap();
    assert_eq!(problem_of(answer).await.0, 500, "what cannot be read is not taken for empty");
    server.stop().await;
}

#[tokio::test]
async fn positions_are_reset_when_that_is_asked_for() {
    let server = Server::start(HttpOptions::default()).await;
    for stream in ["s", "t"] {
        server.create(stream, 2).await;
        let path = format!("/v1/streams/{stream}/records?partition=1");
        let records = json!({ "records": [
            { "value": "a", "timestamp": 1000 }, { "value": "b", "timestamp": 2000 },
            { "value": "c", "timestamp": 3000 },
        ] });
        server.append(&path, "application/json", records.to_string()).await;
    }
    let reset = async |body: Value| server.send(Method::POST, "/v1/groups/g/reset", body).await;
    let moved = async |body: Value| json_of(reset(body).await).await["streams"].take();
    let move_of =
        |from: Value, to: u64, end: u64| json!({ "from": from, "to": to, "end_offset": end });
    let none = || Value::Null;

    let both = json!({ "s": { "0": move_of(none(), 0, 0), "1": move_of(none(), 2, 3) } });
    let mut body = json!({ "stream": "s", "to": 2 });
    assert_eq!(moved(body.clone()).await, both);
    assert_eq!(server.get("/v1/groups/g").await.status(), 404, "nothing was done");
    assert_eq!(reset(json!({ "to": "earliest" })).await.status(), 404);
    body["execute"] = true.into();
    let answer = json_of(reset(body).await).await;
    assert_eq!((&answer["executed"], &answer["streams"]), (&json!(true), &both));
    let of_t = json!({ "t": { "1": move_of(none(), 1, 3) } });
    let time = "1970-01-01T00:00:01.500Z";
    let body = json!({ "stream": "t", "partitions": [1], "to": time, "execute": true });
    assert_eq!(moved(body).await, of_t);
    // All that it has; beyond the end is the end.
    let all = json!({
        "s": { "0": move_of(json!(0), 0, 0), "1": move_of(json!(2), 3, 3) },
        "t": { "1": move_of(json!(1), 3, 3) },
    });
    for to in [json!("latest"), json!(99)] {
        assert_eq!(moved(json!({ "to": to })).await, all);
    }
    moved(json!({ "to": "latest", "execute": true })).await;
    let group = json_of(server.get("/v1/groups/g").await).await;
    let offsets = ["s", "t"].map(|stream| group["streams"][stream]["1"]["offset"].clone());
    assert_eq!(offsets, [3, 3]);

    for (body, status, part) in [
        (json!({ "stream": "s" }), 400, "missing field `to`"),
        (json!({ "to": "soon" }), 400, "earliest, latest"),
        (json!({ "to": -1 }), 400, "negative"),
        (json!({ "to": 1, "partitions": [0] }), 400, "partitions are of a stream"),
        (json!({ "to": 1, "stream": "s", "partitions": [] }), 400, "partitions is empty"),
        (json!({ "to": 1, "stream": "s", "partitions": [2] }), 404, "partition"),
        (json!({ "to": 1, "stream": "none" }), 404, "none"),
    ] {
        let (found, problem) = problem_of(reset(body.clone()).await).await;
        assert_eq!(found, status, "{body}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{detail}");
    }
    server.stop().await;
}

#[tokio::test]
async fn statements_are_refused_before_they_are_asked() {
    let server = Server::start(HttpOptions::default()).await;
    let post = |content_type: &'static str, accept: &'static str, body: String| {
        let request = server.request(Method::POST, "/v1/sql").header("accept", accept);
        request.header("content-type", content_type).body(body).send()
    };
    let json_type = "application/json";
    for (content_type, accept, body, status, part) in [
        (json_type, "*/*", "{".to_owned(), 400, "the body is not as it should be"),
        (json_type, "*/*", "{\"statement\":\"x\"}".to_owned(), 400, "unknown field"),
        (json_type, "*/*", "{\"sql\":\"x\",\"params\":[{}]}".to_owned(), 400, "parameter $1"),
        (json_type, "text/html", "{\"sql\":\"x\"}".to_owned(), 406, "text/html"),
        ("application/sql", "*/*", "select 1".to_owned(), 415, "application/json"),
        (json_type, "*/*", format!("{{\"sql\":\"{}\"}}", "x".repeat(2 << 20)), 413, "larger"),
    ] {
        let (found, problem) = problem_of(post(content_type, accept, body).await.unwrap()).await;
        assert_eq!(found, status, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }
    let answer = server.send(Method::POST, "/v1/sql?q=1", json!({ "sql": "select 1" })).await;
    assert_eq!(problem_of(answer).await.0, 400);
    assert_eq!(problem_of(server.get("/v1/sql").await).await.0, 405);

    // An engine that does not start is an answer too, in any form.
    for accept in ["application/x-ndjson", "text/event-stream"] {
        let body = json!({ "sql": "select 1" }).to_string();
        let (status, problem) = problem_of(post(json_type, accept, body).await.unwrap()).await;
        assert_eq!(status, 503, "{problem}");
        assert!(problem["sqlstate"].is_string(), "{problem}");
    }
    server.stop().await;
}

#[tokio::test]
async fn searches_are_refused_before_they_are_asked() {
    let server = Server::start(HttpOptions::default()).await;
    for (path, status, part) in [
        ("search?q=a%20(b", 400, "this '(' is not closed, at character 3"),
        ("search?query=a", 400, "'query' is not known"),
        ("search?limit=10001", 400, "'limit' is above 10000"),
        ("search?limit=-1", 400, "a number of hits"),
        ("search?from=yesterday", 400, "'from' is 'yesterday'"),
        ("search?total=yes", 400, "true or false"),
        ("histogram?buckets=0", 400, "'buckets' is 0, it may be 1 to 10000"),
        ("histogram?top=a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", 400, "more than 16 fields"),
        ("histogram?q=a:", 400, "must follow the ':' directly"),
    ] {
        let answer = server.get(&format!("/v1/streams/logs/{path}")).await;
        let (found, problem) = problem_of(answer).await;
        assert_eq!(found, status, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(part), "{problem}");
    }
    let (_, problem) = problem_of(server.get("/v1/streams/logs/search?q=(").await).await;
    assert_eq!(problem["type"], "urn:aquifer:problem:search-syntax");
    assert_eq!(problem["position"], 2);
    // An engine that does not start is an answer too.
    for path in ["search?q=a&highlight=true&total=true", "histogram?q=a&top=verb"] {
        let answer = server.get(&format!("/v1/streams/logs/{path}")).await;
        assert_eq!(problem_of(answer).await.0, 503, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn files_are_listed_in_pages_with_their_urls() {
    let server = Server::start(HttpOptions::default()).await;
    let config = json!({ "chunk_max_age_ms": 100 });
    let body = json!({ "name": "files", "partitions": 2, "config": config });
    assert_eq!(server.send(Method::POST, "/v1/streams", body).await.status(), 201);
    let path = "/v1/streams/files/chunks";
    let empty = json_of(server.get(path).await).await;
    assert_eq!((&empty["chunks"], &empty["next"]), (&json!([]), &json!(null)));
    for partition in [0, 1] {
        let records = format!("/v1/streams/files/records?partition={partition}");
        assert_eq!(server.append(&records, "text/plain", "a\nb\nc").await.status(), 200);
    }
    // Tiering goes by its own clock: the list is asked for until both are there.
    let whole = loop {
        let page = json_of(server.get(path).await).await;
        if page["chunks"].as_array().unwrap().len() == 2 {
            break page;
        }
        tokio::task::yield_now().await;
    };
    for (partition, chunk) in whole["chunks"].as_array().unwrap().iter().enumerate() {
        assert_eq!(chunk["partition"], partition);
        assert_eq!((&chunk["records"], &chunk["generation"]), (&json!(3), &json!(0)));
        let file = chunk["file"].as_str().unwrap();
        assert!(std::fs::metadata(file).unwrap().len() == chunk["bytes"].as_u64().unwrap());
        assert!(file.ends_with(chunk["path"].as_str().unwrap()), "{file}");
        assert!(chunk["url"].as_str().unwrap().starts_with("file:///"));
    }
    let first = json_of(server.get(&format!("{path}?limit=1")).await).await;
    assert_eq!((&first["chunks"][0], &first["next"]), (&whole["chunks"][0], &json!("0:3")));
    let next = json_of(server.get(&format!("{path}?limit=1&after=0:3")).await).await;
    assert_eq!((&next["chunks"][0], &next["next"]), (&whole["chunks"][1], &json!(null)));
    assert!(next.get("snippets").is_none() && first["snippets"]["duckdb"].is_string());
    // As if compaction had merged what the first page had with what follows.
    let (status, problem) = problem_of(server.get(&format!("{path}?after=0:1")).await).await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:aquifer:problem:conflict")));
    assert_eq!(problem_of(server.get(&format!("{path}?after=x")).await).await.0, 400);

    let answer = server.get(&format!("{path}?snippets=polars")).await;
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    let text = answer.text().await.unwrap();
    assert_eq!(text, whole["snippets"]["polars"].as_str().unwrap());
    assert!(text.contains(&format!("\"{}{path}\"", server.url)), "{text}");
    assert_eq!(problem_of(server.get(&format!("{path}?snippets=excel")).await).await.0, 400);
    let answer = server.get("/v1/streams/none/chunks?snippets=duckdb").await;
    assert_eq!(problem_of(answer).await.0, 404);
    server.stop().await;
}

#[tokio::test]
async fn the_catalog_of_tables_speaks_icebergs_protocol() {
    let server = Server::start(HttpOptions::default()).await;
    server.create("audit", 2).await;
    let json = async |path: &str, status: u16| {
        let answer = server.get(path).await;
        assert_eq!(answer.status(), status, "{path}");
        answer.json::<Value>().await.unwrap()
    };
    let config = json("/iceberg/v1/config?warehouse=any", 200).await;
    assert_eq!((&config["defaults"], &config["overrides"]), (&json!({}), &json!({})));
    let namespaces = json("/iceberg/v1/namespaces", 200).await;
    assert_eq!(namespaces, json!({ "namespaces": [["default"]] }));
    let below = json("/iceberg/v1/namespaces?parent=default", 200).await;
    assert_eq!(below, json!({ "namespaces": [] }));
    let namespace = json("/iceberg/v1/namespaces/default", 200).await;
    assert_eq!(namespace["namespace"], json!(["default"]));
    let tables = json("/iceberg/v1/namespaces/default/tables?pageSize=5", 200).await;
    let identifier = json!({ "namespace": ["default"], "name": "audit" });
    assert_eq!(tables, json!({ "identifiers": [identifier] }));
    for query in ["", "?snapshots=all", "?snapshots=refs"] {
        let path = format!("/iceberg/v1/namespaces/default/tables/audit{query}");
        let table = json(&path, 200).await;
        assert_eq!(table["metadata"]["format-version"], 2);
        assert!(table["metadata-location"].as_str().unwrap().starts_with("file:///"));
    }
    for (path, name) in [
        ("/iceberg/v1/namespaces/default/tables/nothing", "NoSuchTableException"),
        ("/iceberg/v1/namespaces/default/tables/no%20name", "NoSuchTableException"),
        ("/iceberg/v1/namespaces/other/tables/audit", "NoSuchNamespaceException"),
        ("/iceberg/v1/namespaces/a%1Fb", "NoSuchNamespaceException"),
        ("/iceberg/v1/namespaces?parent=other", "NoSuchNamespaceException"),
    ] {
        let problem = json(path, 404).await;
        assert_eq!(
            (&problem["error"]["type"], &problem["error"]["code"]),
            (&json!(name), &json!(404))
        );
        assert_eq!(problem["type"], "urn:aquifer:problem:not-found");
    }
    for (path, status) in [
        ("/iceberg/v1/namespaces/default", 204),
        ("/iceberg/v1/namespaces/other", 404),
        ("/iceberg/v1/namespaces/default/tables/audit", 204),
        ("/iceberg/v1/namespaces/default/tables/nothing", 404),
    ] {
        let answer = server.request(Method::HEAD, path).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    let written = server.send(Method::POST, "/iceberg/v1/namespaces", json!({})).await;
    assert_eq!(written.status(), 405);
    server.stop().await;
}

#[tokio::test]
async fn the_catalog_of_tables_asks_for_the_token() {
    let token = Some(Token::new("a-secret-token").unwrap());
    let server = Server::start(HttpOptions { token, ..HttpOptions::default() }).await;
    let refused = server.get("/iceberg/v1/config").await;
    assert_eq!(refused.status(), 401);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["error"]["type"], "NotAuthorizedException");
    let request = server.request(Method::GET, "/iceberg/v1/config").bearer_auth("a-secret-token");
    assert_eq!(request.send().await.unwrap().status(), 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_come_in_and_go_out() {
    let server = Server::start(HttpOptions::default()).await;
    server.create("s", 1).await;
    // An object in a request: once for each version, and what is wrong is named.
    let path = "/v1/streams/s/import?name=a.json&version=1";
    let text = "{\"n\":1}\n{\"n\":2}\n";
    let octets = "application/octet-stream";
    for (before, records) in [(false, 2), (true, 0)] {
        let answer = json_of(server.append(path, octets, text).await).await;
        assert_eq!((&answer["before"], &answer["records"]), (&json!(before), &json!(records)));
    }
    let bad = "/v1/streams/s/import?name=b.json&version=1";
    let (status, problem) = problem_of(server.append(bad, octets, "{}\nx\n").await).await;
    assert_eq!((status, &problem["row"]), (400, &json!(2)));
    let skipped = format!("{bad}&on_error=skip");
    let answer = json_of(server.append(&skipped, octets, "{}\nx\n").await).await;
    assert_eq!((&answer["records"], &answer["bad_rows"]), (&json!(1), &json!(1)));
    for (path, part) in [
        ("/v1/streams/s/import?name=a", "'version' is missing"),
        ("/v1/streams/s/import?name=a&version=1&format=xml", "xml"),
        ("/v1/streams/s/import?name=a&version=1&delimiter=ab", "one character"),
        ("/v1/streams/absent/import?name=a&version=1", "absent does not exist"),
    ] {
        let (_, problem) = problem_of(server.append(path, octets, text).await).await;
        assert!(problem["detail"].as_str().unwrap().contains(part), "{path}: {problem}");
    }
    // What the server opens itself has to be allowed.
    for kind in ["imports", "watches"] {
        let body = json!({ "stream": "s", "urls": ["file:///etc/passwd"] });
        let path = format!("/v1/{kind}");
        let (status, problem) = problem_of(server.send(Method::POST, &path, body).await).await;
        assert_eq!(status, 403, "{problem}");
    }
    let body = json!({ "stream": "s", "urls": [], "formt": "csv" });
    let (_, problem) = problem_of(server.send(Method::POST, "/v1/imports", body).await).await;
    assert!(problem["detail"].as_str().unwrap().contains("formt"), "{problem}");
    // Out of the stream and into it again.
    let folder = format!("file://{}/out", server._directory.path().display());
    let body = json!({ "stream": "s", "url": folder, "format": "records" });
    done(&server, "exports", body).await;
    let body = json!({ "stream": "s", "urls": [folder] });
    let job = done(&server, "imports", body).await;
    assert_eq!((&job["objects"], &job["records"]), (&json!(1), &json!(3)));
    let path = format!("/v1/imports/{}", job["id"].as_str().unwrap());
    let answer = json_of(server.get("/v1/imports").await).await;
    assert_eq!(answer["imports"].as_array().unwrap().len(), 1);
    let answer = server.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(answer.status(), 204);
    assert_eq!(problem_of(server.get(&path).await).await.0, 404);
    // A watch rests and goes on.
    let body = json!({ "stream": "s", "urls": [format!("{folder}/live/")] });
    let watch = json_of(server.send(Method::POST, "/v1/watches", body).await).await;
    let path = format!("/v1/watches/{}", watch["id"].as_str().unwrap());
    for (paused, state) in [(true, "paused"), (false, "running")] {
        let body = json!({ "paused": paused });
        let watch = json_of(server.send(Method::PATCH, &path, body).await).await;
        assert_eq!(watch["state"], state);
    }
    server.stop().await;
}

/// Begins a job and waits until it is done.
async fn done(server: &Server, kind: &str, body: Value) -> Value {
    let answer = server.send(Method::POST, &format!("/v1/{kind}"), body).await;
    assert_eq!(answer.status(), 201);
    let path = answer.headers()["location"].to_str().unwrap().to_owned();
    let waiting = async {
        loop {
            let job = json_of(server.get(&path).await).await;
            if job["state"] != "running" {
                assert_eq!(job["state"], "done", "{job}");
                return job;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it ends in time")
}
