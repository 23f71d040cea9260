//! Workers on the embedded engine: what they find, what they may not do, and that it costs themselves alone.
#![allow(clippy::disallowed_methods, reason = "watches processes in real time")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::workers::{visit, workers};
use crate::flock::{Answer, Client, Node, eventually};

const PLATFORM: &str = include_str!("../battery/platform.mjs");
/// What workerd answers to it, as `tests/battery/record` wrote it down.
const AS_WORKERD: &str = include_str!("../battery/workerd.json");
/// Where the embedded engine answers otherwise, and why.
const DIFFERENCES: &str = include_str!("../battery/differences.json");

/// Deploys modules, each with its type. The first is the main one.
fn deploy(node: &Node, script: &str, modules: &[(&str, &str, &str)], mut metadata: Json) -> Answer {
    metadata["compatibility_date"] = json!("2026-01-01");
    if metadata.get("body_part").is_none() {
        metadata["main_module"] = json!(modules[0].0);
    }
    let mut form = format!("--b\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{metadata}\r\n");
    for (name, kind, body) in modules {
        form += &format!(
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n\
             {body}\r\n"
        );
    }
    form += "--b--\r\n";
    let path = format!("/client/v4/accounts/{}/workers/scripts/{script}", node.account);
    let headers = "Content-Type: multipart/form-data; boundary=b\r\n";
    node.client().ask_with("PUT", &path, headers, form.as_bytes()).expect("an answer")
}

const CODE: &str = "application/javascript+module";

fn deploy_code(node: &Node, script: &str, code: &str, metadata: Json) {
    let answer = deploy(node, script, &[("w.mjs", CODE, code)], metadata);
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn namespace(node: &Node) -> String {
    let path = format!("/client/v4/accounts/{}/storage/kv/namespaces", node.account);
    let made = node.client().ask("POST", &path, br#"{"title":"n"}"#).expect("an answer");
    made.json()["result"]["id"].as_str().expect("an id").to_owned()
}

fn kv(namespace: &str) -> Json {
    json!({ "type": "kv_namespace", "name": "KV", "namespace_id": namespace })
}

/// A script's answer, once it is deployed.
fn ask(at: SocketAddr, script: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let host = format!("{script}.workers.localhost:{}", at.port());
    eventually("the script is deployed", || {
        let answer = Client::named(at, &host).ask_with(method, path, headers, body).ok()?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        (!text.starts_with("No script answers")).then_some(answer)
    })
}

fn get(at: SocketAddr, script: &str, path: &str) -> (u16, String) {
    let answer = ask(at, script, "GET", path, "", b"");
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}

#[test]
fn the_platform_answers_as_workerd_does() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = workers(&node).expect("an address");
    let bindings = json!({ "bindings": [
        kv(&namespace(&node)),
        { "type": "plain_text", "name": "TEXT", "text": "hello" },
        { "type": "json", "name": "JSON", "json": { "a": [1] } },
    ] });
    deploy_code(&node, "platform", PLATFORM, bindings);
    let (status, text) = get(at, "platform", "/");
    assert_eq!(status, 200, "{text}");
    let answers: Json = serde_json::from_str(&text).expect("JSON");
    let recorded: Json = serde_json::from_str(AS_WORKERD).expect("JSON");
    let differences: Json = serde_json::from_str(DIFFERENCES).expect("JSON");
    let recorded = recorded.as_object().expect("an object");
    assert!(recorded.len() > 50);
    for (case, theirs) in recorded {
        let ours = &answers[case];
        match differences.get(case) {
            None => assert_eq!(ours, theirs, "{case}"),
            Some(_) => assert_ne!(ours, theirs, "{case} differs no more: take it out of differences.json"),
        }
    }
}

#[test]
fn modules_of_all_kinds_and_what_only_workerd_runs() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = workers(&node).expect("an address");
    let main = "import { twice } from './lib/a.mjs'; import text from './t.txt'; import data from './d.bin';
        import list from './j.json'; import { WorkerEntrypoint } from 'cloudflare:workers';
        export default class extends WorkerEntrypoint {
          fetch() { return Response.json([twice(2), text, new Uint8Array(data)[0], list.length, this.env.S]); }
        }";
    let modules = [
        ("main.mjs", CODE, main),
        ("lib/a.mjs", CODE, "import { two } from '../b.mjs'; export const twice = (n) => two * n;"),
        ("b.mjs", CODE, "export const two = 2;"),
        ("t.txt", "text/plain", "line \u{2028} 'quoted'"),
        ("d.bin", "application/octet-stream", "A"),
        ("j.json", "application/json", "[1,2,3]"),
    ];
    let secret = json!({ "bindings": [{ "type": "secret_text", "name": "S", "text": "hush" }] });
    assert_eq!(deploy(&node, "kinds", &modules, secret).status, 200);
    let (_, text) = get(at, "kinds", "/");
    assert_eq!(text, "[4,\"line \u{2028} 'quoted'\",65,3,\"hush\"]");

    for (kind, word) in [("application/wasm", "WebAssembly"), ("application/javascript", "CommonJS")] {
        let modules = [("w.mjs", CODE, "export default {}"), ("odd", kind, "x")];
        let refused = deploy(&node, "odd", &modules, json!({}));
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert_eq!(refused.status, 400, "{text}");
        assert!(text.contains(word) && text.contains("--worker-engine workerd") && text.contains("10021"), "{text}");
    }
    for (code, reason) in [
        ("export default {", "w.mjs"),
        ("import 'node:fs'; export default {}", "--worker-engine workerd"),
        ("import './none.mjs'; export default {}", "No such module"),
        ("setTimeout(() => {}, 1); export default {}", "global scope"),
        ("for (;;);", "computed for more than"),
        ("await new Promise(() => {}); export default {}", "top-level await"),
    ] {
        deploy_code(&node, "broken", code, json!({}));
        let told = eventually("the script is loaded", || {
            let (status, text) = get(at, "broken", "/");
            (status == 500 && text.contains(reason)).then_some(text)
        });
        assert!(told.contains("can't be loaded") || told.contains("1101"), "{told}");
    }
}

