//! The world: hosts, the network between them, clients and faults, in virtual time. One queue of events; everything
//! random is drawn from generators that are seeded by the run's seed.
//!
//! Drives each replica exactly as the driver of production does: inputs, one commit, then outputs; and none of these
//! before the fsync they wait for.

mod clients;
mod events;
mod faults;
mod genesis;
mod liars;
mod links;
mod returns;
mod run;
mod travellers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use starling::replica::{Alarm, Dot, Input, Key, Message, NodeId, Output, Sabotage, Ticket, limits};

pub use run::{Kept, Options, Progress};

use crate::checkers::Judge;
use crate::host::Host;
use crate::measure::Measure;
use crate::network::connection::Connection;
use crate::network::cuts::Cuts;
use crate::network::link::Weather;
use crate::places::{Delays, Place};
use crate::scenario::{Fault, Scenario};
use crate::trace::Trace;
use crate::watch::Watch;
use crate::workload::Op;
use clients::Client;
use events::{Event, Queue};
use travellers::Traveller;

/// Inputs handled before a commit: as the driver has it.
const TURN_INPUTS_MAX: usize = 512;

/// A world.
pub struct World {
    scenario: Scenario,
    seed: u64,
    rng: ChaCha8Rng,
    now_us: u64,
    /// How much of it was leapt over.
    leapt_us: u64,
    queue: Queue,
    hosts: Vec<Host>,
    places: Vec<Place>,
    delays: Delays,
    connections: Vec<Connection>,
    /// Dials of each pair of hosts: how many in a row have failed, and the connection that stands or is set up.
    pairs: BTreeMap<(usize, usize), Pair>,
    cuts: Cuts,
    weather: Weather,
    /// Worse weather around single hosts, by fault and host.
    local_weather: BTreeMap<(usize, usize), Weather>,
    plan: Vec<Planned>,
    ops: Vec<Op>,
    next_op: usize,
    ticket: Ticket,
    clients: BTreeMap<Ticket, Client>,
    travellers: Vec<Traveller>,
    /// All faults are over: they have seen enough.
    travellers_rest: bool,
    /// The last message decoded: a broadcast sends the same bytes to everyone.
    decoded: Option<(Bytes, Arc<Message>)>,
    bounds: limits::Bounds,
    sabotage: Sabotage,
    /// What must be shown in the end, where there was a liar.
    rewritten: BTreeMap<Key, Dot>,
    /// Nodes that are being let in.
    awaited: BTreeSet<NodeId>,
    /// Of these, the ones that a machine wants to be whose former node was evicted.
    returning: BTreeMap<NodeId, usize>,
    /// Machines that will, and how often they have asked.
    will_return: BTreeMap<usize, u32>,
    /// Nodes that an operator should evict as soon as one can.
    to_evict: BTreeSet<NodeId>,
    judge: Judge,
    measure: Measure,
    trace: Trace,
    watch: Watch,
    outputs: Vec<Output>,
}

#[derive(Clone, Copy, Default)]
struct Pair {
    failures: u32,
    connection: Option<usize>,
    dialling: bool,
}

/// A fault and whom it befalls.
struct Planned {
    fault: Fault,
    targets: Vec<usize>,
    others: Vec<usize>,
    active: bool,
}

impl World {
    fn schedule(&mut self, at_us: u64, event: Event) {
        self.queue.push(at_us.max(self.now_us), event);
    }

