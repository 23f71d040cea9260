//! Going through all that a node holds: every entry must be what its hash says, every seal must open, every chunk of a
//! large value must be there and be the one that its record names.

use std::ops::ControlFlow;

use super::{Kv, KvError, Part, Seal, SealError};
use crate::replica::{BlobAddress, Damage, Entry, Key, RecordHash, Value as Stored};
use crate::store::Reader;

/// Damage that is told apart and mended. Beyond it, it is only counted.
const DAMAGE_MAX: usize = 10_000;

/// What going through it all has found.
#[derive(Debug, Default)]
pub struct Scrub {
    /// Entries looked at, tombstones included.
    pub entries: u64,
    /// Values and metadata whose seals were opened.
    pub seals: u64,
    /// Chunks of large values, likewise.
    pub chunks: u64,
    /// Sealed with a key that is not here: of namespaces that were deleted, until they are swept away.
    pub locked: u64,
    /// Entries and chunks that are not as they should be.
    pub damaged: u64,
    /// The first of them.
    pub damage: Vec<Damage>,
}

impl Scrub {
    fn note(&mut self, damage: Damage) {
        self.damaged += 1;
        if self.damage.len() < DAMAGE_MAX {
            self.damage.push(damage);
        }
    }

    fn opened(&mut self, opened: Result<bytes::Bytes, SealError>) -> bool {
        match opened {
            Ok(_) => self.seals += 1,
            Err(SealError::NoKey) => self.locked += 1,
            Err(_) => return false,
        }
        true
    }
}

/// Goes through all that `reader` reads. `progress` is told how many entries were looked at. What changes meanwhile is
/// looked at again before it counts as damaged.
pub fn scrub(reader: &Reader, seal: &dyn Seal, progress: &mut dyn FnMut(u64)) -> Result<Scrub, KvError> {
    let mut found = Scrub::default();
    let mut unreadable = Vec::new();
    let mut visit = |key: Key, entry: Entry| {
        found.entries += 1;
        progress(found.entries);
        if !is_whole(&key, &entry, seal, &mut found) {
            found.note(Damage::Entry(key));
        } else if let Some(blob) = entry.blob() {
            let address = BlobAddress::of(&key, blob.id);
            for (index, hash) in (0..).zip(&blob.chunks) {
                found.chunks += 1;
                let chunk = reader.chunk(address, index).ok().flatten();
                let is_good = chunk.filter(|chunk| blake3::hash(chunk).as_bytes() == hash).is_some_and(|chunk| {
                    matches!(seal.open(&key, Part::Chunk(blob.id, index), &chunk), Ok(_) | Err(SealError::NoKey))
                });
                if !is_good {
                    found.note(Damage::Chunk(key.clone(), blob.id, index));
                }
            }
        }
        ControlFlow::Continue(())
    };
    reader.visit_everything(&mut visit, &mut |key| {
        unreadable.push(key);
        ControlFlow::Continue(())
    })?;
    unreadable.into_iter().for_each(|key| found.note(Damage::Entry(key)));
    // A chunk may have gone because its value was overwritten meanwhile.
    let before = found.damage.len();
    found.damage.retain(|damage| match damage {
        Damage::Entry(_) => true,
        Damage::Chunk(key, id, _) => {
            let held = reader.get(key).ok().flatten();
            held.and_then(|entry| entry.blob().map(|blob| blob.id)) == Some(*id)
        }
    });
    found.damaged -= (before - found.damage.len()) as u64;
    Ok(found)
}

fn is_whole(key: &Key, entry: &Entry, seal: &dyn Seal, found: &mut Scrub) -> bool {
    let content = entry.content();
    let is_what_was_written =
        matches!(content.value, Stored::Dropped(_)) || RecordHash::of(key, &entry.encode()) == entry.hash;
    if !is_what_was_written {
        return false;
    }
    let has_metadata = !content.metadata.is_empty();
    let metadata = !has_metadata || found.opened(seal.open(key, Part::Metadata, &content.metadata));
    match &content.value {
        Stored::Inline(sealed) => metadata && found.opened(seal.open(key, Part::Value, sealed)),
        Stored::Tombstone | Stored::Blob(_) | Stored::Dropped(_) => metadata,
    }
}

impl Kv {
    /// [`scrub`] of this node while it serves; with `repair`, what is damaged is replaced by what other nodes hold. Gives
    /// what was found, and how much of it was mended.
    pub async fn scrub(&self, repair: bool) -> Result<(Scrub, u64), KvError> {
        let kv = self.clone();
        let scrubbed = tokio::task::spawn_blocking(move || scrub(kv.handle().reader(), kv.seal(), &mut |_| ()));
        let found = scrubbed.await.map_err(|_| KvError::ShuttingDown)??;
        let mut repaired = 0;
        if repair {
            for damage in &found.damage {
                repaired += u64::from(self.repair(damage.clone()).await.is_ok());
            }
        }
        Ok((found, repaired))
    }
}
