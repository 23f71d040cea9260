//! Connections: accepted within bounds, served over HTTP/1.1 or HTTP/2, with TLS or without, drained at the end.
//!
//! Knows nothing of what is asked on them.

use std::convert::Infallible;
use std::error::Error;
use std::future::{poll_fn, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::Either;
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::hangup::HangsUp;
use super::headers::HeaderGuard;
use super::lanes::{Lanes, Streams};
use super::places::{Answering, Order, Place, Places};
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
/// How long a client may take for the headers of a request, and how long a connection may be idle.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may read nothing of an answer.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an HTTP/2 connection is probed, and how long the answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Body bytes that HTTP/2 clients may send ahead of the handler, per request and per connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How long requests in flight may take to finish at the end.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
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

/// Serves the API on `listener` until `shutdown` completes, then lets requests in flight finish for up to 5 s. Connections
/// are served by threads of their own, one more than there are processors, which end a second later.
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

    /// The answer to a request, if it need not wait for anything; `None`: it may.
    fn at_once(&self, _request: &Request<Incoming>) -> Option<Response<Self::Body>> {
        None
    }

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

    /// Whether it answers most at once: then its connections have threads of their own.
    fn is_quick(&self) -> bool {
        false
    }

    /// Ends what never ends by itself.
    fn close(&self) {}
}

impl Answers for Api {
    type Body = ReplyBody;

    fn at_once(&self, request: &Request<Incoming>) -> Option<Reply> {
        Self::at_once(self, request)
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        from: IpAddr,
    ) -> impl Future<Output = Result<Reply, Infallible>> + Send {
        // Apart: hyper moves what it is given, and most requests need no future.
        Box::pin(self.handle(request, from))
    }

    fn tls(&self) -> Option<Arc<ServerTls>> {
        self.shared.config.tls.clone()
    }

    fn is_quick(&self) -> bool {
        true
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
    let server = Arc::new(builder(answers.tls().is_some()));
    let places = Places::new(CONNECTIONS_MAX);
    let renewing = answers.tls().map(|tls| tokio::spawn(async move { tls.keep_current().await }));
    let lanes = if answers.is_quick() { Lanes::start().inspect_err(no_lanes).ok() } else { None };
    let begin = |(stream, from), place| {
        let (server, answers) = (Arc::clone(&server), Arc::clone(&answers));
        match &lanes {
            None => _ = tokio::spawn(connect(stream, from, server, answers, place)),
            Some(lanes) => lanes.spawn(move_here(stream, from, server, answers, place)),
        }
    };
    accept_until(shutdown, &places, || accept(&listener, &places), begin).await;
    drop(listener);
    answers.close();
    if let Some(renewing) = renewing {
        renewing.abort();
    }
    places.drain();
    let drained = timeout(DRAIN_TIMEOUT, places.all_free()).await.is_ok();
    let connections = places.taken();
    // Whoever is left is sent away with the places.
    if drained { Ok(()) } else { Err(ApiError::Undrained { connections }) }
}

/// Accepts connections until `shutdown` completes, and has each begun once it has its place. Whoever takes one and says
/// nothing is late after half a minute.
pub(crate) async fn accept_until<S, A>(
    shutdown: impl Future<Output = ()>,
    places: &Places,
    accept: impl Fn() -> A,
    begin: impl Fn(S, Arc<Place>),
) where
    A: Future<Output = io::Result<(S, Arc<Place>)>>,
{
    let (mut shutdown, mut sweeping) = (pin!(shutdown), pin!(places.sweep(HEADER_READ_TIMEOUT)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => return,
            never = &mut sweeping => match never {},
            accepted = accept() => accepted,
        };
        match accepted {
            Ok((stream, place)) => {
                place.connected();
                begin(stream, place);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn builder(is_encrypted: bool) -> Builder<Streams> {
    let mut builder = over_http1(true);
    // What says that a client goes away is encrypted too.
    builder.http1().half_close(!is_encrypted);
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

/// HTTP/1.1 within bounds. hyper does not watch for clients that go away while they are answered: [`HangsUp`] does. Header fields in a request are at most 100, as hyper has it: were that said here, hyper would
/// no longer keep them on the stack. How long they may take is the place's to know: hyper would set an alarm for each.
pub(crate) fn over_http1(keeps_alive: bool) -> Builder<Streams> {
    let mut builder = Builder::new(Streams::here());
    builder.http1().header_read_timeout(None).max_buf_size(HEADERS_LEN_MAX).half_close(true).keep_alive(keeps_alive);
    builder
}

async fn accept(listener: &TcpListener, places: &Places) -> io::Result<((TcpStream, SocketAddr), Arc<Place>)> {
    let place = places.take().await?;
    let (stream, from) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(((stream, from), place))
}

fn no_lanes(error: &io::Error) {
    tracing::warn!(%error, "connections get no threads of their own");
}

/// Has the event loop that this runs on watch the connection from now on, and serves it.
async fn move_here(
    stream: TcpStream,
    from: SocketAddr,
    server: Arc<Builder<Streams>>,
    answers: Arc<impl Answers>,
    place: Arc<Place>,
) {
    match stream.into_std().and_then(TcpStream::from_std) {
        Ok(stream) => connect(stream, from, server, answers, place).await,
        Err(error) => tracing::debug!(%from, %error, "a connection was lost at its beginning"),
    }
}

async fn connect(
    stream: TcpStream,
    from: SocketAddr,
    server: Arc<Builder<Streams>>,
    answers: Arc<impl Answers>,
    place: Arc<Place>,
) {
    match answers.tls() {
        None => connection(stream, from.ip(), &server, answers, &place).await,
        Some(tls) => {
            let accepted = tokio::select! {
                accepted = tls.accept(stream) => accepted,
                () = place.sent_away() => return,
            };
            match accepted {
                Ok(stream) => connection(stream, from.ip(), &server, answers, &place).await,
                Err(error) => tracing::debug!(%from, %error, "no TLS handshake"),
            }
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn connection(
    stream: impl AsyncRead + AsyncWrite + HangsUp + Unpin + Send + 'static,
    from: IpAddr,
    server: &Builder<Streams>,
    answers: Arc<impl Answers>,
    place: &Arc<Place>,
) {
    let service = {
        let place = Arc::clone(place);
        service_fn(move |request: Request<Incoming>| {
            if request.version() == Version::HTTP_2 {
                place.probed();
            }
            let asking = place.ask();
            if let Some(answer) = answers.at_once(&request) {
                return Either::Left(ready(Ok::<_, Infallible>(answer.map(|body| Answering::new(body, asking)))));
            }
            let answers = Arc::clone(&answers);
            Either::Right(async move {
                let Ok(answer) = answers.answer(request, from).await;
                Ok(answer.map(|body| Answering::new(body, asking)))
            })
        })
    };
    let stream = StallGuard::new(TokioIo::new(HeaderGuard::new(stream, Arc::clone(place))), WRITE_STALL_TIMEOUT);
    let mut connection = pin!(server.serve_connection_with_upgrades(stream, service));
    let mut is_draining = false;
    poll_fn(|cx| {
        // Broken connections and malformed requests are the client's affair; hyper answers what it can.
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match place.order(cx) {
            Order::Stay => Poll::Pending,
            Order::Drain if is_draining => Poll::Pending,
            Order::Drain => {
                is_draining = true;
                connection.as_mut().graceful_shutdown();
                connection.as_mut().poll(cx).map(|_| ())
            }
            Order::Late | Order::Leave => Poll::Ready(()),
        }
    })
    .await;
    place.disconnected();
}
