//! What former versions wrote is read by this one, and the nodes of a cluster can be replaced one after the other while
//! it is used. `tests/fixtures/README.md` says where the files come from.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value as Json;

use crate::flock::{Client, Node, agree, connected, eventually, run, starling};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Files whose names begin and end so, for every number there is.
fn recorded(begin: &str, end: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(fixtures()).expect("the fixtures").map(|entry| entry.expect("a file").path());
    let is_meant = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        name.starts_with(begin) && name.ends_with(end)
    };
    let found: Vec<PathBuf> = all.filter(is_meant).collect();
    assert!(!found.is_empty(), "no {begin}…{end}");
    found
}

/// A copy of the key that is for its owner only.
fn key(directory: &Path) -> PathBuf {
    let key = directory.join("cluster.key");
    fs::copy(fixtures().join("cluster.key"), &key).expect("copies");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("closes it to others");
    key
}

/// The namespace that was recorded, as a path.
fn namespace(node: &Node) -> String {
    let listed = node.ask("GET", &node.namespaces(), "").result();
    let found = listed.as_array().expect("a list").iter().find(|found| found["title"] == "recorded");
    format!("{}/{}", node.namespaces(), found.expect("it is there")["id"].as_str().expect("an id"))
}

/// Everything that `tests/fixtures/record` writes.
fn check(node: &Node) {
    let namespace = namespace(node);
    for n in 0..100 {
        let expected = (n % 10 != 0).then(|| format!("value {n}").into_bytes());
        assert_eq!(node.get(&namespace, &format!("key-{n}")), expected, "key-{n}");
    }
    let large: Vec<u8> = (0..37_500_u64).flat_map(u64::to_be_bytes).collect();
    assert!(node.get(&namespace, "large") == Some(large));
    let metadata = node.ask("GET", &format!("{namespace}/metadata/with%20metadata"), "").text();
    assert!(metadata.contains(r#"{"a":[1,2.50,"ü"]}"#), "as it was written: {metadata}");
    let script = node.ask("GET", &format!("/client/v4/accounts/{}/workers/scripts/shop", node.account), "");
    assert!(script.text().contains("recorded"), "{script:?}");
    node.put(&namespace, "new", "v");
    assert_eq!(node.get(&namespace, "new").as_deref(), Some(&b"v"[..]));
}

/// The node serves what was recorded, and so does one of this version that joins it.
fn serves_and_lets_in(data: &Path, key: &Path, directory: &Path) {
    let key = key.to_str().expect("text");
    let node = Node::start(data, &["--cluster-key-file", key, "--worker-engine", "none"]);
    check(&node);
    let newcomer = node.join(&directory.join("newcomer"), &["--worker-engine", "none"]);
    connected(&[&node, &newcomer]);
    agree(&[&node, &newcomer]);
    check(&newcomer);
}

#[test]
fn recorded_data_directories_start_and_let_new_nodes_in() {
    for archive in recorded("data-", ".tar.gz") {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let untarred = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(directory.path()).status();
        assert!(untarred.expect("tar").success(), "{}", archive.display());
        let (data, key) = (directory.path().join("data"), key(directory.path()));
        let (code, out, err) = run(starling()
            .args(["verify", "--offline", "--json", "--data"])
            .arg(&data)
            .args(["--cluster-key-file", key.to_str().expect("text")]));
        let said: Json = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {code} {out}{err}"));
        assert!(code == 0 && said["damaged"] == 0 && said["seals"].as_u64() > Some(91), "{said}");
        serves_and_lets_in(&data, &key, directory.path());
    }
}

#[test]
fn recorded_backups_are_restored_and_let_new_nodes_in() {
    for file in recorded("backup-", ".starling") {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (data, key) = (directory.path().join("data"), key(directory.path()));
        let mut command = starling();
        command.arg("restore").arg(&file).arg("--data").arg(&data).arg("--cluster-key-file").arg(&key);
        let (code, _, err) = run(&mut command);
        assert_eq!(code, 0, "{}: {err}", file.display());
        serves_and_lets_in(&data, &key, directory.path());
    }
}

/// Writes to whichever node answers, as clients behind a load balancer do; the last value of each key that was
/// acknowledged.
fn write_on(apis: &Mutex<Vec<Client>>, stop: &AtomicBool, namespace: &str, writer: usize) -> BTreeMap<String, String> {
    let mut acknowledged = BTreeMap::new();
    let mut nodes = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if nodes.is_empty() {
            nodes = apis.lock().expect("a lock").iter().map(Client::again).collect();
        }
        let (key, value) = (format!("{writer}-{}", number % 40), format!("{writer}:{number}"));
        let path = format!("{namespace}/values/{key}");
        // The same write again, elsewhere, until someone says that it has it.
        let mut attempt = number;
        while !stop.load(Ordering::Relaxed) {
            let index = attempt % nodes.len();
            match nodes[index].ask("PUT", &path, value.as_bytes()) {
                Ok(answer) if answer.status == 200 => {
                    acknowledged.insert(key, value);
                    break;
                }
                // Whether it was done is not known, so neither is what the key holds.
                _ => acknowledged.remove(&key),
            };
            attempt += 1;
            nodes[index] = apis.lock().expect("a lock")[index].again();
            thread::sleep(Duration::from_millis(5));
        }
    }
    acknowledged
}

#[test]
fn a_rolling_restart_under_load_loses_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let a = Node::start(&at("a"), &[]);
    let mut nodes = vec![a];
    for name in ["b", "c"] {
        let joined = nodes[0].join(&at(name), &[]);
        nodes.push(joined);
    }
    connected(&nodes.iter().collect::<Vec<_>>());
    let namespace = nodes[0].namespace("rolling");
    for node in &nodes {
        eventually("the namespace arrives", || (node.ask("GET", &namespace, "").status == 200).then_some(()));
    }
    let apis = Mutex::new(nodes.iter().map(Node::client).collect::<Vec<_>>());
    let stop = AtomicBool::new(false);
    let acknowledged: BTreeMap<String, String> = thread::scope(|scope| {
        let (apis, stop, namespace) = (&apis, &stop, &namespace);
        let writers: Vec<_> =
            (0..4).map(|writer| scope.spawn(move || write_on(apis, stop, namespace, writer))).collect();
        for (index, node) in nodes.iter_mut().enumerate() {
            thread::sleep(Duration::from_millis(500));
            assert_eq!(node.stop().code(), Some(0));
            node.restart();
            apis.lock().expect("a lock")[index] = node.client();
            eventually("readiness", || (node.ask("GET", "/readyz", "").status == 200).then_some(()));
        }
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect()
    });
    assert!(acknowledged.len() > 100, "only {} keys", acknowledged.len());
    agree(&nodes.iter().collect::<Vec<_>>());
    for node in &nodes {
        for (key, value) in &acknowledged {
            assert_eq!(node.get(&namespace, key).as_deref(), Some(value.as_bytes()), "{key} at {}", node.id);
        }
    }
}
