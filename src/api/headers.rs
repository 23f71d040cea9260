//! A stream whose client has to finish the headers of a request in time, and is told so if it does not; and that notices
//! when the client goes away while it is being answered.
//!
//! When that is, its [`Place`] knows. What HTTP/2 connections are told is hyper's affair.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hangup::HangsUp;
use super::places::Place;

/// The answer.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n\
    content-length: 155\r\n\r\n{\"result\":null,\"success\":false,\"errors\":[{\"code\":10001,\"message\":\"The headers of the \
    request did not arrive in time: send them in one go.\"}],\"messages\":[]}";
/// How an HTTP/2 connection begins.
const HTTP2: &[u8] = b"PRI";

/// Fails once the place is late, and says why to a client that has sent half a request.
pub(crate) struct HeaderGuard<T> {
    inner: T,
    place: Arc<Place>,
    is_first: bool,
    is_http2: bool,
    /// hyper waits for something to read, and notices the end itself.
    is_read: bool,
}

impl<T> HeaderGuard<T> {
    pub(crate) fn new(inner: T, place: Arc<Place>) -> Self {
        Self { inner, place, is_first: true, is_http2: false, is_read: false }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for HeaderGuard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.place.is_late() {
            if this.place.has_begun() && !this.is_http2 {
                // If it does not go out at once, nobody is listening.
                let _ = Pin::new(&mut this.inner).poll_write(cx, TOO_SLOW);
                let _ = Pin::new(&mut this.inner).poll_flush(cx);
            }
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.is_read = read.is_pending();
        ready!(read)?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            this.place.begin();
            this.is_http2 |= this.is_first && read.starts_with(HTTP2);
            this.is_first = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + HangsUp + Unpin> AsyncWrite for HeaderGuard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_read && self.place.is_asked() && self.inner.has_hung_up(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
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
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::api::places::Places;

    const PATIENCE: Duration = Duration::from_secs(30);

    async fn guarded(places: &Places) -> (HeaderGuard<DuplexStream>, DuplexStream, Arc<Place>) {
        let (near, far) = duplex(4096);
        let place = places.take().await.expect("a place");
        place.connected();
        (HeaderGuard::new(near, Arc::clone(&place)), far, place)
    }

    /// What the client was told by the end, if it took part of a request to be late with.
    async fn told(begins: &[u8]) -> Vec<u8> {
        let places = Places::new(1);
        let (mut guard, mut far, _place) = guarded(&places).await;
        far.write_all(begins).await.expect("written");
        if !begins.is_empty() {
            assert_eq!(guard.read(&mut [0; 64]).await.expect("the beginning"), begins.len());
        }
        assert!(timeout(PATIENCE + Duration::from_secs(2), places.sweep(PATIENCE)).await.is_err());
        let failed = guard.read(&mut [0; 64]).await.expect_err("too slow");
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(guard);
        let mut said = Vec::new();
        far.read_to_end(&mut said).await.expect("the end");
        said
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
        assert_eq!(told(b"GET / HTTP/1.1\r\nHo").await, TOO_SLOW);
        assert_eq!(told(b"").await, b"");
        assert_eq!(told(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, b"", "it would be no HTTP/2");
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_after_the_other_is_no_progress_and_a_body_is_not_judged() {
        let places = Places::new(1);
        let (mut guard, mut far, place) = guarded(&places).await;
        let read = async |guard: &mut HeaderGuard<_>, time| {
            let mut bytes = [0; 64];
            tokio::select! {
                read = guard.read(&mut bytes) => Some(read),
                _ = places.sweep(PATIENCE) => None,
                () = sleep(Duration::from_secs(time)) => None,
            }
        };
        let asking = place.ask();
        assert!(read(&mut guard, 300).await.is_none(), "a body takes its time");
        drop(asking);
        let begun = tokio::time::Instant::now();
        let drip = tokio::spawn(async move {
            while far.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(7)).await;
            }
        });
        // hyper's task is woken by the place; here it looks every other second.
        while !matches!(read(&mut guard, 2).await, Some(Err(_))) {}
        assert!((30..=33).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        drop(guard);
        drip.await.expect("it ends");
    }
}
