//! Writes that are held although no version vector speaks of them.
//!
//! What a member says of another's writes is believed of the entry, not of its dot: while its writer is connected here
//! and has not told of it, the dot does not count as seen, or a liar could have a true write taken for known. But the
//! entry is held, and may dominate what the version vector does claim. So a session has to send it, also where the
//! version vector lacks its origin altogether: for this reason, or because it holds as many origins as it may. These are
//! such origins.

use std::collections::BTreeSet;

use super::dot::{Dot, Origin};
use super::fold::Versions;
use super::limits::UNTOLD_ORIGINS_MAX;
use super::store::{Store, StoreError};
use super::{Replica, Sabotage};

/// Origins of entries that are held, of which the version vector may know nothing.
#[derive(Default)]
pub(super) struct Untold(BTreeSet<Origin>);

impl Untold {
    /// Those that a restart finds.
    pub(super) fn recover(store: &impl Store, versions: &Versions) -> Result<Self, StoreError> {
        let mut untold = Self(store.origins()?.into_iter().collect());
        untold.tidy(store, versions)?;
        Ok(untold)
    }

    /// Forgets those that are in the version vector by now, or folded.
    fn tidy(&mut self, store: &impl Store, versions: &Versions) -> Result<(), StoreError> {
        let mut told = Vec::new();
        for origin in &self.0 {
            if versions.active().get(*origin).is_some() || store.folded(*origin)?.is_some() {
                told.push(*origin);
            }
        }
        told.iter().for_each(|origin| _ = self.0.remove(origin));
        Ok(())
    }
}

impl<S: Store> Replica<S> {
    /// Counts a dot as seen, unless it is of a life that this process or a peer lives, who knows best what it has written
    /// and has not told of it. If it is true, it is told of presently; if not, no version vector should speak of it.
    pub(super) fn see(&mut self, dot: Dot) -> Result<(), StoreError> {
        if self.is_untold(dot) {
            self.count("untold_writes");
            if self.config.sabotage != Sabotage::HideUntold {
                self.untold.0.insert(dot.origin);
            }
            return Ok(());
        }
        self.versions.insert(&mut self.store, dot)?;
        if self.versions.is_full_for(dot.origin) && self.untold.0.len() < UNTOLD_ORIGINS_MAX {
            self.untold.0.insert(dot.origin);
        }
        Ok(())
    }

    fn is_untold(&self, dot: Dot) -> bool {
        let Dot { origin, seq } = dot;
        let is_own = self.life.is_some_and(|life| life.origin == origin && seq > life.last);
        let is_untold = self.peers.contains_key(&origin.node)
            && self.acquaintances.get(origin.node).is_some_and(|known| known.life == Some(origin) && seq > known.told);
        (is_own || is_untold) && self.config.sabotage != Sabotage::TrustClaims
    }

    /// Whether a write would not be sent on if it were held: there are too many of its kind. Its writer will tell of it.
    pub(super) fn has_no_room_for(&self, dot: Dot) -> bool {
        let is_one_more = self.untold.0.len() >= UNTOLD_ORIGINS_MAX && !self.untold.0.contains(&dot.origin);
        is_one_more && self.is_untold(dot)
    }

    /// Origins that the version vector lacks and of which entries are held.
    pub(super) fn untold_origins(&mut self) -> Result<BTreeSet<Origin>, StoreError> {
        self.untold.tidy(&self.store, &self.versions)?;
        Ok(self.untold.0.clone())
    }
}
