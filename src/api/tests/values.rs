//! Single values.

use hyper::Request;

use super::*;
use crate::api::Api;
use crate::kv::TokenId;

const MIB_25: usize = 26_214_400;

#[tokio::test]
async fn a_value_comes_back_as_it_went() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    for key in ["k", "a%20key%2F%C3%BC%3F%231", "bulk%2Fget", "100%2525", "keys"] {
        let path = format!("{ns}/values/{key}");
        let value = [&[0, 255, 13, 10][..], key.as_bytes()].concat();
        assert_eq!(server.ask("PUT", &path, &value).await.result(), serde_json::json!({}));
        let answer = server.ask("GET", &path, "").await;
        assert_eq!((answer.status, &answer.body[..]), (200, &value[..]));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
        assert_eq!(answer.header("content-length"), Some(value.len().to_string().as_str()));
        assert_eq!(answer.header("expiration"), None);
        assert_eq!(answer.header("starling-pop"), Some("lhr"));
        assert!(answer.header("starling-request-id").is_some());
    }
    let listed = server.ask("GET", &format!("{ns}/keys?prefix=a"), "").await.result();
    assert_eq!(listed, serde_json::json!([{ "name": "a key/ü?#1" }]));
    assert_eq!(server.ask("DELETE", &format!("{ns}/values/k"), "").await.result(), serde_json::json!({}));
    assert_eq!(server.ask("DELETE", &format!("{ns}/values/k"), "").await.result(), serde_json::json!({}));
    let gone = server.ask("GET", &format!("{ns}/values/k"), "").await;
    assert_eq!(gone.error(), (404, 10009, "get: 'key not found'".into()));
}

/// A request with a header of a session is answered by a future that may wait, one without by none.
#[tokio::test]
async fn what_is_answered_at_once_is_answered_as_if_it_had_waited() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let other = TokenId::of(TOKEN).to_string();
    for (key, query, len) in
        [("plain", "", 5), ("a%2Fb", "", 0), ("ends", "?expiration_ttl=3600", 7), ("large", "", MIB_25)]
    {
        let path = format!("{ns}/values/{key}{query}");
        server.ask("PUT", &path, vec![b'v'; len]).await.result();
    }
    let (kv, operator) = (server.node().kv().clone(), server.operator().clone());
    let api = Api::new(kv.clone(), operator, Workers::new(kv), config(false, Quotas::default()));
    let said = |answer: &Answer| {
        let own = ["date:", "starling-age:", "starling-request-id:"];
        let mut lines = answer.head.lines().filter(|line| !own.iter().any(|own| line.starts_with(own)));
        let mut lines = lines.by_ref().map(str::to_owned).collect::<Vec<_>>();
        lines.sort();
        lines
    };
    let good = format!("Authorization: Bearer {TOKEN}\r\n");
    let below = format!("/client/v4/accounts/{ACCOUNT}/storage/kv");
    for (status, path, headers) in [
        (200, format!("{below}{ns}/values/plain"), good.clone()),
        (200, format!("{below}{ns}/values/plain?x=y"), format!("X-Auth-Email: a@b\r\nX-Auth-Key: {TOKEN}\r\n")),
        (200, format!("{below}{ns}/values/a%2Fb"), good.clone()),
        (200, format!("{below}{ns}/values/ends"), good.clone()),
        (200, format!("{below}{ns}/values/large"), good.clone()),
        (404, format!("{below}{ns}/values/none"), good.clone()),
        (400, format!("{below}{ns}/values/%FF"), good.clone()),
        (400, format!("{below}{ns}/values/plain"), String::new()),
        (403, format!("{below}{ns}/values/plain"), "Authorization: Bearer wrong\r\n".to_owned()),
        (403, format!("/client/v4/accounts/{other}/storage/kv{ns}/values/plain"), good.clone()),
        (404, format!("{below}/namespaces/{other}/values/plain"), good.clone()),
    ] {
        let at_once = server.call("GET", &path, &headers, b"").await;
        let waiting = server.call("GET", &path, &format!("{headers}starling-wait: 5s\r\n"), b"").await;
        assert_eq!((at_once.status, waiting.status), (status, status), "{path} {headers}");
        let asked = |method: &str, more: &str| {
            let mut request = Request::builder().method(method).uri(&path);
            for line in format!("{headers}{more}").lines() {
                let (name, value) = line.split_once(": ").expect("a header");
                request = request.header(name, value);
            }
            api.at_once(&request.body(()).expect("a request")).is_some()
        };
        assert_eq!(asked("GET", ""), status == 200, "{path} {headers}");
        assert!(!asked("GET", "starling-wait: 5s") && !asked("HEAD", "") && !asked("DELETE", ""), "{path} {headers}");
        assert_eq!(said(&at_once), said(&waiting), "{path} {headers}");
        let same_body = at_once.body == waiting.body || status >= 400 && at_once.code() == waiting.code();
        assert!(same_body, "{path} {headers}");
        assert_eq!(at_once.header("starling-age").is_some(), status == 200, "{path}");
        assert!(at_once.header("starling-request-id") != waiting.header("starling-request-id"));
    }
}

