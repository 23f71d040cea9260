//! Bytes that flip in the files of a node that does not run. Whichever it is: the node starts and serves what was
//! written, or says what is wrong and what to do. It never serves anything else, never spreads it, never panics.
//!
//! `STARLING_SEED=17 cargo test --test it rot` does one run again; `STARLING_FLIPS=5` flips in five places of each file
//! instead of one.
#![allow(clippy::disallowed_methods, reason = "watches processes in real time")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::flock::{Client, Node, PATIENCE, agree, connected, eventually, run, starling};

/// Values in their records, and large ones: enough for the store to have tables of every kind.
const SMALL: u64 = 300;
const LARGE: u64 = 66;

/// A seeded stream of numbers: splitmix64, Steele et al. 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

fn value(number: u64) -> Vec<u8> {
    let (mut random, len) = (Random(number), if number < SMALL { 60_000 } else { 1_000_000 });
    (0..len / 8).flat_map(|_| random.next().to_be_bytes()).collect()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} should be a number")))
}

/// Every file below a directory that has bytes to flip, in a fixed order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match fs::symlink_metadata(&path).expect("its kind") {
            kind if kind.is_dir() => found.extend(files(&path)),
            kind if kind.is_file() && kind.len() > 0 => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

/// A place that means something: journals are laid out ahead, and most of them is zeros that nobody reads.
fn place(bytes: &[u8], random: &mut Random, nth: u64) -> usize {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1) as u64;
    let at = match nth % 3 {
        0 => random.below(used),
        1 => random.below(used.min(24)),
        _ => used - 1 - random.below(used.min(24)),
    };
    at as usize
}

/// Copies a directory with its holes; the copy replaces what is there.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status();
    assert!(status.expect("cp").success());
}

/// Whether a message says what to do.
fn names_way_out(said: &str) -> bool {
    let ways = [
        "join anew",
        "join again",
        "restore a backup",
        "put the key",
        "put back",
        "run the newer",
        "restart the node",
        "--cluster-key",
    ];
    ways.iter().any(|way| said.contains(way))
}

/// Starts a node that may refuse to. What it said, if it ended.
fn start(node: &mut Node) -> Option<String> {
    let _ = fs::remove_file(node.data.join("node.json"));
    fs::write(node.log("err"), "").expect("an empty log");
    let mut command = starling();
    command.args(["serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--log", "warn"]);
    command.args(&node.args).arg("--data").arg(&node.data);
    node.try_spawn(command).err()
}

