//! The drill: three nodes, a real data set loaded in bulk through one while single writes go through the others; one is
//! killed in the middle and started again, another stands still for a minute. At the end all three must hold the same,
//! and every acknowledged write must be readable at every node.
//!
//! `tests/drill/run` runs it and prints its figures; `tests/drill/run --entries 20000 --still 10` is a shorter one.
#![allow(clippy::disallowed_methods, reason = "measures time")]

mod data;
#[path = "../flock/mod.rs"]
mod flock;
mod writer;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use flock::{Node, agree, connected, eventually};
use serde_json::{Value as Json, json};

use data::Entry;

/// Pairs of one bulk request at most, and about how many bytes.
const BATCH_PAIRS: usize = 1000;
const BATCH_LEN: usize = 4 << 20;
/// Keys of one bulk read, the most that the API takes.
const READ_KEYS: usize = 100;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = |flag: &str, default: u64| {
        let at = args.iter().position(|arg| arg == flag);
        at.map_or(default, |at| args.get(at + 1).and_then(|text| text.parse().ok()).expect("a number after the flag"))
    };
    let (count, still) = (number("--entries", 120_000) as usize, Duration::from_secs(number("--still", 60)));
    let directory = tempfile::tempdir().expect("a temporary directory");
    drill(directory.path(), count, still);
}

