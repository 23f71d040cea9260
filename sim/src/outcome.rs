//! What a run has shown: the one document that `--json` prints, `--out` stores, `compare` reads and the report draws.
//!
//! All times are integer microseconds of virtual time unless a name says otherwise; fields named `real_…` are of the
//! machine that ran it and differ from run to run. Nothing here knows how anything was measured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::places::Place;

/// Everything about one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The figures, small enough to compare.
    pub summary: Summary,
    /// For pictures; empty where nobody asked for it.
    #[serde(default)]
    pub details: Details,
}

/// The figures of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Name of the scenario.
    pub scenario: String,
    /// What it shows, in its own words.
    #[serde(default)]
    pub about: String,
    /// The command that runs it again.
    #[serde(default)]
    pub replay: String,
    /// Everything random follows from it.
    pub seed: u64,
    /// Nodes at the start.
    pub nodes: usize,
    /// Distinct PoPs they stand at.
    pub pops: usize,
    /// Virtual time simulated.
    pub virtual_us: u64,
    /// BLAKE3 over everything that happened, in order. Equal seed and scenario: equal hash, on any machine.
    pub trace_hash: String,
    /// What was found wrong; empty if nothing.
    pub violations: Vec<Violation>,
    /// What became of the writes.
    pub writes: Writes,
    /// From a write's acceptance until it is visible at the last PoP that was up.
    pub lag_last: Quantiles,
    /// The same, until it is visible at 99 % of the PoPs.
    pub lag_most: Quantiles,
    /// The same over single receivers.
    pub lag_each: Quantiles,
    /// For the origins of those writes: the shortest way to the farthest PoP, relays allowed.
    pub bound_relayed: Quantiles,
    /// The same straight from origin to receiver.
    pub bound_direct: Quantiles,
    /// Lag at the last PoP in parts per thousand of its origin's relayed bound (`us` reads `‰` here).
    pub lag_over_bound: Quantiles,
    /// What went over the network.
    pub traffic: Traffic,
    /// Deepest queues seen, by name; each has a bound in `starling::replica::limits`.
    pub peaks: BTreeMap<String, u64>,
    /// That bound, under the same name.
    #[serde(default)]
    pub peak_bounds: BTreeMap<String, u64>,
    /// Microseconds from the end of the last fault until all replicas were equal; absent if there was no fault.
    pub healed_us: Option<u64>,
    /// Alarms that nodes raised, by kind.
    pub alarms: BTreeMap<String, u64>,
    /// Events that replicas counted, summed.
    pub counters: BTreeMap<String, u64>,
    /// Faults that took place, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Reads with a bookmark: how many, and how long they waited.
    pub bookmark_reads: u64,
    /// See `bookmark_reads`.
    pub bookmark_wait: Quantiles,
    /// How far nodes' watermarks were behind the present while writes were made, looked at once a second.
    #[serde(default)]
    pub watermark_lag: Quantiles,
    /// Wall-clock seconds the run took.
    pub real_seconds: f64,
    /// Most memory the process had, MiB; 0 if the system does not say.
    pub real_memory_mib: u64,
}

/// A promise that was broken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// The checker.
    pub checker: String,
    /// When.
    pub at_us: u64,
    /// What it saw.
    pub what: String,
}

/// What became of the writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writes {
    /// Accepted by their node.
    pub accepted: u64,
    /// Refused by it: fenced clock, deleted namespace, too many waiting.
    pub refused: u64,
    /// Sent to a node that was down.
    pub unserved: u64,
    /// Accepted, measured, and visible at every PoP that was up by the end.
    pub everywhere: u64,
    /// Accepted, measured, and not visible everywhere by the end.
    pub unfinished: u64,
}

/// Of a set of durations in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many there were; with none, the others are 0.
    pub count: u64,
    /// Half are no longer.
    pub p50_us: u64,
    /// Nine in ten are no longer.
    pub p90_us: u64,
    /// 99 in a hundred are no longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

impl Quantiles {
    /// By the nearest rank.
    pub fn of(mut durations_us: Vec<u64>) -> Self {
        durations_us.sort_unstable();
        let count = durations_us.len();
        let at = |percent: usize| match count {
            0 => 0,
            _ => durations_us[(count * percent).div_ceil(100).max(1) - 1],
        };
        Self { count: count as u64, p50_us: at(50), p90_us: at(90), p99_us: at(99), max_us: at(100) }
    }
}

/// What went over the network while writes were made, headers included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// By class of message: `control`, `records`, `sync`, `blobs`.
    pub classes: BTreeMap<String, Flow>,
    /// Packets that were lost and sent again.
    pub lost_packets: u64,
    /// Connections set up, and lost.
    pub connections: u64,
    /// See `connections`.
    pub disconnections: u64,
    /// Bytes received by a node for each accepted write, all classes, in thousandths of a byte.
    pub bytes_per_write_per_node_milli: u64,
    /// The same in classes other than control.
    pub data_bytes_per_write_per_node_milli: u64,
    /// Messages received by a node for each accepted write, in thousandths.
    pub messages_per_write_per_node_milli: u64,
    /// Copies of a record that a node receives (pushed or synced) for each accepted write, in thousandths.
    pub copies_per_node_milli: u64,
    /// Sync sessions asked for, and completed.
    pub syncs_asked: u64,
    /// See `syncs_asked`.
    pub syncs_completed: u64,
    /// Records that came by repair.
    pub records_synced: u64,
}

