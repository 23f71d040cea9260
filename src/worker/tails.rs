//! Tails: who watches what a script does, and what there is to see. Nothing is kept: an event that nobody watches for
//! at this node is gone, and a watcher that is too slow misses some and is told how many.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::broadcast::{self, error::RecvError};

use super::ScriptId;

/// Watchers of one node.
pub const TAILS_MAX: usize = 256;
/// Events that a watcher may be behind.
pub const TAIL_EVENTS_MAX: usize = 256;
/// Longest event, in bytes; a longer one is left out, and counts as missed.
pub const TAIL_EVENT_LEN_MAX: usize = 256 * 1024;

/// What one invocation of a script did: JSON text as in Cloudflare's `trace-v1`.
pub type TailEvent = Bytes;

/// The tails of one node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tails(Arc<Mutex<BTreeMap<ScriptId, broadcast::Sender<TailEvent>>>>);

/// Everyone who may watch is watching.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("This node has {TAILS_MAX} tails open, the most there can be: close one, or watch at another node.")]
pub struct TooManyTails;

/// One watcher. Dropping it ends the watch.
pub struct Tail {
    tails: Tails,
    script: ScriptId,
    events: Option<broadcast::Receiver<TailEvent>>,
}

/// What a watcher is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// Something happened.
    Event(TailEvent),
    /// It was too slow, and this many events are lost to it.
    Missed(u64),
}

impl Tails {
    fn watched(&self) -> MutexGuard<'_, BTreeMap<ScriptId, broadcast::Sender<TailEvent>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody at this node watches anything.
    pub fn is_idle(&self) -> bool {
        self.watched().is_empty()
    }

    /// Whether anyone at this node watches a script: otherwise an event need not even be made.
    pub fn is_watched(&self, script: &ScriptId) -> bool {
        self.watched().contains_key(script)
    }

    /// Tells those who watch a script what it did.
    pub fn publish(&self, script: &ScriptId, event: TailEvent) {
        if event.len() > TAIL_EVENT_LEN_MAX {
            return;
        }
        if let Some(watchers) = self.watched().get(script) {
            // An error says that the last watcher has just gone.
            let _ = watchers.send(event);
        }
    }

    /// Watches a script from now on.
    pub fn watch(&self, script: ScriptId) -> Result<Tail, TooManyTails> {
        let mut watched = self.watched();
        if watched.values().map(broadcast::Sender::receiver_count).sum::<usize>() >= TAILS_MAX {
            return Err(TooManyTails);
        }
        let sender = watched.entry(script.clone()).or_insert_with(|| broadcast::channel(TAIL_EVENTS_MAX).0);
        let events = Some(sender.subscribe());
        Ok(Tail { tails: self.clone(), script, events })
    }
}

impl Tail {
    /// What happens next. May be dropped and called again: nothing is lost.
    pub async fn next(&mut self) -> Option<Told> {
        match self.events.as_mut()?.recv().await {
            Ok(event) => Some(Told::Event(event)),
            Err(RecvError::Lagged(missed)) => Some(Told::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let mut watched = self.tails.watched();
        self.events = None;
        if watched.get(&self.script).is_some_and(|sender| sender.receiver_count() == 0) {
            watched.remove(&self.script);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::AccountId;

    fn script(name: &str) -> ScriptId {
        ScriptId { account: AccountId([1; 16]), script: name.into() }
    }

    #[tokio::test]
    async fn who_watches_is_told_and_a_slow_watcher_hears_what_it_missed() {
        let tails = Tails::default();
        tails.publish(&script("a"), Bytes::from_static(b"nobody hears this"));
        let mut tail = tails.watch(script("a")).expect("a place");
        assert!(tails.is_watched(&script("a")) && !tails.is_watched(&script("b")));
        for _ in 0..TAIL_EVENTS_MAX + 3 {
            tails.publish(&script("a"), Bytes::from_static(b"{}"));
        }
        tails.publish(&script("b"), Bytes::from_static(b"of another"));
        assert_eq!(tail.next().await, Some(Told::Missed(3)));
        assert_eq!(tail.next().await, Some(Told::Event(Bytes::from_static(b"{}"))));
        drop(tail);
        assert!(!tails.is_watched(&script("a")), "nothing is left of a watch");
    }

    #[test]
    fn watchers_are_bounded() {
        let tails = Tails::default();
        let held: Vec<_> = (0..TAILS_MAX).map(|_| tails.watch(script("a")).expect("a place")).collect();
        assert!(tails.watch(script("b")).is_err());
        drop(held);
        assert!(tails.watch(script("b")).is_ok());
    }
}
