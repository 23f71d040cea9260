//! What clients do, drawn from the seed before the world begins: who writes what, where and when.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::portable::pow;
use crate::scenario::{Scenario, Value, ppm};

/// One thing that a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// When.
    pub at_us: u64,
    /// At which node; taken modulo their number.
    pub node: usize,
    /// What.
    pub act: Act,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Writes a key.
    Write {
        /// Its number within the namespace.
        key: u64,
        /// The namespace's number.
        namespace: u64,
        /// What is written.
        content: Content,
        /// Waits until this many nodes hold it; 0 = all.
        acks: Option<usize>,
        /// Reads it elsewhere, with the bookmark.
        read_at: Option<usize>,
    },
    /// Deletes a namespace.
    DeleteNamespace(u64),
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing: a deletion.
    Tombstone,
    /// So many bytes.
    Bytes(u64),
    /// So many bytes that expire after so many milliseconds.
    Expiring(u64, u64),
}

/// Everything that clients do, in order.
pub fn draw(scenario: &Scenario, nodes: usize, seed: u64) -> Vec<Op> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x776f_726b);
    let workload = &scenario.workload;
    let zipf = Zipf::new(workload.keys, workload.zipf);
    let mut ops = Vec::new();
    let chance = |fraction: f64, rng: &mut ChaCha8Rng| {
        let fraction = ppm(fraction);
        fraction > 0 && rng.random_range(0..1_000_000) < fraction
    };
    let write = |at_us, node, rng: &mut ChaCha8Rng| {
        let key = if chance(workload.hot, rng) { 0 } else { zipf.draw(rng) };
        let len = value_len(workload.value, rng);
        let content = match () {
            () if chance(workload.deletes, rng) => Content::Tombstone,
            () if chance(workload.ttl, rng) => {
                Content::Expiring(len, rng.random_range(1..=(workload.ttl_max.0 / 1_000).max(1)))
            }
            () => Content::Bytes(len),
        };
        let acks = chance(workload.acks, rng).then_some(workload.acks_nodes);
        let read_at = chance(workload.bookmark_reads, rng).then(|| rng.random_range(0..nodes.max(1)));
        let namespace = rng.random_range(0..workload.namespaces);
        Op { at_us, node, act: Act::Write { key, namespace, content, acks, read_at } }
    };
    for _ in 0..workload.writes {
        let at_us = rng.random_range(0..scenario.duration.0);
        let node = rng.random_range(0..nodes);
        ops.push(write(at_us, node, &mut rng));
    }
    let loader = rng.random_range(0..nodes);
    for _ in 0..workload.bulk {
        ops.push(write(scenario.duration.0 / 2, loader, &mut rng));
    }
    for namespace in 0..workload.namespaces_deleted {
        let at_us = rng.random_range(scenario.duration.0 / 4..scenario.duration.0);
        ops.push(Op { at_us, node: rng.random_range(0..nodes), act: Act::DeleteNamespace(namespace) });
    }
    ops.sort_by_key(|op| op.at_us);
    ops
}

/// Key numbers of which the n-th is drawn in proportion to 1 / n^s.
struct Zipf(Vec<u64>);

impl Zipf {
    /// Weights of this precision are the same on every machine.
    const ONE: f64 = (1u64 << 32) as f64;

    fn new(keys: u64, s: f64) -> Self {
        let mut sum = 0;
        let weight = |rank: u64| ((Self::ONE / pow(rank as f64, s)).round() as u64).max(1);
        Self(
            (1..=keys)
                .map(|rank| {
                    sum += weight(rank);
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> u64 {
        let point = rng.random_range(0..self.0.last().copied().unwrap_or(1));
        self.0.partition_point(|sum| *sum <= point) as u64
    }
}

/// Rank in ten thousand and bytes: between two of them sizes grow evenly.
const WEB: [(u64, u64); 7] =
    [(0, 16), (5_000, 288), (9_000, 4_096), (9_900, 65_536), (9_980, 1 << 20), (9_998, 8 << 20), (10_000, 25 << 20)];

fn value_len(value: Value, rng: &mut ChaCha8Rng) -> u64 {
    match value {
        Value::Bytes(len) => len,
        Value::Web => {
            let rank = rng.random_range(0..10_000);
            let above = WEB.partition_point(|(at, _)| *at <= rank);
            let ((low, from), (high, to)) = (WEB[above - 1], WEB[above]);
            from + (to - from) * (rank - low) / (high - low)
        }
        Value::Mixed => match rng.random_range(0..10) {
            0..7 => rng.random_range(1..200),
            7 => rng.random_range(1_000..20_000),
            _ => rng.random_range(70_000..900_000),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_keys_are_the_hottest() {
        let (zipf, mut rng) = (Zipf::new(1_000, 1.0), ChaCha8Rng::seed_from_u64(1));
        let draws: Vec<u64> = (0..100_000).map(|_| zipf.draw(&mut rng)).collect();
        let count = |key| draws.iter().filter(|draw| **draw == key).count();
        // 1 / H(1000) = 0.1336
        assert!((12_800..14_000).contains(&count(0)), "{}", count(0));
        assert!((6_200..7_200).contains(&count(1)), "{}", count(1));
        assert!(draws.iter().all(|draw| *draw < 1_000));
    }

    #[test]
    fn values_of_the_web_have_their_median_and_their_tail() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut lens: Vec<u64> = (0..50_000).map(|_| value_len(Value::Web, &mut rng)).collect();
        lens.sort_unstable();
        assert!((270..310).contains(&lens[25_000]), "{}", lens[25_000]);
        assert!(lens[49_999] > 8 << 20 && lens[49_999] <= 25 << 20, "{}", lens[49_999]);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let scenario = Scenario::default();
        assert_eq!(draw(&scenario, 9, 4), draw(&scenario, 9, 4));
        assert_ne!(draw(&scenario, 9, 4), draw(&scenario, 9, 5));
    }
}
