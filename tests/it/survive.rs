//! What a node survives: killed while it writes, a full disk, peers that stand still, a clock that is wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::flock::{Client, Node, agree, connected, eventually, run, starling, starling_after, timed};

/// Writes until it is told to stop or the node is gone; what was acknowledged, by key.
fn write_until(node: &Node, namespace: &str, writer: &str, stop: &AtomicBool) -> BTreeMap<String, String> {
    let mut client = Client::new(node.api, &node.token);
    let mut acknowledged = BTreeMap::new();
    for number in 0.. {
        let (key, value) = (format!("{writer}-{}", number % 200), format!("{writer}:{number}:{}", "x".repeat(200)));
        match client.ask("PUT", &format!("{namespace}/values/{key}"), value.as_bytes()) {
            Ok(answer) if answer.status == 200 => _ = acknowledged.insert(key, value),
            // Whether a write was done that got no answer is unknown; it may have replaced an acknowledged one.
            _ => {
                acknowledged.remove(&key);
                break;
            }
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    acknowledged
}

#[test]
fn a_killed_node_has_every_acknowledged_write_and_rejoins_from_other_ports() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let mut a = Node::start(&at("a"), &[]);
    let mut b = a.join(&at("b"), &[]);
    let c = a.join(&at("c"), &[]);
    connected(&[&a, &b, &c]);
    let namespace = b.namespace("precious");
    eventually("the namespace arrives", || (a.ask("GET", &namespace, "").status == 200).then_some(()));
    let mut acknowledged = BTreeMap::new();
    for round in 0..3 {
        let stop = AtomicBool::new(false);
        let victim = b.pid().to_string();
        let seen: Vec<_> = thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let (b, namespace, stop) = (&b, &namespace, &stop);
                    scope.spawn(move || write_until(b, namespace, &format!("{round}-{writer}"), stop))
                })
                .collect();
            thread::sleep(Duration::from_millis(400 + 150 * round));
            let killed = std::process::Command::new("sh").args(["-c", &format!("kill -KILL {victim}")]).status();
            assert!(killed.expect("a shell").success());
            writers.into_iter().map(|writer| writer.join().expect("a writer ends")).collect()
        });
        acknowledged.extend(seen.into_iter().flatten());
        b.wait();
        a.put(&namespace, "meanwhile", format!("round {round}"));
        // The node takes other ports at every start.
        let (api, gossip) = (b.api, b.gossip.clone());
        b.restart();
        assert!(b.api != api && b.gossip != gossip);
        for (key, value) in &acknowledged {
            assert_eq!(b.get(&namespace, key).as_deref(), Some(value.as_bytes()), "round {round}: {key}");
        }
    }
    assert!(acknowledged.len() > 50, "{}", acknowledged.len());
    connected(&[&a, &b, &c]);
    agree(&[&a, &b, &c]);
    for (key, value) in &acknowledged {
        assert_eq!(c.get(&namespace, key).as_deref(), Some(value.as_bytes()), "{key}");
    }
    assert_eq!(b.get(&namespace, "meanwhile").as_deref(), Some(&b"round 2"[..]));

    // Even when all have moved at once, save one that still knows where it was.
    a.kill();
    b.kill();
    a.restart();
    b.restart();
    connected(&[&a, &b, &c]);
}

#[test]
fn sigterm_and_sigint_end_a_busy_node_well() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start(&directory.path().join("data"), &["--durability", "interval"]);
    let namespace = node.namespace("busy");
    let mut acknowledged = BTreeMap::new();
    for signal in ["TERM", "INT"] {
        let stop = AtomicBool::new(false);
        acknowledged.extend(thread::scope(|scope| {
            let writer = scope.spawn(|| write_until(&node, &namespace, signal, &stop));
            thread::sleep(Duration::from_millis(200));
            node.signal(signal);
            writer.join().expect("a writer ends")
        }));
        assert_eq!(node.wait().code(), Some(0), "SIG{signal}");
        node.restart();
    }
    assert!(acknowledged.len() > 10);
    for (key, value) in &acknowledged {
        assert_eq!(node.get(&namespace, key).as_deref(), Some(value.as_bytes()), "{key}");
    }
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_loses_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let healthy = Node::start(&at("healthy"), &[]);
    // Files of at most 6 MiB, in the blocks of 512 bytes that POSIX counts; some shells count 1024.
    const LIMIT: &str = "ulimit -f 12288";
    let args = ["serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--log", "off", "--data"];
    let (code, _, err) = run(starling_after(LIMIT).args(args).arg(at("new")));
    assert!(code == 7 && err.contains("ulimit -f"), "{code}: {err}");
    drop(Node::start(&at("new"), &[]));
    let mut node = healthy.join(&at("full"), &[]);
    node.stop();
    node.restart_as(starling_after(LIMIT));
    connected(&[&healthy, &node]);
    let namespace = node.namespace("full");
    let mut client = node.client();
    let mut acknowledged = Vec::new();
    let value = |number: usize| format!("{number}:").repeat(60_000 / (number.to_string().len() + 1));
    let refused = (0..2_000).find_map(|number| {
        let answer = client.ask("PUT", &format!("{namespace}/values/{number}"), value(number).as_bytes());
        let answer = answer.expect("an answer");
        match answer.status {
            200 => {
                acknowledged.push(number);
                None
            }
            _ => Some(answer),
        }
    });
    let refused = refused.expect("the disk is full at some time");
    assert!(refused.status == 503 || refused.status == 507, "{refused:?}");
    let said = refused.json()["errors"][0]["message"].as_str().expect("a message").to_owned();
    assert!(said.contains("storage failed") && said.contains("write at another node"), "{said}");
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    for number in &acknowledged {
        assert_eq!(node.get(&namespace, &number.to_string()), Some(value(*number).into_bytes()), "reads go on");
    }
    assert_eq!(node.ask("GET", &format!("{namespace}/keys?limit=10"), "").result().as_array().map(Vec::len), Some(10));
    let again = node.ask("PUT", &format!("{namespace}/values/again"), "v");
    assert_eq!(again.status, refused.status, "{again:?}");
    let status = node.status();
    assert!(status["state"].as_str().expect("a state").starts_with("read-only: storage failed"), "{status}");
    // The rest of the flock goes on.
    healthy.put(&namespace, "elsewhere", "written");
    node.stop();
    node.restart();
    for number in &acknowledged {
        assert_eq!(node.get(&namespace, &number.to_string()), Some(value(*number).into_bytes()), "{number}");
    }
    connected(&[&healthy, &node]);
    agree(&[&healthy, &node]);
    assert_eq!(node.get(&namespace, "elsewhere").as_deref(), Some(&b"written"[..]));
}

