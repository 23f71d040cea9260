//! Version vectors: which writes of which origins a node has seen, holes included.
//!
//! The invariant they stand for: for every dot in it, the node holds that write, or something that dominates it, or
//! it was collected below the stable frontier. Keeping it is the business of `apply` and `sync`; here is only the set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dot::{Dot, Origin};
use super::limits::INTERVALS_PER_ORIGIN_MAX;

/// A number of 64 bits as it travels, at most.
const VARINT_LEN_MAX: usize = 10;

/// The writes of one origin that were seen: a gapless prefix and intervals beyond it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Every write from 1 to here.
    prefix: u64,
    /// First → last of each run beyond the prefix; never touching it or one another.
    intervals: BTreeMap<u64, u64>,
}

impl Seen {
    /// Writes 1 to `last`.
    pub fn prefix_of(last: u64) -> Self {
        Self { prefix: last, intervals: BTreeMap::new() }
    }

    /// Last write of the gapless prefix, 0 if there is none.
    pub fn prefix(&self) -> u64 {
        self.prefix
    }

    /// The highest write seen, 0 if there is none.
    pub fn last(&self) -> u64 {
        self.intervals.last_key_value().map_or(self.prefix, |(_, last)| *last)
    }

    /// Whether nothing is missing below [`Seen::last`].
    pub fn is_gapless(&self) -> bool {
        self.intervals.is_empty()
    }

    /// How many runs there are beyond the gapless prefix.
    pub fn intervals(&self) -> usize {
        self.intervals.len()
    }

    /// Whether write `seq` was seen.
    pub fn contains(&self, seq: u64) -> bool {
        seq <= self.prefix || self.intervals.range(..=seq).next_back().is_some_and(|(_, last)| seq <= *last)
    }

    /// Adds write `seq`; false if it was there. Over the bound of intervals it is forgotten again, which costs a
    /// repeated transfer and never data.
    pub fn insert(&mut self, seq: u64) -> bool {
        if self.contains(seq) {
            return false;
        }
        self.insert_run(seq, seq);
        self.forget_intervals_over(INTERVALS_PER_ORIGIN_MAX);
        true
    }

    /// Adds all that `other` has.
    pub fn join(&mut self, other: &Seen) {
        self.insert_run(1, other.prefix);
        for (first, last) in &other.intervals {
            self.insert_run(*first, *last);
        }
        self.forget_intervals_over(INTERVALS_PER_ORIGIN_MAX);
    }

    fn insert_run(&mut self, mut first: u64, mut last: u64) {
        if last < first || last <= self.prefix {
            return;
        }
        // Swallow every run that overlaps or touches this one, from above to below.
        while let Some((run_first, run_last)) = self.intervals.range(..=last.saturating_add(1)).next_back() {
            let (run_first, run_last) = (*run_first, *run_last);
            if run_last.saturating_add(1) < first {
                break;
            }
            self.intervals.remove(&run_first);
            (first, last) = (first.min(run_first), last.max(run_last));
        }
        if first <= self.prefix.saturating_add(1) {
            self.prefix = last;
        } else {
            self.intervals.insert(first, last);
        }
    }

    /// Forgets the highest runs over this many, which costs repeated transfers and never data.
    pub fn forget_intervals_over(&mut self, intervals: usize) {
        while self.intervals.len() > intervals {
            self.intervals.pop_last();
        }
    }

    /// Whether everything in `other` is here.
    pub fn covers(&self, other: &Seen) -> bool {
        // The prefix is as long as it can be, so a run that starts within it must also end within it.
        other.prefix <= self.prefix
            && other.intervals.iter().all(|(first, last)| {
                *last <= self.prefix
                    || self.intervals.range(..=first).next_back().is_some_and(|(_, run_last)| last <= run_last)
            })
    }

    /// The runs within `1..=last` that are not here, ascending.
    pub fn gaps(&self, last: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut next = self.prefix.saturating_add(1);
        for (run_first, run_last) in &self.intervals {
            if next > last {
                return gaps;
            }
            if *run_first > next {
                gaps.push((next, (*run_first - 1).min(last)));
            }
            next = run_last.saturating_add(1);
        }
        if next <= last {
            gaps.push((next, last));
        }
        gaps
    }

    /// What of this lies at or below `last`.
    pub fn up_to(&self, last: u64) -> Self {
        let intervals = self.intervals.range(..=last).map(|(first, end)| (*first, (*end).min(last))).collect();
        Self { prefix: self.prefix.min(last), intervals }
    }

    /// Off the wire: runs must be in order, apart from one another and from the prefix, and within the bound.
    pub fn is_valid(&self) -> bool {
        let mut floor = self.prefix;
        for (first, last) in &self.intervals {
            if floor.checked_add(1).is_none_or(|touching| *first <= touching) || last < first {
                return false;
            }
            floor = *last;
        }
        self.intervals.len() <= INTERVALS_PER_ORIGIN_MAX
    }
}

