//! Rows of entries that were read lately, in front of the tables: a point read there goes through memtables, filters, an
//! index and a block.
//!
//! Nothing is taken out when it is overwritten. Keys are spread over lanes, and each lane has a number: odd while a commit
//! writes to one of its keys, and higher by two after it. A row that was read while the number of its lane stood still at
//! an even value is the latest for as long as the number still is that one (a seqlock: Boehm, *Can Seqlocks Get Along With
//! Programming Language Memory Models?*, 2012). So a read never shows what an earlier one has seen replaced. Commits come
//! from one thread.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, Weighter};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Memory for rows that were read lately, in bytes.
pub(super) const RECENT_BYTES_MAX: u64 = 48 * 1024 * 1024;
/// Longest row that is kept: what longer ones cost is not in finding them.
const ROW_LEN_MAX: usize = 4096;
/// What a row takes beside its own bytes and those of its key.
const ROW_COST: usize = 176;
/// Of rows with values of 100 bytes.
const ROW_USUAL: u64 = 400;
/// A power of two. With more writes than this in a second, hot rows are read from the tables more than once a second.
const LANES: usize = 1 << 14;

/// The rows.
pub(super) struct Recent {
    lanes: Box<[AtomicU32]>,
    rows: Cache<Place, Kept, Weight, AsItIs>,
    /// Nobody outside knows which keys share a lane.
    seed: u64,
}

/// A key with its hash.
struct Place {
    hash: u64,
    key: Bytes,
}

/// The same for looking one up.
struct Asked<'a> {
    hash: u64,
    key: &'a [u8],
}

#[derive(Clone)]
struct Kept {
    row: Bytes,
    /// What the number of the lane was.
    number: u32,
}

/// Lanes that a commit writes to.
#[must_use = "what was read of these lanes is good for nothing before they are settled"]
pub(super) struct Disturbed(Vec<usize>);

impl Recent {
    pub(super) fn new() -> Self {
        let items = usize::try_from(RECENT_BYTES_MAX / ROW_USUAL).unwrap_or(usize::MAX);
        let rows = Cache::with(items, RECENT_BYTES_MAX, Weight, AsItIs, DefaultLifecycle::default());
        let lanes = (0..LANES).map(|_| AtomicU32::new(0)).collect();
        Self { lanes, rows, seed: RandomState::new().build_hasher().finish() }
    }

    /// The row of a key, which `read` finds in the tables.
    pub(super) fn row<E>(
        &self,
        key: &[u8],
        read: impl FnOnce() -> Result<Option<Bytes>, E>,
    ) -> Result<Option<Bytes>, E> {
        let hash = xxh3_64_with_seed(key, self.seed);
        let Some(lane) = self.lanes.get(lane_of(hash)) else { return read() };
        let number = lane.load(Ordering::Acquire);
        if number % 2 == 1 {
            return read();
        }
        if let Some(kept) = self.rows.get(&Asked { hash, key }).filter(|kept| kept.number == number) {
            return Ok(Some(kept.row));
        }
        let found = read()?;
        // If the tables have shown a commit, its lanes are odd by now, or higher.
        if let Some(row) = &found
            && row.len() <= ROW_LEN_MAX
            && lane.load(Ordering::Acquire) == number
        {
            // A copy: it may be a slice of a whole block.
            let both = Bytes::from([key, row].concat());
            let (key, row) = (both.slice(..key.len()), both.slice(key.len()..));
            self.rows.insert(Place { hash, key }, Kept { row, number });
        }
        Ok(found)
    }

    /// What the rows take, in bytes.
    #[cfg(test)]
    pub(super) fn weight(&self) -> u64 {
        self.rows.weight()
    }

    /// These keys are about to be written.
    pub(super) fn disturb<'a>(&self, keys: impl Iterator<Item = &'a Bytes>) -> Disturbed {
        let mut lanes: Vec<usize> = keys.map(|key| lane_of(xxh3_64_with_seed(key, self.seed))).collect();
        lanes.sort_unstable();
        lanes.dedup();
        self.advance(&lanes);
        Disturbed(lanes)
    }

    /// They were written, and whoever reads from now on sees it. After a commit that failed nobody says so: nobody knows
    /// what the tables show then.
    pub(super) fn settle(&self, disturbed: Disturbed) {
        self.advance(&disturbed.0);
    }

    fn advance(&self, lanes: &[usize]) {
        for lane in lanes {
            if let Some(lane) = self.lanes.get(*lane) {
                lane.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}

fn lane_of(hash: u64) -> usize {
    hash as usize % LANES
}

impl Hash for Place {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Place {}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Equivalent<Place> for Asked<'_> {
    fn equivalent(&self, place: &Place) -> bool {
        self.key == place.key
    }
}

/// What a row takes, in bytes.
#[derive(Clone)]
struct Weight;

impl Weighter<Place, Kept> for Weight {
    fn weight(&self, place: &Place, kept: &Kept) -> u64 {
        (ROW_COST + place.key.len() + kept.row.len()) as u64
    }
}

/// Takes a hash as the hash.
#[derive(Clone, Default)]
struct AsItIs;

impl BuildHasher for AsItIs {
    type Hasher = Hashed;

    fn build_hasher(&self) -> Hashed {
        Hashed(0)
    }
}

struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
