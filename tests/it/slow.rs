//! Clients that take their time: each gets an answer that says so, or is let go, within the bounds of docs/SECURITY.md,
//! and nobody else notices.
#![allow(clippy::disallowed_methods, reason = "watches a process in real time")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::flock::Node;

/// What a client is told that sends `begin`, then a byte of `drip` every second, and for how long it was borne.
fn crawl(node: &Node, begin: &str, drip: &str) -> (String, Duration) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(node.api).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a time-out");
    stream.write_all(begin.as_bytes()).expect("sent");
    let (mut said, mut bytes, mut drip) = (Vec::new(), [0; 4096], drip.bytes());
    while begun.elapsed() < Duration::from_secs(60) {
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(len) => said.extend_from_slice(&bytes[..len]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                if let Some(byte) = drip.next()
                    && stream.write_all(&[byte]).is_err()
                {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    (String::from_utf8_lossy(&said).into_owned(), begun.elapsed())
}

#[test]
fn slow_clients_are_told_so_in_time_and_hold_nobody_up() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("a"), &["--durability", "os"]);
    let namespace = node.namespace("slow");
    let put = format!(
        "PUT {namespace}/values/k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n\r\nhalf",
        node.token
    );
    let endless = "X-A: b\r\n".repeat(20);
    let cases = [
        // Headers byte by byte: the whole of them has 30 s.
        ("GET /healthz HTTP/1.1\r\nHost: x\r\n", endless.as_str(), "HTTP/1.1 408"),
        ("GE", "", "HTTP/1.1 408"),
        // A body that stops.
        (put.as_str(), "", "HTTP/1.1 408"),
        // Nothing is asked, so nothing is answered.
        ("", "", ""),
        // Asked and answered, then idle.
        ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "", "HTTP/1.1 200"),
    ];
    thread::scope(|scope| {
        let crawlers: Vec<_> = cases
            .iter()
            .map(|(begin, drip, expected)| (scope.spawn(|| crawl(&node, begin, drip)), begin, expected))
            .collect();
        for n in 0..200 {
            let begun = Instant::now();
            node.put(&namespace, &format!("key-{n}"), "v");
            assert!(begun.elapsed() < Duration::from_secs(5), "others are served");
            thread::sleep(Duration::from_millis(50));
        }
        for (crawler, begin, expected) in crawlers {
            let (said, borne) = crawler.join().expect("it ends");
            assert!(said.starts_with(expected) && said.is_empty() == expected.is_empty(), "{begin:?}: {said:?}");
            assert!((25..50).contains(&borne.as_secs()), "{begin:?} was borne for {borne:?}");
            assert!(!expected.contains("408") || said.contains("\"message\""), "{said}");
        }
    });
}
