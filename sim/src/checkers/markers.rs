//! At each node, the marker of a key never goes back while its directory is left alone.

use std::collections::BTreeMap;

use starling::replica::{Dot, Edits, Key, Marker};

use super::{Checker, Scene, Verdict, is_deleted};

/// The marker of each key at each host.
#[derive(Default)]
pub(super) struct MarkersRise {
    held: Vec<BTreeMap<Key, (Marker, Dot)>>,
}

impl Checker for MarkersRise {
    fn name(&self) -> &'static str {
        "markers"
    }

    fn started(&mut self, scene: &Scene, host: usize) -> Verdict {
        self.held.resize_with(scene.hosts.len().max(self.held.len()), BTreeMap::new);
        self.held[host] = scene.hosts[host]
            .image()
            .entries()
            .map(|(key, entry)| (key.clone(), (entry.marker(), entry.dot)))
            .collect();
        Ok(())
    }

    fn committed(&mut self, scene: &Scene, host: usize, changes: &Edits) -> Verdict {
        for (key, entry) in &changes.puts {
            let now = (entry.marker(), entry.dot);
            match self.held[host].get_mut(key) {
                Some(before) => {
                    // Of a write that was issued again either dot may come first.
                    let was_reissued = |(marker, dot): &(Marker, Dot)| marker.origin != dot.origin;
                    let is_other = now.0 == before.0 && now.1 != before.1 && !scene.liars.any();
                    let is_back = now.0 < before.0 || (is_other && !was_reissued(&now) && !was_reissued(before));
                    if is_back {
                        return Err(format!("host {host} held {before:?} under {key:?} and then {now:?}"));
                    }
                    *before = now;
                }
                None => _ = self.held[host].insert(key.clone(), now),
            }
        }
        let image = scene.hosts[host].image();
        match changes.removed.iter().find(|key| image.entry(key).is_none() && !is_deleted(image, key)) {
            Some(key) => Err(format!("host {host} forgot {key:?}, whose namespace is not deleted")),
            None => Ok(()),
        }
    }
}
