//! A stream whose client has to finish the headers of a request in time, and is told so if it does not.
//!
//! hyper closes such a connection too, but says nothing: a slow client should know why. Knows nothing of HTTP/2, whose
//! connections are probed instead.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use tokio::time::{Sleep, sleep};

/// The answer.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n\
    content-length: 155\r\n\r\n{\"result\":null,\"success\":false,\"errors\":[{\"code\":10001,\"message\":\"The headers of the \
    request did not arrive in time: send them in one go.\"}],\"messages\":[]}";
/// How an HTTP/2 connection begins.
const HTTP2: &[u8] = b"PRI";
/// Bytes read at a time while no request is being answered.
const READ_LEN: usize = 8 * 1024;

/// Bounds the time from the end of one request, or the beginning of the connection, to the next one.
pub(crate) struct HeaderGuard<T, F> {
    inner: T,
    patience: Duration,
    /// Whether a request is being answered: what comes then is a body, which has its own bounds.
    is_answering: F,
    waiting: Option<Pin<Box<Sleep>>>,
    /// Bytes of a request have come that is not complete.
    has_begun: bool,
    is_first: bool,
    is_http2: bool,
}

impl<T, F> HeaderGuard<T, F> {
    pub(crate) fn new(inner: T, patience: Duration, is_answering: F) -> Self {
        Self { inner, patience, is_answering, waiting: None, has_begun: false, is_first: true, is_http2: false }
    }
}

impl<T: Read + Write + Unpin, F: Fn() -> bool + Unpin> Read for HeaderGuard<T, F> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_http2 || (this.is_answering)() {
            (this.waiting, this.has_begun) = (None, false);
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        // Not cleared: that would be done twice for each request.
        let mut bytes = [MaybeUninit::uninit(); READ_LEN];
        let len = buf.remaining().min(READ_LEN);
        let mut read = ReadBuf::uninit(&mut bytes[..len]);
        match Pin::new(&mut this.inner).poll_read(cx, read.unfilled()) {
            Poll::Ready(result) => {
                result?;
                let read = read.filled();
                this.is_http2 = this.is_first && read.starts_with(HTTP2);
                this.is_first = false;
                this.has_begun |= !read.is_empty();
                buf.put_slice(read);
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                let patience = this.patience;
                let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
                ready!(waiting.as_mut().poll(cx));
                if this.has_begun {
                    // If it does not go out at once, nobody is listening.
                    let _ = Pin::new(&mut this.inner).poll_write(cx, TOO_SLOW);
                    let _ = Pin::new(&mut this.inner).poll_flush(cx);
                }
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<T: Write + Unpin, F: Unpin> Write for HeaderGuard<T, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    type Guard<F> = HeaderGuard<TokioIo<DuplexStream>, F>;

    async fn read<F: Fn() -> bool + Unpin>(guard: &mut Guard<F>) -> io::Result<usize> {
        let mut bytes = [0; 64];
        std::future::poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *guard).poll_read(cx, buf.unfilled()))?;
            Poll::Ready(Ok(buf.filled().len()))
        })
        .await
    }

    #[test]
    fn the_answer_says_how_long_it_is() {
        let text = std::str::from_utf8(TOO_SLOW).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).expect("JSON");
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_headers_are_answered_and_silence_is_not() {
        for (begins, answer) in [(&b"GET / HTTP/1.1\r\nHo"[..], TOO_SLOW), (b"", b"")] {
            let (near, mut far) = duplex(4096);
            let mut guard = Guard::new(TokioIo::new(near), Duration::from_secs(30), || false);
            far.write_all(begins).await.expect("written");
            if !begins.is_empty() {
                assert_eq!(read(&mut guard).await.expect("the beginning"), begins.len());
            }
            let failed = read(&mut guard).await.expect_err("too slow");
            assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
            drop(guard);
            let mut said = Vec::new();
            far.read_to_end(&mut said).await.expect("the end");
            assert_eq!(said, answer);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_after_the_other_is_no_progress_and_a_body_is_not_judged() {
        let (near, mut far) = duplex(4096);
        let answering = Arc::new(AtomicBool::new(false));
        let is_answering = {
            let answering = Arc::clone(&answering);
            move || answering.load(Ordering::Relaxed)
        };
        let mut guard = Guard::new(TokioIo::new(near), Duration::from_secs(30), is_answering);
        answering.store(true, Ordering::Relaxed);
        let mut body = Box::pin(read(&mut guard));
        assert!(tokio::time::timeout(Duration::from_secs(300), &mut body).await.is_err(), "a body takes its time");
        drop(body);
        answering.store(false, Ordering::Relaxed);
        let begun = tokio::time::Instant::now();
        let drip = tokio::spawn(async move {
            while far.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(7)).await;
            }
        });
        while read(&mut guard).await.is_ok() {}
        assert_eq!(begun.elapsed().as_secs(), 30);
        drop(guard);
        drip.await.expect("it ends");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_http2_is_left_alone() {
        let (near, mut far) = duplex(4096);
        let mut guard = Guard::new(TokioIo::new(near), Duration::from_secs(30), || false);
        far.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("written");
        read(&mut guard).await.expect("the preface");
        assert!(tokio::time::timeout(Duration::from_secs(300), read(&mut guard)).await.is_err());
    }
}