#[tokio::test]
async fn an_empty_value_is_a_value() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    server.ask("PUT", &format!("{ns}/values/k"), "").await.result();
    let answer = server.ask("GET", &format!("{ns}/values/k"), "").await;
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, Some("0"), 0));
}

#[tokio::test]
async fn keys_that_break_the_rules_are_refused() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    for key in ["", ".", "..", "%2e", "%FF"] {
        let answer = server.ask("PUT", &format!("{ns}/values/{key}"), "v").await;
        assert_eq!(answer.code(), (400, 10029), "{key}");
    }
    let answer = server.ask("PUT", &format!("{ns}/values/{}", "k".repeat(513)), "v").await;
    let message = "UTF-8 encoded length of 513 exceeds key length limit of 512.";
    assert_eq!(answer.error(), (414, 10030, message.into()));
    server.ask("PUT", &format!("{ns}/values/{}", "k".repeat(512)), "v").await.result();
    assert_eq!(server.ask("PUT", &format!("{ns}/values/a/b"), "v").await.code(), (404, 7003));
}

#[tokio::test]
async fn expirations_are_checked_and_shown() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let path = format!("{ns}/values/k");
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    server.ask("PUT", &format!("{path}?expiration={}&expiration_ttl=1000", now + 500), "v").await.result();
    let shown: u64 =
        server.ask("GET", &path, "").await.header("expiration").expect("an expiration").parse().expect("a number");
    assert!((now + 1000..now + 1010).contains(&shown), "the TTL wins");
    let listed = server.ask("GET", &format!("{ns}/keys"), "").await.result();
    assert_eq!(listed[0]["expiration"], shown);
    for (query, code) in [
        ("expiration_ttl=59", 10034),
        ("expiration_ttl=0", 10034),
        ("expiration_ttl=1.5", 10034),
        ("expiration=1", 10033),
        ("expiration=soon", 10033),
    ] {
        let answer = server.ask("PUT", &format!("{path}?{query}"), "v").await;
        let (status, shown, message) = answer.error();
        assert_eq!((status, shown), (400, code), "{query}");
        assert!(message.starts_with("Invalid expiration"), "{message}");
    }
}

#[tokio::test]
async fn large_values_stream_both_ways() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let path = format!("{ns}/values/k");
    for len in [65_536, 65_537, MIB_25] {
        let value: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        server.ask("PUT", &path, &value).await.result();
        let answer = server.ask("GET", &path, "").await;
        assert!(answer.body == value, "{len}");
        assert_eq!(answer.header("content-length"), Some(len.to_string().as_str()));
    }
    let over = server.ask("PUT", &path, vec![0; MIB_25 + 1]).await;
    assert_eq!(over.error(), (413, 10024, "Value length of 26214401 exceeds limit of 26214400.".into()));
    assert_eq!(server.ask("GET", &path, "").await.body.len(), MIB_25, "the old value stays");
}

