//! What runs programs, as narrow as it can be: anything that can answer a request and a timer for a program.
//!
//! Knows neither where requests come from nor where programs are kept.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{Request, Response};

use super::Program;
use crate::kv::Kv;

/// Why a body broke off.
pub type BodyFailure = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request or of a response: it streams, unless it is there already.
pub struct Streamed(Inner);

enum Inner {
    Whole(Option<Bytes>),
    Boxed(UnsyncBoxBody<Bytes, BodyFailure>),
}

/// A body that streams.
pub fn streamed<B>(body: B) -> Streamed
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyFailure>,
{
    Streamed(Inner::Boxed(body.map_err(Into::into).boxed_unsync()))
}

impl Streamed {
    /// Nothing.
    pub fn empty() -> Self {
        Self(Inner::Whole(None))
    }

    /// What is there already.
    pub fn whole(bytes: Bytes) -> Self {
        Self(Inner::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = BodyFailure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailure>>> {
        match &mut self.get_mut().0 {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Inner::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(bytes) => bytes.is_none(),
            Inner::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Inner::Boxed(body) => body.size_hint(),
        }
    }
}

/// What an engine will have done.
pub type Running<'a, T> = Pin<Box<dyn Future<Output = Result<T, EngineError>> + Send + 'a>>;

/// Runs programs. Programs can't see, slow down or end one another for longer than an engine's own bounds say.
pub trait Engine: Send + Sync + 'static {
    /// From now on these programs and no others may be asked for. Returns at once, and what was prepared before goes on
    /// until the new ones run; requests that were begun are finished.
    fn prepare(&self, programs: Vec<Arc<Program>>);

    /// Has a prepared program answer a request, which may have to wait until the program runs. A response with status
    /// 101 holds hyper's `OnUpgrade`; its body is to be kept for as long as that is used.
    fn fetch<'a>(&'a self, program: &'a Arc<Program>, request: Request<Streamed>) -> Running<'a, Response<Streamed>>;

    /// Has a prepared program handle a timer: the expression that was due, and when, in Unix milliseconds.
    fn scheduled<'a>(&'a self, program: &'a Arc<Program>, cron: &'a str, due_ms: u64) -> Running<'a, ()>;

    /// How what runs is. Asked every few seconds.
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }

    /// Lets requests finish, then ends whatever runs.
    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// How what runs programs is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Vitals {
    /// Processes of its own.
    pub processes: usize,
    /// Runtimes within this process.
    pub runtimes: usize,
    /// Memory that either have, in bytes.
    pub memory_bytes: u64,
    /// How many have ended before their time, by why: a short list.
    pub ended: BTreeMap<&'static str, u64>,
}

/// Why a program gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// It was never prepared, or isn't any more.
    #[error("the script is not deployed here any more")]
    Unknown,
    /// It can't be loaded: what the runtime said.
    #[error("the script can't be loaded: {0}")]
    Refused(String),
    /// It threw, and nobody caught it.
    #[error("the script threw an exception")]
    Threw,
    /// It computed for too long.
    #[error("the script exceeded its CPU time limit of {limit_ms} ms")]
    Cpu {
        /// How long it may, in milliseconds.
        limit_ms: u64,
    },
    /// It took too much memory.
    #[error("the script exceeded its memory limit")]
    Memory,
    /// It has done that so often that it is left alone for a while.
    #[error("the script exceeded its limits again and again; it gets another chance in {retry_secs} s")]
    Resting {
        /// Seconds until it runs again.
        retry_secs: u64,
    },
    /// It did not begin to answer in time.
    #[error("the script did not answer within {limit_secs} s")]
    Slow {
        /// How long it may, in seconds.
        limit_secs: u64,
    },
    /// The runtime ended while it ran the script, and the request can't be repeated.
    #[error("the runtime ended while the script ran")]
    Lost,
    /// The runtime does not start.
    #[error("the runtime does not start: {0}")]
    Unavailable(String),
}

/// Put among a response's extensions by an engine: while it was answering, the program wrote, and this session has seen
/// that and perhaps more.
#[derive(Clone)]
pub struct Wrote(pub Kv);

/// A body that keeps something for as long as it is there.
pub fn held<T: Send + Unpin + 'static>(body: Streamed, kept: T) -> Streamed {
    streamed(Held { body, _kept: kept })
}

struct Held<T> {
    body: Streamed,
    _kept: T,
}

impl<T: Unpin> Body for Held<T> {
    type Data = Bytes;
    type Error = BodyFailure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFailure>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
