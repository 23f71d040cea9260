//! Connections: dialling, sending, delivering, losing.

use std::sync::Arc;

use bytes::Bytes;
use starling::replica::{Class, Input, Message, NodeId};

use super::events::Event;
use super::{Pair, World};
use crate::network::connection::{Connection, Parcel};
use crate::network::link::{Fate, Load, Weather};
use crate::network::recovery::PROBE_MAX_US;
use crate::network::wire_len;

/// Each flight of a handshake.
const HANDSHAKE: Load = Load { class: Class::Control, wire: 1_200 };
/// A dial that nobody answers is given up after this.
const DIAL_TIMEOUT_US: u64 = 5_000_000;
/// Spreads the dials of many nodes.
const REDIAL_JITTER_US: u64 = 50_000;
/// Keep-alives come this often, so a dead way is noticed up to this much later than its last packet.
const KEEP_ALIVE_US: u64 = 3_000_000;

impl World {
    /// Every pair that this host is part of and that has no connection tries to get one.
    pub(super) fn dial_all(&mut self, host: usize) {
        for other in 0..self.hosts.len() {
            if other != host && self.hosts[other].node != self.hosts[host].node {
                self.dial_soon((host.min(other), host.max(other)));
            }
        }
    }

    fn dial_soon(&mut self, pair: (usize, usize)) {
        let state = self.pairs.entry(pair).or_default();
        if state.dialling || state.connection.is_some() {
            return;
        }
        state.dialling = true;
        let transport = &self.scenario.transport;
        let pause_us = match state.failures {
            0 => 0,
            failures => (transport.redial_min.0 << (failures - 1).min(16)).min(transport.redial_max.0),
        };
        let jitter_us = self.rng_below(REDIAL_JITTER_US);
        self.schedule(self.now_us + pause_us + jitter_us, Event::Dial { pair });
    }

    pub(super) fn dial(&mut self, pair: (usize, usize)) {
        let (a, b) = pair;
        let state = self.pairs.entry(pair).or_default();
        state.dialling = false;
        let may_connect = |from: usize, to: usize| {
            let evicted = |host: &crate::host::Host, node: NodeId| {
                host.replica.as_ref().is_some_and(|replica| replica.roster().is_evicted(node))
            };
            !evicted(&self.hosts[from], self.hosts[to].node)
        };
        if state.connection.is_some() || self.hosts[a].gone || self.hosts[b].gone {
            return;
        }
        if !self.hosts[a].is_up() || !self.hosts[b].is_up() {
            // Whoever starts dials.
            state.failures = 0;
            return;
        }
        if self.cuts.is_cut(a, b) || self.cuts.is_cut(b, a) || self.hosts[a].deaf || self.hosts[b].deaf {
            state.failures += 1;
            state.dialling = true;
            let failures = state.failures;
            let transport = &self.scenario.transport;
            let pause_us = (transport.redial_min.0 << failures.min(16)).min(transport.redial_max.0);
            let jitter_us = self.rng_below(REDIAL_JITTER_US + pause_us / 4);
            return self.schedule(
                self.now_us + DIAL_TIMEOUT_US.min(pause_us * 5) + pause_us + jitter_us,
                Event::Dial { pair },
            );
        }
        let turned_away: Vec<_> = [(a, b), (b, a)].into_iter().filter(|(from, to)| !may_connect(*from, *to)).collect();
        if !turned_away.is_empty() {
            for (from, to) in turned_away {
                self.arrive(to, Input::TurnedAway { node: self.hosts[from].node });
            }
            return;
        }
        let connection = self.connections.len();
        *state = Pair { connection: Some(connection), ..Pair::default() };
        let mut fresh = Connection::new((a, self.hosts[a].boot), (b, self.hosts[b].boot));
        // One round trip until the dialler knows, half a one more until the other side does. A lost packet of the
        // handshake costs a probe timeout of the initial round trip.
        let one_way_us = self.one_way_us(a, b);
        let weather = self.weather_between(a, b);
        let (now_us, rng, lost) = (self.now_us, &mut self.rng, &mut self.measure.lost_packets);
        let mut at_us = now_us;
        let mut times = [0; 2];
        for (flight, way) in [0, 1, 0].into_iter().enumerate() {
            at_us = fresh.ways[way].link.deliver(at_us, one_way_us, HANDSHAKE, &weather, lost, rng);
            match flight {
                1 => times[0] = at_us,
                2 => times[1] = at_us,
                _ => {}
            }
        }
        self.connections.push(fresh);
        self.schedule(times[0], Event::Connected { connection, side: 0 });
        self.schedule(times[1], Event::Connected { connection, side: 1 });
    }

