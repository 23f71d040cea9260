//! One script in a runtime of its own: its bounds, and its turns.
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
use rustix::process::Pid;
use tokio::time::Instant;

use super::Ground;
use super::crew::{Turn, this_thread};
use super::host::Outcome;
use super::meter::{Spent, nanos};
use super::visit::Visit;
use super::vm::{HEAP_LEN_MAX, Vm};
use crate::worker::engine::EngineError;
use crate::worker::{Program, ScriptId};

/// Longest that a request may compute in all, unless the script's owner has set a limit.
const CPU_MAX: Duration = Duration::from_secs(5);
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
    /// Visits that have been promised this runtime and have not come yet.
    coming: AtomicUsize,
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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
            coming: AtomicUsize::new(0),
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

    /// A visit will come: until it has, the runtime is as busy as if it were there. So no sweep overlooks it, and its
    /// patience has an end wherever the runtime goes meanwhile.
    pub(super) fn expect(&self) {
        self.coming.fetch_add(1, Ordering::AcqRel);
    }

    /// Has the script handle something. It was expected.
    pub(super) fn ask(&self, visit: Arc<Visit>, asked: Asked) {
        *locked(&self.used) = visit.began;
        // Under one lock: a visit that is known and whose event is not in the inbox has been begun.
        let inbox = locked(&self.inbox);
        locked(&self.visits).insert(visit.number, Arc::clone(&visit));
        self.coming.fetch_sub(1, Ordering::AcqRel);
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
        self.coming.load(Ordering::Acquire) > 0 || !locked(&self.visits).is_empty()
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
            self.heap_len.store(vm.heap_len(), Ordering::Relaxed);
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
            match Vm::start(&self.program, &self.ground.crew, &self.me) {
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
        let is_new = vm.is_none();
        let Some(running) = self.load(vm) else {
            visit.fail(self.refused().map_or(EngineError::Lost, EngineError::Refused));
            return self.close(&visit);
        };
        if is_new {
            // What it took to load it is nobody's.
            *spent = Spent::read();
        }
        let limit = self.program.cpu_ms.map_or(CPU_MAX, |ms| Duration::from_millis(u64::from(ms).max(1)));
        let before = Duration::from_nanos(visit.cpu_ns.load(Ordering::Relaxed));
        let is_over = visit.is_over();
        *locked(&self.current) = Some(Arc::clone(&visit));
        *locked(&self.computing) = Some((spent.at(), this_thread()));
        let began = spent.now();
        running.meter.begin(began, if is_over { REST_CPU_MAX } else { limit.saturating_sub(before) });
        let mut broken = running.run(event, is_over);
        spent.go_on();
        visit.cpu_ns.fetch_add(nanos(spent.now().saturating_sub(began)), Ordering::Relaxed);
        if running.meter.is_exceeded() {
            broken = Some(Offence::Cpu);
        }
        if self.is_suspect.swap(false, Ordering::Relaxed) {
            // The heap may be empty again by now, but to fill it takes a while.
            let is_full = running.heap_len() > HEAP_LEN_MAX / 4 * 3;
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
            running.run_on();
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
        let mut spent = Spent::resume();
        let mut has_more = true;
        for _ in 0..EVENTS_MAX {
            let Some(event) = self.event() else {
                has_more = false;
                break;
            };
            self.handle(&mut vm, event, &mut spent);
        }
        spent.keep();
        if !has_more && vm.is_some() && self.is_busy() {
            self.end_what_hangs();
        }
        has_more
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
