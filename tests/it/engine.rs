//! Workers on the embedded engine: what they find, what they may not do, and that it costs themselves alone.
#![allow(clippy::disallowed_methods, reason = "watches processes in real time")]

use std::time::{Duration, Instant};

use serde_json::json;

use super::scripts::{CODE, ask, deploy, deploy_code, get, kv, namespace};
use super::workers::{visit, workers};
use crate::flock::{Node, eventually};

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
    // What can be told without running it is told whoever deploys it, and what was there before stays.
    deploy_code(&node, "sound", "export default { fetch() { return new Response('sound') } }", json!({}));
    for (code, reasons) in [
        ("export default {\n  fetch( {\n}", &["Uncaught SyntaxError", "w.mjs:3"][..]),
        ("import 'node:fs'; export default {}", &["--worker-engine workerd"]),
        ("import './none.mjs'; export default {}", &["./none.mjs", "No such module"]),
    ] {
        let refused = deploy(&node, "sound", &[("w.mjs", CODE, code)], json!({}));
        let text = refused.text();
        assert!(refused.status == 400 && text.contains("10021"), "{text}");
        assert!(reasons.iter().all(|reason| text.contains(reason)), "{text}");
    }
    assert_eq!(get(at, "sound", "/"), (200, "sound".into()));
    for (code, reason) in [
        ("setTimeout(() => {}, 1); export default {}", "global scope"),
        ("for (;;);", "computed for more than"),
        ("await new Promise(() => {}); export default {}", "top-level await"),
        ("undefined.x; export default {}", "w.mjs:1"),
    ] {
        deploy_code(&node, "broken", code, json!({}));
        let told = eventually("the script is loaded", || {
            let (status, text) = get(at, "broken", "/");
            (status == 500 && text.contains(reason)).then_some(text)
        });
        assert!(told.contains("can't be loaded") || told.contains("1101"), "{told}");
    }
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
            new TransformStream({ transform(chunk, out) { out.enqueue(chunk.toUpperCase()); } })).pipeThrough(new TextEncoderStream()));
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
