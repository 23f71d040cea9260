//! Histories that are wrong, each in one way, and histories that only look so.

use super::*;

/// Histories in few words: each request takes 10 ms and begins 100 ms after the one before.
#[derive(Default)]
struct Story(History);

const SECOND: u64 = 1_000_000;

impl Story {
    fn new() -> Self {
        Self(History { epoch_ms: 1_000_000_000, held_us: 500 * SECOND, ..History::default() })
    }

    fn op(mut self, node: usize, what: What, answer: Answer) -> Self {
        let began_us = self.0.ops.last().map_or(0, |op| op.began_us) + SECOND / 10;
        let ended_us = began_us + SECOND / 100;
        let disk = (node, self.0.lost.iter().filter(|(lost, _)| *lost == node).count() as u32);
        let op = Op { client: node, disk, began_us, ended_us, clock_offset_ms: 0, what, answer };
        self.0.ops.push(op);
        self
    }

    fn disk(&self, node: usize) -> Disk {
        (node, self.0.lost.iter().filter(|(lost, _)| *lost == node).count() as u32)
    }

    fn put(self, node: usize, key: &str, value: &str) -> Self {
        let on = vec![self.disk(node)];
        self.op(node, What::Put { key: key.into(), value: value.into(), expires_s: None }, Answer::Done { on })
    }

    fn put_on(self, nodes: &[usize], key: &str, value: &str) -> Self {
        let on = nodes.iter().map(|node| self.disk(*node)).collect();
        self.op(nodes[0], What::Put { key: key.into(), value: value.into(), expires_s: None }, Answer::Done { on })
    }

    fn maybe_put(self, node: usize, key: &str, value: &str) -> Self {
        self.op(node, What::Put { key: key.into(), value: value.into(), expires_s: None }, Answer::Unknown)
    }

    fn put_until(self, node: usize, key: &str, value: &str, secs: u64) -> Self {
        let expires_s = Some(self.0.epoch_ms / 1_000 + secs);
        let on = vec![self.disk(node)];
        self.op(node, What::Put { key: key.into(), value: value.into(), expires_s }, Answer::Done { on })
    }

    fn delete(self, node: usize, key: &str) -> Self {
        let on = vec![self.disk(node)];
        self.op(node, What::Delete { key: key.into() }, Answer::Done { on })
    }

    fn get(self, node: usize, key: &str, value: &str) -> Self {
        self.read(node, key, value, false)
    }

    fn read(self, node: usize, key: &str, value: &str, bookmark: bool) -> Self {
        let answer = if value.is_empty() { Answer::Absent } else { Answer::Found(value.into()) };
        self.op(node, What::Get { key: key.into(), bookmark }, answer)
    }

    /// The client of one node reads at another with its bookmark.
    fn bring(mut self, client: usize, node: usize, key: &str, value: &str) -> Self {
        self = self.read(node, key, value, true);
        self.0.ops.last_mut().expect("one").client = client;
        self
    }

    fn list(self, node: usize, keys: &[&str]) -> Self {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.op(node, What::List { prefix: String::new() }, Answer::Keys(keys))
    }

    fn lose(mut self, node: usize) -> Self {
        let disk = self.disk(node);
        self.0.lost.push(disk);
        self
    }

    fn later(mut self, secs: u64) -> Self {
        let mut idle = self.0.ops.last().expect("one").clone();
        idle.began_us += secs * SECOND;
        idle.ended_us += secs * SECOND;
        idle.what = What::Get { key: "idle".into(), bookmark: false };
        idle.answer = Answer::Unknown;
        self.0.ops.push(idle);
        self
    }

    /// Both nodes end with this.
    fn end(self, held: &[(&str, &str)]) -> Self {
        self.hold("a", held).hold("b", held)
    }

    fn hold(mut self, node: &str, held: &[(&str, &str)]) -> Self {
        let held = held.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.0.held.insert(node.into(), held);
        self
    }

    #[track_caller]
    fn passes(self) {
        assert_eq!(judge(&self.0), Vec::new());
    }

    #[track_caller]
    fn breaks(self, promise: &str) {
        let broken: BTreeSet<&str> = judge(&self.0).iter().map(|broken| broken.promise).collect();
        assert_eq!(broken, BTreeSet::from([promise]));
    }
}

#[test]
fn an_ordinary_day_is_fine() {
    let story = Story::new().put(0, "k", "1").get(0, "k", "1").get(1, "k", "").put(0, "k", "2").get(1, "k", "1");
    let story = story.bring(0, 1, "k", "2").delete(0, "k").get(1, "k", "2").get(0, "k", "").get(1, "k", "");
    story.put(1, "m", "3").list(1, &["m"]).end(&[("m", "3")]).passes();
}

#[test]
fn a_lost_write_is_noticed() {
    Story::new().put(0, "k", "1").end(&[]).breaks("what was acknowledged is kept");
    Story::new().put(0, "k", "1").put(0, "k", "2").end(&[("k", "1")]).breaks("what was acknowledged is kept");
    Story::new().put(0, "k", "1").delete(0, "k").end(&[("k", "1")]).breaks("what was acknowledged is kept");
    // Written at two nodes without either knowing of the other: any of them may win, but nothing that is older.
    let both = || Story::new().put(0, "k", "1").put(0, "k", "2").put(1, "k", "3");
    both().end(&[("k", "2")]).passes();
    both().end(&[("k", "3")]).passes();
    both().end(&[("k", "1")]).breaks("what was acknowledged is kept");
    both().end(&[]).breaks("what was acknowledged is kept");
}

