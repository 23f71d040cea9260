//! Who runs where. Programs that do no harm share a process; new ones begin in one of their own and join the others
//! after a quiet moment; those under suspicion stay in custody until it is clear which of them it is.
//!
//! One task decides ([`Pool::arrange`]); what takes time, starting and draining processes, is done beside it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::config;
use super::host::{Ground, Guest, Host, Kind, Unstarted, Verdict};
use super::process::Process;
use super::reach::Reach;
use super::seat::{Presence, Seat};
use super::vitals::Ends;
use super::watch::watch_over;
use crate::worker::engine::{EngineError, Vitals};
use crate::worker::{Program, ScriptId};

/// Changes that come within this time of one another become one.
const COALESCE: Duration = Duration::from_millis(20);
/// How often it is looked whether anything is due.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long nothing may have changed before all programs are gathered in one process.
const QUIET: Duration = Duration::from_secs(2);
/// How long gathering is left alone once it has failed.
const GATHER_PAUSE: Duration = Duration::from_secs(60);
/// Processes for programs in custody.
const CELLS_MAX: usize = 8;
/// How long a program must have done no harm to leave custody.
const PAROLE: Duration = Duration::from_secs(60);
/// Longest that a program is left alone after it has done harm again and again.
const REST_MAX: Duration = Duration::from_secs(60);
/// How long a process gets to finish what it was asked, once others have taken over.
const DRAIN_MAX: Duration = Duration::from_secs(60);
/// How long what was to go on after an answer may take, as on Cloudflare, and for how many processes at a time that is
/// waited for.
const LINGER_MAX: Duration = Duration::from_secs(30);
const LINGERING_MAX: usize = 4;
/// How long requests may take at the end.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Pause before a process is tried again that the machine could not start.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// How long the runtime may take to judge flags.
const FLAGS_PATIENCE: Duration = Duration::from_secs(20);
/// Answers about flags that are remembered.
const FLAGS_KNOWN_MAX: usize = 1024;

/// All processes and what is to run in them.
pub(super) struct Pool {
    ground: Ground,
    state: Mutex<State>,
    /// Something is to be looked at.
    wake: Notify,
    /// Ticks when a program has a place, or is known to get none.
    moved: watch::Sender<u64>,
    flags: Mutex<BTreeMap<Flags, Result<(), String>>>,
    ends: Ends,
}

/// A date, and exceptions to it.
type Flags = (String, Vec<String>);

/// Where a request goes. As long as it is there, the program counts as busy.
pub(super) struct Room {
    pub(super) host: Arc<Host>,
    pub(super) seat: Arc<Seat>,
    pub(super) presence: Presence,
}

#[derive(Default)]
struct State {
    /// By version.
    entries: BTreeMap<String, Entry>,
    hosts: BTreeMap<u64, Arc<Host>>,
    /// Retired processes in which something may go on after its answer, the oldest first.
    lingering: VecDeque<Arc<Notify>>,
    next_number: u64,
    next_cell: u64,
    changed: Option<Instant>,
    gathering: bool,
    gather_after: Option<Instant>,
    is_ending: bool,
}

/// A version that is to run.
struct Entry {
    program: Arc<Program>,
    reach: Arc<Reach>,
    home: Home,
    /// The start that is to give it a place.
    start: Option<u64>,
    /// Why it is not with the others: which cell, and since when it has done no harm.
    custody: Option<(u64, Instant)>,
    /// How often it was the one that did harm.
    strikes: u32,
    is_watched: bool,
    /// Someone has begun or ceased to watch it, which takes another process.
    is_stale: bool,
}

enum Home {
    None,
    At(Arc<Host>),
    Refused(String),
    Resting(Instant),
    Failing(String, Instant),
}

/// How a process comes to its end, or near it.
pub(super) enum Incident {
    /// It computes, and does nothing else.
    Stalled,
    /// It has ended, or is ended for that reason.
    Ended(EngineError),
    /// Someone else has ended it.
    Killed,
}