fn drill(directory: &Path, count: usize, still: Duration) {
    let (entries, source) = data::collect(count);
    let bytes: usize = entries.iter().map(|entry| entry.value.len()).sum();
    say("data set", format!("{} entries, {} of values: {source}", entries.len(), mib(bytes as u64)));
    let a = Node::start(&directory.join("a"), &["--pop", "AMS"]);
    let mut b = a.join(&directory.join("b"), &["--pop", "FRA"]);
    let c = a.join(&directory.join("c"), &["--pop", "LHR"]);
    connected(&[&a, &b, &c]);
    let namespace = a.namespace("drill");
    for node in [&b, &c] {
        eventually("the namespace arrives", || (node.ask("GET", &namespace, "").status == 200).then_some(()));
    }

    let (loaded, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (at_b, at_c) = (Mutex::new(b.api), Mutex::new(c.api));
    let (token_b, token_c) = (b.token.clone(), c.token.clone());
    let start = Instant::now();
    let (loading, singles) = thread::scope(|scope| {
        let (namespace, stop) = (&*namespace, &stop);
        let (a, entries, loaded) = (&a, &entries, &loaded);
        // Paced, so that most of the load falls into the time in which one node stands still.
        let pause = still.mul_f64(BATCH_PAIRS as f64 / (0.6 * entries.len() as f64));
        let loader = scope.spawn(move || load(a, namespace, entries, pause, loaded));
        let writers = [
            scope.spawn(|| writer::run("b", &at_b, &token_b, namespace, stop)),
            scope.spawn(|| writer::run("c", &at_c, &token_c, namespace, stop)),
        ];
        let until = |tenths: usize| {
            while loaded.load(Ordering::Relaxed) < entries.len() * tenths / 10 {
                assert!(!loader.is_finished(), "the loader has given up");
                thread::sleep(Duration::from_millis(20));
            }
        };
        until(2);
        b.kill();
        say("b", format!("killed with {} entries loaded", loaded.load(Ordering::Relaxed)));
        thread::sleep(Duration::from_secs(2));
        let time = b.restart();
        *at_b.lock().expect("a lock") = b.api;
        say("b", format!("serves again, on other ports, after {}", ms(time)));
        until(3);
        c.signal("STOP");
        say(
            "c",
            format!("stands still for {} s, with {} entries loaded", still.as_secs(), loaded.load(Ordering::Relaxed)),
        );
        thread::sleep(still);
        c.signal("CONT");
        say("c", format!("goes on, with {} entries loaded", loaded.load(Ordering::Relaxed)));
        let loading = loader.join().expect("the loader ends well");
        thread::sleep(Duration::from_secs(3));
        stop.store(true, Ordering::Relaxed);
        (loading, writers.map(|writer| writer.join().expect("a writer ends well")))
    });
    say(
        "bulk load",
        format!("{:.0} entries/s through a, one request at a time", entries.len() as f64 / loading.as_secs_f64()),
    );
    for written in &singles {
        say("single writes", written.to_string());
    }
    let waited = agree(&[&a, &b, &c]);
    say("agreement", format!("{} after the last write", ms(waited)));
    let total = start.elapsed();

    let reading = Instant::now();
    let mut acknowledged: Vec<(&str, &str)> = entries.iter().map(|entry| (&*entry.key, &*entry.value)).collect();
    acknowledged
        .extend(singles.iter().flat_map(|written| &written.acknowledged).map(|(key, value)| (&**key, &**value)));
    thread::scope(|scope| {
        for node in [&a, &b, &c] {
            let (namespace, acknowledged) = (&namespace, &acknowledged);
            scope.spawn(move || check(node, namespace, acknowledged));
        }
    });
    let reads = 3 * acknowledged.len();
    say(
        "readable",
        format!(
            "all {} acknowledged writes at all three nodes, {reads} reads in {}",
            acknowledged.len(),
            ms(reading.elapsed())
        ),
    );
    for (name, node) in [("a", &a), ("b", &b), ("c", &c)] {
        let status = node.status();
        let counted = |name: &str| status["counters"][name].as_u64().unwrap_or(0);
        assert_eq!(counted("marker_conflicts") + counted("bad_messages"), 0, "{status}");
        say(
            name,
            format!(
                "digest {}, {} entries, {} on disk, {} in memory; {} records synced in {} sessions",
                status["digest"].as_str().unwrap_or_default(),
                status["entries"],
                mib(status["disk_bytes"].as_u64().unwrap_or(0)),
                mib(node.rss()),
                counted("records_synced"),
                counted("syncs_completed"),
            ),
        );
    }
    say("the drill", format!("passed, in {}", ms(total)));
}

/// Loads everything through one node, one bulk request after the other, each of which must succeed. Returns the time
/// that the requests took.
fn load(node: &Node, namespace: &str, entries: &[Entry], pause: Duration, loaded: &AtomicUsize) -> Duration {
    let mut took = Duration::ZERO;
    let mut client = node.client();
    let mut rest = entries;
    while !rest.is_empty() {
        let mut len = 0;
        let fits = |entry: &&Entry| {
            len += entry.value.len();
            len <= BATCH_LEN
        };
        let count = rest.iter().take(BATCH_PAIRS).take_while(fits).count().max(1);
        let (batch, later) = rest.split_at(count);
        let pairs: Vec<Json> = batch.iter().map(|entry| json!({ "key": entry.key, "value": entry.value })).collect();
        let body = serde_json::to_vec(&pairs).expect("JSON");
        let start = Instant::now();
        let done = client.ask("PUT", &format!("{namespace}/bulk"), &body).expect("an answer").result();
        assert_eq!(done["successful_key_count"], count);
        took += start.elapsed();
        loaded.fetch_add(count, Ordering::Relaxed);
        rest = later;
        thread::sleep(pause);
    }
    took
}

/// Every pair must be there, byte for byte.
fn check(node: &Node, namespace: &str, pairs: &[(&str, &str)]) {
    let mut client = node.client();
    for batch in pairs.chunks(READ_KEYS) {
        let keys: Vec<&str> = batch.iter().map(|(key, _)| *key).collect();
        let body = json!({ "keys": keys }).to_string();
        let found = client.ask("POST", &format!("{namespace}/bulk/get"), body.as_bytes()).expect("an answer").result();
        for (key, value) in batch {
            assert!(found["values"][*key] == **value, "{key} at {}: {}", node.id, found["values"][*key]);
        }
    }
}

fn say(what: &str, how: String) {
    println!("{what:<14} {how}");
}

fn ms(time: Duration) -> String {
    match time.as_millis() {
        ms if ms < 10_000 => format!("{ms} ms"),
        ms => format!("{:.1} s", ms as f64 / 1e3),
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}
