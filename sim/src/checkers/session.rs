//! Whoever holds a bookmark reads what it stands for, and every node reads its own writes.

use starling::replica::{Dot, Key, Marker};

use super::{Checker, Scene, Verdict};

/// Needs to remember nothing.
pub(super) struct ReadYourWrites;

impl Checker for ReadYourWrites {
    fn name(&self) -> &'static str {
        "read-your-writes"
    }

    fn accepted(&mut self, scene: &Scene, host: usize, key: &Key, dot: Dot, _marker: Marker) -> Verdict {
        self.read(scene, host, key, dot)
    }

    fn read(&mut self, scene: &Scene, host: usize, key: &Key, dot: Dot) -> Verdict {
        let Some(write) = scene.ledger.get(dot) else { return Err(format!("{dot} was accepted and never made")) };
        match scene.holds(scene.hosts[host].image(), write) {
            true => Ok(()),
            false => Err(format!("host {host} covers the bookmark {dot} and reads an older value of {key:?}")),
        }
    }
}