/// What a node has seen, origin by origin.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VersionVector {
    origins: BTreeMap<Origin, Seen>,
}

impl VersionVector {
    /// What was seen of `origin`, if anything.
    pub fn get(&self, origin: Origin) -> Option<&Seen> {
        self.origins.get(&origin)
    }

    /// Replaces what was seen of `origin`.
    pub fn set(&mut self, origin: Origin, seen: Seen) {
        self.origins.insert(origin, seen);
    }

    /// Forgets `origin`.
    pub fn remove(&mut self, origin: Origin) -> Option<Seen> {
        self.origins.remove(&origin)
    }

    /// Origins ascending, each with what was seen of it.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, &Seen)> {
        self.origins.iter().map(|(origin, seen)| (*origin, seen))
    }

    /// Those from `first` to `last`, both included.
    pub fn range(&self, first: Origin, last: Origin) -> impl Iterator<Item = (Origin, &Seen)> {
        self.origins.range(first..=last).map(|(origin, seen)| (*origin, seen))
    }

    /// How many origins there are.
    pub fn len(&self) -> usize {
        self.origins.len()
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// Whether the write was seen.
    pub fn contains(&self, dot: Dot) -> bool {
        self.origins.get(&dot.origin).is_some_and(|seen| seen.contains(dot.seq))
    }

    /// Adds one write; false if it was there.
    pub fn insert(&mut self, dot: Dot) -> bool {
        self.origins.entry(dot.origin).or_default().insert(dot.seq)
    }

    /// Adds all that `other` has.
    pub fn join(&mut self, other: &VersionVector) {
        for (origin, seen) in &other.origins {
            self.origins.entry(*origin).or_default().join(seen);
        }
    }

    /// Whether everything in `other` is here.
    pub fn covers(&self, other: &VersionVector) -> bool {
        other.origins.iter().all(|(origin, seen)| {
            self.origins.get(origin).map_or_else(|| *seen == Seen::default(), |mine| mine.covers(seen))
        })
    }

    /// What of this comes at or before `dot` when origins are gone through in order, each by ascending seq.
    pub fn up_to(&self, dot: Dot) -> Self {
        let mut origins: BTreeMap<_, _> =
            self.origins.range(..dot.origin).map(|(origin, seen)| (*origin, seen.clone())).collect();
        if let Some(seen) = self.origins.get(&dot.origin) {
            origins.insert(dot.origin, seen.up_to(dot.seq));
        }
        Self { origins }
    }

    /// The same, with so many intervals forgotten that it takes no more than `bytes` as it travels, as far as intervals
    /// can bring that about. What says less is as true, and costs repeated transfers.
    pub fn trimmed(&self, bytes: usize) -> Self {
        let mut trimmed = self.clone();
        let mut intervals = INTERVALS_PER_ORIGIN_MAX;
        while trimmed.len_max() > bytes && intervals > 0 {
            intervals /= 2;
            trimmed.origins.values_mut().for_each(|seen| seen.forget_intervals_over(intervals));
        }
        trimmed
    }

    /// What it takes as it travels, at most: an origin, a prefix and a count; two numbers an interval.
    fn len_max(&self) -> usize {
        let seen = |seen: &Seen| Origin::LEN + 2 * VARINT_LEN_MAX + 2 * VARINT_LEN_MAX * seen.intervals();
        VARINT_LEN_MAX + self.origins.values().map(seen).sum::<usize>()
    }

    /// Off the wire: see [`Seen::is_valid`].
    pub fn is_valid(&self) -> bool {
        self.origins.values().all(Seen::is_valid)
    }

    /// Intervals included. A sum over origins, so that it doesn't matter where an origin is kept (see `fold`).
    pub fn hash(&self) -> VersionHash {
        self.origins.iter().fold(VersionHash::default(), |sum, (origin, seen)| sum.plus(VersionHash::of(*origin, seen)))
    }
}

/// Sixteen bytes that compare two version vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct VersionHash(u128);