    fn is_current(&self, connection: usize, side: usize) -> bool {
        let this = &self.connections[connection];
        !this.closed && self.hosts[this.hosts[side]].boot == this.boots[side]
    }

    pub(super) fn connected(&mut self, connection: usize, side: usize) {
        if !self.is_current(connection, side) || self.connections[connection].up[side] {
            return;
        }
        let host = self.connections[connection].hosts[side];
        let other = self.connections[connection].hosts[1 - side];
        let node = self.hosts[other].node;
        self.connections[connection].up[side] = true;
        self.measure.connections += 1;
        if let Some(former) = self.hosts[host].links.insert(node, connection)
            && former != connection
        {
            // The newest connection to a node replaces an older one, which ends.
            let side = self.connections[former].side_of(host);
            self.connections[former].up[side] = false;
            self.close(former, host);
        }
        self.trace.note(self.now_us, b'+', [host as u64, connection as u64], &[]);
        self.arrive(host, Input::Connected { node, link: connection as u64 });
    }

    /// One side ends a connection; the other one learns of it.
    pub(super) fn close(&mut self, connection: usize, by: usize) {
        if self.connections[connection].closed {
            return;
        }
        let side = self.connections[connection].side_of(by);
        let other = self.connections[connection].hosts[1 - side];
        self.connections[connection].closed = true;
        let one_way_us = self.one_way_us(by, other);
        let silent = self.cuts.is_cut(by, other) || !self.hosts[by].is_up();
        let patience_us = self.scenario.transport.idle_timeout.0 + self.rng_below(KEEP_ALIVE_US);
        self.schedule(self.now_us, Event::Lost { connection, side });
        let told_us = if silent { patience_us } else { one_way_us };
        self.schedule(self.now_us + told_us, Event::Lost { connection, side: 1 - side });
    }

    pub(super) fn lost(&mut self, connection: usize, side: usize) {
        let this = &mut self.connections[connection];
        let (host, other) = (this.hosts[side], this.hosts[1 - side]);
        this.ways[side].parked.clear();
        let was_up = std::mem::take(&mut this.up[side]);
        let is_same_process = this.boots[side] == self.hosts[host].boot;
        let pair = (host.min(other), host.max(other));
        if let Some(state) = self.pairs.get_mut(&pair)
            && state.connection == Some(connection)
        {
            state.connection = None;
            self.dial_soon(pair);
        }
        if !was_up || !is_same_process {
            return;
        }
        self.measure.disconnections += 1;
        let node = self.hosts[other].node;
        if self.hosts[host].links.get(&node) == Some(&connection) {
            self.hosts[host].links.remove(&node);
        }
        self.trace.note(self.now_us, b'-', [host as u64, connection as u64], &[]);
        if self.connections[connection].turned_away && !self.cuts.is_cut(other, host) {
            self.arrive(host, Input::TurnedAway { node });
        }
        self.arrive(host, Input::Disconnected { node, link: connection as u64 });
    }

