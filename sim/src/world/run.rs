//! One run: warm up, writes under faults, healing, and then everyone must be equal, and go on.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use starling::replica::{BlobAddress, MemStore, Replica, Sabotage, limits};

use super::World;
use super::genesis::WARM_UP_US;
use crate::outcome::Outcome;
use crate::scenario::Scenario;

/// After a fault-free end, writes on their way have this long before all must be equal.
const POLL_US: u64 = 250_000;
/// Nodes that must have a write accepted and acknowledged by all at the end.
const WITNESSES: usize = 5;
/// Before that, everyone hears of everyone.
const GRACE_US: u64 = 4_000_000;
/// How long they have.
const PROGRESS_US: u64 = 40_000_000;

/// Numbers that are kept of a list, as `0-3,7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept(pub BTreeSet<usize>);

impl Kept {
    /// Whether a number is kept.
    pub fn contains(&self, number: usize) -> bool {
        self.0.contains(&number)
    }

    /// All up to a number.
    pub fn first(count: usize) -> Self {
        Self((0..count).collect())
    }
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut runs: Vec<RangeInclusive<usize>> = Vec::new();
        for number in &self.0 {
            match runs.last_mut() {
                Some(run) if run.end() + 1 == *number => *run = *run.start()..=*number,
                _ => runs.push(*number..=*number),
            }
        }
        let text = |run: &RangeInclusive<usize>| match run.start() == run.end() {
            true => run.start().to_string(),
            false => format!("{}-{}", run.start(), run.end()),
        };
        match runs.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&runs.iter().map(text).collect::<Vec<_>>().join(",")),
        }
    }
}

impl std::str::FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::default());
        }
        let number = |text: &str| text.parse::<usize>().map_err(|_| format!("'{text}' is not a number"));
        let mut kept = BTreeSet::new();
        for run in text.split(',') {
            match run.split_once('-') {
                Some((first, last)) => kept.extend(number(first)?..=number(last)?),
                None => _ = kept.insert(number(run)?),
            }
        }
        Ok(Self(kept))
    }
}

/// How to run a scenario.
#[derive(Clone, Debug)]
pub struct Options {
    /// Everything random follows from it.
    pub seed: u64,
    /// Another number of nodes than the scenario's.
    pub nodes: Option<usize>,
    /// Only these of its faults.
    pub faults: Option<Kept>,
    /// Only these of what clients do.
    pub ops: Option<Kept>,
    /// Bounds of the replicas.
    pub bounds: limits::Bounds,
    /// Ways in which the protocol is broken on purpose.
    pub sabotage: Sabotage,
    /// How often everything is looked at.
    pub inspect_us: u64,
    /// Whether pictures will be drawn.
    pub details: bool,
    /// Number of a write whose way is printed.
    pub watched: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: None,
            faults: None,
            ops: None,
            bounds: limits::Bounds::default(),
            sabotage: Sabotage::default(),
            inspect_us: 1_000_000,
            details: false,
            watched: None,
        }
    }
}

/// How far a run has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Virtual time.
    pub now_us: u64,
    /// When it will end if it heals at once.
    pub end_us: u64,
    /// Writes accepted.
    pub accepted: u64,
    /// Of these, visible everywhere.
    pub everywhere: u64,
    /// Nodes that run.
    pub up: usize,
    /// What goes on.
    pub phase: &'static str,
}

impl World {
    /// Runs a scenario to its end, or to the first promise broken.
    pub fn run(scenario: &Scenario, options: &Options, report: &mut dyn FnMut(Progress)) -> Outcome {
        Self::run_watched(scenario, options, &mut Vec::new(), report)
    }

