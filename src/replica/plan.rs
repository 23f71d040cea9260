//! What a sync session still has to send: runs of dots, looked up in a snapshot a few at a time.

use std::collections::VecDeque;

use super::Sabotage;
use super::dot::{Dot, Origin};
use super::entry::Record;
use super::limits::{Bounds, SYNC_SCAN_MAX};
use super::store::{Snapshot, StoreError};

/// What finding the first of some writes costs, in as many more.
const READS_PER_SEEK: usize = 8;

/// Runs of dots still to scan, in order: an origin, with the first and the last of its writes.
pub(super) struct Plan(pub(super) VecDeque<(Origin, u64, u64)>);

impl Plan {
    /// The next records, and how far that goes, or `None` when there are no more. May be empty, so that a scan over
    /// holes stays short.
    pub(super) fn next_chunk(
        &mut self,
        snapshot: &impl Snapshot,
        bounds: &Bounds,
        sabotage: Sabotage,
    ) -> Result<Option<(Vec<Record>, Dot)>, StoreError> {
        let mut records = Vec::new();
        let mut upto = None;
        let (mut bytes, mut reads) = (0, 0);
        while bytes < bounds.batch_len && reads < SYNC_SCAN_MAX {
            let Some((origin, first, last)) = self.0.front().copied() else { break };
            let found = snapshot.written_by(origin, first, last, bounds.session_reads)?;
            reads += READS_PER_SEEK + found.examined;
            let is_hasty = sabotage == Sabotage::HastyScan && found.writes.len() < bounds.session_reads;
            let mut scanned = if is_hasty { last } else { found.upto };
            for (seq, key, entry) in found.writes {
                let record = entry.to_record(&key);
                bytes += record.body.len() + key.as_bytes().len();
                records.push(record);
                if bytes >= bounds.batch_len {
                    scanned = seq;
                    break;
                }
            }
            upto = Some(origin.dot(scanned));
            if scanned >= last {
                self.0.pop_front();
            } else if let Some(run) = self.0.front_mut() {
                run.1 = scanned + 1;
            }
        }
        Ok(upto.map(|upto| (records, upto)))
    }
}
