//! Scenarios as data: places, links, nodes, workload, and faults by time. The format says what a network does and what
//! clients ask, not how it is simulated, so that it can drive real processes as well.

mod builtin;
mod fault;
mod select;

use std::fmt;

use serde::{Deserialize, Serialize};
use starling::replica::limits;

pub use builtin::{BUILTIN, builtin};
pub use fault::{Clock, Direction, Fault, FaultKind};
pub use select::Selector;

use crate::span::Span;

/// Acts of clients, all of which are drawn before a run begins.
const ACTS_MAX: u64 = 10_000_000;

/// A scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scenario {
    /// Short, unique.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// Writes are made within this time. A fault that ends later makes the run longer.
    pub duration: Span,
    /// After the last fault has ended, all nodes must be equal within this time.
    pub settle: Span,
    /// Where nodes stand.
    pub places: Places,
    /// The ways between them.
    pub links: Links,
    /// The machines.
    pub nodes: Nodes,
    /// How connections behave.
    pub transport: Transport,
    /// What clients do.
    pub workload: Workload,
    /// What goes wrong, and when.
    #[serde(rename = "fault")]
    pub faults: Vec<Fault>,
}

/// Where nodes stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Places {
    /// This many PoPs, spread evenly over the list of real ones; more than the list has: several nodes to a PoP.
    pub count: usize,
    /// Or these, by IATA code.
    pub pops: Vec<String>,
}

/// The ways between nodes, beyond what distance says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Links {
    /// Each packet takes up to this fraction of the way longer, mostly much less.
    pub jitter: f64,
    /// Fraction of packets lost, each by itself.
    pub loss: f64,
    /// Loss in bursts, beside it.
    pub bursts: Option<Bursts>,
    /// Fraction of packets that are overtaken: they take up to twice as long.
    pub reordering: f64,
    /// Fraction of datagrams that arrive twice.
    pub duplication: f64,
    /// Of each link, each way, in Mbit/s.
    pub bandwidth_mbit: u64,
    /// A packet that would wait longer than this for its link is lost.
    pub queue: Span,
}

/// Gilbert-Elliott: a link is good or bad, and in bad times loses much.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bursts {
    /// Fraction lost in bad times.
    pub loss: f64,
    /// Good times last this long on average.
    pub good: Span,
    /// And bad ones this long.
    pub bad: Span,
}

/// The machines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Nodes {
    /// All start from a directory that knows the whole roster. Otherwise each starts with an empty one.
    pub acquainted: bool,
    /// The lives in which these directories were written are folded, as in a flock that has stood for some minutes.
    pub settled: bool,
    /// Of all that a node sends, in Mbit/s.
    pub uplink_mbit: u64,
    /// One fsync.
    pub fsync: Span,
    /// Processor time for one input.
    pub input: Span,
    /// Wall clocks are off by up to this, either way.
    pub clock_skew: Span,
    /// And drift by up to this many millionths.
    pub clock_drift_ppm: u64,
}

/// How connections behave. The defaults are QUIC's as production sets it up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Transport {
    /// Fresh writes go as datagrams, which may be lost, repeated and overtaken, instead of on an ordered stream.
    /// Nothing may depend on them.
    pub records_as_datagrams: bool,
    /// A connection over which nothing comes for this long is lost.
    pub idle_timeout: Span,
    /// First pause before a lost connection is dialled again; doubles each time.
    pub redial_min: Span,
    /// Longest such pause.
    pub redial_max: Span,
    /// Bytes on their way on one stream before it waits.
    pub stream_window: u64,
}

/// What clients do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// Writes over the duration, at random moments and random nodes.
    pub writes: u64,
    /// Distinct keys.
    pub keys: u64,
    /// How unequal keys are: 0 = all alike, 1 = the second half as hot as the first.
    pub zipf: f64,
    /// Fraction of writes that go to one key of all.
    pub hot: f64,
    /// Bytes of each value.
    pub value: Value,
    /// Fraction of writes that delete.
    pub deletes: f64,
    /// Fraction of writes that expire.
    pub ttl: f64,
    /// They expire after up to this.
    pub ttl_max: Span,
    /// Fraction of writes that a reader elsewhere follows with the bookmark.
    pub bookmark_reads: f64,
    /// So many clients wander from node to node with a bookmark, and as many with a position in the change feed.
    pub travellers: u64,
    /// Fraction of writes whose client waits for acknowledgements by others.
    pub acks: f64,
    /// By how many, the writer included; 0 = everyone on the roster.
    pub acks_nodes: usize,
    /// Writes made all at once, half-way through, by one node.
    pub bulk: u64,
    /// How many namespaces there are, and how many of them are deleted on the way.
    pub namespaces: u64,
    /// See `namespaces`.
    pub namespaces_deleted: u64,
}