    /// A process has ended without a word: its peers will notice by themselves, unless it is back before.
    pub(super) fn abandon_links(&mut self, host: usize) {
        self.hosts[host].links.clear();
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            // Also what is only being set up, and what has been replaced and not yet been given up by the other side.
            if let Some(state) = self.pairs.get_mut(&(host.min(other), host.max(other)))
                && let Some(connection) = state.connection.take()
            {
                state.failures = 0;
                self.close(connection, host);
            }
        }
    }

    pub(super) fn one_way_us(&self, a: usize, b: usize) -> u64 {
        self.delays.one_way_us(self.hosts[a].place, self.hosts[b].place)
    }

    fn weather_between(&self, a: usize, b: usize) -> Weather {
        let local = self.local_weather.iter().find(|((_, host), _)| *host == a || *host == b);
        local.map_or_else(|| self.weather.clone(), |(_, weather)| weather.clone())
    }

    pub(super) fn send(&mut self, host: usize, connection: usize, node: NodeId, class: Class, bytes: &Bytes) {
        let side = self.connections[connection].side_of(host);
        if self.connections[connection].closed || !self.connections[connection].up[side] {
            // The connection's end will be told; until then its bytes count as gone.
            let input = Input::Sent { node, link: connection as u64, class, bytes: bytes.len() };
            return self.hand_in_quietly(host, input);
        }
        if self.hosts[host].liar.is_some() {
            // Its own replica counts what it would have sent.
            let input = Input::Sent { node, link: connection as u64, class, bytes: bytes.len() };
            self.hand_in_quietly(host, input);
            return self.lie(host, connection, bytes);
        }
        self.post(host, connection, class, bytes);
    }

    /// What a host says goes on its way.
    pub(super) fn post(&mut self, host: usize, connection: usize, class: Class, bytes: &Bytes) {
        let side = self.connections[connection].side_of(host);
        if self.connections[connection].closed {
            return;
        }
        self.trace.note(self.now_us, b'M', [host as u64, (connection as u64) << 2 | class as u64], bytes);
        let message = match &self.decoded {
            Some((known, message)) if known.as_ptr() == bytes.as_ptr() && known.len() == bytes.len() => message.clone(),
            _ => match Message::decode(bytes) {
                Ok(message) => {
                    let message = Arc::new(message);
                    self.decoded = Some((bytes.clone(), message.clone()));
                    message
                }
                Err(_) if self.hosts[host].liar.is_some() => {
                    // Who can't read it breaks with the sender.
                    return self.close(connection, self.connections[connection].hosts[1 - side]);
                }
                Err(malformed) => {
                    return self.judge.found("messages", self.now_us, || {
                        format!("host {host} sent what can't be read: {}", malformed.0)
                    });
                }
            },
        };
        let wire = wire_len(bytes.len() as u64 + stood_for(&message));
        self.measure.sent(host, class, wire, &mut self.hosts);
        self.watch.sent(host, self.connections[connection].hosts[1 - side], &message, self.now_us);
        let parcel = Parcel { class, message, bytes: bytes.len(), wire };
        let other = self.connections[connection].hosts[1 - side];
        let is_blocked = self.cuts.is_cut(host, other) || self.hosts[other].deaf;
        if is_blocked || !self.connections[connection].ways[side].parked.is_empty() {
            let window = self.scenario.transport.stream_window;
            let (class, bytes) = (parcel.class, parcel.bytes);
            let way = &mut self.connections[connection].ways[side];
            let taken = way.park(parcel, window);
            if !way.probing {
                way.probing = true;
                way.probe_us = 0;
                self.probe_later(connection, side);
            }
            if taken {
                self.taken(connection, side, class, bytes, false);
            }
            return;
        }
        self.transmit(connection, side, parcel, false);
    }

    fn probe_later(&mut self, connection: usize, side: usize) {
        let [a, b] = self.connections[connection].hosts;
        let first_us = 2 * self.one_way_us(a, b) * 9 / 8 + 5_000;
        let way = &mut self.connections[connection].ways[side];
        way.probe_us = (way.probe_us * 2).max(first_us).min(PROBE_MAX_US.max(first_us));
        let at_us = self.now_us + way.probe_us;
        self.schedule(at_us, Event::Probe { connection, side });
    }

    pub(super) fn probe(&mut self, connection: usize, side: usize) {
        let this = &mut self.connections[connection];
        if this.closed || this.ways[side].parked.is_empty() {
            this.ways[side].probing = false;
            return;
        }
        let (from, to) = (this.hosts[side], this.hosts[1 - side]);
        let is_blocked = self.cuts.is_cut(from, to) || self.hosts[to].deaf;
        let rtt_us = 2 * self.one_way_us(from, to);
        let way = &mut self.connections[connection].ways[side];
        let was_probed = std::mem::replace(&mut way.probed, !is_blocked);
        if is_blocked {
            self.measure.lost_packets += 1;
            return self.probe_later(connection, side);
        }
        if !was_probed {
            // It carries nothing of what was lost: that goes when it is acknowledged.
            return self.schedule(self.now_us + rtt_us, Event::Probe { connection, side });
        }
        way.probed = false;
        way.probing = false;
        for (parcel, had_been_taken) in way.unpark(self.scenario.transport.stream_window) {
            self.transmit(connection, side, parcel, had_been_taken);
        }
    }

    fn transmit(&mut self, connection: usize, side: usize, parcel: Parcel, had_been_taken: bool) {
        let Parcel { class, message, bytes, wire } = parcel;
        let (from, to) = (self.connections[connection].hosts[side], self.connections[connection].hosts[1 - side]);
        let one_way_us = self.one_way_us(from, to);
        let weather = self.weather_between(from, to);
        let transport = &self.scenario.transport;
        let is_datagram = transport.records_as_datagrams && class == Class::Records;
        let window = transport.stream_window;
        let uplink = self.scenario.nodes.uplink_mbit * 125_000;
        let now_us = self.now_us;
        let way = &mut self.connections[connection].ways[side];
        let start_us = match is_datagram {
            true => now_us,
            false => way.admit(class, now_us, wire, 2 * one_way_us, window),
        };
        let up_us = self.hosts[from].uplink.depart(start_us, wire, class, uplink);
        let load = Load { class, wire };
        let left_us = way.link.depart(up_us, load, &weather);
        let receiver = 1 - side;
        if is_datagram {
            match way.link.datagram(now_us, left_us, one_way_us, &weather, &mut self.rng) {
                Fate::Lost => self.measure.lost_packets += 1,
                Fate::Arrives(at_us, again_us) => {
                    if let Some(again_us) = again_us {
                        let message = message.clone();
                        self.schedule(again_us, Event::Deliver { connection, side: receiver, class, message, wire });
                    }
                    self.schedule(at_us, Event::Deliver { connection, side: receiver, class, message, wire });
                }
            }
        } else {
            let lost = &mut self.measure.lost_packets;
            let arrives_us = way.link.deliver(left_us, one_way_us, load, &weather, lost, &mut self.rng);
            let at_us = way.in_order(class, arrives_us);
            let wire = wire + weather.tail_probe_len(class);
            self.schedule(at_us, Event::Deliver { connection, side: receiver, class, message, wire });
        }
        if had_been_taken {
            return;
        }
        match start_us > now_us {
            true => self.schedule(start_us, Event::Taken { connection, side, class, bytes }),
            false => self.taken(connection, side, class, bytes, false),
        }
    }

    /// The transport has taken bytes. `late`: it had to wait, so what waits behind them wants a turn.
    pub(super) fn taken(&mut self, connection: usize, side: usize, class: Class, bytes: usize, late: bool) {
        if !self.is_current(connection, side) {
            return;
        }
        let (host, other) = (self.connections[connection].hosts[side], self.connections[connection].hosts[1 - side]);
        let input = Input::Sent { node: self.hosts[other].node, link: connection as u64, class, bytes };
        match late {
            true => self.arrive(host, input),
            false => self.hand_in_quietly(host, input),
        }
    }

    /// Bookkeeping that needs no turn of its own.
    fn hand_in_quietly(&mut self, host: usize, input: Input) {
        let now = self.hosts[host].now(self.now_us);
        if let Some(replica) = self.hosts[host].replica.as_mut() {
            // Only takes notice; storage is not touched.
            let _ = replica.handle(input, now);
        }
    }

    pub(super) fn deliver(&mut self, connection: usize, side: usize, class: Class, message: Arc<Message>, wire: u64) {
        if !self.is_current(connection, side) {
            return;
        }
        if !self.connections[connection].up[side] {
            // The first message may overtake the last packet of the handshake.
            self.connected(connection, side);
        }
        let (host, other) = (self.connections[connection].hosts[side], self.connections[connection].hosts[1 - side]);
        self.trace.note(self.now_us, b'D', [host as u64, (connection as u64) << 2 | class as u64], &[]);
        self.measure.received(host, class, wire, &message, &mut self.hosts);
        self.watch.received(other, host, &message, self.now_us);
        if matches!(*message, Message::Records(_) | Message::SyncChunk(_) | Message::Chunk { .. }) {
            self.hosts[host].informer = Some(other);
        }
        let node = self.hosts[other].node;
        let message = Arc::unwrap_or_clone(message);
        self.arrive(host, Input::Received { node, link: connection as u64, message });
    }

    /// Ways have been cut: connections over them are lost if nothing comes for too long.
    pub(super) fn ways_cut(&mut self) {
        let patience_us = self.scenario.transport.idle_timeout.0;
        for connection in 0..self.connections.len() {
            let this = &self.connections[connection];
            let [a, b] = this.hosts;
            if this.closed || this.cut_since_us.is_some() || !(self.cuts.is_cut(a, b) || self.cuts.is_cut(b, a)) {
                continue;
            }
            self.connections[connection].cut_since_us = Some(self.now_us);
            let spread_us = self.rng_below(KEEP_ALIVE_US);
            self.schedule(self.now_us + patience_us + spread_us, Event::IdleCheck { connection });
        }
    }

    /// Some ways are free again.
    pub(super) fn ways_freed(&mut self) {
        for connection in 0..self.connections.len() {
            let this = &self.connections[connection];
            let [a, b] = this.hosts;
            if this.cut_since_us.is_some() && !self.cuts.is_cut(a, b) && !self.cuts.is_cut(b, a) {
                self.connections[connection].cut_since_us = None;
            }
        }
    }

    pub(super) fn check_idle(&mut self, connection: usize) {
        let this = &self.connections[connection];
        let patience_us = self.scenario.transport.idle_timeout.0;
        let is_idle = this.cut_since_us.is_some_and(|since_us| self.now_us >= since_us + patience_us);
        if is_idle && !this.closed {
            let [a, b] = this.hosts;
            // Whoever hears nothing gives up first.
            let first = if self.cuts.is_cut(a, b) { b } else { a };
            self.close(connection, first);
        }
    }

    /// Days have passed: every connection is gone, and whoever had it knows.
    pub(super) fn drop_all(&mut self) {
        for connection in 0..self.connections.len() {
            let this = &mut self.connections[connection];
            if !std::mem::replace(&mut this.closed, true) {
                self.schedule(self.now_us, Event::Lost { connection, side: 0 });
                self.schedule(self.now_us, Event::Lost { connection, side: 1 });
            }
        }
    }

    /// Connections between these are reset at once.
    pub(super) fn reset(&mut self, from: &[usize], to: &[usize]) {
        for connection in 0..self.connections.len() {
            let this = &self.connections[connection];
            let [a, b] = this.hosts;
            let crosses = (from.contains(&a) && to.contains(&b)) || (from.contains(&b) && to.contains(&a));
            if crosses && !this.closed {
                self.close(connection, a);
            }
        }
    }
}

/// Bytes that a message stands for and does not carry: the chunks of large values are short stand-ins here, which
/// begin with the length of what they stand for.
fn stood_for(message: &Message) -> u64 {
    match message {
        Message::Chunk { chunk: Some(chunk), .. } => {
            chunk.first_chunk::<4>().map_or(0, |len| u64::from(u32::from_le_bytes(*len)))
        }
        _ => 0,
    }
}