    /// The same; what is told of the watched write goes to `lines`.
    pub fn run_watched(
        scenario: &Scenario,
        options: &Options,
        lines: &mut Vec<String>,
        report: &mut dyn FnMut(Progress),
    ) -> Outcome {
        let mut world = World::new(scenario, options);
        let has_faults = !world.plan.is_empty();
        let faults_end_us = WARM_UP_US + world.faults_end_us();
        let end_us = faults_end_us.max(WARM_UP_US + scenario.duration.0);
        world.live_until(end_us, options.inspect_us, end_us, "writes", report);
        world.travellers_rest = true;
        world.heal();
        let healed_at_us = world.now_us;
        let healed_ms = world.hosts.iter().map(|host| host.now(healed_at_us).wall_ms).min().unwrap_or(0);
        world.judge.healed(&world.hosts, healed_at_us);
        let deadline_us = world.lived_us() + scenario.settle.0;
        loop {
            let step_us = world.lived_us() + POLL_US;
            world.live_until(step_us, options.inspect_us, end_us, "heals", report);
            if world.judge.has_found_something() {
                break;
            }
            if world.all_equal() {
                world.measure.healed_us = has_faults.then(|| world.now_us - healed_at_us);
                break;
            }
            if world.lived_us() >= deadline_us {
                let differing = world.differences();
                world.judge.found("convergence", world.now_us, || {
                    format!("not equal {} s after the last fault: {differing}", scenario.settle.0 / 1_000_000)
                });
                break;
            }
        }
        world.finish(options, healed_ms, end_us, report);
        *lines = world.watch.take_lines();
        world.into_outcome()
    }

    fn finish(&mut self, options: &Options, healed_ms: u64, end_us: u64, report: &mut dyn FnMut(Progress)) {
        self.measure.writes_end(self.now_us);
        if !self.judge.has_found_something() {
            // Beats tell nodes that their clocks are right again.
            self.live_until(self.lived_us() + GRACE_US, options.inspect_us, end_us, "heals", report);
            let up: Vec<usize> = (0..self.hosts.len()).filter(|host| self.hosts[*host].is_up()).collect();
            let stride = up.len().div_ceil(WITNESSES).max(1);
            let witnesses: Vec<usize> = up.iter().copied().step_by(stride).collect();
            self.demand_all_keys(&witnesses);
            self.demand_progress(&witnesses);
            let deadline_us = self.lived_us() + PROGRESS_US * self.hardship();
            loop {
                let step_us = self.lived_us() + POLL_US;
                self.live_until(step_us, options.inspect_us, end_us, "goes on", report);
                let is_done = !self.progress_is_owed() && self.all_equal() && self.watermarks_passed(healed_ms);
                if self.judge.has_found_something() || is_done {
                    break;
                }
                if self.lived_us() >= deadline_us {
                    let owed = self.progress_is_owed();
                    let (differing, now_us) = (self.differences(), self.now_us);
                    let (watermarks, hardship) = (self.watermarks_passed(healed_ms), self.hardship());
                    self.judge.found("progress", now_us, || {
                        format!(
                            "{} s after all faults: clients still waiting: {owed}; watermarks have passed: \
                             {watermarks}; {differing}",
                            PROGRESS_US * hardship / 1_000_000
                        )
                    });
                    break;
                }
            }
        }
        self.judge_rewritten();
        if !self.judge.has_found_something() {
            self.judge.at_rest(&self.hosts, self.now_us);
        }
    }

    fn into_outcome(mut self) -> Outcome {
        let violations = self.judge.take_violations();
        let mut outcome = self.measure.outcome(&self.hosts, self.now_us);
        outcome.summary.scenario = self.scenario.name.clone();
        outcome.summary.about = self.scenario.about.clone();
        let bounds = &self.bounds;
        let bounds = [
            ("queued_keys", bounds.rumor_keys_total),
            ("queued_keys_for_one_peer", bounds.rumor_keys),
            ("sessions_in", bounds.sessions_in),
            ("sessions_out", bounds.sessions_out),
            ("records_waiting_for_blobs", bounds.pending),
            ("requests_waiting", bounds.waiters),
            ("intervals_of_one_origin", bounds.intervals_per_origin),
            ("record_bytes_in_flight_to_one_peer", bounds.records_in_flight + limits::MESSAGE_LEN_MAX),
        ];
        outcome.summary.peak_bounds = bounds.map(|(name, bound)| (name.to_owned(), bound as u64)).into();
        outcome.summary.seed = self.seed;
        outcome.summary.trace_hash = self.trace.hash();
        outcome.summary.violations = violations;
        outcome
    }

    fn live_until(
        &mut self,
        until_us: u64,
        inspect_us: u64,
        end_us: u64,
        phase: &'static str,
        report: &mut dyn FnMut(Progress),
    ) {
        while self.lived_us() < until_us && !self.judge.has_found_something() {
            let step_us = (self.lived_us() + inspect_us).min(until_us);
            self.run_until(step_us);
            self.judge.inspect(&self.hosts, self.now_us);
            self.measure.sample(&self.hosts, self.now_us);
            report(Progress {
                now_us: self.lived_us(),
                end_us,
                accepted: self.measure.writes.accepted,
                everywhere: self.measure.writes.everywhere,
                up: self.hosts.iter().filter(|host| host.is_up()).count(),
                phase,
            });
        }
    }

