//! Connections between two hosts as QUIC has them: reliable ordered streams, one a class, each with its own window;
//! a lost packet holds up its stream and no other; nothing that was on its way survives the connection.

use std::collections::VecDeque;
use std::sync::Arc;

use starling::replica::{Class, Message};

use super::link::Link;

/// A message on its way.
#[derive(Debug)]
pub struct Parcel {
    pub class: Class,
    pub message: Arc<Message>,
    /// Bytes as the replica counts them.
    pub bytes: usize,
    /// Bytes on the wire.
    pub wire: u64,
}

/// One connection, or the attempt at one. Side 0 dialled.
#[derive(Debug)]
pub struct Connection {
    /// The two hosts.
    pub hosts: [usize; 2],
    /// Which processes of them.
    pub boots: [u64; 2],
    /// Which sides have been told that it stands.
    pub up: [bool; 2],
    /// Neither side will use it again.
    pub closed: bool,
    /// One side has closed it because the other one is evicted.
    pub turned_away: bool,
    /// Since when a way of it has been cut.
    pub cut_since_us: Option<u64>,
    /// By sender.
    pub ways: [Way; 2],
}

/// One direction.
#[derive(Debug, Default)]
pub struct Way {
    pub link: Link,
    streams: [Stream; 4],
    /// What can't go now: the way is cut, or the other side reads nothing. In order.
    pub parked: VecDeque<Parcel>,
    parked_bytes: [u64; 4],
    /// When what is parked is tried again, and how long the next wait is.
    pub probing: bool,
    pub probe_us: u64,
    /// The last probe got through; its acknowledgement is on its way back.
    pub probed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// Nothing on this stream is delivered earlier.
    delivered_us: u64,
    /// Its window is used up until a round trip before this.
    paced_us: u64,
}

impl Connection {
    /// An attempt of `dialer`.
    pub fn new(dialer: (usize, u64), other: (usize, u64)) -> Self {
        Self {
            hosts: [dialer.0, other.0],
            boots: [dialer.1, other.1],
            up: [false; 2],
            closed: false,
            turned_away: false,
            cut_since_us: None,
            ways: [Way::default(), Way::default()],
        }
    }

    /// Which side a host is.
    pub fn side_of(&self, host: usize) -> usize {
        usize::from(self.hosts[0] != host)
    }
}

impl Way {
    /// When a message may leave: a stream has at most `window` bytes on their way.
    pub fn admit(&mut self, class: Class, now_us: u64, wire: u64, rtt_us: u64, window: u64) -> u64 {
        let stream = &mut self.streams[class as usize];
        let starts = now_us.max(stream.paced_us.saturating_sub(rtt_us));
        stream.paced_us = stream.paced_us.max(now_us) + wire * rtt_us / window.max(1);
        starts
    }

    /// When a message that is complete at `arrives` can be read: not before what was sent before it on its stream.
    pub fn in_order(&mut self, class: Class, arrives_us: u64) -> u64 {
        let stream = &mut self.streams[class as usize];
        stream.delivered_us = stream.delivered_us.max(arrives_us);
        stream.delivered_us
    }

    /// Keeps a parcel for later; whether the transport took it, its window being open.
    pub fn park(&mut self, parcel: Parcel, window: u64) -> bool {
        let parked = &mut self.parked_bytes[parcel.class as usize];
        *parked += parcel.bytes as u64;
        let taken = *parked <= window;
        self.parked.push_back(parcel);
        taken
    }

    /// Takes out what was kept, each with whether the transport had taken it before.
    pub fn unpark(&mut self, window: u64) -> Vec<(Parcel, bool)> {
        let mut taken = [0; 4];
        self.parked_bytes = [0; 4];
        let parcels = std::mem::take(&mut self.parked);
        let had_been_taken = |parcel: Parcel| {
            taken[parcel.class as usize] += parcel.bytes as u64;
            let before = taken[parcel.class as usize] <= window;
            (parcel, before)
        };
        parcels.into_iter().map(had_been_taken).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_keep_their_own_order_and_window() {
        let mut way = Way::default();
        assert_eq!(way.in_order(Class::Records, 900), 900);
        assert_eq!(way.in_order(Class::Records, 500), 900, "held up by the one before it");
        assert_eq!(way.in_order(Class::Control, 500), 500, "another stream is not");
        // Two windows' worth: the second waits for a round trip.
        assert_eq!(way.admit(Class::Sync, 0, 1_000, 100_000, 1_000), 0);
        assert_eq!(way.admit(Class::Sync, 0, 1_000, 100_000, 1_000), 0);
        assert_eq!(way.admit(Class::Sync, 0, 1_000, 100_000, 1_000), 100_000);
        assert_eq!(way.admit(Class::Blobs, 0, 1_000, 100_000, 1_000), 0);
    }
}
