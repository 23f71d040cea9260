//! What can go wrong.

use serde::{Deserialize, Serialize};

use super::{Bursts, Selector};
use crate::lies::Lie;
use crate::span::Span;

/// Something goes wrong at some time with some nodes, for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// When it begins.
    pub at: Span,
    /// When it ends, counted from there.
    #[serde(rename = "for", default)]
    pub lasts: Span,
    /// Whom it befalls.
    #[serde(default)]
    pub nodes: Selector,
    /// What it is.
    #[serde(flatten)]
    pub kind: FaultKind,
}

impl Fault {
    /// Whether everyone that it names exists among so many nodes and the real places.
    pub(super) fn check(&self, nodes: usize) -> Result<(), String> {
        self.nodes.check(nodes)?;
        match &self.kind {
            FaultKind::Partition { from, .. } | FaultKind::Reset { from } => from.check(nodes),
            _ => Ok(()),
        }
    }
}

/// The kinds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FaultKind {
    /// Power is cut; what was not synced is lost, except perhaps the first few commits of it, and a torn last batch
    /// always. The node starts again at the end.
    Crash {
        /// Unsynced commits that may reach the disk all the same.
        #[serde(default)]
        keep: u64,
    },
    /// A crash, after which the directory is put back as it was some time ago.
    Restore {
        /// How long ago.
        age: Span,
    },
    /// A crash, after which the directory is empty: the machine joins anew, as another node, and the old one is
    /// evicted.
    Wipe,
    /// A second process starts with a copy of the directory, and runs until the end.
    Clone,
    /// New nodes join, at random places.
    Join {
        /// How many.
        count: usize,
    },
    /// The node leaves the cluster for good.
    Leave,
    /// The others take the node off the cluster while it runs.
    Evict {
        /// Nothing goes through between it and the others until the end.
        #[serde(default)]
        cut_off: bool,
        /// Once it has heard of it, it joins anew, as another node, and issues again what it alone has.
        #[serde(default)]
        returns: bool,
    },
    /// The node lies, and at the end the others take it off the cluster.
    Lie {
        /// How.
        lies: Vec<Lie>,
    },
    /// Nothing goes through between these nodes and others.
    Partition {
        /// Which others; by default all.
        #[serde(default)]
        from: Selector,
        /// Which way is cut.
        #[serde(default)]
        direction: Direction,
    },
    /// A partition that comes and goes.
    Flap {
        /// From which others.
        #[serde(default)]
        from: Selector,
        /// Half of it cut, half of it not.
        period: Span,
    },
    /// Connections are reset, once.
    Reset {
        /// To which others.
        #[serde(default)]
        from: Selector,
    },
    /// Links of these nodes lose packets.
    Loss {
        /// Fraction, beside what the scenario says of links.
        loss: f64,
        /// Bursts, in place of the scenario's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bursts: Option<Bursts>,
    },
    /// The machine does everything this many times slower.
    Slow {
        /// Processor and disk.
        factor: u64,
    },
    /// The process stands still (a paused virtual machine); its connections stay up unless it takes too long.
    Pause,
    /// The node reads nothing from its connections, which stay up.
    Deaf,
    /// An fsync takes this long.
    SlowDisk {
        /// One fsync.
        fsync: Span,
    },
    /// Every commit fails. The process serves reads only, until it is started again at the end.
    DiskFull,
    /// The wall clock goes wrong.
    Clock {
        /// How.
        clock: Clock,
    },
    /// Nothing happens anywhere for this long, all clocks go on: for scenarios that last days.
    Leap {
        /// How long.
        by: Span,
    },
}

/// How a wall clock goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// It jumps ahead.
    Ahead(Span),
    /// It jumps back.
    Behind(Span),
    /// It runs faster or slower, by millionths.
    DriftPpm(i64),
    /// It stands still.
    Frozen,
}

/// Which way is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Both.
    #[default]
    Both,
    /// What these nodes send.
    Out,
    /// What they would receive.
    In,
}

impl FaultKind {
    /// As it is written in a scenario.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crash { .. } => "crash",
            Self::Restore { .. } => "restore",
            Self::Wipe => "wipe",
            Self::Clone => "clone",
            Self::Join { .. } => "join",
            Self::Leave => "leave",
            Self::Evict { .. } => "evict",
            Self::Lie { .. } => "lie",
            Self::Partition { .. } => "partition",
            Self::Flap { .. } => "flap",
            Self::Reset { .. } => "reset",
            Self::Loss { .. } => "loss",
            Self::Slow { .. } => "slow",
            Self::Pause => "pause",
            Self::Deaf => "deaf",
            Self::SlowDisk { .. } => "slow-disk",
            Self::DiskFull => "disk-full",
            Self::Clock { .. } => "clock",
            Self::Leap { .. } => "leap",
        }
    }
}
