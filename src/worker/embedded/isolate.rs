//! One script in a runtime of its own: its heap, its bounds, and its turns.
//!
//! Whatever happens to a script is an event: a request, a timer, or the end of something that it waits for. A turn
//! handles some. Nothing of one isolate is reachable from another. Knows nothing of which scripts there are.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderValue;
use rquickjs::{CatchResultExt, Context, Ctx, Function, Module, Object, Runtime, Value};
use rustix::process::Pid;
use tokio::time::Instant;

use super::crew::{Turn, cpu_time, this_thread};
use super::host::{self, Given, Outcome};
use super::meter::{Meter, Spent, nanos};
use super::outbox;
use super::visit::Visit;
use super::{Ground, modules};
use crate::worker::engine::EngineError;
use crate::worker::{Binding, Program, ScriptId, Syntax};

/// Most memory of a script, in bytes.
pub(super) const HEAP_LEN_MAX: usize = 128 * 1024 * 1024;
/// Most stack of a script, in bytes.
pub(super) const STACK_LEN_MAX: usize = 1024 * 1024;
/// When garbage is looked for first, in bytes.
const GC_THRESHOLD: usize = 1024 * 1024;
/// Longest that a request may compute in all, unless the script's owner has set a limit.
const CPU_MAX: Duration = Duration::from_secs(5);
/// Longest that a script may compute before it can be asked anything.
const START_CPU_MAX: Duration = Duration::from_secs(1);
/// What a script may go on computing after a request of it was stopped.
const REST_CPU_MAX: Duration = Duration::from_millis(50);
/// The shortest time in which a script can fill its heap.
const FILLING_MIN: Duration = Duration::from_millis(50);
/// How long what was begun may go on after an answer.
const AFTERMATH_MAX: Duration = Duration::from_secs(30);
/// Events of one turn.
const EVENTS_MAX: usize = 64;

/// What happens to a script.
pub(super) enum Event {
    Asked(Arc<Visit>, Asked),
    Settled { visit: Arc<Visit>, operation: f64, outcome: Outcome },
}

/// What it is asked.
pub(super) enum Asked {
    Fetch {
        method: Method,
        url: String,
        /// Names and values in turn, each in a line.
        headers: String,
        source: Option<u32>,
        len: Option<u64>,
        /// `request.cf`, as JSON.
        cf: Option<HeaderValue>,
    },
    Scheduled {
        cron: String,
        due_ms: u64,
    },
}

/// What a script has done that it may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offence {
    Cpu,
    Memory,
    /// The engine itself has failed over it.
    Crash,
}

/// One script in its runtime.
pub(super) struct Isolate {
    pub(super) program: Arc<Program>,
    pub(super) ground: Arc<Ground>,
    me: Weak<Isolate>,
    inbox: Mutex<Inbox>,
    vm: Mutex<Option<Vm>>,
    visits: Mutex<BTreeMap<u32, Arc<Visit>>>,
    current: Mutex<Option<Arc<Visit>>>,
    last_visit: AtomicU32,
    /// Operations whose end was not heard of yet.
    pending: AtomicUsize,
    /// Whether it gets no more requests.
    is_retired: AtomicBool,
    /// Whether it was ended before its time.
    is_stopped: AtomicBool,
    refused: Mutex<Option<String>>,
    offence: Mutex<Option<Offence>>,
    has_offended: AtomicBool,
    is_suspect: AtomicBool,
    computing: Mutex<Option<(Instant, Pid)>>,
    used: Mutex<Instant>,
    heap_len: AtomicUsize,
}

#[derive(Default)]
struct Inbox {
    events: VecDeque<Event>,
    is_queued: bool,
}

