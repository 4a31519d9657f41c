//! Streams, and what is declared of their fields.

use aquifer_http::HttpOptions;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Server, json_of, problem_of};

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
