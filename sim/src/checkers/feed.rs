//! Whoever follows the change feed from node to node is given everything.

use std::collections::BTreeMap;

use starling::replica::{Key, Marker};

use super::{Checker, Scene, Verdict, is_deleted};

/// Needs to remember nothing. A directory that was put back may have forgotten what a position stands for.
pub(super) struct NothingIsMissed;

impl Checker for NothingIsMissed {
    fn name(&self) -> &'static str {
        "change-feed"
    }

    fn followed(
        &mut self,
        scene: &Scene,
        host: usize,
        claimed: &[(Key, Marker)],
        given: &BTreeMap<Key, Marker>,
    ) -> Verdict {
        if !scene.ledger.forgetful.is_empty() {
            return Ok(());
        }
        let is_missed = |(key, marker): &&(Key, Marker)| {
            given.get(key).is_none_or(|given| given < marker)
                && !scene.hosts.iter().any(|host| is_deleted(host.image(), key))
        };
        match claimed.iter().find(is_missed) {
            None => Ok(()),
            Some((key, marker)) => {
                let had = given.get(key);
                Err(format!("host {host} does not give {key:?} of {marker:?} to a follower who was given {had:?}"))
            }
        }
    }
}
