//! Looking through the data directory of a node that does not run.

use std::sync::Arc;

use super::clock::MachineClock;
use super::membership::Membership;
use super::start::{STORE, StartError};
use crate::config::Config;
use crate::datadir::DataDir;
use crate::kv::{AeadSeal, Scrub, scrub};
use crate::replica::StoreError;
use crate::store::FjallStore;

/// Checks all that a start of the node would open, and then all that it holds. `progress` is told how many entries were
/// looked at.
pub fn scrub_stopped(config: &Config, clock: MachineClock, progress: &mut dyn FnMut(u64)) -> Result<Scrub, StartError> {
    let data = DataDir::open_existing(&config.data)?;
    let membership = Membership::load(config, &data, clock)?;
    let store = FjallStore::open(&data.join(STORE))?;
    let seal = AeadSeal::new(Arc::clone(&membership.keyring));
    let found = scrub(&store.reader(), &seal, progress);
    found.map_err(|error| StartError::Store(StoreError(error.to_string())))
}
