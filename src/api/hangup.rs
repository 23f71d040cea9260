//! Whether a client has gone away while it is being answered.
//!
//! hyper can watch for that too, by reading ahead: then it takes memory for another request beside each. Here nothing is
//! read.

use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A stream that can tell.
pub(crate) trait HangsUp {
    /// Whether the other end will say nothing more; if not, the task is woken when something comes from there.
    fn has_hung_up(&self, cx: &mut Context<'_>) -> bool;
}

impl HangsUp for TcpStream {
    fn has_hung_up(&self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        match self.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(len)) => len == 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }
}

impl HangsUp for UnixStream {
    fn has_hung_up(&self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(ready) = self.poll_read_ready(cx) {
            let peek = || SockRef::from(self).peek(&mut [MaybeUninit::uninit()]);
            match ready.and_then(|()| self.try_io(Interest::READABLE, peek)) {
                Ok(len) => return len == 0,
                // It only seemed so.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return true,
            }
        }
        false
    }
}

/// What comes last is encrypted: hyper reads it.
impl HangsUp for TlsStream<TcpStream> {
    fn has_hung_up(&self, _: &mut Context<'_>) -> bool {
        false
    }
}

#[cfg(test)]
impl HangsUp for tokio::io::DuplexStream {
    fn has_hung_up(&self, _: &mut Context<'_>) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    async fn hung_up(stream: &impl HangsUp) {
        poll_fn(|cx| if stream.has_hung_up(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Whoever is here or says something has not gone; whoever closes has, and is noticed at once.
    async fn is_noticed(near: impl HangsUp, mut far: impl AsyncWriteExt + Unpin) {
        let short = Duration::from_millis(50);
        assert!(timeout(short, hung_up(&near)).await.is_err(), "it is there");
        far.shutdown().await.expect("closed");
        timeout(Duration::from_secs(5), hung_up(&near)).await.expect("it has gone");
    }

    #[tokio::test]
    async fn whoever_closes_is_noticed_and_nobody_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let pair = async || {
            let far = TcpStream::connect(address).await.expect("connected");
            (listener.accept().await.expect("accepted").0, far)
        };
        let (near, far) = pair().await;
        is_noticed(near, far).await;
        let (near, mut far) = pair().await;
        far.write_all(b"the next request").await.expect("written");
        assert!(timeout(Duration::from_millis(50), hung_up(&near)).await.is_err(), "it says something");
        let (near, far) = UnixStream::pair().expect("a pair");
        is_noticed(near, far).await;
    }
}
