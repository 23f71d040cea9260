//! Workers where nothing runs them: what visitors, operators and scripts of operators see.

use std::net::{SocketAddr, TcpListener};

use serde_json::Value as Json;

use crate::flock::{Answer, Client, Node, eventually, run, starling};

/// Where a node's Workers answer.
pub fn workers(node: &Node) -> Option<SocketAddr> {
    let running: Json =
        serde_json::from_slice(&std::fs::read(node.data.join("node.json")).expect("readable")).expect("JSON");
    Some(running["workers"].as_str()?.trim_start_matches("http://").parse().expect("an address"))
}

/// A request as a visitor sends it.
pub fn visit(at: SocketAddr, host: &str, headers: &str) -> Answer {
    Client::named(at, host).ask_with("GET", "/", headers, b"").expect("an answer")
}

#[test]
fn the_front_says_what_it_knows_and_never_trusts_a_host() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("node"), &["--worker-engine", "none"]);
    let at = workers(&node).expect("an address");
    assert!(at.ip().is_loopback());
    let root = visit(at, &at.to_string(), "");
    assert_eq!((root.status, &root.body[..]), (200, &b"Nothing is deployed yet.\n"[..]));
    let root = visit(at, "localhost:7701", "Accept: text/html\r\n");
    assert!(root.head.to_lowercase().contains("content-type: text/html") && root.status == 200, "{root:?}");
    for host in ["shop.workers.localhost", "example.com", "<script>"] {
        let none = visit(at, host, "Accept: text/html\r\n");
        let text = String::from_utf8_lossy(&none.body).into_owned();
        assert!(none.status == 404 || host == "<script>", "{none:?}");
        assert!(!text.contains("<script>"), "{text}");
    }
    let huge = format!("X-Huge: {}\r\n", "x".repeat(100_000));
    assert_eq!(visit(at, "localhost", &huge).status, 431);
}

/// Deploys a script of one module.
fn deploy(node: &Node, script: &str, code: &str) {
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{{\"main_module\":\"w.js\"}}\r\n\
         --b\r\nContent-Disposition: form-data; name=\"w.js\"; filename=\"w.js\"\r\n\
         Content-Type: application/javascript+module\r\n\r\n{code}\r\n--b--\r\n"
    );
    let path = format!("/client/v4/accounts/{}/workers/scripts/{script}", node.account);
    let headers = "Content-Type: multipart/form-data; boundary=b\r\n";
    let answer = node.client().ask_with("PUT", &path, headers, form.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn without_an_engine_scripts_are_deployed_and_visitors_are_told_the_way_out() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let first = Node::start(
        &directory.path().join("first"),
        &["--worker-engine", "workerd", "--workerd", "/nonexistent/workerd"],
    );
    let second = first.join(&directory.path().join("second"), &["--worker-engine", "none"]);
    deploy(&first, "shop", "export default { fetch() { return new Response('never') } }");
    for (node, why) in [(&first, "/nonexistent/workerd"), (&second, "--worker-engine none")] {
        let at = workers(node).expect("an address");
        let host = format!("shop.workers.localhost:{}", at.port());
        eventually("the script is deployed here", || (visit(at, &host, "").status != 404).then_some(()));
        let told = visit(at, &host, "");
        let text = String::from_utf8_lossy(&told.body).into_owned();
        assert!(told.status == 503 && text.contains(why), "{told:?}: {text}");
        assert!(told.header("retry-after").is_some(), "{told:?}");
        let listed = visit(at, &at.to_string(), "");
        let line = format!("shop\thttp://shop.workers.localhost:{}/\t\n", at.port());
        assert_eq!(String::from_utf8_lossy(&listed.body), line);
    }
}

#[test]
fn the_front_is_where_it_was_told_to_be_or_nowhere() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = Node::start(&directory.path().join("off"), &["--workers", "off"]);
    assert_eq!(workers(&node), None);

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let data = directory.path().join("taken");
    let data = data.to_str().expect("a path");
    let own = ["serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--data", data];
    let (code, _, err) = run(starling().args(own).args(["--workers", &address]));
    assert!(code == 1 && err.contains(&address) && err.contains("--workers off"), "{code}: {err}");
    let (code, _, err) = run(starling().args(own).args(["--workers", "0.0.0.0:0"]));
    assert!(code == 2 && err.contains("--tls-auto"), "{code}: {err}");
}

#[test]
fn an_installation_says_what_it_lacks() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut command = starling();
    command.args(["workers", "install", "--data"]).arg(directory.path()).env("PATH", directory.path());
    let (code, _, err) = run(&mut command);
    assert!(code == 1 && err.contains("npm is missing") && err.contains("--workerd"), "{code}: {err}");
    assert!(!directory.path().join("workerd").exists());
}
