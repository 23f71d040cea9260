//! Backups of nodes that serve, and what is made of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value as Json;

use crate::flock::{Client, Node, agree, connected, eventually, run, starling};

fn backup(node: &Node, file: &Path) -> Command {
    let mut command = starling();
    command.arg("backup").arg(file).arg("--data").arg(&node.data);
    command
}

fn restore(file: &Path, key: &Path, data: &Path) -> Command {
    let mut command = starling();
    command.arg("restore").arg(file).arg("--data").arg(data).arg("--cluster-key-file").arg(key).arg("--json");
    command
}

fn ok(command: &mut Command) -> (String, String) {
    let (code, out, err) = run(command);
    assert_eq!(code, 0, "{command:?}: {out}{err}");
    (out, err)
}

/// Bytes that nothing can pack, different for each seed.
fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed) * 2 + 1;
    let word = |_| {
        // xorshift64*, Vigna 2016.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()
    };
    (0..len.div_ceil(8)).flat_map(word).take(len).collect()
}

#[test]
fn a_backup_of_a_node_that_serves_goes_on_where_it_was_cut_off_and_founds_a_flock_anew() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let mut a = Node::start(&at("a"), &["--durability", "os"]);
    let mut b = a.join(&at("b"), &["--durability", "os"]);
    connected(&[&a, &b]);
    let namespace = a.namespace("precious");
    let mut held: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for n in 0..40 {
        held.insert(format!("large-{n}"), noise(n, 1_000_000));
    }
    for n in 40..240 {
        held.insert(format!("small-{n}"), noise(n, 300));
    }
    let mut client = a.client();
    for (key, value) in &held {
        assert_eq!(client.ask("PUT", &format!("{namespace}/values/{key}"), value).expect("an answer").status, 200);
    }
    let (file, part) = (at("a.starling"), at("a.starling.part"));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // A client that goes on writing, over what the backup holds, too.
        scope.spawn(|| {
            let mut client = Client::new(a.api, &a.token);
            for n in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                client.ask("PUT", &format!("{namespace}/values/later-{n}"), b"x").expect("an answer");
                client.ask("PUT", &format!("{namespace}/values/overwritten"), b"x").expect("an answer");
            }
        });
        // Killed at several lengths, and once with half a piece at the end.
        for len in [1, 3_000_000, 20_000_000] {
            let process = backup(&a, &file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let mut process = process.expect("the program starts");
            eventually("some of the backup", || (fs::metadata(&part).ok()?.len() >= len).then_some(()));
            process.kill().expect("it is killed");
            if process.wait().expect("it ends").success() {
                // A fast machine: it was whole before it could be killed.
                fs::rename(&file, &part).expect("renames");
            }
            assert!(!file.exists(), "it has its name only when it is whole");
        }
        let cut = fs::OpenOptions::new().write(true).open(&part).expect("opens");
        cut.set_len(cut.metadata().expect("a length").len() - 1000).expect("cuts");
        let (_, said) = ok(&mut backup(&a, &file));
        assert!(said.contains("going on after"), "{said}");
        stop.store(true, Ordering::Relaxed);
    });
    assert!(file.exists() && !part.exists());
    assert_eq!(fs::metadata(&file).expect("is there").permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&file).expect("reads");
    assert!(!bytes.windows(8).any(|window| window == b"precious" || window == &held["small-50"][..8]), "it is sealed");
    let key = at("a.key");
    let (said, _) = ok(starling().arg("verify").arg("--backup").arg(&file).arg("--cluster-key-file").arg(&key));
    assert!(said.contains("is whole"), "{said}");

    // The node is damaged live and stopped, and says so.
    let (said, _) = ok(starling().args(["verify", "--json", "--data"]).arg(&a.data));
    let said: Json = serde_json::from_str(&said).expect("JSON");
    assert!(said["checked"]["chunks"].as_u64() >= Some(160) && said["checked"]["damaged"] == 0, "{said}");
    a.stop();
    let (said, _) = ok(starling().args(["verify", "--offline", "--data"]).arg(&a.data));
    assert!(said.contains("0 damaged"), "{said}");

    // Nothing is left but the backup and the key.
    b.kill();
    for name in ["a", "b"] {
        fs::remove_dir_all(at(name)).expect("removes");
    }
    let (said, _) = ok(&mut restore(&file, &key, &at("r")));
    let said: Json = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["evicted"], 2, "{said}");
    let keyed = ["--durability", "os", "--cluster-key-file", key.to_str().expect("text")];
    let restored = Node::start(&at("r"), &keyed);
    assert_eq!(said["node"], restored.id.as_str());
    assert!(restored.id != a.id && restored.account == a.account);
    let others = ["n1", "n2"].map(|name| restored.join(&at(name), &["--durability", "os"]));
    connected(&[&restored, &others[0], &others[1]]);
    for node in [&restored, &others[0], &others[1]] {
        eventually("everything", || {
            held.iter().all(|(key, value)| node.get(&namespace, key).as_ref() == Some(value)).then_some(())
        });
        node.put(&namespace, &format!("new-{}", node.id), "v");
    }
    agree(&[&restored, &others[0], &others[1]]);
    // A token of the former cluster is good in the new one.
    let answer = Client::new(others[0].api, &a.token).ask("GET", &format!("{namespace}/values/small-50"), &[]);
    assert_eq!(answer.expect("an answer").status, 200);
}