/// Traffic of one class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Messages delivered.
    pub messages: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
}

/// What pictures are drawn from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// Where nodes stand: node → index into `places`.
    pub nodes: Vec<usize>,
    /// Distinct PoPs.
    pub places: Vec<Place>,
    /// How some writes spread, the slowest among them.
    pub spreads: Vec<Spread>,
    /// Lag at the last PoP, see [`Bucket::of`].
    pub histogram: Vec<Bucket>,
    /// Lag at the last PoP of the writes accepted in each slice of time.
    pub over_time: Vec<Slice>,
    /// What went wrong, and when.
    pub faults: Vec<FaultSpan>,
    /// What each node sent and received.
    pub node_bytes: Vec<NodeBytes>,
    /// Mean lag from place to place, microseconds; row = origin. 0 where nothing was measured.
    pub matrix: Vec<Vec<u32>>,
    /// For each place, the relayed bound in microseconds.
    pub bound_relayed_us: Vec<u64>,
    /// For each place, the direct bound in microseconds.
    pub bound_direct_us: Vec<u64>,
}

/// How one write spread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Its number, as `--trace` takes it.
    pub write: u64,
    /// Node that accepted it.
    pub origin: usize,
    /// When, in virtual time.
    pub accepted_us: u64,
    /// For each node, microseconds until it was visible there; `None`: never. The origin has 0.
    pub arrivals_us: Vec<Option<u64>>,
    /// For each node, the one that it had the write from; `None`: the origin, or never. Empty if that was not watched.
    #[serde(default)]
    pub informers: Vec<Option<usize>>,
}

/// One bar of the histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// From here.
    pub from_us: u64,
    /// Up to here, exclusive.
    pub to_us: u64,
    /// How many writes.
    pub count: u64,
}

/// Bars of a histogram of equal ones.
const BUCKETS: u64 = 60;
/// The first bar of a histogram of growing ones.
const BUCKET_FIRST_US: u64 = 5_000;

impl Bucket {
    /// Of a set of durations: bars of equal width; where the longest is more than eight times what is `usual_us`, bars
    /// that are each 15 % wider than the one before, so that the usual and the longest can be told apart in one picture.
    pub fn of(durations_us: &[u64], usual_us: u64) -> Vec<Self> {
        let Some(longest_us) = durations_us.iter().copied().max() else { return Vec::new() };
        let grows = longest_us / 8 > usual_us;
        let mut width_us = if grows { BUCKET_FIRST_US } else { longest_us / BUCKETS + 1 };
        let mut buckets = vec![Self { from_us: 0, to_us: width_us, count: 0 }];
        while let Some(last) = buckets.last().filter(|last| last.to_us <= longest_us) {
            if grows {
                width_us += width_us * 3 / 20;
            }
            buckets.push(Self { from_us: last.to_us, to_us: last.to_us + width_us, count: 0 });
        }
        for duration_us in durations_us {
            let bucket = buckets.partition_point(|bucket| bucket.to_us <= *duration_us);
            buckets[bucket].count += 1;
        }
        buckets
    }
}

/// One slice of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Its start.
    pub at_us: u64,
    /// Writes accepted in it.
    pub writes: u64,
    /// Their lag at the last PoP.
    pub lag: Quantiles,
}

/// One fault.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultSpan {
    /// `crash`, `partition`, …
    pub kind: String,
    /// For people.
    pub label: String,
    /// When it began.
    pub from_us: u64,
    /// When it ended.
    pub until_us: u64,
    /// The nodes it befell.
    #[serde(default)]
    pub nodes: Vec<usize>,
}

/// Bytes of one node over the run, by class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeBytes {
    /// The node.
    pub node: usize,
    /// Sent, by class.
    pub sent: BTreeMap<String, u64>,
    /// Received, by class.
    pub received: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_equal_or_grow() {
        let equal = Bucket::of(&[0, 100_000, 239_999], 200_000);
        assert_eq!(equal.len(), 60);
        assert!(equal.iter().all(|bar| bar.to_us - bar.from_us == 4_000));
        let growing = Bucket::of(&[0, 199_999, 600_000_000], 200_000);
        assert!((60..90).contains(&growing.len()), "{}", growing.len());
        for bars in [equal, growing] {
            assert_eq!(bars.iter().map(|bar| bar.count).sum::<u64>(), 3);
            assert!(bars.windows(2).all(|pair| pair[0].to_us == pair[1].from_us));
            assert_eq!((bars[0].count, bars[bars.len() - 1].count), (1, 1));
        }
        assert!(Bucket::of(&[], 1).is_empty());
    }

    #[test]
    fn quantiles_by_nearest_rank() {
        let quantiles = Quantiles::of((1..=200).collect());
        assert_eq!(quantiles, Quantiles { count: 200, p50_us: 100, p90_us: 180, p99_us: 198, max_us: 200 });
        assert_eq!(Quantiles::of(vec![7]).p50_us, 7);
        assert_eq!(Quantiles::of(Vec::new()), Quantiles::default());
    }
}
