//! How long writes take to be readable everywhere, and what they cost: a scenario's writes, made through the API of real
//! nodes, seen arriving in the change feed of every other one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use starling_sim::bounds::Bounds;
use starling_sim::outcome::Quantiles;
use starling_sim::places::Delays;
use starling_sim::scenario::Scenario;
use starling_sim::workload::{Act, Content, draw};

use crate::api::PATIENCE;
use crate::emulator::queue::Stopwatch;
use crate::sample::Sample;
use crate::scripted;
use crate::world::World;

/// Before the first write, to see what an idle flock costs.
const IDLE: Duration = Duration::from_secs(5);
/// What has not arrived so long after the last write never will.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Larger values are not what this measures.
const VALUE_LEN_MAX: u64 = 1 << 20;

/// The figures of one scenario, from real nodes or from the simulator. Times in microseconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Nodes.
    pub nodes: usize,
    /// Fraction of packets lost.
    pub loss: f64,
    /// Writes accepted.
    pub writes: u64,
    /// Writes that were not seen everywhere.
    pub unfinished: u64,
    /// From a write's request until the last other node shows it.
    pub lag_last: Quantiles,
    /// The same for single receivers.
    pub lag_each: Quantiles,
    /// From a write's request until it is acknowledged.
    pub acknowledged: Quantiles,
    /// For the origins of these writes, straight to the farthest node: no write can be faster without relays.
    pub bound: Quantiles,
    /// Bytes received by a node for each write.
    pub bytes_per_write_per_node: f64,
    /// The same without what an idle flock sends.
    pub bytes_per_write_per_node_beyond_idle: Option<f64>,
    /// Processor time of a node, milliseconds for each second.
    pub cpu_ms_per_sec: Option<f64>,
    /// Memory of a node at the end, bytes.
    pub memory: Option<u64>,
}

type Seen = Arc<Mutex<BTreeMap<String, Vec<(usize, u64)>>>>;

