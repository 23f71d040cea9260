//! Sealing the pieces of a backup with the cluster key. Each is bound to its backup, to its number and to whether it is
//! the last one, so that none can be left out, moved, or taken from another backup, and a file that was cut short is
//! told from a whole one.

use bytes::Bytes;
use zeroize::{Zeroize, Zeroizing};

use super::cipher::{Cipher, Header};
use super::{CipherError, ClusterKey, KeyError, KeyId};
use crate::node::entropy;

/// First byte of a sealed piece.
const FORMAT: u8 = 1;
const CONTEXT: &str = "starling 1 pieces of a backup";

/// Which piece of which backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceName {
    /// The backup's own random number.
    pub backup: [u8; 16],
    /// From 0.
    pub number: u64,
    /// Whether no other follows.
    pub is_last: bool,
}

impl PieceName {
    fn about(&self) -> [u8; 25] {
        let mut about = [0; 25];
        about[..16].copy_from_slice(&self.backup);
        about[16..24].copy_from_slice(&self.number.to_be_bytes());
        about[24] = u8::from(self.is_last);
        about
    }
}

/// Seals pieces on their way out, and opens them again.
pub struct PieceKey {
    /// Random for each stream of pieces: a piece that is sent again, after the connection broke, has another nonce.
    life: [u8; 16],
    sealing: Cipher,
    opening: Option<([u8; 16], Cipher)>,
    derived: Zeroizing<[u8; 32]>,
    key: KeyId,
}

impl PieceKey {
    /// Of a cluster key.
    pub fn of(key: &ClusterKey) -> Result<Self, KeyError> {
        let life: [u8; 16] = entropy().map_err(KeyError::Entropy)?;
        let mut bytes = blake3::derive_key(CONTEXT, key.bytes());
        let derived = Zeroizing::new(bytes);
        bytes.zeroize();
        let sealing = Cipher::derive(&derived[..], &life);
        Ok(Self { life, sealing, opening: None, derived, key: key.id() })
    }

    /// Seals a piece. Each is sealed once by one `PieceKey`.
    pub fn seal(&self, name: PieceName, plain: &[u8]) -> Result<Bytes, CipherError> {
        let number = u64::from_be_bytes(self.key.0);
        let header = Header { format: FORMAT, number, life: self.life, count: name.number };
        self.sealing.seal(header, &name.about(), plain)
    }

    /// The inverse of [`PieceKey::seal`], whichever stream the piece came with.
    pub fn open(&mut self, name: PieceName, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CipherError> {
        let header = Header::read(sealed).ok_or(CipherError::Damaged)?;
        if header.format != FORMAT {
            return Err(CipherError::Damaged);
        }
        if self.opening.as_ref().is_none_or(|(life, _)| *life != header.life) {
            self.opening = Some((header.life, Cipher::derive(&self.derived[..], &header.life)));
        }
        let (_, cipher) = self.opening.as_ref().ok_or(CipherError::Damaged)?;
        let plain = cipher.open(&name.about(), sealed)?;
        Ok(Zeroizing::new(plain.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: PieceName = PieceName { backup: [7; 16], number: 3, is_last: false };

    #[test]
    fn a_piece_opens_in_its_place_only() {
        let key = ClusterKey::generate().expect("entropy");
        let (first, second) = (PieceKey::of(&key).expect("entropy"), PieceKey::of(&key).expect("entropy"));
        let sealed = [first.seal(NAME, b"rows").expect("seals"), second.seal(NAME, b"rows").expect("seals")];
        assert_ne!(sealed[0], sealed[1], "another stream has another nonce");
        let mut opener = PieceKey::of(&key).expect("entropy");
        for sealed in &sealed {
            assert_eq!(opener.open(NAME, sealed).expect("opens")[..], b"rows"[..]);
            for other in [
                PieceName { backup: [8; 16], ..NAME },
                PieceName { number: 4, ..NAME },
                PieceName { is_last: true, ..NAME },
            ] {
                assert!(opener.open(other, sealed).is_err(), "{other:?}");
            }
            for at in 0..sealed.len() {
                let mut changed = sealed.to_vec();
                changed[at] ^= 1;
                // The name of the key is there for people; it opens nothing.
                assert!((1..9).contains(&at) || opener.open(NAME, &changed).is_err(), "byte {at}");
            }
            assert!(opener.open(NAME, &sealed[..sealed.len() - 1]).is_err());
        }
        let mut stranger = PieceKey::of(&ClusterKey::generate().expect("entropy")).expect("entropy");
        assert!(stranger.open(NAME, &sealed[0]).is_err());
    }
}
