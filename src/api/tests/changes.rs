//! The change feed, as a client of server-sent events reads it.

use std::time::Duration;

use tokio::time::timeout;

use super::sessions::flock;
use super::*;

/// An open feed.
struct Events {
    stream: TcpStream,
    text: String,
}

/// One block of it.
#[derive(Debug, Default, Clone)]
struct Block {
    id: String,
    event: String,
    data: Json,
}

impl Events {
    async fn open(server: &Server, path: &str, headers: &str) -> Self {
        let mut stream = server.connect().await;
        let request = format!(
            "GET /client/v4/accounts/{ACCOUNT}/storage/kv{path} HTTP/1.0\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\
             {headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut events = Self { stream, text: String::new() };
        let head = events.upto("\r\n\r\n").await.expect("an answer");
        assert!(head.starts_with("HTTP/1.0 200") && head.contains("text/event-stream"), "{head}");
        let begun = events.block().await.expect("the first block");
        assert!(!begun.id.is_empty() && begun.event.is_empty(), "{begun:?}");
        events
    }

    async fn upto(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.text.find(end) {
                let rest = self.text.split_off(at + end.len());
                return Some(std::mem::replace(&mut self.text, rest));
            }
            let mut bytes = [0; 4096];
            let read = timeout(Duration::from_secs(20), self.stream.read(&mut bytes)).await.expect("in time");
            match read.expect("readable") {
                0 => return None,
                read => self.text.push_str(std::str::from_utf8(&bytes[..read]).expect("text")),
            }
        }
    }

    async fn block(&mut self) -> Option<Block> {
        let text = self.upto("\n\n").await?;
        let mut block = Block::default();
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => block.id = id.into(),
                Some(("event", event)) => block.event = event.into(),
                Some(("data", data)) => block.data = serde_json::from_str(data).expect("JSON"),
                _ => {}
            }
        }
        Some(block)
    }

    /// The next block that is not a heartbeat.
    async fn event(&mut self) -> Option<Block> {
        loop {
            let block = self.block().await?;
            if !block.event.is_empty() {
                return Some(block);
            }
        }
    }

    async fn keys(&mut self, count: usize) -> Vec<String> {
        let mut keys = Vec::new();
        for _ in 0..count {
            let event = self.event().await.expect("an event");
            keys.push(event.data["key"].as_str().expect("a key").to_owned());
        }
        keys
    }
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens() {
    let server = Server::start(false).await;
    let ns = server.namespace("told").await;
    server.ask("PUT", &format!("{ns}/values/before"), "old").await;
    let mut feed = Events::open(&server, &format!("{ns}/changes?prefix=k&values=true"), "").await;
    server.ask("PUT", &format!("{ns}/values/other"), "not followed").await;
    server.ask("PUT", &format!("{ns}/values/k1"), "text").await;
    let one = feed.event().await.expect("an event");
    assert_eq!((one.event.as_str(), &one.data["key"], &one.data["value"]), ("put", &"k1".into(), &"text".into()));
    assert!(one.id.len() <= 64 && one.data["marker"].as_str().is_some_and(|marker| marker.len() == 50), "{one:?}");
    server.ask("PUT", &format!("{ns}/values/k1"), [0xff, 0]).await;
    let two = feed.event().await.expect("an event");
    assert_eq!((&two.data["value"], &two.data["base64"]), (&"/wA=".into(), &true.into()));
    assert!(two.data["marker"].as_str() > one.data["marker"].as_str());
    let pairs = r#"[{"key":"k2","value":"v","metadata":{"a":\n1},"expiration_ttl":600}]"#.replace("\\n", "\n");
    assert_eq!(server.ask("PUT", &format!("{ns}/bulk"), pairs).await.status, 200);
    let three = feed.event().await.expect("an event");
    assert_eq!(three.data["metadata"]["a"], 1);
    assert!(three.data["expiration"].as_u64().is_some());
    server.ask("DELETE", &format!("{ns}/values/k1"), "").await;
    let four = feed.event().await.expect("an event");
    assert_eq!((four.event.as_str(), &four.data["kind"]), ("delete", &"delete".into()));
    server.ask("DELETE", &ns, "").await;
    assert_eq!(feed.event().await.expect("a farewell").event, "deleted");
    assert!(feed.event().await.is_none(), "and it ends");
}

