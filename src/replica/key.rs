//! Keys and namespaces: how entries are addressed and in which order they lie.
//!
//! Knows which namespaces are the system's own, not what stands in them.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::limits::KEY_LEN_MAX;

/// A namespace: 16 bytes, written as 32 hexadecimal digits. Those whose first 15 bytes are zero are the system's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamespaceId(pub [u8; 16]);

impl NamespaceId {
    /// No entries: owns the key that the system's own entries are sealed with.
    pub const SYSTEM: Self = Self::system(0);
    /// The roster: node id → [`NodeInfo`](super::roster::NodeInfo). Written by the node itself.
    pub const NODES: Self = Self::system(1);
    /// Node ids that were evicted. Only ever added to.
    pub const EVICTED: Self = Self::system(2);
    /// Namespace id → title and account; opaque to the replica.
    pub const NAMESPACES: Self = Self::system(3);
    /// Ids of deleted namespaces. Only ever added to; an id here dominates every entry of that namespace.
    pub const DELETED: Self = Self::system(4);
    /// Hashes of API tokens; opaque to the replica.
    pub const TOKENS: Self = Self::system(5);
    /// Facts about the cluster (its account ids); opaque to the replica.
    pub const CLUSTER: Self = Self::system(6);

    /// Ids of revoked tokens. Only ever added to; opaque to the replica.
    pub const REVOKED: Self = Self::system(7);
    /// Token id → when it was last used; opaque to the replica.
    pub const TOKEN_USES: Self = Self::system(8);
    /// Account id → its name; opaque to the replica.
    pub const ACCOUNTS: Self = Self::system(9);
    /// The audit log; opaque to the replica.
    pub const AUDIT: Self = Self::system(10);
    /// What Workers are made of: scripts, versions, deployments, routes; opaque to the replica.
    pub const WORKERS: Self = Self::system(11);
    /// The files of Workers: modules, secrets, static assets; opaque to the replica.
    pub const WORKER_FILES: Self = Self::system(12);

    const fn system(number: u8) -> Self {
        let mut id = [0; 16];
        id[15] = number;
        Self(id)
    }

    /// Whether users can't reach it.
    pub fn is_system(self) -> bool {
        self.0[..15].iter().all(|byte| *byte == 0)
    }
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidNamespaceId;

impl fmt::Display for InvalidNamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a namespace id is 32 hexadecimal digits")
    }
}

impl std::error::Error for InvalidNamespaceId {}

impl FromStr for NamespaceId {
    type Err = InvalidNamespaceId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // For every request: by far faster than parsing a number.
        let (digits, []) = text.as_bytes().as_chunks::<2>() else { return Err(InvalidNamespaceId) };
        let digits: &[[u8; 2]; 16] = digits.try_into().map_err(|_| InvalidNamespaceId)?;
        let mut id = [0; 16];
        for (byte, [high, low]) in id.iter_mut().zip(digits) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(id))
    }
}

fn digit(character: u8) -> Result<u8, InvalidNamespaceId> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        b'A'..=b'F' => Ok(character - b'A' + 10),
        _ => Err(InvalidNamespaceId),
    }
}

/// Namespace and key bytes in one: the address of an entry. Sorts by namespace, then by raw key bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// `None` if the key part is empty or longer than [`KEY_LEN_MAX`].
    pub fn new(namespace: NamespaceId, name: &[u8]) -> Option<Self> {
        if name.is_empty() || name.len() > KEY_LEN_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(16 + name.len());
        bytes.extend_from_slice(&namespace.0);
        bytes.extend_from_slice(name);
        Some(Self(bytes.into()))
    }

    /// From the bytes that [`Key::as_bytes`] gave. `None` if they can't be a key.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        (17..=16 + KEY_LEN_MAX).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// Namespace ‖ name, as it lies on disk.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The namespace.
    pub fn namespace(&self) -> NamespaceId {
        let mut id = [0; 16];
        id.copy_from_slice(&self.0[..16]);
        NamespaceId(id)
    }

    /// The key as its user knows it.
    pub fn name(&self) -> Bytes {
        self.0.slice(16..)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace(), self.0[16..].escape_ascii())
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        Self::from_bytes(bytes).ok_or_else(|| serde::de::Error::custom("key out of bounds"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_and_only_32_digits_are_ids() {
        let id = NamespaceId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("+".repeat(32).parse::<NamespaceId>().is_err());
        assert!("ab".parse::<NamespaceId>().is_err());
        assert!(NamespaceId::DELETED.is_system() && !id.is_system());
    }

    #[test]
    fn key_bounds() {
        let namespace = NamespaceId([1; 16]);
        assert!(Key::new(namespace, b"").is_none());
        assert!(Key::new(namespace, &[7; KEY_LEN_MAX]).is_some());
        assert!(Key::new(namespace, &[7; KEY_LEN_MAX + 1]).is_none());
        assert!(Key::from_bytes(Bytes::from_static(&[0; 16])).is_none());
    }
}