/// Makes a scenario's writes on a world that is up.
pub async fn real(world: &Arc<World>, scenario: &Scenario, seed: u64) -> Result<Figures, String> {
    let nodes = world.up();
    let first = nodes.first().and_then(|node| node.api()).ok_or("no node is up")?;
    let namespace = first.namespace(&format!("measure-{seed}")).await?;
    world.agree(ARRIVAL_MAX).await?;
    let clock = Stopwatch::start();
    let seen = Seen::default();
    let mut feeds = tokio::task::JoinSet::new();
    for node in &nodes {
        let api = node.api().ok_or_else(|| format!("{} does not serve", node.name))?;
        let mut feed = api.stream(&format!("{namespace}/changes")).await?;
        let (seen, number) = (Arc::clone(&seen), node.number);
        feeds.spawn(async move {
            let mut rest = Vec::new();
            while let Some(Ok(frame)) = feed.frame().await {
                let at_us = clock.us();
                rest.extend_from_slice(frame.data_ref().map(|data| &data[..]).unwrap_or_default());
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let Some(data) = line.strip_prefix(b"data:") else { continue };
                    let event: Json = serde_json::from_slice(data).unwrap_or_default();
                    if let Some(key) = event["key"].as_str() {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.entry(key.to_owned()).or_default().push((number, at_us));
                    }
                }
            }
        });
    }
    let bytes = || world.emulator().traffic().bytes;
    let cpu_ms = || nodes.iter().filter_map(|node| node.pid()).map(|pid| Sample::of(pid).cpu_ms).sum::<u64>();
    let (before, began) = (bytes(), clock.us());
    tokio::time::sleep(IDLE).await;
    let idle_bytes_per_us = (bytes() - before) as f64 / (clock.us() - began) as f64;

    let (bytes_before, cpu_before, start_us) = (bytes(), cpu_ms(), clock.us());
    let faults = scripted::play(world, scenario, clock, start_us, seed);
    let mut writes = tokio::task::JoinSet::new();
    for (number, op) in draw(scenario, nodes.len(), seed).into_iter().enumerate() {
        let Act::Write { content, .. } = op.act else { continue };
        let len = match content {
            Content::Bytes(len) | Content::Expiring(len, _) => len.min(VALUE_LEN_MAX),
            Content::Tombstone => 0,
        };
        let origin = Arc::clone(&nodes[op.node % nodes.len()]);
        let api = origin.api().ok_or_else(|| format!("{} does not serve", origin.name))?;
        let (key, path) = (format!("w{number}"), format!("{namespace}/values/w{number}"));
        writes.spawn(async move {
            tokio::time::sleep(Duration::from_micros((start_us + op.at_us).saturating_sub(clock.us()))).await;
            let sent_us = clock.us();
            let answer = api.ask(Method::PUT, &path, &[], "v".repeat(len as usize), PATIENCE).await;
            answer.is_ok_and(|answer| answer.status == 200).then_some((key, origin.number, sent_us, clock.us()))
        });
    }
    let written: Vec<_> = writes.join_all().await.into_iter().flatten().collect();
    faults.join_all().await.into_iter().collect::<Result<(), String>>()?;
    let end = Stopwatch::start();
    let arrived = |key: &str| seen.lock().unwrap_or_else(PoisonError::into_inner).get(key).map_or(0, Vec::len);
    while written.iter().any(|(key, ..)| arrived(key) < nodes.len()) && end.elapsed() < ARRIVAL_MAX {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let took_us = clock.us() - start_us;
    // A process that was started meanwhile has taken nothing before.
    let (moved, cpu) = (bytes() - bytes_before, cpu_ms().saturating_sub(cpu_before));
    feeds.abort_all();

    let places = world.emulator().ways(|ways| ways.places().to_vec());
    let direct_us = Bounds::of(&Delays::between(&places)).direct_us;
    let (mut last, mut each, mut acknowledged, mut bound, mut unfinished) = (vec![], vec![], vec![], vec![], 0);
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for (key, origin, sent_us, answered_us) in &written {
        let others = seen.get(key).into_iter().flatten().filter(|(node, _)| node != origin);
        let mut lags: BTreeMap<usize, u64> = BTreeMap::new();
        for (node, at_us) in others {
            lags.entry(*node).or_insert(at_us.saturating_sub(*sent_us));
        }
        acknowledged.push(answered_us - sent_us);
        bound.push(direct_us.get(*origin).copied().unwrap_or(0));
        match lags.len() + 1 == nodes.len() {
            true => last.push(lags.values().copied().max().unwrap_or(0)),
            false => unfinished += 1,
        }
        each.extend(lags.into_values());
    }
    let shares = (written.len().max(1) * nodes.len()) as f64;
    let memory: u64 = nodes.iter().filter_map(|node| node.pid()).map(|pid| Sample::of(pid).rss).sum();
    Ok(Figures {
        nodes: nodes.len(),
        loss: scenario.links.loss,
        writes: written.len() as u64,
        unfinished,
        lag_last: Quantiles::of(last),
        lag_each: Quantiles::of(each),
        acknowledged: Quantiles::of(acknowledged),
        bound: Quantiles::of(bound),
        bytes_per_write_per_node: moved as f64 / shares,
        bytes_per_write_per_node_beyond_idle: Some(
            (moved as f64 - idle_bytes_per_us * took_us as f64).max(0.0) / shares,
        ),
        cpu_ms_per_sec: Some(cpu as f64 / nodes.len() as f64 / (took_us as f64 / 1e6)),
        memory: Some(memory / nodes.len() as u64),
    })
}

/// The same scenario in the simulator.
pub fn simulated(scenario: &Scenario, seed: u64) -> Figures {
    let options = starling_sim::world::Options { seed, ..Default::default() };
    let summary = starling_sim::world::World::run(scenario, &options, &mut |_| {}).summary;
    Figures {
        nodes: summary.nodes,
        loss: scenario.links.loss,
        writes: summary.writes.accepted,
        unfinished: summary.writes.unfinished,
        lag_last: summary.lag_last,
        lag_each: summary.lag_each,
        acknowledged: Quantiles::default(),
        bound: summary.bound_direct,
        bytes_per_write_per_node: summary.traffic.bytes_per_write_per_node_milli as f64 / 1e3,
        bytes_per_write_per_node_beyond_idle: None,
        cpu_ms_per_sec: None,
        memory: None,
    }
}
