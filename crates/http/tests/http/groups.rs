//! Groups of consumers and their positions.

use aquifer_http::HttpOptions;
use aquifer_stream::{DocumentExpectation, DocumentKey, DocumentKind};
use aquifer_types::TenantName;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Server, json_of, problem_of};

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