#[test]
fn a_lost_node_returns_from_an_old_backup_while_the_others_run() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let mut a = Node::start(&at("a"), &[]);
    let mut b = a.join(&at("b"), &[]);
    connected(&[&a, &b]);
    let namespace = a.namespace("precious");
    eventually("the namespace arrives", || (b.ask("GET", &namespace, "").status == 200).then_some(()));
    b.put(&namespace, "both", "1");
    agree(&[&a, &b]);
    a.stop();
    // Acknowledged by b alone, and only in its backup once b is lost.
    for n in 0..20 {
        b.put(&namespace, &format!("only-{n}"), "b");
    }
    let file = at("b.starling");
    ok(&mut backup(&b, &file));
    a.return_home();
    connected(&[&a, &b]);
    // Written after the backup, under dots that the backup does not know to be used.
    for n in 0..20 {
        b.put(&namespace, &format!("after-{n}"), "b");
    }
    agree(&[&a, &b]);
    let life = b.status()["life"].clone();
    b.kill();
    fs::remove_dir_all(at("b")).expect("removes");
    a.put(&namespace, "meanwhile", "a");
    ok(restore(&file, &at("b.key"), &at("b")).arg("--same-node"));
    b.restart();
    connected(&[&a, &b]);
    for n in 0..20 {
        b.put(&namespace, &format!("again-{n}"), "b");
    }
    agree(&[&a, &b]);
    assert_ne!(b.status()["life"], life, "a life that has ended wrote again");
    for node in [&a, &b] {
        for n in 0..20 {
            for kind in ["only", "after", "again"] {
                assert!(node.get(&namespace, &format!("{kind}-{n}")).is_some(), "{kind}-{n} at {}", node.id);
            }
        }
        assert!(node.get(&namespace, "meanwhile").is_some());
    }
    // The same file as a cluster of its own disturbs nobody.
    ok(&mut restore(&file, &at("b.key"), &at("apart")));
    let key = at("b.key");
    let apart = Node::start(&at("apart"), &["--cluster-key-file", key.to_str().expect("text")]);
    assert!(apart.get(&namespace, "only-3").is_some() && apart.get(&namespace, "after-3").is_none());
    assert_eq!(apart.status()["peers"], serde_json::json!([]));
    connected(&[&a, &b]);
    b.put(&namespace, "still", "b");
    eventually("it arrives", || a.get(&namespace, "still"));
    let status = a.status();
    assert_eq!(status["alarms"], serde_json::json!([]), "{status}");
}

#[test]
fn what_can_not_be_backed_up_or_restored_says_what_to_do() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let a = Node::start(&at("a"), &[]);
    let file = at("a.starling");
    ok(&mut backup(&a, &file));
    let (code, _, err) = run(&mut restore(&file, &at("none.key"), &at("r")));
    assert!(code == 8 && err.contains("--cluster-key-file") && !at("r").exists(), "{code}: {err}");
    let (code, _, err) = run(&mut restore(&file, &at("a.key"), &at("a")));
    assert!(code == 2 && err.contains("not empty"), "{code}: {err}");
    let (code, _, err) = run(&mut restore(&at("a.key"), &at("a.key"), &at("r")));
    assert!(code == 2 && err.contains("no backup"), "{code}: {err}");
    let (code, _, err) = run(starling().args(["verify", "--offline", "--data"]).arg(&a.data));
    assert!(code == 5 && err.contains("in use"), "{code}: {err}");
    let (code, _, err) = run(starling().args(["verify", "--offline", "--data"]).arg(at("none")));
    assert!(code == 2 && err.contains("--data") && !at("none").exists(), "{code}: {err}");
    // Who may not operate the node gets no backup, sealed as it may be.
    let body = r#"{"name":"reader","scopes":["read"]}"#;
    let token: Json = serde_json::from_str(&a.ask("POST", "/starling/v1/tokens", body).text()).expect("JSON");
    let token = token["token"].as_str().expect("a token").to_owned();
    let refused = Client::new(a.api, &token).ask("POST", "/starling/v1/backups", b"{}").expect("an answer");
    assert_eq!(refused.status, 403, "{refused:?}");
    // One that was interrupted, and that the node does not hold any more, begins anew.
    let whole = fs::read(&file).expect("reads");
    let part = at("b.starling.part");
    fs::write(&part, &whole[..whole.len() * 2 / 3]).expect("writes");
    let (_, err) = ok(&mut backup(&a, &at("b.starling")));
    assert!(err.contains("beginning anew") || err.contains("wrote"), "{err}");
    ok(starling().arg("verify").arg("--backup").arg(at("b.starling")).arg("--data").arg(&a.data));
}

#[test]
fn one_backup_at_a_time() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let a = Node::start(&directory.path().join("a"), &["--durability", "os"]);
    let namespace = a.namespace("large");
    // More than what lies in buffers between the two.
    for n in 0..24 {
        a.put(&namespace, &n.to_string(), noise(n, 1_000_000));
    }
    let begin = || a.ask("POST", "/starling/v1/backups", "{}");
    let begun: Json = serde_json::from_str(&begin().text()).expect("JSON");
    let mut stream = TcpStream::connect(a.api).expect("it listens");
    let number = begun["backup"].as_str().expect("a number");
    let head =
        format!("GET /starling/v1/backups/{number} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", a.token);
    stream.write_all(head.as_bytes()).expect("sent");
    stream.read_exact(&mut [0; 4096]).expect("its beginning");
    let refused = begin();
    assert!(refused.status == 429 && refused.text().contains("Another backup"), "{refused:?}");
    // The client is gone: the next one need not wait for long.
    drop(stream);
    eventually("room for another", || (begin().status == 200).then_some(()));
    let gone = a.ask("GET", &format!("/starling/v1/backups/{number}"), "");
    assert_eq!(gone.status, 404, "the later one has taken its place");
    let strange = a.ask("GET", "/starling/v1/backups/x?held=1e9", "");
    assert_eq!(strange.status, 400, "{strange:?}");
}
