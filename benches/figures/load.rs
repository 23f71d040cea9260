//! A load generator: connections that each send one request after another over HTTP/1.1 (or RESP, for Redis), and the
//! rate and latencies they see. Prebuilt requests, minimal parsing: the client shares the machine with the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What a load saw.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub per_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// Makes the request for the n-th call.
pub type Make = Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// How to tell that an answer is complete: its length once it is, or that it is an error.
pub type Complete = fn(&[u8]) -> Option<Result<usize, String>>;

/// Runs `connections` clients for `time`, counting from when all are connected.
pub async fn run(address: SocketAddr, connections: usize, time: Duration, make: Make, complete: Complete) -> Seen {
    let stop = Arc::new(AtomicBool::new(false));
    let next = Arc::new(AtomicU64::new(0));
    let mut streams = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("a socket option");
        streams.push(stream);
    }
    let start = Instant::now();
    let tasks: Vec<_> = streams
        .into_iter()
        .map(|stream| tokio::spawn(client(stream, stop.clone(), next.clone(), make.clone(), complete)))
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await.expect("a client ends well"));
    }
    let elapsed = start.elapsed();
    latencies.sort_unstable();
    let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
    Seen { per_second: latencies.len() as f64 / elapsed.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

/// One request, and its answer.
pub async fn ask(address: SocketAddr, request: &[u8], complete: Complete) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.write_all(request).await.expect("the server takes requests");
    let mut answer = Vec::new();
    while complete(&answer).is_none() {
        assert!(stream.read_buf(&mut answer).await.expect("the server answers") > 0, "the server hung up");
    }
    answer
}

async fn client(
    mut stream: TcpStream,
    stop: Arc<AtomicBool>,
    next: Arc<AtomicU64>,
    make: Make,
    complete: Complete,
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let mut buffer = Vec::with_capacity(1 << 16);
    while !stop.load(Ordering::Relaxed) {
        let request = make(next.fetch_add(1, Ordering::Relaxed));
        let start = Instant::now();
        stream.write_all(&request).await.expect("the server takes requests");
        buffer.clear();
        loop {
            assert!(stream.read_buf(&mut buffer).await.expect("the server answers") > 0, "the server hung up");
            match complete(&buffer) {
                None => {}
                Some(Ok(len)) if len == buffer.len() => break,
                Some(Ok(len)) => panic!("an answer of {len} bytes, but {} came", buffer.len()),
                Some(Err(error)) => panic!("the server said: {error}"),
            }
        }
        latencies.push(start.elapsed());
    }
    latencies
}

/// HTTP/1.1 with a content length.
pub fn http(answer: &[u8]) -> Option<Result<usize, String>> {
    let head_len = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..head_len]).expect("a readable head");
    if !head.starts_with("HTTP/1.1 20") {
        return Some(Err(String::from_utf8_lossy(answer).into_owned()));
    }
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().expect("a number"))
    });
    let len = head_len + length.expect("a content length");
    (answer.len() >= len).then_some(Ok(len))
}

/// RESP: a simple or a bulk string.
pub fn resp(answer: &[u8]) -> Option<Result<usize, String>> {
    let line_len = answer.windows(2).position(|window| window == b"\r\n")? + 2;
    let line = std::str::from_utf8(&answer[1..line_len - 2]).expect("readable");
    match answer[0] {
        b'+' => Some(Ok(line_len)),
        b'$' => {
            let len = line_len + line.parse::<usize>().expect("the value is there") + 2;
            (answer.len() >= len).then_some(Ok(len))
        }
        _ => Some(Err(String::from_utf8_lossy(answer).into_owned())),
    }
}
