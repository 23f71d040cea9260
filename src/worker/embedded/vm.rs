//! A runtime with a script in it: loaded, told of what happens, and asked for its answers.
//!
//! Knows nothing of turns, or of what is done about a script that goes too far.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rquickjs::{CatchResultExt, Context, Ctx, Function, Module, Object, Persistent, Promise, Runtime, Value};

use super::crew::{Crew, cpu_time};
use super::host::{self, Given};
use super::isolate::{Asked, Event, Isolate, Offence};
use super::meter::Meter;
use super::{modules, outbox};
use crate::worker::{Binding, Program, Syntax};

/// Most memory of a script, in bytes.
pub(super) const HEAP_LEN_MAX: usize = 128 * 1024 * 1024;
/// Most stack of a script, in bytes.
pub(super) const STACK_LEN_MAX: usize = 1024 * 1024;
/// When garbage is looked for first, in bytes.
const GC_THRESHOLD: usize = 1024 * 1024;
/// Longest that a script may compute before it can be asked anything.
const START_CPU_MAX: Duration = Duration::from_secs(1);

/// The runtime.
pub(super) struct Vm {
    context: Context,
    runtime: Runtime,
    /// How far it may compute.
    pub(super) meter: Arc<Meter>,
}

/// Functions of the prelude, kept by the runtime, each at its place.
type Entries<'js> = Vec<Function<'js>>;

const ENTRIES: [&str; 5] = ["deliver", "onFetch", "onScheduled", "conclude", "later"];
const DELIVER: usize = 0;
const ON_FETCH: usize = 1;
const ON_SCHEDULED: usize = 2;
const CONCLUDE: usize = 3;
const LATER: usize = 4;

/// The answer of a script, when it is there.
type Promised = Persistent<Promise<'static>>;

impl Vm {
    /// A runtime with the script in it, or why there is none.
    pub(super) fn start(program: &Program, crew: &Arc<Crew>, isolate: &Weak<Isolate>) -> Result<Self, String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        runtime.set_memory_limit(HEAP_LEN_MAX);
        runtime.set_max_stack_size(STACK_LEN_MAX);
        runtime.set_gc_threshold(GC_THRESHOLD);
        modules::install(&runtime, &program.modules)?;
        let meter = Arc::new(Meter::default());
        let (watched, crew) = (Arc::clone(&meter), Arc::clone(crew));
        runtime.set_interrupt_handler(Some(Box::new(move || {
            // Others of the same turn need not wait for it.
            outbox::flush();
            let now = cpu_time();
            crew.notice(now);
            watched.look(now)
        })));
        let context = Context::full(&runtime).map_err(|error| error.to_string())?;
        meter.begin(cpu_time(), START_CPU_MAX);
        let started = context.with(|ctx| start(&ctx, program, isolate).catch(&ctx).map_err(|error| error.to_string()));
        let vm = Self { context, runtime, meter };
        match started {
            _ if vm.meter.is_exceeded() => {
                Err(format!("it computed for more than {} ms before it could be asked", START_CPU_MAX.as_millis()))
            }
            started => started.map(|()| vm),
        }
    }

    /// Tells the script of an event, and runs what is to be done once it has returned.
    pub(super) fn run(&self, event: Event, is_over: bool) -> Option<Offence> {
        let mut broken = None;
        let promised = self.context.with(|ctx| match call(&ctx, event, is_over)? {
            Ok(promise) => look(&ctx, promise, false, &mut broken),
            Err(_) => {
                broken = offence_of(&ctx.catch());
                None
            }
        });
        self.run_jobs(promised).or(broken)
    }

    /// Runs what is left to be done, whoever began it.
    pub(super) fn run_on(&self) -> Option<Offence> {
        self.run_jobs(None)
    }

    /// Bytes of its heap.
    pub(super) fn heap_len(&self) -> usize {
        usize::try_from(self.runtime.memory_usage().malloc_size).unwrap_or(0)
    }

    /// Runs all jobs, and looks for an answer after each.
    fn run_jobs(&self, mut promised: Option<Promised>) -> Option<Offence> {
        let mut offence = None;
        loop {
            let is_idle = match self.runtime.execute_pending_job() {
                Ok(ran) => !ran,
                Err(failed) => {
                    offence = failed.0.with(|ctx| offence_of(&ctx.catch())).or(offence);
                    if self.meter.is_exceeded() {
                        return Some(Offence::Cpu);
                    }
                    false
                }
            };
            if let Some(promise) = promised.take() {
                promised = self.context.with(|ctx| look(&ctx, promise.restore(&ctx).ok()?, is_idle, &mut offence));
            } else if is_idle {
                return offence;
            }
        }
    }
}

