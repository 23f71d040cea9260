//! Bookmarks and acknowledgements between the nodes of a small flock.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::kv::Bookmark;
use crate::replica::{Incarnation, NodeId, Origin, Timestamp};
use crate::secret::Secret;

/// Writes timed for the figure of `starling-acks: all`.
const TIMED_WRITES: usize = 60;

/// A flock on loopback, its nodes connected and with one roster.
pub(super) async fn flock(size: usize, durability: Durability) -> Vec<Server> {
    let first = Server::founded(durability).await;
    let mut servers = vec![first];
    while servers.len() < size {
        let token = servers[0].node().invite(Duration::from_secs(60)).await.expect("a token");
        let name = format!("n{}", servers.len() + 1);
        servers.push(Server::joined(&name, Secret::new(&token.to_string()), durability).await);
    }
    let all_known = |server: &Server| server.node().members().borrow().len() == size;
    let start = Instant::now();
    while !servers.iter().all(all_known) || !all_connected(&servers).await {
        assert!(start.elapsed() < Duration::from_secs(20), "the flock does not form");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    servers
}

async fn all_connected(servers: &[Server]) -> bool {
    for server in servers {
        let status = server.operator().status().await.expect("a status");
        let peers = status["peers"].as_array().expect("peers");
        if peers.len() + 1 != servers.len() || !peers.iter().all(|peer| peer["state"] == "connected") {
            return false;
        }
    }
    true
}

fn bookmark(answer: &Answer) -> String {
    let bookmark = answer.header("starling-bookmark").expect("a bookmark").to_owned();
    assert!(bookmark.len() <= 64, "{bookmark}");
    bookmark
}

fn with(bookmark: &str) -> String {
    format!("starling-bookmark: {bookmark}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_created_elsewhere_a_moment_ago_is_there_for_who_brings_the_bookmark() {
    let servers = flock(3, Durability::Os).await;
    for round in 0..20 {
        let created = servers[0].ask("POST", "/namespaces", format!("{{\"title\":\"t{round}\"}}")).await;
        let path = format!("/namespaces/{}", created.result()["id"].as_str().expect("an id"));
        let put = servers[1].ask_with("PUT", &format!("{path}/values/k"), &with(&bookmark(&created)), "v").await;
        assert_eq!(put.status, 200, "round {round}: {}", put.text());
        let get = servers[2].ask_with("GET", &format!("{path}/values/k"), &with(&bookmark(&put)), "").await;
        assert_eq!((get.status, get.text().as_str()), (200, "v"), "round {round}");
        assert!(get.header("starling-age").and_then(|age| age.parse::<u64>().ok()).is_some_and(|age| age < 5_000));
        assert_eq!(get.header("starling-pop"), Some("lhr"));
        let deleted = servers[2].ask_with("DELETE", &format!("{path}/values/k"), &with(&bookmark(&get)), "").await;
        let gone = servers[0].ask_with("GET", &format!("{path}/values/k"), &with(&bookmark(&deleted)), "").await;
        assert_eq!(gone.status, 404);
        // Who was told that it is gone does not find it elsewhere.
        let gone = servers[1].ask_with("GET", &format!("{path}/metadata/k"), &with(&bookmark(&gone)), "").await;
        assert_eq!(gone.status, 404);
        let list = servers[1].ask_with("GET", &format!("{path}/keys"), &with(&bookmark(&gone)), "").await;
        assert_eq!(list.result().as_array().map(Vec::len), Some(0));
        let removed = servers[1].ask_with("DELETE", &path, &with(&bookmark(&list)), "").await;
        let absent = servers[2].ask_with("GET", &path, &with(&bookmark(&removed)), "").await;
        assert_eq!(absent.code(), (404, 10013));
        bookmark(&absent);
    }
}

#[tokio::test]
async fn every_kind_of_answer_carries_a_bookmark() {
    let server = Server::start(false).await;
    let ns = server.namespace("all").await;
    let bulk = r#"[{"key":"a","value":"1"},{"key":"b","value":"2"}]"#;
    for (method, path, body) in [
        ("PUT", "/values/k", "v"),
        ("GET", "/values/k", ""),
        ("GET", "/values/absent", ""),
        ("GET", "/metadata/k", ""),
        ("GET", "/keys", ""),
        ("PUT", "/bulk", bulk),
        ("POST", "/bulk/get", r#"{"keys":["a","b"]}"#),
        ("POST", "/bulk/delete", r#"["a","b"]"#),
        ("DELETE", "/values/k", ""),
        ("PUT", "", r#"{"title":"renamed"}"#),
        ("GET", "", ""),
        ("DELETE", "", ""),
        ("GET", "/keys", ""),
    ] {
        let answer = server.ask(method, &format!("{ns}{path}"), body).await;
        let mark = bookmark(&answer);
        let again = server.ask_with("GET", "/namespaces", &with(&mark), "").await;
        assert_eq!(again.status, 200, "{method} {path}: {}", again.text());
        bookmark(&again);
    }
}

#[tokio::test]
async fn what_can_not_be_covered_is_told_in_time_and_nothing_is_done() {
    let server = Server::start(false).await;
    let ns = server.namespace("waits").await;
    let mut foreign = Bookmark::default();
    let origin = Origin { node: NodeId(0x1234_5678), incarnation: Incarnation(99) };
    foreign.note(origin.dot(5), Timestamp::from_ms(1_700_000_000_000));
    let text = base64::Engine::encode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        foreign.encode().expect("a short bookmark"),
    );
    let start = Instant::now();
    let headers = format!("{}starling-wait: 300ms\r\n", with(&text));
    let late = server.ask_with("PUT", &format!("{ns}/values/k"), &headers, "v").await;
    let (status, _, message) = late.error();
    assert!((504, true) == (status, message.contains("300 ms")), "{status} {message}");
    assert!((300..3_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(server.ask("GET", &format!("{ns}/values/k"), "").await.status, 404, "it was not written");
    for bad in ["x", "AA", "!!!", &"A".repeat(65), &text[1..]] {
        let refused = server.ask_with("GET", &format!("{ns}/values/k"), &with(bad), "").await;
        assert_eq!(refused.error().0, 400, "{bad}");
    }
    for bad in ["starling-wait: 61\r\n", "starling-wait: soon\r\n", "starling-acks: 0\r\n", "starling-acks: many\r\n"] {
        assert_eq!(server.ask_with("GET", &format!("{ns}/values/k"), bad, "").await.error().0, 400, "{bad}");
    }
    let alone = server.ask_with("PUT", &format!("{ns}/values/k"), "starling-acks: 2\r\n", "v").await;
    let (status, _, message) = alone.error();
    assert!(status == 400 && message.contains("1 nodes"), "{status} {message}");
    assert_eq!(server.ask("GET", &format!("{ns}/values/k"), "").await.status, 404, "it was not written");
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_name_who_has_it_on_disk_and_come_soon() {
    let mut servers = flock(3, Durability::Fsync).await;
    let ns = servers[0].namespace("acks").await;
    let mut times = Vec::new();
    for number in 0..TIMED_WRITES {
        let start = Instant::now();
        let path = format!("{ns}/values/k{number}");
        let put = servers[0].ask_with("PUT", &path, "starling-acks: all\r\n", "v").await;
        times.push(start.elapsed());
        assert_eq!(put.status, 200, "{}", put.text());
        let mut by: Vec<_> = put.header("starling-acked-by").expect("who has it").split(", ").collect();
        by.sort_unstable();
        assert_eq!(by, ["n1", "n2", "n3"]);
        for server in &servers[1..] {
            assert_eq!(server.ask("GET", &path, "").await.status, 200, "it has it, so it shows it");
        }
    }
    times.sort_unstable();
    println!("starling-acks: all on three nodes: p50 {:?}, p99 {:?}", times[TIMED_WRITES / 2], times[TIMED_WRITES - 1]);
    for (method, path, body) in [
        ("PUT", "/bulk", r#"[{"key":"a","value":"1"},{"key":"b","value":"2"}]"#),
        ("POST", "/bulk/delete", r#"["a"]"#),
        ("DELETE", "/values/b", ""),
        ("PUT", "", r#"{"title":"renamed"}"#),
    ] {
        let answer = servers[1].ask_with(method, &format!("{ns}{path}"), "starling-acks: 2\r\n", body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let by = answer.header("starling-acked-by").expect("who has it");
        assert!(by.split(", ").count() >= 2 && by.contains("n2"), "{by}");
    }
    let local = servers[0].ask_with("PUT", &format!("{ns}/values/l"), "starling-acks: local\r\n", "v").await;
    assert_eq!((local.status, local.header("starling-acked-by")), (200, None));
    assert_eq!(servers[0].ask_with("PUT", &format!("{ns}/values/l"), "starling-acks: 4\r\n", "v").await.error().0, 400);

    servers.pop().expect("three").stop().await;
    let headers = "starling-acks: all\r\nstarling-wait: 400ms\r\n";
    let late = servers[0].ask_with("PUT", &format!("{ns}/values/late"), headers, "kept").await;
    let (status, _, message) = late.error();
    assert!(status == 504 && message.contains("n1") && message.contains("n2") && !message.contains("n3"), "{message}");
    assert!(late.header("starling-acked-by").is_some_and(|by| by.contains("n2")));
    assert_eq!(servers[0].ask("GET", &format!("{ns}/values/late"), "").await.text(), "kept");
}
