//! Keys, tokens and certificates as operators handle them, and that no secret ever shows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use crate::flock::{Node, eventually, run, starling};

/// Runs a command against a node's data directory.
fn tell(node: &Node, line: &[&str]) -> (i32, String, String) {
    let mut command = starling();
    run(command.args(line).arg("--data").arg(&node.data))
}

/// The same, which must succeed; gives its standard output.
fn told(node: &Node, line: &[&str]) -> String {
    let (code, out, err) = tell(node, line);
    assert_eq!(code, 0, "{line:?}: {err}");
    out.trim().to_owned()
}

/// The libraries too, which are quiet otherwise.
const EVERYTHING: &str = "trace,quinn=trace,quinn_proto=trace,quinn_udp=trace,rustls=trace,hyper=trace,hyper_util=trace,\
                          h2=trace,fjall=trace,lsm_tree=trace";

/// A node that tells its log everything.
fn talkative(data: &Path, join: Option<&str>, settings: &[(&str, &str)]) -> Node {
    let mut node = Node::unstarted(data);
    let mut command = starling();
    command.args([
        "serve",
        "--api",
        "127.0.0.1:0",
        "--gossip",
        "127.0.0.1:0",
        "--log",
        EVERYTHING,
        "--durability",
        "os",
    ]);
    command.arg("--data").arg(data);
    if let Some(token) = join {
        command.env("STARLING_JOIN", token);
    }
    for (name, value) in settings {
        command.env(name, value);
    }
    node.spawn(command);
    node
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all
}

#[test]
fn no_secret_shows_in_a_log_at_trace_level() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let key = run(starling().args(["key", "generate"])).1.trim().to_owned();
    assert_eq!(key.len(), 64);
    let a = talkative(&directory.path().join("a"), None, &[("STARLING_CLUSTER_KEY", &key)]);
    let invite = told(&a, &["invite"]);
    let b = talkative(&directory.path().join("b"), Some(&invite), &[]);
    let given = fs::read_to_string(directory.path().join("b.key")).expect("the key file");
    assert!(given.contains(&key), "the cluster key came with the join, and is kept beside the data");
    let token = told(&a, &["token", "create", "ci", "--scope", "read,list"]);
    let namespace = a.namespace("secrets");
    a.put(&namespace, "k", "the-value-itself");
    let wrong = "a-wrong-token-0123456789-0123456789-0123456789";
    let mut status = starling();
    status.args(["status", "--api", &format!("http://{}", b.api)]).env("STARLING_TOKEN", wrong);
    let (code, _, refused) = run(&mut status);
    assert_eq!(code, 4);
    assert!(!refused.contains(wrong), "{refused}");
    eventually("the value at the other node", || b.get(&namespace, "k"));
    told(&a, &["key", "rotate", "system"]);
    // A variable can't be changed from here, and the answer says what to do.
    let (code, _, error) = tell(&a, &["key", "rotate", "cluster"]);
    assert!(code == 1 && error.contains("STARLING_CLUSTER_KEY") && error.contains("key generate"), "{error}");

    let seen = [&a, &b].map(|node| {
        let read = |kind| fs::read_to_string(node.log(kind)).expect("a log");
        read("out") + &read("err")
    });
    assert!(seen.iter().all(|log| log.contains(" TRACE ") && log.contains(" DEBUG ")), "the log tells everything");
    for (what, secret) in [
        ("cluster key", &*key),
        ("admin token", &a.token),
        ("admin token", &b.token),
        ("join token", &invite),
        ("API token", &token),
        ("wrong API token", wrong),
        ("value", "the-value-itself"),
    ] {
        for log in &seen {
            assert!(!log.contains(secret), "the log shows the {what}");
        }
    }
}

#[test]
fn secret_files_are_for_their_owner() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let a = Node::start(&directory.path().join("a"), &["--durability", "os"]);
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&a.data), 0o700);
    assert_eq!(mode(&directory.path().join("a.key")), 0o600);
    for name in ["keyring", "admin-token", "cluster.json"] {
        assert_eq!(mode(&a.data.join(name)), 0o600, "{name}");
    }
    for file in files(&a.data) {
        let text = fs::read(&file).expect("a file");
        assert!(!text.windows(11).any(|window| window == b"PRIVATE KEY"), "{}", file.display());
    }
}

