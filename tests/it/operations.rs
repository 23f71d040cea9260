//! What operators and their tools ask: readiness, metrics, the eviction of a lost node.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::node::{Node, until};

/// Status and body of a GET.
fn get(node: &Node, path: &str, with_token: bool) -> (u16, String) {
    let read = |name: &str| std::fs::read_to_string(node.data().join(name)).expect("a file of the data directory");
    let running: serde_json::Value = serde_json::from_str(&read("node.json")).expect("JSON");
    let api = running["api"].as_str().expect("an address").replace("http://", "");
    let token = match with_token {
        true => format!("authorization: Bearer {}\r\n", read("admin-token").trim()),
        false => String::new(),
    };
    let mut stream = TcpStream::connect(&api).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {api}\r\n{token}connection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head[9..12].parse().expect("a status"), body.to_owned())
}

fn join(founder: &Node) -> Node {
    let token = founder.ok(&["invite"]).out;
    Node::start(&["--join", token.trim()])
}

fn ready(node: &Node) {
    until("readiness", || (get(node, "/readyz", false).0 == 200).then_some(()));
}

#[test]
fn a_node_is_ready_when_it_has_what_the_others_have() {
    let founder = Node::start(&[]);
    assert_eq!(get(&founder, "/readyz", false), (200, r#"{"ready":true,"reasons":[]}"#.to_owned()));
    founder.ok(&["kv", "namespace", "create", "s"]);
    let pairs: String =
        (0..5_000).map(|i| format!("{{\"key\":\"{i:05}\",\"value\":\"{}\"}}\n", "x".repeat(500))).collect();
    assert_eq!(founder.run_with(&["kv", "bulk", "put", "-", "-n", "s"], pairs.as_bytes()).code, 0);
    let nodes: Vec<Node> = (0..2).map(|_| join(&founder)).collect();
    for node in &nodes {
        ready(node);
        assert_eq!(node.ok(&["kv", "key", "list", "-n", "s"]).out.lines().count(), 5_000);
    }
}

#[test]
fn a_lost_node_is_evicted_and_nobody_waits_for_it_any_more() {
    let founder = Node::start(&[]);
    founder.ok(&["kv", "namespace", "create", "s"]);
    let second = join(&founder);
    ready(&second);
    let put = ["kv", "key", "put", "k", "v", "-n", "s", "--acks", "all", "--wait", "30s"];
    founder.ok(&put);
    let status = founder.ok(&["status", "--json"]).json();
    let name = status["peers"][0]["name"].as_str().expect("a name").to_owned();
    let said = founder.run(&["node", "evict", &name, "--yes"]);
    assert!(said.code == 1 && said.err.contains("is connected"), "{said:?}");
    drop(second);
    until("the eviction", || (founder.run(&["node", "evict", &name, "--yes"]).code == 0).then_some(()));
    founder.ok(&put);
    assert_eq!(founder.ok(&["status", "--json"]).json()["peers"], serde_json::json!([]));
}

#[test]
fn a_node_that_is_evicted_while_it_runs_hears_of_it_and_takes_no_writes() {
    let founder = Node::start(&[]);
    founder.ok(&["kv", "namespace", "create", "s"]);
    let (evicted, third) = (join(&founder), join(&founder));
    for node in [&evicted, &third] {
        ready(node);
    }
    let put = |node: &Node| node.run(&["kv", "key", "put", "k", "v", "-n", "s"]);
    assert_eq!(put(&evicted).code, 0);
    let name = evicted.ok(&["status", "--json"]).json()["name"].as_str().expect("a name").to_owned();
    founder.ok(&["node", "remove", &name, "--connected", "--yes"]);
    let refused = |node: &Node| until("the refusal", || Some(put(node)).filter(|said| said.code != 0));
    let said = refused(&evicted);
    assert!(said.err.contains("taken off the roster"), "{said:?}");
    for node in [&founder, &third] {
        until("the others to go on without it", || {
            let status = node.ok(&["status", "--json"]).json();
            (status["peers"].as_array().is_some_and(|peers| peers.len() == 1)).then_some(())
        });
        assert_eq!(put(node).code, 0, "the others go on");
    }
    // What its process knew is gone, and it is told again.
    let said = refused(&evicted.restart(&[]));
    assert!(said.err.contains("taken off the roster"), "{said:?}");
}

#[test]
fn metrics_are_for_those_with_a_token_and_count_what_happens() {
    let node = Node::start(&["--pop", "FRA"]);
    node.ok(&["kv", "namespace", "create", "s"]);
    node.ok(&["kv", "key", "put", "k", "v", "-n", "s"]);
    node.run(&["kv", "key", "get", "none", "-n", "s"]);
    assert_eq!(get(&node, "/metrics", false).0, 400);
    let (status, page) = get(&node, "/metrics", true);
    assert_eq!(status, 200);
    for line in [
        "starling_ready 1",
        "starling_writable 1",
        "starling_watermark_age_seconds 0",
        "starling_http_requests_total{route=\"value\",method=\"PUT\",code=\"200\"} 1",
        "starling_http_requests_total{route=\"value\",method=\"GET\",code=\"404\"} 1",
        "starling_http_requests_total{route=\"metrics\",method=\"GET\",code=\"400\"} 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\nis not in\n{page}");
    }
    // Whatever is shown was described, and each value is a number.
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = name.split('{').next().expect("a name");
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(page.contains(&format!("# TYPE {name} ")), "{line}");
    }
    assert!(page.contains("starling_node_info{node=\"") && page.contains("pop=\"FRA\"} 1"), "{page}");
}
