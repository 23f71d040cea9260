//! The judge: one checker a promise. They look on, know nothing of faults but what a promise itself excepts, and the
//! first promise broken ends the run.

mod acknowledged;
mod bounds;
mod clocks;
mod converged;
mod evictions;
mod expiry;
mod feed;
mod ledger;
mod markers;
mod peers;
mod resurrection;
mod returned;
mod session;
mod stored;
mod unique;
mod version_vector;
mod watermark;

use std::collections::{BTreeMap, BTreeSet};

use starling::replica::{Alarm, Dot, Edits, Image, Key, Marker, NodeId, limits};

pub use ledger::{Ledger, Written};

use crate::host::Host;
use crate::outcome::Violation;

/// What checkers may look at.
pub struct Scene<'a> {
    /// Virtual time.
    pub now_us: u64,
    /// Every machine there has been.
    pub hosts: &'a [Host],
    /// Every write there has been.
    pub ledger: &'a Ledger,
    /// Who does not keep the rules.
    pub liars: &'a Liars,
}

/// Members that have turned bad. What they do is nobody's promise.
#[derive(Default)]
pub struct Liars {
    nodes: BTreeSet<NodeId>,
    /// One of them says what is not so of others' writes. Until that is mended, and only until then, others may hold less,
    /// or something else, than they think.
    pub hearsay: bool,
}

impl Liars {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Whether this is one of them.
    pub fn is(&self, node: NodeId) -> bool {
        self.nodes.contains(&node)
    }
}

impl Scene<'_> {
    /// Whether a host holds a write, or something that dominates it.
    pub fn holds(&self, image: &Image, write: &Written) -> bool {
        image.entry(&write.key).is_some_and(|entry| entry.marker() >= write.marker) || is_deleted(image, &write.key)
    }
}

/// Whether the namespace of a key is deleted, as far as an image knows. That dominates whatever was in it.
pub fn is_deleted(image: &Image, key: &Key) -> bool {
    let namespace = key.namespace();
    !namespace.is_system()
        && Key::new(starling::replica::NamespaceId::DELETED, &namespace.0)
            .is_some_and(|deletion| image.entry(&deletion).is_some())
}

/// Whether the promise still holds; if not, what was seen.
pub type Verdict = Result<(), String>;

/// Watches over one promise.
pub trait Checker {
    /// For people and for shrinking.
    fn name(&self) -> &'static str;

    /// A process has started.
    fn started(&mut self, _scene: &Scene, _host: usize) -> Verdict {
        Ok(())
    }

    /// A process has ended; its directory is what it is.
    fn stopped(&mut self, _scene: &Scene, _host: usize) -> Verdict {
        Ok(())
    }

    /// A directory was put back, cloned or destroyed: what the node knew of itself may be less than it was.
    fn disturbed(&mut self, _scene: &Scene, _host: usize) -> Verdict {
        Ok(())
    }

    /// A turn has been committed; it may not be durable yet.
    fn committed(&mut self, _scene: &Scene, _host: usize, _changes: &Edits) -> Verdict {
        Ok(())
    }

    /// A client was told that its write is in.
    fn accepted(&mut self, _scene: &Scene, _host: usize, _key: &Key, _dot: Dot, _marker: Marker) -> Verdict {
        Ok(())
    }

    /// A client was told that these nodes have its write on disk.
    fn acknowledged(&mut self, _scene: &Scene, _host: usize, _key: &Key, _dot: Dot, _nodes: &[NodeId]) -> Verdict {
        Ok(())
    }

    /// A client was told that a node covers a write of which it holds the bookmark.
    fn read(&mut self, _scene: &Scene, _host: usize, _key: &Key, _dot: Dot) -> Verdict {
        Ok(())
    }

    /// A client was told that a node covers its bookmark, which stands for all of this.
    fn visited(&mut self, _scene: &Scene, _host: usize, _seen: &BTreeMap<Key, Marker>) -> Verdict {
        Ok(())
    }

