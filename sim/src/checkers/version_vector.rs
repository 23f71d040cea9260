//! The version-vector invariant: for every dot that a node claims to have seen, it holds that write, or something that
//! dominates it.

use std::collections::BTreeMap;

use starling::replica::{Edits, Image, Origin};

use super::{Checker, Scene, Verdict};

/// Per host, how far the gapless prefix of each origin has been checked. What was held stays dominated (another checker
/// sees to that), so it need not be looked at twice.
#[derive(Default)]
pub(super) struct VersionVectorInvariant {
    checked: Vec<BTreeMap<Origin, u64>>,
}

impl VersionVectorInvariant {
    fn check(&mut self, scene: &Scene, host: usize, image: &Image, origin: Origin) -> Verdict {
        if scene.liars.is(origin.node) {
            return Ok(());
        }
        let checked = self.checked[host].entry(origin).or_default();
        let seen = |seq: u64| image.has_seen(origin.dot(seq));
        let mut is_gapless = true;
        for write in scene.ledger.of_origin(origin, *checked + 1, u64::MAX) {
            let seq = write.dot.seq;
            if !seen(seq) {
                is_gapless = false;
                continue;
            }
            if !scene.holds(image, write) {
                return Err(format!(
                    "host {host} claims to have seen {} and holds {:?} at {:?}, not at {:?} or later",
                    write.dot,
                    write.key,
                    image.entry(&write.key).map(|entry| entry.marker()),
                    write.marker
                ));
            }
            if is_gapless && seq == *checked + 1 {
                *checked = seq;
            }
        }
        Ok(())
    }
}

impl Checker for VersionVectorInvariant {
    fn name(&self) -> &'static str {
        "version-vector"
    }

    fn started(&mut self, scene: &Scene, host: usize) -> Verdict {
        self.checked.resize_with(scene.hosts.len().max(self.checked.len()), BTreeMap::new);
        self.checked[host].clear();
        if scene.liars.hearsay {
            return Ok(());
        }
        let image = scene.hosts[host].image();
        scene.ledger.origins().try_for_each(|origin| self.check(scene, host, image, origin))
    }

    fn committed(&mut self, scene: &Scene, host: usize, changes: &Edits) -> Verdict {
        if scene.liars.hearsay {
            return Ok(());
        }
        let image = scene.hosts[host].image();
        changes.seen.iter().try_for_each(|origin| self.check(scene, host, image, *origin))
    }

    fn at_rest(&mut self, scene: &Scene) -> Verdict {
        for (host, this) in scene.hosts.iter().enumerate().filter(|(_, this)| this.is_up()) {
            self.checked[host].clear();
            let image = this.image();
            scene.ledger.origins().try_for_each(|origin| self.check(scene, host, image, origin))?;
        }
        Ok(())
    }
}
