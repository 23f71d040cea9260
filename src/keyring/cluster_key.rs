//! The cluster key: 32 random bytes, written as 64 hexadecimal digits.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::{Zeroize, Zeroizing};

use super::KeyError;
use crate::node::entropy;
use crate::replica::SharedSecret;
use crate::secret::Secret;

/// A cluster key, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; 32]);

/// Names a cluster key without giving it away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Drop for ClusterKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({})", self.id())
    }
}

impl ClusterKey {
    /// A fresh one.
    pub fn generate() -> Result<Self, KeyError> {
        entropy().map(Self).map_err(KeyError::Entropy)
    }

    /// The key that a secret of [`NamespaceId::CLUSTER`](crate::replica::NamespaceId::CLUSTER) holds.
    pub fn from_secret(secret: &SharedSecret) -> Option<Self> {
        secret.bytes.0[..].try_into().ok().map(Self)
    }

    /// From 64 hexadecimal digits, or base64 of 32 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let decoded = match text.len() {
            64 => Zeroizing::new(hex(text)?),
            43 => Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?),
            44 => Zeroizing::new(STANDARD.decode(text).ok()?),
            _ => return None,
        };
        decoded[..].try_into().ok().map(Self)
    }

    /// All keys of a text: the one in use first, then former ones. `#` begins a comment.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let keys: Option<Vec<Self>> = lines.flat_map(str::split_whitespace).map(Self::parse).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(keys),
            Some(_) => Err("it is empty".into()),
            None => Err("it is not 64 hexadecimal digits (make one with `starling key generate`)".into()),
        }
    }

    /// As people keep it.
    pub fn to_text(&self) -> Secret {
        Secret::new(&Zeroizing::new(self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        let hash = blake3::derive_key("starling 1 id of a cluster key", &self.0);
        let [a, b, c, d, e, f, g, h, ..] = hash;
        KeyId([a, b, c, d, e, f, g, h])
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}