/// Calls the prelude: gives the promise of an answer, if there is one.
fn call<'js>(ctx: &Ctx<'js>, event: Event, is_over: bool) -> Option<rquickjs::Result<Promise<'js>>> {
    let called: rquickjs::Result<Value<'js>> = match event {
        Event::Settled { operation, .. } if is_over => entry(ctx, DELIVER)?.call((operation,)),
        Event::Settled { operation, outcome: Ok(given), .. } => entry(ctx, DELIVER)?.call((operation, true, given)),
        Event::Settled { operation, outcome: Err(failure), .. } => {
            entry(ctx, DELIVER)?.call((operation, false, failure.name, failure.message))
        }
        Event::Asked(visit, Asked::Fetch { method, url, headers, source, len, cf }) => {
            let source = source.map_or(Given::Null, |number| Given::Number(f64::from(number)));
            let len = len.map_or(Given::Null, |len| Given::Number(len as f64));
            let cf = cf.as_ref().and_then(|cf| cf.to_str().ok());
            entry(ctx, ON_FETCH)?.call((visit.number, method.as_str(), url, headers, source, len, cf))
        }
        Event::Asked(visit, Asked::Scheduled { cron, due_ms }) => {
            return entry(ctx, ON_SCHEDULED)?
                .call::<_, Value<'js>>((visit.number, cron, due_ms as f64))
                .map_or_else(|error| Some(Err(error)), |_| None);
        }
    };
    called.map(|value| value.into_promise()).transpose()
}

/// Has the prelude go on with an answer that is there. If it isn't, gives it back; or has the prelude wait for it, if no job
/// is left that might bring it.
fn look<'js>(ctx: &Ctx<'js>, promise: Promise<'js>, is_idle: bool, offence: &mut Option<Offence>) -> Option<Promised> {
    let went: rquickjs::Result<()> = match promise.result::<Value<'js>>() {
        None if !is_idle => return Some(Persistent::save(ctx, promise)),
        None => entry(ctx, LATER)?.call((promise,)),
        Some(Ok(answer)) => entry(ctx, CONCLUDE)?.call((true, answer)),
        Some(Err(_)) => entry(ctx, CONCLUDE)?.call((false, ctx.catch())),
    };
    if went.is_err() {
        *offence = offence_of(&ctx.catch()).or(*offence);
    }
    None
}

fn entry<'js>(ctx: &Ctx<'js>, index: usize) -> Option<Function<'js>> {
    ctx.userdata::<Entries<'_>>()?.get(index).cloned()
}

fn offence_of(error: &Value<'_>) -> Option<Offence> {
    let message: String = error.as_object()?.get("message").ok()?;
    host::is_out_of_memory(&message).then_some(Offence::Memory)
}

/// Loads the prelude and then the script.
fn start<'js>(ctx: &Ctx<'js>, program: &Program, isolate: &Weak<Isolate>) -> rquickjs::Result<()> {
    ctx.globals().set("starlingHost", host::object(ctx, isolate)?)?;
    let prelude: Object<'js> = settled(ctx, Module::import(ctx, modules::MAIN)?)?;
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
    let entries = ENTRIES.map(|name| prelude.get::<_, Function<'js>>(name));
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
