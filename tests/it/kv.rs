//! `starling kv …` against a real node.

use std::fs;

use serde_json::json;

use crate::node::{Node, until};

fn node_with(title: &str) -> Node {
    let node = Node::start(&[]);
    node.ok(&["kv", "namespace", "create", title]);
    node
}

#[test]
fn namespaces_come_change_their_titles_and_go() {
    let node = Node::start(&[]);
    assert_eq!(node.ok(&["kv", "namespace", "list", "--json"]).json(), json!([]));
    let id = node.ok(&["kv", "namespace", "create", "a b"]).out.trim().to_owned();
    assert_eq!(id.len(), 32);
    assert_eq!(node.run(&["kv", "namespace", "create", "a b"]).code, 1, "the title is taken");
    assert_eq!(node.ok(&["kv", "namespace", "list", "--json"]).json(), json!([{ "id": id, "title": "a b" }]));
    node.ok(&["kv", "namespace", "rename", "a b", "--new-name", "c"]);
    node.ok(&["kv", "namespace", "rename", "--namespace-id", &id, "--new-name", "d"]);
    assert!(node.ok(&["kv", "namespace", "list"]).out.contains(&format!("{id}  d\n")));
    let said = node.run(&["kv", "namespace", "delete", "d"]);
    assert_eq!(said.code, 2, "it asks, and nobody is there to answer: {said:?}");
    assert!(said.err.contains("--yes"), "{said:?}");
    assert_eq!(node.ok(&["kv", "namespace", "delete", "d", "--yes", "--json"]).json(), json!({ "id": id }));
    assert_eq!(node.run(&["kv", "key", "list", "-n", "d"]).code, 9);
    assert_eq!(node.run(&["kv", "key", "list", "--namespace-id", &id]).code, 9);
}

