//! The engine on a real node: what keeps scripts apart, and what becomes of those that go too far.
#![allow(clippy::disallowed_methods, reason = "watches threads in real time")]

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::Request;
use tempfile::TempDir;

use super::*;
use crate::api::tests::backend;
use crate::config::Durability;
use crate::kv::AccountId;
use crate::node::Node;
use crate::worker::{Binding, ModuleKind, Program, Syntax, Workers};

struct World {
    engine: Embedded,
    node: Node,
    _directory: TempDir,
}

async fn world(threads: usize) -> World {
    let (node, directory) = backend("n1", None, Durability::Os).await;
    let files = Arc::new(Workers::new(node.kv().clone()));
    let engine = Embedded::start(threads, false, node.kv().clone(), Tails::default(), files).expect("an engine");
    World { engine, node, _directory: directory }
}

fn program(name: &str, code: &str) -> Arc<Program> {
    Arc::new(Program {
        account: AccountId([1; 16]),
        script: name.into(),
        life: [1; 16],
        version: name.into(),
        syntax: Syntax::Modules,
        modules: vec![crate::worker::Module {
            name: "w.mjs".into(),
            kind: ModuleKind::JavaScript,
            body: code.to_owned().into(),
        }],
        bindings: Vec::new(),
        compatibility_date: String::new(),
        compatibility_flags: Vec::new(),
        assets: None,
        cpu_ms: Some(300),
    })
}

/// Counts its requests, and may do harm. What is kept stays.
const CODE: &str = "let count = 0; const kept = [];
export default { async fetch(request) {
  switch (new URL(request.url).pathname) {
    case '/keep': kept.push('x'.repeat(30_000_000)); break;
    case '/loop': for (;;);
    case '/spin': for (const end = Date.now() + 250; Date.now() < end;); break;
    case '/stack': { const f = () => f() + 1; return new Response(f()); }
    case '/bytes': for (;;) kept.push(new Uint8Array(1_000_000));
    case '/wait': await scheduler.wait(60_000); break;
    case '/proto': Array.prototype.map = () => 'mine'; Object.prototype.status = 500; Promise.resolve = null; break;
    case '/see': return new Response([typeof Array.prototype.map, ({}).status, [1].map((n) => n + 1)].join());
  }
  return new Response(`${++count}`);
} }";