#[test]
fn a_flipped_byte_in_any_file_is_mended_or_named_and_never_served() {
    let seed = setting("STARLING_SEED").unwrap_or_else(|| std::process::id().into());
    let flips = setting("STARLING_FLIPS").unwrap_or(1);
    println!("STARLING_SEED={seed} STARLING_FLIPS={flips} cargo test --test it rot");
    let mut random = Random(seed);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let options = ["--durability", "os", "--worker-engine", "none"];
    let a = Node::start(&at("a"), &options);
    let mut b = a.join(&at("b"), &options);
    connected(&[&a, &b]);
    let namespace = a.namespace("precious");
    let mut client = a.client();
    for number in 0..SMALL + LARGE {
        let answer = client.ask("PUT", &format!("{namespace}/values/{number}"), &value(number)).expect("an answer");
        assert_eq!(answer.status, 200);
    }
    agree(&[&a, &b]);
    b.args.truncate(options.len());
    b.stop();
    let (good, key) = (at("good"), at("b.key"));
    copy(&b.data, &good);
    let good_key = fs::read(&key).expect("a key");
    let all: Vec<PathBuf> = files(&b.data).into_iter().chain([key.clone()]).collect();
    let kinds = ["tables", "blobs", ".jnl", "keyring", "cluster.json", "node.crt"];
    for kind in kinds {
        assert!(all.iter().any(|file| file.to_string_lossy().contains(kind)), "no file of {kind}: {all:?}");
    }
    let expected: Vec<Vec<u8>> = (0..SMALL + LARGE).map(value).collect();
    let (mut served, mut refused) = (0, 0);
    for (file, nth) in all.iter().flat_map(|file| (0..flips).map(move |nth| (file, nth))) {
        let mut bytes = fs::read(file).expect("reads");
        let place = place(&bytes, &mut random, nth + seed);
        let flip = 1 << random.below(8);
        bytes[place] ^= flip;
        fs::write(file, &bytes).expect("writes");
        let name = file.strip_prefix(directory.path()).expect("below").display().to_string();
        let what = format!("{name}, byte {place} of {} ^ {flip:#04x}, seed {seed}", bytes.len());
        match start(&mut b) {
            Some(said) => {
                refused += 1;
                assert!(said.contains("error: ") && names_way_out(&said), "{what}: {said}");
                println!("refused: {what}: {}", said.trim());
            }
            None => {
                // Whose token lies in the file is not at stake here.
                let mut client = Client::new(b.api, &a.token);
                let begun = Instant::now();
                let reasons = loop {
                    let answer = client.ask("GET", "/readyz", &[]).expect("an answer");
                    if answer.status == 200 || answer.text().contains("storage failed") {
                        break answer.text();
                    }
                    let said = fs::read_to_string(b.log("err")).unwrap_or_default();
                    assert!(begun.elapsed() < PATIENCE, "{what}: {}\n{said}", answer.text());
                    thread::sleep(Duration::from_millis(10));
                };
                // It takes no writes any more, and reads go on.
                let has_failed = reasons.contains("storage failed");
                assert!(!has_failed || names_way_out(&reasons), "{what}: {reasons}");
                (served, refused) = (served + u32::from(!has_failed), refused + u32::from(has_failed));
                println!("{}: {what}", if has_failed { "reads only" } else { "served" });
                for (number, expected) in expected.iter().enumerate() {
                    let answer = client.ask("GET", &format!("{namespace}/values/{number}"), &[]);
                    let got = match &answer {
                        Ok(answer) if answer.status == 200 => {
                            assert!(answer.body == *expected, "{what}: key {number} is not what it was");
                            continue;
                        }
                        Ok(answer) => answer.status.to_string(),
                        Err(error) => error.to_string(),
                    };
                    // A compaction may come upon the damage meanwhile and end all writes. A large value's damage can't be
                    // mended then, and must not be served either; all else still is.
                    assert!(!has_failed && number as u64 >= SMALL, "{what}: key {number}: {got}");
                    client = Client::new(b.api, &a.token);
                    let reasons = client.ask("GET", "/readyz", &[]).expect("an answer").text();
                    let is_named = reasons.contains("storage failed") && names_way_out(&reasons);
                    assert!(is_named, "{what}: key {number}: {got}, and {reasons}");
                    println!("not served: {what}: key {number}: {got}");
                }
                b.stop();
            }
        }
        let said = fs::read_to_string(b.log("err")).unwrap_or_default();
        assert!(!said.contains("panicked"), "{what}: {said}");
        for _ in 0..10 {
            let number = random.below(SMALL + LARGE);
            let got = a.get(&namespace, &number.to_string());
            assert!(got.as_ref() == Some(&expected[number as usize]), "{what}: it has spread");
        }
        copy(&good, &b.data);
        fs::write(&key, &good_key).expect("writes");
    }
    println!("{served} served, {refused} refused");
    a_chunk_that_nobody_reads_is_found_by_looking(&mut b, &all);
    assert!(served > 0 && refused > 0);
    for (number, expected) in expected.iter().enumerate() {
        assert!(a.get(&namespace, &number.to_string()).as_ref() == Some(expected), "key {number} at the other node");
    }
    let alarms = a.status()["alarms"].to_string();
    assert!(!alarms.contains("rules"), "{alarms}");
}

/// Flips a byte within a large value, and has `starling verify` find and mend it.
fn a_chunk_that_nobody_reads_is_found_by_looking(node: &mut Node, files: &[PathBuf]) {
    let file = files.iter().find(|file| file.to_string_lossy().contains("/blobs/")).expect("a file of chunks");
    let mut bytes = fs::read(file).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(file, bytes).expect("writes");
    let verify = |node: &Node, flags: &[&str]| {
        let (code, out, err) = run(starling().arg("verify").args(flags).arg("--json").arg("--data").arg(&node.data));
        let said: Json = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {code} {out}{err}"));
        (code, said)
    };
    let (code, said) = verify(node, &["--offline"]);
    assert!(code == 1 && said["damaged"] == 1 && said["examples"][0].to_string().contains("Chunk"), "{code} {said}");
    assert_eq!(start(node), None, "it starts all the same");
    let verified = |flags: &[&str]| {
        let (code, said) = verify(node, flags);
        let count = |name: &str| said["checked"][name].as_u64().expect("a number");
        (code, count("damaged"), count("repaired"))
    };
    eventually("a peer to compare with", || (node.ask("GET", "/readyz", "").status == 200).then_some(()));
    assert_eq!(verified(&[]), (1, 1, 0));
    assert_eq!(verified(&["--repair"]), (0, 1, 1));
    assert_eq!(verified(&[]), (0, 0, 0), "it is mended for good");
    node.stop();
}
