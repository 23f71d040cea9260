//! Backups of this node: one at a time, kept for whoever takes it until it is told that it arrived, or until nobody has
//! asked for it for a while.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Operator, OperatorError};
use crate::backup::{Pieces, Taking};
use crate::kv::Kv;

/// How long a backup of which nothing is asked is kept: what it sees can't be reclaimed on the disk.
const KEPT: Duration = Duration::from_secs(600);
const LOOK_PERIOD: Duration = Duration::from_secs(10);

/// The backup of a desk, if there is one.
#[derive(Default)]
pub(super) struct Slot {
    taking: Option<Arc<Taking>>,
    /// Wall-clock time when something was last asked of it.
    used: Duration,
}

impl Slot {
    /// Whether someone is being sent pieces of it.
    fn is_busy(&self) -> bool {
        self.taking.as_ref().is_some_and(|taking| Arc::strong_count(taking) > 1)
    }
}

/// Why a backup can't be had.
#[derive(Debug, thiserror::Error)]
pub enum BackupRefusal {
    /// Another one is under way.
    #[error("Another backup of this node is being taken: wait for it, or take one of another node.")]
    Busy,
    /// It is not there any more, or never was.
    #[error(
        "This node does not hold that backup any more: it was restarted, or nothing was asked for too long. Begin anew."
    )]
    Gone,
    /// The node can't.
    #[error("{0}")]
    Failed(String),
}

impl Operator {
    /// Begins a backup of what this node holds now. Gives its number, and about how many bytes it will have.
    pub async fn begin_backup(&self, kv: &Kv) -> Result<Value, BackupRefusal> {
        let desk = &self.0;
        if desk.backup.lock().unwrap_or_else(PoisonError::into_inner).is_busy() {
            return Err(BackupRefusal::Busy);
        }
        let reader = desk.handle.reader();
        // In this order: keys that were made meanwhile do no harm, keys that are missing would.
        let dump = reader.dump();
        let (belongings, lock) = desk.keys.belongings(&desk.name).await;
        let taking = Arc::new(Taking::begin(kv.random_id(), lock, dump, belongings));
        let number = hex(&taking.number());
        let (used, sought) = (desk.handle.clock().wall(), taking.number());
        *desk.backup.lock().unwrap_or_else(PoisonError::into_inner) = Slot { taking: Some(taking), used };
        let weak = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK_PERIOD).await;
                let Some(desk) = weak.upgrade() else { return };
                let now = desk.handle.clock().wall();
                let mut slot = desk.backup.lock().unwrap_or_else(PoisonError::into_inner);
                match &slot.taking {
                    Some(taking) if taking.number() == sought => {}
                    _ => return,
                }
                if slot.is_busy() {
                    slot.used = now;
                } else if now.saturating_sub(slot.used) > KEPT {
                    tracing::info!("a backup was given up: nobody asked for more of it");
                    *slot = Slot::default();
                    return;
                }
            }
        });
        Ok(json!({ "backup": number, "bytes": reader.disk_bytes() }))
    }

    /// What of a backup follows its first `held` pieces.
    pub fn backup_pieces(&self, number: &str, held: u64) -> Result<Pieces, BackupRefusal> {
        let mut slot = self.0.backup.lock().unwrap_or_else(PoisonError::into_inner);
        let taking =
            slot.taking.as_ref().filter(|taking| hex(&taking.number()) == number).ok_or(BackupRefusal::Gone)?;
        let pieces = taking.pieces(held).map_err(|error| BackupRefusal::Failed(error.to_string()))?;
        slot.used = self.0.handle.clock().wall();
        Ok(pieces)
    }

    /// A backup has arrived whole, or is not wanted any more.
    pub fn end_backup(&self, number: &str) -> Result<(), BackupRefusal> {
        let mut slot = self.0.backup.lock().unwrap_or_else(PoisonError::into_inner);
        slot.taking.take_if(|taking| hex(&taking.number()) == number).map(drop).ok_or(BackupRefusal::Gone)
    }
}

impl From<BackupRefusal> for OperatorError {
    fn from(refusal: BackupRefusal) -> Self {
        Self(refusal.to_string())
    }
}

fn hex(number: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*number))
}