#[test]
fn a_value_comes_from_the_line_a_file_or_a_pipe_and_comes_back_byte_by_byte() {
    let node = node_with("s");
    let raw: Vec<u8> = (0..700_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    fs::write(node.file("value"), &raw).expect("a file");
    node.ok(&["kv", "key", "put", "word", "-5 °", "-n", "s"]);
    node.ok(&["kv", "key", "put", "file", "--path", "value", "-n", "s", "--metadata", r#"{"b":1.50,"a":"ü"}"#]);
    assert_eq!(node.run_with(&["kv", "key", "put", "a/pipe ?#%", "-", "-n", "s"], &raw).code, 0);
    assert_eq!(node.ok(&["kv", "key", "get", "word", "-n", "s"]).out, "-5 °");
    assert!(node.ok(&["kv", "key", "get", "file", "-n", "s"]).raw == raw);
    assert!(node.ok(&["kv", "key", "get", "a/pipe ?#%", "-n", "s"]).raw == raw);
    let shown = node.ok(&["kv", "key", "get", "file", "-n", "s", "--json"]);
    assert!(shown.out.contains(r#""metadata": {"b":1.50,"a":"ü"}"#), "as it was written: {:.300}", shown.out);
    assert_eq!(shown.json()["base64"], true);
    assert_eq!(node.ok(&["kv", "key", "list", "-n", "s"]).out, "a/pipe ?#%\nfile\nword\n");
    let listed = node.ok(&["kv", "key", "list", "-n", "s", "--prefix", "f", "--json"]).json();
    assert_eq!(listed, json!([{ "name": "file", "metadata": { "a": "ü", "b": 1.5 } }]));
    node.ok(&["kv", "key", "delete", "file", "-n", "s"]);
    node.ok(&["kv", "key", "delete", "file", "-n", "s"]);
    for json in [&["--json"][..], &[]] {
        let said = node.run(&[&["kv", "key", "get", "file", "-n", "s"], json].concat());
        assert_eq!((said.code, said.out.as_str()), (9, ""), "{said:?}");
    }
    fs::write(node.file("value"), vec![0; 25 * 1024 * 1024 + 1]).expect("a file");
    let said = node.run(&["kv", "key", "put", "big", "--path", "value", "-n", "s"]);
    assert!(said.code == 2 && said.err.contains("25 MiB"), "{said:?}");
}

#[test]
fn expirations_are_set_and_shown() {
    let node = node_with("s");
    node.ok(&["kv", "key", "put", "a", "1", "-n", "s", "--expiration", "4000000000"]);
    node.ok(&["kv", "key", "put", "b", "1", "-n", "s", "--ttl", "600"]);
    let listed = node.ok(&["kv", "key", "list", "-n", "s", "--json"]).json();
    assert_eq!(listed[0]["expiration"], 4_000_000_000_u64);
    assert!(listed[1]["expiration"].as_u64() > Some(1_700_000_000), "{listed}");
    let said = node.run(&["kv", "key", "put", "c", "1", "-n", "s", "--ttl", "5"]);
    assert!(said.code == 1 && said.err.contains("at least 60"), "{said:?}");
}

/// Pairs of every kind that a file can hold, as lines.
fn lines(count: u32) -> String {
    let pair = |i: u32| match i % 4 {
        0 => json!({ "key": format!("{i:06}"), "value": format!("text {i} \u{fffd} \"ü\"\n") }),
        1 => json!({ "key": format!("{i:06}"), "value": "AP8=", "base64": true }),
        2 => json!({ "key": format!("{i:06}"), "value": "", "metadata": { "i": i, "s": ["x", null] } }),
        _ => json!({ "key": format!("{i:06}"), "value": "v", "expiration": 4_000_000_000_u64 + u64::from(i) }),
    };
    (0..count).map(|i| format!("{}\n", pair(i))).collect()
}

#[test]
fn a_namespace_survives_export_and_import() {
    let node = node_with("s");
    let lines = lines(6_001);
    fs::write(node.file("in"), &lines).expect("a file");
    let report = node.ok(&["kv", "bulk", "put", "in", "-n", "s", "--json"]).json();
    assert_eq!((&report["successful_key_count"], &report["settled"]), (&json!(6_001), &json!(6_001)));
    let exported = node.ok(&["kv", "export", "-n", "s"]).out;
    let sorted = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    assert!(sorted(&exported) == sorted(&lines));
    node.ok(&["kv", "export", "-n", "s", "out"]);
    assert!(fs::read_to_string(node.file("out")).expect("the export") == exported);
    assert!(!node.file("out.part").exists());
    // Two that are not to live on.
    let expired = r#"{"key":"old","value":"1","expiration":1000000000}"#;
    fs::write(node.file("out"), format!("{exported}{expired}\n")).expect("a file");
    let said = node.ok(&["kv", "import", "out", "-n", "copy", "--create"]);
    assert!(said.err.contains("left out 1 keys"), "{said:?}");
    assert!(node.ok(&["kv", "export", "-n", "copy"]).out == exported);
    // A large value does not fit one answer with others.
    for key in ["x1", "x2", "x3"] {
        let value: Vec<u8> = key.bytes().cycle().take(12 * 1024 * 1024).chain([0xff]).collect();
        assert_eq!(node.run_with(&["kv", "key", "put", key, "-", "-n", "copy"], &value).code, 0);
    }
    let large = node.ok(&["kv", "export", "-n", "copy", "--prefix", "x"]);
    let line_len = r#"{"key":"x1","value":"","base64":true}"#.len() + (12 * 1024 * 1024 + 3) / 3 * 4;
    assert_eq!(large.out.lines().map(str::len).collect::<Vec<_>>(), [line_len; 3]);
}

#[test]
fn many_keys_are_fetched_and_deleted() {
    let node = node_with("s");
    fs::write(node.file("in"), lines(300)).expect("a file");
    node.ok(&["kv", "bulk", "put", "in", "-n", "s"]);
    let said = node.run_with(&["kv", "bulk", "get", "-", "-n", "s"], br#"["000001", "none", {"name":"000002"}]"#);
    let expected = json!({
        "000001": { "value": "AP8=", "base64": true }, "none": null,
        "000002": { "value": "", "metadata": { "i": 2, "s": ["x", null] } },
    });
    assert_eq!(said.json(), expected);
    let all = node.run_with(&["kv", "bulk", "get", "in", "-n", "s"], b"").json();
    assert_eq!(all.as_object().map(serde_json::Map::len), Some(300));
    assert_eq!(node.run(&["kv", "bulk", "delete", "in", "-n", "s"]).code, 2, "unconfirmed");
    node.ok(&["kv", "bulk", "delete", "in", "-n", "s", "--force"]);
    assert_eq!(node.ok(&["kv", "key", "list", "-n", "s"]).out, "");
}

#[test]
fn a_bulk_put_says_where_it_stopped_and_goes_on_from_there() {
    let node = node_with("s");
    let good = lines(5_500);
    fs::write(node.file("in"), good.replace("\"key\":\"005200\"", "\"key\":\"..\"")).expect("a file");
    let said = node.run(&["kv", "bulk", "put", "in", "-n", "s"]);
    assert_eq!(said.code, 17, "{said:?}");
    assert!(said.err.contains("item 5201 (key \"..\")") && said.err.contains("--skip 5000"), "{said:?}");
    fs::write(node.file("in"), &good).expect("a file");
    let report = node.ok(&["kv", "bulk", "put", "in", "-n", "s", "--skip", "5000", "--json"]).json();
    assert_eq!((&report["successful_key_count"], &report["settled"]), (&json!(500), &json!(5_500)));
    assert_eq!(node.ok(&["kv", "key", "list", "-n", "s"]).out.lines().count(), 5_500);
}

#[test]
fn a_bulk_put_outlives_a_restart_of_the_node() {
    let directory = node_with("s");
    let api = running_api(&directory);
    let lines = lines(60_000);
    let url = format!("http://{api}");
    let node = std::thread::scope(|scope| {
        let token = fs::read_to_string(directory.data().join("admin-token")).expect("a token");
        let put = scope.spawn(move || {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_starling"));
            command.args(["kv", "bulk", "put", "-", "-n", "s", "--json", "--api", &url]);
            command.env("STARLING_TOKEN", token.trim()).stdin(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::piped());
            let mut process = command.stdout(std::process::Stdio::piped()).spawn().expect("the program starts");
            let mut input = process.stdin.take().expect("its input");
            let written = std::io::Write::write_all(&mut input, lines.as_bytes());
            drop(input);
            let output = process.wait_with_output().expect("its output");
            assert!(written.is_ok(), "it reads on: {written:?}, {output:?}");
            output
        });
        until("the first keys", || (!directory.ok(&["kv", "key", "list", "-n", "s"]).out.is_empty()).then_some(()));
        let node = directory.restart(&["--api", &api]);
        let output = put.join().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
        assert_eq!(report["successful_key_count"], 60_000);
        node
    });
    assert_eq!(node.ok(&["kv", "key", "list", "-n", "s"]).out.lines().count(), 60_000);
}

fn running_api(node: &Node) -> String {
    let text = fs::read_to_string(node.data().join("node.json")).expect("node.json");
    let running: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    running["api"].as_str().expect("an address").replace("http://", "")
}

#[test]
fn changes_are_watched_across_a_restart_of_the_node() {
    let node = node_with("s");
    let (api, token) = (running_api(&node), fs::read_to_string(node.data().join("admin-token")).expect("a token"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_starling"));
    command.args(["kv", "key", "watch", "-n", "s", "--prefix", "a", "--json", "--values", "--count", "4"]);
    command.args(["--api", &format!("http://{api}")]).env("STARLING_TOKEN", token.trim());
    let told = fs::File::create(node.file("told")).expect("a file");
    let shown = fs::File::create(node.file("shown")).expect("a file");
    let mut process = command.stdout(shown).stderr(told).spawn().expect("the program starts");
    let read = |node: &Node, file: &str| fs::read_to_string(node.file(file)).expect("a file");
    until("the watcher", || {
        assert!(process.try_wait().expect("its state").is_none(), "{}", read(&node, "told"));
        read(&node, "told").contains("watching").then_some(())
    });
    node.ok(&["kv", "key", "put", "a1", "one", "-n", "s", "--metadata", "{\"x\":1.50}"]);
    until("the first event", || (read(&node, "shown").lines().count() == 1).then_some(()));
    node.ok(&["kv", "key", "put", "b", "not followed", "-n", "s"]);
    node.ok(&["kv", "key", "delete", "a1", "-n", "s"]);
    until("two events", || (read(&node, "shown").lines().count() == 2).then_some(()));
    let node = node.restart(&["--api", &api]);
    node.ok(&["kv", "key", "put", "a2", "two", "-n", "s"]);
    node.ok(&["kv", "key", "put", "a3", "three", "-n", "s"]);
    let ended = until("its end", || process.try_wait().expect("its state"));
    assert!(ended.success(), "{}", read(&node, "told"));
    let shown = read(&node, "shown");
    let events: Vec<serde_json::Value> =
        shown.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let kinds: Vec<_> = events.iter().map(|event| (event["kind"].as_str(), event["key"].as_str())).collect();
    assert_eq!(kinds[..2], [(Some("put"), Some("a1")), (Some("delete"), Some("a1"))], "{shown}");
    assert_eq!(kinds[2..], [(Some("put"), Some("a2")), (Some("put"), Some("a3"))], "{shown}");
    assert!(shown.contains("\"metadata\":{\"x\":1.50}") && events[0]["value"] == "one", "{shown}");
    // From a position on, what has changed since comes at once.
    let position = events[1]["position"].as_str().expect("a position");
    let said = node.ok(&["kv", "key", "watch", "-n", "s", "--since", position, "--count", "1"]);
    assert_eq!(said.out, "put     a2\n");
    assert_eq!(node.run(&["kv", "key", "watch", "-n", "none"]).code, 9);
}
