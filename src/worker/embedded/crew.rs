//! The threads that run scripts: as many as there are processors, and one more for each that a script keeps busy.
//!
//! A thread that has computed for a while without a pause is lent to its script: it takes a lower priority, another one
//! takes its place, and it ends when the script pauses. So a busy script never keeps others waiting. Knows nothing of
//! scripts.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Handle;

use super::outbox;

/// Stack of a thread, of which a script may use a part: see `STACK_LEN_MAX` in `vm`.
const THREAD_STACK_LEN: usize = 2 * 1024 * 1024;
/// How long a thread computes for one script before it is lent.
const LEND_AFTER: Duration = Duration::from_millis(20);
/// Most threads that are lent at a time. When these are gone, the others wait until one of them reaches its limit.
const LENT_MAX: usize = 128;
/// Priority of a lent thread: the higher, the less it gets.
const LENT_NICE: i32 = 10;

/// Something that wants to run.
pub(super) trait Turn: Send + Sync + 'static {
    /// Runs for a short while. Whether there is more to do.
    fn turn(self: Arc<Self>) -> bool;
    /// It has panicked.
    fn broke(&self);
}

/// The threads.
pub(super) struct Crew {
    queue: Mutex<Queue>,
    wake: Condvar,
    handle: Handle,
    /// How many there are to be that are not lent.
    threads: usize,
}

/// Has a thread run only where others leave it the time.
fn step_back(thread: Pid) {
    // Of that thread alone, on Linux. An error leaves it as it is.
    let _ = rustix::process::setpriority_process(Some(thread), LENT_NICE);
}

struct Queue {
    waiting: VecDeque<Arc<dyn Turn>>,
    /// Threads that are not lent.
    threads: usize,
    lent: usize,
    /// Threads that wait for something to do.
    idle: usize,
    is_ending: bool,
}

thread_local! {
    /// Processor time at which somebody first looked at this thread's turn, and whether the thread was lent meanwhile.
    static TURN: Cell<(Option<Duration>, bool)> = const { Cell::new((None, false)) };
    /// What the system calls this thread.
    static THREAD: Pid = rustix::thread::gettid();
}

/// Processor time of this thread.
pub(super) fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// What the system calls this thread.
pub(super) fn this_thread() -> Pid {
    THREAD.with(|thread| *thread)
}

impl Crew {
    /// Needs a tokio runtime around it, in which what scripts wait for runs.
    pub(super) fn start(threads: usize) -> std::io::Result<Arc<Self>> {
        let queue = Queue { waiting: VecDeque::new(), threads: 0, lent: 0, idle: 0, is_ending: false };
        let crew = Arc::new(Self {
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            handle: Handle::current(),
            threads: threads.max(1),
        });
        for _ in 0..threads.max(1) {
            crew.hire(&mut crew.queue())?;
        }
        Ok(crew)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How many there are that are not lent.
    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    fn hire(self: &Arc<Self>, queue: &mut Queue) -> std::io::Result<()> {
        let crew = Arc::clone(self);
        let thread = std::thread::Builder::new().name("worker".into()).stack_size(THREAD_STACK_LEN);
        thread.spawn(move || crew.work())?;
        queue.threads += 1;
        Ok(())
    }

    /// Runs it as soon as a thread is free. It must not be here already.
    pub(super) fn run(&self, turn: Arc<dyn Turn>) {
        let mut queue = self.queue();
        queue.waiting.push_back(turn);
        let is_awaited = queue.idle > 0;
        drop(queue);
        // It takes a system call, whether anyone waits or not.
        if is_awaited {
            self.wake.notify_one();
        }
    }

    /// Called now and then by what computes on one of the threads.
    pub(super) fn notice(self: &Arc<Self>, now: Duration) {
        let (began, is_lent) = TURN.get();
        let began = began.unwrap_or(now);
        TURN.set((Some(began), is_lent));
        if is_lent || now.saturating_sub(began) < LEND_AFTER {
            return;
        }
        let mut queue = self.queue();
        if queue.lent < LENT_MAX && self.hire(&mut queue).is_ok() {
            TURN.set((Some(began), true));
            queue.lent += 1;
            queue.threads -= 1;
            drop(queue);
            step_back(this_thread());
        }
    }

    /// A thread was taken by something that can't be interrupted: another one takes its place, until it comes back.
    pub(super) fn replace(self: &Arc<Self>, thread: Pid) {
        let mut queue = self.queue();
        if queue.lent + queue.threads < LENT_MAX && self.hire(&mut queue).is_ok() {
            drop(queue);
            step_back(thread);
        }
    }

    fn next(&self) -> Option<Arc<dyn Turn>> {
        let mut queue = self.queue();
        loop {
            if queue.is_ending {
                return None;
            }
            if let Some(turn) = queue.waiting.pop_front() {
                return Some(turn);
            }
            queue.idle += 1;
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn work(self: &Arc<Self>) {
        let _entered = self.handle.enter();
        while let Some(turn) = self.next() {
            TURN.set((None, false));
            outbox::hold();
            let went = catch_unwind(AssertUnwindSafe(|| Arc::clone(&turn).turn()));
            outbox::release();
            match went {
                Ok(true) => self.run(turn),
                Ok(false) => {}
                Err(_) => {
                    // The panic itself is in the log.
                    let _ = catch_unwind(AssertUnwindSafe(|| turn.broke()));
                }
            }
            let mut queue = self.queue();
            if TURN.get().1 {
                queue.lent -= 1;
                return;
            }
            if queue.threads > self.threads {
                queue.threads -= 1;
                return;
            }
        }
        self.queue().threads -= 1;
    }

    /// The threads end after their turns.
    pub(super) fn end(&self) {
        let mut queue = self.queue();
        queue.is_ending = true;
        queue.waiting.clear();
        drop(queue);
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Panics(mpsc::Sender<&'static str>);

    impl Turn for Panics {
        fn turn(self: Arc<Self>) -> bool {
            panic!("on purpose")
        }
        fn broke(&self) {
            self.0.send("broke").expect("someone listens");
        }
    }

    struct Works(mpsc::Sender<&'static str>);

    impl Turn for Works {
        fn turn(self: Arc<Self>) -> bool {
            self.0.send("worked").expect("someone listens");
            false
        }
        fn broke(&self) {}
    }

    #[tokio::test]
    async fn a_panic_costs_its_turn_and_no_thread() {
        let crew = Crew::start(1).expect("a thread");
        let (told, heard) = mpsc::channel();
        for _ in 0..3 {
            crew.run(Arc::new(Panics(told.clone())));
            crew.run(Arc::new(Works(told.clone())));
        }
        let all: Vec<_> = (0..6).map(|_| heard.recv_timeout(Duration::from_secs(30)).expect("a turn")).collect();
        assert_eq!(all, ["broke", "worked", "broke", "worked", "broke", "worked"]);
        crew.end();
    }
}
