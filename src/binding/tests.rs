//! Over real sockets: what workerd sends, and what it has to get.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::api::tests::{ACCOUNT, Answer, TOKEN, backend};
use crate::config::{Bindings, Durability};
use crate::kv::{AccountId, Grants, NamespaceId, NewToken, Scope};
use crate::node::Node;

struct Server {
    at: String,
    /// Headers that workerd would inject.
    injected: String,
    node: (Node, tempfile::TempDir),
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(at: &str, authorize: Arc<dyn Authorize>) -> Self {
        let node = backend("n1", None, Durability::Os).await;
        let kv = node.0.kv().clone();
        let ns = kv.create_namespace(ACCOUNT, "bound").await.expect("a namespace").id;
        let at = at.replace("DIR", &node.1.path().display().to_string());
        let listener = Listener::bind(&at.parse().expect("bindings")).await.expect("a listener");
        let at = listener.shown();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, kv, authorize, CONNECTIONS_MAX, async {
            let _ = stopped.await;
        }));
        Self { at, injected: format!("X-KV-Namespace: {ns}\r\n"), node, stop, task }
    }

    async fn on_loopback() -> Self {
        let server = Self::start("127.0.0.1:0", Arc::new(TokenHolder { failures: Arc::default() })).await;
        let injected = format!("{}Authorization: Bearer {TOKEN}\r\n", server.injected);
        Self { injected, ..server }
    }

    async fn send(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        let mut request = format!(
            "{line} HTTP/1.1\r\nHost: fake-host\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        match self.at.strip_prefix("unix:") {
            Some(path) => exchange(UnixStream::connect(path).await.expect("it listens"), &request).await,
            None => exchange(TcpStream::connect(&self.at).await.expect("it listens"), &request).await,
        }
    }

    async fn ask(&self, line: &str, body: impl AsRef<[u8]>) -> Answer {
        self.send(line, &self.injected, body.as_ref()).await
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> Answer {
    stream.write_all(request).await.expect("sent");
    Answer::read(&mut stream).await
}

#[tokio::test]
async fn values_go_in_and_out_over_a_unix_socket() {
    let server = Server::start("unix:DIR/kv.sock", Arc::new(AnyNamespace)).await;
    let path = server.at.strip_prefix("unix:").expect("a unix socket").to_owned();
    assert_eq!(std::fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o600);

    let metadata = format!("{}CF-KV-Metadata: {{\"ort\":\"Zürich\"}}\r\n", server.injected);
    let put = server.send("PUT /a%2Fb%20%C3%BC?urlencoded=true&expiration=4000000000", &metadata, b"value").await;
    assert_eq!((put.status, put.text()), (200, String::new()));
    let got = server.ask("GET /a%2Fb%20%C3%BC?urlencoded=true&cache_ttl=30", "").await;
    assert_eq!((got.status, got.text().as_str()), (200, "value"));
    assert_eq!(got.header("cf-kv-metadata"), Some("{\"ort\":\"Zürich\"}"));
    assert_eq!(got.header("cf-expiration"), Some("4000000000"));

    let listed = server.ask("GET /?key_count_limit=10&prefix=a%2F", "").await.json();
    let key = serde_json::json!({
        "name": "a/b ü", "expiration": 4_000_000_000_u64, "metadata": "{\"ort\":\"Zürich\"}"
    });
    assert_eq!(listed, serde_json::json!({ "keys": [key], "list_complete": true }));

    assert_eq!(server.ask("DELETE /a%2Fb%20%C3%BC?urlencoded=true", "").await.status, 200);
    let gone = server.ask("GET /a%2Fb%20%C3%BC?urlencoded=true", "").await;
    assert_eq!((gone.status, gone.reason.as_str()), (404, "Not Found"));

    server.stop.send(()).expect("it runs");
    server.task.await.expect("it ends well");
    assert!(!std::path::Path::new(&path).exists(), "the socket is removed");
}

#[tokio::test]
async fn several_keys_at_once() {
    let server = Server::on_loopback().await;
    for (key, value) in [("n", "null"), ("o", "{\"a\":1}"), ("e", ""), ("t", "\u{feff}text")] {
        assert_eq!(server.ask(&format!("PUT /{key}?urlencoded=true"), value).await.status, 200);
    }
    let ask = async |body: serde_json::Value| server.ask("POST /bulk/get", body.to_string()).await;
    let texts = ask(serde_json::json!({ "keys": ["t", "e", "missing", "t"], "cacheTtl": "60" })).await;
    assert_eq!(texts.text(), r#"{"t":"text","e":"","missing":null}"#);
    let jsons = ask(serde_json::json!({ "keys": ["n", "o"], "type": "json", "withMetadata": true })).await;
    assert_eq!(jsons.text(), r#"{"n":null,"o":{"value":{"a":1},"metadata":null}}"#);
    let cases = [
        (
            serde_json::json!({ "keys": ["t"], "type": "json" }),
            "At least one of the requested keys corresponds to a non-json value",
        ),
        (serde_json::json!({ "keys": [] }), "You must request a minimum of 1 key"),
        (serde_json::json!({ "keys": vec!["k"; 101] }), "You can request a maximum of 100 keys"),
        (
            serde_json::json!({ "keys": ["k"], "type": "stream" }),
            r#""stream" is not a valid type. Use "json" or "text""#,
        ),
        (
            serde_json::json!({ "keys": ["k"], "cacheTtl": "29" }),
            "Invalid cache_ttl of 29. Cache TTL must be at least 30.",
        ),
        (serde_json::json!({ "keys": [""] }), "Key names must not be empty"),
        (serde_json::json!({ "keys": [".."] }), "Illegal key name \"..\". Please use a different name."),
    ];
    for (body, reason) in cases {
        let refused = ask(body).await;
        assert_eq!((refused.status, refused.reason.as_str()), (400, reason));
    }
}

#[tokio::test]
async fn mistakes_are_told_in_the_reason_phrase() {
    let server = Server::on_loopback().await;
    let long = "k".repeat(513);
    let cases = [
        (
            "PUT /k?urlencoded=true&expiration_ttl=59",
            400,
            "Invalid expiration_ttl of 59. Expiration TTL must be at least 60.",
        ),
        (
            "PUT /k?urlencoded=true&expiration_ttl=0",
            400,
            "Invalid expiration_ttl of 0. Please specify integer greater than 0.",
        ),
        (
            "PUT /k?urlencoded=true&expiration=1",
            400,
            "Invalid expiration of 1. Please specify integer greater than the current number of seconds since the UNIX epoch.",
        ),
        ("GET /k?urlencoded=true&cache_ttl=5", 400, "Invalid cache_ttl of 5. Cache TTL must be at least 30."),
        (
            "GET /?key_count_limit=1001",
            400,
            "Invalid key_count_limit of 1001. Please specify an integer less than 1000.",
        ),
        ("GET /?key_count_limit=-1", 400, "Invalid key_count_limit of -1. Please specify an integer greater than 0."),
        (&format!("GET /?prefix={long}"), 414, "UTF-8 encoded length of 513 exceeds key length limit of 512."),
        (
            &format!("DELETE /{long}?urlencoded=true"),
            414,
            "UTF-8 encoded length of 513 exceeds key length limit of 512.",
        ),
        ("GET /%FF?urlencoded=true", 400, "Could not URL-decode key name"),
    ];
    for (line, status, reason) in cases {
        let refused = server.ask(line, "").await;
        assert_eq!((refused.status, refused.reason.as_str()), (status, reason), "{line}");
    }
    let metadata = format!("{}CF-KV-Metadata: \"{}\"\r\n", server.injected, "m".repeat(1023));
    let refused = server.send("PUT /k?urlencoded=true", &metadata, b"").await;
    assert_eq!((refused.status, refused.reason.as_str()), (413, "Metadata length of 1025 exceeds limit of 1024."));
    let large = vec![0; 26_214_401];
    let refused = server.ask("PUT /k?urlencoded=true", large).await;
    assert_eq!((refused.status, refused.reason.as_str()), (413, "Value length of 26214401 exceeds limit of 26214400."));
}

#[tokio::test]
async fn nobody_gets_in_without_saying_who_and_where() {
    let server = Server::on_loopback().await;
    let foreign = server.node.0.kv().create_namespace(AccountId([9; 16]), "foreign").await.expect("a namespace").id;
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    let namespace = server.injected.replace(&token, "");
    let cases = [
        (namespace, 400),
        (token.clone(), 400),
        (format!("{token}X-KV-Namespace: 12\r\n"), 400),
        (format!("{token}X-KV-Namespace: {foreign}\r\n"), 400),
        (server.injected.replace(TOKEN, "wrong"), 403),
    ];
    for (headers, status) in cases {
        assert_eq!(server.send("GET /k?urlencoded=true", &headers, b"").await.status, status, "{headers}");
    }
    // Status 404 means a missing key, and only that.
    assert_eq!(server.ask("GET /k?urlencoded=true", "").await.status, 404);
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("kv.sock");
    let at = Bindings::Unix(path.clone());
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists(), "left by a process that was killed");
    let listener = Listener::bind(&at).await.expect("in place of the stale one");
    assert!(matches!(Listener::bind(&at).await, Err(ListenError::Taken { .. })));
    // Another socket under that name is not this listener's to remove.
    std::fs::remove_file(&path).expect("removed");
    let other = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    drop(listener);
    assert!(path.exists());
    drop(other);
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, "notes").expect("written");
    assert!(matches!(Listener::bind(&at).await, Err(ListenError::NotASocket { .. })));
}

#[tokio::test]
async fn a_token_opens_what_its_scopes_say_and_wrong_ones_are_told_to_wait() {
    let server = Server::on_loopback().await;
    let kv = server.node.0.kv().clone();
    let other = kv.create_namespace(ACCOUNT, "other").await.expect("a namespace").id;
    let bound = kv.namespaces(ACCOUNT).expect("namespaces").iter().find(|ns| ns.title == "bound").expect("it").id;
    let token = "a-token-that-reads-one-namespace-0123456789";
    let grants = Grants { scopes: [Scope::Read].into(), namespaces: [bound].into() };
    let new = NewToken { account: ACCOUNT, name: "reader".into(), grants, expires_ms: 0 };
    kv.add_token(token, new).await.expect("a token");
    assert_eq!(server.ask("PUT /k?urlencoded=true", "v").await.status, 200, "by the admin token");

    let as_reader = async |line: &str, ns: NamespaceId| {
        let headers = format!("X-KV-Namespace: {ns}\r\nAuthorization: Bearer {token}\r\n");
        server.send(line, &headers, b"").await.status
    };
    assert_eq!(as_reader("GET /k?urlencoded=true", bound).await, 200);
    for line in ["PUT /k?urlencoded=true", "DELETE /k?urlencoded=true", "GET /?key_count_limit=10"] {
        assert_eq!(as_reader(line, bound).await, 403, "{line}");
    }
    assert_eq!(as_reader("GET /k?urlencoded=true", other).await, 403, "a namespace that it was not made for");
    assert_eq!(server.ask("GET /k?urlencoded=true", "").await.text(), "v", "nothing was changed");

    let wrong = format!("X-KV-Namespace: {bound}\r\nAuthorization: Bearer wrong-0123456789-wrong-0123456789\r\n");
    let mut seen = Vec::new();
    for _ in 0..30 {
        seen.push(server.send("GET /k?urlencoded=true", &wrong, b"").await.status);
    }
    assert_eq!(seen.first(), Some(&403), "{seen:?}");
    assert_eq!(seen.last(), Some(&429), "{seen:?}");
    assert_eq!(as_reader("GET /k?urlencoded=true", bound).await, 200, "who knows a token is let in all the same");
}

/// What a runtime would never send, over and over: answered for what it is.
#[tokio::test]
async fn mangled_requests_are_never_the_nodes_fault() {
    let server = Server::start("unix:DIR/kv.sock", Arc::new(AnyNamespace)).await;
    let good = server.injected.clone();
    let methods = ["GET", "PUT", "DELETE", "POST", "PATCH", "OPTIONS"];
    let paths = ["/k", "/", "/bulk/get", "/%2F%zz", "/a/b", "/%ff", "//", "/%00", "/..", "/k%", "/%C3%BC"];
    let queries = [
        "",
        "?urlencoded=true",
        "?urlencoded=1&urlencoded=true",
        "?expiration=99999999999999999999",
        "?expiration_ttl=-1",
        "?cache_ttl=x",
        "?key_count_limit=0",
        "?key_count_limit=1e9&prefix=%ff",
        "?cursor=!!!",
        "?cursor=AAAA&prefix=%",
        "?=&&=&%",
    ];
    let headers = [
        good.clone(),
        String::new(),
        "X-KV-Namespace: nonsense\r\n".into(),
        format!("{good}CF-KV-Metadata: {{not json\r\n"),
        format!("{good}CF-KV-Metadata: {}\r\n", "[".repeat(900)),
        format!("{good}CF-KV-Metadata: \"{}\"\r\n", "x".repeat(3000)),
        format!("{good}Expect: 100-continue\r\n"),
        good.replace("X-KV-Namespace: ", "X-KV-Namespace: 00"),
    ];
    let bodies: [&[u8]; 5] =
        [b"", b"v", br#"{"keys":["a","a"],"type":"json"}"#, br#"{"keys":[{}]}"#, b"{\"keys\":[\"\xff\"]}"];
    let mut statuses = std::collections::BTreeMap::<u16, u32>::new();
    let mut count = 0_usize;
    for method in methods {
        for path in paths {
            for query in queries {
                // Not every one with every other: those go round by themselves.
                count += 1;
                let (headers, body) = (&headers[count % headers.len()], bodies[count % bodies.len()]);
                let line = format!("{method} {path}{query}");
                let answer = server.send(&line, headers, body).await;
                assert!(answer.status < 500, "{line} {headers:?}: {} {}", answer.status, answer.text());
                *statuses.entry(answer.status).or_default() += 1;
            }
        }
    }
    assert!(statuses.len() > 4 && statuses.contains_key(&200), "{statuses:?}");
    assert_eq!(server.ask("PUT /after", "all is well").await.status, 200);
}