/// Sizes of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// All of this many bytes.
    Bytes(u64),
    /// As on the web: median 288 bytes, a long tail up to 25 MiB.
    Web,
    /// From a few bytes to a few hundred KiB, large ones often: for small worlds.
    Mixed,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            name: "unnamed".into(),
            about: String::new(),
            duration: Span::secs(60),
            settle: Span::secs(120),
            places: Places::default(),
            links: Links::default(),
            nodes: Nodes::default(),
            transport: Transport::default(),
            workload: Workload::default(),
            faults: Vec::new(),
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self { count: 330, pops: Vec::new() }
    }
}

impl Default for Links {
    fn default() -> Self {
        Self {
            jitter: 0.02,
            loss: 0.0,
            bursts: None,
            reordering: 0.0,
            duplication: 0.0,
            bandwidth_mbit: 200,
            queue: Span::ms(200),
        }
    }
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            acquainted: true,
            settled: true,
            uplink_mbit: 1_000,
            fsync: Span::ms(3),
            input: Span(5),
            clock_skew: Span::ms(5),
            clock_drift_ppm: 20,
        }
    }
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            records_as_datagrams: false,
            idle_timeout: Span::secs(10),
            redial_min: Span::ms(200),
            redial_max: Span::secs(15),
            stream_window: 2 << 20,
        }
    }
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            writes: 1_000,
            keys: 1_000,
            zipf: 0.9,
            hot: 0.0,
            value: Value::Bytes(1_024),
            deletes: 0.0,
            ttl: 0.0,
            ttl_max: Span::secs(60),
            bookmark_reads: 0.0,
            travellers: 0,
            acks: 0.0,
            acks_nodes: 2,
            bulk: 0,
            namespaces: 1,
            namespaces_deleted: 0,
        }
    }
}

/// Why a text is no scenario, for its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioError(pub String);

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ScenarioError {}

impl Scenario {
    /// Reads TOML. A name that means nothing is an error, not ignored.
    pub fn read(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(|error| ScenarioError(error.to_string()))?;
        let written: toml::Table = toml::from_str(text).map_err(|error| ScenarioError(error.to_string()))?;
        let known = toml::Table::try_from(&scenario).map_err(|error| ScenarioError(error.to_string()))?;
        if let Some(name) = unknown_in(&written, &known, "") {
            return Err(ScenarioError(format!("'{name}' means nothing here")));
        }
        scenario.check()?;
        Ok(scenario)
    }

    /// As TOML that [`Scenario::read`] takes.
    pub fn write(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// Whether it can be run.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let (links, workload) = (&self.links, &self.workload);
        let fractions = [
            ("links.loss", links.loss),
            ("links.bursts.loss", links.bursts.as_ref().map_or(0.0, |bursts| bursts.loss)),
            ("links.jitter", links.jitter),
            ("links.reordering", links.reordering),
            ("links.duplication", links.duplication),
            ("workload.hot", workload.hot),
            ("workload.deletes", workload.deletes),
            ("workload.ttl", workload.ttl),
            ("workload.bookmark_reads", workload.bookmark_reads),
            ("workload.acks", workload.acks),
        ];
        if let Some((name, _)) = fractions.iter().find(|(_, fraction)| !(0.0..=1.0).contains(fraction)) {
            return Err(ScenarioError(format!("{name} is a fraction from 0 to 1")));
        }
        let positive = [
            ("places.count", self.places.count as u64),
            ("links.bandwidth_mbit", links.bandwidth_mbit),
            ("nodes.uplink_mbit", self.nodes.uplink_mbit),
            ("transport.stream_window", self.transport.stream_window),
            ("workload.keys", workload.keys),
            ("workload.namespaces", workload.namespaces),
            ("duration", self.duration.0),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, number)| *number == 0) {
            return Err(ScenarioError(format!("{name} must not be 0")));
        }
        let nodes = if self.places.pops.is_empty() { self.places.count } else { self.places.pops.len() };
        check_nodes(nodes)?;
        let acts = workload.writes.saturating_add(workload.bulk);
        if acts > ACTS_MAX {
            return Err(ScenarioError(format!("{acts} writes are more than the {ACTS_MAX} that a run can hold")));
        }
        if workload.keys > ACTS_MAX || workload.namespaces > ACTS_MAX {
            return Err(ScenarioError(format!("at most {ACTS_MAX} keys and as many namespaces")));
        }
        if !(0.0..=3.0).contains(&workload.zipf) {
            return Err(ScenarioError("workload.zipf lies from 0 to 3".into()));
        }
        let all = crate::places::all();
        if let Some(unknown) = self.places.pops.iter().find(|pop| all.iter().all(|place| place.iata != **pop)) {
            return Err(ScenarioError(format!("no PoP '{unknown}' on the list; `starling-sim places` prints it")));
        }
        if workload.namespaces_deleted > workload.namespaces {
            return Err(ScenarioError("more namespaces deleted than there are".into()));
        }
        for (number, fault) in self.faults.iter().enumerate() {
            fault
                .check(nodes)
                .map_err(|what| ScenarioError(format!("fault {} ({}): {what}", number + 1, fault.kind.name())))?;
        }
        Ok(())
    }
}

