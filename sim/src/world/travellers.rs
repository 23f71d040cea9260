//! Clients that wander from node to node with what they know: sessions with a bookmark, followers of the change feed
//! with a position. Wherever they go they must be shown no less, and be given what they were not given yet.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use starling::replica::{Bookmark, Changes, Key, Marker, NodeTag, Position, Refusal, Reply, Request, Ticket};

use super::World;
use super::clients::{Client, inline, key_of};
use super::events::Event;
use crate::scenario::Workload;

/// Between two things that a traveller does.
const PAUSE_US: std::ops::Range<u64> = 5_000..400_000;
/// How long a session waits at a node before it goes elsewhere.
const PATIENCE_MS: u64 = 2_000;
/// Who hears nothing at all goes elsewhere after this.
const SILENCE_US: u64 = 3_000_000;
/// A session that has waited in vain so often begins anew: what it has seen may be lost with a node that is gone.
const VAIN_MAX: u32 = 8;

/// A traveller.
pub(super) struct Traveller {
    rng: ChaCha8Rng,
    /// What it has asked last, and when.
    asked: Option<(Ticket, u64)>,
    kind: Kind,
}

enum Kind {
    Session(Session),
    Follower(Follower),
}

/// What it was shown, by key, and the bookmark that stands for it.
#[derive(Default)]
struct Session {
    bookmark: Bookmark,
    seen: BTreeMap<Key, Marker>,
    vain: u32,
}

/// What it was given, by key, and the position that stands for it.
#[derive(Default)]
struct Follower {
    position: Position,
    given: BTreeMap<Key, Marker>,
    /// The host it follows, and which process there.
    at: Option<(usize, u64)>,
}

/// What a traveller has asked for.
#[derive(Clone, Debug)]
pub(super) enum Errand {
    /// To be shown no less than it has seen.
    Cover,
    /// To write a key.
    Write(Key),
    /// A bookmark short enough to carry.
    Shorten,
    /// To be told of changes.
    Watch,
}

fn raise(known: &mut BTreeMap<Key, Marker>, key: &Key, marker: Marker) {
    let known = known.entry(key.clone()).or_insert(marker);
    *known = marker.max(*known);
}

impl Traveller {
    /// As many sessions as followers.
    pub(super) fn all(count: u64, seed: u64) -> Vec<Self> {
        let kinds = |_| [Kind::Session(Session::default()), Kind::Follower(Follower::default())];
        let kinds = (0..count).flat_map(kinds).zip(1..);
        kinds.map(|(kind, salt)| Self { rng: World::new_rng(seed, 0x7472_6176 ^ salt), asked: None, kind }).collect()
    }
}

impl World {
    pub(super) fn travellers_set_out(&mut self, at_us: u64) {
        (0..self.travellers.len()).for_each(|number| self.schedule(at_us, Event::Travel { number }));
    }

    /// A traveller does the next thing, until all faults are over.
    pub(super) fn travel(&mut self, number: usize) {
        if self.travellers_rest {
            return;
        }
        let (now_us, hosts) = (self.now_us, self.hosts.len());
        let traveller = &mut self.travellers[number];
        let pause_us = traveller.rng.random_range(PAUSE_US);
        if traveller.asked.is_none_or(|(_, asked_us)| asked_us + SILENCE_US < now_us) {
            traveller.asked = None;
            let host = traveller.rng.random_range(0..hosts);
            match &mut traveller.kind {
                Kind::Session(session) => {
                    let wait = Request::AwaitCovered { bookmark: session.bookmark.clone(), patience_ms: PATIENCE_MS };
                    self.errand(number, host, wait, Errand::Cover);
                }
                Kind::Follower(follower) => {
                    let is_there = |(at, boot): (usize, u64)| self.hosts[at].is_up() && self.hosts[at].boot == boot;
                    follower.at = follower.at.filter(|at| is_there(*at));
                    match follower.at {
                        Some((at, _)) if traveller.rng.random_ratio(1, 4) => self.leave_feed(number, at),
                        Some(_) => {}
                        None => self.errand(number, host, Request::Watch, Errand::Watch),
                    }
                }
            }
        }
        self.schedule(now_us + pause_us, Event::Travel { number });
    }

    fn errand(&mut self, number: usize, host: usize, request: Request, errand: Errand) {
        if self.hosts[host].is_up() {
            // `ask` numbers what it asks for.
            self.travellers[number].asked = Some((self.ticket + 1, self.now_us));
            self.ask(host, request, Client::Traveller { number, errand });
        }
    }

    /// What a traveller has asked for is answered.
    pub(super) fn travelled(&mut self, host: usize, ticket: Ticket, number: usize, errand: Errand, reply: Reply) {
        let now_us = self.now_us;
        if let (Errand::Write(key), Reply::Written { dot, marker, .. }) = (&errand, &reply) {
            self.judge.accepted(host, key, *dot, *marker, &self.hosts, now_us);
            self.measure.accepted(host, key, *marker, &self.hosts, now_us);
            self.watch.accepted(host, key, *dot, *marker, self.measure.writes.accepted, now_us);
        }
        let Some(traveller) = self.travellers.get_mut(number) else { return };
        if traveller.asked.is_none_or(|(asked, _)| asked != ticket) {
            return;
        }
        traveller.asked = None;
        match (&mut traveller.kind, errand, reply) {
            (Kind::Session(session), Errand::Cover, Reply::Done) => {
                session.vain = 0;
                self.judge.visited(host, &session.seen, &self.hosts, now_us);
                self.look_around(number, host);
            }
            (Kind::Session(session), Errand::Cover, reply) => {
                session.vain += 1;
                let is_lost = matches!(reply, Reply::Refused(Refusal::EvictedOrigin));
                if is_lost || session.vain > VAIN_MAX {
                    *session = Session::default();
                }
            }
            (Kind::Session(session), Errand::Write(key), Reply::Written { dot, marker, stamp }) => {
                session.bookmark.note(dot, stamp);
                raise(&mut session.seen, &key, marker);
                self.carry_bookmark(number, host);
            }
            (Kind::Session(session), Errand::Shorten, Reply::Bookmark(short)) => {
                session.bookmark = short;
                self.carry_bookmark(number, host);
            }
            (Kind::Follower(_), Errand::Watch, Reply::Watching { position, departed }) => {
                self.join_feed(number, host, position, &departed);
            }
            _ => {}
        }
    }

