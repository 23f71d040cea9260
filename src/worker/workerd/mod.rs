//! The engine that runs programs on workerd, Cloudflare's own runtime, in processes of this machine.
//!
//! workerd has one event loop a process and no limits of its own, so programs are kept apart by processes, but not each
//! in one: those that do no harm share one. A program that is new starts in a process of its own, where it can fail
//! alone and runs at once; after a quiet moment it joins the others. When a process stops turning, grows too large or
//! dies, the programs that were answering are put into processes of their own, until it is clear which one it was; the
//! others get a fresh process. See `pool` for who runs where, `host` for one process.
//!
//! Knows nothing of routes, hosts or replication.

mod cache;
mod config;
mod desk;
mod host;
mod locate;
mod pool;
mod process;
mod reach;
mod seat;
mod vitals;
mod watch;

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Body;
use hyper::{Method, Request, Response};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::cache::Cache;
use super::engine::{Engine, EngineError, Running, Streamed, Vitals, Wrote, held};
use super::hops::hops;
use super::static_files::Files;
use super::{Program, Tails};
use crate::kv::Kv;
use host::{Ground, Host, Verdict};
use pool::{Pool, Room};
use process::{Launch, SocketDir, Starter};
use seat::{Presence, Unanswered};

pub use locate::{Found, NotFound, Pinned, find, installed_at};

/// How long a program may take to begin its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to handle a timer.
const TIMER_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How often a request is sent anew, if nothing of it can have been carried out.
const TRIES_MAX: usize = 5;
/// How long it may take to find out why a process has ended.
const VERDICT_PATIENCE: Duration = Duration::from_secs(2);

/// What the engine needs to know.
pub struct WorkerdConfig {
    /// The runtime.
    pub workerd: PathBuf,
    /// Starts it so that it ends with the node: a command line, to which the runtime's own is added.
    pub launcher: Vec<OsString>,
    /// A directory for sockets, made anew.
    pub sockets: PathBuf,
    /// Makes the name of another directory, where that one's is too long.
    pub unique: u64,
    /// Whether programs may fetch from this machine and from private networks.
    pub reach_local: bool,
}

/// The engine.
pub struct Workerd(Arc<Pool>);

impl Workerd {
    /// An engine that runs nothing yet. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When there can be no directory for sockets, or no thread.
    pub fn start(config: WorkerdConfig, kv: Kv, tails: Tails, files: Arc<dyn Files>) -> io::Result<Self> {
        let ground = Ground {
            starter: Starter::new()?,
            launch: Launch { launcher: config.launcher, workerd: config.workerd },
            sockets: SocketDir::create(&config.sockets, config.unique)?,
            reach_local: config.reach_local,
            kv,
            tails,
            files,
            cache: Cache::default(),
        };
        Ok(Self(Pool::start(ground)))
    }

    async fn answer(
        &self,
        program: &Arc<Program>,
        request: Request<Streamed>,
    ) -> Result<Response<Streamed>, EngineError> {
        let reach = self.0.reach(&program.version)?;
        let visit = reach.allowance.begin(hops(request.headers()));
        let written = reach.session.last_write();
        let deadline = Instant::now() + ANSWER_PATIENCE;
        let mut request = Attempt::new(request);
        for _ in 0..TRIES_MAX {
            let Room { host, seat, presence } = timeout(ANSWER_PATIENCE, self.0.room(&program.version))
                .await
                .unwrap_or(Err(EngineError::Slow { limit_secs: ANSWER_PATIENCE.as_secs() }))?;
            host.has_served.store(true, Ordering::Relaxed);
            let outcome = tokio::select! {
                outcome = seat.send(request.take(), presence) => outcome,
                () = evacuated(&host), if request.can_repeat() => {
                    request.repeat();
                    continue;
                }
                () = sleep_until(deadline) => return Err(EngineError::Slow { limit_secs: ANSWER_PATIENCE.as_secs() }),
            };
            match outcome {
                Ok(mut response) => {
                    if reach.session.last_write() != written {
                        response.extensions_mut().insert(Wrote(reach.session.clone()));
                    }
                    return threw_or(response.map(|body| held(body, visit)));
                }
                Err(Unanswered::Unsent(unsent)) => {
                    request.put_back(*unsent);
                    if host.is_open() {
                        sleep(Duration::from_millis(10)).await;
                    }
                }
                Err(Unanswered::Lost(error, presence)) => {
                    let verdict = verdict(&host, presence).await;
                    tracing::debug!(script = program.script, %error, ?verdict, "a request was lost");
                    match verdict {
                        Some(Verdict { why, guilty }) if guilty.as_ref() == Some(&program.version) => return Err(why),
                        // The process goes on: only this connection broke.
                        None => return Err(EngineError::Threw),
                        Some(_) if request.can_repeat() => request.repeat(),
                        Some(_) => return Err(EngineError::Lost),
                    }
                }
            }
        }
        Err(EngineError::Lost)
    }

