//! The testnet as a user has it: the program beside `starling`, on a small planet.
#![allow(clippy::disallowed_methods, reason = "watches processes in real time")]

mod lies;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

const TESTNET: &str = env!("CARGO_BIN_EXE_starling-testnet");
/// Machines under load are slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// A testnet in a directory of its own; ended, whatever happens, when it goes out of scope.
struct Planet {
    process: Child,
    directory: PathBuf,
}

impl Planet {
    fn up(directory: &Path, words: &[&str]) -> Self {
        let directory = directory.join("net");
        let process = Command::new(TESTNET)
            .args(["up", "--dir"])
            .arg(&directory)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut planet = Self { process, directory };
        eventually("all nodes are up", || {
            if let Some(status) = planet.process.try_wait().expect("a child") {
                let mut said = String::new();
                planet.process.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
                panic!("it ended, {status}; run the tests of the whole workspace, so that starling is built: {said}");
            }
            planet.ask(&["status", "--json"]).status.success().then_some(())
        });
        planet
    }

    fn ask(&self, words: &[&str]) -> Output {
        Command::new(TESTNET).arg("--dir").arg(&self.directory).args(words).output().expect("the program runs")
    }

    /// Must work; what it printed.
    fn tell(&self, words: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.ask(words);
        assert!(status.success(), "{words:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).into_owned()
    }

    fn rows(&self) -> Vec<Json> {
        let status: Json = serde_json::from_str(&self.tell(&["status", "--json"])).expect("JSON");
        status["nodes"].as_array().expect("nodes").clone()
    }

    fn pids(&self) -> Vec<u64> {
        self.rows().iter().filter_map(|row| row["pid"].as_u64()).collect()
    }
}

impl Drop for Planet {
    fn drop(&mut self) {
        // An error means that it had ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn lives(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).unwrap_or("Z").to_owned();
    state != "Z"
}

#[test]
fn three_nodes_are_hurt_healed_and_ended() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut planet = Planet::up(directory.path(), &["--pops", "ams,iad,sin"]);
    let rows = planet.rows();
    assert_eq!(rows.len(), 3);
    // Round trips are those of the planet, not of loopback.
    assert!(rows.iter().all(|row| row["connected"] == 2 && row["rtt_ms_min"].as_f64().is_some_and(|rtt| rtt > 80.0)));

    planet.tell(&["kv", "ams", "namespace", "create", "test"]);
    let read = |node: &str, key: &str| {
        let answer = planet.ask(&["kv", node, "key", "get", key, "--namespace", "test"]);
        answer.status.success().then(|| String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    };
    let write = |node: &str, key: &str| planet.tell(&["kv", node, "key", "put", key, "v", "--namespace", "test"]);
    write("ams", "open");
    eventually("it arrives", || read("sin", "open"));

    planet.tell(&["isolate", "sin"]);
    write("ams", "cut");
    eventually("it arrives where the way is open", || read("iad", "cut"));
    assert_eq!(read("sin", "cut"), None);
    planet.tell(&["kill", "iad"]);
    let states: Vec<Json> = planet.rows().iter().map(|row| row["state"].clone()).collect();
    assert_eq!(states, ["up", "down", "up"]);
    assert!(planet.tell(&["status"]).contains("cut off: ams iad"));
    planet.tell(&["heal"]);
    eventually("it arrives", || read("sin", "cut"));
    eventually("all are equal", || {
        let rows = planet.rows();
        rows.iter().all(|row| row["digest"].is_string() && row["digest"] == rows[0]["digest"]).then_some(())
    });

    for (words, code, said) in [
        (&["cut", "ams", "fra"][..], 1, "no node 'fra'"),
        (&["add", "XXX"], 1, "no PoP 'XXX'"),
        (&["up", "--pops", "ams"], 2, "already"),
    ] {
        let answer = planet.ask(words);
        let error = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(answer.status.code() == Some(code) && error.contains(said), "{words:?}: {error}");
    }
    let pids = planet.pids();
    assert_eq!(pids.len(), 3);
    planet.tell(&["down"]);
    eventually("it ends", || planet.process.try_wait().expect("a child"));
    assert!(!pids.into_iter().any(lives));
    assert!(!planet.directory.exists(), "nothing is left");
}

#[test]
fn nodes_end_with_a_testnet_that_is_killed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut planet = Planet::up(directory.path(), &["--nodes", "2"]);
    planet.tell(&["stop", "0"]);
    let pids = planet.pids();
    assert_eq!(pids.len(), 2);
    planet.process.kill().expect("it lives");
    planet.process.wait().expect("a child");
    eventually("its nodes end", || (!pids.iter().copied().any(lives)).then_some(()));
    // What it left is no obstacle.
    drop(Planet::up(directory.path(), &["--nodes", "1"]));
}

#[test]
fn a_recorded_history_is_judged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let put = r#"{"client":0,"disk":[0,0],"began_us":10,"ended_us":20,"what":{"put":{"key":"k","value":"1"}},"answer":{"done":{"on":[[0,0]]}}}"#;
    for (held, code) in [(r#"{"k":"1"}"#, 0), ("{}", 1)] {
        let history = format!(
            r#"{{"epoch_ms":1000,"ops":[{put}],"lost":[],"held":{{"ams":{held},"iad":{held}}},"held_us":1000}}"#
        );
        let file = directory.path().join("history.json");
        std::fs::write(&file, history).expect("written");
        let Output { status, stderr, .. } = Command::new(TESTNET).arg("check").arg(&file).output().expect("it runs");
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(code), "{said}");
        assert_eq!(said.contains("what was acknowledged is kept"), code == 1, "{said}");
    }
}

#[test]
fn programs_of_others_can_use_the_network_alone() {
    use std::net::UdpSocket;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let net = directory.path().join("net");
    let child = Command::new(TESTNET)
        .args(["net", "--pops", "ams,sin", "--jitter", "0", "--dir"])
        .arg(&net)
        .stdout(Stdio::null())
        .spawn()
        .expect("the program starts");
    let planet = Planet { process: child, directory: net };
    eventually("the network is there", || planet.ask(&["status", "--json"]).status.success().then_some(()));
    let address = |node: usize, which: &str| planet.rows()[node][which].as_str().expect("an address").to_owned();
    let [a, b] = [0, 1].map(|node| UdpSocket::bind(address(node, "listen")).expect("it is free"));
    b.set_read_timeout(Some(Duration::from_secs(2))).expect("set");
    let mut buffer = [0; 16];
    let sent = Instant::now();
    a.send_to(b"hello", address(1, "gossip")).expect("sent");
    let (len, source) = b.recv_from(&mut buffer).expect("it arrives");
    assert_eq!((&buffer[..len], source.to_string()), (&b"hello"[..], address(0, "gossip")));
    assert!(sent.elapsed() > Duration::from_millis(70), "{:?} from Amsterdam to Singapore", sent.elapsed());
    planet.tell(&["cut", "ams", "sin"]);
    a.send_to(b"lost", address(1, "gossip")).expect("sent");
    assert!(b.recv_from(&mut buffer).is_err());
    planet.tell(&["heal"]);
    a.send_to(b"again", address(1, "gossip")).expect("sent");
    b.recv_from(&mut buffer).expect("it arrives");
}