#[test]
fn operators_make_list_roll_and_revoke_tokens_and_accounts_are_apart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let a = Node::start(&directory.path().join("a"), &["--durability", "os"]);
    let b = a.join(&directory.path().join("b"), &["--durability", "os"]);
    let account = told(&a, &["account", "create", "other"]);
    assert!(told(&a, &["account", "list"]).contains(&account));
    let token = told(&a, &["token", "create", "boss", "--scope", "admin,read,write,list", "--account", &account]);
    let at_b = |token: &str| {
        let mut command = starling();
        command.args(["token", "list", "--json", "--api", &format!("http://{}", b.api)]);
        run(command.env("STARLING_TOKEN", token))
    };
    let listed = eventually("the token at the other node", || {
        let (code, out, _) = at_b(&token);
        (code == 0).then_some(out)
    });
    let listed: Json = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((listed[0]["name"].as_str(), listed[1].is_null()), (Some("boss"), true), "it sees its account alone");
    let id = listed[0]["id"].as_str().expect("an id").to_owned();
    told(&a, &["token", "revoke", &id, "--account", &account]);
    // Asking early and often, as above, counts as failed logins: a wrong token may hear of that instead.
    let is_refused_at_b = |token: &str| {
        let (code, _, err) = at_b(token);
        (code == 4 || err.contains("Too many failed logins")).then_some(())
    };
    eventually("the revocation at the other node", || is_refused_at_b(&token));

    let former = a.token.clone();
    told(&a, &["token", "roll", "--admin", "--grace", "0s"]);
    let now = fs::read_to_string(a.data.join("admin-token")).expect("a token");
    assert_ne!(now.trim(), former);
    assert_eq!(tell(&a, &["status"]).0, 0);
    eventually("the roll at the other node", || is_refused_at_b(&former));
    let acts: Json = serde_json::from_str(&told(&a, &["audit", "--json"])).expect("JSON");
    let what: Vec<&str> = acts.as_array().expect("a list").iter().filter_map(|act| act["what"].as_str()).collect();
    assert_eq!(what, ["token.roll", "token.revoke", "token.create", "account.create", "node.invite"]);
    let at_b = eventually("the audit log at the other node", || {
        let out = told(&b, &["audit"]);
        out.contains("token.roll").then_some(out)
    });
    assert!(at_b.lines().count() == 5 && at_b.contains("127.0.0.1"), "{at_b}");
    let verified: Json = serde_json::from_str(&told(&a, &["verify", "--json"])).expect("JSON");
    assert!(verified["compared"].as_u64() > Some(5), "{verified}");
    assert!(told(&a, &["key", "status"]).contains("data keys"));
}

#[test]
fn beyond_loopback_there_is_no_plain_http_and_commands_trust_the_certificate_of_their_node() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("a");
    let mut command = starling();
    command.args(["serve", "--api", "0.0.0.0:0", "--gossip", "127.0.0.1:0", "--data"]).arg(&data);
    let (code, _, error) = run(&mut command);
    assert!(code == 2 && error.contains("--tls-auto") && error.contains("--insecure-http"), "{code} {error}");
    assert!(!data.exists());

    let mut command = starling();
    command.args([
        "serve",
        "--api",
        "0.0.0.0:0",
        "--gossip",
        "127.0.0.1:0",
        "--tls-auto",
        "--durability",
        "os",
        "--data",
    ]);
    let log = fs::File::create(directory.path().join("err")).expect("a file");
    let mut process = command.arg(&data).stdout(std::process::Stdio::null()).stderr(log).spawn().expect("starts");
    let answer = eventually("a status over HTTPS", || {
        let (code, out, _) = run(starling().args(["status", "--json", "--data"]).arg(&data));
        (code == 0).then_some(out)
    });
    assert!(answer.contains("serving"), "{answer}");
    let running: Json = serde_json::from_slice(&fs::read(data.join("node.json")).expect("a file")).expect("JSON");
    let api = running["api"].as_str().expect("a URL");
    assert!(api.starts_with("https://127.0.0.1:"), "{api}");
    let token = fs::read_to_string(data.join("admin-token")).expect("a token");
    let ask = |ca: Option<PathBuf>| {
        let mut command = starling();
        command.args(["status", "--json", "--api", api]).env("STARLING_TOKEN", token.trim());
        if let Some(ca) = ca {
            command.arg("--ca").arg(ca);
        }
        run(&mut command)
    };
    let (code, _, error) = ask(None);
    assert!(code == 3 && error.contains("--ca"), "{code} {error}");
    assert_eq!(ask(Some(data.join("identity/authority.crt"))).0, 0);
    process.kill().expect("it ran");
    process.wait().expect("it ended");
}
