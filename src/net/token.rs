//! The invitation that a person carries from one node to another. Owns its text form and the key its secret stands
//! for; refuses to know who issued or used it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::identity::{IdentityError, NodeKey};
use crate::replica::NodeId;

/// Addresses in a token, so that it stays short enough to paste.
pub(super) const TOKEN_ADDRESSES_MAX: usize = 16;
/// Longest text that is looked at, bytes.
const TEXT_LEN_MAX: usize = 2048;
const PREFIX: &str = "starling1-";
const CHECKSUM_LEN: usize = 4;

/// Lets one node join the cluster, once. Whoever holds it can join: treat it like a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Where the issuer listens.
    pub addresses: Vec<SocketAddr>,
    /// BLAKE3 of the cluster authority's DER certificate.
    pub authority_fingerprint: [u8; 32],
    /// The node that made the token, the only one that accepts it.
    pub issuer: NodeId,
    /// Unix time, seconds, by the issuer's clock.
    pub expires_secs: u64,
    pub(super) secret: [u8; 32],
}

impl Drop for JoinToken {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("addresses", &self.addresses)
            .field("issuer", &self.issuer)
            .field("expires_secs", &self.expires_secs)
            .finish_non_exhaustive()
    }
}

impl JoinToken {
    /// The client key that proves possession of the secret within the TLS handshake.
    pub(super) fn client_key(&self) -> Result<NodeKey, IdentityError> {
        let seed = Zeroizing::new(blake3::derive_key("starling 1 join token: Ed25519 client key seed", &self.secret));
        NodeKey::from_seed(&seed)
    }
}

/// Why a text is not a join token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Doesn't begin like a token.
    #[error(
        "this is not a join token (a token begins with \"{PREFIX}\"): copy it from the output of the invite command"
    )]
    NotAToken,
    /// A token of another version of the format.
    #[error("this join token was made by another version of Starling: run the same version on both nodes")]
    OtherVersion,
    /// Begins like a token, but something is missing or changed.
    #[error("the join token is damaged (part of it is missing or changed): copy the whole of it again")]
    Mangled,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Zeroizing::new(postcard::to_stdvec(self).map_err(|_| fmt::Error)?);
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        write!(f, "{PREFIX}{}", *Zeroizing::new(URL_SAFE_NO_PAD.encode(&*bytes)))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        if text.len() > TEXT_LEN_MAX {
            return Err(TokenError::NotAToken);
        }
        // A terminal may have wrapped it.
        let text: Zeroizing<String> =
            Zeroizing::new(text.chars().filter(|character| !character.is_whitespace()).collect());
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            let other = text.strip_prefix("starling").and_then(|rest| rest.split_once('-'));
            return Err(match other {
                Some((version, _)) if !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()) => {
                    TokenError::OtherVersion
                }
                _ => TokenError::NotAToken,
            });
        };
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Mangled)?);
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(TokenError::Mangled)?;
        if checksum(body) != *sum {
            return Err(TokenError::Mangled);
        }
        let token: Self = postcard::from_bytes(body).map_err(|_| TokenError::Mangled)?;
        if token.addresses.is_empty() || token.addresses.len() > TOKEN_ADDRESSES_MAX {
            return Err(TokenError::Mangled);
        }
        Ok(token)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let [a, b, c, d, ..] = <[u8; 32]>::from(blake3::hash(bytes));
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            addresses: vec!["192.0.2.1:4433".parse().unwrap(), "[2001:db8::1]:4433".parse().unwrap()],
            authority_fingerprint: [7; 32],
            issuer: NodeId(0x0123_4567_89ab_cdef),
            expires_secs: 1_800_000_000,
            secret: [0xab; 32],
        }
    }

    #[test]
    fn text_round_trip_survives_wrapping() {
        let text = token().to_string();
        assert!(text.starts_with(PREFIX));
        assert_eq!(text.parse::<JoinToken>().unwrap(), token());
        let (head, tail) = text.split_at(40);
        assert_eq!(format!("  {head}\n{tail}\r\n").parse::<JoinToken>().unwrap(), token());
    }

    #[test]
    fn every_single_change_is_noticed() {
        let text = token().to_string();
        for index in PREFIX.len()..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(changed.parse::<JoinToken>(), Err(TokenError::Mangled), "{index}");
        }
        assert_eq!(text[..text.len() - 3].parse::<JoinToken>(), Err(TokenError::Mangled));
        assert_eq!("starling1-".parse::<JoinToken>(), Err(TokenError::Mangled));
        assert_eq!("starling2-abc".parse::<JoinToken>(), Err(TokenError::OtherVersion));
        assert_eq!("hello".parse::<JoinToken>(), Err(TokenError::NotAToken));
    }

    #[test]
    fn debug_hides_the_secret() {
        let text = format!("{:?}", token());
        assert!(!text.contains("171") && !text.contains("ab, ab") && !text.contains("secret"), "{text}");
    }

    proptest! {
        #[test]
        fn tokens_come_back_as_they_were(
            addresses in prop::collection::vec(any::<SocketAddr>(), 1..=TOKEN_ADDRESSES_MAX),
            (authority_fingerprint, issuer, expires_secs, secret) in any::<([u8; 32], u64, u64, [u8; 32])>(),
        ) {
            // Neither flow nor scope is part of where to dial.
            let plain = |address: SocketAddr| SocketAddr::new(address.ip(), address.port());
            let addresses = addresses.into_iter().map(plain).collect();
            let token = JoinToken { addresses, authority_fingerprint, issuer: NodeId(issuer), expires_secs, secret };
            prop_assert_eq!(token.to_string().parse::<JoinToken>(), Ok(token));
        }

        #[test]
        fn any_text_is_a_token_or_an_error(rest in "\\PC{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = rest.parse::<JoinToken>();
            let _ = format!("{PREFIX}{rest}").parse::<JoinToken>();
            // With a checksum that fits: what is inside is looked at, too.
            let sealed = [&bytes[..], &checksum(&bytes)[..]].concat();
            if let Ok(token) = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed)).parse::<JoinToken>() {
                prop_assert!((1..=TOKEN_ADDRESSES_MAX).contains(&token.addresses.len()));
            }
        }
    }
}