#[tokio::test]
async fn a_feed_goes_on_where_it_was() {
    let server = Server::start(false).await;
    let ns = server.namespace("resumes").await;
    let path = format!("{ns}/changes");
    let mut feed = Events::open(&server, &path, "").await;
    for number in 0..1_500 {
        let pair = format!(r#"[{{"key":"k{number:04}","value":"v"}}]"#);
        assert_eq!(server.ask("PUT", &format!("{ns}/bulk"), pair).await.status, 200);
        if number < 3 {
            feed.event().await.expect("an event");
        }
    }
    let mut last = Block::default();
    for number in 3..10 {
        last = feed.event().await.expect("an event");
        assert_eq!(last.data["key"], format!("k{number:04}"));
    }
    drop(feed);
    // By either road, and exactly once: all are of one origin.
    let expected: Vec<String> = (10..1_500).map(|number| format!("k{number:04}")).collect();
    let mut resumed = Events::open(&server, &path, &format!("Last-Event-ID: {}\r\n", last.id)).await;
    assert_eq!(resumed.keys(expected.len()).await, expected);
    let mut resumed = Events::open(&server, &format!("{path}?since={}", last.id), "").await;
    assert_eq!(resumed.keys(expected.len()).await, expected);
    // And then live.
    let put = server.ask("PUT", &format!("{ns}/values/live"), "v").await;
    assert_eq!(resumed.keys(1).await, ["live"]);
    // A bookmark stands for its moment.
    server.ask("PUT", &format!("{ns}/values/later"), "v").await;
    let bookmark = put.header("starling-bookmark").expect("a bookmark");
    let mut since = Events::open(&server, &format!("{path}?since={bookmark}"), "").await;
    assert_eq!(since.keys(1).await, ["later"]);
    for bad in ["x", "AQE", &"A".repeat(65)] {
        assert_eq!(server.ask("GET", &format!("{path}?since={bad}"), "").await.error().0, 400, "{bad}");
    }
    assert_eq!(server.ask("GET", &format!("{path}?values=yes"), "").await.error().0, 400);
    assert_eq!(server.ask("POST", &path, "").await.error().0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_goes_on_at_another_node_and_misses_nothing() {
    let servers = flock(2, Durability::Os).await;
    let ns = servers[0].namespace("moves").await;
    let path = format!("{ns}/changes");
    let mut feed = Events::open(&servers[0], &path, "").await;
    let mut expected = std::collections::BTreeSet::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut last = Block::default();
    for number in 0..40 {
        let key = format!("k{number:02}");
        let writer = &servers[number % 2];
        let wait = feed_bookmark(&servers[0], &ns).await;
        let put = writer.ask_with("PUT", &format!("{ns}/values/{key}"), &wait, "v").await;
        assert_eq!(put.status, 200, "{}", put.text());
        expected.insert(key);
        if number < 10 {
            last = feed.event().await.expect("an event");
            seen.insert(last.data["key"].as_str().expect("a key").to_owned());
        }
    }
    drop(feed);
    let mut moved = Events::open(&servers[1], &path, &format!("Last-Event-ID: {}\r\n", last.id)).await;
    while seen != expected {
        seen.extend(moved.keys(1).await);
    }
}

async fn feed_bookmark(server: &Server, ns: &str) -> String {
    let answer = server.ask("GET", ns, "").await;
    format!("starling-bookmark: {}\r\n", answer.header("starling-bookmark").expect("a bookmark"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_told_and_dropped_and_holds_nobody_up() {
    let server = Server::start(false).await;
    let ns = server.namespace("slow").await;
    let mut feed = Events::open(&server, &format!("{ns}/changes?values=true"), "").await;
    let value = "v".repeat(2_000);
    let mut slowest = Duration::ZERO;
    // More than sockets and channels hold.
    for round in 0..12 {
        let pairs: Vec<_> = (0..5_000)
            .map(|number| serde_json::json!({ "key": format!("{round}-{number}"), "value": value }))
            .collect();
        let start = tokio::time::Instant::now();
        let put = server.ask("PUT", &format!("{ns}/bulk"), Json::Array(pairs).to_string()).await;
        assert_eq!(put.status, 200, "{}", put.text());
        slowest = slowest.max(start.elapsed());
    }
    println!("slowest bulk put of 5,000 beside a reader that reads nothing: {slowest:?}");
    let mut last = Block::default();
    let mut count = 0;
    while let Some(event) = feed.event().await {
        last = event;
        count += 1;
    }
    assert_eq!(last.event, "lagged", "after {count} events: {last:?}");
    assert!(count < 60_000 && last.id.is_empty());
}

#[tokio::test]
async fn feeds_are_bounded_and_end_with_the_server() {
    let server = Server::start(false).await;
    let ns = server.namespace("many").await;
    let path = format!("{ns}/changes");
    let mut feeds = Vec::new();
    for _ in 0..crate::kv::FEEDS_MAX {
        feeds.push(Events::open(&server, &path, "").await);
    }
    assert_eq!(server.ask("GET", &path, "").await.error().0, 429);
    feeds.truncate(1);
    let mut again = None;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if server.ask("HEAD", &path, "").await.status == 200 {
            again = Some(Events::open(&server, &path, "").await);
            break;
        }
    }
    assert!(again.is_some(), "places come back");
    let Server { stop, task, .. } = server;
    drop(stop);
    let ended = timeout(Duration::from_secs(4), task).await.expect("it does not wait for feeds");
    assert!(ended.expect("no panic").is_ok());
    assert_eq!(feeds[0].event().await.expect("a farewell").event, "closed");
}