    async fn handle_timer(&self, program: &Arc<Program>, cron: &str, due_ms: u64) -> Result<(), EngineError> {
        let reach = self.0.reach(&program.version)?;
        let _visit = reach.allowance.begin(0);
        let Room { host, seat, presence } = self.0.room(&program.version).await?;
        host.has_served.store(true, Ordering::Relaxed);
        match host.scheduled(&seat, cron, due_ms, TIMER_PATIENCE).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(EngineError::Threw),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                Err(EngineError::Slow { limit_secs: TIMER_PATIENCE.as_secs() })
            }
            Err(_) => match verdict(&host, presence).await {
                Some(Verdict { why, guilty }) if guilty.as_ref() == Some(&program.version) => Err(why),
                _ => Err(EngineError::Lost),
            },
        }
    }
}

impl Engine for Workerd {
    fn prepare(&self, programs: Vec<Arc<Program>>) {
        self.0.prepare(programs);
    }

    fn fetch<'a>(&'a self, program: &'a Arc<Program>, request: Request<Streamed>) -> Running<'a, Response<Streamed>> {
        Box::pin(self.answer(program, request))
    }

    fn scheduled<'a>(&'a self, program: &'a Arc<Program>, cron: &'a str, due_ms: u64) -> Running<'a, ()> {
        Box::pin(self.handle_timer(program, cron, due_ms))
    }

    fn vitals(&self) -> Vitals {
        self.0.vitals()
    }

    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.stop())
    }
}

impl Drop for Workerd {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn evacuated(host: &Host) {
    // An error would mean that the host is gone, which means the same.
    let _ = host.evacuated.subscribe().wait_for(|evacuated| *evacuated).await;
}

/// Why a host has ended; `None` if it goes on. Meanwhile its program counts as busy.
async fn verdict(host: &Host, presence: Presence) -> Option<Verdict> {
    let mut verdict = host.verdict.subscribe();
    let patience = if host.process.has_ended() { VERDICT_PATIENCE } else { VERDICT_PATIENCE / 10 };
    let found = timeout(patience, verdict.wait_for(Option::is_some)).await.ok()?.ok()?.clone();
    drop(presence);
    found
}

/// workerd's own answer where a program threw says nothing of what it is, and no program answers so.
fn threw_or(response: Response<Streamed>) -> Result<Response<Streamed>, EngineError> {
    const TEXT_LEN: u64 = "Internal Server Error".len() as u64;
    let is_its_own = response.status() == hyper::StatusCode::INTERNAL_SERVER_ERROR
        && !response.headers().contains_key(hyper::header::CONTENT_TYPE)
        && response.headers().get(hyper::header::CONNECTION).is_some_and(|value| value == "close")
        && response.body().size_hint().exact() == Some(TEXT_LEN);
    if is_its_own { Err(EngineError::Threw) } else { Ok(response) }
}

/// A request that may have to be sent more than once.
struct Attempt {
    /// To be sent next.
    next: Option<Request<Streamed>>,
    /// What can be sent again: of requests that change nothing and have no body.
    again: Option<Request<()>>,
}

impl Attempt {
    fn new(request: Request<Streamed>) -> Self {
        let can_repeat = matches!(*request.method(), Method::GET | Method::HEAD)
            && request.body().is_end_stream()
            && !request.headers().contains_key(hyper::header::UPGRADE);
        let again = can_repeat.then(|| {
            let mut copy = Request::new(());
            *copy.method_mut() = request.method().clone();
            *copy.uri_mut() = request.uri().clone();
            *copy.headers_mut() = request.headers().clone();
            copy
        });
        Self { next: Some(request), again }
    }

    fn take(&mut self) -> Request<Streamed> {
        self.next.take().unwrap_or_else(|| Request::new(Streamed::empty()))
    }

    fn put_back(&mut self, request: Request<Streamed>) {
        self.next = Some(request);
    }

    fn can_repeat(&self) -> bool {
        self.again.is_some()
    }

    /// Once is enough: what has ended two processes would end a third.
    fn repeat(&mut self) {
        self.next = self.again.take().map(|request| request.map(|()| Streamed::empty()));
    }
}
