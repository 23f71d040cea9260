//! AES-256-GCM (NIST SP 800-38D) with a subkey for each process that seals: nonces are counted, never drawn, and no
//! two processes count under one subkey.
//!
//! Sealed bytes: format (1) ‖ number of the key (8) ‖ the sealing process (16) ‖ count (8) ‖ ciphertext ‖ tag (16).

use bytes::{BufMut, Bytes, BytesMut};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use super::CipherError;
use crate::replica::limits::SEAL_OVERHEAD_MAX;

const HEADER_LEN: usize = 1 + 8 + 16 + 8;
const TAG_LEN: usize = 16;

/// Bytes that sealing adds.
pub const SEALED_OVERHEAD: usize = HEADER_LEN + TAG_LEN;
const _: () = assert!(SEALED_OVERHEAD <= SEAL_OVERHEAD_MAX);

/// What stands before the ciphertext.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) format: u8,
    pub(super) number: u64,
    pub(super) life: [u8; 16],
    pub(super) count: u64,
}

impl Header {
    pub(super) fn read(sealed: &[u8]) -> Option<Self> {
        if sealed.len() < SEALED_OVERHEAD {
            return None;
        }
        let (format, rest) = sealed.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (life, rest) = rest.split_first_chunk()?;
        let (count, _) = rest.split_first_chunk()?;
        let (number, count) = (u64::from_be_bytes(*number), u64::from_be_bytes(*count));
        Some(Self { format: *format, number, life: *life, count })
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.count.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

/// One subkey, ready for use.
pub(super) struct Cipher(LessSafeKey);

impl Cipher {
    /// The subkey of `key` for the process `life`.
    pub(super) fn derive(key: &[u8], life: &[u8; 16]) -> Self {
        let mut material = Zeroizing::new(Vec::with_capacity(key.len() + life.len()));
        material.extend_from_slice(key);
        material.extend_from_slice(life);
        let mut subkey = blake3::derive_key("starling 1 AES-256-GCM subkey of a sealing process", &material);
        let cipher = Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &subkey).expect("32 bytes are a key")));
        subkey.zeroize();
        cipher
    }

    pub(super) fn seal(&self, header: Header, about: &[u8], plain: &[u8]) -> Result<Bytes, CipherError> {
        let mut sealed = BytesMut::with_capacity(SEALED_OVERHEAD + plain.len());
        sealed.put_u8(header.format);
        sealed.put_u64(header.number);
        sealed.put_slice(&header.life);
        sealed.put_u64(header.count);
        sealed.put_slice(plain);
        let tag = self.0.seal_in_place_separate_tag(header.nonce(), Aad::from(about), &mut sealed[HEADER_LEN..]);
        // Fails beyond 64 GiB only.
        sealed.put_slice(tag.map_err(|_| CipherError::Damaged)?.as_ref());
        Ok(sealed.freeze())
    }

    pub(super) fn open(&self, about: &[u8], sealed: &[u8]) -> Result<Bytes, CipherError> {
        let header = Header::read(sealed).ok_or(CipherError::Damaged)?;
        let mut plain = BytesMut::from(&sealed[HEADER_LEN..]);
        let len = match self.0.open_in_place(header.nonce(), Aad::from(about), &mut plain) {
            Ok(opened) => opened.len(),
            Err(_) => return Err(CipherError::Damaged),
        };
        plain.truncate(len);
        Ok(plain.freeze())
    }
}
