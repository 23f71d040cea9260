//! An acknowledged write is on disk where its client was told it is, and is present or dominated in the end, unless
//! more directories were lost than its level allows for.

use std::collections::{BTreeMap, BTreeSet};

use starling::replica::{Dot, Key, Marker, NodeId};

use super::{Checker, Scene, Verdict};

/// Every write that was accepted, with the nodes that are said to have it on disk.
#[derive(Default)]
pub(super) struct Acknowledged {
    writes: BTreeMap<Dot, Promise>,
    /// Directories put back, cloned or destroyed since the write: they may have lost it.
    disturbances: Vec<(u64, NodeId)>,
}

struct Promise {
    accepted_us: u64,
    holders: BTreeSet<NodeId>,
}

fn on_disk(scene: &Scene, host: usize, dot: Dot) -> bool {
    let image = scene.hosts[host].durable_image();
    scene.ledger.get(dot).is_some_and(|write| scene.holds(image, write))
}

impl Checker for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged"
    }

    fn disturbed(&mut self, scene: &Scene, host: usize) -> Verdict {
        self.disturbances.push((scene.now_us, scene.hosts[host].node));
        Ok(())
    }

    fn accepted(&mut self, scene: &Scene, host: usize, key: &Key, dot: Dot, _marker: Marker) -> Verdict {
        if !on_disk(scene, host, dot) {
            return Err(format!("host {host} accepted {dot} of {key:?} before it was on its disk"));
        }
        let holders = BTreeSet::from([scene.hosts[host].node]);
        self.writes.insert(dot, Promise { accepted_us: scene.now_us, holders });
        Ok(())
    }

    fn acknowledged(&mut self, scene: &Scene, _host: usize, key: &Key, dot: Dot, nodes: &[NodeId]) -> Verdict {
        let accepted_us = self.writes.get(&dot).map_or(0, |promise| promise.accepted_us);
        for node in nodes.iter().filter(|node| !scene.liars.hearsay && !scene.liars.is(**node)) {
            let is_disturbed = self.disturbances.iter().any(|(at_us, other)| other == node && *at_us >= accepted_us);
            let mut hosts = (0..scene.hosts.len()).filter(|host| scene.hosts[*host].node == *node);
            if !is_disturbed && !hosts.any(|host| on_disk(scene, host, dot)) {
                return Err(format!("node {node} is said to have {dot} of {key:?} on disk, and has not"));
            }
        }
        let distinct: BTreeSet<NodeId> = nodes.iter().copied().collect();
        if distinct.len() != nodes.len() {
            return Err(format!("an acknowledgement of {dot} counts a node twice: {nodes:?}"));
        }
        if let Some(promise) = self.writes.get_mut(&dot) {
            promise.holders.extend(distinct);
        }
        Ok(())
    }

    fn at_rest(&mut self, scene: &Scene) -> Verdict {
        let is_asked = |this: &&crate::host::Host| this.is_up() && !scene.liars.is(this.node);
        let Some((host, this)) = scene.hosts.iter().enumerate().find(|(_, this)| is_asked(this)) else { return Ok(()) };
        for (dot, promise) in &self.writes {
            // A node that has left drained before, to one other: it counts until another directory is lost.
            let is_gone = |node: &NodeId| scene.hosts.iter().all(|host| host.node != *node || host.gone);
            let is_lost = |node: &NodeId| {
                scene.liars.is(*node)
                    || (is_gone(node) && !self.disturbances.is_empty())
                    || self.disturbances.iter().any(|(at_us, other)| other == node && *at_us >= promise.accepted_us)
            };
            if promise.holders.iter().all(is_lost) {
                continue;
            }
            let Some(write) = scene.ledger.get(*dot) else { return Err(format!("{dot} was accepted and never made")) };
            if !scene.holds(this.image(), write) {
                return Err(format!(
                    "{dot} of {:?}, acknowledged, is neither held nor dominated at host {host}",
                    write.key
                ));
            }
        }
        Ok(())
    }
}
