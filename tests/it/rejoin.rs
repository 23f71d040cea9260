//! Coming back after an eviction: as another node, with what it alone had.

use serde_json::Value as Json;

use crate::flock::{Node, agree, connected, eventually, run, starling};

/// What a large value looks like; over the length from which values are cut into chunks.
fn large() -> Vec<u8> {
    (0..700_000u32).map(|number| (number % 251) as u8).collect()
}

fn delete(node: &Node, namespace: &str, key: &str) {
    node.ask("DELETE", &format!("{namespace}/values/{key}"), "").result();
}

/// Has `node` evict the other one, which may run.
fn evict(node: &Node, other: &str, more: &[&str]) {
    eventually("the eviction", || {
        let (code, _, _) =
            run(starling().args(["node", "evict", other, "--yes"]).args(more).arg("--data").arg(&node.data));
        (code == 0).then_some(())
    });
}

/// What became of the writes of a former node, once that is known.
fn reissued(node: &Node, former: &str) -> Json {
    let path = node.data.join("former").join(former).join("reissued.json");
    eventually("its writes are issued again", || serde_json::from_slice(&std::fs::read(&path).ok()?).ok())
}

#[test]
fn who_was_evicted_while_it_was_off_comes_back_with_what_it_alone_has() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let mut a = Node::start(&at("a"), &[]);
    let mut e = a.join(&at("e"), &[]);
    connected(&[&a, &e]);
    let (shared, dropped) = (a.namespace("shared"), a.namespace("dropped"));
    e.put(&shared, "known", "to both");
    e.put(&shared, "gone", "to both");
    agree(&[&a, &e]);

    // Alone.
    a.stop();
    e.put(&shared, "only-here", "mine");
    e.put(&shared, "overwritten", "mine");
    e.put(&shared, "gone", "mine");
    e.put(&shared, "large", large());
    e.put(&dropped, "late", "mine");
    let own = e.namespace("of its own");
    e.put(&own, "sealed", "with a key that nobody else has");
    let former = e.id.clone();
    e.stop();

    a.return_home();
    a.put(&shared, "overwritten", "theirs");
    delete(&a, &shared, "gone");
    a.ask("DELETE", &dropped, "").result();
    evict(&a, &former, &[]);
    assert_eq!(a.get(&shared, "only-here"), None);

    let token = a.invite();
    e.args = vec!["--join".into(), token];
    e.return_home();
    assert_ne!(e.id, former, "it is another node");
    let tally = reissued(&e, &former);
    // The namespace, at least, and what stands in it; the value of the namespace that is deleted.
    assert!(tally["reissued"].as_u64() >= Some(4) && tally["deleted"].as_u64() >= Some(1), "{tally}");
    assert!(tally["dominated"].as_u64() >= Some(3) && tally["damaged"] == 0, "{tally}");
    agree(&[&a, &e]);
    for node in [&a, &e] {
        assert_eq!(node.get(&shared, "known").as_deref(), Some(&b"to both"[..]));
        assert_eq!(node.get(&shared, "only-here").as_deref(), Some(&b"mine"[..]));
        assert_eq!(node.get(&shared, "overwritten").as_deref(), Some(&b"theirs"[..]), "a later write stays");
        assert_eq!(node.get(&shared, "gone"), None, "what was deleted stays deleted");
        assert_eq!(node.get(&shared, "large"), Some(large()));
        assert_eq!(node.get(&dropped, "late"), None);
        let sealed = eventually("the key of its namespace", || node.get(&own, "sealed"));
        assert_eq!(sealed, b"with a key that nobody else has");
    }
    let status = a.status();
    assert_eq!(status["peers"].as_array().map(Vec::len), Some(1), "{status}");

    // The token is spent; a member has no use for one.
    let (second, api) = (e.id.clone(), e.stop());
    assert!(api.success());
    e.return_home();
    assert_eq!(e.id, second);
    e.put(&shared, "after", "all");
    agree(&[&a, &e]);
}

#[test]
fn who_was_evicted_while_it_ran_needs_a_token_and_may_come_back_twice() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let a = Node::start(&at("a"), &[]);
    let mut e = a.join(&at("e"), &[]);
    connected(&[&a, &e]);
    let shared = a.namespace("shared");
    agree(&[&a, &e]);
    e.put(&shared, "k", "v");
    agree(&[&a, &e]);
    for _ in 0..2 {
        let former = e.id.clone();
        evict(&a, &former, &["--connected"]);
        eventually("it takes no writes", || {
            (e.ask("PUT", &format!("{shared}/values/late"), "v").status == 503).then_some(())
        });
        e.stop();
        e.args = vec!["--join".into(), a.invite()];
        e.restart();
        assert_ne!(e.id, former);
        reissued(&e, &former);
        connected(&[&a, &e]);
        agree(&[&a, &e]);
        assert_eq!(e.get(&shared, "k").as_deref(), Some(&b"v"[..]));
        e.put(&shared, "k", "v");
    }
    assert_eq!(std::fs::read_dir(e.data.join("former")).expect("former nodes").count(), 2);
}
