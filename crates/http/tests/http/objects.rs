//! Imports, watches and exports.

use std::time::Duration;

use aquifer_http::HttpOptions;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Server, json_of, problem_of};

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
