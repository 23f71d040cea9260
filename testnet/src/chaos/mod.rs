//! Chaos: clients that record what they see, faults drawn from a seed, and a checker that looks at it all in the end.

pub mod client;
pub mod history;
pub mod judge;
pub mod lie;
pub mod plan;
pub mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use starling_sim::scenario::Direction;

use crate::emulator::queue::Stopwatch;
use crate::emulator::ways::Slowness;
use crate::node::{Node, State};
use crate::world::World;
use client::Clients;
use history::{Answer, History, What};
use judge::Broken;
use lie::{Liar, Lie};
use plan::{Hurt, Planned};
use watch::Watch;

/// All nodes must be equal so long after the last fault has healed.
pub const CONVERGENCE_MAX: Duration = Duration::from_secs(90);
/// Values that expire are written until so long before the end, if nothing else is said.
pub const EXPIRY_QUIET: Duration = Duration::from_secs(60);
/// Between two samples of processes.
const SAMPLE_PERIOD: Duration = Duration::from_secs(5);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Order {
    /// How long clients and faults go on.
    pub duration: Duration,
    /// What clients do follows from it.
    pub seed: u64,
    /// The faults, as [`plan::draw`] draws them.
    pub plan: Vec<Planned>,
    /// Values that expire are written until so long before the end.
    pub expiry_quiet: Duration,
    /// Someone lies to the clients.
    pub lie: Option<Lie>,
    /// The program that a rolling restart goes on to; the same one if there is none.
    pub next: Option<PathBuf>,
}

/// What came out.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// How long clients and faults went on, seconds.
    pub seconds: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, usize>,
    /// Requests by kind and outcome.
    pub requests: BTreeMap<String, usize>,
    /// From the beginning of the healing until all nodes were up and equal, milliseconds; absent if they never were.
    pub converged_ms: Option<u64>,
    /// Keys held at the end.
    pub keys: usize,
    /// The slope of what processes use.
    pub flatness: watch::Flatness,
    /// What was found wrong.
    pub broken: Vec<Broken>,
}

