//! Answers on their way from a turn to those who wait for them.
//!
//! To wake somebody on another thread takes as long as a small script: what a turn has come to is told at its end, or when
//! there are several answers, or when something computes for longer. So there are fewer wake-ups the more there is to do.

use std::cell::{Cell, RefCell};

use hyper::Response;

use super::visit::Answer;
use crate::worker::engine::{EngineError, Streamed};

/// Answers that are held back at most.
const HELD_MAX: usize = 8;

type Outcome = Result<Response<Streamed>, EngineError>;

thread_local! {
    static HOLDS: Cell<bool> = const { Cell::new(false) };
    static HELD: RefCell<Vec<(Answer, Outcome)>> = const { RefCell::new(Vec::new()) };
}

/// Tells an outcome. Whether there is still somebody who waits for it.
pub(super) fn send(answer: Answer, outcome: Outcome) -> bool {
    if !HOLDS.get() {
        return answer.send(outcome).is_ok();
    }
    let is_awaited = !answer.is_closed();
    let held = HELD.with_borrow_mut(|held| {
        held.push((answer, outcome));
        held.len()
    });
    if held >= HELD_MAX {
        flush();
    }
    is_awaited
}

/// From now on this thread holds answers back.
pub(super) fn hold() {
    HOLDS.set(true);
}

/// Tells all that was held back.
pub(super) fn flush() {
    // Whoever is woken may do anything, but not on this thread.
    for (answer, outcome) in HELD.take() {
        // Whoever asked may be gone.
        let _ = answer.send(outcome);
    }
}

/// Tells it, and holds nothing back any more.
pub(super) fn release() {
    HOLDS.set(false);
    flush();
}

#[cfg(test)]
mod tests {

    use tokio::sync::oneshot;

    use super::*;

    fn said() -> (oneshot::Receiver<Outcome>, bool) {
        let (answer, answered) = oneshot::channel();
        (answered, send(answer, Ok(Response::new(Streamed::empty()))))
    }

    #[test]
    fn answers_are_told_at_the_end_or_when_there_are_several() {
        let (mut answered, is_awaited) = said();
        assert!(is_awaited && answered.try_recv().is_ok(), "nothing is held");
        hold();
        let mut held: Vec<_> = (1..HELD_MAX).map(|_| said().0).collect();
        assert!(held.iter_mut().all(|answered| answered.try_recv().is_err()));
        let (mut last, _) = said();
        assert!(held.iter_mut().all(|answered| answered.try_recv().is_ok()) && last.try_recv().is_ok());
        let (mut one, _) = said();
        assert!(one.try_recv().is_err());
        release();
        assert!(one.try_recv().is_ok());
        let (answer, answered) = oneshot::channel();
        drop(answered);
        hold();
        assert!(!send(answer, Err(EngineError::Lost)), "nobody waits");
        release();
    }
}
