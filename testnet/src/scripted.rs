//! The faults of a scenario, done to real processes. What only virtual time can do is refused by name.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use starling_sim::places::Place;
use starling_sim::scenario::{Clock, Direction, Fault, FaultKind, Scenario, Selector};

use crate::emulator::queue::Stopwatch;
use crate::emulator::ways::Slowness;
use crate::node::Node;
use crate::world::World;

/// Whether real processes can have all this; else the name of what they can't.
pub fn check(scenario: &Scenario) -> Result<(), String> {
    for fault in &scenario.faults {
        let is_known = match &fault.kind {
            FaultKind::Clock { clock } => matches!(clock, Clock::Ahead(_) | Clock::Behind(_)),
            FaultKind::Partition { .. } | FaultKind::Flap { .. } | FaultKind::Loss { .. } => true,
            FaultKind::Crash { .. } | FaultKind::Restore { .. } | FaultKind::Wipe => true,
            FaultKind::Join { .. } | FaultKind::Leave | FaultKind::Pause | FaultKind::DiskFull => true,
            _ => false,
        };
        if !is_known {
            return Err(format!("a fault of this kind ({}) runs in the simulator only", fault.kind.name()));
        }
    }
    if scenario.workload.bulk > 0 || scenario.workload.namespaces_deleted > 0 {
        return Err("bulk loads and deleted namespaces run in the simulator only".into());
    }
    Ok(())
}

/// Does all faults of a scenario that began at `start_us`.
pub fn play(
    world: &Arc<World>,
    scenario: &Scenario,
    clock: Stopwatch,
    start_us: u64,
    seed: u64,
) -> tokio::task::JoinSet<Result<(), String>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x6661_756c);
    let mut faults = tokio::task::JoinSet::new();
    for fault in scenario.faults.clone() {
        let chosen = choose(world, &fault.nodes, &mut rng);
        let others = match &fault.kind {
            FaultKind::Partition { from, .. } | FaultKind::Flap { from, .. } => choose(world, from, &mut rng),
            _ => Vec::new(),
        };
        let newcomers: Vec<Place> = match &fault.kind {
            FaultKind::Join { count } => {
                let nodes = world.nodes();
                (0..*count).map(|_| nodes[rng.random_range(0..nodes.len())].place.clone()).collect()
            }
            _ => Vec::new(),
        };
        let world = Arc::clone(world);
        let until =
            move |at_us: u64| tokio::time::sleep(Duration::from_micros((start_us + at_us).saturating_sub(clock.us())));
        faults.spawn(async move {
            if let FaultKind::Restore { age } = &fault.kind {
                // Nothing can be put back that was not copied; that takes a clean restart.
                until(fault.at.0.saturating_sub(age.0)).await;
                for node in &chosen {
                    world.copy(node).await?;
                }
            }
            until(fault.at.0).await;
            for place in newcomers {
                world.add(place).await?;
            }
            befall(&world, &fault, &chosen, &others).await
        });
    }
    faults
}

fn choose(world: &World, selector: &Selector, rng: &mut ChaCha8Rng) -> Vec<Arc<Node>> {
    let mut nodes = world.members();
    match selector {
        Selector::All => nodes,
        Selector::Node(number) => nodes.into_iter().filter(|node| node.number == *number).collect(),
        Selector::Pop(pop) => nodes.into_iter().filter(|node| node.place.iata == *pop).collect(),
        Selector::Region(region) => nodes.into_iter().filter(|node| node.place.region == *region).collect(),
        Selector::Share(percent) => {
            let count = (nodes.len() as u64 * percent).div_ceil(100) as usize;
            while nodes.len() > count {
                nodes.swap_remove(rng.random_range(0..nodes.len()));
            }
            nodes
        }
        Selector::Any(any) => any.iter().flat_map(|selector| choose(world, selector, rng)).collect(),
    }
}

async fn befall(world: &Arc<World>, fault: &Fault, nodes: &[Arc<Node>], others: &[Arc<Node>]) -> Result<(), String> {
    let last = || tokio::time::sleep(Duration::from_micros(fault.lasts.0));
    match &fault.kind {
        FaultKind::Partition { direction, .. } => {
            let is_in = |node: &&Arc<Node>| !nodes.iter().any(|one| one.number == node.number);
            let others: Vec<Arc<Node>> = others.iter().filter(is_in).cloned().collect();
            let cut = world.cut(nodes, &others, *direction);
            last().await;
            world.mend(cut);
        }
        FaultKind::Flap { period, .. } => {
            let is_in = |node: &&Arc<Node>| !nodes.iter().any(|one| one.number == node.number);
            let others: Vec<Arc<Node>> = others.iter().filter(is_in).cloned().collect();
            let (clock, half) = (Stopwatch::start(), Duration::from_micros((period.0 / 2).max(1_000)));
            while clock.us() < fault.lasts.0 {
                let cut = world.cut(nodes, &others, Direction::Both);
                tokio::time::sleep(half).await;
                world.mend(cut);
                tokio::time::sleep(half).await;
            }
        }
        FaultKind::Loss { loss, bursts } => {
            let slowness = Slowness { loss: *loss, bursts: bursts.clone(), ..Slowness::default() };
            world.slow(nodes, &world.nodes(), Some(slowness));
            last().await;
            world.slow(nodes, &world.nodes(), None);
        }
        FaultKind::Crash { .. } => {
            nodes.iter().for_each(|node| node.kill());
            last().await;
            for node in nodes {
                world.start(node).await?;
            }
        }
        FaultKind::Pause => {
            nodes.iter().try_for_each(|node| node.stand_still())?;
            last().await;
            nodes.iter().try_for_each(|node| node.go_on())?;
        }
        FaultKind::DiskFull => {
            nodes.iter().try_for_each(|node| node.limit_files(Some(0)))?;
            last().await;
            for node in nodes {
                world.restart(node, None).await?;
            }
        }
        FaultKind::Clock { clock } => {
            let offset_ms = match clock {
                Clock::Ahead(by) => (by.0 / 1_000) as i64,
                Clock::Behind(by) => -((by.0 / 1_000) as i64),
                _ => 0,
            };
            for node in nodes {
                world.set_clock(node, offset_ms).await?;
            }
            last().await;
            for node in nodes {
                world.set_clock(node, 0).await?;
            }
        }
        FaultKind::Restore { .. } => {
            nodes.iter().for_each(|node| node.kill());
            last().await;
            for node in nodes {
                world.restore(node).await?;
            }
        }
        FaultKind::Wipe => {
            for node in nodes {
                world.wipe(node).await?;
            }
        }
        FaultKind::Leave => {
            for node in nodes {
                world.remove(node).await?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use starling_sim::scenario::builtin;

    use super::*;

    #[test]
    fn what_real_processes_cannot_have_is_refused_by_name() {
        let refused = |text: &str| check(&Scenario::read(text).expect("a scenario"));
        assert_eq!(refused(include_str!("../scenarios/rough-day.toml")), Ok(()));
        for (name, why) in [("slow-nodes", "slow"), ("rejoin-after-days", "leap"), ("bulk-load", "bulk loads")] {
            let found = refused(builtin(name).expect("it comes along"));
            assert!(found.as_ref().is_err_and(|found| found.contains(why)), "{name}: {found:?}");
        }
        for name in ["partition-heal", "flapping", "crash-storm", "bursty-loss", "hot-key"] {
            assert_eq!(refused(builtin(name).expect("it comes along")), Ok(()), "{name}");
        }
    }
}
