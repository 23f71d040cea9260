//! The engine that runs programs within the node, on QuickJS: each in a runtime of its own, with its own heap and
//! bounds, on threads that scale with the processors. See `isolate` for one program, `crew` for the threads, `shelf`
//! for who has a runtime.
//!
//! Its platform is JavaScript (`prelude`) on functions of the node (`host`). Knows nothing of routes, hosts or
//! replication.

mod check;
mod crew;
mod host;
mod isolate;
mod meter;
mod modules;
mod outbound;
mod outbox;
mod rewriter;
mod shelf;
#[cfg(test)]
mod tests;
mod visit;
mod vm;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Body;
use hyper::header::{HOST, HeaderMap};
use hyper::{Request, Response};
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::cache::Cache;
use super::engine::{Engine, EngineError, Running, Streamed, Vitals};
use super::hops::hops;
use super::static_files::Files;
use super::{Program, ScriptId, Tails};
use crate::kv::Kv;
pub use check::unfit;
use crew::Crew;
use isolate::{Asked, Isolate};
use outbound::Outbound;
use rewriter::REWRITTEN_MAX;
use shelf::Shelf;
use visit::Visit;

/// How long a program may take to begin its answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to handle a timer.
const TIMER_PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How often it is looked what goes on for too long and holds too much.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How long requests may take to finish at the end.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What programs are made of and given, alike for all.
struct Ground {
    kv: Kv,
    tails: Tails,
    files: Arc<dyn Files>,
    crew: Arc<Crew>,
    outbound: Outbound,
    cache: Cache,
    /// Places for pages that are being rewritten.
    rewriting: Arc<Semaphore>,
}

/// The engine.
pub struct Embedded {
    ground: Arc<Ground>,
    shelf: Arc<Shelf>,
    sweeper: JoinHandle<()>,
}

impl Embedded {
    /// An engine that runs nothing yet, on so many threads. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When there can be no threads.
    pub fn start(threads: usize, reach_local: bool, kv: Kv, tails: Tails, files: Arc<dyn Files>) -> io::Result<Self> {
        let crew = Crew::start(threads)?;
        let (outbound, cache) = (Outbound::new(reach_local), Cache::default());
        let rewriting = Arc::new(Semaphore::new(REWRITTEN_MAX));
        let ground = Arc::new(Ground { kv, tails, files, crew, outbound, cache, rewriting });
        let shelf = Arc::new(Shelf::default());
        let (swept, crew) = (Arc::clone(&shelf), Arc::clone(&ground.crew));
        let sweeper = tokio::spawn(async move {
            loop {
                sleep(SWEEP_EVERY).await;
                let (shelf, crew) = (Arc::clone(&swept), Arc::clone(&crew));
                // Measuring a heap means to walk it.
                if tokio::task::spawn_blocking(move || shelf.sweep(&crew)).await.is_err() {
                    tracing::error!("what Workers hold can't be looked after; this is a bug");
                }
            }
        });
        Ok(Self { ground, shelf, sweeper })
    }

    /// Has a program handle something within so long, give or take a sweep.
    async fn have(
        &self,
        program: &Arc<Program>,
        hops: usize,
        event: Option<Json>,
        patience: Duration,
        asked: impl FnOnce(&Visit) -> Asked,
    ) -> Result<Response<Streamed>, EngineError> {
        let isolate = self.shelf.isolate(&program.version, &self.ground)?;
        let (answer, answered) = oneshot::channel();
        let visit = Arc::new(Visit::new(isolate.next_number(), &self.ground.kv, hops, patience, answer, event));
        let asked = asked(&visit);
        isolate.ask(visit, asked);
        // Whoever is late is told by a sweep.
        answered.await.unwrap_or(Err(EngineError::Lost))
    }

    /// Whether anyone wants to know what a program does.
    fn is_watched(&self, program: &Program) -> bool {
        let script = || ScriptId { account: program.account, script: program.script.clone() };
        !self.ground.tails.is_idle() && self.ground.tails.is_watched(&script())
    }

    async fn answer(
        &self,
        program: &Arc<Program>,
        request: Request<Streamed>,
    ) -> Result<Response<Streamed>, EngineError> {
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        let cf = headers.remove(CF_HEADER);
        let scheme = text(&headers, "x-forwarded-proto").unwrap_or("http");
        let host = text(&headers, HOST.as_str()).unwrap_or_default();
        let url = [scheme, "://", host, parts.uri.path_and_query().map_or("/", |path| path.as_str())].concat();
        let method = parts.method;
        let event = self.is_watched(program).then(|| {
            let cf: Json = cf.as_ref().and_then(|cf| serde_json::from_slice(cf.as_bytes()).ok()).unwrap_or_default();
            let shown = headers
                .iter()
                .map(|(name, value)| (name.as_str().to_owned(), Json::from(String::from_utf8_lossy(value.as_bytes()))));
            let shown: serde_json::Map<String, Json> = shown.collect();
            json!({ "request": { "url": url, "method": method.as_str(), "headers": shown, "cf": cf } })
        });
        let hops = hops(&headers);
        self.have(program, hops, event, ANSWER_PATIENCE, |visit| {
            let len = body.size_hint().exact();
            let source = if body.is_end_stream() { None } else { visit.keep(body) };
            Asked::Fetch { method, url, headers: host::lines(&headers), source, len, cf }
        })
        .await
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Carries `request.cf` from the front, as JSON.
const CF_HEADER: &str = "x-starling-cf";

impl Engine for Embedded {
    fn prepare(&self, programs: Vec<Arc<Program>>) {
        for isolate in self.shelf.prepare(programs) {
            isolate.retire();
            if isolate.is_busy() {
                // Whoever is being answered keeps it alive; it goes with the last of them.
                tokio::spawn(linger(isolate));
            }
        }
    }

    fn fetch<'a>(&'a self, program: &'a Arc<Program>, request: Request<Streamed>) -> Running<'a, Response<Streamed>> {
        Box::pin(self.answer(program, request))
    }

    fn scheduled<'a>(&'a self, program: &'a Arc<Program>, cron: &'a str, due_ms: u64) -> Running<'a, ()> {
        let event = self.is_watched(program).then(|| json!({ "cron": cron, "scheduledTime": due_ms }));
        let asked = move |_: &Visit| Asked::Scheduled { cron: cron.to_owned(), due_ms };
        Box::pin(async move { self.have(program, 0, event, TIMER_PATIENCE, asked).await.map(drop) })
    }

    fn vitals(&self) -> Vitals {
        self.shelf.vitals()
    }

    fn stop(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let until = Instant::now() + DRAIN_MAX;
            while Instant::now() < until && self.shelf.isolates().iter().any(|isolate| isolate.is_busy()) {
                sleep(Duration::from_millis(20)).await;
            }
            self.ground.crew.end();
        })
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.sweeper.abort();
        self.ground.crew.end();
    }
}

/// Keeps a runtime until nothing of it goes on, for so long as that may take.
async fn linger(isolate: Arc<Isolate>) {
    let until = Instant::now() + TIMER_PATIENCE;
    while isolate.is_busy() && Instant::now() < until {
        isolate.end_what_is_over();
        sleep(SWEEP_EVERY).await;
    }
}
