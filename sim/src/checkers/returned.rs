//! A node that comes back after an eviction issues again what it wrote, with the markers of that time, and nothing else:
//! what it had on disk is held or dominated in the end, everywhere, as if it had only been late.

use std::collections::BTreeSet;

use starling::replica::{Dot, Edits, Key, Marker, NodeId, own_writes};

use super::{Checker, Scene, Verdict, is_deleted};
use crate::host::Host;

/// Needs to remember nothing.
pub(super) struct OwnWritesReturn;

fn formers(host: &Host) -> BTreeSet<NodeId> {
    host.formers.iter().map(|former| former.node).collect()
}

impl Checker for OwnWritesReturn {
    fn name(&self) -> &'static str {
        "returned"
    }

    fn committed(&mut self, scene: &Scene, host: usize, changes: &Edits) -> Verdict {
        let this = &scene.hosts[host];
        let made_here = changes.puts.iter().filter(|(_, entry)| entry.dot.origin.node == this.node);
        for (key, entry) in made_here.filter(|(_, entry)| entry.marker().origin.node != this.node) {
            if !formers(this).contains(&entry.marker().origin.node) {
                let (dot, marker) = (entry.dot, entry.marker());
                return Err(format!("host {host} issued {key:?} of {marker:?}, which is not its own, as {dot}"));
            }
        }
        Ok(())
    }

    fn reissued(&mut self, scene: &Scene, host: usize, key: &Key, marker: Marker, dot: Dot) -> Verdict {
        match scene.ledger.get(dot) {
            Some(write) if (&write.key, write.marker) == (key, marker) => Ok(()),
            write => Err(format!("host {host} issued {key:?} of {marker:?} again as {dot}: {write:?}")),
        }
    }

    fn at_rest(&mut self, scene: &Scene) -> Verdict {
        let Some(held) = scene.hosts.iter().find(|host| host.is_up()).map(Host::image) else { return Ok(()) };
        for (host, this) in scene.hosts.iter().enumerate().filter(|(_, this)| !this.gone) {
            for former in &this.formers {
                if !former.settled {
                    return Err(format!("host {host} has not issued all again that it wrote as {}", former.node));
                }
                // Memory does not fail.
                let own = own_writes(&former.store, former.node, None, usize::MAX).unwrap_or_default();
                let is_lost = |(key, marker): &(&Key, Marker)| {
                    held.entry(key).is_none_or(|entry| entry.marker() < *marker) && !is_deleted(held, key)
                };
                let lost = own.writes.iter().map(|(key, entry)| (key, entry.marker())).find(is_lost);
                if let Some((key, marker)) = lost {
                    return Err(format!(
                        "host {host} wrote {key:?} of {marker:?} as {}, and it is lost, {} of others held",
                        former.node,
                        held.entries().count()
                    ));
                }
            }
        }
        Ok(())
    }
}
