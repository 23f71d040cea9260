//! Connections: accepted within bounds, served over HTTP/1.1 or HTTP/2, with TLS or without, drained at the end.
//!
//! Knows nothing of what is asked on them.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::headers::HeaderGuard;
use super::places::{Answering, Place, Places};
use super::reply::{Reply, ReplyBody};
use super::stall::StallGuard;
use super::{Api, ApiConfig};
use crate::https::ServerTls;
use crate::kv::Kv;
use crate::operator::Operator;
use crate::worker::Workers;

/// Connections at a time. Beyond it the one that has been idle for longest makes room; if all are being answered, further
/// ones wait in the listener's backlog.
const CONNECTIONS_MAX: u32 = 4096;
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Size of a request's headers over HTTP/1.1 (with buffered body bytes) and HTTP/2, in bytes.
const HEADERS_LEN_MAX: usize = 64 * 1024;
/// Header fields in a request.
const HEADERS_MAX: usize = 100;
/// How long a client may take for the headers of a request, and how long a connection may be idle.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// By how much hyper's own bound is longer, which closes without an answer.
const GRACE: Duration = Duration::from_secs(2);
/// How long a client may read nothing of an answer.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an HTTP/2 connection is probed, and how long the answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Body bytes that HTTP/2 clients may send ahead of the handler, per request and per connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How long requests in flight may take to finish at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the API stopped other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Told to stop, and stopped; but requests were still running after the time they had to finish.
    #[error("the API stopped with {connections} connections still busy after {} s", DRAIN_TIMEOUT.as_secs())]
    Undrained {
        /// Connections that were cut.
        connections: u32,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Requests in flight finish, no new ones are taken.
    Draining,
    Closed,
}

/// Serves the API on `listener` until `shutdown` completes, then lets requests in flight finish for up to 5 s.
///
/// # Errors
/// [`ApiError::Undrained`] if requests had to be cut at the end. A failed accept is logged and tried again.
pub async fn serve(
    listener: TcpListener,
    kv: Kv,
    operator: Operator,
    workers: Workers,
    config: ApiConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ApiError> {
    serve_with(listener, Arc::new(Api::new(kv, operator, workers, config)), shutdown).await
}

/// Whoever answers the requests of a listener.
pub(crate) trait Answers: Send + Sync + 'static {
    /// What its answers are made of.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static;

    /// Answers one request that came from that address.
    fn answer(
        &self,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> impl Future<Output = Result<Response<Self::Body>, Infallible>> + Send;

    /// How connections are encrypted, if they are.
    fn tls(&self) -> Option<Arc<ServerTls>> {
        None
    }

    /// Ends what never ends by itself.
    fn close(&self) {}
}

impl Answers for Api {
    type Body = ReplyBody;

    fn answer(
        &self,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> impl Future<Output = Result<Reply, Infallible>> + Send {
        self.handle(request, from)
    }

    fn tls(&self) -> Option<Arc<ServerTls>> {
        self.shared.config.tls.clone()
    }

    fn close(&self) {
        self.shared.closing.send_replace(true);
    }
}

pub(crate) async fn serve_with(
    listener: TcpListener,
    answers: Arc<impl Answers>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ApiError> {
    let server = Arc::new(builder());
    let places = Places::new(CONNECTIONS_MAX);
    let (phase, watched) = watch::channel(Phase::Serving);
    let renewing = answers.tls().map(|tls| tokio::spawn(async move { tls.keep_current().await }));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, from, place)) => {
                let (server, answers, watched) = (Arc::clone(&server), Arc::clone(&answers), watched.clone());
                place.connected();
                tokio::spawn(async move {
                    match answers.tls() {
                        None => connection(stream, from.ip(), &server, answers, watched, place).await,
                        Some(tls) => {
                            let accepted = tokio::select! {
                                accepted = tls.accept(stream) => accepted,
                                () = place.sent_away() => return,
                            };
                            match accepted {
                                Ok(stream) => connection(stream, from.ip(), &server, answers, watched, place).await,
                                Err(error) => tracing::debug!(%from, %error, "no TLS handshake"),
                            }
                        }
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    answers.close();
    if let Some(renewing) = renewing {
        renewing.abort();
    }
    phase.send_replace(Phase::Draining);
    let drained = timeout(DRAIN_TIMEOUT, places.all_free()).await.is_ok();
    let connections = places.taken();
    phase.send_replace(Phase::Closed);
    if drained { Ok(()) } else { Err(ApiError::Undrained { connections }) }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT + GRACE)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADERS_LEN_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_header_list_size(HEADERS_LEN_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

async fn accept(listener: &TcpListener, places: &Places) -> io::Result<(TcpStream, SocketAddr, Arc<Place>)> {
    let place = places.take().await?;
    let (stream, from) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, from, place))
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    from: IpAddr,
    server: &Builder<TokioExecutor>,
    answers: Arc<impl Answers>,
    mut phase: watch::Receiver<Phase>,
    place: Arc<Place>,
) {
    let has_asked = Arc::new(AtomicBool::new(false));
    let service = {
        let (has_asked, place) = (Arc::clone(&has_asked), Arc::clone(&place));
        service_fn(move |request| {
            has_asked.store(true, Ordering::Relaxed);
            let (answers, asking) = (Arc::clone(&answers), place.ask());
            async move {
                let Ok(answer) = answers.answer(request, from).await;
                Ok::<_, Infallible>(answer.map(|body| Answering::new(body, asking)))
            }
        })
    };
    let is_answering = {
        let place = Arc::clone(&place);
        move || place.is_answering()
    };
    let stream = HeaderGuard::new(TokioIo::new(stream), HEADER_READ_TIMEOUT, is_answering);
    let stream = StallGuard::new(stream, WRITE_STALL_TIMEOUT);
    let mut connection = pin!(server.serve_connection_with_upgrades(stream, service));
    // hyper's own time-out starts once it knows the HTTP version.
    let first_request = async {
        sleep(HEADER_READ_TIMEOUT + GRACE).await;
        if has_asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    // `serve` itself was dropped, or drains, or has waited long enough.
    let end = async { drop(phase.wait_for(|phase| *phase != Phase::Serving).await) };
    tokio::select! {
        biased;
        // Broken connections and malformed requests are the client's affair; hyper answers what it can.
        _ = connection.as_mut() => return,
        () = first_request => return,
        () = place.sent_away() => return,
        () = end => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection => {}
        _ = phase.wait_for(|phase| *phase == Phase::Closed) => {}
    }
}