    fn draw_seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }

    /// Carries on until `end_us`, leaps not counted, or until something is found wrong.
    fn run_until(&mut self, end_us: u64) {
        while !self.judge.has_found_something() {
            let Some((at_us, event)) = self.queue.pop_until(end_us + self.leapt_us) else { break };
            self.now_us = at_us.max(self.now_us);
            self.happen(event);
        }
        self.now_us = self.now_us.max(end_us + self.leapt_us);
    }

    /// Virtual time without what was leapt over.
    fn lived_us(&self) -> u64 {
        self.now_us - self.leapt_us
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { connection, side, class, message, wire } => {
                self.deliver(connection, side, class, message, wire);
            }
            Event::Taken { connection, side, class, bytes } => self.taken(connection, side, class, bytes, true),
            Event::Probe { connection, side } => self.probe(connection, side),
            Event::Connected { connection, side } => self.connected(connection, side),
            Event::Lost { connection, side } => self.lost(connection, side),
            Event::Dial { pair } => self.dial(pair),
            Event::IdleCheck { connection } => self.check_idle(connection),
            Event::Ready { host, boot } => {
                if self.hosts[host].boot == boot {
                    self.hosts[host].ready_scheduled = false;
                    self.kick(host);
                }
            }
            Event::Released { host, boot } => self.release(host, boot),
            Event::Synced { host, boot, commit } => {
                if self.hosts[host].boot == boot {
                    self.hosts[host].synced(commit, true);
                    self.arrive(host, Input::Synced { commit });
                }
            }
            Event::SyncDue { host, boot } => {
                if self.hosts[host].boot == boot {
                    self.sync_if_due(host);
                }
            }
            Event::Wake { host, boot, at_us } => {
                if self.hosts[host].boot == boot && self.hosts[host].wake_us == at_us {
                    self.hosts[host].wake_us = u64::MAX;
                    self.arrive(host, Input::Wake);
                }
            }
            Event::Start { host } => self.start(host),
            Event::Restart { host, boot } => {
                if self.hosts[host].boot == boot {
                    self.crash(host, usize::MAX);
                    self.start(host);
                }
            }
            Event::Stop { host } => match self.hosts[host].returns {
                true => self.begin_return(host),
                false => self.stop_for_good(host),
            },
            Event::NextOp => self.next_op(),
            Event::Travel { number } => self.travel(number),
            Event::Awaited { node } => self.give_up_on(node),
            Event::Evict => self.evict_the_gone(),
            Event::Return { host } => self.return_as_another(host),
            Event::Reissue { host, boot } => {
                if self.hosts[host].boot == boot {
                    self.reissue(host);
                }
            }
            Event::Ask { host, request, client } => self.ask(host, *request, *client),
            Event::FaultBegins(fault) => self.begin_fault(fault),
            Event::FaultEnds(fault) => self.end_fault(fault),
            Event::Backup(fault) => self.back_up(fault),
            Event::Toggle(fault) => self.toggle(fault),
        }
    }

    /// Something reaches a host's process.
    fn arrive(&mut self, host: usize, input: Input) {
        let this = &mut self.hosts[host];
        if this.is_up() {
            this.inbox.push_back(input);
            self.kick(host);
        }
    }

    /// A turn, now or when the host is free.
    fn kick(&mut self, host: usize) {
        let now_us = self.now_us;
        let this = &mut self.hosts[host];
        if this.inbox.is_empty() || !this.is_up() || this.paused || this.releasing {
            return;
        }
        if this.busy_until_us > now_us || this.held.is_some() {
            if !this.ready_scheduled {
                this.ready_scheduled = true;
                let (at_us, boot) = (this.busy_until_us, this.boot);
                self.schedule(at_us, Event::Ready { host, boot });
            }
            return;
        }
        self.turn(host);
    }

    fn turn(&mut self, host: usize) {
        let now_us = self.now_us;
        let this = &mut self.hosts[host];
        let now = this.now(now_us);
        let Some(replica) = this.replica.as_mut() else { return };
        let count = this.inbox.len().min(TURN_INPUTS_MAX);
        let mut failed = false;
        for input in this.inbox.drain(..count) {
            failed |= replica.handle(input, now).is_err();
        }
        failed |= replica.commit(now).is_err();
        if failed {
            return self.storage_failed(host);
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        while let Some(output) = replica.poll_output() {
            outputs.push(output);
        }
        let wants_sync = replica.store_mut().take_sync_wanted();
        let changes = replica.store_mut().take_edits();
        let commit = replica.last_commit();
        let informer = this.informer.take();
        let busy_us = count as u64 * self.scenario.nodes.input.0 * this.slowness;
        this.busy_until_us = now_us + busy_us;
        if wants_sync {
            this.busy_until_us += this.fsync_takes_us();
            this.held = Some((commit, std::mem::take(&mut outputs)));
            let (at_us, boot) = (this.busy_until_us, this.boot);
            self.schedule(at_us, Event::Released { host, boot });
        }
        self.judge.committed(host, &changes, &self.hosts, now_us);
        self.measure.committed(host, informer, &changes, now_us);
        self.watch.committed(host, &changes, now_us);
        for output in outputs.drain(..) {
            self.carry_out(host, output);
        }
        self.outputs = outputs;
        self.after_turn(host);
    }

    /// The fsync of a turn is done: what waited for it may be seen.
    fn release(&mut self, host: usize, boot: u64) {
        let this = &mut self.hosts[host];
        if this.boot != boot {
            return;
        }
        let Some((commit, outputs)) = this.held.take() else { return };
        this.synced(commit, false);
        this.releasing = true;
        for output in outputs {
            self.carry_out(host, output);
        }
        self.hosts[host].releasing = false;
        self.after_turn(host);
        self.kick(host);
    }

    /// What the driver does at the end of a turn: sleep until the replica's next moment, and mind the disk.
    fn after_turn(&mut self, host: usize) {
        let now_us = self.now_us;
        let this = &mut self.hosts[host];
        let Some(replica) = this.replica.as_ref() else { return };
        // A replica that could go on at once is given some room, as a loop that runs takes some time.
        let wake_us = replica.next_wake().0.max(now_us + 100).max(this.busy_until_us);
        let boot = this.boot;
        if wake_us < this.wake_us || this.wake_us <= now_us {
            this.wake_us = wake_us;
            self.schedule(wake_us, Event::Wake { host, boot, at_us: wake_us });
        }
        self.sync_if_due(host);
    }

    fn sync_if_due(&mut self, host: usize) {
        let now_us = self.now_us;
        let this = &mut self.hosts[host];
        let Some(due_us) = this.sync_due_us() else { return };
        let boot = this.boot;
        if due_us <= now_us {
            let commit = this.begin_sync(now_us);
            let at_us = now_us + this.fsync_takes_us();
            self.schedule(at_us, Event::Synced { host, boot, commit });
        } else if this.sync_due_scheduled_us != due_us {
            this.sync_due_scheduled_us = due_us;
            self.schedule(due_us, Event::SyncDue { host, boot });
        }
    }

    fn carry_out(&mut self, host: usize, output: Output) {
        match output {
            Output::Send { link, node, class, bytes } => self.send(host, link as usize, node, class, &bytes),
            Output::Disconnect { link, reason, .. } => {
                self.watch.note(self.now_us, || format!("host {host} disconnects {link}: {reason}"));
                self.close(link as usize, host);
            }
            Output::TurnAway { link, node } => {
                self.watch.note(self.now_us, || format!("host {host} turns away {node}, which is evicted"));
                self.connections[link as usize].turned_away = true;
                self.close(link as usize, host);
            }
            Output::Reply { ticket, reply } => self.replied(host, ticket, reply),
            Output::KeepSecrets(secrets) => self.hosts[host].secrets = secrets,
            Output::Changed(changes) => self.changed(host, &changes),
            Output::RosterChanged => {}
            Output::Alarm(alarm) => {
                if alarm == Alarm::Evicted {
                    // Whoever runs the machine takes it away.
                    self.schedule(self.now_us + 1_000_000, Event::Stop { host });
                }
                if alarm == Alarm::Superseded {
                    self.hosts[host].superseded = true;
                    self.restart_the_last_of(host);
                }
                self.measure.alarm(&alarm);
                self.judge.alarm(host, &alarm, &self.hosts, self.now_us);
            }
        }
    }

    fn start(&mut self, host: usize) {
        if self.hosts[host].gone || self.hosts[host].is_up() {
            return;
        }
        let seed = self.draw_seed();
        let (bounds, sabotage, now_us) = (self.bounds, self.sabotage, self.now_us);
        self.hosts[host].start(seed, bounds, sabotage, now_us);
        self.trace.note(now_us, b'S', [host as u64, self.hosts[host].boot], &[]);
        // What the process did while it started is part of how it was found, not of a turn.
        let changes = self.hosts[host].replica.as_mut().map(|replica| replica.store_mut().take_edits());
        let changes = changes.unwrap_or_default();
        self.judge.started(host, &self.hosts, now_us);
        self.measure.committed(host, None, &changes, now_us);
        self.watch.committed(host, &changes, now_us);
        let this = &self.hosts[host];
        if this.replica.as_ref().is_some_and(|replica| replica.roster().is_evicted(this.node)) {
            // The program ends when its directory says so: that of a node which has left was copied, or it had been told.
            self.schedule(now_us, Event::Stop { host });
        }
        self.introduce(host);
        self.reissue_soon(host);
        self.dial_all(host);
        self.arrive(host, Input::Wake);
    }

    /// A directory was copied, and of the processes over the copies the last one that runs is called the older one (they
    /// started within seconds of one another): whoever stopped the others starts it again.
    fn restart_the_last_of(&mut self, host: usize) {
        let this = &self.hosts[host];
        let mut others = self.hosts.iter().enumerate().filter(|(other, that)| *other != host && that.node == this.node);
        let was_copied = others.clone().next().is_some();
        if this.superseded && was_copied && others.all(|(_, that)| that.gone) {
            self.schedule(self.now_us + 1_000_000, Event::Restart { host, boot: this.boot });
        }
    }

    /// The process ends without warning.
    fn crash(&mut self, host: usize, keep: usize) {
        if !self.hosts[host].is_up() {
            return;
        }
        self.trace.note(self.now_us, b'C', [host as u64, keep as u64], &[]);
        self.measure.stopped(host, &self.hosts);
        self.hosts[host].crash(keep);
        self.judge.stopped(host, &self.hosts, self.now_us);
        self.abandon_links(host);
    }

    fn stop_for_good(&mut self, host: usize) {
        if std::mem::replace(&mut self.hosts[host].gone, true) {
            return;
        }
        if !self.hosts[host].has_drained {
            // What it alone has is gone with it.
            self.judge.disturbed(host, &self.hosts, self.now_us);
        }
        self.crash(host, usize::MAX);
        let node = self.hosts[host].node;
        if !self.hosts.iter().any(|other| other.node == node && !other.gone) {
            // Perhaps nobody has heard that it left: whoever took it away says so.
            self.to_evict.insert(node);
            self.schedule(self.now_us + clients::EVICT_AGAIN_US, Event::Evict);
        }
    }

    /// As in production: the node leaves the flock and takes no writes until someone starts it again.
    fn storage_failed(&mut self, host: usize) {
        self.crash(host, 0);
    }

    fn rng_below(&mut self, limit: u64) -> u64 {
        match limit {
            0 => 0,
            _ => self.rng.next_u64() % limit,
        }
    }

    fn new_rng(seed: u64, salt: u64) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(seed ^ salt.rotate_left(17))
    }
}
