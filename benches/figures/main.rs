//! What Starling costs, beside the limit or the peer that it should be compared with, in one run.
//!
//! `cargo bench --bench figures` prints a table; `-- --json` one JSON object; `-- --quick` takes a tenth of the time.
//! The client shares the machine's cores with the server, on both sides of each ratio, and what is compared is measured in
//! turn: the figure and what is beside it are medians, and so is the ratio of the rounds.
#![allow(clippy::disallowed_methods, reason = "measures time")]

mod bare;
#[path = "../../tests/flock/mod.rs"]
mod flock;
mod load;
mod spread;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use flock::{Node, agree};
use load::{Make, Seen, http, resp};

/// As the program has it: what it is compared with gets the same.
#[global_allocator]
static MEMORY: starling::allocator::BySize = starling::allocator::BySize;

const CONNECTIONS: usize = 64;
/// How often two that are compared take turns.
const ROUNDS: u32 = 5;

struct Row {
    name: &'static str,
    figure: f64,
    unit: &'static str,
    beside: Option<Beside>,
    goal: Option<(Goal, f64)>,
}

/// What a figure is compared with, how much that does, and the ratio of the two.
#[derive(Clone, Copy)]
struct Beside {
    what: &'static str,
    figure: f64,
    ratio: f64,
}

#[derive(Clone, Copy)]
enum Goal {
    RatioAtLeast,
    AtMost,
}

impl Row {
    fn is_met(&self) -> Option<bool> {
        match self.goal? {
            (Goal::RatioAtLeast, goal) => Some(self.beside?.ratio >= goal),
            (Goal::AtMost, goal) => Some(self.figure <= goal),
        }
    }
}

struct Figures {
    rows: Vec<Row>,
    quiet: bool,
}

impl Figures {
    fn add(
        &mut self,
        name: &'static str,
        figure: f64,
        unit: &'static str,
        beside: Option<Beside>,
        goal: Option<(Goal, f64)>,
    ) {
        let row = Row { name, figure, unit, beside, goal };
        if !self.quiet {
            let figure = format!("{:.*} {unit}", usize::from(row.figure < 100.0) * 2, row.figure);
            let beside = row.beside.map_or(String::new(), |Beside { what, figure, ratio }| {
                format!("{ratio:>5.2} x {what} ({figure:.*})", usize::from(figure < 100.0) * 2)
            });
            let goal = row.goal.map_or(String::new(), |(goal, bound)| {
                let met = if row.is_met() == Some(true) { "met" } else { "MISSED" };
                match goal {
                    Goal::RatioAtLeast => format!("  goal >= {bound}: {met}"),
                    Goal::AtMost => format!("  goal <= {bound}: {met}"),
                }
            });
            println!("{name:<44} {figure:>16}  {beside}{goal}");
        }
        self.rows.push(row);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let Some(at) = args.iter().position(|arg| arg == bare::SERVE) {
        return runtime.block_on(bare::serve(args.get(at + 1).map(Path::new)));
    }
    let quick = has("--quick");
    let mut figures = Figures { rows: Vec::new(), quiet: has("--json") };
    runtime.block_on(run(&mut figures, quick));
    if figures.quiet {
        let rows: Vec<_> = figures
            .rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.name, "figure": row.figure, "unit": row.unit,
                    "ratio": row.beside.map(|beside| beside.ratio),
                    "beside": row.beside.map(|beside| json!({ "name": beside.what, "figure": beside.figure })),
                    "goal_met": row.is_met(),
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "quick": quick, "figures": rows })).expect("JSON"));
    }
}

