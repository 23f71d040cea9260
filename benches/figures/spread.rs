//! Three nodes that have little to do: how soon a write is readable elsewhere, and what the idle flock costs.

use std::path::Path;
use std::time::{Duration, Instant};

use super::flock::{Node, agree, connected};
use super::{Figures, Goal, value};

/// Writes timed.
const WRITES: u64 = 200;
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(20);

pub fn run(figures: &mut Figures, directory: &Path, idle: Duration) {
    let a = Node::start(&directory.join("a"), &[]);
    let b = a.join(&directory.join("b"), &[]);
    let c = a.join(&directory.join("c"), &[]);
    connected(&[&a, &b, &c]);
    let namespace = a.namespace("spread");
    agree(&[&a, &b, &c]);
    let lags = lags(&a, &c, &namespace);
    let (p50, p99) = (at(&lags, 0.5), at(&lags, 0.99));
    figures.add("acknowledged at one, readable at another: p50", p50, "ms", None, Some((Goal::AtMost, 2.0)));
    figures.add("  p99", p99, "ms", None, Some((Goal::AtMost, 10.0)));
    let times = everywhere(&a, &namespace);
    figures.add("puts with acks: all, durable at three: p50", at(&times, 0.5), "ms", None, None);
    figures.add("  p99", at(&times, 0.99), "ms", None, Some((Goal::AtMost, 25.0)));

    // Lives are folded and watermarks follow before it is quiet.
    std::thread::sleep(Duration::from_secs(3));
    let nodes = [&a, &b, &c];
    let before = nodes.map(Node::cpu);
    let start = Instant::now();
    std::thread::sleep(idle);
    let elapsed = start.elapsed().as_secs_f64();
    let used = nodes.iter().zip(before).map(|(node, before)| node.cpu() - before);
    let busiest = used.max().unwrap_or_default().as_secs_f64() / elapsed * 100.0;
    figures.add("an idle node among three: of a core", busiest, "%", None, Some((Goal::AtMost, 1.0)));
    let largest = nodes.iter().map(|node| node.rss()).max().unwrap_or_default() as f64 / 1_048_576.0;
    figures.add("  RSS", largest, "MiB", None, Some((Goal::AtMost, 60.0)));
}

/// Milliseconds.
fn at(sorted: &[Duration], share: f64) -> f64 {
    sorted[(sorted.len() as f64 * share) as usize].as_secs_f64() * 1e3
}

/// How long puts take that are answered when every node has them on disk.
fn everywhere(writer: &Node, namespace: &str) -> Vec<Duration> {
    let mut client = writer.client();
    let mut put = |number: u64| {
        let path = format!("{namespace}/values/everywhere-{number}");
        let start = Instant::now();
        let answer = client.ask_with("PUT", &path, "starling-acks: all\r\n", value(number).as_bytes());
        answer.expect("an answer").result();
        let took = start.elapsed();
        std::thread::sleep(PAUSE);
        took
    };
    (0..10).for_each(|number| _ = put(number));
    let mut times: Vec<_> = (10..10 + WRITES).map(put).collect();
    times.sort_unstable();
    times
}

/// From the acknowledgement of each write to the first read elsewhere that sees it.
fn lags(writer: &Node, reader: &Node, namespace: &str) -> Vec<Duration> {
    let (mut writing, mut reading) = (writer.client(), reader.client());
    let mut lag = |number: u64| {
        let path = format!("{namespace}/values/lag-{number}");
        writing.ask("PUT", &path, value(number).as_bytes()).expect("an answer").result();
        let start = Instant::now();
        while reading.ask("GET", &path, b"").expect("an answer").status != 200 {}
        let lag = start.elapsed();
        std::thread::sleep(PAUSE);
        lag
    };
    // The first ones open connections.
    (0..10).for_each(|number| _ = lag(number));
    let mut lags: Vec<_> = (10..10 + WRITES).map(lag).collect();
    lags.sort_unstable();
    lags
}
