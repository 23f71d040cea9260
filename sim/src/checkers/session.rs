//! Whoever holds a bookmark reads what it stands for, and every node reads its own writes.

use std::collections::BTreeMap;

use starling::replica::{Dot, Key, Marker};

use super::{Checker, Scene, Verdict, is_deleted};

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
        if scene.liars.hearsay || scene.liars.is(dot.origin.node) {
            return Ok(());
        }
        let Some(write) = scene.ledger.get(dot) else { return Err(format!("{dot} was accepted and never made")) };
        match scene.holds(scene.hosts[host].image(), write) {
            true => Ok(()),
            false => Err(format!("host {host} covers the bookmark {dot} and reads an older value of {key:?}")),
        }
    }

    fn visited(&mut self, scene: &Scene, host: usize, seen: &BTreeMap<Key, Marker>) -> Verdict {
        // A directory that was put back forgets what it had told everyone that it has.
        if !scene.ledger.forgetful.is_empty() {
            return Ok(());
        }
        let image = scene.hosts[host].image();
        let is_less = |(key, seen): &(&Key, &Marker)| {
            image.entry(key).is_none_or(|entry| entry.marker() < **seen) && !is_deleted(image, key)
        };
        match seen.iter().find(is_less) {
            None => Ok(()),
            Some((key, seen)) => {
                let shown = image.entry(key).map(|entry| entry.marker());
                Err(format!("host {host} covers a bookmark and shows {shown:?} of {key:?} to who has seen {seen:?}"))
            }
        }
    }
}
