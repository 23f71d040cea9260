//! A stream that gives up on a peer that reads nothing of what it asked for.
//!
//! hyper bounds how long a client may take to send; this bounds how long it may take to read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::{Sleep, sleep};

/// What is written from several places, and is no longer than this, is gathered first: the kernel takes one piece faster
/// than two.
const GATHERED_MAX: usize = 1024;

/// Fails a write that made no progress for as long as `patience`.
pub(crate) struct StallGuard<T> {
    inner: T,
    patience: Duration,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> StallGuard<T> {
    pub(crate) fn new(inner: T, patience: Duration) -> Self {
        Self { inner, patience, waiting: None }
    }

    fn judge<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<T: Read + Unpin> Read for StallGuard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: Write + Unpin> Write for StallGuard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.judge(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, shut)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        let written = if bufs.len() > 1 && len <= GATHERED_MAX {
            let mut gathered = [0; GATHERED_MAX];
            let mut rest = &mut gathered[..];
            for buf in bufs {
                // It fits: the lengths were added up.
                let _ = io::Write::write(&mut rest, buf);
            }
            let gathered = gathered.get(..len).unwrap_or_default();
            Pin::new(&mut self.inner).poll_write(cx, gathered)
        } else {
            Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
        };
        self.judge(cx, written)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn only_a_write_without_progress_fails() {
        let (near, mut far) = duplex(8);
        let mut guard = StallGuard::new(TokioIo::new(near), Duration::from_millis(200));
        let mut write = async || poll_fn(|cx| Pin::new(&mut guard).poll_write(cx, &[0; 8])).await;
        assert_eq!(write().await.expect("room"), 8);
        let read_later = async {
            sleep(Duration::from_millis(100)).await;
            far.read_exact(&mut [0; 8]).await.expect("what was written");
        };
        let (written, ()) = tokio::join!(write(), read_later);
        assert_eq!(written.expect("progress in time"), 8);
        let stalled = write().await;
        assert!(stalled.is_err_and(|error| error.kind() == io::ErrorKind::TimedOut));
    }
}