    /// At a node that covers its bookmark a session writes, reads a key, or reads all. It reads nothing of a turn that
    /// nobody has been told of.
    fn look_around(&mut self, number: usize, host: usize) {
        let Workload { keys, namespaces, .. } = self.scenario.workload;
        let traveller = &mut self.travellers[number];
        let Kind::Session(session) = &mut traveller.kind else { return };
        let key = key_of(traveller.rng.random_range(0..namespaces), traveller.rng.random_range(0..keys));
        match traveller.rng.random_range(0..10) {
            0..4 => {
                let bytes = traveller.rng.random::<[u8; 16]>().to_vec();
                let request = Request::Write { key: key.clone(), content: inline(bytes) };
                return self.errand(number, host, request, Errand::Write(key));
            }
            _ if self.hosts[host].is_committing() => {}
            4..9 => {
                if let Some(entry) = self.hosts[host].image().entry(&key) {
                    session.bookmark.note(entry.dot, entry.stamp);
                    raise(&mut session.seen, &key, entry.marker());
                }
            }
            _ => {
                let all = self.hosts[host].image().entries();
                for (key, entry) in all.filter(|(key, _)| !key.namespace().is_system()) {
                    session.bookmark.note(entry.dot, entry.stamp);
                    raise(&mut session.seen, key, entry.marker());
                }
            }
        }
        self.carry_bookmark(number, host);
    }

    /// As a client would carry it: encoded, and shortened first by the node it is at.
    fn carry_bookmark(&mut self, number: usize, host: usize) {
        let Kind::Session(session) = &mut self.travellers[number].kind else { return };
        match session.bookmark.encode() {
            Some(bytes) => match Bookmark::decode(&bytes) {
                Ok(bookmark) => session.bookmark = bookmark,
                Err(_) => self.judge.found("read-your-writes", self.now_us, || "a bookmark can't be read".to_owned()),
            },
            None => {
                let request = Request::Shorten(session.bookmark.clone());
                self.errand(number, host, request, Errand::Shorten);
            }
        }
    }

    /// A follower comes to a node: it is given all that is there and that it does not have, then what is told.
    fn join_feed(&mut self, number: usize, host: usize, position: Position, departed: &BTreeSet<NodeTag>) {
        let Kind::Follower(follower) = &mut self.travellers[number].kind else { return };
        let mut claimed = Vec::new();
        for (key, entry) in self.hosts[host].image().entries().filter(|(key, _)| !key.namespace().is_system()) {
            match follower.position.has(entry, |node| departed.contains(&node)) {
                true => claimed.push((key.clone(), entry.marker())),
                false => raise(&mut follower.given, key, entry.marker()),
            }
        }
        let came_with = std::mem::replace(&mut follower.position, position);
        follower.at = Some((host, self.hosts[host].boot));
        let position = &follower.position;
        self.watch.note(self.now_us, || {
            format!("traveller {number} comes to host {host} with {came_with:?}, now {position:?}")
        });
        self.judge.followed(host, &claimed, &follower.given, &self.hosts, self.now_us);
    }

    /// Changes are told at a host. Some followers leave in the middle.
    pub(super) fn changed(&mut self, host: usize, told: &Changes) {
        let at = (host, self.hosts[host].boot);
        for number in 0..self.travellers.len() {
            let Traveller { rng, kind: Kind::Follower(follower), .. } = &mut self.travellers[number] else { continue };
            if follower.at != Some(at) {
                continue;
            }
            let leaves = rng.random_ratio(1, 10);
            let count = if leaves { rng.random_range(0..=told.changes.len()) } else { told.changes.len() };
            for change in &told.changes[..count] {
                raise(&mut follower.given, &change.key, change.marker);
                follower.position.gave(change);
            }
            if count == told.changes.len() {
                follower.position.gave_all(told);
            }
            if leaves {
                self.leave_feed(number, host);
            }
        }
    }

    /// A follower goes, with its position as a client would carry it. Nobody is told anything who does not ask.
    fn leave_feed(&mut self, number: usize, host: usize) {
        let Kind::Follower(follower) = &mut self.travellers[number].kind else { return };
        follower.at = None;
        let position = &follower.position;
        self.watch.note(self.now_us, || format!("traveller {number} leaves host {host} with {position:?}"));
        match Position::decode(&follower.position.encode()) {
            Some(position) => follower.position = position,
            None => self.judge.found("change-feed", self.now_us, || "a position can't be read".to_owned()),
        }
        // As in production: who comes subscribes before asking.
        let stays = |traveller: &Traveller| match &traveller.kind {
            Kind::Follower(follower) => traveller.asked.is_some() || follower.at.is_some_and(|(at, _)| at == host),
            Kind::Session(_) => false,
        };
        if !self.travellers.iter().any(stays)
            && let Some(replica) = self.hosts[host].replica.as_mut()
        {
            replica.unwatch();
        }
    }
}
