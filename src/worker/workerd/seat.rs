//! A program's place in a running process: its socket, the connections to it, and who is being answered.
//!
//! Knows nothing of why a process runs or ends.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::worker::Program;
use crate::worker::engine::{BodyFailure, Streamed, streamed};

/// Connections kept for requests to come.
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long one is kept. workerd closes idle connections after 5 s; one that is closed while it is taken costs a retry.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// Size of a response's headers, in bytes, and their number.
const HEADERS_LEN_MAX: usize = 256 * 1024;
const HEADERS_MAX: usize = 256;

/// Where a program's requests go.
pub(super) struct Seat {
    pub(super) number: usize,
    pub(super) program: Arc<Program>,
    socket: PathBuf,
    idle: Mutex<Vec<(Instant, SendRequest<Streamed>)>>,
    /// Requests that have no whole answer yet.
    busy: watch::Sender<usize>,
    /// Of the whole process.
    house: Arc<House>,
    /// When the last request ended.
    last: Mutex<Option<Instant>>,
}

/// What the seats of a process share.
#[derive(Default)]
pub(super) struct House {
    busy: AtomicUsize,
    idle: Notify,
}

impl House {
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire) > 0
    }

    /// Completes when no request is being answered.
    pub(super) async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            if !self.is_busy() {
                return;
            }
            notified.await;
        }
    }
}

/// Why a request got no response.
pub(super) enum Unanswered {
    /// It never got there, and comes back as it was.
    Unsent(Box<Request<Streamed>>),
    /// It may have been carried out. Whoever looks for the reason finds the program still marked as busy.
    Lost(hyper::Error, Presence),
}

impl Seat {
    pub(super) fn new(number: usize, program: Arc<Program>, socket: PathBuf, house: Arc<House>) -> Self {
        Self {
            number,
            program,
            socket,
            idle: Mutex::default(),
            busy: watch::channel(0).0,
            house,
            last: Mutex::default(),
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        *self.busy.borrow() > 0
    }

    /// When its last request ended, if one did.
    pub(super) fn last(&self) -> Option<Instant> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks the program as busy for as long as the mark is kept.
    pub(super) fn enter(self: &Arc<Self>) -> Presence {
        self.busy.send_modify(|busy| *busy += 1);
        self.house.busy.fetch_add(1, Ordering::AcqRel);
        Presence(Arc::clone(self))
    }

    /// Sends a request, over a connection that is there or a new one.
    pub(super) async fn send(
        &self,
        mut request: Request<Streamed>,
        presence: Presence,
    ) -> Result<Response<Streamed>, Unanswered> {
        loop {
            let (mut connection, is_fresh) = match self.take() {
                Some(connection) => (connection, false),
                None => match self.connect().await {
                    Ok(connection) => (connection, true),
                    Err(_) => return Err(Unanswered::Unsent(Box::new(request))),
                },
            };
            match connection.try_send_request(request).await {
                Ok(response) => {
                    let (parts, body) = response.into_parts();
                    // Only once the whole body was read it can be used again.
                    let body = Answer { body, connection: Some(connection), presence };
                    return Ok(Response::from_parts(parts, streamed(body)));
                }
                Err(mut failed) => match failed.take_message() {
                    // Its other end was closed before anything was sent.
                    Some(unsent) if !is_fresh => request = unsent,
                    Some(unsent) => return Err(Unanswered::Unsent(Box::new(unsent))),
                    None => return Err(Unanswered::Lost(failed.into_error(), presence)),
                },
            }
        }
    }

    fn take(&self) -> Option<SendRequest<Streamed>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((since, connection)) = idle.pop() {
            if since.elapsed() < IDLE_MAX && connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: SendRequest<Streamed>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(since, _)| since.elapsed() < IDLE_MAX);
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push((Instant::now(), connection));
        }
    }

    async fn connect(&self) -> io::Result<SendRequest<Streamed>> {
        connect(&self.socket).await
    }
}

/// A connection to a socket of the runtime.
pub(super) async fn connect(socket: &PathBuf) -> io::Result<SendRequest<Streamed>> {
    let stream = UnixStream::connect(socket).await?;
    let mut builder = Builder::new();
    builder.max_buf_size(HEADERS_LEN_MAX).max_headers(HEADERS_MAX);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // What breaks is seen by whoever waits for an answer on it.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// A request that is being answered.
pub(super) struct Presence(Arc<Seat>);

impl Drop for Presence {
    fn drop(&mut self) {
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.busy.send_modify(|busy| *busy -= 1);
        if self.0.house.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.house.idle.notify_waiters();
        }
    }
}

/// A response's body: while it is there, the request is being answered.
struct Answer {
    body: hyper::body::Incoming,
    connection: Option<SendRequest<Streamed>>,
    presence: Presence,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyFailure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailure>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|_| self.body.is_end_stream()) {
            self.presence.0.keep(connection);
        }
    }
}
