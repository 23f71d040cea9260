//! Which faults, where and when: drawn from the seed before anything happens. Knows no processes.

use std::fmt;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// No fault begins earlier: clients come first.
const BEGIN_MS: u64 = 3_000;
/// Between the ends of faults and the end of the time.
const END_MS: u64 = 5_000;
/// How long a wipe takes at least: the old node must count as gone before it can be evicted.
const WIPE_MS: u64 = 20_000;
/// A restart of one node.
const RESTART_MS: u64 = 4_000;

/// A fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Planned {
    /// When it begins.
    pub at_ms: u64,
    /// For how long it lasts; 0 where its end is its own matter.
    pub lasts_ms: u64,
    /// What it is.
    pub hurt: Hurt,
}

/// What can be done to nodes and ways, by node number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hurt {
    /// kill -9; started again at the end.
    Kill(usize),
    /// SIGSTOP; SIGCONT at the end.
    Still(usize),
    /// Nothing goes from the first to the second ones, nor back unless it is one way only.
    Cut(Vec<usize>, Vec<usize>, bool),
    /// A node's ways get slow and lossy: milliseconds and per cent.
    Slow(usize, u64, u64),
    /// No file may grow; lifted by a restart at the end.
    Full(usize),
    /// The clock is off by milliseconds; set right at the end.
    Clock(usize, i64),
    /// A clean restart.
    Restart(usize),
    /// A clean restart of all, one after the other.
    Rolling,
    /// The disk is lost; joins anew.
    Wipe(usize),
    /// A copy of the directory is taken.
    Copy(usize),
    /// A kill, and that copy is put back.
    Restore(usize),
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |nodes: &[usize]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        match &self.hurt {
            Hurt::Kill(node) => write!(f, "kill -9 {node}")?,
            Hurt::Still(node) => write!(f, "SIGSTOP {node}")?,
            Hurt::Cut(a, b, false) => write!(f, "cut {} | {}", list(a), list(b))?,
            Hurt::Cut(a, b, true) => write!(f, "cut {} -> {}", list(a), list(b))?,
            Hurt::Slow(node, ms, percent) => write!(f, "slow {node}: +{ms} ms, {percent} % loss")?,
            Hurt::Full(node) => write!(f, "full disk {node}")?,
            Hurt::Clock(node, ms) => write!(f, "clock of {node} {ms:+} ms")?,
            Hurt::Restart(node) => write!(f, "restart {node}")?,
            Hurt::Rolling => write!(f, "restart all, one after the other")?,
            Hurt::Wipe(node) => write!(f, "wipe {node}, which joins anew")?,
            Hurt::Copy(node) => write!(f, "copy the directory of {node}")?,
            Hurt::Restore(node) => write!(f, "put back an old copy at {node}")?,
        }
        if self.lasts_ms > 0 {
            write!(f, ", for {:.1} s", self.lasts_ms as f64 / 1e3)?;
        }
        Ok(())
    }
}

/// The plan for so many nodes and so long.
pub fn draw(nodes: usize, duration_ms: u64, seed: u64) -> Vec<Planned> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x0063_6861_6f73);
    let mut plan = Vec::new();
    // Until when each node's process and disk are somebody's business.
    let mut busy_ms = vec![0; nodes];
    let mut copied = vec![false; nodes];
    let mut rolled = false;
    let mut at_ms = BEGIN_MS;
    let last_ms = duration_ms.saturating_sub(END_MS);
    loop {
        at_ms += rng.random_range(500..4_500);
        if at_ms >= last_ms {
            return plan;
        }
        let hurt_now = busy_ms.iter().filter(|until| **until > at_ms).count();
        let free: Vec<usize> = (0..nodes).filter(|node| busy_ms[*node] <= at_ms).collect();
        let node = free.get(rng.random_range(0..free.len().max(1))).copied();
        let short = rng.random_range(500..8_000);
        let long = rng.random_range(2_000..16_000);
        let roll = rng.random_range(0..100);
        let (sets, offset) = (sides(nodes, &mut rng), offset_ms(&mut rng));
        let slow = (rng.random_range(50..800), rng.random_range(0..30));
        let is_one_way = rng.random_range(0..3) == 0;
        let (hurt, lasts_ms) = match (roll, node) {
            (0..18, _) => (Hurt::Cut(sets.0, sets.1, is_one_way), long),
            (18..28, _) => (Hurt::Slow(rng.random_range(0..nodes), slow.0, slow.1), long),
            // Half of the nodes at least are left alone.
            _ if hurt_now * 2 >= nodes => continue,
            (28..45, Some(node)) => (Hurt::Kill(node), short),
            (45..58, Some(node)) => (Hurt::Still(node), long),
            (58..65, Some(node)) => (Hurt::Full(node), short),
            (65..75, Some(node)) => (Hurt::Clock(node, offset), long),
            (75..81, Some(node)) => (Hurt::Restart(node), 0),
            (81..87, Some(node)) if at_ms + WIPE_MS < last_ms => (Hurt::Wipe(node), 0),
            (87..98, Some(node)) => match copied[node] {
                true => (Hurt::Restore(node), 0),
                false => (Hurt::Copy(node), 0),
            },
            (98.., Some(_)) if !rolled && hurt_now == 0 && at_ms + RESTART_MS * (nodes as u64) < last_ms => {
                (Hurt::Rolling, 0)
            }
            _ => continue,
        };
        let takes_ms = match &hurt {
            Hurt::Wipe(_) => WIPE_MS,
            Hurt::Rolling => RESTART_MS * nodes as u64,
            _ => lasts_ms + RESTART_MS,
        };
        match &hurt {
            Hurt::Cut(..) | Hurt::Slow(..) => {}
            Hurt::Rolling => {
                rolled = true;
                busy_ms.iter_mut().for_each(|until| *until = at_ms + takes_ms);
            }
            Hurt::Copy(node) => copied[*node] = true,
            // A copy of a node that is somebody else by now is of no use.
            Hurt::Wipe(node) | Hurt::Restore(node) => copied[*node] = false,
            _ => {}
        }
        if let Some(node) = hurt.node() {
            busy_ms[node] = at_ms + takes_ms;
        }
        let lasts_ms = lasts_ms.min(last_ms - at_ms);
        plan.push(Planned { at_ms, lasts_ms, hurt });
    }
}

