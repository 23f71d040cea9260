//! What sealing costs: the same node with values sealed and as they are, side by side in one run.
//!
//! `cargo bench --bench sealing`. Rounds alternate, so that what else the machine does hits both alike. Through the API
//! as clients use it, and through the local client alone, where there is nothing to hide behind. Beside the rates stand
//! the processor times an operation takes, client included: what a machine that does other things too can't blur.
#![allow(clippy::disallowed_methods, reason = "measures time")]

#[path = "figures/load.rs"]
#[allow(dead_code, reason = "Redis is measured elsewhere")]
mod load;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use starling::api::{self, ApiConfig};
use starling::config::{Config, Durability};
use starling::datadir::DataDir;
use starling::kv::{AeadSeal, Grants, Kv, NamespaceId, NewToken, PlainSeal, Put, Seal, Value};
use starling::node::Node;
use starling::operator::Operator;
use starling::worker::Workers;
use tokio::net::TcpListener;

const ROUNDS: usize = 25;
const ROUND: Duration = Duration::from_millis(400);
const CONNECTIONS: usize = 32;
const KEYS: u64 = 10_000;
const TOKEN: &str = "a-token-for-a-benchmark-0123456789-0123456789";

struct Subject {
    node: Node,
    _place: (DataDir, tempfile::TempDir),
    address: SocketAddr,
    account: String,
    namespace: NamespaceId,
}

impl Subject {
    async fn start(is_sealed: bool) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = DataDir::open(&directory.path().join("data")).expect("a data directory");
        let gossip = "127.0.0.1:0".parse().expect("an address");
        let config = Config { gossip, durability: Durability::Os, ..Config::default() };
        let node = Node::start_sealed_by(&config, &data, |keyring| match is_sealed {
            true => Arc::new(AeadSeal::new(keyring)) as Arc<dyn Seal>,
            false => Arc::new(PlainSeal),
        });
        let node = node.await.expect("a node");
        let account = node.account();
        let new = NewToken { account, name: "bench".into(), grants: Grants::all(), expires_ms: 0 };
        node.kv().add_token(TOKEN, new).await.expect("a token");
        let namespace = node.kv().create_namespace(account, "bench").await.expect("a namespace").id;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let api = ApiConfig {
            dev: false,
            pop: None,
            node: "bench".into(),
            account,
            workers_url: None,
            tls: None,
            failures: Arc::default(),
            quotas: Default::default(),
        };
        let (kv, operator) = (node.kv().clone(), Operator::new(&node, None, Durability::Os));
        tokio::spawn(api::serve(listener, kv.clone(), operator, Workers::new(kv), api, std::future::pending()));
        Self { node, _place: (data, directory), address, account: account.to_string(), namespace }
    }

    fn request(&self, method: &str, body: Option<usize>) -> load::Make {
        let (method, account, namespace) = (method.to_owned(), self.account.clone(), self.namespace);
        let body = body.map_or(String::new(), text);
        Arc::new(move |number| {
            format!(
                "{method} /client/v4/accounts/{account}/storage/kv/namespaces/{namespace}/values/{} HTTP/1.1\r\n\
                 Host: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {}\r\n\r\n{body}",
                key(number),
                body.len()
            )
            .into_bytes()
        })
    }

    /// Reads per second of one task.
    async fn gets(&self) -> f64 {
        let (kv, start, mut number) = (self.node.kv(), Instant::now(), 0);
        while start.elapsed() < ROUND {
            for _ in 0..64 {
                let found = kv.get(self.namespace, key(number).as_bytes()).await.expect("reads").expect("is there");
                assert!(matches!(found.value, Value::Inline(_)));
                number += 1;
            }
        }
        number as f64 / start.elapsed().as_secs_f64()
    }

    /// Writes per second of many tasks.
    async fn puts(&self, len: usize) -> f64 {
        let (start, value) = (Instant::now(), Bytes::from(text(len)));
        let tasks: Vec<_> = (0..CONNECTIONS as u64)
            .map(|task| tokio::spawn(put_for_a_while(self.node.kv().clone(), self.namespace, task, value.clone())))
            .collect();
        let mut total = 0;
        for task in tasks {
            total += task.await.expect("a task ends well");
        }
        total as f64 / start.elapsed().as_secs_f64()
    }
}

