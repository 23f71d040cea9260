//! Who gets in, and what stands beside the store.

use super::*;

fn root(rest: &str) -> String {
    format!("/client/v4{rest}")
}

#[tokio::test]
async fn credentials_are_checked_before_anything_else() {
    let server = Server::start(false).await;
    let namespaces = root(&format!("/accounts/{ACCOUNT}/storage/kv/namespaces"));
    let other = root(&format!("/accounts/{}/storage/kv/namespaces", AccountId([1; 16])));
    let right = "Authorization: Bearer right-token-0123456789-0123456789-0123456789\r\n";
    let cases = [
        (&namespaces, "", (400, 9106)),
        (&namespaces, "Authorization: Basic x\r\n", (400, 6003)),
        (&namespaces, "X-Auth-Key: right-token-0123456789-0123456789-0123456789\r\n", (400, 6003)),
        (&namespaces, "Authorization: Bearer wrong\r\n", (403, 10000)),
        (&other, "Authorization: Bearer wrong\r\n", (403, 10000)),
        (&other, right, (403, 10000)),
        (&root("/accounts/me/storage/kv/namespaces"), right, (404, 7003)),
        (&"/starling/v1/status".into(), "", (400, 9106)),
        (&"/starling/v1/leave".into(), "Authorization: Bearer wrong\r\n", (403, 10000)),
    ];
    for (path, headers, code) in cases {
        assert_eq!(server.call("GET", path, headers, b"").await.code(), code, "{path} {headers}");
    }
    assert_eq!(server.call("GET", &namespaces, right, b"").await.result(), serde_json::json!([]));
    let malformed = server.call("GET", &namespaces, "Authorization: x\r\n", b"").await.json();
    assert_eq!(malformed["errors"][0]["error_chain"][0]["code"], 6111);
}

#[tokio::test]
async fn a_namespace_of_another_account_does_not_exist() {
    let server = Server::start(true).await;
    let at = |account: &str| root(&format!("/accounts/{account}/storage/kv/namespaces"));
    let mine = server.call("POST", &at("me"), "", br#"{"title":"t"}"#).await.result();
    let ns = mine["id"].as_str().expect("an id");
    let value = |account: &str| format!("{}/{ns}/values/k", at(account));
    server.call("PUT", &value("me"), "", b"v").await.result();
    assert_eq!(server.call("GET", &value("me"), "", b"").await.status, 200);
    for method in ["GET", "PUT", "DELETE"] {
        assert_eq!(server.call(method, &value("you"), "", b"").await.code(), (404, 10013), "{method}");
    }
}

#[tokio::test]
async fn a_dev_node_takes_anyone_but_foreign_pages() {
    let server = Server::start(true).await;
    let path = root("/accounts");
    assert_eq!(server.call("GET", &path, "Authorization: Basic what\r\n", b"").await.status, 200);
    let foreign = server.call("GET", &path, "Sec-Fetch-Site: cross-site\r\n", b"").await;
    assert_eq!(foreign.code(), (403, 10000));
}

#[tokio::test]
async fn clients_find_out_who_they_are() {
    let server = Server::start(false).await;
    let get = async |path: &str| {
        server
            .call("GET", &root(path), "Authorization: Bearer right-token-0123456789-0123456789-0123456789\r\n", b"")
            .await
    };
    let id = ACCOUNT.to_string();
    assert_eq!(get("/user/tokens/verify").await.result()["status"], "active");
    assert!(get("/user").await.result()["email"].is_string());
    assert_eq!(get("/accounts?page=1").await.result()[0]["id"], id);
    assert_eq!(get("/accounts?page=2").await.result(), serde_json::json!([]));
    assert_eq!(get(&format!("/accounts/{id}")).await.result()["name"], "Starling at n1");
    assert_eq!(get("/zones").await.result(), serde_json::json!([]));
    assert_eq!(get("/memberships?page=1").await.result()[0]["account"]["id"], id);
    assert_eq!(get(&format!("/accounts/{}", AccountId([1; 16]))).await.code(), (403, 10000));
}

#[tokio::test]
async fn what_is_not_served_says_so() {
    let server = Server::start(false).await;
    let answer = server.call("GET", &root("/zones/z/x"), "", b"").await;
    assert_eq!(answer.code(), (404, 7003));
    assert_eq!(answer.json()["errors"][1]["code"], 7000);
    let answer = server.ask("PATCH", "/namespaces", "{}").await;
    assert_eq!((answer.code(), answer.header("allow")), ((405, 7001), Some("GET, POST")));
}

#[tokio::test]
async fn operators_ask_without_an_envelope() {
    let server = Server::start(false).await;
    let right = "Authorization: Bearer right-token-0123456789-0123456789-0123456789\r\n";
    let call = async |method, path, body: &str| server.call(method, path, right, body.as_bytes()).await;
    assert_eq!(call("GET", "/starling/v1/status", "").await.status, 200);
    let invite = call("POST", "/starling/v1/invite", r#"{"ttl_secs":60}"#).await;
    assert!(invite.json()["token"].is_string());
    assert!(call("POST", "/starling/v1/invite", "").await.json()["token"].is_string());
    assert_eq!(call("POST", "/starling/v1/invite", r#"{"ttl_secs":0}"#).await.code(), (400, 10001));
    assert_eq!(call("GET", "/starling/v1/invite", "").await.code(), (405, 7001));
    let health = server.call("GET", "/healthz", "", b"").await;
    assert_eq!((health.status, &health.body[..]), (200, &b"ok"[..]));
}