    /// A reader of the change feed came to a node, and its position says that it was given what is `claimed`.
    fn followed(
        &mut self,
        _scene: &Scene,
        _host: usize,
        _claimed: &[(Key, Marker)],
        _given: &BTreeMap<Key, Marker>,
    ) -> Verdict {
        Ok(())
    }

    /// A write of a former node of this host, under this marker then, was issued again.
    fn reissued(&mut self, _scene: &Scene, _host: usize, _key: &Key, _marker: Marker, _dot: Dot) -> Verdict {
        Ok(())
    }

    /// A node has raised an alarm.
    fn alarm(&mut self, _scene: &Scene, _host: usize, _alarm: &Alarm) -> Verdict {
        Ok(())
    }

    /// Now and then.
    fn inspect(&mut self, _scene: &Scene) -> Verdict {
        Ok(())
    }

    /// All faults are over, all nodes run.
    fn healed(&mut self, _scene: &Scene) -> Verdict {
        Ok(())
    }

    /// All nodes say that they are equal, and the network is quiet.
    fn at_rest(&mut self, _scene: &Scene) -> Verdict {
        Ok(())
    }
}

/// All checkers, and what they have found.
pub struct Judge {
    ledger: Ledger,
    liars: Liars,
    checkers: Vec<Box<dyn Checker>>,
    violations: Vec<Violation>,
}

impl Judge {
    /// Over a world whose directories hold `image` at first.
    pub fn new(image: &Image, bounds: limits::Bounds) -> Self {
        let ledger = Ledger::of(image);
        let checkers: Vec<Box<dyn Checker>> = vec![
            Box::new(unique::Unique::of(image)),
            Box::new(stored::Stored),
            Box::new(markers::MarkersRise::default()),
            Box::new(version_vector::VersionVectorInvariant::default()),
            Box::new(acknowledged::Acknowledged::default()),
            Box::new(session::ReadYourWrites),
            Box::new(feed::NothingIsMissed),
            Box::new(resurrection::Resurrection::default()),
            Box::new(watermark::Watermark::default()),
            Box::new(bounds::Bounded { bounds, turn: 0 }),
            Box::new(peers::PeersBehave),
            Box::new(clocks::ClocksStay),
            Box::new(expiry::KeptUntilExpired),
            Box::new(evictions::EvictionsStay),
            Box::new(returned::OwnWritesReturn),
            Box::new(converged::Converged::default()),
        ];
        Self { ledger, liars: Liars::default(), checkers, violations: Vec::new() }
    }

    /// Whether a promise was broken.
    pub fn has_found_something(&self) -> bool {
        !self.violations.is_empty()
    }

    /// Whether a node's directory was put back, cloned or destroyed.
    pub fn is_forgetful(&self, node: NodeId) -> bool {
        self.ledger.forgetful.contains(&node)
    }

    /// What was found.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    /// Someone else has found something.
    pub fn found(&mut self, checker: &str, now_us: u64, what: impl FnOnce() -> String) {
        if self.violations.is_empty() {
            self.violations.push(Violation { checker: checker.to_owned(), at_us: now_us, what: what() });
        }
    }

    fn ask(&mut self, hosts: &[Host], now_us: u64, mut ask: impl FnMut(&mut dyn Checker, &Scene) -> Verdict) {
        if self.has_found_something() {
            return;
        }
        let scene = Scene { now_us, hosts, ledger: &self.ledger, liars: &self.liars };
        for checker in &mut self.checkers {
            if let Err(what) = ask(checker.as_mut(), &scene) {
                let checker = checker.name().to_owned();
                self.violations.push(Violation { checker, at_us: now_us, what });
                return;
            }
        }
    }

    /// A member lies from now on, and maybe about what others wrote.
    pub(crate) fn turned_bad(&mut self, node: NodeId, hearsay: bool) {
        self.liars.nodes.insert(node);
        self.liars.hearsay |= hearsay;
    }

    /// Whether someone may believe what is not so of others.
    pub fn is_misled(&self) -> bool {
        self.liars.hearsay
    }

