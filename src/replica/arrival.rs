//! Writes of others as they become visible here, for whoever measures how long they took. Nothing in the protocol
//! depends on it.

use super::Replica;
use super::clock::Timestamp;
use super::dot::NodeId;
use super::entry::Entry;
use super::limits::ARRIVALS_MAX;
use super::store::Store;

/// A write of another node that was applied in this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who made it.
    pub origin: NodeId,
    /// When it was committed there, by the clock there.
    pub stamp: Timestamp,
    /// That clock minus ours in milliseconds, where it was measured.
    pub offset_ms: Option<i64>,
}

impl<S: Store> Replica<S> {
    pub(super) fn note_arrival(&mut self, entry: &Entry) {
        let origin = entry.dot.origin.node;
        if origin != self.config.node && self.arrivals.len() < ARRIVALS_MAX {
            let offset_ms = self.peers.get(&origin).and_then(|peer| peer.offset_ms);
            self.arrivals.push(Arrival { origin, stamp: entry.stamp, offset_ms });
        }
    }

    /// What has arrived since this was last asked. Beyond [`ARRIVALS_MAX`] they are not noted.
    pub fn take_arrivals(&mut self) -> Vec<Arrival> {
        std::mem::take(&mut self.arrivals)
    }
}
