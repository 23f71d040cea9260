//! When all is over all replicas are equal: entries, digests and version vectors, each also counted anew from what is
//! stored; and each key holds the write with the highest marker of all that anyone held.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use starling::replica::{Digest, Entry, Key, Marker, VersionVector};

use super::{Checker, Scene, Verdict, is_deleted};

/// What the nodes held when the faults ended: the least that must be there in the end.
#[derive(Default)]
pub(super) struct Converged {
    held: Vec<(usize, BTreeMap<Key, Marker>)>,
}

impl Checker for Converged {
    fn name(&self) -> &'static str {
        "converged"
    }

    fn healed(&mut self, scene: &Scene) -> Verdict {
        let held = |host: &crate::host::Host| {
            host.image().entries().map(|(key, entry)| (key.clone(), entry.marker())).collect()
        };
        let is_asked = |host: usize| scene.hosts[host].is_up() && !scene.liars.is(scene.hosts[host].node);
        self.held = scene.hosts.iter().map(held).enumerate().filter(|(host, _)| is_asked(*host)).collect();
        Ok(())
    }

    fn at_rest(&mut self, scene: &Scene) -> Verdict {
        let mut up =
            scene.hosts.iter().enumerate().filter_map(|(host, this)| Some((host, this, this.replica.as_ref()?)));
        let Some((first, reference, model)) = up.next() else { return Ok(()) };
        let image = reference.image();
        let mut digest = Digest::default();
        image.entries().for_each(|(key, entry)| digest.add(key, entry.hash));
        if digest.sum() != model.digest() {
            return Err(format!("host {first}: the digest kept is not the digest of what is held"));
        }
        let versions: VersionVector = image.versions();
        if versions.hash() != model.version_hash() {
            return Err(format!("host {first}: the hash kept is not the hash of the version vector stored"));
        }
        for (host, this, replica) in up {
            // Expired values are dropped when their node gets to it: the record's hash stays.
            let what = |(key, entry): (&Key, &Entry)| (key.clone(), entry.dot, entry.marker(), entry.hash);
            if !this.image().entries().map(what).eq(image.entries().map(what)) {
                let mut pairs = image.entries().map(what).zip(this.image().entries().map(what));
                let differing = pairs.find(|(a, b)| a != b).map(|(a, _)| a.0);
                return Err(format!("hosts {first} and {host} hold different things: {differing:?}"));
            }
            if replica.digest() != model.digest() || replica.version_hash() != model.version_hash() {
                return Err(format!("hosts {first} and {host} hold the same and do not know it"));
            }
            if this.image().versions() != versions {
                return Err(format!("hosts {first} and {host} have not seen the same writes"));
            }
        }
        // The oracle: of all writes that were held when the faults ended or that anyone has seen, the one with the
        // highest marker.
        let mut oracle: BTreeMap<Key, Marker> = BTreeMap::new();
        // Who has left since then had drained before, or is known to have lost what it alone had.
        let stayed = self.held.iter().filter(|(host, _)| scene.hosts[*host].is_up());
        for (key, marker) in stayed.flat_map(|(_, held)| held) {
            let best = oracle.entry(key.clone()).or_insert(*marker);
            *best = (*marker).max(*best);
        }
        let is_counted =
            |write: &&super::Written| versions.contains(write.dot) && !scene.liars.is(write.dot.origin.node);
        for write in scene.ledger.writes().filter(is_counted) {
            let best = oracle.entry(write.key.clone()).or_insert(write.marker);
            *best = write.marker.max(*best);
        }
        for (key, marker) in &oracle {
            let held = image.entry(key);
            // Over the bound of intervals a write may be held and its dot forgotten.
            let is_better = |dot: starling::replica::Dot| {
                scene.liars.any() || !versions.contains(dot) && scene.ledger.get(dot).is_some()
            };
            let is_right = held.is_some_and(|held| match held.marker().cmp(marker) {
                Ordering::Less => false,
                Ordering::Equal => true,
                Ordering::Greater => is_better(held.dot),
            });
            if !is_right && !is_deleted(image, key) {
                let held = held.map(|entry| entry.marker());
                return Err(format!("{key:?} should hold {marker:?} and holds {held:?} everywhere"));
            }
        }
        let is_nobodys = |entry: &Entry| scene.ledger.get(entry.dot).is_none() && !scene.liars.any();
        match image.entries().find(|(_, entry)| is_nobodys(entry)) {
            Some((key, _)) => Err(format!("everyone holds {key:?}, which nobody wrote")),
            None => Ok(()),
        }
    }
}
