//! Real nodes as processes on loopback, on ports that the system picks, and the little HTTP it takes to talk to them.
//! Knows nothing of what is tested. A node is killed when its [`Node`] is dropped, also by a panic.
#![allow(clippy::disallowed_methods, reason = "watches processes in real time")]
#![allow(dead_code, reason = "each program that tests with it uses a part")]

mod http;

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

pub use http::{Answer, Client};
use serde_json::{Value as Json, json};

/// Longest wait for anything that a node does within a moment. Machines under load are slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test, in an environment without settings of its own.
pub fn starling() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_starling")))
}

/// The same through a shell, which first does `before`.
pub fn starling_after(before: &str) -> Command {
    let mut command = clean(Command::new("sh"));
    command.args(["-c", &format!("{before}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_starling")]);
    command
}

/// A shell with that environment.
pub fn shell(script: &str) -> Command {
    let mut command = clean(Command::new("sh"));
    command.args(["-ec", script]);
    command
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STARLING_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Runs a command to its end; gives its exit code, standard output and standard error.
pub fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// Waits until `found` finds something; panics with `what` if it does not.
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// How long something takes.
pub fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// A node: its directory, and its process while that runs.
pub struct Node {
    /// The data directory.
    pub data: PathBuf,
    /// Arguments of `starling serve` besides the directory and free ports.
    pub args: Vec<String>,
    process: Option<Child>,
    /// Where the API listens.
    pub api: SocketAddr,
    /// What peers dial.
    pub gossip: String,
    /// The account id.
    pub account: String,
    /// The node id.
    pub id: String,
    /// The admin token.
    pub token: String,
}

impl Node {
    /// Starts a node and waits until it serves.
    pub fn start(data: &Path, args: &[&str]) -> Self {
        let mut node = Self::unstarted(data);
        node.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        node.restart();
        node
    }

    /// A node that was never started.
    pub fn unstarted(data: &Path) -> Self {
        Self {
            data: data.to_owned(),
            args: Vec::new(),
            process: None,
            api: SocketAddr::from(([127, 0, 0, 1], 0)),
            gossip: String::new(),
            account: String::new(),
            id: String::new(),
            token: String::new(),
        }
    }

    /// Starts a node that joins this one's cluster.
    pub fn join(&self, data: &Path, args: &[&str]) -> Self {
        let token = self.invite();
        Self::start(data, &[args, &["--join", &token]].concat())
    }

    /// Starts the process, on other ports than before; returns how long it took until it served.
    pub fn restart(&mut self) -> Duration {
        self.restart_as(starling())
    }

    /// Starts the process on the ports that it had.
    pub fn return_home(&mut self) -> Duration {
        let (api, gossip) = (self.api.to_string(), self.gossip.clone());
        self.serve(starling(), &api, &gossip)
    }

    /// Starts the process through another command.
    pub fn restart_as(&mut self, command: Command) -> Duration {
        self.serve(command, "127.0.0.1:0", "127.0.0.1:0")
    }

    fn serve(&mut self, mut command: Command, api: &str, gossip: &str) -> Duration {
        assert!(self.process.is_none(), "the node runs");
        command.args(["serve", "--api", api, "--gossip", gossip, "--log", "warn", "--data"]);
        command.arg(&self.data).args(&self.args);
        self.spawn(command)
    }

    /// Runs a command that becomes the node's process, and waits until it serves.
    pub fn spawn(&mut self, command: Command) -> Duration {
        self.try_spawn(command).unwrap_or_else(|said| panic!("the node ended: {said}"))
    }

    /// [`Node::spawn`], or what the process said before it ended.
    pub fn try_spawn(&mut self, mut command: Command) -> Result<Duration, String> {
        let start = Instant::now();
        let log = |kind| OpenOptions::new().create(true).append(true).open(self.log(kind)).expect("a log file");
        File::create(self.log("out")).expect("a log file");
        let process = command.stdout(log("out")).stderr(log("err")).spawn().expect("the program starts");
        let pid = process.id();
        self.process = Some(process);
        let ended = eventually("the node serves", || {
            if let Some(status) = self.exited() {
                return Some(Some(status));
            }
            let running: Json = serde_json::from_slice(&fs::read(self.data.join("node.json")).ok()?).ok()?;
            let is_current = running["pid"] == pid;
            let text = |key: &str| running[key].as_str().expect("a text").to_owned();
            is_current.then(|| {
                self.api = text("api").trim_start_matches("http://").parse().expect("an address");
                (self.gossip, self.account, self.id) = (text("gossip"), text("account"), text("node"));
                None
            })
        });
        if let Some(status) = ended {
            self.process = None;
            return Err(format!("{status}: {}", fs::read_to_string(self.log("err")).unwrap_or_default()));
        }
        self.token = fs::read_to_string(self.data.join("admin-token")).expect("a token").trim().to_owned();
        eventually("the node answers", || {
            (self.client().ask("GET", "/healthz", &[]).ok()?.status == 200).then_some(())
        });
        Ok(start.elapsed())
    }

    /// What the process wrote: `out` or `err`.
    pub fn log(&self, kind: &str) -> PathBuf {
        self.data.with_extension(kind)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node runs").id()
    }

    /// How the process ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.try_wait().expect("a child can be waited for")
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.pid())]).status();
        assert!(sent.expect("a shell").success(), "the process takes the signal");
    }

    /// Waits for the process to end.
    pub fn wait(&mut self) -> ExitStatus {
        let status = eventually("the process ends", || self.exited());
        self.process = None;
        status
    }

    /// Asks the process to end, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Ends the process without a warning.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // An error means that it had ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// A connection that knows the admin token.
    pub fn client(&self) -> Client {
        Client::new(self.api, &self.token)
    }

    /// One request on a connection of its own, which must be answered.
    pub fn ask(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.client().ask(method, path, body.as_ref()).expect("an answer")
    }

    /// The path of the account's namespaces.
    pub fn namespaces(&self) -> String {
        format!("/client/v4/accounts/{}/storage/kv/namespaces", self.account)
    }

    /// A new namespace, as a path.
    pub fn namespace(&self, title: &str) -> String {
        let created = self.ask("POST", &self.namespaces(), json!({ "title": title }).to_string()).result();
        format!("{}/{}", self.namespaces(), created["id"].as_str().expect("an id"))
    }

    /// Writes a value below a namespace's path.
    pub fn put(&self, namespace: &str, key: &str, value: impl AsRef<[u8]>) {
        self.ask("PUT", &format!("{namespace}/values/{key}"), value).result();
    }

    /// Reads a value; `None` if there is none, or no such namespace yet.
    pub fn get(&self, namespace: &str, key: &str) -> Option<Vec<u8>> {
        let answer = self.ask("GET", &format!("{namespace}/values/{key}"), "");
        match answer.status {
            200 => Some(answer.body),
            404 => None,
            _ => panic!("{answer:?}"),
        }
    }

    /// Writes pairs in one request.
    pub fn bulk(&self, namespace: &str, pairs: &[Json]) {
        let body = serde_json::to_vec(pairs).expect("JSON");
        let done = self.ask("PUT", &format!("{namespace}/bulk"), body).result();
        assert_eq!(done["successful_key_count"], pairs.len());
    }

    /// What the node says of itself.
    pub fn status(&self) -> Json {
        self.ask("GET", "/starling/v1/status", "").json()
    }

    /// A join token.
    pub fn invite(&self) -> String {
        self.ask("POST", "/starling/v1/invite", "").json()["token"].as_str().expect("a token").to_owned()
    }

    /// Bytes of memory in use.
    pub fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Processor time used so far, by all threads.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // The name in parentheses may hold anything; user and system time are the 12th and 13th field after it.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = fs::read_to_string(self.log("err")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            for line in tail.iter().rev() {
                eprintln!("{}: {line}", self.id);
            }
        }
    }
}

/// Waits until all hold the same, and returns how long it took.
pub fn agree(nodes: &[&Node]) -> Duration {
    let start = Instant::now();
    eventually("all nodes agree", || {
        let all: Vec<Json> = nodes.iter().map(|node| node.status()).collect();
        let same = |key: &str| all.iter().all(|status| status[key] == all[0][key]);
        (same("digest") && same("version_vector") && same("entries")).then_some(())
    });
    start.elapsed()
}

/// Waits until each is connected to all others.
pub fn connected(nodes: &[&Node]) {
    eventually("all nodes are connected", || {
        let full = |node: &&Node| {
            let status = node.status();
            let peers = status["peers"].as_array().expect("a list");
            peers.len() == nodes.len() - 1 && peers.iter().all(|peer| peer["state"] == "connected")
        };
        nodes.iter().all(full).then_some(())
    });
}