async fn run(figures: &mut Figures, quick: bool) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let time = Duration::from_secs(if quick { 2 } else { 10 });
    let scale = if quick { 10 } else { 1 };
    let engine = bare::StorageEngine::open(&directory.path().join("engine"));
    let engine = async |time: Duration, sync: bool| {
        let engine = engine.clone();
        tokio::task::spawn_blocking(move || engine.puts(CONNECTIONS, time, sync)).await.expect("ran")
    };

    // Writes.
    let node = Node::start(&directory.path().join("fsync"), &[]);
    let namespace = node.namespace("figures");
    let ours = async |time| load(&node, time, put(&node, &namespace)).await;
    let (puts, beside) = in_turn("engine alone", time, async |time| engine(time, true).await, ours).await;
    let goal = Some((Goal::RatioAtLeast, 0.6));
    figures.add("durable puts through HTTP, 64 connections", puts.per_second, "/s", Some(beside), goal);
    figures.add("  latency p50", puts.p50.as_secs_f64() * 1e3, "ms", None, None);
    figures.add("  latency p99", puts.p99.as_secs_f64() * 1e3, "ms", None, None);
    // What the goal leaves room for: no tokens, no merging, no sealing, no index.
    let answer = load::ask(node.api, &put(&node, &namespace)(0), http).await;
    let bare = bare::Bare::start(&answer, Some(&directory.path().join("bare")));
    let make = put(&node, &namespace);
    let limit = async |time| load::run(bare.address, CONNECTIONS, time, make.clone(), http).await;
    let (limits, beside) = in_turn("engine alone", time, async |time| engine(time, true).await, limit).await;
    figures.add("  a bare handler that puts into the engine", limits.per_second, "/s", Some(beside), None);
    let limit = async |time| limit(time).await.per_second;
    let (puts, beside) = in_turn("bare handler over the engine", time, limit, ours).await;
    figures.add("  durable puts beside it", puts.per_second, "/s", Some(beside), None);
    drop(bare);
    if let Some(redis) = bare::Redis::start(&directory.path().join("redis-always"), "always").await {
        let set = async |time| load::run(redis.address, CONNECTIONS, time, redis_set(), resp).await.per_second;
        let (puts, beside) = in_turn("Redis", time, set, ours).await;
        figures.add("  beside Redis, appendfsync always", puts.per_second, "/s", Some(beside), None);
    }
    drop(node);
    let node = Node::start(&directory.path().join("os"), &["--durability", "os"]);
    let namespace = node.namespace("figures");
    let ours = async |time| load(&node, time, put(&node, &namespace)).await;
    let (puts, beside) = in_turn("engine alone", time, async |time| engine(time, false).await, ours).await;
    figures.add("puts, --durability os", puts.per_second, "/s", Some(beside), None);

    // Reads.
    let count = 100_000 / scale;
    bulk(&node, &namespace, 0, count);
    let bare = bare::Bare::start(&load::ask(node.api, &get(&node, &namespace, 1)(0), http).await, None);
    for (name, keys) in [("hot gets through HTTP", 1), ("random gets through HTTP", count)] {
        // The same requests, whoever is asked.
        let make = get(&node, &namespace, keys);
        let limit = async |time| load::run(bare.address, CONNECTIONS, time, make.clone(), http).await.per_second;
        let ours = async |time| load(&node, time, make.clone()).await;
        let (gets, beside) = in_turn("bare handler", time, limit, ours).await;
        figures.add(name, gets.per_second, "/s", Some(beside), Some((Goal::RatioAtLeast, 0.75)));
        figures.add("  latency p99", gets.p99.as_secs_f64() * 1e3, "ms", None, None);
    }
    drop(bare);
    if let Some(redis) = bare::Redis::start(&directory.path().join("redis"), "no").await {
        load::run(redis.address, 1, Duration::from_millis(50), redis_set(), resp).await;
        let hot: Make = Arc::new(|_| b"*2\r\n$3\r\nGET\r\n$16\r\nkey-000000000000\r\n".to_vec());
        let theirs = async |time| load::run(redis.address, CONNECTIONS, time, hot.clone(), resp).await.per_second;
        let ours = async |time| load(&node, time, get(&node, &namespace, 1)).await;
        let (gets, beside) = in_turn("Redis", time, theirs, ours).await;
        figures.add("  beside Redis", gets.per_second, "/s", Some(beside), None);
    }
    let path = format!("{namespace}/keys?limit=1000");
    let lists = load(&node, time, request(&node, "GET", path, Vec::new())).await;
    figures.add("lists of 1,000 keys", lists.per_second, "/s", None, None);
    let start = Instant::now();
    bulk(&node, &namespace, 10_000_000, 10_000);
    figures.add("bulk put of 10,000", start.elapsed().as_secs_f64() * 1e3, "ms", None, None);
    drop(node);

    replication(figures, directory.path(), 100_000 / scale);
    million(figures, directory.path(), 1_000_000 / scale);
    spread::run(figures, directory.path(), Duration::from_secs(if quick { 10 } else { 60 }));
}

