//! What the figures are compared with: the same HTTP server with nothing behind it, the storage engine with nothing
//! before it, and Redis if it is installed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, UserKey, UserValue};
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_LENGTH, DATE, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::{key, value};

/// A server that answers every request with what a node has answered, byte for byte but for the date, in a process of its
/// own, as a node is; over the engine, once it has put the request's body there. Gone when dropped.
pub struct Bare {
    process: Child,
    pub address: SocketAddr,
}

impl Bare {
    /// Runs this program again, which must then call [`serve`]; over an engine in that directory, if one is given.
    pub fn start(answer: &[u8], engine: Option<&Path>) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new(program);
        let mut process =
            command.arg(SERVE).args(engine).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        process.stdin.take().expect("its input").write_all(answer).expect("it reads");
        let mut line = String::new();
        let output = process.stdout.as_mut().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("its address");
        Self { process, address: line.trim().parse().expect("an address") }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Tells this program to be the bare server.
pub const SERVE: &str = "--serve";

/// The bare server, for ever.
pub async fn serve(engine: Option<&Path>) {
    let puts = engine.map(|directory| StorageEngine::open(directory).serve());
    let mut answer = Vec::new();
    std::io::stdin().read_to_end(&mut answer).expect("an answer");
    let (headers, body) = parts(&answer);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("an address"));
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let _ = stream.set_nodelay(true);
        let (headers, body, puts) = (headers.clone(), body.clone(), puts.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                let mut response = Response::new(Full::new(body.clone()));
                response.headers_mut().clone_from(&headers);
                let puts = puts.clone();
                async move {
                    if let Some(puts) = puts {
                        put(request, &puts).await;
                    }
                    Ok::<_, std::convert::Infallible>(response)
                }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// A pair, and whom to tell that it is on disk.
type Put = ((String, Bytes), oneshot::Sender<()>);

async fn put(request: Request<hyper::body::Incoming>, puts: &mpsc::Sender<Put>) {
    let (parts, body) = request.into_parts();
    let key = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    let value = body.collect().await.expect("a body").to_bytes();
    let (done, wait) = oneshot::channel();
    puts.send(((key, value), done)).expect("the committer runs");
    wait.await.expect("the committer answers");
}

/// The headers of an answer, without those that the server adds by itself, and its body.
fn parts(answer: &[u8]) -> (HeaderMap, Bytes) {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = std::str::from_utf8(&answer[..end]).expect("readable");
    let headers = head.lines().skip(1).map(|line| {
        let (name, value) = line.split_once(": ").expect("a header");
        (name.parse::<HeaderName>().expect("a name"), value.parse::<HeaderValue>().expect("a value"))
    });
    let own = headers.filter(|(name, _)| name != CONTENT_LENGTH && name != DATE).collect();
    (own, Bytes::copy_from_slice(&answer[end + 4..]))
}

/// The storage engine alone.
#[derive(Clone)]
pub struct StorageEngine {
    database: Database,
    keyspace: Keyspace,
}

impl StorageEngine {
    pub fn open(directory: &Path) -> Self {
        let database = Database::builder(directory).open().expect("a database");
        let keyspace = database.keyspace("data", KeyspaceCreateOptions::default).expect("a keyspace");
        Self { database, keyspace }
    }

    /// Commits whatever waits, again and again, with or without an fsync, and tells those who wait. How many writes.
    fn commit_all<W, D, K: Into<UserKey>, V: Into<UserValue>>(
        &self,
        submitted: &mpsc::Receiver<(W, D)>,
        sync: bool,
        pair: impl Fn(&W) -> (K, V),
        tell: impl Fn(D),
    ) -> usize {
        let mut count = 0;
        while let Ok(first) = submitted.recv() {
            let mut waiting = vec![first];
            waiting.extend(submitted.try_iter());
            let mut batch = self.database.batch();
            for (write, _) in &waiting {
                let (key, value) = pair(write);
                batch.insert(&self.keyspace, key, value);
            }
            let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
            batch.durability(Some(mode)).commit().expect("committed");
            count += waiting.len();
            waiting.into_iter().for_each(|(_, done)| tell(done));
        }
        count
    }

    /// One thread that makes durable whatever it is sent.
    fn serve(self) -> mpsc::Sender<Put> {
        let (submit, submitted) = mpsc::channel();
        std::thread::spawn(move || {
            let pair = |(key, value): &(String, Bytes)| (key.as_bytes().to_vec(), value.clone());
            self.commit_all(&submitted, true, pair, |done: oneshot::Sender<()>| _ = done.send(()))
        });
        submit
    }

    /// Puts per second: `writers` threads, each waiting for its write; one thread that commits whatever waits, with or
    /// without an fsync.
    pub fn puts(self, writers: usize, time: Duration, sync: bool) -> f64 {
        let (submit, submitted) = mpsc::channel::<(u64, mpsc::SyncSender<()>)>();
        let committer = std::thread::spawn(move || {
            self.commit_all(&submitted, sync, |number| (key(*number), value(*number)), |done| _ = done.send(()))
        });
        let start = Instant::now();
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let submit = submit.clone();
                std::thread::spawn(move || {
                    let (done, wait) = mpsc::sync_channel(1);
                    let mut number = writer as u64;
                    while start.elapsed() < time {
                        submit.send((number, done.clone())).expect("the committer runs");
                        wait.recv().expect("the committer answers");
                        number += writers as u64;
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("a writer ends well"));
        let elapsed = start.elapsed();
        drop(submit);
        committer.join().expect("the committer ends well") as f64 / elapsed.as_secs_f64()
    }
}

/// A Redis server, gone when dropped.
pub struct Redis {
    process: Child,
    pub address: SocketAddr,
}

impl Redis {
    /// In a directory of its own: it would load what another left. `None` if Redis is not installed.
    pub async fn start(directory: &Path, fsync: &str) -> Option<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        std::fs::create_dir(directory).expect("a new directory");
        let process = Command::new("redis-server")
            .args(["--port", &address.port().to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", fsync, "--dir"])
            .arg(directory)
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return Some(Self { process, address });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