#[tokio::test]
async fn bodies_of_unknown_length_are_taken_up_to_the_limit() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let chunked = |chunks: usize| {
        let path = format!("/client/v4/accounts/{ACCOUNT}/storage/kv{ns}/values/k");
        let mut request = format!(
            "PUT {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {TOKEN}\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        )
        .into_bytes();
        for _ in 0..chunks {
            request.extend_from_slice(b"8000\r\n");
            request.extend_from_slice(&[b'x'; 0x8000]);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        request
    };
    for chunks in [1, 3] {
        server.raw(&chunked(chunks)).await.result();
        assert_eq!(server.ask("GET", &format!("{ns}/values/k"), "").await.body.len(), chunks * 0x8000);
    }
    assert_eq!(server.raw(&chunked(801)).await.code(), (413, 10024));
}

fn form(parts: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, rest, value) in parts {
        let head = format!("--B0undary\r\nContent-Disposition: form-data; name=\"{name}\"{rest}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--B0undary--\r\n");
    body
}

const FORM: &str = "Content-Type: multipart/form-data; boundary=B0undary\r\n";

#[tokio::test]
async fn forms_are_read_as_the_clients_send_them() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let large = vec![b'\r'; 100_000];
    let file = "; filename=\"upload\"\r\nContent-Type: application/octet-stream";
    let cases: [(Vec<u8>, &[u8], &str); 6] = [
        // wrangler: metadata as one JSON text, before or after the value.
        (form(&[("value", "", b"v"), ("metadata", "", b"{\"a\": 1}")]), b"v", r#"{"a":1}"#),
        (
            form(&[("metadata", "", b"\"\xc3\xbc\""), ("value", "; filename=\"blob\"", b"v\r\n--B0")]),
            b"v\r\n--B0",
            "\"ü\"",
        ),
        // The npm SDK flattens metadata, the Python SDK sends the value as a file.
        (
            form(&[("value", "", b"v"), ("metadata[a]", "", b"1"), ("metadata[b][c]", "", b"x")]),
            b"v",
            r#"{"a":"1","b":{"c":"x"}}"#,
        ),
        (form(&[("value", file, &large)]), &large, "null"),
        (form(&[("value", file, b""), ("metadata", "", b"null")]), b"", "null"),
        (form(&[("other", "", b"x"), ("value", "", b"v")]), b"v", "null"),
    ];
    for (body, value, metadata) in cases {
        server.ask_with("PUT", &format!("{ns}/values/k"), FORM, body).await.result();
        assert!(server.ask("GET", &format!("{ns}/values/k"), "").await.body == value);
        let stored = server.ask("GET", &format!("{ns}/metadata/k"), "").await.result();
        assert_eq!(stored.to_string(), metadata);
    }
}

#[tokio::test]
async fn a_form_may_arrive_in_crumbs() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let body = form(&[("metadata[a]", "", b"1"), ("value", "", b"x\r\n--B0undar y\r\n")]);
    let mut stream = server.connect().await;
    stream.set_nodelay(true).expect("a socket");
    let head = format!(
        "PUT /client/v4/accounts/{ACCOUNT}/storage/kv{ns}/values/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {TOKEN}\r\n{FORM}Content-Length: {}\r\n\r\n",
        body.len()
    );
    for crumb in [head.as_bytes(), &body].concat().chunks(3) {
        stream.write_all(crumb).await.expect("sent");
        tokio::task::yield_now().await;
    }
    Answer::read(&mut stream).await.result();
    assert_eq!(server.ask("GET", &format!("{ns}/values/k"), "").await.text(), "x\r\n--B0undar y\r\n");
    assert_eq!(server.ask("GET", &format!("{ns}/metadata/k"), "").await.result()["a"], "1");
}

#[tokio::test]
async fn forms_that_make_no_sense_are_refused() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let long = format!("\"{}\"", "x".repeat(1023));
    let cases: [(Vec<u8>, (u16, u64)); 8] = [
        (form(&[("metadata", "", b"{}")]), (400, 10001)),
        (form(&[("value", "", b"v"), ("value", "", b"w")]), (400, 10001)),
        (form(&[("value", "", b"v"), ("metadata", "", b"{a}")]), (400, 10001)),
        (form(&[("value", "", b"v"), ("metadata", "", long.as_bytes())]), (413, 10024)),
        (form(&[("value", "", &vec![0; MIB_25 + 1])]), (413, 10024)),
        (b"--B0undary\r\n".to_vec(), (400, 10001)),
        (Vec::new(), (400, 10001)),
        // No end of the part's headers: the parser's memory is bounded.
        ([b"--B0undary\r\nX: ", &vec![b'x'; 4_000_000][..]].concat(), (400, 10001)),
    ];
    for (index, (body, code)) in cases.into_iter().enumerate() {
        let answer = server.ask_with("PUT", &format!("{ns}/values/k"), FORM, body).await;
        assert_eq!(answer.code(), code, "case {index}: {}", answer.text());
    }
    let many = form(&vec![("x", "", &b"y"[..]); 300]);
    assert_eq!(server.ask_with("PUT", &format!("{ns}/values/k"), FORM, many).await.code(), (400, 10001));
    assert_eq!(server.ask("GET", &format!("{ns}/values/k"), "").await.code(), (404, 10009), "nothing was stored");
    let headless = "Content-Type: multipart/form-data\r\n";
    assert_eq!(server.ask_with("PUT", &format!("{ns}/values/k"), headless, "x").await.code(), (400, 10001));
}
