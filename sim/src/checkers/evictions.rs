//! Evictions only ever grow: whoever holds one does not count the node as a member.

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
}
