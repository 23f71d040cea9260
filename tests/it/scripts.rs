//! Scripts as they are deployed and asked.

use std::net::SocketAddr;

use serde_json::{Value as Json, json};

use crate::flock::{Answer, Client, Node, eventually};

/// Deploys modules, each with its type. The first is the main one.
pub fn deploy(node: &Node, script: &str, modules: &[(&str, &str, &str)], mut metadata: Json) -> Answer {
    metadata["compatibility_date"] = json!("2026-01-01");
    if metadata.get("body_part").is_none() {
        metadata["main_module"] = json!(modules[0].0);
    }
    let mut form = format!("--b\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{metadata}\r\n");
    for (name, kind, body) in modules {
        form += &format!(
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n\
             {body}\r\n"
        );
    }
    form += "--b--\r\n";
    let path = format!("/client/v4/accounts/{}/workers/scripts/{script}", node.account);
    let headers = "Content-Type: multipart/form-data; boundary=b\r\n";
    node.client().ask_with("PUT", &path, headers, form.as_bytes()).expect("an answer")
}

/// The type of a module of code.
pub const CODE: &str = "application/javascript+module";

/// Deploys a script of one module.
pub fn deploy_code(node: &Node, script: &str, code: &str, metadata: Json) {
    let answer = deploy(node, script, &[("w.mjs", CODE, code)], metadata);
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A new namespace.
pub fn namespace(node: &Node) -> String {
    let path = format!("/client/v4/accounts/{}/storage/kv/namespaces", node.account);
    let made = node.client().ask("POST", &path, br#"{"title":"n"}"#).expect("an answer");
    made.json()["result"]["id"].as_str().expect("an id").to_owned()
}

/// A binding to it.
pub fn kv(namespace: &str) -> Json {
    json!({ "type": "kv_namespace", "name": "KV", "namespace_id": namespace })
}

/// A script's answer, once it is deployed.
pub fn ask(at: SocketAddr, script: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let host = format!("{script}.workers.localhost:{}", at.port());
    eventually("the script is deployed", || {
        let answer = Client::named(at, &host).ask_with(method, path, headers, body).ok()?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        (!text.starts_with("No script answers")).then_some(answer)
    })
}

/// What a script answers to a plain request.
pub fn get(at: SocketAddr, script: &str, path: &str) -> (u16, String) {
    let answer = ask(at, script, "GET", path, "", b"");
    (answer.status, String::from_utf8_lossy(&answer.body).into_owned())
}