#[test]
fn a_write_of_unknown_outcome_may_be_there_or_not() {
    let maybe = || Story::new().put(0, "k", "1").maybe_put(0, "k", "2");
    maybe().end(&[("k", "1")]).passes();
    maybe().end(&[("k", "2")]).passes();
    maybe().end(&[]).breaks("what was acknowledged is kept");
    // It may take effect late.
    maybe().put(0, "k", "3").end(&[("k", "2")]).passes();
    maybe().put(0, "k", "3").end(&[("k", "1")]).breaks("what was acknowledged is kept");
}

#[test]
fn what_only_a_lost_disk_had_may_be_gone_and_nothing_else() {
    Story::new().put(0, "k", "1").lose(0).end(&[]).passes();
    Story::new().put_on(&[0, 1], "k", "1").lose(0).end(&[]).breaks("what was acknowledged is kept");
    Story::new().put_on(&[0, 1], "k", "1").lose(0).lose(1).end(&[]).passes();
    // Another node had it, as its reader or its list shows.
    Story::new().put(0, "k", "1").get(1, "k", "1").lose(0).end(&[]).breaks("what was acknowledged is kept");
    Story::new().put(0, "k", "1").list(1, &["k"]).lose(0).end(&[]).breaks("what was acknowledged is kept");
    Story::new().put(0, "k", "1").lose(0).put(0, "k", "2").end(&[]).breaks("what was acknowledged is kept");
}

#[test]
fn unequal_nodes_and_inventions_are_noticed() {
    let story = Story::new().put(0, "k", "1").put(1, "k", "2");
    story.hold("a", &[("k", "1")]).hold("b", &[("k", "2")]).breaks("all nodes end equal");
    Story::new().put(0, "k", "1").get(0, "k", "7").end(&[("k", "1")]).breaks("nothing is invented");
    Story::new().get(0, "k", "1").put(0, "k", "1").end(&[("k", "1")]).breaks("nothing is invented");
    Story::new().put(0, "k", "1").end(&[("k", "1"), ("x", "1")]).breaks("nothing is invented");
    Story::new().put(0, "k", "1").list(1, &["x"]).end(&[("k", "1")]).breaks("nothing is invented");
}

#[test]
fn what_is_gone_does_not_come_back() {
    // Between writers at two nodes nobody knows who is later, but no node changes its mind twice.
    let both = || Story::new().put(0, "k", "1").put(1, "k", "2");
    both().get(2, "k", "1").get(2, "k", "2").end(&[("k", "2")]).passes();
    both().get(2, "k", "1").get(2, "k", "2").get(2, "k", "1").end(&[("k", "1")]).breaks("nothing comes back");
    both().get(2, "k", "1").get(2, "k", "").get(2, "k", "1").end(&[("k", "1")]).breaks("nothing comes back");
    both().get(2, "k", "1").get(2, "k", "2").lose(2).get(2, "k", "1").end(&[("k", "1")]).passes();
    // A deleted key, at the node that deleted it and at another.
    let deleted = || Story::new().put(0, "k", "1").get(1, "k", "1").delete(0, "k");
    deleted().get(1, "k", "").get(0, "k", "").end(&[]).passes();
    let broken = judge(&deleted().get(1, "k", "").get(1, "k", "1").end(&[]).0);
    assert!(broken.iter().any(|broken| broken.promise == "nothing comes back"), "{broken:?}");
    let broken = judge(&deleted().get(0, "k", "1").end(&[]).0);
    assert!(broken.iter().any(|broken| broken.promise == "a node shows what it took"), "{broken:?}");
}

#[test]
fn sessions_and_nodes_go_forward_only() {
    let two = || Story::new().put(0, "k", "1").put(0, "k", "2");
    two().get(1, "k", "1").get(1, "k", "2").end(&[("k", "2")]).passes();
    two().get(1, "k", "2").get(1, "k", "1").end(&[("k", "2")]).breaks("a node never goes back");
    two().get(1, "k", "2").get(1, "k", "").end(&[("k", "2")]).breaks("a node never goes back");
    two().bring(0, 1, "k", "1").end(&[("k", "2")]).breaks("a bookmark is honoured");
    two().bring(0, 1, "k", "").end(&[("k", "2")]).breaks("a bookmark is honoured");
    two().get(0, "k", "").end(&[("k", "2")]).breaks("a node shows what it took");
    two().get(1, "k", "").end(&[("k", "2")]).passes();
    Story::new().put(0, "k", "1").list(0, &[]).end(&[("k", "1")]).breaks("a node lists what it took");
}

#[test]
fn expiry_is_neither_late_nor_early() {
    let short = || Story::new().put_until(0, "k", "1", 60).get(0, "k", "1");
    short().later(70).get(1, "k", "").end(&[]).passes();
    short().later(70).get(1, "k", "1").end(&[]).breaks("what has expired is hidden");
    short().get(0, "k", "").end(&[]).breaks("what has not expired is shown");
    short().get(1, "k", "").end(&[]).passes();
    short().end(&[("k", "1")]).breaks("what has expired is hidden");
    // Longer than the story.
    let long = || Story::new().put_until(0, "k", "1", 10_000);
    long().end(&[("k", "1")]).passes();
    long().end(&[]).breaks("what was acknowledged is kept");
}