/// Measures two in turn, for so long each: ours of the middle round, and how much the other does beside it.
async fn in_turn(
    what: &'static str,
    time: Duration,
    mut theirs: impl AsyncFnMut(Duration) -> f64,
    mut ours: impl AsyncFnMut(Duration) -> Seen,
) -> (Seen, Beside) {
    let (mut seen, mut besides, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let beside = theirs(time / ROUNDS).await;
        let round = ours(time / ROUNDS).await;
        ratios.push(round.per_second / beside);
        besides.push(beside);
        seen.push(round);
    }
    seen.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    besides.sort_by(f64::total_cmp);
    ratios.sort_by(f64::total_cmp);
    let middle = ROUNDS as usize / 2;
    (seen[middle], Beside { what, figure: besides[middle], ratio: ratios[middle] })
}

/// How fast a second node takes in what the first one writes, and how fast it catches up on what it has missed.
fn replication(figures: &mut Figures, directory: &Path, count: u64) {
    let first = Node::start(&directory.join("first"), &[]);
    let namespace = first.namespace("figures");
    let mut second = first.join(&directory.join("second"), &[]);
    agree(&[&first, &second]);
    let start = Instant::now();
    bulk(&first, &namespace, 0, count);
    agree(&[&first, &second]);
    figures.add(
        "replication ingest while written in bulk",
        count as f64 / start.elapsed().as_secs_f64(),
        "/s",
        None,
        None,
    );
    second.stop();
    bulk(&first, &namespace, count, count);
    second.restart();
    let start = Instant::now();
    agree(&[&first, &second]);
    let name = "catch-up of a node that missed the writes";
    figures.add(name, start.elapsed().as_secs_f64(), "s", None, Some((Goal::AtMost, 3.0)));
}

/// Memory and restart with many keys.
fn million(figures: &mut Figures, directory: &Path, count: u64) {
    let mut node = Node::start(&directory.join("million"), &[]);
    let namespace = node.namespace("figures");
    let start = Instant::now();
    bulk(&node, &namespace, 0, count);
    figures.add("bulk load of a million keys", count as f64 / start.elapsed().as_secs_f64(), "/s", None, None);
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    figures.add("RSS at a million keys", mib(node.rss()), "MiB", None, Some((Goal::AtMost, 200.0)));
    node.stop();
    let restart = node.restart();
    figures.add("restart at a million keys", restart.as_secs_f64(), "s", None, Some((Goal::AtMost, 2.0)));
    figures.add("  RSS after it", mib(node.rss()), "MiB", None, None);
}

async fn load(node: &Node, time: Duration, make: Make) -> Seen {
    load::run(node.api, CONNECTIONS, time, make, http).await
}

fn request(node: &Node, method: &str, path: String, body: Vec<u8>) -> Make {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        node.token,
        body.len()
    );
    let request = [head.into_bytes(), body].concat();
    Arc::new(move |_| request.clone())
}

fn put(node: &Node, namespace: &str) -> Make {
    let token = node.token.clone();
    let namespace = namespace.to_owned();
    Arc::new(move |number| {
        format!(
            "PUT {namespace}/values/{} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: 100\r\n\r\n{}",
            key(number),
            value(number)
        )
        .into_bytes()
    })
}

/// Keys in an order that no cache likes.
fn get(node: &Node, namespace: &str, keys: u64) -> Make {
    let token = node.token.clone();
    let namespace = namespace.to_owned();
    Arc::new(move |number| {
        let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
        format!("GET {namespace}/values/{} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n", key(number))
            .into_bytes()
    })
}

fn redis_set() -> Make {
    Arc::new(|number| {
        format!("*3\r\n$3\r\nSET\r\n$16\r\n{}\r\n$100\r\n{}\r\n", key(number), value(number)).into_bytes()
    })
}

/// Writes `count` pairs of 100 bytes from number `first` on, in requests of 10,000.
fn bulk(node: &Node, namespace: &str, first: u64, count: u64) {
    let mut number = first;
    while number < first + count {
        let end = (number + 10_000).min(first + count);
        let pairs: Vec<_> = (number..end).map(|n| json!({ "key": key(n), "value": value(n) })).collect();
        node.bulk(namespace, &pairs);
        number = end;
    }
}

fn key(number: u64) -> String {
    format!("key-{number:012}")
}

/// 100 bytes that don't compress to nothing.
fn value(number: u64) -> String {
    let digits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{digits:020}").repeat(5)
}
