//! Many keys in one request.

use serde_json::json;

use super::*;

#[tokio::test]
async fn what_was_put_in_bulk_is_got_and_deleted_in_bulk() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let pairs = json!([
        { "key": "a", "value": "{\"x\": 1}", "metadata": { "m": 1 }, "expiration_ttl": 3600 },
        { "key": "b/ü", "value": "AP8=", "base64": true },
    ]);
    let done = json!({ "successful_key_count": 2, "unsuccessful_keys": [] });
    let bulk = format!("{ns}/bulk");
    assert_eq!(server.ask("PUT", &bulk, serde_json::to_string_pretty(&pairs).expect("JSON")).await.result(), done);
    assert_eq!(&server.ask("GET", &format!("{ns}/values/b%2F%C3%BC"), "").await.body[..], [0, 255]);

    let get = async |body: Json| server.ask("POST", &format!("{ns}/bulk/get"), body.to_string()).await;
    let text = get(json!({ "keys": ["a", "none", "a"] })).await;
    assert_eq!(text.result(), json!({ "values": { "a": "{\"x\": 1}", "none": null } }));
    let typed = get(json!({ "keys": ["a"], "type": "json", "withMetadata": true })).await.result();
    assert_eq!(typed["values"]["a"]["value"], json!({ "x": 1 }));
    assert_eq!(typed["values"]["a"]["metadata"], json!({ "m": 1 }));
    assert!(typed["values"]["a"]["expiration"].is_u64());
    assert_eq!(get(json!({ "keys": ["b/ü"], "type": "json" })).await.code(), (400, 10001));
    assert_eq!(get(json!({ "keys": [] })).await.code(), (400, 10001));
    assert_eq!(get(json!({ "keys": vec!["k"; 101] })).await.code(), (400, 10001));
    assert_eq!(get(json!({ "keys": ["a"], "type": "stream" })).await.code(), (400, 10001));

    // wrangler deletes with a body on DELETE, the SDKs with POST.
    let one = json!({ "successful_key_count": 1, "unsuccessful_keys": [] });
    assert_eq!(server.ask("DELETE", &bulk, r#"["a"]"#).await.result(), one);
    assert_eq!(server.ask("POST", &format!("{bulk}/delete"), "[\"b/ü\"]").await.result(), one);
    assert_eq!(server.ask("GET", &format!("{ns}/keys"), "").await.result(), json!([]));
}

#[tokio::test]
async fn a_mistake_anywhere_stops_all_of_it() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let pairs = json!([{ "key": "a", "value": "1" }, { "key": "b", "value": "2", "expiration": 5 }]);
    let answer = server.ask("PUT", &format!("{ns}/bulk"), pairs.to_string()).await;
    let (status, code, message) = answer.error();
    assert_eq!((status, code), (400, 10033));
    assert!(message.starts_with("pair 1 (key \"b\"): Invalid expiration of 5."), "{message}");
    assert_eq!(server.ask("GET", &format!("{ns}/keys"), "").await.result(), json!([]));
    let many: Vec<_> = (0..10_001).map(|i| json!({ "key": i.to_string(), "value": "" })).collect();
    let answer = server.ask("PUT", &format!("{ns}/bulk"), Json::Array(many).to_string()).await;
    assert_eq!(answer.error(), (400, 10001, "The request has 10001 pairs, the limit is 10000.".into()));
}

#[tokio::test]
async fn ten_thousand_pairs_and_large_bodies_fit() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let value = "x".repeat(2000);
    let many: Vec<_> = (0..10_000).map(|i| json!({ "key": format!("{i:05}"), "value": value })).collect();
    let answer = server.ask("PUT", &format!("{ns}/bulk"), Json::Array(many).to_string()).await;
    assert_eq!(answer.result()["successful_key_count"], 10_000);
    let page = server.ask("GET", &format!("{ns}/keys"), "").await.result();
    assert_eq!(page.as_array().map(Vec::len), Some(1000));
}

#[tokio::test]
async fn a_bulk_get_has_a_total_size() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    for key in ["a", "b"] {
        server.ask("PUT", &format!("{ns}/values/{key}"), vec![b'x'; 14_000_000]).await.result();
    }
    let get = async |keys: &str| server.ask("POST", &format!("{ns}/bulk/get"), format!("{{\"keys\":{keys}}}")).await;
    assert_eq!(get(r#"["a"]"#).await.result()["values"]["a"].as_str().map(str::len), Some(14_000_000));
    assert_eq!(get(r#"["a","b"]"#).await.code(), (413, 10024));
}

#[tokio::test]
async fn a_bulk_body_over_the_limit_is_refused_before_it_is_sent() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    for (len, status) in [(108_000_001_u64, 413), (u64::MAX / 2, 413)] {
        let request = format!(
            "PUT /client/v4/accounts/{ACCOUNT}/storage/kv{ns}/bulk HTTP/1.1\r\nHost: x\r\n\
             Authorization: Bearer {TOKEN}\r\nExpect: 100-continue\r\nContent-Length: {len}\r\n\r\n"
        );
        let answer = server.raw(request.as_bytes()).await;
        assert_eq!(answer.status, status, "{len}: {}", answer.text());
        assert!(answer.text().contains("108000000"), "it names the limit: {}", answer.text());
    }
}

#[tokio::test]
async fn four_large_bodies_are_read_at_a_time_and_small_ones_never_wait() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let body = format!("[{}]", " ".repeat(1_100_000));
    let head = format!(
        "PUT /client/v4/accounts/{ACCOUNT}/storage/kv{ns}/bulk HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {TOKEN}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut holders = Vec::new();
    for _ in 0..super::super::bulk::LARGE_BODIES_MAX {
        let mut stream = server.connect().await;
        stream.write_all(format!("{head}[").as_bytes()).await.expect("sent");
        holders.push(stream);
    }
    // They are inside once a fifth one is left outside.
    let fifth = tokio::spawn({
        let (mut stream, request) = (server.connect().await, format!("{head}{body}"));
        async move {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            stream.write_all(request.as_bytes()).await.expect("sent");
            Answer::read(&mut stream).await
        }
    });
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert!(!fifth.is_finished(), "the fifth waits");
    let small = server.ask("PUT", &format!("{ns}/bulk"), "[]").await;
    assert!(small.status == 200 || small.status == 400, "{}", small.text());
    drop(holders.pop());
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), fifth)
        .await
        .expect("there is room")
        .expect("no panic");
    assert!(answer.status == 200 || answer.status == 400, "{}", answer.text());
}