/// Runs chaos on a planet that is up. `told` hears of every fault.
pub async fn run(
    world: &Arc<World>,
    order: &Order,
    told: Arc<dyn Fn(String) + Send + Sync>,
) -> Result<(Verdict, History, Watch), String> {
    let nodes = world.nodes();
    let liar = order.lie.map(|lie| Liar::new(lie, &nodes.iter().map(|node| node.name.clone()).collect::<Vec<_>>()));
    let namespace = namespace(world, order.lie).await?;
    if order.lie == Some(Lie::ForgetWhenKilled) {
        for node in &nodes {
            world.copy(node).await?;
        }
    }
    let (clock, epoch_ms) = (Stopwatch::start(), unix_ms());
    let clients = Clients::new(Arc::clone(world), namespace, liar, clock, epoch_ms);
    let trouble: Arc<Mutex<Vec<Broken>>> = Arc::default();
    let watch = Arc::new(Mutex::new(Watch::new(&nodes)));
    let mut running = tokio::task::JoinSet::new();
    for node in &nodes {
        running.spawn(Arc::clone(&clients).run(node.number, Arc::clone(node), order.seed));
    }
    let sampler = {
        let (world, watch) = (Arc::clone(world), Arc::clone(&watch));
        tokio::spawn(async move {
            loop {
                watch.lock().unwrap_or_else(PoisonError::into_inner).sample(clock.us(), &world.nodes());
                tokio::time::sleep(SAMPLE_PERIOD).await;
            }
        })
    };
    let lost = Arc::new(Mutex::new(Vec::new()));
    let turns: Arc<Vec<_>> = Arc::new(nodes.iter().map(|_| tokio::sync::Mutex::new(())).collect());
    let mut hurts = tokio::task::JoinSet::new();
    for planned in order.plan.clone() {
        let chaos = Chaos {
            world: Arc::clone(world),
            clients: Arc::clone(&clients),
            lost: Arc::clone(&lost),
            lie: order.lie,
            next: order.next.clone(),
        };
        let turns = Arc::clone(&turns);
        let (told, trouble) = (Arc::clone(&told), Arc::clone(&trouble));
        hurts.spawn(async move {
            tokio::time::sleep(Duration::from_millis(planned.at_ms).saturating_sub(clock.elapsed())).await;
            // On a slow machine the fault before may not have ended yet.
            let _turn = match planned.hurt.node().and_then(|node| turns.get(node)) {
                Some(turn) => Some(turn.lock().await),
                None => None,
            };
            told(format!("{:>7.1} s  {planned}", clock.us() as f64 / 1e6));
            if let Err(error) = chaos.hurt(&planned).await {
                told(format!("{:>7.1} s  {planned}: {error}", clock.us() as f64 / 1e6));
                let broken = Broken { promise: "a node comes back", what: format!("{planned}: {error}") };
                trouble.lock().unwrap_or_else(PoisonError::into_inner).push(broken);
            }
        });
    }
    tokio::time::sleep(order.duration.saturating_sub(order.expiry_quiet)).await;
    clients.write_nothing_that_expires();
    tokio::time::sleep(order.duration.saturating_sub(clock.elapsed())).await;
    while hurts.join_next().await.is_some() {}
    clients.stop();
    while running.join_next().await.is_some() {}
    told(format!("{:>7.1} s  faults and clients have ended; healing", clock.us() as f64 / 1e6));
    let healing = Stopwatch::start();
    let mut broken = std::mem::take(&mut *trouble.lock().unwrap_or_else(PoisonError::into_inner));
    if let Err(error) = world.heal().await {
        broken.push(Broken { promise: "a node comes back", what: error });
    }
    let converged = world.agree(CONVERGENCE_MAX).await.map(|_| healing.elapsed());
    match &converged {
        Ok(took) => told(format!(
            "{:>7.1} s  all equal {:.1} s after the healing began",
            clock.us() as f64 / 1e6,
            took.as_secs_f64()
        )),
        Err(error) => broken.push(Broken { promise: "all nodes end equal", what: error.clone() }),
    }
    let ops = clients.take();
    wait_for_expiry(&ops, epoch_ms, &clock).await;
    let mut history = History { epoch_ms, ops, ..History::default() };
    history.lost = lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
    history.held_us = clock.us();
    for node in world.members().iter().filter(|node| node.state() == State::Up) {
        match clients.held(node).await {
            Ok(held) => _ = history.held.insert(node.name.clone(), held),
            Err(error) => broken.push(Broken { promise: "a node answers at the end", what: error }),
        }
    }
    sampler.abort();
    let watch = std::mem::take(&mut *watch.lock().unwrap_or_else(PoisonError::into_inner));
    broken.extend(judge::judge(&history));
    let mut faults = BTreeMap::new();
    for planned in &order.plan {
        *faults.entry(planned.hurt.name().to_owned()).or_default() += 1;
    }
    let verdict = Verdict {
        seed: order.seed,
        nodes: nodes.len(),
        seconds: order.duration.as_secs(),
        faults,
        requests: counted(&history),
        converged_ms: converged.ok().map(|took| took.as_millis() as u64),
        keys: history.held.values().map(BTreeMap::len).max().unwrap_or(0),
        flatness: watch.flatness(),
        broken,
    };
    Ok((verdict, history, watch))
}

/// A namespace that every node knows.
async fn namespace(world: &World, lie: Option<Lie>) -> Result<String, String> {
    let first = world.up().into_iter().next().and_then(|node| node.api()).ok_or("no node is up")?;
    let namespace = first.namespace(&lie.map_or("chaos".into(), |lie| format!("chaos, {lie:?}"))).await?;
    world.agree(CONVERGENCE_MAX).await?;
    Ok(namespace)
}

/// After this everything that may expire has.
async fn wait_for_expiry(ops: &[history::Op], epoch_ms: u64, clock: &Stopwatch) {
    let ends = ops.iter().filter_map(|op| match op.what {
        What::Put { expires_s, .. } => expires_s,
        _ => None,
    });
    let until_ms = ends.max().unwrap_or(0) * 1_000 + 3_000;
    let now_ms = epoch_ms + clock.us() / 1_000;
    tokio::time::sleep(Duration::from_millis(until_ms.saturating_sub(now_ms))).await;
}

