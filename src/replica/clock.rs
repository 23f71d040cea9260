//! Time as the replica knows it: readings handed in by the driver, and a hybrid logical clock over them.
//!
//! Never asks what time it is. Kulkarni et al. 2014, "Logical Physical Clocks and Consistent Snapshots in Globally
//! Distributed Databases".

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

use super::limits::{ABSORB_MS_MAX, PROMISE_MS_AHEAD, TIMESTAMP_CEILING_MS};

/// Monotonic time of one process, in microseconds since an arbitrary start. For timers only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct Mono(pub u64);

impl Mono {
    /// From whole milliseconds.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms * 1000)
    }

    /// Microseconds since `earlier`, zero if that lies ahead.
    pub fn since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Mono> for Mono {
    type Output = Mono;

    fn add(self, duration: Mono) -> Mono {
        Mono(self.0.saturating_add(duration.0))
    }
}

impl Sub<Mono> for Mono {
    type Output = Mono;

    fn sub(self, duration: Mono) -> Mono {
        Mono(self.0.saturating_sub(duration.0))
    }
}

/// Both clocks, read once per turn by the driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// For timers.
    pub mono: Mono,
    /// Unix time in milliseconds, as the machine believes it.
    pub wall_ms: u64,
}

/// A hybrid logical timestamp: 48 bits of Unix milliseconds, 16 bits of counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Nothing valid carries a later one: a record beyond it is dropped by everyone alike.
    pub const CEILING: Self = Self(TIMESTAMP_CEILING_MS << 16);

    /// The first timestamp of a millisecond.
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms << 16)
    }

    /// Unix milliseconds.
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The next one; runs over into the next millisecond when the counter is full.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.0 & 0xffff)
    }
}

// Eight fixed bytes: a varint of 64 significant bits would take ten.
impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.to_be_bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <[u8; 8]>::deserialize(deserializer).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }
}

/// A hybrid logical clock. Strictly increasing; follows the wall clock, and what it hears, but only a little.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    last: Timestamp,
}

impl Clock {
    /// A clock that never mints at or below `floor`.
    pub fn starting_above(floor: Timestamp) -> Self {
        Self { last: floor }
    }

    /// Mints the next timestamp.
    pub fn tick(&mut self, wall_ms: u64) -> Timestamp {
        self.last = self.last.next().max(Timestamp::from_ms(wall_ms));
        self.last
    }

    /// A timestamp below every one still to be minted, and not below any minted before: what a node may promise.
    pub fn promise(&mut self, wall_ms: u64) -> Timestamp {
        self.last = self.last.max(Timestamp::from_ms(wall_ms));
        self.last
    }

    /// Hears a remote timestamp. Absorbed only up to [`ABSORB_MS_MAX`] ahead of the wall clock: a poisoned one moves
    /// nobody's clock.
    pub fn observe(&mut self, remote: Timestamp, wall_ms: u64) {
        let limit = Timestamp::from_ms(wall_ms.saturating_add(ABSORB_MS_MAX));
        self.last = self.last.max(remote.min(limit));
    }
}

/// How far a node may promise. A promise binds its later processes too, also one that starts with a clock that was set
/// back and over a directory that lost its last commits: so nothing is promised beyond the timestamp above which the
/// next process is known to start.
#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    /// As last staged.
    staged: Timestamp,
    /// As of these commits, which may not be durable yet.
    committed: BTreeMap<u64, Timestamp>,
    durable: Timestamp,
}

impl Floor {
    /// What a process found that starts.
    pub(super) fn found(floor: Timestamp) -> Self {
        Self { staged: floor, committed: BTreeMap::new(), durable: floor }
    }

    /// Whether the floor should be raised for `promise` to be given now and for a while longer.
    pub(super) fn is_low(&self, promise: Timestamp, wall_ms: u64) -> bool {
        self.staged < promise.max(Timestamp::from_ms(wall_ms + PROMISE_MS_AHEAD / 2))
    }

