//! Tails of streams, as server-sent events.

use std::time::Duration;

use aquifer_http::HttpOptions;
use aquifer_stream::{AppendRequest, PartitionAppend};
use aquifer_types::{
    BatchBuilder, Compression, PartitionIndex, StreamName, StreamPath, TenantName, Timestamp,
};
use futures::StreamExt as _;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::Server;

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
