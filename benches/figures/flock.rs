//! Real nodes as processes on loopback, in a directory that goes when they do.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Node {
    pub data: PathBuf,
    args: Vec<String>,
    process: Option<Child>,
    pub address: SocketAddr,
    pub account: String,
    pub token: String,
}

impl Node {
    /// Starts a node and waits until it answers.
    pub async fn start(data: &Path, args: &[&str]) -> Self {
        let mut node = Self {
            data: data.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            process: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            account: String::new(),
            token: String::new(),
        };
        node.restart().await;
        node
    }

    /// Starts the process again; returns how long it took until it answered.
    pub async fn restart(&mut self) -> Duration {
        let running = self.data.join("node.json");
        let _ = std::fs::remove_file(&running);
        let start = Instant::now();
        let process = Command::new(env!("CARGO_BIN_EXE_starling"))
            .args(["serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--log", "warn", "--data"])
            .arg(&self.data)
            .args(&self.args)
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary starts");
        self.process = Some(process);
        loop {
            assert!(start.elapsed() < Duration::from_secs(120), "the node does not start");
            if let Ok(text) = std::fs::read(&running) {
                let running: Value = serde_json::from_slice(&text).expect("node.json is JSON");
                let api = running["api"].as_str().expect("an address").trim_start_matches("http://").to_owned();
                self.address = api.parse().expect("an address");
                self.account = running["account"].as_str().expect("an account").to_owned();
                self.token = std::fs::read_to_string(self.data.join("admin-token")).expect("a token");
                if self.call("GET", "/healthz", b"").await.0 == 200 {
                    return start.elapsed();
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Asks the process to end, and waits.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = Command::new("kill").arg(process.id().to_string()).status();
            let _ = process.wait();
        }
    }

    pub fn path(&self) -> String {
        format!("/client/v4/accounts/{}/storage/kv/namespaces", self.account)
    }

    /// Bytes of memory in use.
    pub fn rss(&self) -> u64 {
        let pid = self.process.as_ref().expect("the node runs").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// One request, one answer: status and body.
    pub async fn call(&self, method: &str, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let Ok(mut stream) = TcpStream::connect(self.address).await else { return (0, Vec::new()) };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Length: {}\r\n\r\n",
            self.token.trim(),
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream.write_all(body).await.expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("answered");
        let head_len = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
        let status = std::str::from_utf8(&answer[9..12]).expect("a status").parse().expect("a number");
        (status, answer.split_off(head_len))
    }

    pub async fn json(&self, method: &str, path: &str, body: &[u8]) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {}", String::from_utf8_lossy(&answer));
        serde_json::from_slice(&answer).expect("JSON")
    }

    pub async fn namespace(&self, title: &str) -> String {
        let created = self.json("POST", &self.path(), format!("{{\"title\":\"{title}\"}}").as_bytes()).await;
        created["result"]["id"].as_str().expect("an id").to_owned()
    }

    pub async fn status(&self) -> Value {
        self.json("GET", "/starling/v1/status", b"").await
    }

    pub async fn invite(&self) -> String {
        let invited = self.json("POST", "/starling/v1/invite", b"").await;
        invited["token"].as_str().expect("a token").to_owned()
    }

    /// Writes `count` pairs of 100 bytes from number `first` on, in bulk requests of 10,000.
    pub async fn load(&self, namespace: &str, first: u64, count: u64) {
        let path = format!("{}/{namespace}/bulk", self.path());
        let mut number = first;
        while number < first + count {
            let end = (number + 10_000).min(first + count);
            let pairs: Vec<Value> =
                (number..end).map(|n| serde_json::json!({ "key": key(n), "value": value(n) })).collect();
            let body = serde_json::to_vec(&pairs).expect("JSON");
            self.json("PUT", &path, &body).await;
            number = end;
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn key(number: u64) -> String {
    format!("key-{number:012}")
}

/// 100 bytes that don't compress to nothing.
pub fn value(number: u64) -> String {
    let digits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{digits:020}").repeat(5)
}