/// Whether a flock may have so many nodes.
pub fn check_nodes(nodes: usize) -> Result<(), ScenarioError> {
    match nodes {
        0 => Err(ScenarioError("at least one node is needed".into())),
        nodes if nodes > limits::ROSTER_MAX => {
            Err(ScenarioError(format!("{nodes} nodes are more than the {} that a roster holds", limits::ROSTER_MAX)))
        }
        _ => Ok(()),
    }
}

/// The first name in `written` that `known` lacks. Optional parts that are absent don't show in `known`, but a part
/// that was written and understood does.
fn unknown_in(written: &toml::Table, known: &toml::Table, path: &str) -> Option<String> {
    written.iter().find_map(|(name, value)| {
        let path = format!("{path}{name}");
        match (value, known.get(name)) {
            (_, None) => Some(path),
            (toml::Value::Table(written), Some(toml::Value::Table(known))) => {
                unknown_in(written, known, &format!("{path}."))
            }
            (toml::Value::Array(written), Some(toml::Value::Array(known))) => {
                written.iter().zip(known).find_map(|pair| match pair {
                    (toml::Value::Table(written), toml::Value::Table(known)) => {
                        unknown_in(written, known, &format!("{path}."))
                    }
                    _ => None,
                })
            }
            _ => None,
        }
    })
}

/// A fraction in millionths, for comparing with random integers.
pub fn ppm(fraction: f64) -> u64 {
    (fraction.clamp(0.0, 1.0) * 1_000_000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenarios_that_come_along_are_read_and_written() {
        for (name, text) in BUILTIN {
            let scenario = Scenario::read(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(scenario.name, *name);
            assert!(!scenario.about.is_empty(), "{name} says what it shows");
            assert_eq!(Scenario::read(&scenario.write()), Ok(scenario), "{name}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = |text: &str| Scenario::read(text).expect_err("a mistake").0;
        assert_eq!(error("[links]\nlos = 0.1"), "'links.los' means nothing here");
        assert!(error("[links]\nloss = 1.5").contains("links.loss is a fraction"));
        assert!(error("[places]\npops = [\"XXX\"]").contains("no PoP 'XXX'"));
        assert!(error("[[fault]]\nkind = \"earthquake\"\nat = \"3s\"").contains("earthquake"));
        let misspelt = "[[fault]]\nkind = \"partition\"\nat = \"3s\"\nnodes = \"all\"\nfrmo = \"all\"";
        assert_eq!(error(misspelt), "'fault.frmo' means nothing here");
        assert!(error("duration = \"5 minutes\"").contains("not a duration"));
        let nobody = |nodes: &str| {
            error(&format!("[places]\ncount = 5\n[[fault]]\nkind = \"crash\"\nat = \"3s\"\nnodes = \"{nodes}\""))
        };
        assert_eq!(nobody("node:5"), "fault 1 (crash): there is no node:5, they go from node:0 to node:4");
        assert!(nobody("all+region:Atlantis").contains("no region 'Atlantis'"));
        assert!(nobody("pop:XXX").contains("no PoP 'XXX'"));
        assert!(error("[workload]\nwrites = 99999999999").contains("99999999999 writes are more"));
        assert!(error("[places]\ncount = 5000").contains("5000 nodes are more than the 4096"));
    }
}
