//! Faults: how each begins and ends. What is to happen is in the plan; nothing here judges.

use rand::Rng;
use starling::replica::MemStore;

use super::events::Event;
use super::{Planned, World};
use crate::clocks::WallClock;
use crate::host::Host;
use crate::network::link::Weather;
use crate::scenario::{Direction, Fault, FaultKind, Selector};

impl World {
    /// Puts the plan on the calendar. Who is befallen is drawn now, so that it does not depend on what happens.
    pub(super) fn plan(&mut self, faults: &[Fault], shift_us: u64) {
        let count = self.hosts.len();
        for (number, fault) in faults.iter().enumerate() {
            let targets = self.choose(&fault.nodes, number);
            let others = match &fault.kind {
                FaultKind::Partition { from, .. } | FaultKind::Flap { from, .. } | FaultKind::Reset { from } => {
                    self.choose(from, number)
                }
                _ => (0..count).collect(),
            };
            let others = others.into_iter().filter(|host| !targets.contains(host)).collect();
            let (begins_us, ends_us) = (shift_us + fault.at.0, shift_us + fault.at.0 + fault.lasts.0);
            if let FaultKind::Restore { age } = &fault.kind {
                self.schedule(begins_us.saturating_sub(age.0), Event::Backup(number));
            }
            self.schedule(begins_us, Event::FaultBegins(number));
            self.schedule(ends_us, Event::FaultEnds(number));
            self.plan.push(Planned { fault: fault.clone(), targets, others, active: false });
        }
    }

    /// When the last fault ends.
    pub(super) fn faults_end_us(&self) -> u64 {
        self.plan.iter().map(|planned| planned.fault.at.0 + planned.fault.lasts.0).max().unwrap_or(0)
    }