struct Vm {
    context: Context,
    runtime: Runtime,
    meter: Arc<Meter>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Functions of the prelude, kept by the runtime: `deliver`, `onFetch`, `onScheduled`.
type Entries<'js> = Vec<Function<'js>>;

impl Isolate {
    pub(super) fn new(program: Arc<Program>, ground: Arc<Ground>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            program,
            ground,
            me: me.clone(),
            inbox: Mutex::default(),
            vm: Mutex::default(),
            visits: Mutex::default(),
            current: Mutex::default(),
            last_visit: AtomicU32::new(0),
            pending: AtomicUsize::new(0),
            is_retired: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            refused: Mutex::default(),
            offence: Mutex::default(),
            has_offended: AtomicBool::new(false),
            is_suspect: AtomicBool::new(false),
            computing: Mutex::default(),
            used: Mutex::new(Instant::now()),
            heap_len: AtomicUsize::new(0),
        })
    }

    pub(super) fn next_number(&self) -> u32 {
        self.last_visit.fetch_add(1, Ordering::Relaxed)
    }

    /// Has the script handle something.
    pub(super) fn ask(&self, visit: Arc<Visit>, asked: Asked) {
        *locked(&self.used) = Instant::now();
        // Under one lock: a visit that is known and whose event is not in the inbox has been begun.
        let inbox = locked(&self.inbox);
        locked(&self.visits).insert(visit.number, Arc::clone(&visit));
        self.push(inbox, Event::Asked(visit, asked));
    }

    pub(super) fn post(&self, event: Event) {
        self.push(locked(&self.inbox), event);
    }

    fn push(&self, mut inbox: MutexGuard<'_, Inbox>, event: Event) {
        inbox.events.push_back(event);
        if !std::mem::replace(&mut inbox.is_queued, true) {
            drop(inbox);
            if let Some(me) = self.me.upgrade() {
                self.ground.crew.run(me);
            }
        }
    }

    pub(super) fn begin_operation(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn visit(&self, number: u32) -> Option<Arc<Visit>> {
        locked(&self.visits).get(&number).cloned()
    }

    /// Whose events are handled right now.
    pub(super) fn current(&self) -> Option<Arc<Visit>> {
        locked(&self.current).clone()
    }

    /// Nothing of a visit goes on.
    pub(super) fn close(&self, visit: &Visit) {
        locked(&self.visits).remove(&visit.number);
        if let Some(mut event) = visit.close() {
            event["scriptName"] = self.program.script.clone().into();
            event["scriptVersion"] = serde_json::json!({ "id": self.program.version });
            let script = ScriptId { account: self.program.account, script: self.program.script.clone() };
            self.ground.tails.publish(&script, Bytes::from(event.to_string()));
        }
    }

    /// Events that wait.
    pub(super) fn line_len(&self) -> usize {
        locked(&self.inbox).events.len()
    }

    pub(super) fn visits(&self) -> Vec<Arc<Visit>> {
        locked(&self.visits).values().cloned().collect()
    }

    pub(super) fn is_busy(&self) -> bool {
        !locked(&self.visits).is_empty()
    }

    /// Whether it takes requests.
    pub(super) fn is_open(&self) -> bool {
        !self.is_retired.load(Ordering::Acquire)
    }

    /// It gets no more requests, and is gone when those that it has are over.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// Why it can't be loaded, if it can't.
    pub(super) fn refused(&self) -> Option<String> {
        locked(&self.refused).clone()
    }

    /// What it has done, told once.
    pub(super) fn take_offence(&self) -> Option<Offence> {
        locked(&self.offence).take()
    }

    pub(super) fn last_used(&self) -> Instant {
        *locked(&self.used)
    }

    /// Bytes of its heap when it was last measured.
    pub(super) fn heap_len(&self) -> usize {
        self.heap_len.load(Ordering::Relaxed)
    }

    /// Measures its heap, if it isn't computing.
    pub(super) fn measure(&self) {
        if let Ok(vm) = self.vm.try_lock()
            && let Some(vm) = &*vm
        {
            let usage = vm.runtime.memory_usage();
            self.heap_len.store(usize::try_from(usage.malloc_size).unwrap_or(0), Ordering::Relaxed);
        }
    }

    fn event(&self) -> Option<Event> {
        let mut inbox = locked(&self.inbox);
        let event = inbox.events.pop_front();
        inbox.is_queued = event.is_some();
        event
    }

    /// Loads the script, if that was not done yet.
    fn load<'a>(&self, vm: &'a mut Option<Vm>) -> Option<&'a Vm> {
        if vm.is_none() && locked(&self.refused).is_none() && !self.is_stopped.load(Ordering::Acquire) {
            match Vm::start(self) {
                Ok(started) => *vm = Some(started),
                Err(reason) => {
                    tracing::warn!(script = self.program.script, %reason, "a script can't be loaded");
                    *locked(&self.refused) = Some(reason);
                    self.retire();
                }
            }
        }
        vm.as_ref()
    }

    fn handle(&self, vm: &mut Option<Vm>, event: Event, spent: &mut Spent) {
        let (Event::Asked(visit, _) | Event::Settled { visit, .. }) = &event;
        let visit = Arc::clone(visit);
        if matches!(event, Event::Settled { .. }) {
            self.pending.fetch_sub(1, Ordering::AcqRel);
            visit.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        let Some(running) = self.load(vm) else {
            visit.fail(self.refused().map_or(EngineError::Lost, EngineError::Refused));
            return self.close(&visit);
        };
        let limit = self.program.cpu_ms.map_or(CPU_MAX, |ms| Duration::from_millis(u64::from(ms).max(1)));
        let before = Duration::from_nanos(visit.cpu_ns.load(Ordering::Relaxed));
        let is_over = visit.is_over();
        *locked(&self.current) = Some(Arc::clone(&visit));
        let since = Instant::now();
        *locked(&self.computing) = Some((since, this_thread()));
        let began = spent.now();
        running.meter.begin(began, if is_over { REST_CPU_MAX } else { limit.saturating_sub(before) });
        let mut broken = running.call(event, is_over);
        broken = running.run_jobs().or(broken);
        spent.add(since.elapsed());
        visit.cpu_ns.fetch_add(nanos(spent.now().saturating_sub(began)), Ordering::Relaxed);
        if running.meter.is_exceeded() {
            broken = Some(Offence::Cpu);
        }
        if self.is_suspect.swap(false, Ordering::Relaxed) {
            let usage = running.runtime.memory_usage();
            // The heap may be empty again by now, but to fill it takes a while.
            let is_full = usize::try_from(usage.malloc_size).unwrap_or(0) > HEAP_LEN_MAX / 4 * 3;
            match is_full || spent.now().saturating_sub(began) > FILLING_MIN {
                true => broken = Some(Offence::Memory),
                false => {
                    visit.fail(EngineError::Threw);
                    self.close(&visit);
                }
            }
        }
        if let Some(offence) = broken {
            let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            // First: whoever asks again once it is told gets another runtime.
            self.offend(offence);
            visit.fail(match offence {
                Offence::Cpu => EngineError::Cpu { limit_ms },
                Offence::Memory => EngineError::Memory,
                Offence::Crash => EngineError::Lost,
            });
            self.close(&visit);
            // What others wait for may go on, for a moment.
            running.meter.begin(spent.now(), REST_CPU_MAX);
            running.run_jobs();
            *spent = Spent::read();
            if running.meter.is_exceeded() {
                self.give_up(vm, &EngineError::Lost);
            }
        }
        *locked(&self.current) = None;
        *locked(&self.computing) = None;
    }

    /// How long it has been computing without a pause, and on which thread.
    pub(super) fn computing(&self) -> Option<(Duration, Pid)> {
        locked(&self.computing).map(|(since, thread)| (since.elapsed(), thread))
    }

    /// Ends what does not come to an answer, and what goes on for too long after one.
    pub(super) fn end_what_is_over(&self) {
        for visit in self.visits() {
            let is_late = visit.is_late();
            if let Some(limit) = is_late {
                visit.fail(EngineError::Slow { limit_secs: limit.as_secs() });
            }
            if is_late.is_some() || visit.idle().is_some_and(|idle| idle > AFTERMATH_MAX) {
                self.close(&visit);
            }
        }
    }

    /// It has stood still for longer than its limit allows, where the interpreter can't be interrupted.
    pub(super) fn stand_still(&self) {
        let limit_ms = self.program.cpu_ms.map_or(CPU_MAX.as_millis() as u64, u64::from);
        self.offend(Offence::Cpu);
        for visit in self.visits() {
            visit.fail(EngineError::Cpu { limit_ms });
            self.close(&visit);
        }
    }

    /// An error that says nothing: it may stand for a want of memory.
    pub(super) fn suspect(&self) {
        self.is_suspect.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Relaxed)
    }

    /// It has gone too far. Once is enough for a runtime: the script gets another one.
    pub(super) fn offend(&self, offence: Offence) {
        if !self.has_offended.swap(true, Ordering::AcqRel) {
            tracing::warn!(script = self.program.script, ?offence, "a script exceeded a limit");
            *locked(&self.offence) = Some(offence);
        }
        self.retire();
    }

    /// Ends everything at once.
    fn give_up(&self, vm: &mut Option<Vm>, why: &EngineError) {
        self.retire();
        for visit in self.visits() {
            visit.fail(why.clone());
            self.close(&visit);
        }
        self.is_stopped.store(true, Ordering::Release);
        *vm = None;
    }

    /// A script that waits for nothing will never answer.
    fn end_what_hangs(&self) {
        let inbox = locked(&self.inbox);
        if self.pending.load(Ordering::Acquire) > 0 || !inbox.events.is_empty() {
            return;
        }
        let hanging = self.visits();
        drop(inbox);
        for visit in hanging {
            if visit.is_awaited() {
                let now_ms = self.ground.kv.now_ms();
                let message =
                    "The script will never generate a response: it waits for nothing that could still happen.";
                visit.threw("Error", message, "", now_ms);
                visit.fail(EngineError::Threw);
            }
            if visit.out().is_none() {
                self.close(&visit);
            }
        }
    }
}