    /// What happens at a liar is nobody's promise.
    fn ask_of(
        &mut self,
        host: usize,
        hosts: &[Host],
        now_us: u64,
        ask: impl FnMut(&mut dyn Checker, &Scene) -> Verdict,
    ) {
        if !self.liars.is(hosts[host].node) {
            self.ask(hosts, now_us, ask);
        }
    }

    pub(crate) fn started(&mut self, host: usize, hosts: &[Host], now_us: u64) {
        self.ask_of(host, hosts, now_us, |checker, scene| checker.started(scene, host));
    }

    pub(crate) fn stopped(&mut self, host: usize, hosts: &[Host], now_us: u64) {
        self.ledger.note_stop(&hosts[host]);
        self.ask_of(host, hosts, now_us, |checker, scene| checker.stopped(scene, host));
    }

    pub(crate) fn disturbed(&mut self, host: usize, hosts: &[Host], now_us: u64) {
        self.ledger.forgetful.insert(hosts[host].node);
        self.ask_of(host, hosts, now_us, |checker, scene| checker.disturbed(scene, host));
    }

    /// A node is evicted: of whom it lets in before it hears of that, others may not hear.
    pub(crate) fn fenced(&mut self, host: usize, hosts: &[Host]) {
        self.ledger.forgetful.insert(hosts[host].node);
    }

    pub(crate) fn reissued(&mut self, host: usize, key: &Key, marker: Marker, dot: Dot, hosts: &[Host], now_us: u64) {
        self.ask(hosts, now_us, |checker, scene| checker.reissued(scene, host, key, marker, dot));
    }

    pub(crate) fn committed(&mut self, host: usize, changes: &Edits, hosts: &[Host], now_us: u64) {
        self.ledger.note(host, changes, hosts, now_us);
        self.ask_of(host, hosts, now_us, |checker, scene| checker.committed(scene, host, changes));
    }

    pub(crate) fn accepted(&mut self, host: usize, key: &Key, dot: Dot, marker: Marker, hosts: &[Host], now_us: u64) {
        self.ask_of(host, hosts, now_us, |checker, scene| checker.accepted(scene, host, key, dot, marker));
    }

    pub(crate) fn acknowledged(
        &mut self,
        host: usize,
        key: &Key,
        dot: Dot,
        nodes: &[NodeId],
        hosts: &[Host],
        now_us: u64,
    ) {
        self.ask_of(host, hosts, now_us, |checker, scene| checker.acknowledged(scene, host, key, dot, nodes));
    }

    pub(crate) fn read(&mut self, host: usize, key: &Key, dot: Dot, hosts: &[Host], now_us: u64) {
        self.ask_of(host, hosts, now_us, |checker, scene| checker.read(scene, host, key, dot));
    }

    pub(crate) fn visited(&mut self, host: usize, seen: &BTreeMap<Key, Marker>, hosts: &[Host], now_us: u64) {
        self.ask_of(host, hosts, now_us, |checker, scene| checker.visited(scene, host, seen));
    }

    pub(crate) fn followed(
        &mut self,
        host: usize,
        claimed: &[(Key, Marker)],
        given: &BTreeMap<Key, Marker>,
        hosts: &[Host],
        now_us: u64,
    ) {
        self.ask_of(host, hosts, now_us, |checker, scene| checker.followed(scene, host, claimed, given));
    }

    pub(crate) fn alarm(&mut self, host: usize, alarm: &Alarm, hosts: &[Host], now_us: u64) {
        self.ask_of(host, hosts, now_us, |checker, scene| checker.alarm(scene, host, alarm));
    }

    pub(crate) fn inspect(&mut self, hosts: &[Host], now_us: u64) {
        self.ask(hosts, now_us, |checker, scene| checker.inspect(scene));
    }

    pub(crate) fn healed(&mut self, hosts: &[Host], now_us: u64) {
        self.ask(hosts, now_us, |checker, scene| checker.healed(scene));
    }

    pub(crate) fn at_rest(&mut self, hosts: &[Host], now_us: u64) {
        self.ask(hosts, now_us, |checker, scene| checker.at_rest(scene));
    }
}
