//! A planet with its nodes: starts them as an operator would, lets them join one another, and does to them what it is
//! told. Knows nothing of clients and of what the data should be.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::Method;
use serde_json::{Value as Json, json};
use starling_sim::places::{self, Place};
use starling_sim::scenario::{Direction, Links, Scenario};

use crate::addresses::{Addresses, NODES_MAX};
use crate::emulator::Emulator;
use crate::emulator::queue::Stopwatch;
use crate::emulator::ways::{Slowness, Ways};
use crate::node::{Node, State};
use crate::nursery::Nursery;

/// Longest wait for what the nodes do by themselves: connecting, telling each other.
const FLOCK_PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Longest wait for a status.
pub const STATUS_PATIENCE: Duration = Duration::from_secs(3);
/// A lost node counts as connected for ten seconds, and can't be evicted as long.
const EVICT_PATIENCE: Duration = Duration::from_secs(40);
/// A join that is refused, or finds nobody, is tried again for so long.
const JOIN_PATIENCE: Duration = Duration::from_secs(40);
/// Nodes that start at once.
const STARTS_AT_ONCE: usize = 4;

/// What a world is made of.
#[derive(Clone)]
pub struct Settings {
    /// Where nodes stand at first.
    pub places: Vec<Place>,
    /// The ways between them.
    pub links: Links,
    /// Of all that a node sends, Mbit/s.
    pub uplink_mbit: u64,
    /// Packets get lost as it says.
    pub seed: u64,
    /// Holds a directory for each node.
    pub directory: PathBuf,
    /// The program under test.
    pub starling: PathBuf,
    /// This program.
    pub launcher: PathBuf,
}

impl Settings {
    /// A world of a scenario; `nodes` instead of as many as it has.
    pub fn of(
        scenario: &Scenario,
        nodes: Option<usize>,
        directory: PathBuf,
        starling: PathBuf,
    ) -> Result<Self, String> {
        let places = match (nodes, scenario.places.pops.is_empty()) {
            (Some(nodes), true) => places::spread(nodes),
            (None, true) => places::spread(scenario.places.count),
            (nodes, false) => {
                let pops = scenario.places.pops.iter().take(nodes.unwrap_or(usize::MAX));
                pops.map(|pop| place(pop)).collect::<Result<_, _>>()?
            }
        };
        Ok(Self {
            places,
            links: scenario.links.clone(),
            uplink_mbit: scenario.nodes.uplink_mbit,
            seed: 1,
            directory,
            starling,
            launcher: std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?,
        })
    }
}

/// A PoP by its code, in any case.
pub fn place(pop: &str) -> Result<Place, String> {
    let found = places::all().into_iter().find(|place| place.iata.eq_ignore_ascii_case(pop.trim()));
    found.ok_or_else(|| format!("no PoP '{pop}' on the list; `starling-sim places` prints it"))
}

/// The planet. Its processes end with it.
pub struct World {
    settings: Settings,
    addresses: Addresses,
    emulator: Emulator,
    nursery: Nursery,
    nodes: RwLock<Vec<Arc<Node>>>,
    faults: AtomicUsize,
}

