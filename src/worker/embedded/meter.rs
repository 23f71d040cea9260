//! How far a script may compute, and how much of that it has.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::crew::cpu_time;

/// How much of a thread's processor time may be guessed before it is asked for.
const GUESSED_MAX: Duration = Duration::from_millis(1);

/// How far a script may compute: looked at by the interpreter itself.
#[derive(Default)]
pub(super) struct Meter {
    /// In nanoseconds of the thread's processor time.
    until: AtomicU64,
    is_exceeded: AtomicBool,
}

impl Meter {
    /// From `now` on, for as long as is left.
    pub(super) fn begin(&self, now: Duration, left: Duration) {
        self.until.store(nanos(now + left), Ordering::Relaxed);
        self.is_exceeded.store(false, Ordering::Relaxed);
    }

    /// Whether it has computed for too long by now.
    pub(super) fn look(&self, now: Duration) -> bool {
        let is_exceeded = nanos(now) >= self.until.load(Ordering::Relaxed);
        if is_exceeded {
            self.is_exceeded.store(true, Ordering::Relaxed);
        }
        is_exceeded
    }

    /// Whether it was found to have computed for too long.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exceeded.load(Ordering::Relaxed)
    }
}

thread_local! {
    static SPENT: Cell<Option<Spent>> = const { Cell::new(None) };
}

/// Processor time of a thread. To ask for it takes a system call: up to [`GUESSED_MAX`], a thread is taken to have computed
/// for as long as it took.
#[derive(Clone, Copy)]
pub(super) struct Spent {
    /// The moment of which the rest speaks.
    at: Instant,
    now: Duration,
    /// Of that.
    guessed: Duration,
}

impl Spent {
    /// Of this thread, which may have been asked for a moment ago.
    pub(super) fn resume() -> Self {
        match SPENT.get() {
            Some(mut spent) => {
                spent.go_on();
                spent
            }
            None => Self::read(),
        }
    }

    /// For whoever resumes.
    pub(super) fn keep(self) {
        SPENT.set(Some(self));
    }

    pub(super) fn read() -> Self {
        Self { at: Instant::now(), now: cpu_time(), guessed: Duration::ZERO }
    }

    /// The thread's processor time.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Something may have been computed since.
    pub(super) fn go_on(&mut self) {
        let at = Instant::now();
        let took = at.saturating_duration_since(self.at);
        self.guessed += took;
        match self.guessed < GUESSED_MAX {
            true => (self.at, self.now) = (at, self.now + took),
            false => *self = Self::read(),
        }
    }
}

/// In whole nanoseconds.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "sleeps, to show that it does not count")]
    fn what_is_guessed_is_little() {
        let mut spent = Spent::read();
        let began = spent.now();
        spent.keep();
        std::thread::sleep(Duration::from_millis(200));
        spent = Spent::resume();
        assert!(spent.now() - began < Duration::from_millis(100), "asleep, it has not computed");
    }
}
