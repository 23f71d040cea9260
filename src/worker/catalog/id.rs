//! The ids of the catalog: of versions and deployments, as clients know them, and of lives, which no client sees.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names a version or a deployment: a random UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Uuid(pub(super) [u8; 16]);

impl Uuid {
    /// A UUID of version 4, made of random bytes.
    pub(super) fn of(mut random: [u8; 16]) -> Self {
        random[6] = random[6] & 0x0f | 0x40;
        random[8] = random[8] & 0x3f | 0x80;
        Self(random)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", u128::from_be_bytes(self.0));
        let at = |from, to| digits.get(from..to).unwrap_or_default();
        write!(f, "{}-{}-{}-{}-{}", at(0, 8), at(8, 12), at(12, 16), at(16, 20), at(20, 32))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no UUID")]
pub struct InvalidUuid;

impl FromStr for Uuid {
    type Err = InvalidUuid;

    fn from_str(text: &str) -> Result<Self, InvalidUuid> {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidUuid);
        }
        u128::from_str_radix(&digits, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| InvalidUuid)
    }
}

/// The life of a script, from its first upload to its deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Life(pub(super) [u8; 16]);

impl Life {
    /// 32 hexadecimal digits.
    pub(super) fn hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_reads_back() {
        let id = Uuid::of([0xff; 16]);
        assert_eq!(id.to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("ffffffff".parse::<Uuid>().is_err() && "+".repeat(32).parse::<Uuid>().is_err());
    }
}
