//! Three nodes: what is written at any is read at every other.

use std::path::Path;

use serde_json::json;

use crate::flock::{Node, agree, connected, eventually};

fn flock(directory: &Path, args: &[&str]) -> [Node; 3] {
    let a = Node::start(&directory.join("a"), &[&["--pop", "AMS"], args].concat());
    let b = a.join(&directory.join("b"), &[&["--pop", "FRA"], args].concat());
    let c = b.join(&directory.join("c"), &[&["--pop", "LHR"], args].concat());
    connected(&[&a, &b, &c]);
    [a, b, c]
}

/// Bytes that don't compress and differ by number.
fn noise(len: usize, number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn what_is_written_at_one_is_read_at_every_other() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let nodes = flock(directory.path(), &["--durability", "os"]);
    let [a, b, c] = &nodes;
    let namespace = a.namespace("everywhere");
    let legacy = namespace.replace("storage/kv", "workers");
    for node in [b, c] {
        eventually("the namespace arrives", || (node.ask("GET", &namespace, "").status == 200).then_some(()));
        let listed = node.ask("GET", &node.namespaces(), "").result();
        assert_eq!(listed[0]["title"], "everywhere");
        assert_eq!(node.ask("GET", &format!("{legacy}/keys"), "").status, 200);
    }
    // Every node writes, every other reads.
    for (number, node) in nodes.iter().enumerate() {
        let key = format!("from-{number}");
        node.put(&namespace, &key, format!("value {number}"));
        for other in &nodes {
            let value = eventually("the value arrives", || other.get(&namespace, &key));
            assert_eq!(value, format!("value {number}").into_bytes());
        }
    }
    b.ask("DELETE", &format!("{namespace}/values/from-0"), "").result();
    b.put(&namespace, "from-1", "overwritten at its own");
    for node in &nodes {
        eventually("the delete arrives", || node.get(&namespace, "from-0").is_none().then_some(()));
        eventually("the last write wins", || {
            (node.get(&namespace, "from-1").as_deref() == Some(b"overwritten at its own")).then_some(())
        });
    }
    // Metadata, bulk, and lists in byte order with a prefix and pages.
    let boundary = "x-boundary";
    let form = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"value\"\r\n\r\nhello\r\n--{boundary}\r\n\
         Content-Disposition: form-data; name=\"metadata\"\r\n\r\n{{\"by\":\"form\"}}\r\n--{boundary}--\r\n"
    );
    let header = format!("Content-Type: multipart/form-data; boundary={boundary}\r\n");
    let path = format!("{namespace}/values/formed");
    c.client().ask_with("PUT", &path, &header, form.as_bytes()).expect("an answer").result();
    let pairs: Vec<_> = (0..1500).map(|n| json!({ "key": format!("bulk/{n:04}"), "value": format!("{n}") })).collect();
    b.bulk(&namespace, &pairs);
    agree(&[a, b, c]);
    assert_eq!(a.ask("GET", &format!("{namespace}/metadata/formed"), "").result(), json!({ "by": "form" }));
    assert_eq!(a.get(&namespace, "formed").as_deref(), Some(&b"hello"[..]));
    let mut names: Vec<String> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = a.ask("GET", &format!("{namespace}/keys?prefix=bulk/&limit=1000&cursor={cursor}"), "").json();
        names.extend(page["result"].as_array().expect("a list").iter().map(|k| k["name"].as_str().unwrap().to_owned()));
        cursor = page["result_info"]["cursor"].as_str().expect("a cursor").to_owned();
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(names, (0..1500).map(|n| format!("bulk/{n:04}")).collect::<Vec<_>>());
    let body = json!({ "keys": ["bulk/0007", "missing"] }).to_string();
    let got = c.ask("POST", &format!("{namespace}/bulk/get"), body).result();
    assert_eq!(got["values"], json!({ "bulk/0007": "7", "missing": null }));
    c.ask("POST", &format!("{namespace}/bulk/delete"), "[\"bulk/0007\"]").result();
    a.ask("DELETE", &format!("{namespace}/bulk"), "[\"bulk/0008\"]").result();
    for (node, key) in [(a, "bulk/0007"), (c, "bulk/0008")] {
        eventually("the bulk delete arrives", || node.get(&namespace, key).is_none().then_some(()));
    }
    // The namespace itself: renamed at one, deleted at another.
    b.ask("PUT", &namespace, "{\"title\":\"renamed\"}").result();
    eventually("the new title arrives", || (c.ask("GET", &namespace, "").result()["title"] == "renamed").then_some(()));
    c.ask("DELETE", &namespace, "").result();
    eventually("it is gone everywhere", || (a.ask("GET", &namespace, "").status == 404).then_some(()));
    agree(&[a, b, c]);
}

#[test]
fn the_largest_value_reaches_every_node_unchanged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let [a, b, c] = flock(directory.path(), &["--durability", "os"]);
    let namespace = b.namespace("large");
    let value = noise(25 * 1024 * 1024, 1);
    b.put(&namespace, "largest", &value);
    let middle = noise(70_000, 2);
    b.put(&namespace, "middle", &middle);
    for node in [&a, &c] {
        let got = eventually("the largest value arrives", || node.get(&namespace, "largest"));
        assert!(got == value, "{} bytes arrived of {}", got.len(), value.len());
        assert!(eventually("a blob of one chunk arrives", || node.get(&namespace, "middle")) == middle);
    }
    let one_more = noise(25 * 1024 * 1024 + 1, 3);
    let refused = a.ask("PUT", &format!("{namespace}/values/too-large"), one_more);
    assert_eq!(refused.status, 413, "{}", refused.text());
    agree(&[&a, &b, &c]);
}

#[test]
fn what_expires_is_gone_everywhere_and_stays_so() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut nodes = flock(directory.path(), &["--durability", "os"]);
    let namespace = nodes[0].namespace("fleeting");
    nodes[0].ask("PUT", &format!("{namespace}/values/brief?expiration_ttl=60"), "soon gone").result();
    nodes[0].ask("PUT", &format!("{namespace}/values/long?expiration_ttl=86400"), "here").result();
    for node in &nodes {
        let expiration = eventually("the value arrives", || {
            let answer = node.ask("GET", &format!("{namespace}/values/brief"), "");
            answer.header("expiration").map(str::to_owned)
        });
        let first = nodes[0].ask("GET", &format!("{namespace}/values/brief"), "");
        assert_eq!(first.header("expiration"), Some(&*expiration), "fixed where it was written");
    }
    // A minute passes, on all clocks alike.
    for node in &mut nodes {
        assert_eq!(node.stop().code(), Some(0));
        node.args.extend(["--clock-offset-ms".into(), "61000".into()]);
    }
    nodes.iter_mut().for_each(|node| _ = node.return_home());
    let [a, b, c] = &nodes;
    connected(&[a, b, c]);
    for node in &nodes {
        assert_eq!(node.get(&namespace, "brief"), None);
        assert_eq!(node.get(&namespace, "long").as_deref(), Some(&b"here"[..]));
        let listed = node.ask("GET", &format!("{namespace}/keys"), "").result();
        assert!(listed.as_array().expect("a list").iter().all(|key| key["name"] == "long"), "{listed}");
    }
    agree(&[a, b, c]);
}
