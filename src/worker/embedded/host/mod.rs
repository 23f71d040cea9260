//! What the prelude can have the node do. Every function checks for itself who asks and what for: a script that gets
//! hold of one can do with it what it could do anyway.

mod cache;
mod crypto;
mod html;
mod kv;
mod pattern;
mod text;
mod web;

pub(super) use web::lines;

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use rquickjs::{Array, ArrayBuffer, Ctx, Exception, Function, IntoJs, Object, TypedArray, Value};

use super::isolate::{Event, Isolate, Offence};
use super::visit::{OPERATIONS_MAX, Visit};
use crate::worker::engine::EngineError;

/// Longest timer.
const TIMER_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest line of a script's in the node's log, in characters.
const LINE_LEN_MAX: usize = 1_000;
/// What scripts are told that do this before they are asked anything.
const NOBODY: &str = "Disallowed operation called within global scope. Asynchronous I/O (ex: fetch() or connect()), setting a timeout, and generating random values are not allowed within global scope. To fix this error, perform this operation within a handler.";

/// A value for a script.
pub(super) enum Given {
    Null,
    Flag(bool),
    Number(f64),
    Text(String),
    Bytes(Bytes),
    List(Vec<Given>),
}

/// An error for a script: its class, or the name of a `DOMException`.
pub(super) struct Failure {
    pub(super) name: &'static str,
    pub(super) message: String,
}

/// How something ended that a script waits for.
pub(super) type Outcome = Result<Given, Failure>;

impl Failure {
    fn error(message: impl Into<String>) -> Self {
        Self { name: "Error", message: message.into() }
    }

    fn type_error(message: impl Into<String>) -> Self {
        Self { name: "TypeError", message: message.into() }
    }
}

impl<'js> IntoJs<'js> for Given {
    fn into_js(self, ctx: &Ctx<'js>) -> rquickjs::Result<Value<'js>> {
        match self {
            Self::Null => Ok(Value::new_null(ctx.clone())),
            Self::Flag(flag) => Ok(Value::new_bool(ctx.clone(), flag)),
            Self::Number(number) => Ok(Value::new_number(ctx.clone(), number)),
            Self::Text(text) => text.into_js(ctx),
            Self::Bytes(bytes) => Ok(TypedArray::new_copy(ctx.clone(), bytes)?.into_value()),
            Self::List(items) => items.into_js(ctx),
        }
    }
}

/// Bytes that a script passes.
pub(super) struct Passed(pub(super) Bytes);

impl<'js> rquickjs::FromJs<'js> for Passed {
    fn from_js(ctx: &Ctx<'js>, value: Value<'js>) -> rquickjs::Result<Self> {
        bytes_of(&value).map(Self).ok_or_else(|| Exception::throw_type(ctx, "bytes are needed here"))
    }
}

/// A copy of the bytes in a `Uint8Array` or an `ArrayBuffer`.
#[allow(unsafe_code, reason = "the binding has no safe way to read a buffer; nothing else in the program needs any")]
fn bytes_of(value: &Value<'_>) -> Option<Bytes> {
    let object = value.as_object()?;
    let raw = match object.as_typed_array::<u8>() {
        Some(array) => array.as_raw(),
        None => ArrayBuffer::from_object(object.clone())?.as_raw(),
    };
    // SAFETY: the pointer is valid until JavaScript runs again, which it can't before the copy is made: the runtime is
    // locked by this thread.
    raw.map(|raw| Bytes::copy_from_slice(unsafe { raw.as_ref() }))
}

/// A body that a script passes: text, bytes, or nothing.
fn body_of(value: &Value<'_>) -> Option<Bytes> {
    match value.as_string() {
        Some(text) => text.to_string().ok().map(Bytes::from),
        None => bytes_of(value),
    }
}

/// The interpreter's words.
pub(super) fn is_out_of_memory(message: &str) -> bool {
    message == "out of memory"
}

/// What functions know.
#[derive(Clone)]
struct Desk(Weak<Isolate>);

impl Desk {
    fn isolate(&self, ctx: &Ctx<'_>) -> rquickjs::Result<Arc<Isolate>> {
        self.0.upgrade().ok_or_else(|| Exception::throw_message(ctx, "the script is not deployed any more"))
    }

    /// Whoever is asking.
    fn visit(&self, ctx: &Ctx<'_>) -> rquickjs::Result<Arc<Visit>> {
        let visit = self.isolate(ctx)?.current().filter(|visit| !visit.is_over());
        visit.ok_or_else(|| Exception::throw_message(ctx, NOBODY))
    }

    /// Begins something for whoever is asking. If it is done at once, that is the result: a list of whether it went
    /// well and what came of it.
    fn begin<'js>(
        &self,
        ctx: &Ctx<'js>,
        operation: f64,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> rquickjs::Result<Value<'js>> {
        let (isolate, visit) = (self.isolate(ctx)?, self.visit(ctx)?);
        if visit.waiting.load(Ordering::Acquire) >= OPERATIONS_MAX {
            let message = format!("A request can't wait for more than {OPERATIONS_MAX} things at a time.");
            return Err(Exception::throw_message(ctx, &message));
        }
        let mut work = Box::pin(work);
        if let Poll::Ready(outcome) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done(ctx, outcome);
        }
        isolate.begin_operation();
        visit.waiting.fetch_add(1, Ordering::AcqRel);
        let (me, over) = (Weak::clone(&self.0), visit.over());
        isolate.ground.crew.handle().spawn(async move {
            let outcome = tokio::select! {
                outcome = work => outcome,
                // Nobody waits for it any more.
                () = over => Ok(Given::Null),
            };
            if let Some(isolate) = me.upgrade() {
                isolate.post(Event::Settled { visit, operation, outcome });
            }
        });
        Ok(Value::new_undefined(ctx.clone()))
    }
}

