//! Users and their passwords.

use aquifer_http::HttpOptions;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Server, json_of};

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
