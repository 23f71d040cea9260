//! A world that failed made smaller while it still fails: fewer faults, fewer writes, fewer nodes.

use starling::replica::Sabotage;

use crate::outcome::Violation;
use crate::swarm::{Draw, drawn, run};
use crate::workload;
use crate::world::Kept;

/// The smallest failing world found.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// With a liar in it.
    pub liar: bool,
    /// Of which seed.
    pub seed: u64,
    /// How many nodes are left.
    pub nodes: usize,
    /// Which faults of the plan are left.
    pub faults: Kept,
    /// Which of the clients' acts are left.
    pub ops: Kept,
    /// What it breaks.
    pub violation: Violation,
}

impl Shrunk {
    /// What to type to see it again.
    pub fn command(&self, sabotage: Option<&str>) -> String {
        let liar = if self.liar { " --liar" } else { "" };
        let sabotage = sabotage.map(|name| format!(" --sabotage {name}")).unwrap_or_default();
        format!(
            "starling-sim replay --seed {} --nodes {} --faults {} --ops {}{liar}{sabotage}",
            self.seed, self.nodes, self.faults, self.ops
        )
    }
}

/// The drawn world of a seed, cut down to these nodes, faults and acts.
pub fn cut_down(
    liar: bool,
    seed: u64,
    sabotage: Sabotage,
    nodes: Option<usize>,
    faults: Option<Kept>,
    ops: Option<Kept>,
) -> Draw {
    let mut draw = drawn(liar)(seed, sabotage);
    draw.options.nodes = nodes;
    draw.options.faults = faults;
    draw.options.ops = ops;
    draw
}

/// Shrinks, with at most `attempts` runs. Calls `tell` after each.
pub fn shrink(
    liar: bool,
    seed: u64,
    sabotage: Sabotage,
    attempts: usize,
    tell: &mut dyn FnMut(&Shrunk),
) -> Option<Shrunk> {
    let whole = drawn(liar)(seed, sabotage);
    let nodes = whole.scenario.places.count;
    let acts = workload::draw(&whole.scenario, nodes, seed).len();
    let (faults, ops) = (Kept::first(whole.scenario.faults.len()), Kept::first(acts));
    let violation = run(&whole).summary.violations.first().cloned()?;
    let mut best = Shrunk { liar, seed, nodes, faults, ops, violation };
    let mut left = attempts;
    let fails = |candidate: &Shrunk, left: &mut usize| {
        *left = left.saturating_sub(1);
        let draw = cut_down(
            liar,
            seed,
            sabotage,
            Some(candidate.nodes),
            Some(candidate.faults.clone()),
            Some(candidate.ops.clone()),
        );
        run(&draw).summary.violations.first().cloned()
    };
    let mut attempt = |candidate: Shrunk, best: &mut Shrunk, left: &mut usize| {
        let violation = fails(&candidate, left);
        let same = violation.filter(|violation| violation.checker == best.violation.checker);
        if let Some(violation) = same {
            *best = Shrunk { violation, ..candidate };
            tell(best);
            return true;
        }
        false
    };
    let mut progress = true;
    while progress && left > 0 {
        progress = false;
        for part in [Part::Ops, Part::Faults] {
            progress |= thin_out(part, &mut best, &mut left, &mut attempt);
        }
        while best.nodes > 2 && left > 0 {
            let fewer = Shrunk { nodes: best.nodes - 1, ..best.clone() };
            if !attempt(fewer, &mut best, &mut left) {
                break;
            }
            progress = true;
        }
    }
    Some(best)
}

#[derive(Clone, Copy)]
enum Part {
    Ops,
    Faults,
}

/// Leaves out runs of half the list, then of a quarter, and so on, as long as it still fails.
fn thin_out(
    part: Part,
    best: &mut Shrunk,
    left: &mut usize,
    attempt: &mut dyn FnMut(Shrunk, &mut Shrunk, &mut usize) -> bool,
) -> bool {
    let list = |shrunk: &Shrunk| match part {
        Part::Ops => shrunk.ops.0.iter().copied().collect::<Vec<_>>(),
        Part::Faults => shrunk.faults.0.iter().copied().collect(),
    };
    let mut progress = false;
    let mut run = list(best).len().div_ceil(2);
    while run > 0 && *left > 0 {
        let mut start = 0;
        while start < list(best).len() && *left > 0 {
            let mut rest = list(best);
            rest.drain(start..(start + run).min(rest.len()));
            let kept = Kept(rest.into_iter().collect());
            let candidate = match part {
                Part::Ops => Shrunk { ops: kept, ..best.clone() },
                Part::Faults => Shrunk { faults: kept, ..best.clone() },
            };
            match attempt(candidate, best, left) {
                true => progress = true,
                false => start += run,
            }
        }
        run = match run {
            1 => 0,
            _ => run.div_ceil(2),
        };
    }
    progress
}