impl Turn for Isolate {
    fn turn(self: Arc<Self>) -> bool {
        let mut vm = locked(&self.vm);
        let mut spent = Spent::read();
        for _ in 0..EVENTS_MAX {
            match self.event() {
                Some(event) => self.handle(&mut vm, event, &mut spent),
                None => {
                    if vm.is_some() && self.is_busy() {
                        self.end_what_hangs();
                    }
                    return false;
                }
            }
        }
        true
    }

    fn broke(&self) {
        tracing::error!(script = self.program.script, "the engine failed while it ran a script; this is a bug");
        self.offend(Offence::Crash);
        self.give_up(&mut locked(&self.vm), &EngineError::Lost);
        locked(&self.inbox).events.clear();
        locked(&self.inbox).is_queued = false;
    }
}

impl Drop for Isolate {
    fn drop(&mut self) {
        for visit in self.visits() {
            self.close(&visit);
        }
    }
}

impl Vm {
    /// A runtime with the script in it, or why there is none.
    fn start(isolate: &Isolate) -> Result<Self, String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        runtime.set_memory_limit(HEAP_LEN_MAX);
        runtime.set_max_stack_size(STACK_LEN_MAX);
        runtime.set_gc_threshold(GC_THRESHOLD);
        modules::install(&runtime, &isolate.program.modules)?;
        let meter = Arc::new(Meter::default());
        let (watched, crew) = (Arc::clone(&meter), Arc::clone(&isolate.ground.crew));
        runtime.set_interrupt_handler(Some(Box::new(move || {
            // Others of the same turn need not wait for it.
            outbox::flush();
            let now = cpu_time();
            crew.notice(now);
            watched.look(now)
        })));
        let context = Context::full(&runtime).map_err(|error| error.to_string())?;
        meter.begin(cpu_time(), START_CPU_MAX);
        let started = context.with(|ctx| start(&ctx, isolate).catch(&ctx).map_err(|error| error.to_string()));
        let vm = Self { context, runtime, meter };
        match started {
            _ if vm.meter.is_exceeded() => {
                Err(format!("it computed for more than {} ms before it could be asked", START_CPU_MAX.as_millis()))
            }
            started => started.map(|()| vm),
        }
    }

    /// Tells the script of an event.
    fn call(&self, event: Event, is_over: bool) -> Option<Offence> {
        self.context.with(|ctx| {
            let entry = |index: usize| ctx.userdata::<Entries<'_>>().and_then(|all| all.get(index).cloned());
            let called: rquickjs::Result<()> = match event {
                Event::Settled { operation, .. } if is_over => entry(0)?.call((operation,)),
                Event::Settled { operation, outcome: Ok(given), .. } => entry(0)?.call((operation, true, given)),
                Event::Settled { operation, outcome: Err(failure), .. } => {
                    entry(0)?.call((operation, false, failure.name, failure.message))
                }
                Event::Asked(visit, Asked::Fetch { method, url, headers, source, len, cf }) => {
                    let source = source.map_or(Given::Null, |number| Given::Number(f64::from(number)));
                    let len = len.map_or(Given::Null, |len| Given::Number(len as f64));
                    let cf = cf.as_ref().and_then(|cf| cf.to_str().ok());
                    entry(1)?.call((visit.number, method.as_str(), url, headers, source, len, cf))
                }
                Event::Asked(visit, Asked::Scheduled { cron, due_ms }) => {
                    entry(2)?.call((visit.number, cron, due_ms as f64))
                }
            };
            called.err().and_then(|_| offence_of(&ctx.catch()))
        })
    }

    /// Runs what is to be done once the script has returned.
    fn run_jobs(&self) -> Option<Offence> {
        let mut offence = None;
        loop {
            match self.runtime.execute_pending_job() {
                Ok(true) => {}
                Ok(false) => return offence,
                Err(failed) => {
                    offence = failed.0.with(|ctx| offence_of(&ctx.catch())).or(offence);
                    if self.meter.is_exceeded() {
                        return Some(Offence::Cpu);
                    }
                }
            }
        }
    }
}

