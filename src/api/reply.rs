//! What goes out: the body of a response, whole or streamed from a blob.
//!
//! Knows nothing of envelopes, routes or errors a user can make.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};

use super::backups::PiecesBody;
use super::changes::Events;
use crate::kv::{BlobReader, KvError};

/// A response as every handler returns it.
pub(crate) type Reply = Response<ReplyBody>;

/// The body of a response.
pub(crate) enum ReplyBody {
    /// All of it, taken when sent.
    Whole(Option<Bytes>),
    /// A value that is read while it is sent, one chunk in memory at a time.
    Blob(BlobBody),
    /// Events, one after the other, until the client has enough.
    Events(EventsBody),
    /// A backup, piece by piece.
    Pieces(PiecesBody),
}

type NextChunk = Pin<Box<dyn Future<Output = (BlobReader, Option<Result<Bytes, KvError>>)> + Send>>;

/// A blob on its way out.
pub(crate) struct BlobBody {
    remaining: u64,
    next: Option<NextChunk>,
}

type NextEvent = Pin<Box<dyn Future<Output = (Events, Option<Bytes>)> + Send>>;

/// A change feed on its way out.
pub(crate) struct EventsBody(Option<NextEvent>);

impl From<Events> for ReplyBody {
    fn from(events: Events) -> Self {
        Self::Events(EventsBody(Some(next_event(events))))
    }
}

fn next_event(mut events: Events) -> NextEvent {
    Box::pin(async move {
        let event = events.next().await;
        (events, event)
    })
}

impl EventsBody {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(next) = &mut self.0 else { return Poll::Ready(None) };
        let Poll::Ready((events, event)) = next.as_mut().poll(cx) else { return Poll::Pending };
        self.0 = event.is_some().then(|| next_event(events));
        Poll::Ready(event)
    }
}

/// A blob could not be read to its end. The connection is cut, so the client sees a short body, not a wrong one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplyError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("the stored value ended {0} bytes early")]
    Short(u64),
    #[error("the stored value is longer than its record says")]
    Long,
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes))
    }
}

impl From<BlobReader> for ReplyBody {
    fn from(reader: BlobReader) -> Self {
        Self::Blob(BlobBody { remaining: reader.len(), next: Some(read_next(reader)) })
    }
}

fn read_next(mut reader: BlobReader) -> NextChunk {
    Box::pin(async move {
        let chunk = reader.next().await;
        (reader, chunk)
    })
}

impl BlobBody {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReplyError>>> {
        let Some(next) = &mut self.next else {
            return Poll::Ready(None);
        };
        let (reader, chunk) = match next.as_mut().poll(cx) {
            Poll::Ready(read) => read,
            Poll::Pending => return Poll::Pending,
        };
        self.next = None;
        let failure = match chunk {
            None if self.remaining == 0 => return Poll::Ready(None),
            None => ReplyError::Short(self.remaining),
            Some(Err(error)) => error.into(),
            Some(Ok(chunk)) => match self.remaining.checked_sub(chunk.len() as u64) {
                Some(remaining) => {
                    self.remaining = remaining;
                    self.next = Some(read_next(reader));
                    return Poll::Ready(Some(Ok(chunk)));
                }
                None => ReplyError::Long,
            },
        };
        tracing::warn!(error = %failure, "a value was cut short while it was sent");
        Poll::Ready(Some(Err(failure)))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            Self::Blob(blob) => blob.poll_chunk(cx).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data))),
            Self::Events(events) => events.poll_event(cx).map(|event| event.map(|event| Ok(Frame::data(event)))),
            Self::Pieces(pieces) => pieces.poll_piece(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Blob(blob) => blob.remaining == 0,
            Self::Events(events) => events.0.is_none(),
            Self::Pieces(pieces) => pieces.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Blob(blob) => SizeHint::with_exact(blob.remaining),
            Self::Events(_) | Self::Pieces(_) => SizeHint::default(),
        }
    }
}
