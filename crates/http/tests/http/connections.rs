//! Who may connect, and how connections end.

use std::time::Duration;

use aquifer_http::{HttpOptions, Token};
use futures::StreamExt as _;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Server, problem_of};

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
