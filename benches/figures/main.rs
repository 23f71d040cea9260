//! What Starling costs, beside the limit or the peer that it should be compared with, in one run.
//!
//! `cargo bench --bench figures` prints a table; `-- --json` one JSON object; `-- --quick` takes a tenth of the time.
//! The client shares the machine's cores with the server, on both sides of each ratio.
#![allow(clippy::disallowed_methods, reason = "measures time")]

mod bare;
#[path = "../../tests/flock/mod.rs"]
mod flock;
mod load;
mod spread;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use flock::{Node, agree};
use load::{Make, Seen, http, resp};

const CONNECTIONS: usize = 64;

struct Row {
    name: &'static str,
    figure: f64,
    unit: &'static str,
    beside: Option<(&'static str, f64)>,
    goal: Option<(Goal, f64)>,
}

#[derive(Clone, Copy)]
enum Goal {
    RatioAtLeast,
    AtMost,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        self.beside.map(|(_, beside)| self.figure / beside)
    }

    fn is_met(&self) -> Option<bool> {
        match self.goal? {
            (Goal::RatioAtLeast, goal) => Some(self.ratio()? >= goal),
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
        beside: Option<(&'static str, f64)>,
        goal: Option<(Goal, f64)>,
    ) {
        let row = Row { name, figure, unit, beside, goal };
        if !self.quiet {
            let figure = format!("{:.*} {unit}", usize::from(row.figure < 100.0) * 2, row.figure);
            let beside = row.beside.map_or(String::new(), |(what, beside)| {
                format!("{:>5.2} x {what} ({:.*})", row.figure / beside, usize::from(beside < 100.0) * 2, beside)
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
    if has(bare::SERVE) {
        return runtime.block_on(bare::serve());
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
                    "name": row.name, "figure": row.figure, "unit": row.unit, "ratio": row.ratio(),
                    "beside": row.beside.map(|(what, beside)| json!({ "name": what, "figure": beside })),
                    "goal_met": row.is_met(),
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "quick": quick, "figures": rows })).expect("JSON"));
    }
}

async fn run(figures: &mut Figures, quick: bool) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let time = Duration::from_secs(if quick { 1 } else { 8 });
    let scale = if quick { 10 } else { 1 };

    // Writes.
    let (dir, t) = (directory.path().join("engine-fsync"), time);
    let engine = tokio::task::spawn_blocking(move || bare::engine_puts(&dir, CONNECTIONS, t, true)).await.expect("ran");
    let node = Node::start(&directory.path().join("fsync"), &[]);
    let namespace = node.namespace("figures");
    let puts = load(&node, time, put(&node, &namespace)).await;
    figures.add(
        "durable puts through HTTP, 64 connections",
        puts.per_second,
        "/s",
        Some(("engine alone", engine)),
        Some((Goal::RatioAtLeast, 0.6)),
    );
    figures.add("  latency p50", puts.p50.as_secs_f64() * 1e3, "ms", None, None);
    figures.add("  latency p99", puts.p99.as_secs_f64() * 1e3, "ms", None, None);
    if let Some(redis) = bare::Redis::start(&directory.path().join("redis-always"), "always").await {
        let set = load::run(redis.address, CONNECTIONS, time, redis_set(), resp).await;
        figures.add("  beside Redis, appendfsync always", puts.per_second, "/s", Some(("Redis", set.per_second)), None);
    }
    drop(node);
    let (dir, t) = (directory.path().join("engine-os"), time);
    let engine =
        tokio::task::spawn_blocking(move || bare::engine_puts(&dir, CONNECTIONS, t, false)).await.expect("ran");
    let node = Node::start(&directory.path().join("os"), &["--durability", "os"]);
    let namespace = node.namespace("figures");
    let puts = load(&node, time, put(&node, &namespace)).await;
    figures.add("puts, --durability os", puts.per_second, "/s", Some(("engine alone", engine)), None);

    // Reads.
    let count = 100_000 / scale;
    bulk(&node, &namespace, 0, count);
    let bare = bare::Bare::start();
    let limit = load::run(bare.address, CONNECTIONS, time, get(&node, &namespace, 1), http).await;
    drop(bare);
    for (name, keys) in [("hot gets through HTTP", 1), ("random gets through HTTP", count)] {
        let gets = load(&node, time, get(&node, &namespace, keys)).await;
        figures.add(
            name,
            gets.per_second,
            "/s",
            Some(("bare handler", limit.per_second)),
            Some((Goal::RatioAtLeast, 0.75)),
        );
        figures.add("  latency p99", gets.p99.as_secs_f64() * 1e3, "ms", None, None);
    }
    if let Some(redis) = bare::Redis::start(&directory.path().join("redis"), "no").await {
        load::run(redis.address, 1, Duration::from_millis(50), redis_set(), resp).await;
        let hot: Make = Arc::new(|_| b"*2\r\n$3\r\nGET\r\n$16\r\nkey-000000000000\r\n".to_vec());
        let redis_gets = load::run(redis.address, CONNECTIONS, time, hot, resp).await;
        let gets = load(&node, time, get(&node, &namespace, 1)).await;
        figures.add("  beside Redis", gets.per_second, "/s", Some(("Redis", redis_gets.per_second)), None);
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

/// How fast a second node takes in what the first one writes, and how fast it catches up on what it has missed.
fn replication(figures: &mut Figures, directory: &std::path::Path, count: u64) {
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
fn million(figures: &mut Figures, directory: &std::path::Path, count: u64) {
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