fn done<'js>(ctx: &Ctx<'js>, outcome: Outcome) -> rquickjs::Result<Value<'js>> {
    let result = Array::new(ctx.clone())?;
    result.set(0, outcome.is_ok())?;
    match outcome {
        Ok(given) => result.set(1, given)?,
        Err(Failure { name, message }) => {
            result.set(1, name)?;
            result.set(2, message)?;
        }
    }
    Ok(result.into_value())
}

/// Everything together, for the prelude alone.
pub(super) fn object<'js>(ctx: &Ctx<'js>, isolate: &Weak<Isolate>) -> rquickjs::Result<Object<'js>> {
    let host = Object::new(ctx.clone())?;
    let desk = Desk(Weak::clone(isolate));
    host.set("startedMs", desk.isolate(ctx)?.ground.kv.now_ms() as f64)?;
    text::add(ctx, &host)?;
    crypto::add(ctx, &host, &desk)?;
    kv::add(ctx, &host, &desk)?;
    web::add(ctx, &host, &desk)?;
    cache::add(ctx, &host, &desk)?;
    html::add(ctx, &host, &desk)?;
    pattern::add(ctx, &host)?;

    let at = desk.clone();
    host.set(
        "timer",
        Function::new(ctx.clone(), move |ctx: Ctx<'js>, operation: f64, ms: f64| {
            let span = Duration::try_from_secs_f64((ms / 1000.0).max(0.0)).unwrap_or(TIMER_MAX).min(TIMER_MAX);
            at.begin(&ctx, operation, async move {
                if span.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(span).await;
                }
                Ok(Given::Null)
            })
        })?,
    )?;

    let at = desk.clone();
    host.set(
        "log",
        Function::new(ctx.clone(), move |ctx: Ctx<'js>, level: String, plain: Vec<String>, parts: Vec<String>| {
            let isolate = at.isolate(&ctx)?;
            let line: String = plain.join(" ").chars().take(LINE_LEN_MAX).collect();
            // Of the script: never a line of the node's own.
            tracing::debug!(script = isolate.program.script, level, "{}", line.escape_debug());
            if let Some(visit) = isolate.current() {
                visit.log(&level, &parts, isolate.ground.kv.now_ms());
            }
            rquickjs::Result::Ok(())
        })?,
    )?;

    let at = desk.clone();
    host.set(
        "threw",
        Function::new(ctx.clone(), move |ctx: Ctx<'js>, visit: u32, name: String, message: String, stack: String| {
            let isolate = at.isolate(&ctx)?;
            if let Some(visit) = isolate.visit(visit) {
                tell(&isolate, &visit, &name, &message, &stack);
            }
            rquickjs::Result::Ok(())
        })?,
    )?;

    let at = desk.clone();
    host.set(
        "failed",
        Function::new(ctx.clone(), move |ctx: Ctx<'js>, visit: u32, name: String, message: String, stack: String| {
            let isolate = at.isolate(&ctx)?;
            let Some(visit) = isolate.visit(visit) else { return Ok(()) };
            tell(&isolate, &visit, &name, &message, &stack);
            if name == "InternalError" && is_out_of_memory(&message) {
                isolate.offend(Offence::Memory);
                visit.fail(EngineError::Memory);
            } else if message == "null" {
                isolate.suspect();
            } else {
                visit.fail(EngineError::Threw);
            }
            rquickjs::Result::Ok(())
        })?,
    )?;

    let at = desk.clone();
    host.set(
        "handled",
        Function::new(ctx.clone(), move |ctx: Ctx<'js>, visit: u32| {
            if let Some(visit) = at.isolate(&ctx)?.visit(visit) {
                visit.handled();
            }
            rquickjs::Result::Ok(())
        })?,
    )?;

    let at = desk;
    host.set(
        "finished",
        Function::new(ctx.clone(), move |ctx: Ctx<'js>, visit: u32| {
            let isolate = at.isolate(&ctx)?;
            if let Some(visit) = isolate.visit(visit) {
                finished(&isolate, &visit);
            }
            rquickjs::Result::Ok(())
        })?,
    )?;
    Ok(host)
}

/// Nothing is left to be done for a visit.
fn finished(isolate: &Isolate, visit: &Visit) {
    // What a suspect has come to is told after its turn.
    if !isolate.is_suspect() {
        isolate.close(visit);
    }
}

fn tell(isolate: &Isolate, visit: &Visit, name: &str, message: &str, stack: &str) {
    let line: String = format!("{name}: {message} {stack}").chars().take(LINE_LEN_MAX).collect();
    tracing::info!(script = isolate.program.script, "a script threw {}", line.escape_debug());
    visit.threw(name, message, stack, isolate.ground.kv.now_ms());
}
