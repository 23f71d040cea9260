//! What comes in: the body of a request, read in bounded memory and bounded time.
//!
//! Knows nothing of what the bytes mean.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use tokio::time::{Instant, Sleep, sleep, timeout};

/// How long a client may send nothing in the middle of a body.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a body that is collected in memory may take in all: it holds memory all the while.
const BODY_READ_TIMEOUT: Duration = Duration::from_secs(600);
/// How much of a refused body is read and dropped before the answer, in bytes. A client that is still sending when
/// the connection closes sees a reset instead of the answer.
const DRAIN_LEN_MAX: u64 = 128 * 1024 * 1024;
/// How long that may take in all, and without a byte.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
const DRAIN_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("The request body has more than {limit} bytes, the limit here.")]
    TooLarge { limit: usize },
    #[error("The request body came too slowly, try again.")]
    Slow,
    #[error("The request body broke off: {0}.")]
    Broken(hyper::Error),
}

/// The body of one request.
pub(crate) struct RequestBody {
    incoming: Incoming,
    /// The client waits for "100 Continue" before it sends, which hyper writes at the first read.
    waits_for_continue: bool,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, waits_for_continue: bool) -> Self {
        Self { incoming, waits_for_continue }
    }

    /// The length, if the client stated it.
    pub(crate) fn stated_len(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    /// The next bytes, `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        self.waits_for_continue = false;
        loop {
            let frame = timeout(BODY_IDLE_TIMEOUT, self.incoming.frame()).await.map_err(|_| BodyError::Slow)?;
            match frame.transpose().map_err(BodyError::Broken)? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// All of it, at most `limit` bytes.
    pub(crate) async fn read(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        if self.stated_len().is_some_and(|len| len > limit as u64) {
            return Err(BodyError::TooLarge { limit });
        }
        let Some(first) = self.chunk().await? else {
            return Ok(Bytes::new());
        };
        if first.len() > limit {
            return Err(BodyError::TooLarge { limit });
        }
        if self.incoming.is_end_stream() {
            return Ok(first);
        }
        timeout(BODY_READ_TIMEOUT, self.read_on(first, limit)).await.map_err(|_| BodyError::Slow)?
    }

    async fn read_on(&mut self, first: Bytes, limit: usize) -> Result<Bytes, BodyError> {
        let mut whole = BytesMut::from(first);
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > limit {
                return Err(BodyError::TooLarge { limit });
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// Reads and drops what is left, so that the client gets to read the answer. Gives up quietly.
    pub(crate) async fn drain(&mut self) {
        let mut left = DRAIN_LEN_MAX;
        if self.waits_for_continue || self.stated_len().is_some_and(|len| len > left) {
            return;
        }
        let reading = async {
            while let Ok(Ok(Some(chunk))) = timeout(DRAIN_IDLE_TIMEOUT, self.chunk()).await {
                left = left.saturating_sub(chunk.len() as u64);
                if left == 0 {
                    break;
                }
            }
        };
        // Too slow is as good as done: the answer goes out either way.
        let _ = timeout(DRAIN_TIMEOUT, reading).await;
    }

    /// The body as a multipart parser should see it, see [`PacedBody`].
    pub(crate) fn paced(&mut self, unparsed: Arc<AtomicUsize>, unparsed_max: usize) -> PacedBody<'_> {
        self.waits_for_continue = false;
        PacedBody {
            incoming: &mut self.incoming,
            unparsed,
            unparsed_max,
            pause: false,
            idle: Box::pin(sleep(BODY_IDLE_TIMEOUT)),
        }
    }
}

/// A body for a parser that reads on as long as bytes are ready: pauses after each chunk, and fails when the parser
/// has taken more than a bound without giving anything back, so the parser's buffer stays bounded.
pub(crate) struct PacedBody<'a> {
    incoming: &'a mut Incoming,
    /// Bytes handed out since the parser last gave something back; its reader sets it to zero.
    unparsed: Arc<AtomicUsize>,
    unparsed_max: usize,
    pause: bool,
    idle: Pin<Box<Sleep>>,
}

impl Body for PacedBody<'_> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.pause) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match Pin::new(&mut *this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.pause = true;
                this.idle.as_mut().reset(Instant::now() + BODY_IDLE_TIMEOUT);
                let len = frame.data_ref().map_or(0, Bytes::len);
                if this.unparsed.fetch_add(len, Ordering::Relaxed) > this.unparsed_max {
                    return Poll::Ready(Some(Err(BodyError::TooLarge { limit: this.unparsed_max })));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(BodyError::Broken(error)))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match this.idle.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::Slow))),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What becomes of a body of 10,000 bytes that comes byte by byte, one every `pause`, and how long that took.
    async fn crawl(pause: Duration) -> (String, Duration) {
        let (near, far) = duplex(4096);
        let read = |request: Request<Incoming>| async {
            let read = RequestBody::new(request.into_body(), false).read(1 << 20).await;
            let said = read.map_or_else(|error| error.to_string(), |bytes| format!("{} bytes", bytes.len()));
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
        };
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(near), service_fn(read));
        let server = tokio::spawn(serving);
        let begun = Instant::now();
        let (mut answers, mut bytes) = tokio::io::split(far);
        let drip = tokio::spawn(async move {
            let mut sent = bytes.write_all(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n").await;
            for _ in 0..10_000 {
                sent = match sent {
                    Ok(()) => bytes.write_all(b"x").await,
                    Err(_) => break,
                };
                sleep(pause).await;
            }
        });
        let mut said = vec![0; 4096];
        let len = answers.read(&mut said).await.expect("an answer");
        let took = begun.elapsed();
        drip.abort();
        server.abort();
        (String::from_utf8_lossy(&said[..len]).into_owned(), took)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_half_a_minute_for_each_piece_and_ten_minutes_in_all() {
        let (said, took) = crawl(Duration::from_millis(50)).await;
        assert!(said.contains("10000 bytes") && took.as_secs() > 450, "{said} after {took:?}");
        let (said, took) = crawl(Duration::from_secs(29)).await;
        assert!(said.contains("came too slowly") && took.as_secs() == 600, "{said} after {took:?}");
        let (said, took) = crawl(Duration::from_secs(31)).await;
        assert!(said.contains("came too slowly") && took.as_secs() == 30, "{said} after {took:?}");
    }
}
