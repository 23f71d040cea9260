//! Connections: accepted within bounds, served over HTTP/1.1 alone, drained at the end.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::bulk_get::LARGE_BODIES_MAX;
use super::{Authorize, Binding, Listener};
use crate::api::stall::StallGuard;
use crate::kv::Kv;

/// Connections at a time, of a listener for everyone. Further ones wait in its backlog.
pub(crate) const CONNECTIONS_MAX: usize = 4096;
/// Size of a request's headers with buffered body bytes, in bytes.
const HEADERS_LEN_MAX: usize = 64 * 1024;
/// Header fields in a request.
const HEADERS_MAX: usize = 100;
/// How long a client may take for the headers of a request, and how long a connection may be idle. workerd itself
/// closes idle connections after 5 s, so it never sends into one that is closed here.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may read nothing of an answer.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests in flight may take to finish at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Serves bindings on `listener`, over so many connections at a time, until `shutdown` completes, then lets requests
/// in flight finish for up to 5 s.
pub(crate) async fn serve(
    listener: Listener,
    kv: Kv,
    authorize: Arc<dyn Authorize>,
    connections_max: usize,
    shutdown: impl Future<Output = ()>,
) {
    let binding = Arc::new(Binding { kv, authorize, large_bodies: Semaphore::new(LARGE_BODIES_MAX) });
    let places = Arc::new(Semaphore::new(connections_max));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let place = tokio::select! {
            biased;
            () = &mut shutdown => break,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener) => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let (binding, watcher) = (Arc::clone(&binding), graceful.watcher());
                // Where many wait for a place, nobody keeps one for later.
                let keeps = places.available_permits() > connections_max / 2;
                tokio::spawn(async move {
                    match accepted {
                        Accepted::Tcp(stream) => connection(TokioIo::new(stream), binding, watcher, keeps).await,
                        Accepted::Unix(stream) => connection(TokioIo::new(stream), binding, watcher, keeps).await,
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for bindings could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests of bindings were cut off after {} s", DRAIN_TIMEOUT.as_secs());
    }
}

async fn accept(listener: &Listener) -> io::Result<Accepted> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(Accepted::Tcp(stream))
        }
        Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
    }
}

async fn connection<S: Read + Write + Unpin + Send + 'static>(
    stream: S,
    binding: Arc<Binding>,
    watcher: Watcher,
    keeps: bool,
) {
    let service = service_fn(move |request| {
        let binding = Arc::clone(&binding);
        async move { binding.handle(request).await }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(keeps)
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADERS_LEN_MAX)
        .serve_connection(StallGuard::new(stream, WRITE_STALL_TIMEOUT), service);
    // Broken connections and malformed requests are the client's affair; hyper answers what it can.
    let _ = watcher.watch(connection).await;
}
