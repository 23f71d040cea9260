//! Evictions only ever grow: whoever holds one does not count the node as a member. And in the end an evicted node that
//! runs has heard of it.

use starling::replica::{NamespaceId, NodeId};

use super::{Checker, Scene, Verdict};

/// Needs to remember nothing.
pub(super) struct EvictionsStay;

impl Checker for EvictionsStay {
    fn name(&self) -> &'static str {
        "evictions"
    }

    fn inspect(&mut self, scene: &Scene) -> Verdict {
        if scene.hosts.len() > 64 {
            return Ok(());
        }
        for (host, this) in scene.hosts.iter().enumerate() {
            let Some(replica) = this.replica.as_ref().filter(|_| !this.is_committing()) else { continue };
            let evicted = this.image().entries().filter(|(key, _)| key.namespace() == NamespaceId::EVICTED);
            let evicted =
                evicted.filter_map(|(key, _)| Some(NodeId(u64::from_be_bytes(key.name()[..].try_into().ok()?))));
            for node in evicted {
                if !replica.roster().is_evicted(node) || replica.roster().members().any(|(member, _)| member == node) {
                    return Err(format!("host {host} holds the eviction of {node} and counts it as a member"));
                }
            }
        }
        Ok(())
    }

    fn at_rest(&mut self, scene: &Scene) -> Verdict {
        let running =
            || scene.hosts.iter().enumerate().filter_map(|(host, this)| Some((host, this, this.replica.as_ref()?)));
        for (host, this, _) in running() {
            if let Some((other, ..)) = running().find(|(_, _, replica)| replica.roster().is_evicted(this.node)) {
                return Err(format!("host {host} goes on, and host {other} knows that it is evicted"));
            }
        }
        Ok(())
    }
}