#[test]
fn a_service_worker_computes_a_card_and_keeps_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = workers(&node).expect("an address");
    let mut binding = kv(&namespace(&node));
    binding["name"] = json!("LOGCARD");
    let metadata = json!({ "body_part": "script", "bindings": [binding] });
    let code = include_str!("../../examples/babbage/babbage.js");
    let deployed = deploy(&node, "babbage", &[("script", "application/javascript", code)], metadata);
    assert_eq!(deployed.status, 200, "{deployed:?}");
    let first = ask(at, "babbage", "GET", "/?int=2303", "", b"");
    assert!(first.status == 200 && first.header("starling-bookmark").is_some(), "it wrote: {first:?}");
    assert!(String::from_utf8_lossy(&first.body).contains("<svg"));
    let second = ask(at, "babbage", "GET", "/?int=2303", "", b"");
    assert!(second.header("starling-bookmark").is_none(), "it only read: {second:?}");
    assert_eq!((first.header("x-card"), second.header("x-card")), (Some("computed"), Some("store")));
}

const HOSTILE: &str = "const f = () => f();
export default {
  async fetch(request, env, ctx) {
    globalThis.count = (globalThis.count ?? 0) + 1;
    switch (new URL(request.url).pathname) {
      case '/loop': for (;;);
      case '/later': for (;;) await 0;
      case '/native': return new Response([].indexOf.call({ length: 2 ** 53 - 1 }, 1));
      case '/bytes': { const all = []; for (;;) all.push(new Uint8Array(1e6)); }
      case '/objects': { let o = {}; for (;;) o = { o, a: [1, 2, 3] }; }
      case '/stack': f();
      case '/timers': for (;;) setTimeout(f, 1e9);
      case '/regexp': return new Response(/^(a+)+$/.test('a'.repeat(64) + 'b'));
      case '/hang': return new Promise(() => {});
      case '/throw': throw new Error('mine');
      case '/headers': return new Response('', { headers: { a: 'x'.repeat(1e6) } });
      case '/kv': { let n = 0; try { for (;; n++) await env.KV.get('k'); } catch (e) { return new Response(n + e.message); } }
      case '/fetch': { let last; for (let n = 0; n < 60; n++) try { await fetch('http://127.0.0.1:1/'); } catch (e) { last = e.message; } return new Response(last); }
      case '/pollute': Object.prototype.toJSON = () => 'mine'; Promise.prototype.then = null; return new Response('done');
      default: return new Response(globalThis.count);
    }
  }
}";

