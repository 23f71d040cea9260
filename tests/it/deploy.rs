//! Scripts across the flock: deployed at one node with curl's form of 2018, known whole at every other at once, also
//! at one that was away, and rolled back as fast.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::flock::{Node, connected, eventually, timed};

const BOUNDARY: &str = "------------------------d74496d66958873e";

fn flock(directory: &Path) -> [Node; 3] {
    let args = ["--durability", "os"];
    let a = Node::start(&directory.join("a"), &[&["--pop", "AMS"], &args[..]].concat());
    let b = a.join(&directory.join("b"), &[&["--pop", "FRA"], &args[..]].concat());
    let c = b.join(&directory.join("c"), &[&["--pop", "LHR"], &args[..]].concat());
    connected(&[&a, &b, &c]);
    [a, b, c]
}

fn scripts(node: &Node, rest: &str) -> String {
    format!("/client/v4/accounts/{}/workers/scripts{rest}", node.account)
}

/// `curl -X PUT -F script=@script.js -F 'metadata=@metadata.json'`, byte for byte but for the boundary.
fn curl(node: &Node, name: &str, code: &str, namespace: &str) -> Json {
    let metadata = json!({
        "body_part": "script",
        "bindings": [{ "name": "LOGCARD", "type": "kv_namespace", "namespace_id": namespace }],
    });
    let form = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"script\"; filename=\"script.js\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n{code}\r\n--{BOUNDARY}\r\n\
         Content-Disposition: form-data; name=\"metadata\"; filename=\"metadata.json\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n{metadata}\r\n--{BOUNDARY}--\r\n"
    );
    let header = format!("Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n");
    let path = scripts(node, &format!("/{name}"));
    node.client().ask_with("PUT", &path, &header, form.as_bytes()).expect("an answer").result()
}

/// The code that a node would run, if it knows all of it.
fn code(node: &Node, name: &str) -> Option<String> {
    let answer = node.ask("GET", &scripts(node, &format!("/{name}")), "");
    (answer.status == 200).then(|| answer.text())
}

fn becomes(node: &Node, name: &str, expected: &str) {
    eventually("the script arrives", || (code(node, name).as_deref() == Some(expected)).then_some(()));
}

#[test]
fn a_script_of_2018_runs_everywhere_and_is_rolled_back_everywhere() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [a, b, mut c] = flock(directory.path());
    let namespace = a.namespace("cards").rsplit('/').next().expect("an id").to_owned();
    let shown = curl(&a, "babbage", "first", &namespace);
    assert_eq!((&shown["id"], &shown["size"]), (&"babbage".into(), &5.into()));
    assert!(shown["etag"].is_string() && shown["modified_on"].is_string(), "{shown}");
    becomes(&b, "babbage", "first");
    becomes(&c, "babbage", "first");
    let settings = c.ask("GET", &scripts(&c, "/babbage/settings"), "").result();
    assert_eq!(settings["bindings"][0]["namespace_id"], namespace);
    // One is away while much happens, and large things.
    c.stop();
    let large = format!("// {}\nsecond", "x".repeat(3 << 20));
    curl(&b, "babbage", &large, &namespace);
    curl(&b, "other", "other", &namespace);
    // A secret is added to the version that is deployed: the one that was uploaded elsewhere has to be known first.
    becomes(&a, "babbage", &large);
    a.ask("PUT", &scripts(&a, "/babbage/secrets"), r#"{"name":"S","text":"hush","type":"secret_text"}"#).result();
    becomes(&a, "babbage", &large);
    c.return_home();
    becomes(&c, "babbage", &large);
    becomes(&c, "other", "other");
    let secrets = c.ask("GET", &scripts(&c, "/babbage/secrets"), "").result();
    assert_eq!(secrets, json!([{ "name": "S", "type": "secret_text" }]));
    // That was bad: back to the first, from the node that was away.
    let versions = c.ask("GET", &scripts(&c, "/babbage/versions"), "").result();
    let first = versions["items"].as_array().expect("a list").last().expect("versions")["id"].clone();
    let back = json!({ "strategy": "percentage", "versions": [{ "version_id": first, "percentage": 100 }] });
    c.ask("POST", &scripts(&c, "/babbage/deployments"), back.to_string()).result();
    for node in [&a, &b, &c] {
        becomes(node, "babbage", "first");
    }
    b.ask("DELETE", &scripts(&b, "/babbage"), "").result();
    for node in [&a, &b, &c] {
        eventually("it is gone", || code(node, "babbage").is_none().then_some(()));
        assert_eq!(code(node, "other").as_deref(), Some("other"));
    }
}

#[test]
fn a_deployment_is_known_whole_at_the_last_node_within_half_a_second() {
    const DEPLOYMENTS: usize = 60;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [a, b, c] = flock(directory.path());
    let namespace = a.namespace("cards").rsplit('/').next().expect("an id").to_owned();
    let mut took = Vec::new();
    let machine = Machine::watch();
    for number in 0..DEPLOYMENTS {
        // Every third has more code than a record carries.
        let rest = "x".repeat(if number % 3 == 0 { 200_000 } else { 100 });
        let script = format!("// {number}\n{rest}");
        curl(&a, "hello", &script, &namespace);
        machine.stood_still();
        let took_now = timed(|| {
            becomes(&b, "hello", &script);
            becomes(&c, "hello", &script);
        });
        took.push((took_now, machine.stood_still()));
    }
    let percentile = |sorted: &[Duration], percent: usize| sorted[(sorted.len() * percent).div_ceil(100) - 1];
    let mut all: Vec<Duration> = took.iter().map(|(took, _)| *took).collect();
    all.sort_unstable();
    let [p50, p90, p99] = [50, 90, 99].map(|percent| percentile(&all, percent));
    println!("after the answer, to the last of three nodes: p50 {p50:?}, p90 {p90:?}, p99 {p99:?}");
    assert!(p50 < Duration::from_millis(500), "{all:?}");
    // The machine that runs this may be busy with other tests: what it was not there for says nothing.
    let mut counted: Vec<Duration> =
        took.iter().filter(|(_, still)| *still < Duration::from_millis(50)).map(|(took, _)| *took).collect();
    counted.sort_unstable();
    println!("of those {} during which the machine never stood still for 50 ms: {:?}", counted.len(), counted.last());
    assert!(counted.is_empty() || percentile(&counted, 99) < Duration::from_millis(500), "{took:?}");
}

/// How long a thread that sleeps for a millisecond sleeps longer: the machine has other things to do.
struct Machine {
    longest_us: Arc<AtomicU64>,
    is_watched: Arc<AtomicBool>,
}

impl Machine {
    fn watch() -> Self {
        let machine = Self { longest_us: Arc::default(), is_watched: Arc::new(AtomicBool::new(true)) };
        let (longest_us, is_watched) = (Arc::clone(&machine.longest_us), Arc::clone(&machine.is_watched));
        std::thread::spawn(move || {
            while is_watched.load(Ordering::Relaxed) {
                let slept = timed(|| std::thread::sleep(Duration::from_millis(1)));
                longest_us.fetch_max(slept.as_micros() as u64, Ordering::Relaxed);
            }
        });
        machine
    }

    /// At most, since this was last asked.
    fn stood_still(&self) -> Duration {
        Duration::from_micros(self.longest_us.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.is_watched.store(false, Ordering::Relaxed);
    }
}
