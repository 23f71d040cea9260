//! `starling node leave`.

use crate::flock::{Node, agree, connected, eventually, run, starling};

#[test]
fn a_node_that_leaves_hands_over_what_it_has_and_returns_only_as_another() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    let a = Node::start(&at("a"), &[]);
    let (code, _, err) = run(starling().args(["node", "leave", "--yes", "--data"]).arg(&a.data));
    assert!(code == 1 && err.contains("last node"), "{code}: {err}");
    let mut b = a.join(&at("b"), &[]);
    let c = a.join(&at("c"), &[]);
    connected(&[&a, &b, &c]);
    let namespace = b.namespace("handed over");
    for number in 0..50 {
        b.put(&namespace, &format!("key-{number}"), format!("value {number}"));
    }
    let (code, _, err) = run(starling().args(["node", "leave", "--data"]).arg(&b.data));
    assert!(code == 2 && err.contains("--yes"), "{code}: {err}");
    let (code, _, err) = run(starling().args(["node", "leave", "--yes", "--data"]).arg(&b.data));
    assert!(code == 0 && err.contains("has left"), "{code}: {err}");
    assert_eq!(b.wait().code(), Some(0));
    for node in [&a, &c] {
        eventually("it is off the roster", || {
            (node.status()["peers"].as_array().expect("a list").len() == 1).then_some(())
        });
    }
    agree(&[&a, &c]);
    for number in 0..50 {
        for node in [&a, &c] {
            assert_eq!(node.get(&namespace, &format!("key-{number}")), Some(format!("value {number}").into_bytes()));
        }
    }
    let args = ["serve", "--api", "127.0.0.1:0", "--gossip", "127.0.0.1:0", "--data"];
    let (code, _, err) = run(starling().args(args).arg(&b.data));
    assert!(code == 1 && err.contains("taken off the roster") && err.contains("join token"), "{code}: {err}");
    let former = b.id.clone();
    b.args = vec!["--join".into(), a.invite()];
    b.restart();
    assert_ne!(b.id, former, "with a token it comes back, as another node");
    agree(&[&a, &b, &c]);
}