#[test]
fn a_script_that_goes_too_far_costs_itself_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = workers(&node).expect("an address");
    let metadata = json!({ "bindings": [kv(&namespace(&node))], "limits": { "cpu_ms": 400 } });
    deploy_code(&node, "quiet", HOSTILE, metadata.clone());
    let calm = || {
        let start = Instant::now();
        let (status, text) = get(at, "quiet", "/");
        assert!(
            status == 200 && start.elapsed() < Duration::from_secs(5),
            "{status} after {:?}: {text}",
            start.elapsed()
        );
        text.parse::<u32>().expect("a number")
    };
    let begun = calm();
    let cases = [
        ("loop", 503, "CPU time limit of 400 ms"),
        ("later", 503, "CPU time limit of 400 ms"),
        ("native", 503, "CPU time limit of 400 ms"),
        ("regexp", 503, "CPU time limit of 400 ms"),
        ("bytes", 503, "memory limit"),
        ("objects", 503, "limit"),
        ("stack", 500, "1101"),
        ("timers", 500, "1101"),
        ("hang", 500, "1101"),
        ("throw", 500, "1101"),
        ("headers", 500, "1101"),
        ("kv", 200, "1000KV GET failed: 400 Too many API requests by single worker invocation."),
        ("fetch", 200, "Too many subrequests"),
        ("pollute", 200, "done"),
    ];
    for (name, _, _) in cases {
        deploy_code(&node, name, HOSTILE, metadata.clone());
    }
    // All at once, and meanwhile others are served.
    std::thread::scope(|scope| {
        let asked = cases.map(|(name, status, words)| {
            scope.spawn(move || {
                let told = get(at, name, &format!("/{name}"));
                assert!(told.0 == status && told.1.contains(words), "{name}: {told:?}");
                // It is served again, by a runtime that knows nothing of the former one if that went too far.
                let after = eventually("it is served again", || {
                    let (status, text) = get(at, name, "/");
                    (status == 200).then_some(text)
                });
                if status == 503 {
                    assert_eq!(after, "1", "{name}");
                }
            })
        });
        let before = calm();
        for _ in 0..10 {
            calm();
        }
        assert!(before > begun, "its runtime stays");
        for asked in asked {
            asked.join().expect("as it should be");
        }
    });
    // What one has done to its globals no other sees.
    assert!(calm() > begun + 10);
    let log = std::fs::read_to_string(node.data.with_extension("log")).unwrap_or_default();
    assert!(!log.contains("this is a bug"), "{log}");
}

#[test]
fn bodies_stream_work_goes_on_and_timers_are_handled() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = workers(&node).expect("an address");
    let code = "export default { async fetch(request, env, ctx) {
        const { pathname } = new URL(request.url);
        if (pathname === '/echo') return new Response(request.body);
        if (pathname === '/upper') return new Response(request.body.pipeThrough(new TextDecoderStream()).pipeThrough(
            new TransformStream({ transform(chunk, out) { out.enqueue(chunk.toUpperCase()); } })));
        if (pathname === '/later') ctx.waitUntil((async () => { await scheduler.wait(50); await env.KV.put('later', 'done'); })());
        if (pathname === '/slow') { let n = 0; return new Response(new ReadableStream({ async pull(to) {
            await scheduler.wait(10); n++ < 5 ? to.enqueue(new TextEncoder().encode(n)) : to.close(); } })); }
        return new Response(await env.KV.get('later'));
    } }";
    deploy_code(&node, "flow", code, json!({ "bindings": [kv(&namespace(&node))] }));
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| b'a' + (n % 23) as u8).collect();
    let echo = ask(at, "flow", "POST", "/echo", "", &large);
    assert!(echo.status == 200 && echo.body == large);
    let small = large.get(..50_000).expect("enough");
    assert_eq!(ask(at, "flow", "POST", "/upper", "", small).body, small.to_ascii_uppercase());
    assert_eq!(get(at, "flow", "/slow").1, "12345");
    assert_eq!(get(at, "flow", "/later").0, 200);
    eventually("what was begun is done", || (get(at, "flow", "/").1 == "done").then_some(()));
}