    /// The floor that commit number `commit` stores, not below `last`, the latest that was minted. It lies ahead of the
    /// wall clock and not of what was minted, or processes that start and die at once would carry the clock away.
    pub(super) fn stage(&mut self, last: Timestamp, wall_ms: u64, commit: u64) -> Timestamp {
        if self.is_low(last, wall_ms) {
            self.staged = self.staged.max(last).max(Timestamp::from_ms(wall_ms + PROMISE_MS_AHEAD));
            self.committed.insert(commit, self.staged);
            // The bound: of what waits for the disk the first and the latest are of use.
            while self.committed.len() > 2 {
                let middle = self.committed.keys().nth(1).copied();
                middle.and_then(|commit| self.committed.remove(&commit));
            }
        }
        self.staged
    }

    /// Everything up to `commit` is on disk.
    pub(super) fn synced(&mut self, commit: u64) {
        while let Some(entry) = self.committed.first_entry().filter(|entry| *entry.key() <= commit) {
            self.durable = entry.remove().max(self.durable);
        }
    }

    /// As much of a promise as every later process will keep.
    pub(super) fn limit(&self, promise: Timestamp) -> Timestamp {
        promise.min(self.durable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_promised_that_a_later_process_would_not_know_of() {
        let mut floor = Floor::found(Timestamp::from_ms(10));
        let wanted = Timestamp::from_ms(5_000);
        assert_eq!(floor.limit(wanted), Timestamp::from_ms(10));
        assert!(floor.is_low(wanted, 5_000));
        let staged = floor.stage(wanted, 5_000, 3);
        assert!(staged > wanted && !floor.is_low(wanted, 5_000));
        assert_eq!(floor.limit(wanted), Timestamp::from_ms(10), "staged is not stored");
        floor.synced(2);
        assert_eq!(floor.limit(wanted), Timestamp::from_ms(10), "committed is not durable");
        floor.synced(3);
        assert_eq!(floor.limit(wanted), wanted);
        assert_eq!(floor.limit(staged.next()), staged);
        assert_eq!(floor.stage(wanted, 5_000, 4), staged, "it is raised now and then only");
        for commit in 5..20 {
            floor.stage(Timestamp::from_ms(commit * 10_000), 5_000, commit);
        }
        assert!(floor.committed.len() <= 2);
        floor.synced(19);
        assert_eq!(floor.limit(Timestamp::from_ms(190_000)), Timestamp::from_ms(190_000));
    }

    #[test]
    fn processes_that_die_at_once_don_t_carry_the_clock_away() {
        let mut found = Timestamp::default();
        for process in 0..1_000 {
            let mut clock = Clock::starting_above(found);
            let started = clock.tick(8_000 + process);
            assert!(started > found);
            found = Floor::found(found).stage(started, 8_000 + process, 1);
        }
        assert!(found.ms() <= 9_000 + PROMISE_MS_AHEAD, "{found:?}");
    }

    #[test]
    fn ticks_increase_when_the_wall_clock_stands_or_jumps_back() {
        let mut clock = Clock::default();
        let a = clock.tick(1_000);
        let b = clock.tick(1_000);
        let c = clock.tick(400);
        assert!(a < b && b < c);
        assert_eq!(c.ms(), 1_000);
    }

    #[test]
    fn a_full_counter_runs_into_the_next_millisecond() {
        let mut clock = Clock::starting_above(Timestamp(Timestamp::from_ms(7).0 | 0xffff));
        assert_eq!(clock.tick(7), Timestamp::from_ms(8));
    }

    #[test]
    fn a_poisoned_remote_moves_the_clock_only_to_the_limit() {
        let mut clock = Clock::default();
        clock.observe(Timestamp::from_ms(9_000_000), 1_000);
        assert_eq!(clock.tick(1_000).ms(), 1_000 + ABSORB_MS_MAX);
    }

    #[test]
    fn everything_minted_after_a_promise_is_above_it() {
        let mut clock = Clock::default();
        let promise = clock.promise(50);
        assert!(clock.tick(50) > promise);
    }
}
