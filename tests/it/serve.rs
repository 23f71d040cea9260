//! `starling serve` on one machine: the first start, what it prints, settings, and directories that can't be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::flock::{Node, run, shell, starling};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

#[test]
fn a_first_start_needs_no_settings_and_what_it_prints_works_when_pasted() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = starling();
    // A port of its own is all that a machine with other nodes on it needs.
    command.args(["serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0"]).current_dir(&directory);
    let mut node = Node::unstarted(&directory.path().join("starling-data"));
    node.spawn(command);

    assert_eq!(mode(&node.data), 0o700);
    for file in &files(&node.data) {
        assert_eq!(mode(file) & 0o077, 0, "{}", file.display());
    }
    for name in ["admin-token", "node.json", "cluster.json"] {
        assert_eq!(mode(&node.data.join(name)), 0o600, "{name}");
    }
    assert_eq!((node.account.len(), node.id.len()), (32, 16));
    // The token is in its file and nowhere else.
    for file in files(&node.data).iter().chain([&node.log("out"), &node.log("err")]) {
        let holds = fs::read(file).expect("readable").windows(node.token.len()).any(|w| w == node.token.as_bytes());
        assert_eq!(holds, file.ends_with("admin-token"), "{}", file.display());
    }

    let banner = fs::read_to_string(node.log("out")).expect("a banner");
    let paste = |from: &str| -> String {
        let block = banner.split(from).nth(1).unwrap_or_else(|| panic!("{from:?} is not in\n{banner}"));
        block.lines().skip(2).take_while(|line| !line.is_empty()).map(|line| format!("{}\n", line.trim())).collect()
    };
    let shell = |script: &str| {
        let mut command = shell(script);
        command.current_dir(&directory);
        command
    };
    if Command::new("curl").arg("--version").output().is_ok() {
        let (code, out, err) = run(&mut shell(&paste("Write a value and read it back:")));
        let said = out.lines().last().unwrap_or_default();
        assert!(code == 0 && said.starts_with("hello from "), "{code}: {out}{err}");
    }
    let (code, out, err) = run(&mut shell(&paste("See how the cluster is:")));
    assert!(code == 0 && out.contains("serving"), "{code}: {out}{err}");

    let script = paste("Add a second node").replace(" serve ", " serve --log warn ");
    let (invite, serve) = script.split_once('\n').expect("two commands");
    let mut second = Node::unstarted(&directory.path().join("starling-data-2"));
    second.spawn(shell(&format!("{invite}\nexec {serve}")));
    assert_eq!(second.account, node.account);
    assert!(fs::read_to_string(second.log("out")).expect("a banner").contains("with 1 peer"));

    for node in [&mut second, &mut node] {
        assert_eq!(node.stop().code(), Some(0), "a stopped node exits well");
    }
}

#[test]
fn flags_win_over_variables_over_the_file_and_wrong_names_are_told_the_nearest() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("starling.toml");
    fs::write(&file, "name = \"file\"\npop = \"lhr\"\ndurability = \"os\"\n").expect("written");
    let mut command = starling();
    command.args(["serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--name", "flag", "--config"]).arg(&file);
    command.env("STARLING_NAME", "variable").env("STARLING_POP", "ams").current_dir(&directory);
    let mut node = Node::unstarted(&directory.path().join("starling-data"));
    node.spawn(command);
    let status = node.status();
    assert_eq!((&status["name"], &status["pop"], &status["durability"]), (&"flag".into(), &"AMS".into(), &"os".into()));

    fs::write(&file, "gosip = \"127.0.0.1:0\"\n").expect("written");
    let (code, _, err) = run(starling().args(["serve", "--config"]).arg(&file).current_dir(&directory));
    assert!(code == 2 && err.contains("`gosip`") && err.contains("`gossip`"), "{code}: {err}");
    let (code, _, err) = run(starling().arg("serve").env("STARLING_DURABILTY", "os").current_dir(&directory));
    assert!(code == 2 && err.contains("`STARLING_DURABILITY`"), "{code}: {err}");
    let (code, _, err) = run(starling().args(["serve", "--gosip", "127.0.0.1:0"]).current_dir(&directory));
    assert!(code == 2 && err.contains("--gossip"), "{code}: {err}");
}