impl World {
    async fn ask(&self, program: &Arc<Program>, path: &str) -> Result<String, EngineError> {
        let request = Request::builder().uri(path).header("host", "script").body(Streamed::empty());
        let response = self.engine.fetch(program, request.expect("a request")).await?;
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn sweep(&self) {
        self.engine.shelf.sweep(&self.engine.ground.crew);
    }

    fn ended(&self, why: &str) -> u64 {
        self.sweep();
        self.engine.vitals().ended.get(why).copied().unwrap_or(0)
    }
}

/// So many visitors at once, each so often. The script says "ok".
async fn visit_often(world: &Arc<World>, program: &Arc<Program>, visitors: usize, times: usize) {
    let visitors = (0..visitors).map(|_| {
        let (world, program) = (Arc::clone(world), Arc::clone(program));
        tokio::spawn(async move {
            for n in 0..times {
                assert_eq!(world.ask(&program, "/").await.as_deref(), Ok("ok"), "visit {n}");
            }
        })
    });
    for visitor in visitors.collect::<Vec<_>>() {
        visitor.await.expect("all were answered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_visits_that_wait_for_nothing_none_is_taken_for_one_that_hangs() {
    let world = Arc::new(world(4).await);
    let program = program("quick", "export default { fetch() { return new Response('ok') } }");
    world.engine.prepare(vec![Arc::clone(&program)]);
    visit_often(&world, &program, 16, 1_500).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_wait_for_what_computes_after_it_in_the_same_turn() {
    let world = Arc::new(world(1).await);
    let program = program("mixed", CODE);
    world.engine.prepare(vec![Arc::clone(&program)]);
    assert_eq!(world.ask(&program, "/").await.as_deref(), Ok("1"));
    let mut answered = Vec::new();
    // While the first one computes, the others get in line.
    for path in ["/spin", "/", "/spin"] {
        let (world, program) = (Arc::clone(&world), Arc::clone(&program));
        answered.push(tokio::spawn(async move { world.ask(&program, path).await.map(|_| Instant::now()) }));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut at = Vec::new();
    for visit in answered {
        at.push(visit.await.expect("it runs").expect("an answer"));
    }
    assert!(at[1] > at[0] - Duration::from_millis(50), "the second one waits for the first");
    let ahead = at[2].saturating_duration_since(at[1]);
    assert!(ahead > Duration::from_millis(100), "told {ahead:?} before the third, which computes for 250 ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_takes_to_load_a_script_is_on_no_visitors_account() {
    let world = world(1).await;
    let code = "for (const end = Date.now() + 400; Date.now() < end;);
        export default { fetch() { for (let i = 0; i < 1e5; i++); return new Response('ok') } }";
    let program = program("slow to load", code);
    world.engine.prepare(vec![Arc::clone(&program)]);
    assert_eq!(world.ask(&program, "/").await.as_deref(), Ok("ok"), "a visit may compute for 300 ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_short_way_to_a_text_has_the_answers_and_the_bound_of_the_long_one() {
    let world = world(1).await;
    let namespace = world.node.kv().create_namespace(AccountId([1; 16]), "kv").await.expect("a namespace").id;
    let code = r#"export default { async fetch(request, env) {
        await env.KV.put("text", "\ufeffvalue");
        const long = { type: "text" }, said = [];
        for (const key of ["text", "missing"]) said.push(await env.KV.get(key), (await env.KV.get(key)) === (await env.KV.get(key, long)));
        for (const key of ["", ".", "x".repeat(513)]) {
            const told = (options) => env.KV.get(key, options).then(() => "nothing", (error) => `${error}`);
            said.push((await told()) !== "nothing" && (await told()) === (await told(long)));
        }
        let count = 0;
        try { for (; count < 2000; count++) await env.KV.get("text"); } catch (error) { said.push(`${error}`.includes("Too many API requests"), count); }
        return new Response(said.join());
    } }"#;
    let mut program = Arc::into_inner(program("short", code)).expect("it is nobody else's");
    program.bindings = vec![("KV".into(), Binding::Kv(namespace))];
    let program = Arc::new(program);
    world.engine.prepare(vec![Arc::clone(&program)]);
    // One put and six gets before them; what is refused before it is asked for does not count.
    assert_eq!(world.ask(&program, "/").await.as_deref(), Ok("value,true,,true,true,true,true,true,993"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_are_told_apart_counted_and_followed_by_a_fresh_runtime() {
    let world = world(2).await;
    let cases = [("/loop", "cpu"), ("/bytes", "memory")];
    for (path, why) in cases {
        let program = program(why, CODE);
        world.engine.prepare(vec![Arc::clone(&program)]);
        assert_eq!(world.ask(&program, "/").await.as_deref(), Ok("1"));
        let failed = world.ask(&program, path).await.expect_err("it goes too far");
        assert!(
            matches!((why, &failed), ("cpu", EngineError::Cpu { .. }) | ("memory", EngineError::Memory)),
            "{failed}"
        );
        assert_eq!(world.ask(&program, "/").await.as_deref(), Ok("1"), "a fresh runtime after {path}");
        assert_eq!(world.ended(why), 1, "{why}: {:?}", world.engine.vitals());
        // The third time it rests.
        for _ in 0..2 {
            assert!(world.ask(&program, path).await.is_err());
        }
        let resting = world.ask(&program, "/").await;
        assert!(matches!(resting, Err(EngineError::Resting { .. })), "{resting:?}");
    }
    let deep = program("stack", CODE);
    world.engine.prepare(vec![Arc::clone(&deep)]);
    assert_eq!(world.ask(&deep, "/").await.as_deref(), Ok("1"));
    assert_eq!(world.ask(&deep, "/stack").await, Err(EngineError::Threw));
    assert_eq!(world.ask(&deep, "/").await.as_deref(), Ok("2"), "a RangeError costs nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_in_demand_gets_a_runtime_for_each_thread_and_no_more() {
    let code =
        "export default { fetch() { let n = 0; for (let i = 0; i < 20_000; i++) n += i; return new Response('ok') } }";
    for threads in [1, 3] {
        let world = Arc::new(world(threads).await);
        let program = program("busy", code);
        world.engine.prepare(vec![Arc::clone(&program)]);
        assert_eq!(world.ask(&program, "/").await.as_deref(), Ok("ok"));
        assert_eq!(world.engine.shelf.isolates().len(), 1, "one visitor needs one");
        visit_often(&world, &program, 32, 50).await;
        // On a slow machine one may have been taken for stuck meanwhile, and given up.
        world.sweep();
        let runtimes = world.engine.shelf.isolates().len();
        assert!(runtimes <= threads && runtimes >= threads.min(2), "{runtimes} runtimes on {threads} threads");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_waits_for_a_visit_that_it_was_promised_to() {
    let world = world(1).await;
    let program = program("promised", CODE);
    world.engine.prepare(vec![Arc::clone(&program)]);
    let isolate = world.engine.shelf.isolate(&program.version, &world.engine.ground).expect("a runtime");
    assert!(isolate.is_busy(), "whoever clears the shelf now leaves it somebody who ends what is late");
    assert_eq!(world.ask(&program, "/").await.as_deref(), Ok("1"));
    assert!(isolate.is_busy(), "another visit is not the one that was promised");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_takes_too_long_is_left() {
    let world = world(2).await;
    let program = program("slow", CODE);
    world.engine.prepare(vec![Arc::clone(&program)]);
    let asked = |_: &Visit| Asked::Fetch {
        method: hyper::Method::GET,
        url: "http://script/wait".into(),
        headers: String::new(),
        source: None,
        len: None,
        cf: None,
    };
    let (begun, patience) = (Instant::now(), Duration::from_secs(1));
    let left = world.engine.have(&program, 0, None, patience, asked).await.map(drop);
    assert_eq!(left, Err(EngineError::Slow { limit_secs: 1 }));
    assert_eq!(world.ask(&program, "/").await.as_deref(), Ok("1"));
    while world.engine.shelf.isolates().iter().any(|isolate| isolate.is_busy()) {
        // The last answer is there a moment before its visit is over; the one that was left would wait for a minute.
        assert!(begun.elapsed() < Duration::from_secs(30), "something of it goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_script_does_to_its_globals_no_other_sees() {
    let world = world(2).await;
    let (bad, good) = (program("bad", CODE), program("good", CODE));
    world.engine.prepare(vec![Arc::clone(&bad), Arc::clone(&good)]);
    assert_eq!(world.ask(&good, "/see").await.as_deref(), Ok("function,,2"));
    // The platform itself goes on working for the one that spoiled what is its own, as far as that lets it.
    let spoiled = world.ask(&bad, "/proto").await;
    assert!(spoiled.is_ok() || spoiled == Err(EngineError::Threw), "{spoiled:?}");
    for _ in 0..3 {
        assert_eq!(world.ask(&good, "/see").await.as_deref(), Ok("function,,2"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_script_keeps_nobody_waiting() {
    let world = Arc::new(world(1).await);
    let (busy, quick) = (program("busy", CODE), program("quick", CODE));
    world.engine.prepare(vec![Arc::clone(&busy), Arc::clone(&quick)]);
    world.ask(&quick, "/").await.expect("an answer");
    let spinning: Vec<_> = (0..4)
        .map(|_| {
            let (world, busy) = (Arc::clone(&world), Arc::clone(&busy));
            tokio::spawn(async move { world.ask(&busy, "/spin").await.is_ok() })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    for _ in 0..10 {
        world.ask(&quick, "/").await.expect("an answer");
    }
    // There is but one thread, which the busy one had: ten answers take less time than it had left.
    let took = begun.elapsed();
    let is_spinning = spinning.iter().any(|task| !task.is_finished());
    assert!(is_spinning || took < Duration::from_secs(1), "{took:?}");
    for task in spinning {
        task.await.expect("it ends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_memory_is_short_those_asked_longest_ago_lose_their_runtime_until_they_are_asked_again() {
    let world = world(2).await;
    let programs: Vec<_> = (0..22).map(|n| program(&format!("s{n}"), CODE)).collect();
    world.engine.prepare(programs.clone());
    for program in &programs {
        assert_eq!(world.ask(program, "/keep").await.as_deref(), Ok("1"));
        world.sweep();
    }
    // 30 MB each is more than there is for all.
    world.sweep();
    let vitals = world.engine.vitals();
    assert!(vitals.runtimes < programs.len() && vitals.memory_bytes <= shelf::HEAPS_LEN_MAX as u64, "{vitals:?}");
    assert!(world.ended("evicted") > 0, "{vitals:?}");
    assert_eq!(world.ask(&programs[21], "/").await.as_deref(), Ok("2"), "the last one stays");
    assert_eq!(world.ask(&programs[0], "/").await.as_deref(), Ok("1"), "the first one is back, anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_the_engine_itself_costs_one_script_its_runtime() {
    let world = Arc::new(world(2).await);
    let (unlucky, other) = (program("unlucky", CODE), program("other", CODE));
    world.engine.prepare(vec![Arc::clone(&unlucky), Arc::clone(&other)]);
    for program in [&unlucky, &other] {
        assert_eq!(world.ask(program, "/").await.as_deref(), Ok("1"));
    }
    let waiting = {
        let (world, unlucky) = (Arc::clone(&world), Arc::clone(&unlucky));
        tokio::spawn(async move { world.ask(&unlucky, "/wait").await })
    };
    let isolate = loop {
        let isolates = world.engine.shelf.isolates().into_iter();
        let waits = |isolate: &Arc<Isolate>| {
            isolate.program.version == "unlucky" && isolate.visits().iter().any(|visit| visit.is_awaited())
        };
        let busy = isolates.into_iter().find(waits);
        match busy {
            Some(isolate) => break isolate,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    // As the crew tells it when a turn of it has panicked: see `crew`.
    crew::Turn::broke(&*isolate);
    assert_eq!(waiting.await.expect("an end"), Err(EngineError::Lost));
    assert_eq!(world.ask(&unlucky, "/").await.as_deref(), Ok("1"), "a fresh runtime");
    assert_eq!(world.ask(&other, "/").await.as_deref(), Ok("2"), "the other one's own");
    assert_eq!(world.ended("crash"), 1);
}
