//! Joining: with a good token, with every kind of bad one, and two at once.

use std::net::UdpSocket;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::flock::{Node, agree, connected, run, starling};

/// `starling serve --join` that must not work: exit code and what it said.
fn refused(data: &Path, token: &str, more: &[&str]) -> (i32, String) {
    let mut command = starling();
    command.args(["serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--log", "off", "--data"]).arg(data);
    let (code, _, err) = run(command.args(more).env("STARLING_JOIN", token));
    (code, err)
}

#[test]
fn every_bad_token_has_its_own_exit_code_and_message() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let mut first = Node::start(&at("first"), &["--durability", "os"]);

    let (code, err) = refused(&at("a"), "starling-no-token", &[]);
    assert!(code == 10 && err.contains("token"), "{code}: {err}");
    let good = first.invite();
    let (code, err) = refused(&at("a"), &good[..good.len() - 2], &[]);
    assert!(code == 10 && err.contains("token"), "{code}: {err}");

    let (code, short, err) = run(starling().args(["invite", "--ttl", "1s", "--data"]).arg(&first.data));
    assert!(code == 0 && err.contains("within 1s"), "{code}: {err}");
    thread::sleep(Duration::from_millis(2100));
    let (code, err) = refused(&at("a"), short.trim(), &[]);
    assert!(code == 11 && err.contains("expired"), "{code}: {err}");

    for offset_ms in ["120000", "-120000"] {
        let (code, err) = refused(&at("a"), &good, &["--clock-offset-ms", offset_ms]);
        assert!(code == 15 && err.contains("clock") && err.contains("NTP"), "{offset_ms}: {code}: {err}");
    }
    // A directory whose join failed can try again, and a token that let nobody in is still good.
    let mut joined = Node::unstarted(&at("a"));
    joined.args = vec!["--join".into(), good.clone()];
    joined.restart();
    assert_eq!(joined.account, first.account);

    let (code, err) = refused(&at("b"), &good, &[]);
    assert!(code == 12 && err.contains("used"), "{code}: {err}");

    // An address where now another cluster lives, or nobody.
    let token = first.invite();
    let gossip = first.gossip.clone();
    first.stop();
    let mut other = Node::unstarted(&at("other"));
    let mut command = starling();
    command.args(["serve", "--api", "127.0.0.1:0", "--gossip", &gossip, "--log", "off", "--data"]).arg(&other.data);
    other.spawn(command);
    let (code, err) = refused(&at("b"), &token, &[]);
    assert!(code == 13 && err.contains("another cluster"), "{code}: {err}");
    other.stop();
    let silent = UdpSocket::bind(&gossip).expect("the port is free again");
    let (code, err) = refused(&at("b"), &token, &[]);
    assert!(code == 14 && err.contains(&gossip), "{code}: {err}");
    drop(silent);

    // The first start with another cluster's token leaves a member alone.
    joined.stop();
    joined.args = vec!["--join".into(), token];
    joined.restart();
    assert_eq!(joined.account, first.account);
}

#[test]
fn two_join_at_once_and_any_member_can_invite() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let first = Node::start(&at("1"), &["--pop", "FRA", "--durability", "os"]);
    let tokens = [first.invite(), first.invite()];
    let mut nodes: Vec<Node> = thread::scope(|scope| {
        let start = |(number, token): (usize, &String)| {
            let data = at(&format!("at-once-{number}"));
            let token = token.clone();
            scope.spawn(move || Node::start(&data, &["--durability", "os", "--join", &token]))
        };
        let starting: Vec<_> = tokens.iter().enumerate().map(start).collect();
        starting.into_iter().map(|thread| thread.join().expect("it joins")).collect()
    });
    let last = nodes[1].join(&at("last"), &["--durability", "os"]);
    nodes.extend([first, last]);
    let nodes: Vec<&Node> = nodes.iter().collect();
    connected(&nodes);
    agree(&nodes);
    let status = nodes[0].status();
    for peer in status["peers"].as_array().expect("a list") {
        assert!(peer["node"].is_string() && peer["queue"].is_u64(), "{peer}");
    }
    crate::flock::eventually("peers are measured and agree", || {
        let status = nodes[0].status();
        let peers = status["peers"].as_array().expect("a list");
        let is_well = |peer: &serde_json::Value| {
            peer["rtt_ms"].as_f64().is_some_and(|rtt| rtt > 0.0)
                && peer["lag_ms"] == 0
                && peer["version_vectors_agree"] == true
                && peer["digests_agree"] == true
        };
        peers.iter().all(is_well).then_some(())
    });
    assert!(status["peers"].as_array().expect("a list").iter().any(|peer| peer["pop"] == "FRA"), "{status}");
}

#[test]
fn a_newcomer_whose_clock_is_behind_can_be_found_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut first = Node::start(&directory.path().join("first"), &["--durability", "os"]);
    // What the first node wrote of it when it let it in is later than all that the newcomer says of itself.
    let second = first.join(&directory.path().join("second"), &["--durability", "os", "--clock-offset-ms", "-20000"]);
    connected(&[&first, &second]);
    agree(&[&first, &second]);
    std::thread::sleep(Duration::from_millis(2500));
    agree(&[&first, &second]);
    // Only it knows where the other one is now.
    first.kill();
    first.restart();
    connected(&[&first, &second]);
}

#[test]
fn a_token_admits_one_even_if_two_race_for_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let first = Node::start(&directory.path().join("first"), &["--durability", "os"]);
    let token = first.invite();
    let codes: Vec<Option<i32>> = thread::scope(|scope| {
        let racers: Vec<_> = (0..2)
            .map(|number| {
                let (data, token) = (directory.path().join(format!("racer-{number}")), &token);
                scope.spawn(move || {
                    let mut command = starling();
                    command.args(["serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--data"]).arg(&data);
                    let mut process = command
                        .env("STARLING_JOIN", token)
                        .stdout(std::process::Stdio::null())
                        .stderr(std::process::Stdio::null())
                        .spawn()
                        .expect("the program starts");
                    let ended = crate::flock::eventually("it serves or gives up", || {
                        let ended = process.try_wait().expect("a child can be waited for");
                        (ended.is_some() || data.join("node.json").exists()).then_some(ended)
                    });
                    let _ = process.kill();
                    let _ = process.wait();
                    ended.and_then(|status| status.code())
                })
            })
            .collect();
        racers.into_iter().map(|racer| racer.join().expect("it ends")).collect()
    });
    // Too late, or while the other one was being let in.
    let is_refusal = |code: &Option<i32>| matches!(code, Some(12 | 16));
    assert!(codes.contains(&None) && codes.iter().any(is_refusal), "{codes:?}");
}
