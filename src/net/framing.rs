//! Owns the byte layout of a class stream: one class byte, then frames of a big-endian u32 length and that many
//! bytes. Refuses to know connections and what a frame says.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn::{ReadError, ReadExactError, RecvStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest frame, bytes.
pub const FRAME_LEN_MAX: usize = 1 << 20;
/// Bytes of a frame's length prefix.
pub(super) const HEADER_LEN: usize = 4;
/// What a frame costs against the inbound budget besides its bytes: its event and allocation, so that a flood of
/// tiny frames is bounded too.
pub(super) const FRAME_OVERHEAD: usize = 64;
/// Frames that one connection may have in the consumer's hands, bytes.
pub const INBOUND_BYTES_MAX: usize = 4 << 20;
/// Each class has an equal share of [`INBOUND_BYTES_MAX`], so that a held blob doesn't delay a record. One frame of
/// [`FRAME_LEN_MAX`] takes a whole share.
pub(super) const CLASS_INBOUND_BYTES_MAX: usize = INBOUND_BYTES_MAX / Class::ALL.len();
/// Read from QUIC at a time; also the most that is read ahead of the inbound budget.
const READ_LEN: usize = 16 * 1024;

/// How urgent a frame is. Each class is ordered in itself and has its own stream; there is no order across classes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Small and most urgent.
    Control = 0,
    /// Writes on their way to other nodes.
    Records = 1,
    /// Anti-entropy.
    Sync = 2,
    /// Bulk, least urgent.
    Blobs = 3,
}

impl Class {
    /// Every class, most urgent first.
    pub const ALL: [Self; 4] = [Self::Control, Self::Records, Self::Sync, Self::Blobs];

    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// QUIC stream priority: higher goes first.
    pub(super) fn priority(self) -> i32 {
        match self {
            Self::Control => 3,
            Self::Records => 2,
            Self::Sync => 1,
            Self::Blobs => 0,
        }
    }

    /// The first byte of this class's stream. 0 is the hello's.
    pub(super) fn stream_byte(self) -> u8 {
        self as u8 + 1
    }

    pub(super) fn from_stream_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.stream_byte() == byte)
    }
}

/// Why no further frame can be read from a stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("frame of {0} bytes, at most {FRAME_LEN_MAX} are allowed")]
    TooLong(usize),
    #[error("stream ended within a frame")]
    Truncated,
    #[error("stream lost: {0}")]
    Lost(ReadError),
    /// The local side is shutting down.
    #[error("closed")]
    Closed,
}

pub(super) fn put_header(buffer: &mut BytesMut, len: usize) {
    debug_assert!(len <= FRAME_LEN_MAX);
    buffer.put_u32(len as u32);
}

/// Takes a stream's bytes apart into frames.
pub(super) struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next frame and its share of `budget`, which is taken before the frame's memory is. `None` at the end.
    pub(super) async fn next(
        &mut self,
        budget: &Arc<Semaphore>,
    ) -> Result<Option<(Bytes, OwnedSemaphorePermit)>, FrameError> {
        while self.buffer.len() < HEADER_LEN {
            if !self.fill().await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Truncated) };
            }
        }
        let len = self.buffer.get_u32() as usize;
        if len > FRAME_LEN_MAX {
            return Err(FrameError::TooLong(len));
        }
        let charge = (len + FRAME_OVERHEAD).min(CLASS_INBOUND_BYTES_MAX) as u32;
        let permit = Arc::clone(budget).acquire_many_owned(charge).await.map_err(|_| FrameError::Closed)?;
        // The frame gets memory of its own: a slice of the read buffer would pin all of it past the budget.
        let buffered = len.min(self.buffer.len());
        let mut frame = BytesMut::zeroed(len);
        let (head, tail) = frame.split_at_mut(buffered);
        self.buffer.copy_to_slice(head);
        match self.stream.read_exact(tail).await {
            Ok(()) => Ok(Some((frame.freeze(), permit))),
            Err(ReadExactError::FinishedEarly(_)) => Err(FrameError::Truncated),
            Err(ReadExactError::ReadError(error)) => Err(FrameError::Lost(error)),
        }
    }

    /// Reads what has arrived; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, FrameError> {
        let kept = self.buffer.len();
        self.buffer.reserve(READ_LEN);
        self.buffer.resize(kept + READ_LEN, 0);
        let read = match self.buffer.get_mut(kept..) {
            Some(space) => self.stream.read(space).await,
            None => Ok(None),
        };
        let (len, result) = match read {
            Ok(Some(len)) => (len, Ok(true)),
            Ok(None) => (0, Ok(false)),
            Err(error) => (0, Err(FrameError::Lost(error))),
        };
        self.buffer.truncate(kept + len);
        result
    }
}