impl Hurt {
    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::Still(_) => "stop",
            Self::Cut(..) => "cut",
            Self::Slow(..) => "slow",
            Self::Full(_) => "full disk",
            Self::Clock(..) => "clock",
            Self::Restart(_) => "restart",
            Self::Rolling => "rolling restart",
            Self::Wipe(_) => "wipe",
            Self::Copy(_) => "copy",
            Self::Restore(_) => "restore",
        }
    }

    /// Whose process or disk it is about.
    pub fn node(&self) -> Option<usize> {
        match self {
            Self::Cut(..) | Self::Slow(..) | Self::Rolling => None,
            Self::Kill(node) | Self::Still(node) | Self::Full(node) | Self::Clock(node, _) => Some(*node),
            Self::Restart(node) | Self::Wipe(node) | Self::Copy(node) | Self::Restore(node) => Some(*node),
        }
    }
}

/// One node and all others, or two halves, or just two nodes.
fn sides(nodes: usize, rng: &mut ChaCha8Rng) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..nodes).collect();
    for at in (1..nodes).rev() {
        order.swap(at, rng.random_range(0..=at));
    }
    let (first, rest) = match rng.random_range(0..3) {
        0 => (1, nodes.saturating_sub(1)),
        1 => (nodes / 2, nodes - nodes / 2),
        _ => (1, 1),
    };
    let mut order = order.into_iter();
    let mut take = |count| {
        let mut side: Vec<usize> = order.by_ref().take(count).collect();
        side.sort_unstable();
        side
    };
    (take(first), take(rest))
}

/// A little, half a minute, or so much that the node refuses writes; either way.
fn offset_ms(rng: &mut ChaCha8Rng) -> i64 {
    let most = [2_000, 30_000, 90_000][rng.random_range(0..3)];
    let offset = rng.random_range(most / 20..most);
    if rng.random_range(0..2) == 0 { offset } else { -offset }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_draws_the_same_and_a_quarter_of_an_hour_has_everything() {
        assert_eq!(draw(9, 120_000, 7), draw(9, 120_000, 7));
        assert_ne!(draw(9, 120_000, 7), draw(9, 120_000, 8));
        let mut kinds = BTreeSet::new();
        for seed in 0..4 {
            let plan = draw(9, 900_000, seed);
            assert!(plan.len() > 150, "{}", plan.len());
            for planned in &plan {
                assert!(planned.at_ms + planned.lasts_ms < 900_000);
                kinds.insert(format!("{:?}", planned.hurt).split(['(', ' ']).next().map(str::to_owned));
            }
        }
        assert_eq!(kinds.len(), 11, "{kinds:?}");
    }

    #[test]
    fn nobody_is_hurt_twice_at_once_and_copies_come_before_restores() {
        for seed in 0..50 {
            let mut copied = BTreeSet::new();
            let mut until_ms = [0; 5];
            for planned in draw(5, 300_000, seed) {
                if let Some(node) = planned.hurt.node() {
                    assert!(planned.at_ms >= until_ms[node], "seed {seed}: {planned}");
                    until_ms[node] = planned.at_ms + planned.lasts_ms;
                }
                match planned.hurt {
                    Hurt::Copy(node) => assert!(copied.insert(node)),
                    Hurt::Restore(node) => assert!(copied.remove(&node)),
                    Hurt::Wipe(node) => _ = copied.remove(&node),
                    _ => {}
                }
            }
        }
    }
}