#[test]
fn a_visitor_who_moves_reads_their_own_writes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let first = Node::start(&directory.path().join("first"), &["--pop", "FRA"]);
    let second = first.join(&directory.path().join("second"), &["--pop", "SIN"]);
    let code = "export default { async fetch(request, env) {
        if (request.method === 'PUT') { await env.KV.put('cart', await request.text()); return new Response(request.cf.colo); }
        return new Response(await env.KV.get('cart'));
    } }";
    deploy_code(&first, "cart", code, json!({ "bindings": [kv(&namespace(&first))] }));
    let (here, there) = (workers(&first).expect("an address"), workers(&second).expect("an address"));
    assert_eq!(get(there, "cart", "/").0, 200);
    for n in 0..20 {
        let value = format!("{n} apples");
        let put = ask(here, "cart", "PUT", "/", "", value.as_bytes());
        assert_eq!((put.status, &put.body[..]), (200, &b"FRA"[..]));
        let bookmark = put.header("starling-bookmark").expect("it wrote").to_owned();
        let got = ask(there, "cart", "GET", "/", &format!("starling-bookmark: {bookmark}\r\n"), b"");
        assert_eq!(String::from_utf8_lossy(&got.body), value);
    }
    let host = format!("cart.workers.localhost:{}", here.port());
    assert_eq!(visit(here, &host, "starling-bookmark: nonsense\r\n").status, 400);
}

/// An example's script, deployed as `examples/deploy` deploys it.
fn example(node: &Node, name: &str, code: &str) -> SocketAddr {
    deploy_code(node, name, code, json!({ "bindings": [kv(&namespace(node))] }));
    workers(node).expect("an address")
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

#[test]
fn a_cart_is_filled_and_emptied() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &["--pop", "FRA"]);
    let at = example(&node, "cart", include_str!("../../examples/cart/worker.mjs"));
    assert_eq!(text(&ask(at, "cart", "PUT", "/ann/apple", "", b"2")), r#"{"pop":"FRA","items":{"apple":2}}"#);
    assert_eq!(ask(at, "cart", "PUT", "/ann/apple", "", b"many").status, 400);
    assert_eq!(text(&ask(at, "cart", "DELETE", "/ann/apple", "", b"")), r#"{"pop":"FRA","items":{}}"#);
    assert!(get(at, "cart", "/").1.contains("<h1>Cart"));
}

#[test]
fn a_short_link_leads_where_it_should() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = example(&node, "url-shortener", include_str!("../../examples/url-shortener/worker.mjs"));
    let made = ask(at, "url-shortener", "POST", "/", "", b"https://example.com/x?y");
    assert_eq!(made.status, 201, "{made:?}");
    let slug = text(&made).trim().rsplit('/').next().expect("a slug").to_owned();
    let sent_on = ask(at, "url-shortener", "GET", &format!("/{slug}"), "", b"");
    assert_eq!((sent_on.status, sent_on.header("location")), (302, Some("https://example.com/x?y")));
    assert_eq!(get(at, "url-shortener", "/nosuchx").0, 404);
    assert_eq!(ask(at, "url-shortener", "POST", "/", "", b"javascript:alert(1)").status, 400);
}

#[test]
fn a_visitor_stays_in_a_group_of_a_test() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = example(&node, "ab-test", include_str!("../../examples/ab-test/worker.mjs"));
    assert_eq!(ask(at, "ab-test", "PUT", "/headline", "", b"1").status, 200);
    for _ in 0..20 {
        assert_eq!(ask(at, "ab-test", "GET", "/", "", b"").header("x-group"), Some("b"));
    }
    let stays = ask(at, "ab-test", "GET", "/", "Cookie: x=1; group=a\r\n", b"");
    assert_eq!((stays.header("x-group"), stays.header("set-cookie")), (Some("a"), None));
}

#[test]
fn a_session_holds_until_it_is_ended() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = example(&node, "auth", include_str!("../../examples/auth/worker.mjs"));
    let ann = br#"{"name":"ann","password":"correct horse"}"#;
    assert_eq!(ask(at, "auth", "POST", "/register", "", ann).status, 201);
    assert_eq!(ask(at, "auth", "POST", "/register", "", ann).status, 409);
    assert_eq!(ask(at, "auth", "POST", "/login", "", br#"{"name":"ann","password":"wrong"}"#).status, 401);
    let login = ask(at, "auth", "POST", "/login", "", ann).json();
    let session = format!("Cookie: session={}\r\n", login["token"].as_str().expect("a token"));
    assert_eq!(ask(at, "auth", "GET", "/", &session, b"").json()["name"], "ann");
    assert_eq!(ask(at, "auth", "GET", "/", "", b"").status, 401);
    assert_eq!(ask(at, "auth", "POST", "/logout", &session, b"").status, 200);
    assert_eq!(ask(at, "auth", "GET", "/", &session, b"").status, 401);
}
