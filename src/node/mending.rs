//! What could not be read when the store was gone through at the start is asked of other nodes, without waiting for
//! someone to read it: it may be who the members are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::handle::Handle;
use crate::replica::{Damage, Key, Reply, Request};

/// The first pause between two rounds; each is twice as long as the one before, up to the longest.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Goes on until every key is mended. `unmended` says how many are not.
pub(super) async fn mend(handle: Handle, mut keys: Vec<Key>, unmended: Arc<AtomicUsize>) {
    let (count, mut pause) = (keys.len(), PAUSE);
    while !keys.is_empty() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        let mut left = Vec::new();
        for key in keys {
            match handle.call(Request::Repair(Damage::Entry(key.clone()))).await {
                Ok(Reply::Done) => {}
                Ok(_) => left.push(key),
                Err(_) => return,
            }
        }
        keys = left;
        unmended.store(keys.len(), Ordering::Relaxed);
    }
    if count > 0 {
        tracing::warn!(count, "entries that could not be read are mended: the disk fails, replace it or join anew");
    }
}
