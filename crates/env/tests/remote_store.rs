//! What an S3 server's answers, and its silence, mean to the caller.

use aquifer_env::{StoreError, StoreErrorKind, TierStore, open_store};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// How the server treats a request.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// A status line, and a body's error code.
    Status(&'static str, &'static str),
    /// Reads, and never answers.
    Never,
    /// Hangs up.
    HangUp,
}

/// A store on a server that treats every request alike; it lives as long as the
/// runtime.
async fn store(answer: Answer) -> TierStore {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4_096];
                let _ = connection.read(&mut buffer).await;
                match answer {
                    Answer::HangUp => {}
                    Answer::Never => std::future::pending().await,
                    Answer::Status(status, code) => {
                        let body = format!("<Error><Code>{code}</Code></Error>");
                        let len = body.len();
                        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
                        let answer = format!("{head}content-length: {len}\r\n\r\n{body}");
                        let _ = connection.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    open(&format!("http://{address}"))
}

fn open(endpoint: &str) -> TierStore {
    let options = [
        ("endpoint", endpoint),
        ("region", "us-east-1"),
        ("access_key_id", "id"),
        ("secret_access_key", "secret"),
    ];
    let options = options.map(|(key, value)| (key.to_owned(), value.to_owned()));
    open_store("s3://bucket/prefix", &options).expect("a store")
}

/// Every kind of call, and what became of it.
async fn calls(store: &TierStore) -> Vec<(&'static str, Result<(), StoreError>)> {
    let bytes = Bytes::from_static(b"content");
    vec![
        ("put_new", store.put_new("a", bytes.clone()).await),
        ("put", store.put("a", bytes).await),
        ("get", store.get("a").await.map(drop)),
        ("get_range", store.get_range("a", 0..1).await.map(drop)),
        ("head", store.head("a").await.map(drop)),
        ("delete", store.delete("a").await),
        ("list", store.list("").await.map(drop)),
    ]
}

async fn check(answer: Answer, kind: StoreErrorKind) {
    let store = store(answer).await;
    for (call, result) in calls(&store).await {
        // A head has no body that could say more than its status.
        if let (Answer::Status(_, code), "head") = (answer, call)
            && !code.is_empty()
        {
            continue;
        }
        let error = result.expect_err(call);
        assert_eq!(error.kind, kind, "{call}, {answer:?}: {error}");
        assert!(!error.path.is_empty(), "{call}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn denials_are_for_a_person() {
    check(Answer::Status("403 Forbidden", ""), StoreErrorKind::Denied).await;
    check(Answer::Status("401 Unauthorized", ""), StoreErrorKind::Denied).await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_server_is_unavailable() {
    check(Answer::Status("503 Service Unavailable", ""), StoreErrorKind::Unavailable).await;
    check(Answer::Status("500 Internal Server Error", ""), StoreErrorKind::Unavailable).await;
    check(Answer::Status("429 Too Many Requests", ""), StoreErrorKind::Unavailable).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_bucket_is_no_missing_object() {
    check(Answer::Status("404 Not Found", "NoSuchBucket"), StoreErrorKind::Unavailable).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_server_is_full() {
    check(Answer::Status("507 Insufficient Storage", "XMinioStorageFull"), StoreErrorKind::Full)
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    check(Answer::Never, StoreErrorKind::Unavailable).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_up_or_is_gone_is_unavailable() {
    check(Answer::HangUp, StoreErrorKind::Unavailable).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    drop(listener);
    for (call, result) in calls(&open(&format!("http://{address}"))).await {
        let error = result.expect_err(call);
        assert_eq!(error.kind, StoreErrorKind::Unavailable, "{call}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_condition_means_that_the_object_exists() {
    let store = store(Answer::Status("412 Precondition Failed", "PreconditionFailed")).await;
    let put = store.put_new("a", Bytes::new()).await.expect_err("it exists");
    assert_eq!(put.kind, StoreErrorKind::AlreadyExists);
    assert!(!put.is_definite(), "an earlier try may have been ours");
}

#[tokio::test(start_paused = true)]
async fn two_creates_at_once_are_tried_again() {
    let store = store(Answer::Status("409 Conflict", "ConditionalRequestConflict")).await;
    let put = store.put_new("a", Bytes::new()).await.expect_err("a race");
    assert_eq!(put.kind, StoreErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_error_shows_no_secrets() {
    let store = store(Answer::Status("403 Forbidden", "")).await;
    for (call, result) in calls(&store).await {
        let error = result.expect_err(call);
        let text = format!("{error} {error:?} {store} {store:?}");
        assert!(!text.contains("secret"), "{text}");
    }
}
