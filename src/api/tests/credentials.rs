//! Tokens with scopes, accounts that don't see one another, and the audit log.

use serde_json::json;

use super::*;

impl Server {
    /// `/starling/v1` with a token.
    async fn operate(&self, token: &str, method: &str, path: &str, body: Json) -> Answer {
        let headers = format!("Authorization: Bearer {token}\r\n");
        self.call(method, &format!("/starling/v1{path}"), &headers, body.to_string().as_bytes()).await
    }

    async fn token(&self, body: Json) -> (String, String) {
        let answer = self.operate(TOKEN, "POST", "/tokens", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json = answer.json();
        (json["token"].as_str().expect("a secret").into(), json["id"].as_str().expect("an id").into())
    }

    async fn with(&self, token: &str, account: &str, method: &str, path: &str, body: &str) -> Answer {
        let headers = format!("Authorization: Bearer {token}\r\n");
        let path = format!("/client/v4/accounts/{account}/storage/kv{path}");
        self.call(method, &path, &headers, body.as_bytes()).await
    }
}

#[tokio::test]
async fn a_token_does_what_its_scopes_say_and_nothing_else() {
    let server = Server::start(false).await;
    let (mine, other) = (server.namespace("mine").await, server.namespace("other").await);
    let id = mine.rsplit('/').next().expect("an id").to_owned();
    let cases = [
        // scopes, then what each of these may: GET, metadata, PUT, DELETE, keys, bulk get, bulk put, rename, create, operate
        (vec!["read"], [200, 200, 403, 403, 403, 200, 403, 403, 403, 403]),
        (vec!["write"], [403, 403, 200, 200, 403, 403, 200, 403, 403, 403]),
        (vec!["list"], [403, 403, 403, 403, 200, 403, 403, 403, 403, 403]),
        (vec!["admin"], [403, 403, 403, 403, 403, 403, 403, 200, 200, 403]),
        (vec!["deploy"], [403; 10]),
        (vec!["operate"], [403, 403, 403, 403, 403, 403, 403, 403, 403, 200]),
    ];
    let account = ACCOUNT.to_string();
    for (number, (scopes, expected)) in cases.into_iter().enumerate() {
        let (token, _) = server.token(json!({ "name": "t", "scopes": scopes })).await;
        server.ask("PUT", &format!("{mine}/values/k"), "v").await.result();
        let (title, rename) = (format!("{{\"title\":\"n{number}\"}}"), format!("{{\"title\":\"mine{number}\"}}"));
        let asked = [
            server.with(&token, &account, "GET", &format!("{mine}/values/k"), "").await.status,
            server.with(&token, &account, "GET", &format!("{mine}/metadata/k"), "").await.status,
            server.with(&token, &account, "PUT", &format!("{mine}/values/k2"), "v").await.status,
            server.with(&token, &account, "DELETE", &format!("{mine}/values/k2"), "").await.status,
            server.with(&token, &account, "GET", &format!("{mine}/keys"), "").await.status,
            server.with(&token, &account, "POST", &format!("{mine}/bulk/get"), r#"{"keys":["k"]}"#).await.status,
            server.with(&token, &account, "PUT", &format!("{mine}/bulk"), r#"[{"key":"b","value":"v"}]"#).await.status,
            server.with(&token, &account, "PUT", &mine, &rename).await.status,
            server.with(&token, &account, "POST", "/namespaces", &title).await.status,
            server.operate(&token, "GET", "/status", json!({})).await.status,
        ];
        assert_eq!(asked, expected, "{scopes:?}");
    }
    let (token, _) = server.token(json!({ "name": "t", "scopes": ["read", "list"], "namespaces": [id] })).await;
    let denied = server.with(&token, &account, "GET", &format!("{other}/values/k"), "").await;
    assert_eq!(denied.code(), (403, 9109));
    assert_eq!(server.with(&token, &account, "GET", &format!("{mine}/values/k"), "").await.status, 200);
    let listed = server.with(&token, &account, "GET", "/namespaces", "").await.result();
    assert_eq!(listed.as_array().expect("a list").len(), 1, "it sees its own namespace alone: {listed}");
}

#[tokio::test]
async fn tokens_are_listed_revoked_rolled_and_expire() {
    let server = Server::start(false).await;
    let ns = server.namespace("t").await;
    let account = ACCOUNT.to_string();
    let works = async |token: &str| server.with(token, &account, "GET", &format!("{ns}/keys"), "").await.status;
    let (secret, id) = server.token(json!({ "name": "ci", "scopes": ["list"], "ttl_secs": 3600 })).await;
    assert_eq!(works(&secret).await, 200);
    let listed = server.operate(TOKEN, "GET", "/tokens", json!({})).await;
    assert!(!listed.text().contains(&secret), "the secret is shown once");
    let listed = listed.json();
    let shown = listed.as_array().expect("a list").iter().find(|token| token["id"] == id.as_str()).expect("listed");
    assert_eq!((&shown["name"], &shown["scopes"]), (&json!("ci"), &json!(["list"])));
    assert!(shown["expires_secs"].as_u64() > shown["created_secs"].as_u64());
    let mut last_used = Json::Null;
    for _ in 0..100 {
        let listed = server.operate(TOKEN, "GET", "/tokens", json!({})).await.json();
        let shown = listed.as_array().expect("a list").iter().find(|token| token["id"] == id.as_str());
        last_used = shown.expect("listed")["last_used_secs"].clone();
        if last_used.is_u64() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(last_used.is_u64());

    let rolled = server.operate(TOKEN, "POST", &format!("/tokens/{id}/roll"), json!({ "grace_secs": 1 })).await.json();
    let second = rolled["token"].as_str().expect("a secret").to_owned();
    assert_eq!((works(&secret).await, works(&second).await), (200, 200), "both within the grace");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!((works(&secret).await, works(&second).await), (403, 200));
    let second_id = rolled["id"].as_str().expect("an id");
    assert_eq!(server.operate(TOKEN, "DELETE", &format!("/tokens/{second_id}"), json!({})).await.status, 200);
    assert_eq!(works(&second).await, 403);
    assert_eq!(server.operate(TOKEN, "DELETE", &format!("/tokens/{second_id}"), json!({})).await.status, 404);
    for bad in [
        json!({ "name": "t", "scopes": [] }),
        json!({ "name": "t", "scopes": ["root"] }),
        json!({ "name": "", "scopes": ["read"] }),
        json!({ "name": "t", "scopes": ["read"], "ttl_secs": 0 }),
        json!({ "name": "t", "scopes": ["read"], "namespaces": ["x"] }),
        json!({ "nmae": "t" }),
    ] {
        assert_eq!(server.operate(TOKEN, "POST", "/tokens", bad.clone()).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn accounts_do_not_see_one_another_and_nobody_hands_out_more_than_they_have() {
    let server = Server::start(false).await;
    let ns = server.namespace("t").await;
    let account = server.operate(TOKEN, "POST", "/accounts", json!({ "name": "other" })).await.json();
    let other = account["id"].as_str().expect("an id").to_owned();
    let boss = json!({ "name": "boss", "scopes": ["admin", "read", "write", "list"], "account": other });
    let (boss, boss_id) = server.token(boss).await;
    assert_eq!(server.with(&boss, &other, "GET", "/namespaces", "").await.result(), json!([]));
    assert_eq!(server.with(&boss, &other, "GET", &format!("{ns}/keys"), "").await.code(), (404, 10013));
    assert_eq!(server.with(&boss, &ACCOUNT.to_string(), "GET", "/namespaces", "").await.code(), (403, 10000));
    assert_eq!(server.with(TOKEN, &other, "GET", "/namespaces", "").await.code(), (403, 10000), "not even its maker");
    let theirs = server.operate(&boss, "GET", "/tokens", json!({})).await.json();
    assert_eq!(theirs.as_array().expect("a list").len(), 1);
    let path = format!("/tokens?account={ACCOUNT}");
    assert_eq!(server.operate(&boss, "GET", &path, json!({})).await.code(), (403, 10000));
    for (method, path) in [("GET", "/accounts"), ("GET", "/audit"), ("GET", "/keys"), ("GET", "/status")] {
        assert_eq!(server.operate(&boss, method, path, json!({})).await.code(), (403, 9109), "{path}");
    }
    let more = json!({ "name": "t", "scopes": ["operate"] });
    assert_eq!(server.operate(&boss, "POST", "/tokens", more).await.code(), (403, 9109));
    let less = json!({ "name": "t", "scopes": ["read"] });
    assert_eq!(server.operate(&boss, "POST", "/tokens", less).await.status, 200);
    let away = json!({ "name": "t", "scopes": ["operate"], "account": other });
    assert_eq!(server.operate(TOKEN, "POST", "/tokens", away).await.code(), (403, 9109));
    assert_eq!(server.operate(TOKEN, "GET", "/accounts", json!({})).await.json()[1]["name"], "other");
    let path = format!("/tokens/{boss_id}?account={other}");
    assert_eq!(server.operate(TOKEN, "DELETE", &path, json!({})).await.status, 200);
    assert_eq!(server.with(&boss, &other, "GET", "/namespaces", "").await.code(), (403, 10000));
}

#[tokio::test]
async fn failed_logins_are_counted_and_limited_and_who_knows_a_token_gets_in() {
    let server = Server::start(false).await;
    let mut statuses = Vec::new();
    for _ in 0..30 {
        statuses.push(server.operate("wrong", "GET", "/status", json!({})).await.status);
    }
    assert_eq!(statuses[0], 403);
    assert_eq!(statuses[29], 429, "{statuses:?}");
    let status = server.operate(TOKEN, "GET", "/status", json!({})).await.json();
    assert_eq!(status["counters"]["failed_logins"], 30);
    assert!(status["counters"]["limited_logins"].as_u64() >= Some(5), "{}", status["counters"]);
}

#[tokio::test]
async fn what_administrators_do_is_written_down() {
    let server = Server::start(false).await;
    let ns = server.namespace("t").await;
    let (_, id) = server.token(json!({ "name": "ci", "scopes": ["list"] })).await;
    server.operate(TOKEN, "DELETE", &format!("/tokens/{id}"), json!({})).await;
    server.operate(TOKEN, "POST", "/keys/rotate", json!({ "what": "system" })).await;
    server.operate(TOKEN, "POST", "/keys/rotate", json!({ "what": "cluster" })).await;
    server.ask("DELETE", &ns, "").await.result();
    let acts = server.operate(TOKEN, "GET", "/audit", json!({})).await.json();
    let what: Vec<&str> = acts.as_array().expect("a list").iter().filter_map(|act| act["what"].as_str()).collect();
    let expected =
        ["namespace.delete", "keys.rotate", "keys.rotate", "token.revoke", "token.create", "namespace.create"];
    assert_eq!(what, expected, "newest first");
    let act = &acts[3];
    assert!(act["who"].as_str().is_some_and(|who| who.contains("test")), "{act}");
    assert!(act["target"].as_str().is_some_and(|target| target.contains(&id)), "{act}");
    assert_eq!((&act["from"], &act["node"]), (&json!("127.0.0.1"), &json!("n1")));
    assert!(act["at_ms"].as_u64() > Some(1_600_000_000_000));
    assert_eq!(
        server.operate(TOKEN, "GET", "/audit?limit=2", json!({})).await.json().as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(server.operate(TOKEN, "GET", "/audit?limit=0", json!({})).await.status, 400);
}

#[tokio::test]
async fn keys_are_shown_by_their_ids_and_a_lone_node_verifies_with_nobody() {
    let server = Server::start(false).await;
    let before = server.operate(TOKEN, "GET", "/keys", json!({})).await.json();
    let rotated = server.operate(TOKEN, "POST", "/keys/rotate", json!({ "what": "cluster" })).await.json();
    let after = server.operate(TOKEN, "GET", "/keys", json!({})).await.json();
    assert_ne!(before["cluster_key"], after["cluster_key"], "{rotated}");
    let new = &rotated["cluster_key"];
    assert_eq!((&after["cluster_key"], &after["sealed_with"]), (new, new), "{rotated}");
    assert_eq!(server.operate(TOKEN, "POST", "/keys/rotate", json!({ "what": "x" })).await.status, 400);
    // What it holds is checked all the same.
    let verified = server.operate(TOKEN, "POST", "/verify", json!({})).await.json();
    assert_eq!((&verified["peer"], &verified["checked"]["damaged"]), (&Json::Null, &json!(0)), "{verified}");
    assert!(verified["checked"]["seals"].as_u64() > Some(0), "{verified}");
    assert_eq!(server.operate(TOKEN, "POST", "/verify", json!({ "peer": "nobody" })).await.status, 409);
}
