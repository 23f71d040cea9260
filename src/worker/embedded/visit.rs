//! One request or timer that a script handles: what it may still do, what it has to say, and where its answer goes.
//!
//! Knows nothing of JavaScript.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use serde_json::{Value as Json, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::outbox;
use super::rewriter::Rewriter;
use crate::kv::Kv;
use crate::worker::engine::{BodyFailure, EngineError, Streamed};

/// How often a request may use KV.
pub(super) const KV_OPERATIONS_MAX: u32 = 1_000;
/// How often a request may fetch, redirects included.
pub(super) const FETCHES_MAX: u32 = 50;
/// What a request may wait for at a time.
pub(super) const OPERATIONS_MAX: u32 = 4_096;
/// Streams of the node's that a request may hold at a time.
pub(super) const SOURCES_MAX: usize = 1_024;
/// Pages that a request may rewrite at a time.
const REWRITERS_MAX: usize = 16;
/// Lines that are kept of what a request logs, and bytes of them.
const LOGS_MAX: usize = 256;
const LOGS_LEN_MAX: usize = 128 * 1024;

/// What a script has to say.
pub(super) type Answer = oneshot::Sender<Result<Response<Streamed>, EngineError>>;
/// A stream of the node's.
pub(super) type Source = Arc<tokio::sync::Mutex<Streamed>>;

/// One request or timer.
pub(super) struct Visit {
    pub(super) number: u32,
    /// A session of its own: what is noted in it was seen by this request.
    pub(super) kv: Kv,
    /// How many scripts it went through before it came here.
    pub(super) hops: usize,
    /// Processor time, in nanoseconds.
    pub(super) cpu_ns: AtomicU64,
    /// Whether nothing of it goes on.
    is_over: AtomicBool,
    /// Told of that; made when somebody waits.
    over: OnceLock<watch::Sender<bool>>,
    /// What it waits for.
    pub(super) waiting: AtomicU32,
    pub(super) began: Instant,
    patience: Duration,
    kv_operations: AtomicU32,
    fetches: AtomicU32,
    answer: Mutex<Option<Answer>>,
    answered: Mutex<Option<Instant>>,
    out: Mutex<Option<mpsc::Sender<Result<Bytes, BodyFailure>>>>,
    sources: Mutex<(u32, BTreeMap<u32, Source>)>,
    rewriters: Mutex<(u32, BTreeMap<u32, Rewriter>)>,
    report: Option<Mutex<Report>>,
}