async fn put_for_a_while(kv: Kv, namespace: NamespaceId, task: u64, value: Bytes) -> u64 {
    let (start, mut number) = (Instant::now(), 0);
    while start.elapsed() < ROUND {
        let put = Put { value: value.clone(), metadata: None, expiration: None };
        kv.put(namespace, key(task * 1000 + number).as_bytes(), put).await.expect("written");
        number += 1;
    }
    number
}

/// Text that does not compress to nothing, in another order for each length: sealed bytes don't compress at all.
fn text(len: usize) -> String {
    let mut hash = blake3::Hasher::new().finalize_xof();
    let mut bytes = vec![0; len.div_ceil(2)];
    hash.fill(&mut bytes);
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(len);
    text
}

fn key(number: u64) -> String {
    format!("key-{:012}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS)
}

fn main() {
    // Started by `cargo test --benches` too: nothing to measure then.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    tokio::runtime::Runtime::new().expect("a runtime").block_on(run());
}

async fn run() {
    let subjects = [Subject::start(true).await, Subject::start(false).await];
    for subject in &subjects {
        for number in 0..KEYS {
            let put = Put { value: Bytes::from(text(100)), metadata: None, expiration: None };
            let key = format!("key-{number:012}");
            subject.node.kv().put(subject.namespace, key.as_bytes(), put).await.expect("written");
        }
    }
    println!(
        "{:<36} {:>10} {:>10} {:>7} {:>12} {:>12} {:>7}",
        "", "sealed /s", "plain /s", "ratio", "sealed cpu", "plain cpu", "ratio"
    );
    compare("gets of 100 bytes through HTTP", &subjects, async |subject: &Subject| {
        load::run(subject.address, CONNECTIONS, ROUND, subject.request("GET", None), load::http).await.per_second
    })
    .await;
    for len in [100, 10_000] {
        compare(&format!("puts of {len} bytes through HTTP"), &subjects, async |subject: &Subject| {
            let make = subject.request("PUT", Some(len));
            load::run(subject.address, CONNECTIONS, ROUND, make, load::http).await.per_second
        })
        .await;
    }
    compare("gets, local client, one task", &subjects, async |subject: &Subject| subject.gets().await).await;
    compare("puts of 100 bytes, local client", &subjects, async |subject: &Subject| subject.puts(100).await).await;
}

/// The median rate over the rounds of each, and the processor time an operation took over all of them.
async fn compare(name: &str, subjects: &[Subject; 2], measure: impl AsyncFn(&Subject) -> f64) {
    let mut rates = [Vec::new(), Vec::new()];
    let mut operations = [0.0; 2];
    let mut cpu = [Duration::ZERO; 2];
    for round in 0..ROUNDS {
        // Whoever goes first alternates too.
        for which in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let (start, before) = (Instant::now(), cpu_time());
            let rate = measure(&subjects[which]).await;
            rates[which].push(rate);
            operations[which] += rate * start.elapsed().as_secs_f64();
            cpu[which] += cpu_time() - before;
        }
    }
    let [sealed, plain] = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    });
    let [sealed_us, plain_us] = [0, 1].map(|which| cpu[which].as_secs_f64() * 1e6 / operations[which]);
    println!(
        "{name:<36} {sealed:>10.0} {plain:>10.0} {:>7.3} {sealed_us:>9.2} µs {plain_us:>9.2} µs {:>7.3}",
        sealed / plain,
        sealed_us / plain_us
    );
}

/// Of this process, all threads.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
