//! One client that writes one value after another to one node, whatever becomes of that node.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::flock::Client;

/// Between two writes, as a client would that has other things to do.
const PAUSE: Duration = Duration::from_millis(1);

/// What a writer did.
pub struct Written {
    name: &'static str,
    /// Keys and values of the writes that were acknowledged.
    pub acknowledged: Vec<(String, String)>,
    /// Writes without an answer: whether they were done is unknown.
    unanswered: usize,
    /// Sorted.
    latencies: Vec<Duration>,
}

/// Writes until `stop`; `address` may change when the node is started again.
pub fn run(
    name: &'static str,
    address: &Mutex<SocketAddr>,
    token: &str,
    namespace: &str,
    stop: &AtomicBool,
) -> Written {
    let mut written = Written { name, acknowledged: Vec::new(), unanswered: 0, latencies: Vec::new() };
    let connect = || Client::new(*address.lock().expect("a lock"), token);
    let mut client = connect();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        // A key is never used again: after a write without an answer its value is anyone's guess.
        number += 1;
        let (key, value) = (format!("single/{name}/{number:08}"), format!("write {number} through {name}"));
        let start = Instant::now();
        match client.ask("PUT", &format!("{namespace}/values/{}", key.replace('/', "%2F")), value.as_bytes()) {
            Ok(answer) => {
                answer.result();
                written.latencies.push(start.elapsed());
                written.acknowledged.push((key, value));
                thread::sleep(PAUSE);
            }
            Err(_) => {
                written.unanswered += 1;
                thread::sleep(Duration::from_millis(100));
                client = connect();
            }
        }
    }
    written.latencies.sort_unstable();
    written
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |share: f64| {
            let at = (self.latencies.len() as f64 * share) as usize;
            self.latencies.get(at).copied().unwrap_or_default().as_secs_f64() * 1e3
        };
        let Self { name, acknowledged, unanswered, latencies } = self;
        write!(
            f,
            "{} through {name} acknowledged, {unanswered} without an answer; p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            acknowledged.len(),
            at(0.5),
            at(0.99),
            latencies.last().copied().unwrap_or_default().as_secs_f64() * 1e3,
        )
    }
}