#[allow(clippy::disallowed_methods, reason = "expiry is told in the time of day")]
fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn counted(history: &History) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for op in &history.ops {
        let what = match &op.what {
            What::Put { .. } => "put",
            What::Delete { .. } => "delete",
            What::Get { bookmark: false, .. } => "get",
            What::Get { bookmark: true, .. } => "get with bookmark",
            What::List { .. } => "list",
        };
        let answer = match &op.answer {
            Answer::Refused(0) => "unreached".to_owned(),
            Answer::Refused(status) => format!("refused {status}"),
            Answer::Unknown => "unknown".to_owned(),
            _ => "answered".to_owned(),
        };
        *counts.entry(format!("{what}: {answer}")).or_default() += 1;
    }
    counts
}

/// What does the hurting.
struct Chaos {
    world: Arc<World>,
    clients: Arc<Clients>,
    lost: Arc<Mutex<Vec<history::Disk>>>,
    lie: Option<Lie>,
    next: Option<PathBuf>,
}

impl Chaos {
    async fn hurt(&self, planned: &Planned) -> Result<(), String> {
        let world = &self.world;
        let nodes = world.nodes();
        let some =
            |numbers: &[usize]| numbers.iter().filter_map(|number| nodes.get(*number).cloned()).collect::<Vec<_>>();
        let node = |number: usize| nodes.get(number).cloned().ok_or_else(|| format!("there is no node {number}"));
        let last = || tokio::time::sleep(Duration::from_millis(planned.lasts_ms));
        match &planned.hurt {
            Hurt::Kill(number) => {
                let node = node(*number)?;
                node.kill();
                if self.lie == Some(Lie::ForgetWhenKilled) {
                    // Nobody is told: the disk counts as the one it was.
                    node.roll_back()?;
                }
                last().await;
                world.start(&node).await
            }
            Hurt::Still(number) => {
                let node = node(*number)?;
                node.stand_still()?;
                last().await;
                node.go_on()
            }
            Hurt::Cut(a, b, is_one_way) => {
                let direction = if *is_one_way { Direction::Out } else { Direction::Both };
                let cut = world.cut(&some(a), &some(b), direction);
                last().await;
                world.mend(cut);
                Ok(())
            }
            Hurt::Slow(number, ms, percent) => {
                let node = [node(*number)?];
                let (delay_us, loss) = (ms * 1_000, *percent as f64 / 100.0);
                let slowness = Slowness { delay_us, loss, bandwidth_mbit: Some(5), ..Slowness::default() };
                world.slow(&node, &nodes, Some(slowness));
                last().await;
                world.slow(&node, &nodes, None);
                Ok(())
            }
            Hurt::Full(number) => {
                let node = node(*number)?;
                node.limit_files(Some(0))?;
                last().await;
                world.restart(&node, None).await
            }
            Hurt::Clock(number, offset_ms) => {
                let node = node(*number)?;
                world.set_clock(&node, *offset_ms).await?;
                last().await;
                world.set_clock(&node, 0).await
            }
            Hurt::Restart(number) => world.restart(&*node(*number)?, None).await,
            Hurt::Rolling => {
                for node in nodes.iter().filter(|node| node.state() == State::Up) {
                    world.restart(node, self.next.as_deref()).await?;
                }
                Ok(())
            }
            Hurt::Wipe(number) => {
                let node = node(*number)?;
                self.lose(&node).await;
                world.wipe(&node).await
            }
            Hurt::Copy(number) => world.copy(&*node(*number)?).await,
            Hurt::Restore(number) => {
                let node = node(*number)?;
                self.lose(&node).await;
                world.restore(&node).await
            }
        }
    }

    /// Notes that a disk is lost. Who else has what is looked up before, since after it nobody can tell.
    async fn lose(&self, node: &Node) {
        self.clients.witness(node.number).await;
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).push((node.number, node.disk()));
    }
}