fn offence_of(error: &Value<'_>) -> Option<Offence> {
    let message: String = error.as_object()?.get("message").ok()?;
    host::is_out_of_memory(&message).then_some(Offence::Memory)
}

/// Loads the prelude and then the script.
fn start<'js>(ctx: &Ctx<'js>, isolate: &Isolate) -> rquickjs::Result<()> {
    ctx.globals().set("starlingHost", host::object(ctx, &isolate.me)?)?;
    let prelude: Object<'js> = settled(ctx, Module::import(ctx, modules::MAIN)?)?;
    let program = &isolate.program;
    let bindings: Vec<Vec<Given>> = program
        .bindings
        .iter()
        .enumerate()
        .map(|(index, (name, binding))| {
            let (kind, value) = match binding {
                Binding::Kv(_) => ("kv", Given::Number(index as f64)),
                Binding::Text(text) => ("text", Given::Text(text.clone())),
                Binding::Json(text) => ("json", Given::Text(text.clone())),
                Binding::Secret(secret) => ("secret", Given::Text(secret.expose().to_owned())),
                Binding::Assets => ("assets", Given::Null),
            };
            vec![Given::Text(kind.into()), Given::Text(name.clone()), value]
        })
        .collect();
    let is_service_worker = program.syntax == Syntax::ServiceWorker;
    prelude.get::<_, Function<'js>>("prepare")?.call::<_, ()>((bindings, is_service_worker))?;
    let ready: Function<'js> = prelude.get("ready")?;
    let Some((main, others)) = program.modules.split_first() else { return Ok(()) };
    if is_service_worker {
        for module in others {
            let holder: Object<'js> = settled(ctx, Module::import(ctx, module.name.as_str())?)?;
            ctx.globals().set(module.name.as_str(), holder.get::<_, Value<'js>>("default")?)?;
        }
        let mut options = rquickjs::context::EvalOptions::default();
        (options.strict, options.filename) = (false, Some(main.name.clone()));
        ctx.eval_with_options::<(), _>(&*main.body, options)?;
        while ctx.execute_pending_job() {}
        ready.call::<_, ()>(())?;
    } else {
        let exports: Object<'js> = settled(ctx, Module::import(ctx, main.name.as_str())?)?;
        ready.call::<_, ()>((exports,))?;
    }
    let entries = ["deliver", "onFetch", "onScheduled"].map(|name| prelude.get::<_, Function<'js>>(name));
    let entries: Entries<'js> = entries.into_iter().collect::<rquickjs::Result<_>>()?;
    ctx.store_userdata(entries).map_err(|_| rquickjs::Error::Unknown)?;
    Ok(())
}

/// What a promise gives once there is nothing more to do.
fn settled<'js>(ctx: &Ctx<'js>, promise: rquickjs::Promise<'js>) -> rquickjs::Result<Object<'js>> {
    while ctx.execute_pending_job() {}
    match promise.result::<Object<'js>>() {
        Some(result) => result,
        None => {
            Err(rquickjs::Exception::throw_message(ctx, "its top-level await waits for something that never happens"))
        }
    }
}
