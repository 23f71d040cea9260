//! Workers over HTTP: the form of 2018 and today's, who may do what, and what is said when something is wrong.

use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::{Message, Role};

use super::*;
use crate::worker::ScriptId;

const JS: &str = "application/javascript";
const MODULE: &str = "application/javascript+module";
const CODE: &str = "addEventListener('fetch', event => event.respondWith(new Response(LOGCARD)))";

/// A form of parts: name, content type, content.
fn form(parts: &[(&str, &str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, kind, content) in parts {
        let head = format!(
            "--frontier\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
             Content-Type: {kind}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--frontier--\r\n");
    ("Content-Type: multipart/form-data; boundary=frontier\r\n".into(), body)
}

impl Server {
    async fn workers(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.workers_as(TOKEN, method, path, headers, body).await
    }

    async fn workers_as(&self, token: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let headers = format!("Authorization: Bearer {token}\r\n{headers}");
        self.call(method, &format!("/client/v4/accounts/{ACCOUNT}/workers{path}"), &headers, body).await
    }

    async fn workers_json(&self, method: &str, path: &str, body: Json) -> Answer {
        self.workers(method, path, "", body.to_string().as_bytes()).await
    }

    async fn deploy(&self, name: &str, metadata: Json, parts: &[(&str, &str, &[u8])]) -> Answer {
        let metadata = metadata.to_string();
        let (headers, body) = form(&[&[("metadata", "application/json", metadata.as_bytes())], parts].concat());
        self.workers("PUT", &format!("/scripts/{name}"), &headers, &body).await
    }
}

#[tokio::test]
async fn the_form_of_2018_is_taken_and_answered_as_it_was() {
    let server = Server::start(false).await;
    let namespace = server.namespace("cards").await.replace("/namespaces/", "");
    let metadata = json!({
        "body_part": "script",
        "bindings": [{ "name": "LOGCARD", "type": "kv_namespace", "namespace_id": namespace }],
    });
    let metadata = metadata.to_string();
    // As curl does it: the type of the file is a guess, and the order is whatever it is.
    let parts = [
        ("script", "application/octet-stream", CODE.as_bytes()),
        ("metadata", "application/octet-stream", metadata.as_bytes()),
    ];
    let (headers, body) = form(&parts);
    let shown = server.workers("PUT", "/scripts/babbage", &headers, &body).await.result();
    assert_eq!((&shown["id"], &shown["size"]), (&"babbage".into(), &CODE.len().into()));
    assert!(shown["etag"].as_str().is_some_and(|etag| etag.len() == 64), "{shown}");
    assert!(shown["modified_on"].as_str().is_some_and(|moment| moment.ends_with('Z')), "{shown}");
    let code = server.workers("GET", "/scripts/babbage", "", b"").await;
    assert_eq!((code.text().as_str(), code.header("content-type")), (CODE, Some(JS)));
    let settings = server.workers("GET", "/scripts/babbage/settings", "", b"").await.result();
    let bound = json!([{ "name": "LOGCARD", "type": "kv_namespace", "namespace_id": namespace }]);
    assert_eq!(settings["bindings"], bound);
    // The code alone, without a form.
    let plain = format!("Content-Type: {JS}\r\n");
    server.workers("PUT", "/scripts/plain", &plain, CODE.as_bytes()).await.result();
    assert_eq!(server.workers("GET", "/scripts/plain", "", b"").await.text(), CODE);
    let listed = server.workers("GET", "/scripts", "", b"").await.result();
    let names: Vec<_> = listed.as_array().expect("a list").iter().map(|script| &script["id"]).collect();
    assert_eq!(names, ["babbage", "plain"]);
    server.workers("DELETE", "/scripts/plain", "", b"").await.result();
    assert_eq!(server.workers("GET", "/scripts/plain", "", b"").await.error().1, 10007);
}

#[tokio::test]
async fn modules_of_every_kind_come_back_as_they_were() {
    let server = Server::start(false).await;
    let parts: [(&str, &str, &[u8]); 7] = [
        ("text.txt", "text/plain", b"some text"),
        ("index.js", MODULE, b"import './lib/a.js'; export default {}"),
        ("lib/a.js", MODULE, b"export const a = 1"),
        ("data.bin", "application/octet-stream", &[0, 1, 2, 255]),
        ("add.wasm", "application/wasm", b"\0asm"),
        ("data.json", "application/json", b"{}"),
        ("index.js.map", "application/source-map", b"{\"mappings\":\"\"}"),
    ];
    let metadata = json!({ "main_module": "index.js", "compatibility_date": "2026-07-01" });
    let shown = server.deploy("mods", metadata, &parts).await.result();
    let version = shown["deployment_id"].as_str().expect("a version").to_owned();
    let live = server.node().kv().clone();
    let live = crate::worker::Workers::new(live).live().await.expect("reads");
    let program = &live.values().next().expect("one").versions[0].0;
    let kinds: Vec<_> = program.modules.iter().map(|module| (&*module.name, format!("{:?}", module.kind))).collect();
    let expected = [
        ("index.js", "JavaScript"),
        ("text.txt", "Text"),
        ("lib/a.js", "JavaScript"),
        ("data.bin", "Data"),
        ("add.wasm", "Wasm"),
        ("data.json", "Json"),
    ];
    assert_eq!(kinds, expected.map(|(name, kind)| (name, kind.to_owned())), "the main one first, no source map");
    assert_eq!(program.version.replace('-', ""), version);
    let code = server.workers("GET", "/scripts/mods/content/v2", "", b"").await;
    assert!(code.header("content-type").is_some_and(|kind| kind.starts_with("multipart/form-data; boundary=")));
    assert_eq!(code.header("cf-entrypoint"), Some("index.js"));
    assert!(code.body.windows(4).any(|bytes| bytes == [0, 1, 2, 255]) && !code.text().contains("mappings"));
    // Other code, the rest as it was.
    let (headers, body) =
        form(&[("metadata", "application/json", br#"{"main_module":"new.js"}"#), ("new.js", MODULE, b"1")]);
    server.workers("PUT", "/scripts/mods/content", &headers, &body).await.result();
    let settings = server.workers("GET", "/scripts/mods/settings", "", b"").await.result();
    assert_eq!(settings["compatibility_date"], "2026-07-01");
}

#[tokio::test]
async fn globals_of_a_service_worker_are_named_by_its_bindings() {
    let server = Server::start(false).await;
    let metadata = json!({ "body_part": "script", "bindings": [
        { "type": "wasm_module", "name": "ADD", "part": "add" },
        { "type": "text_blob", "name": "TEXT", "part": "words" },
    ] });
    let parts: [(&str, &str, &[u8]); 3] =
        [("script", JS, b"1"), ("add", "application/wasm", b"\0asm"), ("words", "text/plain", b"hello")];
    server.deploy("old", metadata, &parts).await.result();
    let workers = crate::worker::Workers::new(server.node().kv().clone());
    let program = workers.live().await.expect("reads").values().next().expect("one").versions[0].0.clone();
    let names: Vec<_> = program.modules.iter().map(|module| &*module.name).collect();
    assert_eq!(names, ["script", "ADD", "TEXT"]);
    let metadata = json!({ "body_part": "script", "bindings": [{ "type": "wasm_module", "name": "A", "part": "b" }] });
    assert!(server.deploy("old", metadata, &[("script", JS, b"1")]).await.error().2.contains("no part \"b\""));
}

#[tokio::test]
async fn what_is_wrong_with_an_upload_is_said() {
    let server = Server::start(false).await;
    let index: [(&str, &str, &[u8]); 1] = [("index.js", MODULE, b"1")];
    let bound = |binding: Json| json!({ "main_module": "index.js", "bindings": [binding] });
    let cases = [
        (json!({ "main_module": "other.js" }), 10021, "No such module"),
        (json!({}), 10021, "no \"main_module\""),
        (json!([]), 10021, "no JSON object"),
        (json!({ "main_module": "index.js", "bindings": 1 }), 10021, "no list"),
        (bound(json!({ "type": "kv_namespace", "name": "KV" })), 10021, "no \"namespace_id\""),
        (bound(json!({ "type": "kv_namespace", "name": "KV", "namespace_id": "x" })), 10041, "'x' not found"),
        (
            bound(json!({ "type": "kv_namespace", "name": "KV", "namespace_id": "0".repeat(31) + "1" })),
            10041,
            "not found",
        ),
        (
            bound(json!({ "type": "d1", "name": "DB", "id": "x" })),
            10021,
            "\"d1\" is not supported here; there are kv_n",
        ),
        (bound(json!({ "type": "plain_text", "name": "A" })), 10021, "no \"text\""),
        (bound(json!({ "type": "plain_text", "name": "A", "text": "x".repeat(5121) })), 10054, "5121 bytes"),
        (bound(json!({ "type": "inherit", "name": "A" })), 10021, "nothing to inherit from the latest"),
        (json!({ "main_module": "index.js", "compatibility_date": "soon" }), 10021, "YYYY-MM-DD"),
        (json!({ "main_module": "index.js", "migrations": { "new_tag": "v1" } }), 10021, "durable objects"),
        (json!({ "main_module": "index.js", "assets": { "jwt": "a.b.c" } }), 10305, "deploy again"),
    ];
    for (metadata, code, words) in cases {
        let (status, found, message) = server.deploy("wrong", metadata.clone(), &index).await.error();
        let words = if words.starts_with("nothing to") { "to inherit" } else { words };
        assert!(found == code && message.contains(words), "{metadata}: {status} {found} {message}");
    }
    assert_eq!(server.deploy("Wrong", json!({ "main_module": "index.js" }), &index).await.error().1, 10016);
    let odd: [(&str, &str, &[u8]); 2] = [("index.js", MODULE, b"1"), ("a.py", "text/x-python", b"1")];
    assert!(
        server.deploy("wrong", json!({ "main_module": "index.js" }), &odd).await.error().2.contains("text/x-python")
    );
    let (headers, body) = form(&index);
    assert!(server.workers("PUT", "/scripts/wrong", &headers, &body).await.error().2.contains("\"metadata\""));
    let (headers, body) = form(&[("metadata", "application/json", b"{"), ("index.js", MODULE, b"1")]);
    assert!(server.workers("PUT", "/scripts/wrong", &headers, &body).await.error().2.contains("could not parse"));
    let html = server.workers("PUT", "/scripts/wrong", "Content-Type: text/html\r\n", b"<p>").await.error();
    assert!(html.2.contains("text/html"), "{html:?}");
    let large = vec![b' '; 26 * 1024 * 1024];
    let answer = server.deploy("wrong", json!({ "main_module": "index.js" }), &[("index.js", MODULE, &large)]).await;
    assert_eq!((answer.error().0, answer.error().1), (413, 10027));
    let stated = format!("Content-Type: {JS}\r\nContent-Length: {}\r\n", 65 * 1024 * 1024);
    let head = format!(
        "PUT /client/v4/accounts/{ACCOUNT}/workers/scripts/wrong HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {TOKEN}\r\n{stated}\r\n"
    );
    assert_eq!(server.raw(head.as_bytes()).await.status, 413);
    assert_eq!(server.workers("GET", "/scripts", "", b"").await.result(), json!([]), "nothing came of any");
}

#[tokio::test]
async fn versions_are_deployed_in_shares_and_rolled_back() {
    let server = Server::start(false).await;
    let metadata = json!({ "main_module": "a.js" });
    server.deploy("v", metadata.clone(), &[("a.js", MODULE, b"1")]).await.result();
    let text = metadata.to_string();
    let (headers, body) = form(&[("metadata", "application/json", text.as_bytes()), ("a.js", MODULE, b"2")]);
    let second = server.workers("POST", "/scripts/v/versions", &headers, &body).await.result();
    let second = second["id"].as_str().expect("an id").to_owned();
    let listed = server.workers("GET", "/scripts/v/versions", "", b"").await.result();
    let first = listed["items"][1]["id"].as_str().expect("an id").to_owned();
    assert_eq!((&listed["items"][0]["id"], listed["items"][0]["number"].as_u64()), (&second.as_str().into(), Some(2)));
    let shares = |shares: &[(&str, f64)]| {
        let shares = shares.iter().map(|(id, share)| json!({ "version_id": id, "percentage": share }));
        json!({ "strategy": "percentage", "versions": shares.collect::<Vec<_>>() })
    };
    let deploy = async |wanted: Json| server.workers_json("POST", "/scripts/v/deployments", wanted).await;
    deploy(shares(&[(&first, 75.0), (&second, 25.0)])).await.result();
    let listed = server.workers("GET", "/scripts/v/deployments", "", b"").await.result();
    assert_eq!(listed["deployments"][0]["versions"][1]["percentage"], 25);
    let id = listed["deployments"][0]["id"].as_str().expect("an id");
    assert_eq!(server.workers("GET", &format!("/scripts/v/deployments/{id}"), "", b"").await.result()["id"], id);
    assert_eq!(deploy(shares(&[(&first, 75.0)])).await.error().1, 10213);
    let nobody = "00000000-0000-4000-8000-000000000000";
    assert_eq!(deploy(shares(&[(nobody, 100.0)])).await.error().1, 100146);
    deploy(shares(&[(&first, 100.0)])).await.result();
    // What would deploy the newest version on the way is refused while that is not what runs.
    let secret = json!({ "name": "A", "text": "x", "type": "secret_text" });
    assert_eq!(server.workers_json("PUT", "/scripts/v/secrets", secret.clone()).await.error().1, 10215);
    deploy(shares(&[(&second, 100.0)])).await.result();
    server.workers_json("PUT", "/scripts/v/secrets", secret).await.result();
}

#[tokio::test]
async fn secrets_go_in_and_never_come_out() {
    let server = Server::start(false).await;
    server.deploy("s", json!({ "main_module": "a.js" }), &[("a.js", MODULE, b"1")]).await.result();
    let put = json!({ "name": "A B", "text": "correct horse", "type": "secret_text" });
    let shown = server.workers_json("PUT", "/scripts/s/secrets", put).await.result();
    assert_eq!(shown, json!({ "name": "A B", "type": "secret_text" }));
    let bulk = json!({ "secrets": { "C": { "name": "C", "text": "staple", "type": "secret_text" } } });
    server.workers_json("PATCH", "/scripts/s/secrets-bulk", bulk).await.result();
    assert_eq!(server.workers("GET", "/scripts/s/secrets/A%20B", "", b"").await.result()["name"], "A B");
    for path in ["/scripts/s", "/scripts/s/settings", "/scripts/s/secrets", "/scripts/s/versions", "/services/s"] {
        let shown = server.workers("GET", path, "", b"").await;
        assert!(shown.status == 200 && !shown.text().contains("correct") && !shown.text().contains("staple"), "{path}");
    }
    server.workers("DELETE", "/scripts/s/secrets/A%20B", "", b"").await.result();
    assert_eq!(server.workers("DELETE", "/scripts/s/secrets/A%20B", "", b"").await.error().1, 10056);
    let listed = server.workers("GET", "/scripts/s/secrets", "", b"").await.result();
    assert_eq!(listed, json!([{ "name": "C", "type": "secret_text" }]));
    let kept = json!({ "main_module": "a.js", "keep_bindings": ["secret_text"],
        "bindings": [{ "type": "plain_text", "name": "D", "text": "d" }] });
    server.deploy("s", kept, &[("a.js", MODULE, b"2")]).await.result();
    let taken = json!({ "name": "D", "text": "x", "type": "secret_text" });
    assert_eq!(server.workers_json("PUT", "/scripts/s/secrets", taken).await.error().1, 10053);
    let acts = server.call("GET", "/starling/v1/audit", &format!("Authorization: Bearer {TOKEN}\r\n"), b"").await;
    assert!(acts.text().contains("worker.secret") && acts.text().contains("+A B") && acts.text().contains("-A B"));
    assert!(acts.text().contains("worker.deploy") && !acts.text().contains("horse"));
}

#[tokio::test]
async fn who_may_deploy_may_see_and_who_may_read_may_see_only() {
    let server = Server::start(false).await;
    server.deploy("s", json!({ "main_module": "a.js" }), &[("a.js", MODULE, b"1")]).await.result();
    let token = async |scopes: &[&str]| {
        let wanted = json!({ "name": "t", "scopes": scopes }).to_string();
        let headers = format!("Authorization: Bearer {TOKEN}\r\n");
        let made = server.call("POST", "/starling/v1/tokens", &headers, wanted.as_bytes()).await;
        made.json()["token"].as_str().expect("a secret").to_owned()
    };
    let enabled = json!({ "enabled": true }).to_string();
    for (scopes, see, change) in
        [(&["deploy"][..], 200, 200), (&["read"], 200, 403), (&["write", "admin", "list"], 403, 403)]
    {
        let token = token(scopes).await;
        assert_eq!(server.workers_as(&token, "GET", "/scripts/s", "", b"").await.status, see, "{scopes:?}");
        let changed = server.workers_as(&token, "POST", "/scripts/s/subdomain", "", enabled.as_bytes()).await;
        assert_eq!(changed.status, change, "{scopes:?}");
        let tail = server.workers_as(&token, "POST", "/scripts/s/tails", "", b"{}").await;
        assert_eq!(tail.status, change, "{scopes:?}");
        let zone = server
            .call(
                "POST",
                "/client/v4/zones/00000000000000000000000000000000/workers/routes",
                &format!("Authorization: Bearer {token}\r\n"),
                br#"{"pattern":"a.example/*","script":"s"}"#,
            )
            .await;
        assert_eq!(zone.status, change, "{scopes:?}");
    }
    let elsewhere = format!("/client/v4/accounts/{}/workers/scripts", "ad".repeat(16));
    let answer = server.call("GET", &elsewhere, &format!("Authorization: Bearer {TOKEN}\r\n"), b"").await;
    assert_eq!(answer.status, 403);
    assert_eq!(server.workers_as("", "GET", "/scripts", "", b"").await.status, 400);
}

#[tokio::test]
async fn routes_are_found_in_the_zone_that_a_client_makes_up() {
    let server = Server::start(false).await;
    let headers = format!("Authorization: Bearer {TOKEN}\r\n");
    let call = async |method: &str, path: &str, body: Json| {
        server.call(method, &format!("/client/v4{path}"), &headers, body.to_string().as_bytes()).await
    };
    server.deploy("s", json!({ "main_module": "a.js" }), &[("a.js", MODULE, b"1")]).await.result();
    let found = call("GET", "/zones?name=example.com", json!(null)).await.result();
    let zone = found[0]["id"].as_str().expect("an id").to_owned();
    let at = format!("/zones/{zone}/workers/routes");
    let made = call("POST", &at, json!({ "pattern": "api.example.com/*", "script": "s" })).await.result();
    let id = made["id"].as_str().expect("an id").to_owned();
    assert_eq!(call("GET", &at, json!(null)).await.result()[0]["pattern"], "api.example.com/*");
    assert_eq!(call("GET", &format!("/zones/{zone}"), json!(null)).await.result()["name"], "example.com");
    assert_eq!(call("GET", "/zones", json!(null)).await.result()[0]["name"], "example.com");
    let changed = json!({ "pattern": "api.example.com/v1/*", "script": null });
    let changed = call("PUT", &format!("{at}/{id}"), changed).await.result();
    assert_eq!(changed["script"], Json::Null);
    let listed = call("GET", &at, json!(null)).await.result();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(call("POST", &at, json!({ "pattern": "a*b.example/*" })).await.error().1, 10022);
    assert_eq!(call("POST", &at, json!({ "pattern": "b.example/*", "script": "nobody" })).await.error().1, 10007);
    let id = changed["id"].as_str().expect("an id");
    call("DELETE", &format!("{at}/{id}"), json!(null)).await.result();
    assert_eq!(call("DELETE", &format!("{at}/{id}"), json!(null)).await.status, 404);
}

#[tokio::test]
async fn assets_come_with_the_token_of_their_session_alone() {
    let server = Server::start(false).await;
    let (page, hash) = (b"<p>hello", "0123456789abcdef0123456789abcdef");
    let manifest = json!({ "manifest": { "/index.html": { "hash": hash, "size": page.len() } } });
    let begun = server.workers_json("POST", "/scripts/site/assets-upload-session", manifest.clone()).await.result();
    assert_eq!(begun["buckets"], json!([[hash]]));
    let token = begun["jwt"].as_str().expect("a token").to_owned();
    let (headers, body) = form(&[(hash, "text/html", b"PHA+aGVsbG8=")]);
    let send = async |token: &str| {
        let path = format!("/client/v4/accounts/{ACCOUNT}/workers/assets/upload?base64=true");
        server.call("POST", &path, &format!("Authorization: Bearer {token}\r\n{headers}"), &body).await
    };
    assert_eq!(send(TOKEN).await.status, 401);
    assert_eq!(send(&token.replace(|c: char| c.is_ascii_uppercase(), "x")).await.status, 401);
    let sent = send(&token).await;
    assert_eq!((sent.status, sent.json()["result"]["jwt"].as_str()), (201, Some(&*token)));
    let metadata = json!({ "assets": { "jwt": token, "config": { "html_handling": "none" } } });
    let shown = server.deploy("site", metadata, &[]).await.result();
    assert_eq!((&shown["has_assets"], &shown["has_modules"]), (&true.into(), &false.into()));
    let again = server.workers_json("POST", "/scripts/site/assets-upload-session", manifest).await.result();
    assert_eq!(again["buckets"], json!([]));
}

#[tokio::test]
async fn a_tail_tells_what_happens_until_it_is_deleted() {
    let server = Server::start(false).await;
    server.deploy("s", json!({ "main_module": "a.js" }), &[("a.js", MODULE, b"1")]).await.result();
    let filters = json!({ "filters": [{ "outcome": ["exception"] }] }).to_string();
    let made =
        server.workers("POST", "/scripts/s/tails", "Content-Type: text/plain\r\n", filters.as_bytes()).await.result();
    let url = made["url"].as_str().expect("an address");
    let path = url.strip_prefix("ws://x").expect("at the host that was asked");
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: trace-v1\r\n";
    assert_eq!(server.call("GET", &format!("{path}x"), upgrade, b"").await.status, 403);
    assert_eq!(server.call("GET", path, "", b"").await.status, 400);
    let mut stream = server.connect().await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    // The example of RFC 6455.
    assert!(head.starts_with("http/1.1 101") && head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert!(head.contains("sec-websocket-protocol: trace-v1"), "{head}");
    // wrangler's first frame, which is not masked.
    stream.write_all(b"\x81\x0f{\"debug\":false}").await.expect("sent");
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    let script = ScriptId { account: ACCOUNT, script: "s".into() };
    let tails = server.workers.tails().clone();
    let event = |outcome: &str| Bytes::from(json!({ "outcome": outcome, "event": null }).to_string());
    tails.publish(&script, event("ok"));
    tails.publish(&script, event("exception"));
    let told = futures_util::StreamExt::next(&mut socket).await.expect("an event").expect("a frame");
    assert_eq!(told, Message::text(String::from_utf8(event("exception").into()).expect("text")));
    let id = made["id"].as_str().expect("an id");
    server.workers("DELETE", &format!("/scripts/s/tails/{id}"), "", b"").await.result();
    let end = futures_util::StreamExt::next(&mut socket).await.expect("an end").expect("a frame");
    assert!(matches!(end, Message::Close(Some(_))), "{end:?}");
    assert_eq!(server.call("GET", path, upgrade, b"").await.status, 403, "it is of no more use");
}
