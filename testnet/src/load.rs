//! How much nodes take: closed loops of writers and readers, bulk loads, a node that missed them, a node that is new.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Method;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api::PATIENCE;
use crate::emulator::queue::Stopwatch;
use crate::node::Node;
use crate::sample::Sample;
use crate::world::{World, place};

/// Requests that a closed loop has under way at one node.
const AT_ONCE: usize = 32;
/// How long one loop goes on.
const LOOP: Duration = Duration::from_secs(5);
/// Pairs of one bulk request, and about how many bytes.
const BATCH_PAIRS: usize = 1_000;
const BATCH_LEN: usize = 8 << 20;
const TEXT_LEN: usize = 4 << 20;
/// Longest wait for a node that catches up.
const CATCH_UP_MAX: Duration = Duration::from_secs(1_800);

/// Requests a second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Throughput {
    /// Writes of 100 bytes at one node, each on disk before it is answered.
    pub writes_one: f64,
    /// The same at all nodes at once.
    pub writes_all: f64,
    /// Reads at one node.
    pub reads_one: f64,
    /// Reads at all nodes at once.
    pub reads_all: f64,
}

/// What it took a node to get what others had.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Took {
    /// How much that was.
    pub count: usize,
    /// From its start until all nodes were equal.
    pub seconds: f64,
    /// Most memory that it had meanwhile, MiB.
    pub memory_peak_mib: u64,
    /// Most memory that any other node had, MiB; while it took up the load too, if that was measured.
    pub others_peak_mib: u64,
}

/// Between two looks at the memory of processes.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Does something, and looks at the memory of all nodes meanwhile: most of that one, most of any other, MiB.
async fn with_peaks<T>(world: &World, work: impl Future<Output = T>, is_it: impl Fn(&Node) -> bool) -> (T, [u64; 2]) {
    let mut peaks = [0; 2];
    let look = async {
        loop {
            for node in world.up() {
                let mib = node.pid().map_or(0, |pid| Sample::of(pid).rss >> 20);
                let peak = &mut peaks[usize::from(!is_it(&node))];
                *peak = mib.max(*peak);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let done = tokio::select! {
        done = work => done,
        () = look => unreachable!("it looks for ever"),
    };
    (done, peaks)
}

/// What closed loops reach.
pub async fn throughput(world: &Arc<World>) -> Result<Throughput, String> {
    let nodes = world.up();
    let namespace = fresh(world, "throughput").await?;
    let first = &nodes[..1];
    let writes_one = closed_loop(first, &namespace, Method::PUT).await;
    let reads_one = closed_loop(first, &namespace, Method::GET).await;
    let writes_all = closed_loop(&nodes, &namespace, Method::PUT).await;
    world.agree(CATCH_UP_MAX).await?;
    let reads_all = closed_loop(&nodes, &namespace, Method::GET).await;
    Ok(Throughput { writes_one, writes_all, reads_one, reads_all })
}

async fn fresh(world: &World, title: &str) -> Result<String, String> {
    let api = world.up().first().and_then(|node| node.api()).ok_or("no node is up")?;
    let namespace = api.namespace(title).await?;
    world.agree(CATCH_UP_MAX).await?;
    Ok(namespace)
}

async fn closed_loop(nodes: &[Arc<Node>], namespace: &str, method: Method) -> f64 {
    let (clock, done) = (Stopwatch::start(), Arc::new(AtomicU64::new(0)));
    let mut loops = tokio::task::JoinSet::new();
    for (node, worker) in nodes.iter().flat_map(|node| (0..AT_ONCE).map(move |worker| (node, worker))) {
        let Some(api) = node.api() else { continue };
        let (done, method, number) = (Arc::clone(&done), method.clone(), node.number);
        let path = format!("{namespace}/values/{number}-{worker}");
        loops.spawn(async move {
            while clock.elapsed() < LOOP {
                let answer = api.ask(method.clone(), &path, &[], "v".repeat(100), PATIENCE).await;
                if answer.is_ok_and(|answer| answer.status == 200) {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    loops.join_all().await;
    done.load(Ordering::Relaxed) as f64 / clock.elapsed().as_secs_f64()
}

/// Loads so many values of so many bytes through one node.
async fn bulk(node: &Node, namespace: &str, prefix: &str, count: usize, len: usize) -> Result<(), String> {
    let api = node.api().ok_or_else(|| format!("{} does not serve", node.name))?;
    // Text that nothing can compress, cut out at another place each time.
    let mut rng = ChaCha8Rng::seed_from_u64(count as u64);
    let text: String = (0..len + TEXT_LEN).map(|_| char::from(rng.random_range(b'0'..=b'z'))).collect();
    let text = text.replace('\\', "|");
    let batch = BATCH_PAIRS.min((BATCH_LEN / len.max(1)).max(1));
    for from in (0..count).step_by(batch) {
        let pairs: Vec<_> = (from..count.min(from + batch))
            .map(|number| {
                let at = rng.random_range(0..TEXT_LEN);
                json!({ "key": format!("{prefix}/{number:08}"), "value": text[at..at + len] })
            })
            .collect();
        let body = serde_json::to_vec(&pairs).map_err(|error| error.to_string())?;
        let path = format!("{namespace}/bulk");
        let answer = api.ask(Method::PUT, &path, &[], body, Duration::from_secs(120)).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!("a bulk write was refused: {}", answer.text()));
        }
    }
    Ok(())
}

/// Lets a node miss so many writes of 100 bytes, and catch up.
pub async fn catch_up(world: &Arc<World>, count: usize) -> Result<Took, String> {
    let namespace = fresh(world, "catch-up").await?;
    let nodes = world.up();
    let [first, .., last] = &nodes[..] else { return Err("two nodes are wanted".into()) };
    last.kill();
    bulk(first, &namespace, "missed", count, 100).await?;
    let clock = Stopwatch::start();
    let work = async {
        world.start(last).await?;
        world.agree(CATCH_UP_MAX).await
    };
    let (done, [memory_peak_mib, others_peak_mib]) = with_peaks(world, work, |node| node.number == last.number).await;
    done?;
    Ok(Took { count, seconds: clock.elapsed().as_secs_f64(), memory_peak_mib, others_peak_mib })
}

/// Lets a new node join a flock that holds so many MiB in values of 16 KiB.
pub async fn bootstrap(world: &Arc<World>, mib: usize) -> Result<Took, String> {
    let namespace = fresh(world, "bootstrap").await?;
    let nodes = world.nodes().len();
    let first = world.up().into_iter().next().ok_or("no node is up")?;
    let work = async {
        bulk(&first, &namespace, "old", mib * 64, 16 << 10).await?;
        world.agree(CATCH_UP_MAX).await?;
        let clock = Stopwatch::start();
        world.add(place("FRA")?).await?;
        world.agree(CATCH_UP_MAX).await?;
        Ok::<_, String>(clock.elapsed().as_secs_f64())
    };
    let (seconds, [memory_peak_mib, others_peak_mib]) = with_peaks(world, work, |node| node.number >= nodes).await;
    Ok(Took { count: mib, seconds: seconds?, memory_peak_mib, others_peak_mib })
}