    fn choose(&self, selector: &Selector, fault: usize) -> Vec<usize> {
        let count = self.hosts.len();
        let at = |wanted: &dyn Fn(&crate::places::Place) -> bool| -> Vec<usize> {
            (0..count).filter(|host| wanted(&self.places[self.hosts[*host].place])).collect()
        };
        let mut chosen = match selector {
            Selector::All => (0..count).collect(),
            Selector::Node(node) => vec![node % count],
            Selector::Pop(pop) => at(&|place| place.iata == *pop),
            Selector::Region(region) => at(&|place| place.region == *region),
            Selector::Share(percent) => {
                let mut rng = World::new_rng(self.seed, 0x6661_756c_7400 + fault as u64);
                let mut hosts: Vec<usize> = (0..count).collect();
                let wanted = (count * *percent as usize).div_ceil(100);
                for place in 0..wanted {
                    hosts.swap(place, place + (rng.next_u64() % (count - place) as u64) as usize);
                }
                hosts.truncate(wanted);
                hosts
            }
            Selector::Any(any) => any.iter().flat_map(|selector| self.choose(selector, fault)).collect(),
        };
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    pub(super) fn begin_fault(&mut self, number: usize) {
        let Some(planned) = self.plan.get_mut(number) else { return };
        planned.active = true;
        let (fault, targets, others) = (planned.fault.clone(), planned.targets.clone(), planned.others.clone());
        let now_us = self.now_us;
        self.trace.note(now_us, b'F', [number as u64, 0], fault.kind.name().as_bytes());
        self.measure.fault(&fault, &targets, now_us);
        self.watch.note(now_us, || format!("{} begins at hosts {targets:?}", fault.kind.name()));
        match &fault.kind {
            FaultKind::Crash { keep } => targets.iter().for_each(|host| self.crash(*host, *keep as usize)),
            FaultKind::Restore { .. } => {
                for host in targets {
                    self.crash(host, 0);
                    if let Some(image) = self.hosts[host].backups.remove(&number) {
                        // What the directory says is issued again may have come since.
                        self.hosts[host].formers.iter_mut().for_each(|former| former.settled = false);
                        self.hosts[host].disk = MemStore::restored(image);
                        self.judge.disturbed(host, &self.hosts, now_us);
                    }
                }
            }
            FaultKind::Wipe => {
                for host in targets {
                    if self.live_besides(host) && !self.hosts[host].gone {
                        self.crash(host, 0);
                        self.hosts[host].gone = true;
                        self.judge.disturbed(host, &self.hosts, now_us);
                        self.hosts[host].disk = MemStore::default();
                    }
                }
            }
            FaultKind::Clone => {
                for host in targets {
                    if self.hosts[host].is_up() {
                        let image = self.hosts[host].durable_image().clone();
                        let (node, place) = (self.hosts[host].node, self.hosts[host].place);
                        let clone = self.add_host(node, place, MemStore::restored(image));
                        self.hosts[clone].seeds = self.hosts[host].seeds.clone();
                        self.hosts[clone].joined = self.hosts[host].joined;
                        self.hosts[clone].formers = self.hosts[host].formers.clone();
                        self.judge.disturbed(host, &self.hosts, now_us);
                        self.judge.disturbed(clone, &self.hosts, now_us);
                        self.start(clone);
                    }
                }
            }
            FaultKind::Join { count } => {
                for _ in 0..*count {
                    let place = self.rng_below(self.places.len() as u64) as usize;
                    let node = self.draw_node();
                    self.admit(node, place);
                }
            }
            FaultKind::Leave => {
                for host in targets {
                    if self.live_besides(host) {
                        self.leave(host);
                    }
                }
            }
            FaultKind::Evict { cut_off, returns } => {
                if *cut_off {
                    self.cut(number, &targets, &others, Direction::Both);
                }
                for host in targets {
                    if self.live_besides(host) && self.hosts[host].is_up() {
                        self.hosts[host].returns |= returns;
                        match returns {
                            // Whom it lets in from now on, nobody may hear of.
                            true => self.judge.fenced(host, &self.hosts),
                            // It may go on for a while, and what it alone has then is gone with it.
                            false => self.judge.disturbed(host, &self.hosts, now_us),
                        }
                        self.to_evict.insert(self.hosts[host].node);
                    }
                }
                self.evict_the_gone();
            }
            FaultKind::Lie { lies } => targets.iter().for_each(|host| self.turn_bad(*host, lies)),
            FaultKind::Partition { direction, .. } => self.cut(number, &targets, &others, *direction),
            FaultKind::Flap { .. } => self.toggle(number),
            FaultKind::Reset { .. } => self.reset(&targets, &others),
            FaultKind::Loss { loss, bursts } => {
                let weather = self.weather.worse(*loss, bursts.as_ref());
                self.worsen(number, &targets, &weather);
            }
            FaultKind::Slow { factor } => targets.iter().for_each(|host| self.hosts[*host].slowness = (*factor).max(1)),
            FaultKind::Pause => {
                targets.iter().for_each(|host| self.hosts[*host].paused = true);
                self.cut(number, &targets, &others, Direction::Both);
            }
            FaultKind::Deaf => targets.iter().for_each(|host| self.hosts[*host].deaf = true),
            FaultKind::SlowDisk { fsync } => targets.iter().for_each(|host| self.hosts[*host].fsync_us = fsync.0),
            FaultKind::DiskFull => {
                for host in targets {
                    if let Some(replica) = &mut self.hosts[host].replica {
                        replica.store_mut().fail();
                    }
                }
            }
            FaultKind::Clock { clock } => {
                for host in targets {
                    self.hosts[host].clock.break_as(*clock, now_us);
                    self.hosts[host].clock_was_wrong = true;
                }
            }
            FaultKind::Leap { by } => {
                self.now_us += by.0;
                self.leapt_us += by.0;
                self.queue.put_off(by.0);
                for host in &mut self.hosts {
                    host.put_off(by.0);
                }
                self.drop_all();
            }
        }
    }

    pub(super) fn end_fault(&mut self, number: usize) {
        let Some(planned) = self.plan.get_mut(number) else { return };
        if !std::mem::take(&mut planned.active) {
            return;
        }
        let (fault, targets) = (planned.fault.clone(), planned.targets.clone());
        self.trace.note(self.now_us, b'f', [number as u64, 0], &[]);
        self.watch.note(self.now_us, || format!("{} ends at hosts {targets:?}", fault.kind.name()));
        match &fault.kind {
            FaultKind::Crash { .. } | FaultKind::Restore { .. } => targets.iter().for_each(|host| self.start(*host)),
            FaultKind::DiskFull => {
                for host in targets {
                    self.crash(host, 0);
                    self.start(host);
                }
            }
            FaultKind::Wipe => {
                for host in targets {
                    if self.hosts[host].gone && !self.hosts[host].replaced {
                        self.hosts[host].replaced = true;
                        self.to_evict.insert(self.hosts[host].node);
                        let (node, place) = (self.draw_node(), self.hosts[host].place);
                        self.admit(node, place);
                    }
                }
                self.evict_the_gone();
            }
            FaultKind::Lie { .. } => self.evict_liars(),
            FaultKind::Partition { .. } | FaultKind::Flap { .. } | FaultKind::Evict { .. } => {
                self.cuts.end(number);
                self.ways_freed();
            }
            FaultKind::Pause => {
                self.cuts.end(number);
                self.ways_freed();
                for host in targets {
                    self.hosts[host].paused = false;
                    self.kick(host);
                }
            }
            FaultKind::Loss { .. } => self.improve(number),
            FaultKind::Slow { .. } => targets.iter().for_each(|host| self.hosts[*host].slowness = 1),
            FaultKind::Deaf => targets.iter().for_each(|host| self.hosts[*host].deaf = false),
            FaultKind::SlowDisk { .. } => {
                let fsync_us = self.scenario.nodes.fsync.0;
                targets.iter().for_each(|host| self.hosts[*host].fsync_us = fsync_us);
            }
            FaultKind::Clock { .. } => targets.iter().for_each(|host| self.hosts[*host].clock = WallClock::default()),
            FaultKind::Clone
            | FaultKind::Join { .. }
            | FaultKind::Leave
            | FaultKind::Reset { .. }
            | FaultKind::Leap { .. } => {}
        }
    }

    pub(super) fn back_up(&mut self, number: usize) {
        for host in self.plan.get(number).map(|planned| planned.targets.clone()).unwrap_or_default() {
            let image = self.hosts[host].durable_image().clone();
            self.hosts[host].backups.insert(number, image);
        }
    }

    /// A flapping way turns, and will again.
    pub(super) fn toggle(&mut self, number: usize) {
        let Some(planned) = self.plan.get(number).filter(|planned| planned.active) else { return };
        let FaultKind::Flap { period, .. } = &planned.fault.kind else { return };
        let half_us = (period.0 / 2).max(1_000);
        let (targets, others) = (planned.targets.clone(), planned.others.clone());
        match self.cuts.has(number) {
            true => {
                self.cuts.end(number);
                self.ways_freed();
            }
            false => self.cut(number, &targets, &others, Direction::Both),
        }
        self.schedule(self.now_us + half_us, Event::Toggle(number));
    }

    fn cut(&mut self, number: usize, targets: &[usize], others: &[usize], direction: Direction) {
        let count = self.hosts.len();
        if direction != Direction::In {
            self.cuts.add(number, targets, others, count);
        }
        if direction != Direction::Out {
            self.cuts.add(number, others, targets, count);
        }
        self.ways_cut();
    }

    fn worsen(&mut self, number: usize, targets: &[usize], weather: &Weather) {
        self.local_weather.extend(targets.iter().map(|host| ((number, *host), weather.clone())));
    }

    fn improve(&mut self, number: usize) {
        self.local_weather.retain(|(fault, _), _| *fault != number);
    }

    /// All that is still wrong ends. Of two processes with one identity the newer one stays; who will never come back
    /// is evicted; who is evicted and runs will be told so.
    pub(super) fn heal(&mut self) {
        for number in 0..self.plan.len() {
            self.end_fault(number);
        }
        self.cuts.clear();
        self.local_weather.clear();
        self.ways_freed();
        let fsync_us = self.scenario.nodes.fsync.0;
        for host in 0..self.hosts.len() {
            let this = &mut self.hosts[host];
            (this.paused, this.deaf, this.slowness, this.fsync_us) = (false, false, 1, fsync_us);
            this.clock = WallClock::default();
            let node = this.node;
            let started = (this.started_us, host);
            let is_newer = |(number, other): (usize, &Host)| {
                other.node == node && !other.gone && (other.started_us, number) > started
            };
            let has_newer = self.hosts.iter().enumerate().any(is_newer);
            if has_newer {
                self.judge.disturbed(host, &self.hosts, self.now_us);
                self.crash(host, usize::MAX);
                self.hosts[host].gone = true;
            }
            self.start(host);
            self.kick(host);
        }
        (0..self.hosts.len()).for_each(|host| self.restart_the_last_of(host));
        let live: Vec<_> = self.hosts.iter().filter(|host| host.is_up()).map(|host| host.node).collect();
        let gone = self.hosts.iter().filter(|host| !live.contains(&host.node)).map(|host| host.node);
        self.to_evict.extend(gone);
        self.evict_the_gone();
    }

    fn live_besides(&self, host: usize) -> bool {
        self.hosts.iter().enumerate().any(|(other, this)| other != host && this.is_up())
    }

    pub(super) fn add_host(&mut self, node: starling::replica::NodeId, place: usize, disk: MemStore) -> usize {
        let clock = WallClock::default();
        self.hosts.push(Host::new(node, place, disk, clock, self.scenario.nodes.fsync.0));
        self.measure.host_added(place);
        self.hosts.len() - 1
    }
}