impl std::fmt::Display for VersionHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl VersionHash {
    /// The contribution of one origin.
    pub fn of(origin: Origin, seen: &Seen) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&origin.to_bytes());
        hasher.update(&seen.prefix.to_be_bytes());
        for (first, last) in &seen.intervals {
            hasher.update(&first.to_be_bytes());
            hasher.update(&last.to_be_bytes());
        }
        let mut low = [0; 16];
        hasher.finalize_xof().fill(&mut low);
        Self(u128::from_be_bytes(low))
    }

    /// Eight bytes of it.
    pub fn short(self) -> u64 {
        self.0 as u64
    }

    /// Adds a contribution.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// Takes a contribution away.
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::replica::limits::{MESSAGE_LEN_MAX, VERSIONS_LEN_MAX};
    use crate::replica::{Message, SyncRequest};

    fn seen_of(set: &BTreeSet<u64>) -> Seen {
        let mut seen = Seen::default();
        for seq in set {
            seen.insert(*seq);
        }
        seen
    }

    fn set_of(seen: &Seen) -> BTreeSet<u64> {
        (1..=80).filter(|seq| seen.contains(*seq)).collect()
    }

    fn seqs() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(1..60u64, 0..50)
    }

    proptest! {
        #[test]
        fn seen_is_a_set(a in seqs(), b in seqs(), last in 1..70u64) {
            let (set_a, set_b): (BTreeSet<_>, BTreeSet<_>) = (a.iter().copied().collect(), b.iter().copied().collect());
            let mut seen_a = Seen::default();
            let mut growing = BTreeSet::new();
            for seq in &a {
                prop_assert_eq!(seen_a.insert(*seq), growing.insert(*seq));
                prop_assert!(seen_a.is_valid(), "{:?}", seen_a);
            }
            let seen_b = seen_of(&set_b);
            prop_assert_eq!(&seen_a, &seen_of(&set_a), "the representation is canonical");
            prop_assert_eq!(set_of(&seen_a), set_a.clone());
            prop_assert_eq!(seen_a.last(), set_a.last().copied().unwrap_or(0));
            prop_assert_eq!(seen_a.covers(&seen_b), set_b.is_subset(&set_a));

            let mut joined = seen_a.clone();
            joined.join(&seen_b);
            prop_assert!(joined.is_valid(), "{:?}", joined);
            prop_assert_eq!(set_of(&joined), set_a.union(&set_b).copied().collect());
            prop_assert!(joined.covers(&seen_a) && joined.covers(&seen_b));

            let missing: BTreeSet<u64> = seen_a.gaps(last).into_iter().flat_map(|(first, last)| first..=last).collect();
            prop_assert_eq!(missing, (1..=last).filter(|seq| !set_a.contains(seq)).collect());
            prop_assert_eq!(set_of(&seen_a.up_to(last)), set_a.range(..=last).copied().collect());
        }

        #[test]
        fn equal_hashes_mean_equal_vectors(a in seqs(), b in seqs()) {
            let origin = Origin::default();
            let (mut left, mut right) = (VersionVector::default(), VersionVector::default());
            for seq in &a { left.insert(origin.dot(*seq)); }
            for seq in &b { right.insert(origin.dot(*seq)); }
            prop_assert_eq!(left.hash() == right.hash(), left == right);
        }
    }

    #[test]
    fn intervals_are_bounded_and_the_prefix_survives() {
        let mut seen = Seen::prefix_of(10);
        for seq in 0..2 * INTERVALS_PER_ORIGIN_MAX as u64 {
            seen.insert(20 + 2 * seq);
        }
        assert_eq!(seen.intervals.len(), INTERVALS_PER_ORIGIN_MAX);
        assert_eq!(seen.prefix(), 10);
        assert!(seen.contains(20) && seen.is_valid());
    }

    #[test]
    fn hostile_runs_are_refused_or_harmless() {
        let overlapping = Seen { prefix: 5, intervals: BTreeMap::from([(6, 9)]) };
        let inverted = Seen { prefix: 5, intervals: BTreeMap::from([(20, 9)]) };
        assert!(!overlapping.is_valid() && !inverted.is_valid());
        let mut all = Seen::prefix_of(u64::MAX);
        all.join(&Seen::prefix_of(3));
        assert!(!all.insert(u64::MAX));
        let mut high = Seen::default();
        high.insert(u64::MAX);
        high.join(&Seen::prefix_of(u64::MAX - 1));
        assert_eq!(high.prefix(), u64::MAX);
    }

    #[test]
    fn what_is_too_long_to_travel_forgets_intervals_and_nothing_else() {
        let mut versions = VersionVector::default();
        for node in 0..200 {
            let origin = Origin { node: crate::replica::NodeId(u64::MAX - node), ..Origin::default() };
            let mut seen = Seen::prefix_of(node);
            (0..INTERVALS_PER_ORIGIN_MAX as u64).for_each(|number| _ = seen.insert(u64::MAX - 3 * number));
            versions.set(origin, seen);
        }
        let request = |have: VersionVector| {
            let (session, folded, full) = (u64::MAX, VersionHash(u128::MAX), true);
            Message::SyncRequest(SyncRequest { session, have, folded, full }).encode()
        };
        assert!(request(versions.clone()).len() > MESSAGE_LEN_MAX);
        let trimmed = versions.trimmed(VERSIONS_LEN_MAX);
        assert!(Message::decode(&request(trimmed.clone())).is_ok());
        assert!(versions.covers(&trimmed));
        for (origin, seen) in versions.iter() {
            assert_eq!(trimmed.get(origin).map(Seen::prefix), Some(seen.prefix()));
        }
        let short = versions.up_to(Origin { node: crate::replica::NodeId(u64::MAX - 190), ..Origin::default() }.dot(9));
        assert_eq!(short.trimmed(VERSIONS_LEN_MAX), short, "what is short stays as it is");
    }
}
