//! What was deleted or has expired never comes back: once a node has held a deletion, an expired value or the deletion
//! of a namespace, it never again shows what that dominates, whatever it has removed in between.

use std::collections::BTreeMap;

use starling::replica::{Edits, Key, Marker};

use super::{Checker, Scene, Verdict, is_deleted};
use crate::clocks::EPOCH_MS;

/// Per host and key, the highest marker of something that is dead for good.
#[derive(Default)]
pub(super) struct Resurrection {
    graves: Vec<BTreeMap<Key, Marker>>,
}

impl Resurrection {
    fn bury(&mut self, host: usize, key: &Key, marker: Marker) {
        let grave = self.graves[host].entry(key.clone()).or_insert(marker);
        *grave = marker.max(*grave);
    }
}

impl Checker for Resurrection {
    fn name(&self) -> &'static str {
        "resurrection"
    }

    fn started(&mut self, scene: &Scene, host: usize) -> Verdict {
        self.graves.resize_with(scene.hosts.len().max(self.graves.len()), BTreeMap::new);
        // A directory may have been put back, or lost what was not synced: it is judged by what it holds now.
        self.graves[host].clear();
        let true_ms = EPOCH_MS + scene.now_us / 1_000;
        for (key, entry) in scene.hosts[host].image().entries() {
            if !entry.is_visible(true_ms) {
                self.bury(host, key, entry.marker());
            }
        }
        Ok(())
    }

    fn committed(&mut self, scene: &Scene, host: usize, changes: &Edits) -> Verdict {
        let true_ms = EPOCH_MS + scene.now_us / 1_000;
        let image = scene.hosts[host].image();
        for (key, entry) in &changes.puts {
            if let Some(grave) = self.graves[host].get(key)
                && entry.marker() < *grave
            {
                return Err(format!("host {host}: {key:?} is back from before {grave:?}: {:?}", entry.marker()));
            }
            let is_held = image.entry(key).is_some_and(|held| held.dot == entry.dot);
            // A turn may both hold an entry and learn that its namespace is gone; sweeping it takes turns.
            let was_deleted =
                is_deleted(image, key) && !changes.puts.iter().any(|(other, _)| other.name()[..] == key.namespace().0);
            if is_held && was_deleted {
                return Err(format!("host {host} holds {key:?} anew, in a namespace that is deleted"));
            }
            if !entry.is_visible(true_ms) {
                self.bury(host, key, entry.marker());
            }
        }
        Ok(())
    }

    fn inspect(&mut self, scene: &Scene) -> Verdict {
        let true_ms = EPOCH_MS + scene.now_us / 1_000;
        if scene.hosts.len() > 16 {
            return Ok(());
        }
        for (host, this) in scene.hosts.iter().enumerate().filter(|(_, this)| this.is_up()) {
            let expired = this.image().entries().filter(|(_, entry)| entry.content().expire_ms != 0);
            for (key, entry) in expired.filter(|(_, entry)| !entry.is_visible(true_ms)) {
                self.bury(host, key, entry.marker());
            }
        }
        Ok(())
    }

    fn at_rest(&mut self, scene: &Scene) -> Verdict {
        for (host, this) in scene.hosts.iter().enumerate().filter(|(_, this)| this.is_up()) {
            let image = this.image();
            for (key, entry) in image.entries() {
                if is_deleted(image, key) {
                    return Err(format!("host {host} still holds {key:?} of a namespace that is deleted"));
                }
                let grave = self.graves[host].get(key);
                if grave.is_some_and(|grave| entry.marker() < *grave) {
                    return Err(format!("host {host}: {key:?} is back from before {grave:?}"));
                }
            }
        }
        Ok(())
    }
}
