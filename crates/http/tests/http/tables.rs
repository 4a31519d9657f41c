//! Files of streams, and the catalog of tables.

use aquifer_http::{HttpOptions, Token};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Server, json_of, problem_of};

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
        let properties = &table["metadata"]["properties"];
        assert_eq!(properties["read.parquet.vectorization.enabled"], "false");
        assert!(table["metadata-location"].as_str().unwrap().starts_with("file:///"));
    }
    for (path, name) in [
        ("/iceberg/v1/namespaces/default/tables/nothing", "NoSuchTableException"),
        ("/iceberg/v1/namespaces/default/tables/no%20name", "NoSuchTableException"),
        ("/iceberg/v1/namespaces/other/tables/audit", "NoSuchTableException"),
        ("/iceberg/v1/namespaces/default%1Faudit/tables/snapshots", "NoSuchTableException"),
        ("/iceberg/v1/namespaces/other/tables", "NoSuchNamespaceException"),
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