impl Pool {
    pub(super) fn start(ground: Ground) -> Arc<Self> {
        let pool = Arc::new(Self {
            ground,
            state: Mutex::default(),
            wake: Notify::new(),
            moved: watch::channel(0).0,
            flags: Mutex::default(),
            ends: Ends::default(),
        });
        let weak = Arc::downgrade(&pool);
        tokio::spawn(async move {
            while let Some(pool) = Weak::upgrade(&weak) {
                let woken = timeout(LOOK_EVERY, pool.wake.notified()).await.is_ok();
                if woken {
                    sleep(COALESCE).await;
                }
                if pool.state().is_ending {
                    return;
                }
                pool.arrange();
            }
        });
        pool
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self) {
        self.moved.send_modify(|moved| *moved += 1);
    }

    /// Other programs are to run.
    pub(super) fn prepare(&self, programs: Vec<Arc<Program>>) {
        let mut state = self.state();
        let wanted: BTreeSet<&str> = programs.iter().map(|program| &*program.version).collect();
        let before = state.entries.len();
        state.entries.retain(|version, _| wanted.contains(&**version));
        let mut is_changed = state.entries.len() != before;
        for program in &programs {
            if !state.entries.contains_key(&program.version) {
                is_changed = true;
                let entry = Entry {
                    reach: Arc::new(Reach::new(program, &self.ground.kv)),
                    program: Arc::clone(program),
                    home: Home::None,
                    start: None,
                    custody: None,
                    strikes: 0,
                    is_watched: false,
                    is_stale: false,
                };
                state.entries.insert(program.version.clone(), entry);
            }
        }
        if is_changed {
            state.changed = Some(Instant::now());
            drop(state);
            self.tick();
            self.wake.notify_one();
        }
    }

    /// What a program may reach.
    pub(super) fn reach(&self, version: &str) -> Result<Arc<Reach>, EngineError> {
        self.state().entries.get(version).map(|entry| Arc::clone(&entry.reach)).ok_or(EngineError::Unknown)
    }

    /// Where a program's requests go, as soon as there is such a place. The program counts as busy from then on.
    pub(super) async fn room(&self, version: &str) -> Result<Room, EngineError> {
        let mut moved = self.moved.subscribe();
        loop {
            moved.borrow_and_update();
            if let Some(found) = self.place(version)? {
                return Ok(found);
            }
            // An error would mean that there is no pool any more.
            if moved.changed().await.is_err() {
                return Err(EngineError::Unknown);
            }
        }
    }

    fn place(&self, version: &str) -> Result<Option<Room>, EngineError> {
        let state = self.state();
        let entry = state.entries.get(version).filter(|_| !state.is_ending).ok_or(EngineError::Unknown)?;
        match &entry.home {
            Home::At(host) if host.is_open() => {
                let seat = host.seats.get(version).ok_or(EngineError::Unknown)?;
                Ok(Some(Room { host: Arc::clone(host), seat: Arc::clone(seat), presence: seat.enter() }))
            }
            Home::At(_) | Home::None => Ok(None),
            Home::Refused(reason) => Err(EngineError::Refused(reason.clone())),
            Home::Failing(reason, _) => Err(EngineError::Unavailable(reason.clone())),
            Home::Resting(until) => {
                let left = until.saturating_duration_since(Instant::now());
                Err(EngineError::Resting { retry_secs: left.as_secs() + 1 })
            }
        }
    }

    /// Starts what has no place, gathers what is quiet, and ends what is of no more use.
    fn arrange(self: &Arc<Self>) {
        let mut state = self.state();
        let now = Instant::now();
        let mut cells: BTreeMap<Option<u64>, Vec<String>> = BTreeMap::new();
        let mut is_moved = false;
        for (version, entry) in &mut state.entries {
            let script = ScriptId { account: entry.program.account, script: entry.program.script.clone() };
            let is_watched = self.ground.tails.is_watched(&script);
            if is_watched != entry.is_watched {
                (entry.is_watched, entry.is_stale) = (is_watched, true);
            }
            match &entry.home {
                Home::Resting(until) | Home::Failing(_, until) if now >= *until => {
                    (entry.home, is_moved) = (Home::None, true);
                }
                _ => {}
            }
            if entry.custody.is_some_and(|(_, since)| now >= since + PAROLE) {
                (entry.custody, entry.strikes) = (None, 0);
            }
            let needs_place = matches!(entry.home, Home::None) || entry.is_stale && matches!(entry.home, Home::At(_));
            if needs_place && entry.start.is_none() {
                cells.entry(entry.custody.map(|(cell, _)| cell)).or_default().push(version.clone());
            }
        }
        for (cell, versions) in cells {
            state.changed = Some(now);
            let kind = if cell.is_some() { Kind::Custody } else { Kind::Shared };
            self.begin(&mut state, versions, kind);
        }
        self.gather(&mut state, now);
        self.retire_unused(&mut state);
        drop(state);
        if is_moved {
            self.tick();
        }
    }

