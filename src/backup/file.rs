//! The file: `starbak1` ‖ id of the cluster key (8) ‖ number of the backup (16), then frames.
//!
//! A frame is the length of what follows it (4, big-endian) ‖ kind (1) ‖ the first 16 bytes of BLAKE3 of the rest ‖ the
//! rest. Kinds: 0, a sealed piece; 1, the last one; 2, plain text that says why no more comes, which is never kept.
//! The checksum finds damage without the key; the seal finds everything else.

use std::io;

use serde::{Deserialize, Serialize};

use crate::keyring::KeyId;
use crate::node::Belongings;
use crate::store::Rows;

const MAGIC: &[u8; 8] = b"starbak1";
/// Bytes before the first frame.
pub const HEADER_LEN: usize = MAGIC.len() + 8 + 16;
const SUM_LEN: usize = 16;
/// Bytes of a frame before what it carries.
const FRAME_HEADER_LEN: usize = 4 + 1 + SUM_LEN;
/// Longest frame, in bytes: above what all secrets of a node take, which are in one.
const FRAME_LEN_MAX: usize = 80 << 20;

/// What stands before the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The cluster key that opens it.
    pub key: KeyId,
    /// The backup's own random number.
    pub backup: [u8; 16],
}

/// What a piece carries.
#[derive(Serialize, Deserialize)]
pub(super) enum Piece {
    /// The first: what a node has beside its store.
    Belongings(Box<Belongings>),
    /// Then: its store.
    Rows(Rows),
    /// At last: there is no more.
    End,
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Frame {
    /// A piece, sealed.
    Piece {
        /// As it came.
        sealed: Vec<u8>,
        /// Whether no other follows.
        is_last: bool,
    },
    /// Why no more comes.
    Failed(String),
}

impl Header {
    /// As it stands in the file.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&self.key.0);
        header[16..].copy_from_slice(&self.backup);
        header
    }

    /// The inverse of [`Header::encode`].
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (key, rest) = rest.split_first_chunk()?;
        Some(Self { key: KeyId(*key), backup: rest.try_into().ok()? })
    }
}

impl Frame {
    /// As it stands in the file.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, rest) = match self {
            Self::Piece { sealed, is_last } => (u8::from(*is_last), &sealed[..]),
            Self::Failed(why) => (2, why.as_bytes()),
        };
        let mut frame = Vec::with_capacity(FRAME_HEADER_LEN + rest.len());
        frame.extend_from_slice(&((1 + SUM_LEN + rest.len()) as u32).to_be_bytes());
        frame.push(kind);
        frame.extend_from_slice(&sum(kind, rest));
        frame.extend_from_slice(rest);
        frame
    }
}

fn sum(kind: u8, rest: &[u8]) -> [u8; SUM_LEN] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(rest);
    let mut sum = [0; SUM_LEN];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// Cuts frames out of bytes as they come.
#[derive(Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    /// More bytes have come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether bytes are left that are no whole frame.
    pub fn is_within_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// How many bytes are missing for the next frame, at least; 0 if it is here.
    fn missing(&self) -> io::Result<usize> {
        let Some(len) = self.buffer.first_chunk::<4>() else { return Ok(4 - self.buffer.len()) };
        let len = u32::from_be_bytes(*len) as usize;
        if !(1 + SUM_LEN..=FRAME_LEN_MAX).contains(&len) {
            return Err(wrong("its length can't be"));
        }
        Ok((4 + len).saturating_sub(self.buffer.len()))
    }

    /// The next frame and how many bytes it takes; `None` if more bytes are needed.
    pub fn cut(&mut self) -> io::Result<Option<(Frame, usize)>> {
        if self.missing()? > 0 {
            return Ok(None);
        }
        let Some(len) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let len = 4 + u32::from_be_bytes(*len) as usize;
        let (kind, expected, rest) =
            (self.buffer[4], &self.buffer[5..FRAME_HEADER_LEN], &self.buffer[FRAME_HEADER_LEN..len]);
        if expected != sum(kind, rest) {
            return Err(wrong("its checksum is wrong"));
        }
        let frame = match kind {
            0 | 1 => Frame::Piece { sealed: rest.to_vec(), is_last: kind == 1 },
            2 => Frame::Failed(String::from_utf8_lossy(rest).into_owned()),
            _ => return Err(wrong("it is of a kind that this version of starling does not know")),
        };
        self.buffer.drain(..len);
        Ok(Some((frame, len)))
    }
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_is_read_back_and_nothing_else_is() {
        let header = Header { key: KeyId([1; 8]), backup: [2; 16] };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        assert_eq!(Header::decode(&header.encode()[1..]), None);
        assert_eq!(Header::decode(b"starbak2aaaaaaaabbbbbbbbbbbbbbbb"), None);
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..6), cut in 1_usize..40,
        ) {
            let frames: Vec<Frame> =
                bodies.into_iter().enumerate().map(|(n, sealed)| Frame::Piece { sealed, is_last: n == 5 }).collect();
            let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
            let (mut parser, mut found, mut len) = (Frames::default(), Vec::new(), 0);
            for part in bytes.chunks(cut) {
                parser.push(part);
                while let Some((frame, bytes)) = parser.cut().expect("frames") {
                    found.push(frame);
                    len += bytes;
                }
            }
            prop_assert_eq!((found, len, parser.is_within_frame()), (frames, bytes.len(), false));
        }

        #[test]
        fn a_changed_frame_is_found(sealed in prop::collection::vec(any::<u8>(), 0..200), at in any::<u16>(), bit in 0_u8..8) {
            let frame = Frame::Piece { sealed, is_last: false };
            let mut bytes = frame.encode();
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= 1 << bit;
            let mut parser = Frames::default();
            parser.push(&bytes);
            // A length that has grown waits for more.
            prop_assert!(!matches!(parser.cut(), Ok(Some(_))));
        }

        #[test]
        fn any_bytes_are_cut_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let mut parser = Frames::default();
            parser.push(&bytes);
            while let Ok(Some(_)) = parser.cut() {}
            let _ = Header::decode(&bytes);
        }
    }
}
