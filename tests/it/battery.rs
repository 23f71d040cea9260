//! The platform that scripts find, case by case, beside what workerd answers.
#![allow(clippy::disallowed_methods, reason = "watches processes in real time")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json, json};

use super::scripts::{CODE, ask, deploy, kv, namespace};
use super::workers::workers;
use crate::flock::Node;

macro_rules! battery {
    ($($name:literal),*) => { &[$(($name, CODE, include_str!(concat!("../battery/", $name)))),*] };
}

const CASES: &[(&str, &str, &str)] =
    battery!("battery.mjs", "bodies.mjs", "crypto.mjs", "html.mjs", "network.mjs", "platform.mjs", "url.mjs");
const VECTORS: &str = include_str!("../battery/vectors.json");
const ORIGIN: &str = include_str!("../battery/origin.mjs");
/// What workerd answers, as `tests/battery/record` wrote it down.
const AS_WORKERD: &str = include_str!("../battery/workerd.json");
/// Where the embedded engine answers otherwise, and why.
const DIFFERENCES: &str = include_str!("../battery/differences.json");

fn deploy_battery(node: &Node, at: SocketAddr, namespace: &str) {
    let bindings = json!({ "bindings": [
        kv(namespace),
        { "type": "plain_text", "name": "TEXT", "text": "hello" },
        { "type": "json", "name": "JSON", "json": { "a": [1] } },
        { "type": "plain_text", "name": "ORIGIN", "text": format!("http://{at}") },
    ] });
    let modules = [CASES, &[("vectors.json", "application/json", VECTORS)]].concat();
    let deployed = deploy(node, "battery", &modules, bindings);
    assert_eq!(deployed.status, 200, "{deployed:?}");
}

#[test]
fn the_platform_answers_as_workerd_does() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &["--workers-fetch-local"]);
    let at = workers(&node).expect("an address");
    // What the battery fetches from: by address, as names under .localhost need a resolver that knows them.
    assert_eq!(deploy(&node, "origin", &[("origin.mjs", CODE, ORIGIN)], json!({})).status, 200);
    let zone = node.client().ask("GET", "/client/v4/zones?name=127.0.0.1", b"").expect("an answer").json();
    let routes = format!("/client/v4/zones/{}/workers/routes", zone["result"][0]["id"].as_str().expect("an id"));
    let route = json!({ "pattern": "127.0.0.1/*", "script": "origin" }).to_string();
    assert_eq!(node.client().ask("POST", &routes, route.as_bytes()).expect("an answer").status, 200);

    deploy_battery(&node, at, &namespace(&node));
    let mut answers = Map::new();
    let groups = ask(at, "battery", "GET", "/", "", b"").json();
    for group in groups.as_array().expect("a list") {
        let path = format!("/{}", group.as_str().expect("a name"));
        let Json::Object(answered) = ask(at, "battery", "GET", &path, "", b"").json() else { panic!("no object") };
        answers.extend(answered);
    }
    let recorded: Map<String, Json> = serde_json::from_str(AS_WORKERD).expect("JSON");
    let differences: Map<String, Json> = serde_json::from_str(DIFFERENCES).expect("JSON");
    assert!(recorded.len() > 200 && answers.len() == recorded.len(), "{} of {}", answers.len(), recorded.len());
    let mut wrong = Vec::new();
    for (case, theirs) in &recorded {
        let ours = &answers[case];
        match differences.get(case) {
            // It takes until the next full minute: see the next test.
            _ if case == "timer" => {}
            None if ours == theirs => {}
            None => wrong.push(format!("{case}:\n  {ours}\n  {theirs}")),
            Some(_) if ours == theirs => wrong.push(format!("{case} differs no more: take it out of differences.json")),
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_timer_is_told_what_workerd_tells_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let (at, namespace) = (workers(&node).expect("an address"), namespace(&node));
    deploy_battery(&node, at, &namespace);
    let account = format!("/client/v4/accounts/{}", node.account);
    let crons = format!("{account}/workers/scripts/battery/schedules");
    assert_eq!(node.client().ask("PUT", &crons, br#"[{"cron":"* * * * *"}]"#).expect("an answer").status, 200);
    let value = format!("{account}/storage/kv/namespaces/{namespace}/values/timer");
    // Until the next full minute.
    let until = Instant::now() + Duration::from_secs(90);
    let told = loop {
        let got = node.client().ask("GET", &value, b"").expect("an answer");
        if got.status == 200 {
            break got.json();
        }
        assert!(Instant::now() < until, "{got:?}");
        std::thread::sleep(Duration::from_millis(200));
    };
    let recorded: Map<String, Json> = serde_json::from_str(AS_WORKERD).expect("JSON");
    assert_eq!(Some(&told), recorded.get("timer"));
}

/// How many cases there are of each kind, and which of them fail.
const WPT_EXPECTED: &str = include_str!("../wpt/expected.json");

#[test]
fn the_web_platform_tests_of_urls_hold_but_for_those_that_are_known() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &[]);
    let at = workers(&node).expect("an address");
    let modules = [
        ("wpt.mjs", CODE, include_str!("../wpt/wpt.mjs")),
        ("urltestdata.json", "application/json", include_str!("../wpt/urltestdata.json")),
        ("setters_tests.json", "application/json", include_str!("../wpt/setters_tests.json")),
        ("urlpatterntestdata.json", "application/json", include_str!("../wpt/urlpatterntestdata.json")),
    ];
    let deployed = deploy(&node, "wpt", &modules, json!({}));
    assert_eq!(deployed.status, 200, "{deployed:?}");
    let told = ask(at, "wpt", "GET", "/", "", b"");
    let expected: Json = serde_json::from_str(WPT_EXPECTED).expect("JSON");
    assert!(told.json() == expected, "not as in tests/wpt/expected.json: {}", told.text());
}
