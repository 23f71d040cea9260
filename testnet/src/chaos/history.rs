//! What clients did and what they were told, and what became of disks meanwhile. Plain data: JSON lines, one record each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A node's disk: its number, and how many disks it has lost before. What was on a lost one is gone.
pub type Disk = (usize, u32);

/// One request of one client and its answer. Times are microseconds since the beginning of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Op {
    /// The client; its requests don't overlap.
    pub client: usize,
    /// Where it was asked.
    pub disk: Disk,
    /// When the request left.
    pub began_us: u64,
    /// When the answer was there, or given up.
    pub ended_us: u64,
    /// By how much the node's clock was set wrong.
    #[serde(default)]
    pub clock_offset_ms: i64,
    /// What was asked.
    pub what: What,
    /// What was answered.
    pub answer: Answer,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Writes a value that nobody else writes, ever.
    Put {
        /// To this key.
        key: String,
        /// The value.
        value: String,
        /// Gone from then on, Unix seconds.
        #[serde(default)]
        expires_s: Option<u64>,
    },
    /// Deletes a key.
    Delete {
        /// This one.
        key: String,
    },
    /// Reads a key.
    Get {
        /// This one.
        key: String,
        /// With the bookmark that this client got for its last write of the key.
        #[serde(default)]
        bookmark: bool,
    },
    /// Lists all keys with a prefix.
    List {
        /// The prefix.
        prefix: String,
    },
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Written, and on these disks.
    Done {
        /// Those of which it is known, the one asked included.
        on: Vec<Disk>,
    },
    /// Read.
    Found(String),
    /// There is no such key.
    Absent,
    /// Listed, all of them.
    Keys(Vec<String>),
    /// Refused: nothing was done.
    Refused(u16),
    /// Nobody knows whether it was done, or will be.
    Unknown,
}

/// All that there is to judge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Unix time of its beginning, milliseconds.
    pub epoch_ms: u64,
    /// In any order.
    pub ops: Vec<Op>,
    /// Disks that were lost, or put back as they had been earlier.
    pub lost: Vec<Disk>,
    /// What each node held when all had healed: by its name, keys and values.
    pub held: BTreeMap<String, BTreeMap<String, String>>,
    /// When that was looked at.
    pub held_us: u64,
}

impl What {
    /// The key, of what has one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::Get { key, .. } => Some(key),
            Self::List { .. } => None,
        }
    }

    /// Whether it changes anything.
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. })
    }
}

impl Op {
    /// Whether it surely took place after the other one.
    pub fn follows(&self, other: &Self) -> bool {
        other.ended_us < self.began_us
    }

    /// Written for certain.
    pub fn is_done(&self) -> bool {
        matches!(self.answer, Answer::Done { .. })
    }
}
