//! Things that are due later: a heap, and a thread that sleeps until the first of them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Microseconds since it was started.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// From now on.
    #[allow(clippy::disallowed_methods, reason = "real processes live in real time")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// So far.
    pub fn us(&self) -> u64 {
        self.0.elapsed().as_micros() as u64
    }

    /// So far, as a duration.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

struct Due<T> {
    /// When, and which of those that are due at once.
    at: (u64, u64),
    what: T,
}

impl<T> PartialEq for Due<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<T> Eq for Due<T> {}

impl<T> PartialOrd for Due<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Due<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

struct Heap<T> {
    due: BinaryHeap<Reverse<Due<T>>>,
    pushed: u64,
    closed: bool,
}

/// What is due, by time; first in, first out where it is due at once.
pub struct Queue<T> {
    heap: Mutex<Heap<T>>,
    changed: Condvar,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { heap: Mutex::new(Heap { due: BinaryHeap::new(), pushed: 0, closed: false }), changed: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Adds something that is due at some microsecond.
    pub fn push(&self, at_us: u64, what: T) {
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        heap.pushed += 1;
        let at = (at_us, heap.pushed);
        let is_first = heap.due.peek().is_none_or(|Reverse(first)| at < first.at);
        heap.due.push(Reverse(Due { at, what }));
        drop(heap);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Waits for the next that is due; `None` once the queue is closed.
    pub fn pop(&self, clock: &Stopwatch) -> Option<T> {
        let mut heap = self.heap.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if heap.closed {
                return None;
            }
            let now_us = clock.us();
            let wait_us = heap.due.peek().map(|Reverse(first)| first.at.0.saturating_sub(now_us));
            heap = match wait_us {
                Some(0) => return heap.due.pop().map(|Reverse(due)| due.what),
                Some(us) => {
                    let waited = self.changed.wait_timeout(heap, Duration::from_micros(us));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(heap).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Nothing more comes out.
    pub fn close(&self) {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_out_when_they_are_due_and_in_order() {
        let (queue, clock) = (Queue::default(), Stopwatch::start());
        for (at_us, name) in [(20_000, "c"), (0, "a"), (10_000, "b"), (20_000, "d")] {
            queue.push(at_us, name);
        }
        let out: Vec<_> = (0..4).map(|_| queue.pop(&clock).expect("open")).collect();
        assert_eq!(out, ["a", "b", "c", "d"]);
        assert!(clock.us() >= 20_000);
        queue.close();
        assert_eq!(queue.pop(&clock), None);
    }
}