    /// Moves all that do no harm into one process, if they are spread over several or share one with what is gone.
    fn gather(self: &Arc<Self>, state: &mut State, now: Instant) {
        let is_quiet = state.changed.is_none_or(|changed| now >= changed + QUIET);
        if !is_quiet || state.gathering || state.gather_after.is_some_and(|after| now < after) {
            return;
        }
        let mut homes: BTreeMap<u64, usize> = BTreeMap::new();
        let mut versions = Vec::new();
        let mut is_paroled = false;
        let mut seats = 0;
        for (version, entry) in &state.entries {
            match &entry.home {
                Home::At(host) if entry.custody.is_none() && entry.start.is_none() => {
                    if homes.insert(host.number, host.seats.len()).is_none() {
                        seats += host.seats.len();
                    }
                    is_paroled |= host.kind == Kind::Custody;
                    versions.push(version.clone());
                }
                _ => {}
            }
        }
        if homes.len() > 1 || is_paroled || seats > versions.len() {
            state.gathering = true;
            self.begin(state, versions, Kind::Shared);
        }
    }

    /// Starts a process for these versions.
    fn begin(self: &Arc<Self>, state: &mut State, versions: Vec<String>, kind: Kind) {
        let start = state.next_number;
        state.next_number += 1;
        for version in &versions {
            if let Some(entry) = state.entries.get_mut(version) {
                (entry.start, entry.is_stale) = (Some(start), false);
            }
        }
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            pool.start_host(start, versions, kind).await;
            pool.state().gathering = false;
            pool.wake.notify_one();
        });
    }

    /// Starts a process for those of the versions that are still to run, and finds out which of them can't.
    fn start_host(
        self: &Arc<Self>,
        start: u64,
        mut versions: Vec<String>,
        kind: Kind,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            loop {
                let guests = self.guests(start, &mut versions).await;
                if guests.is_empty() {
                    return;
                }
                let number = {
                    let mut state = self.state();
                    state.next_number += 1;
                    state.next_number
                };
                match Host::start(&self.ground, number, kind, &guests).await {
                    Ok(host) => return self.move_in(start, Arc::new(host), &guests),
                    Err(Unstarted::Refused(reasons)) => {
                        for (version, reason) in &reasons {
                            self.settle(start, version, Home::Refused(reason.clone()));
                        }
                    }
                    Err(Unstarted::Stuck(reason)) => match versions.len() {
                        0 => return,
                        1 => return self.settle(start, &versions[0], Home::Refused(reason)),
                        many => {
                            let other = versions.split_off(many / 2);
                            self.start_host(start, other, kind).await;
                        }
                    },
                    Err(Unstarted::Failed(reason)) => {
                        tracing::error!(%reason, "a workerd process can't be started");
                        let mut state = self.state();
                        state.gather_after = Some(Instant::now() + GATHER_PAUSE);
                        drop(state);
                        for version in &versions {
                            self.settle(start, version, Home::Failing(reason.clone(), Instant::now() + RETRY_PAUSE));
                        }
                        return;
                    }
                }
            }
        })
    }

    /// Those of the versions that this start is still for, and whose flags the runtime takes.
    async fn guests(&self, start: u64, versions: &mut Vec<String>) -> Vec<Guest> {
        let mut guests = Vec::new();
        for version in versions.iter() {
            let guest = self.state().entries.get(version).filter(|entry| entry.start == Some(start)).map(|entry| {
                let (program, reach) = (Arc::clone(&entry.program), Arc::clone(&entry.reach));
                Guest { program, reach, is_watched: entry.is_watched }
            });
            let Some(guest) = guest else { continue };
            match self.flags_are_fine(&guest.program).await {
                Ok(()) => guests.push(guest),
                Err(reason) => self.settle(start, version, Home::Refused(reason)),
            }
        }
        *versions = guests.iter().map(|guest| guest.program.version.clone()).collect();
        guests
    }

    /// Experimental flags are for nobody, but the runtime is started so that it would take them.
    async fn flags_are_fine(&self, program: &Program) -> Result<(), String> {
        if program.compatibility_flags.is_empty() {
            return Ok(());
        }
        let key = (program.compatibility_date.clone(), program.compatibility_flags.clone());
        if let Some(known) = self.flags.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        let text = config::write_flags(&key.0, &key.1);
        let Ok(process) = Process::start(&self.ground.starter, &self.ground.launch, &text, &[]).await else {
            // Nothing will start, then.
            return Ok(());
        };
        if timeout(FLAGS_PATIENCE, process.ended()).await.is_err() {
            return Ok(());
        }
        let said = process.said();
        let refused = said.iter().find_map(|line| line.strip_prefix("service p0: "));
        let outcome = refused.map_or(Ok(()), |reason| Err(reason.to_owned()));
        let mut flags = self.flags.lock().unwrap_or_else(PoisonError::into_inner);
        if flags.len() < FLAGS_KNOWN_MAX {
            flags.insert(key, outcome.clone());
        }
        outcome
    }

    /// A version gets no place, for some reason.
    fn settle(&self, start: u64, version: &str, home: Home) {
        if let Some(entry) = self.state().entries.get_mut(version).filter(|entry| entry.start == Some(start)) {
            if let Home::Refused(reason) = &home {
                tracing::warn!(script = entry.program.script, %reason, "a script can't be loaded");
            }
            (entry.home, entry.start) = (home, None);
        }
        self.tick();
    }

    /// A process runs: from now on it gets the requests.
    fn move_in(self: &Arc<Self>, start: u64, host: Arc<Host>, guests: &[Guest]) {
        {
            let mut state = self.state();
            tracing::debug!(process = host.number, pid = host.process.pid(), kind = ?host.kind, programs = guests.len(), "workerd runs");
            state.hosts.insert(host.number, Arc::clone(&host));
            for guest in guests {
                let entry = state.entries.get_mut(&guest.program.version);
                if let Some(entry) = entry.filter(|entry| entry.start == Some(start)) {
                    (entry.home, entry.start) = (Home::At(Arc::clone(&host)), None);
                }
            }
            self.retire_unused(&mut state);
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(async move { watch_over(&host, |incident| report(&pool, &host, incident)).await });
        self.tick();
    }

    /// Ends processes that no version is at home in.
    fn retire_unused(self: &Arc<Self>, state: &mut State) {
        let used: BTreeSet<u64> = state
            .entries
            .values()
            .filter_map(|entry| match &entry.home {
                Home::At(host) => Some(host.number),
                _ => None,
            })
            .collect();
        for host in state.hosts.values().filter(|host| !used.contains(&host.number)) {
            if host.retire() {
                let (pool, host) = (Arc::clone(self), Arc::clone(host));
                tokio::spawn(async move { pool.drain(&host).await });
            }
        }
    }

    /// Lets a process finish what it was asked, and ends it.
    async fn drain(&self, host: &Host) {
        let until = Instant::now() + DRAIN_MAX;
        tokio::select! {
            () = host.house.idle() => {}
            () = host.process.ended() => {}
            () = tokio::time::sleep_until(until) => {}
        }
        if host.may_linger && host.has_served.load(Ordering::Relaxed) && !host.process.has_ended() {
            let cut = Arc::new(Notify::new());
            {
                let mut state = self.state();
                state.lingering.push_back(Arc::clone(&cut));
                if state.lingering.len() > LINGERING_MAX
                    && let Some(oldest) = state.lingering.pop_front()
                {
                    oldest.notify_one();
                }
            }
            let until = host.last().unwrap_or_else(Instant::now) + LINGER_MAX;
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = host.process.ended() => {}
                () = cut.notified() => {}
            }
            self.state().lingering.retain(|other| !Arc::ptr_eq(other, &cut));
        }
        host.process.kill();
        host.process.ended().await;
        self.state().hosts.remove(&host.number);
    }

    /// A process has come to harm: who may have done it goes into custody, everyone gets a new place.
    fn take_up(self: &Arc<Self>, host: &Arc<Host>, incident: Incident) {
        let mut state = self.state();
        let suspects = if matches!(incident, Incident::Killed) { Vec::new() } else { suspects(host) };
        let sole = match &suspects[..] {
            [sole] => Some(sole.clone()),
            _ => None,
        };
        let why = match &incident {
            Incident::Stalled => None,
            Incident::Ended(why) => Some(why.clone()),
            Incident::Killed => Some(EngineError::Lost),
        };
        if let Some(why) = why {
            host.verdict.send_replace(Some(Verdict { why: why.clone(), guilty: sole.clone() }));
            if !host.is_retired.load(Ordering::Acquire) {
                self.ends.count(&incident);
                tracing::warn!(process = host.number, %why, suspects = suspects.len(), "a workerd process has ended");
            }
        }
        let now = Instant::now();
        let in_custody: BTreeSet<u64> = state.entries.values().filter_map(|entry| Some(entry.custody?.0)).collect();
        let room = CELLS_MAX.saturating_sub(in_custody.len()).max(1).min(suspects.len().max(1)) as u64;
        let first = state.next_cell;
        state.next_cell += room;
        for (index, version) in (0..).zip(&suspects) {
            let Some(entry) = state.entries.get_mut(version) else { continue };
            match (&entry.home, entry.custody) {
                (Home::At(home), _) if home.number != host.number => continue,
                (_, Some((cell, _))) if sole.is_some() => entry.custody = Some((cell, now)),
                _ => entry.custody = Some((first + index % room, now)),
            }
            if sole.is_some() && matches!(incident, Incident::Ended(_)) {
                entry.strikes += 1;
                tracing::warn!(script = entry.program.script, strikes = entry.strikes, "a script runs by itself now");
            }
        }
        for (version, entry) in &mut state.entries {
            if matches!(&entry.home, Home::At(home) if home.number == host.number) {
                entry.home = match entry.strikes.checked_sub(2) {
                    Some(more) if suspects.contains(version) => {
                        Home::Resting(now + Duration::from_secs(1 << more.min(6)).min(REST_MAX))
                    }
                    _ => Home::None,
                };
            }
        }
        state.changed = Some(now);
        self.retire_unused(&mut state);
        drop(state);
        // Whoever did it alone may go on where it is, until it has had its time.
        if sole.is_none() || matches!(incident, Incident::Ended(_)) {
            host.evacuated.send_replace(true);
        }
        self.tick();
        self.wake.notify_one();
    }

    pub(super) fn vitals(&self) -> Vitals {
        let hosts: Vec<Arc<Host>> = self.state().hosts.values().cloned().collect();
        self.ends.vitals(hosts.iter().map(|host| &**host))
    }

    /// Lets requests finish, and ends all processes.
    pub(super) async fn stop(self: &Arc<Self>) {
        let hosts: Vec<Arc<Host>> = {
            let mut state = self.state();
            state.is_ending = true;
            state.hosts.values().cloned().collect()
        };
        self.tick();
        let idle = async {
            for host in &hosts {
                host.house.idle().await;
            }
        };
        if timeout(STOP_MAX, idle).await.is_err() {
            tracing::warn!("requests of Workers were cut off after {} s", STOP_MAX.as_secs());
        }
        self.end();
        for host in hosts {
            host.process.ended().await;
        }
    }

    /// Ends all processes at once.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.is_ending = true;
        for host in state.hosts.values() {
            host.process.kill();
        }
    }
}

/// What a process is reported for, if anyone still wants to know.
fn report(pool: &Weak<Pool>, host: &Arc<Host>, incident: Incident) {
    if let Some(pool) = pool.upgrade() {
        pool.take_up(host, incident);
    }
}

/// Versions that were answering; if none was, those that have answered last.
fn suspects(host: &Host) -> Vec<String> {
    const JUST_NOW: Duration = Duration::from_secs(1);
    let versions = |are: &dyn Fn(&Seat) -> bool| -> Vec<String> {
        host.seats.iter().filter(|(_, seat)| are(seat)).map(|(version, _)| version.clone()).collect()
    };
    let busy = versions(&|seat| seat.is_busy());
    if !busy.is_empty() {
        return busy;
    }
    versions(&|seat| seat.last().is_some_and(|last| last.elapsed() < JUST_NOW))
}
