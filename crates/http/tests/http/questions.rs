//! Statements and searches before they reach an engine.

use aquifer_http::HttpOptions;
use reqwest::Method;
use serde_json::json;

use super::{Server, problem_of};

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