    /// Whether all that run hold the same and know the same, nobody waits for chunks that someone has, and whoever was
    /// evicted and comes back is there.
    fn all_equal(&self) -> bool {
        if !self.all_have_returned() {
            return false;
        }
        let mut running = self.hosts.iter().filter_map(|host| host.replica.as_ref());
        let mut states = running.clone().map(|replica| (replica.version_hash(), replica.digest()));
        let Some(first) = states.next() else { return true };
        states.all(|state| state == first) && !running.any(|replica| self.waits_in_vain(replica))
    }

    /// Whether a replica waits for a blob that someone who runs holds whole. What only a directory held that was lost,
    /// or a node that has left, is waited for until a later write dominates it.
    fn waits_in_vain(&self, replica: &Replica<MemStore>) -> bool {
        let is_held =
            |address, chunks| self.hosts.iter().any(|host| host.is_up() && host.image().holds_blob(address, chunks));
        replica.waiting_for_blobs().any(|(key, entry)| {
            entry.blob().is_some_and(|blob| is_held(BlobAddress::of(key, blob.id), blob.chunks.len() as u32))
        })
    }

    fn differences(&self) -> String {
        let mut groups = std::collections::BTreeMap::<String, BTreeSet<usize>>::new();
        for (number, host) in self.hosts.iter().enumerate() {
            if let Some(replica) = &host.replica {
                let (hash, digest) = (replica.version_hash().to_string(), format!("{:x}", replica.digest().0));
                let state = format!(
                    "seen {:.6} holds {:.6} waits for {} blobs",
                    hash,
                    digest,
                    replica.waiting_for_blobs().count()
                );
                groups.entry(state).or_default().insert(number);
            }
        }
        let odd = self.odd_key().map(|text| format!("; {text}")).unwrap_or_default();
        let text = groups.into_iter().take(6).map(|(state, hosts)| format!("hosts {}: {state}", Kept(hosts)));
        text.collect::<Vec<_>>().join("; ") + &odd
    }

    /// A key under which two that run hold different things.
    fn odd_key(&self) -> Option<String> {
        let mut up = self.hosts.iter().enumerate().filter(|(_, host)| host.is_up());
        let (first, model) = up.next()?;
        up.find_map(|(number, host)| {
            let (ours, theirs) = (model.image(), host.image());
            let keys: BTreeSet<_> = ours.entries().chain(theirs.entries()).map(|(key, _)| key).collect();
            let hash = |image: &starling::replica::Image, key| image.entry(key).map(|entry| entry.hash);
            let key = keys.into_iter().find(|key| hash(ours, key) != hash(theirs, key))?;
            let what = |image: &starling::replica::Image| match image.entry(key) {
                Some(entry) => {
                    let seen = if image.has_seen(entry.dot) { "seen" } else { "not seen" };
                    format!("{} at {:?}, {seen}", entry.dot, entry.marker().time)
                }
                None => "nothing".to_owned(),
            };
            Some(format!("{key:?} at host {first}: {}, at host {number}: {}", what(ours), what(theirs)))
        })
    }

    /// Whether every node knows that it holds all that was written before the healing. Where someone waits for a blob that
    /// was lost with a directory, a watermark rather stands still than overstates. And a node that went by a clock that ran
    /// ahead, and whose directory no longer knows so, says what others take for older than what they have heard, until
    /// the time has come.
    fn watermarks_passed(&self, healed_ms: u64) -> bool {
        let mut running = self.hosts.iter().filter_map(|host| host.replica.as_ref());
        let has_forgotten = self.hosts.iter().any(|host| self.judge.is_forgetful(host.node));
        has_forgotten && self.hosts.iter().any(|host| host.clock_was_wrong)
            || running.clone().any(|replica| replica.waiting_for_blobs().count() > 0)
            || running.all(|replica| replica.roster().members().count() < 2 || replica.watermark().ms() >= healed_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_numbers_read_back() {
        for text in ["none", "3", "0-4,9", "1,3,5-6"] {
            assert_eq!(text.parse::<Kept>().expect("numbers").to_string(), text);
        }
        assert!("a-3".parse::<Kept>().is_err());
    }
}