impl World {
    /// An empty planet.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("can't open sockets and threads: {error}");
        let ways = Ways::new(settings.links.clone(), settings.uplink_mbit, settings.seed);
        Ok(Self {
            addresses: Addresses::claim().map_err(failed)?,
            emulator: Emulator::start(ways).map_err(failed)?,
            nursery: Nursery::open().map_err(failed)?,
            nodes: RwLock::default(),
            faults: AtomicUsize::new(0),
            settings,
        })
    }

    /// Starts all nodes of the settings, and waits until each is connected to all others. `told` hears of each.
    pub async fn populate(self: &Arc<Self>, told: impl Fn(&Node, Duration)) -> Result<(), String> {
        let clock = Stopwatch::start();
        let mut places = self.settings.places.clone().into_iter();
        if let Some(first) = places.next() {
            let first = self.settle(first)?;
            first.start(&self.settings.launcher, &self.nursery, None).await?;
            told(&first, clock.elapsed());
        }
        let mut rest: Vec<Arc<Node>> = places.map(|place| self.settle(place)).collect::<Result<_, _>>()?;
        rest.reverse();
        while !rest.is_empty() {
            // Each host lets one in at a time: strangers at its door are told apart by whom it expects.
            let hosts = self.up();
            let mut joins = tokio::task::JoinSet::new();
            for host in hosts.into_iter().take(STARTS_AT_ONCE) {
                let Some(newcomer) = rest.pop() else { break };
                let world = Arc::clone(self);
                joins.spawn(async move { world.join(&host, &newcomer).await.map(|()| newcomer) });
            }
            while let Some(joined) = joins.join_next().await {
                told(&*joined.map_err(|error| error.to_string())??, clock.elapsed());
            }
        }
        self.connected().await.map(|_| ())
    }

    /// Addresses and ways at all places of the settings, for programs that others start.
    pub fn reserve(&self) -> Result<Vec<Arc<Node>>, String> {
        self.settings.places.iter().map(|place| self.settle(place.clone())).collect()
    }

    /// A node that is not started yet.
    fn settle(&self, place: Place) -> Result<Arc<Node>, String> {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let number = nodes.len();
        if number >= NODES_MAX {
            return Err(format!("at most {NODES_MAX} nodes fit one testnet"));
        }
        let lower = place.iata.to_ascii_lowercase();
        let alike = nodes.iter().filter(|node| node.place.iata == place.iata).count();
        let name = if alike == 0 { lower } else { format!("{lower}-{}", alike + 1) };
        let [api, private, public] =
            [self.addresses.api(number), self.addresses.private(number), self.addresses.public(number)];
        self.emulator.add(place.clone(), private, public).map_err(|error| format!("{public}: {error}"))?;
        let directory = self.settings.directory.join(&name);
        let node = Arc::new(Node::new(number, name, place, directory, [api, private, public], &self.settings.starling));
        nodes.push(Arc::clone(&node));
        Ok(node)
    }

    /// Lets a node in through another one, by the join flow that operators use.
    async fn join(&self, host: &Node, newcomer: &Node) -> Result<(), String> {
        let api = host.api().ok_or_else(|| format!("{} does not serve", host.name))?;
        let token = api.json(Method::POST, "/starling/v1/invite", "").await?;
        let token = token["token"].as_str().ok_or("an invite without a token")?;
        self.emulator.expect(host.number, Some(newcomer.number));
        let started = newcomer.start(&self.settings.launcher, &self.nursery, Some(token)).await;
        self.emulator.expect(host.number, None);
        started
    }

    /// All nodes, those that are gone included.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those whose process runs.
    pub fn up(&self) -> Vec<Arc<Node>> {
        self.nodes().into_iter().filter(|node| node.state() == State::Up).collect()
    }

    /// Those that belong to the cluster, up or not.
    pub fn members(&self) -> Vec<Arc<Node>> {
        self.nodes().into_iter().filter(|node| node.state() != State::Gone).collect()
    }

    /// The ways between the nodes.
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// Where nodes keep their directories.
    pub fn directory(&self) -> &Path {
        &self.settings.directory
    }

    /// The nodes that a text names: names, numbers, `region:Europe`, `all`, several with commas between them.
    pub fn named(&self, text: &str) -> Result<Vec<Arc<Node>>, String> {
        let members = self.members();
        let mut found: Vec<Arc<Node>> = Vec::new();
        for part in text.split([',', '+']).map(str::trim) {
            let is_meant = |node: &&Arc<Node>| match part.split_once(':') {
                None => part == "all" || node.name.eq_ignore_ascii_case(part) || part == node.number.to_string(),
                Some(("region", region)) => node.place.region.eq_ignore_ascii_case(region),
                Some(("pop", pop)) => node.place.iata.eq_ignore_ascii_case(pop),
                Some(("node", number)) => number == node.number.to_string(),
                Some(_) => false,
            };
            let before = found.len();
            found.extend(members.iter().filter(is_meant).cloned());
            if found.len() == before {
                let names: Vec<&str> = members.iter().map(|node| &*node.name).collect();
                return Err(format!("no node '{part}'; there are {}, region:NAME and all", names.join(", ")));
            }
        }
        found.sort_by_key(|node| node.number);
        found.dedup_by_key(|node| node.number);
        Ok(found)
    }

    /// The one node that a text names.
    pub fn one(&self, text: &str) -> Result<Arc<Node>, String> {
        let found = self.named(text)?;
        match <[Arc<Node>; 1]>::try_from(found) {
            Ok([node]) => Ok(node),
            Err(several) => Err(format!("'{text}' names {} nodes, and one is wanted", several.len())),
        }
    }

    /// Cuts the ways between two sets of nodes; the number with which [`World::mend`] ends it.
    pub fn cut(&self, a: &[Arc<Node>], b: &[Arc<Node>], direction: Direction) -> usize {
        let fault = self.faults.fetch_add(1, Ordering::Relaxed);
        let numbers = |nodes: &[Arc<Node>]| nodes.iter().map(|node| node.number).collect::<Vec<_>>();
        let (a, b) = (numbers(a), numbers(b));
        self.emulator.ways(|ways| {
            if direction != Direction::In {
                ways.cut(fault, &a, &b);
            }
            if direction != Direction::Out {
                ways.cut(fault, &b, &a);
            }
        });
        fault
    }

    /// Ends a cut.
    pub fn mend(&self, fault: usize) {
        self.emulator.ways(|ways| ways.mend(fault));
    }

    /// Cuts nodes off from all others.
    pub fn isolate(&self, nodes: &[Arc<Node>], direction: Direction) -> usize {
        let is_in = |node: &Arc<Node>| nodes.iter().any(|one| one.number == node.number);
        let others: Vec<_> = self.nodes().into_iter().filter(|node| !is_in(node)).collect();
        self.cut(nodes, &others, direction)
    }

    /// Makes all ways between two sets of nodes slow, or as they were.
    pub fn slow(&self, a: &[Arc<Node>], b: &[Arc<Node>], slowness: Option<Slowness>) {
        self.emulator.ways(|ways| {
            for (a, b) in a.iter().flat_map(|a| b.iter().map(move |b| (a.number, b.number))) {
                ways.slow((a, b), slowness.clone());
                ways.slow((b, a), slowness.clone());
            }
        });
    }

    /// Starts a node that is down.
    pub async fn start(&self, node: &Node) -> Result<(), String> {
        let _busy = node.busy.lock().await;
        node.start(&self.settings.launcher, &self.nursery, None).await
    }

    /// Ends a node well and starts it again, perhaps from another program.
    pub async fn restart(&self, node: &Node, starling: Option<&Path>) -> Result<(), String> {
        let _busy = node.busy.lock().await;
        node.end().await;
        if let Some(starling) = starling {
            node.life().starling = starling.to_owned();
        }
        node.start(&self.settings.launcher, &self.nursery, None).await
    }

    /// Restarts a node with its clock off by so much.
    pub async fn set_clock(&self, node: &Node, offset_ms: i64) -> Result<(), String> {
        let _busy = node.busy.lock().await;
        node.end().await;
        node.life().clock_offset_ms = offset_ms;
        node.start(&self.settings.launcher, &self.nursery, None).await
    }

    /// Takes a copy of a node's directory while it is down for a moment.
    pub async fn copy(&self, node: &Node) -> Result<(), String> {
        let _busy = node.busy.lock().await;
        node.end().await;
        node.keep_copy()?;
        node.start(&self.settings.launcher, &self.nursery, None).await
    }

    /// Kills a node and puts the copy of its directory back.
    pub async fn restore(&self, node: &Node) -> Result<(), String> {
        let _busy = node.busy.lock().await;
        if !node.has_copy() {
            return Err(format!("there is no copy of {}'s directory; `copy {}` takes one", node.name, node.name));
        }
        node.kill();
        node.put_copy_back()?;
        node.start(&self.settings.launcher, &self.nursery, None).await
    }

    /// Kills a node and loses its disk; it joins anew as another node, and the old one is evicted.
    pub async fn wipe(&self, node: &Node) -> Result<(), String> {
        let _busy = node.busy.lock().await;
        node.kill();
        let id = node.id();
        node.wipe()?;
        self.evict(node, &id).await?;
        self.admit(node).await
    }

    /// Lets a node in through whoever is up and reachable. Those who have not heard yet that it lost its former life
    /// refuse it, so it may take more than one try.
    async fn admit(&self, node: &Node) -> Result<(), String> {
        let clock = Stopwatch::start();
        loop {
            let mut last = "no node can be reached".to_owned();
            for host in self.up().into_iter().filter(|host| host.number != node.number && !host.life().is_stranger) {
                let is_cut = |pair| self.emulator.ways(|ways| ways.is_cut(pair));
                if is_cut((host.number, node.number)) || is_cut((node.number, host.number)) {
                    continue;
                }
                match self.join(&host, node).await {
                    Ok(()) => {
                        node.life().is_stranger = false;
                        return Ok(());
                    }
                    Err(error) => last = error,
                }
                node.kill();
            }
            if clock.elapsed() > JOIN_PATIENCE {
                return Err(format!("{} can't join: {last}", node.name));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Takes a lost node off the cluster, as its operator would.
    async fn evict(&self, node: &Node, id: &str) -> Result<(), String> {
        let clock = Stopwatch::start();
        let body = json!({ "node": id }).to_string();
        loop {
            let mut last = "no node is up".to_owned();
            for other in self.up().into_iter().filter(|other| other.number != node.number) {
                let Some(api) = other.api() else { continue };
                match api.json(Method::POST, "/starling/v1/evict", body.clone()).await {
                    Ok(_) => return Ok(()),
                    Err(error) => last = error,
                }
            }
            if clock.elapsed() > EVICT_PATIENCE {
                return Err(format!("{} can't be evicted: {last}", node.name));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// One more node, which joins.
    pub async fn add(&self, place: Place) -> Result<Arc<Node>, String> {
        let node = self.settle(place)?;
        let _busy = node.busy.lock().await;
        self.admit(&node).await?;
        Ok(Arc::clone(&node))
    }

    /// Takes a node off for good: it leaves, or is evicted if it is down.
    pub async fn remove(&self, node: &Node) -> Result<(), String> {
        let _busy = node.busy.lock().await;
        match (node.state(), node.api()) {
            (State::Up, Some(api)) => {
                api.json(Method::POST, "/starling/v1/leave", "").await?;
                node.end().await;
            }
            _ => {
                node.kill();
                self.evict(node, &node.id()).await?;
            }
        }
        node.set_gone();
        Ok(())
    }

    /// Ends all cuts and slowness, wakes who stands still, lifts limits, sets clocks right and starts who is down, until
    /// every member serves.
    pub async fn heal(&self) -> Result<(), String> {
        self.emulator.ways(Ways::heal);
        let clock = Stopwatch::start();
        for node in self.members().into_iter().filter(|node| !node.is_foreign()) {
            // What kills a process may take a moment, and a node that is about to end still looks well.
            while let Err(ill) = self.heal_one(&node).await {
                if clock.elapsed() > FLOCK_PATIENCE {
                    return Err(ill);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }

    /// One step towards a node that serves; an error while it does not.
    async fn heal_one(&self, node: &Node) -> Result<(), String> {
        match node.state() {
            State::Down => {
                node.life().clock_offset_ms = 0;
                let is_stranger = node.life().is_stranger;
                return match is_stranger {
                    true => self.admit(node).await,
                    false => self.start(node).await,
                };
            }
            State::Still => node.go_on()?,
            State::Up | State::Gone => {}
        }
        if node.clock_offset_ms() != 0 {
            return self.set_clock(node, 0).await;
        }
        node.limit_files(None)?;
        let api = node.api().ok_or_else(|| format!("{} has never served", node.name))?;
        let status = api.status(STATUS_PATIENCE).await?;
        if status["state"].as_str().is_some_and(|state| state.contains("storage failed")) {
            self.restart(node, None).await?;
        }
        Ok(())
    }

    /// What every member says of itself, in their order; what went wrong for those that don't answer.
    pub async fn statuses(&self) -> Vec<(Arc<Node>, Result<Json, String>)> {
        let mut asked = tokio::task::JoinSet::new();
        for (at, node) in self.nodes().into_iter().enumerate() {
            asked.spawn(async move {
                let status = match (node.state(), node.api()) {
                    (State::Up, Some(api)) => api.status(STATUS_PATIENCE).await,
                    (state, _) => Err(state.name().to_owned()),
                };
                (at, node, status)
            });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(at, ..)| *at);
        answers.into_iter().map(|(_, node, status)| (node, status)).collect()
    }

    /// Waits until each member is connected to all others; how long it took.
    pub async fn connected(&self) -> Result<Duration, String> {
        let clock = Stopwatch::start();
        loop {
            let statuses = self.statuses().await;
            let members = statuses.iter().filter(|(node, _)| node.state() != State::Gone).count();
            let is_full = |status: &Json| {
                let peers = status["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
                peers.len() + 1 == members && peers.iter().all(|peer| peer["state"] == "connected")
            };
            let lonely = statuses
                .iter()
                .find(|(node, status)| node.state() != State::Gone && !status.as_ref().is_ok_and(&is_full));
            let Some((node, status)) = lonely else { return Ok(clock.elapsed()) };
            if clock.elapsed() > FLOCK_PATIENCE {
                let said = status.as_ref().map_or_else(Clone::clone, |status| status["peers"].to_string());
                return Err(format!("{} is not connected to all others: {said}", node.name));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until all members hold the same; how long it took.
    pub async fn agree(&self, patience: Duration) -> Result<Duration, String> {
        let clock = Stopwatch::start();
        loop {
            let statuses = self.statuses().await;
            let members: Vec<_> = statuses.iter().filter(|(node, _)| node.state() != State::Gone).collect();
            let said = |status: &Result<Json, String>, key: &str| match status {
                Ok(status) => status[key].to_string(),
                Err(error) => error.clone(),
            };
            let shown = |status: &Result<Json, String>| {
                format!("{} {} {}", said(status, "digest"), said(status, "version_vector"), said(status, "entries"))
            };
            let all: Vec<String> = members.iter().map(|(_, status)| shown(status)).collect();
            if members.iter().all(|(_, status)| status.is_ok()) && all.windows(2).all(|two| two[0] == two[1]) {
                return Ok(clock.elapsed());
            }
            if clock.elapsed() > patience {
                let lines: Vec<String> =
                    members.iter().zip(all).map(|((node, _), said)| format!("{} {said}", node.name)).collect();
                return Err(format!("not equal after {} s:\n  {}", patience.as_secs(), lines.join("\n  ")));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends all nodes.
    pub async fn down(&self) {
        let mut ends = tokio::task::JoinSet::new();
        for node in self.nodes() {
            ends.spawn(async move {
                match node.state() {
                    // It would take as long as its timers say to notice; nothing acknowledged is lost by this.
                    State::Still => node.kill(),
                    _ => _ = node.end().await,
                }
            });
        }
        ends.join_all().await;
    }
}
