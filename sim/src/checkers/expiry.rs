//! Nobody gives up the bytes of a value before it has expired.

use starling::replica::{Edits, Value};

use super::{Checker, Scene, Verdict};
use crate::clocks::EPOCH_MS;

/// Needs to remember nothing.
pub(super) struct KeptUntilExpired;

impl Checker for KeptUntilExpired {
    fn name(&self) -> &'static str {
        "expiry"
    }

    fn committed(&mut self, scene: &Scene, host: usize, changes: &Edits) -> Verdict {
        let mut dropped =
            changes.puts.iter().filter(|(_, entry)| matches!(entry.content().value, Value::Dropped(_))).peekable();
        // A clock that is wrong may call a value expired, and what it has dropped spreads.
        if dropped.peek().is_none() || scene.hosts.iter().any(|host| host.clock_was_wrong) {
            return Ok(());
        }
        let true_ms = EPOCH_MS + scene.now_us / 1_000;
        for (key, entry) in dropped {
            let expire_ms = entry.content().expire_ms;
            if expire_ms > true_ms {
                return Err(format!("host {host} dropped {key:?} {} ms before it expires", expire_ms - true_ms));
            }
        }
        Ok(())
    }
}