/// What is told to those who watch.
struct Report {
    event: Json,
    outcome: &'static str,
    logs: Vec<Json>,
    logs_len: usize,
    exceptions: Vec<Json>,
    began_ms: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Visit {
    /// An answer is to come within `patience`. `event` is what those who watch are told of it, if anyone watches.
    pub(super) fn new(
        number: u32,
        kv: &Kv,
        hops: usize,
        patience: Duration,
        answer: Answer,
        event: Option<Json>,
    ) -> Self {
        let report = event.map(|event| {
            let (logs, exceptions) = Default::default();
            Mutex::new(Report { event, outcome: "ok", logs, logs_len: 0, exceptions, began_ms: kv.now_ms() })
        });
        Self {
            number,
            kv: kv.session(),
            hops,
            cpu_ns: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            over: OnceLock::new(),
            waiting: AtomicU32::new(0),
            began: Instant::now(),
            patience,
            kv_operations: AtomicU32::new(0),
            fetches: AtomicU32::new(0),
            answer: Mutex::new(Some(answer)),
            answered: Mutex::default(),
            out: Mutex::default(),
            sources: Mutex::default(),
            rewriters: Mutex::default(),
            report,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    /// Completes when nothing of it goes on any more.
    pub(super) fn over(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut over = self.over.get_or_init(|| watch::channel(false).0).subscribe();
        // Either whoever ends it sees that somebody waits, or that it is over is seen here.
        fence(Ordering::SeqCst);
        let is_over = self.is_over();
        async move {
            if !is_over {
                // An error means the same: it is gone.
                let _ = over.wait_for(|over| *over).await;
            }
        }
    }

    /// Whether it may use KV once more.
    pub(super) fn may_use_kv(&self) -> bool {
        self.kv_operations.fetch_add(1, Ordering::Relaxed) < KV_OPERATIONS_MAX
    }

    /// Whether it may fetch once more.
    pub(super) fn may_fetch(&self) -> bool {
        self.fetches.fetch_add(1, Ordering::Relaxed) < FETCHES_MAX
    }

    /// Whether there is no answer yet.
    pub(super) fn is_awaited(&self) -> bool {
        locked(&self.answer).is_some()
    }

    /// How long it might have taken, if there is still no answer.
    pub(super) fn is_late(&self) -> Option<Duration> {
        (self.began.elapsed() > self.patience && self.is_awaited()).then_some(self.patience)
    }

    /// The answer; only the first counts.
    pub(super) fn respond(&self, response: Response<Streamed>) {
        let status = response.status().as_u16();
        if self.settle(Ok(response)) {
            self.told(|report| report.event["response"] = json!({ "status": status }));
        }
    }

    /// There will be no answer.
    pub(super) fn fail(&self, error: EngineError) {
        let outcome = match &error {
            EngineError::Cpu { .. } => "exceededCpu",
            EngineError::Memory => "exceededMemory",
            EngineError::Slow { .. } => "canceled",
            _ => "exception",
        };
        self.told(|report| report.outcome = outcome);
        self.settle(Err(error));
    }

    fn settle(&self, outcome: Result<Response<Streamed>, EngineError>) -> bool {
        let Some(answer) = locked(&self.answer).take() else { return false };
        *locked(&self.answered) = Some(Instant::now());
        outbox::send(answer, outcome)
    }

    /// Where the rest of the answer goes.
    pub(super) fn streams_to(&self, out: mpsc::Sender<Result<Bytes, BodyFailure>>) {
        *locked(&self.out) = Some(out);
    }

    pub(super) fn out(&self) -> Option<mpsc::Sender<Result<Bytes, BodyFailure>>> {
        locked(&self.out).clone()
    }

    /// That was all of the answer, or it breaks off.
    pub(super) fn end_stream(&self, is_whole: bool) {
        *locked(&self.answered) = Some(Instant::now());
        let out = locked(&self.out).take();
        if let (Some(out), false) = (out, is_whole) {
            // A full channel breaks off just as well when its sender goes away: the length is wrong, or the end missing.
            let _ = out.try_send(Err("the script broke its answer off".into()));
        }
    }

    /// How long ago the answer was complete.
    pub(super) fn idle(&self) -> Option<Duration> {
        let is_streaming = locked(&self.out).as_ref().is_some_and(|out| !out.is_closed());
        let answered = *locked(&self.answered);
        answered.filter(|_| !is_streaming).map(|at| at.elapsed())
    }

    /// Keeps a stream of the node's for the script: its number, or `None` if there are too many.
    pub(super) fn keep(&self, body: Streamed) -> Option<u32> {
        let mut sources = locked(&self.sources);
        if sources.1.len() >= SOURCES_MAX {
            return None;
        }
        sources.0 += 1;
        let number = sources.0;
        sources.1.insert(number, Arc::new(tokio::sync::Mutex::new(body)));
        Some(number)
    }

    pub(super) fn source(&self, number: u32) -> Option<Source> {
        locked(&self.sources).1.get(&number).cloned()
    }

    pub(super) fn drop_source(&self, number: u32) -> Option<Source> {
        locked(&self.sources).1.remove(&number)
    }

    /// Keeps a page that is being rewritten: its number, or `None` if there are too many.
    pub(super) fn keep_rewriter(&self, rewriter: Rewriter) -> Option<u32> {
        let mut rewriters = locked(&self.rewriters);
        if rewriters.1.len() >= REWRITERS_MAX {
            return None;
        }
        rewriters.0 += 1;
        let number = rewriters.0;
        rewriters.1.insert(number, rewriter);
        Some(number)
    }

    pub(super) fn with_rewriter<T>(
        &self,
        number: u32,
        work: impl FnOnce(&mut Rewriter) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut rewriters = locked(&self.rewriters);
        let rewriter = rewriters.1.get_mut(&number);
        rewriter.map_or_else(|| Err("The page belongs to another request, or is complete.".into()), work)
    }

    pub(super) fn drop_rewriter(&self, number: u32) {
        locked(&self.rewriters).1.remove(&number);
    }

    fn told(&self, change: impl FnOnce(&mut Report)) {
        if let Some(report) = &self.report {
            change(&mut locked(report));
        }
    }

    /// The script has logged something: each part of it as JSON text.
    pub(super) fn log(&self, level: &str, parts: &[String], now_ms: u64) {
        self.told(|report| {
            let len: usize = parts.iter().map(String::len).sum();
            if report.logs.len() < LOGS_MAX && report.logs_len + len <= LOGS_LEN_MAX {
                report.logs_len += len;
                let message: Vec<Json> = parts.iter().filter_map(|part| serde_json::from_str(part).ok()).collect();
                report.logs.push(json!({ "message": message, "level": level, "timestamp": now_ms }));
            }
        });
    }

    /// The script threw something.
    pub(super) fn threw(&self, name: &str, message: &str, stack: &str, now_ms: u64) {
        self.told(|report| {
            report.outcome = "exception";
            if report.exceptions.len() < LOGS_MAX {
                let stack: String = stack.chars().take(4096).collect();
                report
                    .exceptions
                    .push(json!({ "name": name, "message": message, "stack": stack, "timestamp": now_ms }));
            }
        });
    }

    /// A timer was handled.
    pub(super) fn handled(&self) {
        self.respond(Response::new(Streamed::empty()));
    }

    /// Ends it: nothing of it goes on. What those who watch are told, the first time.
    pub(super) fn close(&self) -> Option<Json> {
        if self.is_over.swap(true, Ordering::SeqCst) {
            return None;
        }
        fence(Ordering::SeqCst);
        if let Some(over) = self.over.get() {
            over.send_replace(true);
        }
        self.fail_if_awaited();
        self.end_stream(false);
        locked(&self.sources).1.clear();
        locked(&self.rewriters).1.clear();
        let report = self.report.as_ref()?;
        let mut report = locked(report);
        let ms = |ns: u64| ns / 1_000_000;
        Some(json!({
            "event": report.event.take(),
            "outcome": report.outcome,
            "logs": std::mem::take(&mut report.logs),
            "exceptions": std::mem::take(&mut report.exceptions),
            "diagnosticsChannelEvents": [],
            "eventTimestamp": report.began_ms,
            "executionModel": "stateless",
            "truncated": false,
            "cpuTime": ms(self.cpu_ns.load(Ordering::Relaxed)),
            "wallTime": u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
        }))
    }

    fn fail_if_awaited(&self) {
        if self.is_awaited() {
            self.fail(EngineError::Threw);
        }
    }
}
