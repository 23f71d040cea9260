//! What can happen, and the queue of what will.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use starling::replica::{Class, Message, NodeId, Request};

use super::clients::Client;

/// Something that happens at a moment.
pub(super) enum Event {
    /// A message can be read.
    Deliver { connection: usize, side: usize, class: Class, message: Arc<Message>, wire: u64 },
    /// The transport has taken a message's bytes.
    Taken { connection: usize, side: usize, class: Class, bytes: usize },
    /// What is parked is tried again.
    Probe { connection: usize, side: usize },
    /// A side learns that a connection stands.
    Connected { connection: usize, side: usize },
    /// A side learns that it is gone.
    Lost { connection: usize, side: usize },
    /// A pair tries to connect.
    Dial { pair: (usize, usize) },
    /// Nothing may have come for too long.
    IdleCheck { connection: usize },
    /// A host is free for the next turn.
    Ready { host: usize, boot: u64 },
    /// The fsync of a turn is done.
    Released { host: usize, boot: u64 },
    /// An fsync in the background is done.
    Synced { host: usize, boot: u64, commit: u64 },
    /// One may be due.
    SyncDue { host: usize, boot: u64 },
    /// A replica wants to be woken.
    Wake { host: usize, boot: u64, at_us: u64 },
    /// A process starts.
    Start { host: usize },
    /// A process is stopped and another one started.
    Restart { host: usize, boot: u64 },
    /// A process ends and the machine is taken away.
    Stop { host: usize },
    /// The next thing that clients do.
    NextOp,
    /// A traveller does the next thing.
    Travel { number: usize },
    /// A node that was to be let in may not have been.
    Awaited { node: NodeId },
    /// Whoever will never come back is evicted.
    Evict,
    /// The machine of an evicted node is to come back as another one.
    Return { host: usize },
    /// A node issues writes of its former ones again.
    Reissue { host: usize, boot: u64 },
    /// A client asks a host.
    Ask { host: usize, request: Box<Request>, client: Box<Client> },
    /// A fault begins.
    FaultBegins(usize),
    /// It ends.
    FaultEnds(usize),
    /// A directory is copied, for a fault to come.
    Backup(usize),
    /// A flapping way turns.
    Toggle(usize),
}

struct Scheduled {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// Events by time; those of one moment in the order in which they were put in.
#[derive(Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Scheduled>>,
    number: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at_us: u64, event: Event) {
        self.number += 1;
        self.heap.push(Reverse(Scheduled { at_us, number: self.number, event }));
    }

    /// Everything that will happen happens so much later.
    pub(super) fn put_off(&mut self, by_us: u64) {
        let put_off =
            |Reverse(scheduled): Reverse<Scheduled>| Reverse(Scheduled { at_us: scheduled.at_us + by_us, ..scheduled });
        self.heap = std::mem::take(&mut self.heap).into_iter().map(put_off).collect();
    }

    /// The next one no later than `end_us`.
    pub(super) fn pop_until(&mut self, end_us: u64) -> Option<(u64, Event)> {
        if self.heap.peek()?.0.at_us > end_us {
            return None;
        }
        self.heap.pop().map(|Reverse(scheduled)| (scheduled.at_us, scheduled.event))
    }
}
