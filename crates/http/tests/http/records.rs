//! Records that are sent and read.

use aquifer_http::HttpOptions;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{Server, json_of, problem_of};

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
