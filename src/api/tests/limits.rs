//! Hostile input of every kind gets a clear answer, and what an operator allows is kept to.

use std::time::Duration;

use super::*;

const FORM: &str = "Content-Type: multipart/form-data; boundary=B\r\n";

fn part(name: &str, content: &str) -> String {
    format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
}

#[tokio::test]
async fn what_is_too_long_too_deep_or_too_many_is_refused_by_name() {
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let with_metadata = |metadata: &str| format!("{}{}--B--\r\n", part("value", "v"), part("metadata", metadata));
    let many: String = (0..300).map(|n| part(&format!("metadata[{n}]"), "x")).collect();
    let bulk = |pairs: &str| ("PUT", format!("{ns}/bulk"), "", pairs.to_owned());
    let value = |body: String| ("PUT", format!("{ns}/values/k"), FORM, body);
    let cases = [
        // JSON
        (400, bulk(&deep(100_000))),
        (400, bulk(&"{\"a\":".repeat(50_000))),
        (400, bulk(&format!("[{{\"key\":\"k\",\"value\":{}}}]", deep(1_000)))),
        (413, bulk(&format!("[{{\"key\":\"k\",\"value\":\"v\",\"metadata\":{}}}]", deep(600)))),
        (400, bulk(&format!("[{}]", vec!["{\"key\":\"k\",\"value\":\"v\"}"; 10_001].join(",")))),
        (400, bulk("\u{0}\u{1}")),
        // Forms
        (413, value(with_metadata(&deep(600)))),
        (400, value(with_metadata(&format!("\"{}\"", "x".repeat(20_000))))),
        (400, value(format!("{many}--B--\r\n"))),
        (400, value(format!("--B\r\n{}", "x".repeat(2_000_000)))),
        (400, value("no form at all".into())),
        // Where
        (400, ("GET", format!("{ns}/keys?cursor={}", "A".repeat(20_000)), "", String::new())),
        (400, ("GET", format!("{ns}/keys?limit=99999999999999999999"), "", String::new())),
        (414, ("GET", format!("{ns}/values/{}", "k".repeat(513)), "", String::new())),
        (404, ("GET", format!("{ns}/values/{}", "a/".repeat(2_000)), "", String::new())),
        (400, ("GET", format!("{ns}/values/%ff%fe"), "", String::new())),
    ];
    let mut wrong = Vec::new();
    for (status, (method, path, headers, body)) in cases {
        let answer = server.ask_with(method, &path, headers, &body).await;
        let what = format!("{method} {:.60} {:.60}", path, body);
        let text = answer.text();
        if answer.status != status || !text.contains("\"message\":\"") {
            wrong.push(format!("{what}: {} instead of {status}: {text:.200}", answer.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (status, headers) in [
        (431, (0..200).map(|n| format!("X-{n}: x\r\n")).collect()),
        (431, format!("X-Huge: {}\r\n", "x".repeat(70_000))),
        (400, "starling-bookmark: !!!\r\n".to_owned()),
        (400, "starling-acks: 999999999999999999999\r\n".to_owned()),
    ] {
        let answer = server.ask_with("GET", &format!("{ns}/keys"), &headers, "").await;
        assert_eq!(answer.status, status, "{headers:.60}");
    }
    assert_eq!(server.ask("PUT", &format!("{ns}/values/after"), "all is well").await.status, 200);
}

async fn limited(quotas: Quotas) -> Server {
    Server::over_with(backend("n1", None, Durability::Os).await, false, quotas).await
}

#[tokio::test]
async fn a_token_that_asks_too_often_waits_and_others_do_not() {
    let server = limited(Quotas { token_rate: 5, ..Quotas::default() }).await;
    let ns = server.namespace("a").await;
    let path = format!("{ns}/keys");
    let mut refused = Vec::new();
    for _ in 0..20 {
        let answer = server.ask("GET", &path, "").await;
        if answer.status != 200 {
            refused.push(answer);
        }
    }
    assert!(refused.len() >= 10, "{} of 20 refused at 5 a second", refused.len());
    let (status, code, message) = refused[0].error();
    assert_eq!((status, code, refused[0].header("retry-after")), (429, 10429, Some("1")));
    assert!(message.contains("5 a second"), "{message}");
    let other = NewToken { account: ACCOUNT, name: "other".into(), grants: Grants::all(), expires_ms: 0 };
    let secret = "another-token-that-is-long-enough-to-be-one";
    server.node().kv().add_token(secret, other).await.expect("a token");
    let head = format!(
        "GET /client/v4/accounts/{ACCOUNT}/storage/kv{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {secret}\r\n\r\n"
    );
    assert_eq!(server.raw(head.as_bytes()).await.status, 200, "another token has its own");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(server.ask("GET", &path, "").await.status, 200);
}

#[tokio::test]
async fn an_account_holds_what_it_may_and_can_make_room() {
    let server = limited(Quotas { account_keys: 5, account_bytes: 20_000, ..Quotas::default() }).await;
    let ns = server.namespace("a").await;
    let put = async |key: &str, len: usize| server.ask("PUT", &format!("{ns}/values/{key}"), "x".repeat(len)).await;
    for key in ["a", "b", "c", "d"] {
        put(key, 10).await.result();
    }
    let pairs = r#"[{"key":"e","value":"v"},{"key":"f","value":"v"}]"#;
    let answer = server.ask("PUT", &format!("{ns}/bulk"), pairs).await;
    assert_eq!(answer.code(), (429, 10048), "one would fit, both don't: {}", answer.text());
    put("e", 10).await.result();
    let (status, code, message) = put("f", 10).await.error();
    assert_eq!((status, code), (429, 10048));
    assert!(message.contains("holds 5 keys") && message.contains("may hold 5"), "{message}");
    put("a", 11).await.result();
    server.ask("DELETE", &format!("{ns}/values/b"), "").await.result();
    // The count is made anew before anything is refused, though not at every moment.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    put("f", 10).await.result();
    let (status, code, message) = put("a", 20_000).await.error();
    assert!((status, code) == (429, 10048) && message.contains("bytes"), "{message}");
    assert_eq!(server.ask("GET", &format!("{ns}/values/a"), "").await.body.len(), 11, "nothing was changed");
    // What is read, listed and deleted is not written.
    assert_eq!(server.ask("GET", &format!("{ns}/keys"), "").await.status, 200);
    server.ask("DELETE", &format!("{ns}/values/a"), "").await.result();
}

/// Bytes that follow from a seed.
struct Draws(blake3::OutputReader);

impl Draws {
    fn new(seed: u64) -> Self {
        Self(blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof())
    }

    fn below(&mut self, bound: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_be_bytes(bytes) as usize % bound
    }

    /// Changed, cut, doubled or filled with noise somewhere, a few times.
    fn mangle(&mut self, text: &[u8]) -> Vec<u8> {
        let mut text = text.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(text.len().max(1));
            match self.below(5) {
                0 => text.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << self.below(8)),
                1 => text.truncate(at),
                2 => drop(text.splice(at..at, text[at / 2..at].to_vec())),
                3 => drop(text.splice(at..at, [b"\r\n--B\r\n", &b"\"}]{[\":,\0\xff"[..]].concat())),
                _ => drop(text.drain(at..(at + self.below(40)).min(text.len()))),
            }
        }
        text
    }
}

/// Forms, JSON and metadata of scripts that were mangled on their way: understood, or refused for what they are.
#[tokio::test]
async fn mangled_bodies_are_never_the_servers_fault() {
    const SEEDS: std::ops::Range<u64> = 0..250;
    let server = Server::start(false).await;
    let ns = server.namespace("a").await;
    let form = format!("{}{}--B--\r\n", part("value", "a value"), part("metadata", r#"{"a":{"b":[1,2]}}"#));
    let bulk =
        r#"[{"key":"k","value":"v","expiration_ttl":60,"metadata":{"a":1},"base64":true},{"key":"l","value":"dg=="}]"#;
    let metadata = r#"{"main_module":"w.js","compatibility_date":"2026-01-01","compatibility_flags":["nodejs_compat"],"bindings":
        [{"type":"plain_text","name":"A","text":"b"},{"type":"json","name":"J","json":{"a":[1]}},{"type":"secret_text","name":"S",
        "text":"c"}],"limits":{"cpu_ms":50},"tags":["a"],"keep_bindings":["secret_text"]}"#;
    let script = format!(
        "{}--B\r\nContent-Disposition: form-data; name=\"w.js\"; filename=\"w.js\"\r\nContent-Type: \
         application/javascript+module\r\n\r\nexport default {{}}\r\n--B--\r\n",
        part("metadata", metadata)
    );
    let scripts = format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/mangled");
    let in_kv = |rest: &str| format!("/client/v4/accounts/{ACCOUNT}/storage/kv{ns}/{rest}");
    let kinds = [(in_kv("values/k"), FORM, form), (in_kv("bulk"), "", bulk.to_owned()), (scripts, FORM, script)];
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    for seed in SEEDS {
        let mut draws = Draws::new(seed);
        for (path, headers, body) in &kinds {
            let body = draws.mangle(body.as_bytes());
            let headers = format!("{headers}Authorization: Bearer {TOKEN}\r\n");
            let answer = server.call("PUT", path, &headers, &body).await;
            let text = answer.text();
            assert!(
                answer.status < 500,
                "seed {seed}, {path}: {} {text}\n{}",
                answer.status,
                String::from_utf8_lossy(&body)
            );
            *statuses.entry(answer.status).or_default() += 1;
        }
    }
    assert!(statuses.len() >= 2 && statuses.contains_key(&200) && statuses.contains_key(&400), "{statuses:?}");
    assert_eq!(server.ask("PUT", &format!("{ns}/values/after"), "all is well").await.status, 200);
}
