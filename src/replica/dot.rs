//! Who wrote what: node ids, origins (one life of one node) and dots (one write of one origin).
//!
//! Knows nothing of what was written, nor in which order writes of different origins happened.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A node, for as long as its data directory lives: the first eight bytes of the BLAKE3 hash of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

/// One life of one node. Every process start that writes is a new origin, whatever its data directory has been
/// through (crash, restored backup, clone): so a dot can never be used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The node that lives.
    pub node: NodeId,
    /// Random, minted at the first local write after a process start.
    pub incarnation: Incarnation,
}

/// Tells the lives of one node apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Incarnation(pub u64);

/// One write: the `seq`-th of its origin. Sequence numbers are dense and start at 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Dot {
    /// The life that wrote.
    pub origin: Origin,
    /// 1 for the first write of that life.
    pub seq: u64,
}

impl Origin {
    /// Encoded length in bytes, on disk and on the wire.
    pub const LEN: usize = 16;

    /// Big-endian bytes: origins sort by node, then by incarnation.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.node.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.incarnation.0.to_be_bytes());
        bytes
    }

    /// The inverse of [`Origin::to_bytes`]; `None` if there are not exactly [`Origin::LEN`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (node, incarnation) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            node: NodeId(u64::from_be_bytes(*node)),
            incarnation: Incarnation(u64::from_be_bytes(incarnation.try_into().ok()?)),
        })
    }

    /// The `seq`-th write of this origin.
    pub fn dot(self, seq: u64) -> Dot {
        Dot { origin: self, seq }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.node, self.incarnation.0)
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.seq)
    }
}

impl FromStr for NodeId {
    type Err = std::num::ParseIntError;

    /// Reads the 16 hexadecimal digits that `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(NodeId)
    }
}

// Random 64-bit numbers cost ten bytes as varints and eight as they are.
macro_rules! eight_bytes {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.0.to_be_bytes().serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <[u8; 8]>::deserialize(deserializer).map(|bytes| Self(u64::from_be_bytes(bytes)))
            }
        }
    };
}

eight_bytes!(NodeId);
eight_bytes!(Incarnation);