#[test]
fn a_log_that_takes_no_lines_stops_nobody() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::unstarted(&directory.path().join("data"));
    node.args = ["--log", "debug"].map(str::to_owned).to_vec();
    let mut command = starling_after("exec 2>/dev/full");
    command
        .args(["serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--data"])
        .arg(&node.data)
        .args(&node.args);
    node.spawn(command);
    let namespace = node.namespace("mute");
    node.put(&namespace, "key", "value");
    assert_eq!(node.get(&namespace, "key").as_deref(), Some(&b"value"[..]));
    assert_eq!(node.stop().code(), Some(0));
}

#[test]
fn a_peer_that_stands_still_slows_nobody_and_catches_up() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let a = Node::start(&at("a"), &["--durability", "os"]);
    let b = a.join(&at("b"), &["--durability", "os"]);
    let c = a.join(&at("c"), &["--durability", "os"]);
    connected(&[&a, &b, &c]);
    let namespace = a.namespace("steady");
    eventually("the namespace arrives", || (b.ask("GET", &namespace, "").status == 200).then_some(()));
    c.signal("STOP");
    let mut slowest = Duration::ZERO;
    // More than what may be on its way to one peer, and more keys than may wait for it.
    for part in 0..20 {
        let pairs: Vec<_> =
            (0..1000).map(|n| json!({ "key": format!("{part}-{n}"), "value": "y".repeat(300) })).collect();
        slowest = slowest.max(timed(|| a.bulk(&namespace, &pairs)));
    }
    let fresh = timed(|| {
        a.put(&namespace, "fresh", "at once");
        eventually("the other peer gets it", || b.get(&namespace, "fresh"));
    });
    assert!(fresh < Duration::from_secs(3) && slowest < Duration::from_secs(5), "{slowest:?}");
    agree(&[&a, &b]);
    c.signal("CONT");
    agree(&[&a, &b, &c]);
}

#[test]
fn a_very_wrong_clock_refuses_writes_and_a_wrong_one_is_corrected() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let a = Node::start(&at("a"), &["--durability", "os"]);
    let b = a.join(&at("b"), &["--durability", "os"]);
    let mut c = a.join(&at("c"), &["--durability", "os"]);
    connected(&[&a, &b, &c]);
    let namespace = a.namespace("clocks");
    c.stop();
    c.args = ["--durability", "os", "--clock-offset-ms", "-90000"].map(str::to_owned).to_vec();
    c.restart();
    connected(&[&a, &b, &c]);
    eventually("it notices", || c.status()["state"].as_str().expect("a state").contains("clock").then_some(()));
    let refused = c.ask("PUT", &format!("{namespace}/values/late"), "v");
    assert!(refused.status == 503 && refused.text().contains("set the clock"), "{refused:?}");
    c.stop();
    c.args = ["--durability", "os", "--clock-offset-ms", "-5000"].map(str::to_owned).to_vec();
    c.restart();
    connected(&[&a, &b, &c]);
    eventually("it notices", || c.status()["alarms"].to_string().contains("clock").then_some(()));
    // Its own clock would lose against the write before.
    a.put(&namespace, "race", "first");
    eventually("it arrives", || c.get(&namespace, "race"));
    c.put(&namespace, "race", "second");
    for node in [&a, &b] {
        eventually("the later write wins", || {
            (node.get(&namespace, "race").as_deref() == Some(b"second")).then_some(())
        });
    }
}

#[test]
fn restarts_in_a_loop_do_no_harm() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let a = Node::start(&at("a"), &["--durability", "os"]);
    let mut b = a.join(&at("b"), &["--durability", "os"]);
    let namespace = a.namespace("loop");
    eventually("the namespace arrives", || (b.ask("GET", &namespace, "").status == 200).then_some(()));
    for round in 0..8 {
        b.put(&namespace, &format!("b-{round}"), "v");
        a.put(&namespace, &format!("a-{round}"), "v");
        match round % 2 {
            0 => b.kill(),
            _ => assert_eq!(b.stop().code(), Some(0)),
        }
        if round % 3 == 0 {
            // A start that is killed at once.
            let mut command = starling();
            command.args(["serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--data"]).arg(&b.data);
            let process = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let mut process = process.spawn().expect("the program starts");
            thread::sleep(Duration::from_millis(30 * round));
            let _ = process.kill();
            let _ = process.wait();
        }
        b.restart();
    }
    connected(&[&a, &b]);
    agree(&[&a, &b]);
    for round in 0..8 {
        assert!(
            a.get(&namespace, &format!("b-{round}")).is_some() && b.get(&namespace, &format!("a-{round}")).is_some()
        );
    }
}