#[test]
fn dev_takes_any_credentials_and_stays_on_loopback() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("data");
    let (code, _, err) = run(starling().args(["serve", "--dev", "--api", "0.0.0.0:0", "--data"]).arg(&data));
    assert!(code == 2 && err.contains("loopback") && !data.exists(), "{code}: {err}");
    let mut node = Node::start(&data, &["--dev", "--durability", "os"]);
    (node.account, node.token) = ("f00".into(), "anything".into());
    let namespace = node.namespace("dev");
    node.put(&namespace, "key", "value");
    assert_eq!(node.get(&namespace, "key").as_deref(), Some(&b"value"[..]));
}

#[test]
fn commands_find_a_node_by_directory_or_url_and_say_what_is_wrong() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut node = Node::start(&directory.path().join("data"), &["--pop", "FRA", "--durability", "os"]);
    let url = format!("http://{}", node.api);
    let (code, out, _) = run(starling().args(["status", "--json", "--data"]).arg(&node.data));
    let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &status["account"], &status["pop"]), (0, &node.account.clone().into(), &"FRA".into()));
    assert_eq!(status["peers"], serde_json::json!([]));
    assert!(status["digest"].is_string() && status["disk_bytes"].as_u64() > Some(0));
    assert!(status["counters"]["local_writes"].as_u64() > Some(0), "{status}");
    let (code, out, _) = run(starling().args(["status", "--api", &url]).env("STARLING_TOKEN", &node.token));
    assert!(code == 0 && out.contains("FRA") && out.contains("serving"), "{code}: {out}");
    let (code, _, err) = run(starling().args(["status", "--api", &url]).env("STARLING_TOKEN", "x".repeat(43)));
    assert!(code == 4 && err.contains("STARLING_TOKEN"), "{code}: {err}");
    let (code, _, err) = run(starling().args(["status", "--api", &url]));
    assert!(code == 4 && err.contains("STARLING_TOKEN"), "{code}: {err}");
    let (code, out, _) = run(starling().args(["invite", "--data"]).arg(&node.data));
    assert!(code == 0 && out.lines().count() == 1, "the token alone: {out}");

    let (code, _, err) = run(starling().args(["serve", "--api", "127.0.0.1:0", "--data"]).arg(&node.data));
    assert!(code == 5 && err.contains(&format!("pid {}", node.pid())), "{code}: {err}");
    node.stop();
    let (code, _, err) = run(starling().args(["status", "--data"]).arg(&node.data));
    assert!(code == 3 && err.contains("starling serve"), "{code}: {err}");

    fs::write(node.data.join("format"), "2\n").expect("written");
    let (code, _, err) = run(starling().args(["serve", "--api", "127.0.0.1:0", "--data"]).arg(&node.data));
    assert!(code == 6 && err.contains("format 2") && err.contains("newer"), "{code}: {err}");
    let foreign = directory.path().join("foreign");
    fs::create_dir(&foreign).expect("made");
    fs::write(foreign.join("thesis.txt"), "mine").expect("written");
    let (code, _, err) = run(starling().args(["serve", "--api", "127.0.0.1:0", "--data"]).arg(&foreign));
    assert!(code == 1 && err.contains("not a Starling data directory"), "{code}: {err}");
    assert_eq!(fs::read_dir(&foreign).expect("readable").count(), 1, "nothing was left in a foreign directory");
}

#[test]
fn a_taken_port_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, _, err) = run(starling().args(["serve", "--api", &address, "--data"]).arg(directory.path().join("a")));
    assert!(code == 1 && err.contains(&address) && err.contains("--api"), "{code}: {err}");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let args = ["serve", "--api", "127.0.0.1:0", "--gossip", &address, "--data"];
    let (code, _, err) = run(starling().args(args).arg(directory.path().join("b")));
    assert!(code == 1 && err.contains(&address) && err.contains("--gossip"), "{code}: {err}");
}
