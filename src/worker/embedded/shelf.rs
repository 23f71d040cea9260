//! Which scripts have a runtime: made when the first request comes, one more while requests wait in line and there is a
//! thread for it, taken away when memory is short, and kept from those that went too far.
//!
//! Knows nothing of JavaScript.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::crew::Crew;
use super::isolate::{Isolate, Offence};
use super::{Ground, SWEEP_EVERY};
use crate::worker::Program;
use crate::worker::engine::{EngineError, Vitals};

/// All heaps together, in bytes: beyond it, the script that was asked longest ago loses its runtime.
pub(super) const HEAPS_LEN_MAX: usize = 512 * 1024 * 1024;
/// Runtimes that are kept.
const ISOLATES_MAX: usize = 1_000;
/// A script that goes too far rests: this long the first time, twice as long each further time, up to a minute.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(60);
/// Offences after which a script rests, and after how long they are forgotten.
const OFFENCES_FREE: u32 = 2;
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// A script that has computed for so long without a pause gets another runtime for the next requests, up to so many.
const STAND_IN_AFTER: Duration = Duration::from_millis(100);
const STAND_INS_MAX: usize = 4;
/// Events that may wait for a script's runtime before it gets another one, and how long that stays when it isn't asked.
const LINE_MAX: usize = 4;
const SPARE_MAX: Duration = Duration::from_secs(60);
/// When a thread is given up for one that can't be interrupted, and when nobody waits for it any more.
const STUCK_AFTER: Duration = Duration::from_secs(2);
const STILL_MAX: Duration = Duration::from_secs(15);
/// What a runtime is taken to need before it was measured.
const HEAP_LEN_GUESS: usize = 512 * 1024;

/// All scripts that may be asked for.
#[derive(Default)]
pub(super) struct Shelf {
    places: Mutex<BTreeMap<String, Place>>,
    /// Runtimes that ended before their time, by why.
    ended: Mutex<BTreeMap<&'static str, u64>>,
}

struct Place {
    program: Arc<Program>,
    /// Those that are asked: as many as there are threads at most.
    isolates: Vec<Arc<Isolate>>,
    /// Those that get no more requests and have not answered all.
    leaving: Vec<Arc<Isolate>>,
    offences: u32,
    last_offence: Option<Instant>,
    resting: Option<Instant>,
}

impl Shelf {
    fn places(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on these programs and no others.
    pub(super) fn prepare(&self, programs: Vec<Arc<Program>>) -> Vec<Arc<Isolate>> {
        let wanted: BTreeSet<&str> = programs.iter().map(|program| &*program.version).collect();
        let mut places = self.places();
        let mut gone = Vec::new();
        places.retain(|version, place| {
            let stays = wanted.contains(&**version);
            if !stays {
                gone.append(&mut place.isolates);
                gone.append(&mut place.leaving);
            }
            stays
        });
        for program in &programs {
            places.entry(program.version.clone()).or_insert_with(|| Place {
                program: Arc::clone(program),
                isolates: Vec::new(),
                leaving: Vec::new(),
                offences: 0,
                last_offence: None,
                resting: None,
            });
        }
        gone
    }

    /// A runtime of the script, which expects a visit now: the first in whose line there is room.
    pub(super) fn isolate(&self, version: &str, ground: &Arc<Ground>) -> Result<Arc<Isolate>, EngineError> {
        let mut places = self.places();
        let isolate = self.choose(&mut places, version, ground)?;
        // Before anyone can take it from the shelf.
        isolate.expect();
        Ok(isolate)
    }

    fn choose(
        &self,
        places: &mut BTreeMap<String, Place>,
        version: &str,
        ground: &Arc<Ground>,
    ) -> Result<Arc<Isolate>, EngineError> {
        let place = places.get_mut(version).ok_or(EngineError::Unknown)?;
        // Whoever has gone too far, or can't be loaded, is not open.
        if !place.isolates.iter().all(|isolate| isolate.is_open()) || !place.leaving.is_empty() {
            self.look(place);
        }
        place.stand_in();
        if let Some(until) = place.resting {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Err(EngineError::Resting { retry_secs: left.as_secs() + 1 });
            }
            place.resting = None;
        }
        let mut shortest: Option<(usize, &Arc<Isolate>)> = None;
        for isolate in &place.isolates {
            if !isolate.is_open()
                && let Some(reason) = isolate.refused()
            {
                return Err(EngineError::Refused(reason));
            }
            let line = isolate.line_len();
            if line < LINE_MAX {
                return Ok(Arc::clone(isolate));
            }
            shortest = shortest.filter(|(shortest, _)| *shortest <= line).or(Some((line, isolate)));
        }
        match shortest {
            Some((_, isolate)) if place.isolates.len() >= ground.crew.threads() => Ok(Arc::clone(isolate)),
            _ => {
                let isolate = Isolate::new(Arc::clone(&place.program), Arc::clone(ground));
                place.isolates.push(Arc::clone(&isolate));
                Ok(isolate)
            }
        }
    }

    fn count(&self, why: &'static str) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(why).or_default() += 1;
    }

    /// A runtime that gets no more requests makes room for a fresh one, and what it did is counted.
    fn look(&self, place: &mut Place) {
        for offence in place.look() {
            self.count(match offence {
                Offence::Cpu => "cpu",
                Offence::Memory => "memory",
                Offence::Crash => "crash",
            });
        }
    }

    /// How runtimes are, as of the last sweep.
    pub(super) fn vitals(&self) -> Vitals {
        let isolates = self.isolates();
        let memory = isolates.iter().map(|isolate| isolate.heap_len() as u64).sum();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Vitals { runtimes: isolates.len(), memory_bytes: memory, ended, ..Vitals::default() }
    }

    pub(super) fn isolates(&self) -> Vec<Arc<Isolate>> {
        let places = self.places();
        places.values().flat_map(|place| place.isolates.iter().chain(&place.leaving).cloned()).collect()
    }

    /// Ends what goes on for too long after its answer, and takes runtimes away where there is too much.
    pub(super) fn sweep(&self, crew: &Arc<Crew>) {
        for isolate in self.isolates() {
            if let Some((time, thread)) = isolate.computing() {
                if time > STILL_MAX && isolate.is_busy() {
                    isolate.stand_still();
                }
                // Once: a sweep comes every second.
                if time > STUCK_AFTER && time <= STUCK_AFTER + SWEEP_EVERY {
                    crew.replace(thread);
                }
            }
            isolate.end_what_is_over();
            isolate.measure();
        }
        let mut places = self.places();
        let (mut held, mut count) = (0, 0);
        let mut idle = Vec::new();
        for (version, place) in places.iter_mut() {
            self.look(place);
            place.leaving.retain(|isolate| isolate.is_busy());
            let mut is_spare = false;
            place.isolates.retain(|isolate| {
                let goes = is_spare && !isolate.is_busy() && isolate.last_used().elapsed() > SPARE_MAX;
                is_spare = true;
                !goes
            });
            let len: usize = place.isolates.iter().map(|isolate| isolate.heap_len().max(HEAP_LEN_GUESS)).sum();
            held += len;
            count += place.isolates.len();
            let last_used = place.isolates.iter().map(|isolate| isolate.last_used()).max();
            let is_idle = |isolate: &Arc<Isolate>| !isolate.is_busy() && isolate.refused().is_none();
            if let Some(last_used) = last_used.filter(|_| place.isolates.iter().all(is_idle)) {
                idle.push((last_used, len, version.clone()));
            }
        }
        idle.sort();
        for (_, len, version) in idle {
            if held <= HEAPS_LEN_MAX && count <= ISOLATES_MAX {
                break;
            }
            if let Some(place) = places.get_mut(&version) {
                tracing::debug!(
                    script = place.program.script,
                    "a script's runtime is taken away until it is asked again"
                );
                count -= place.isolates.len();
                held -= len;
                place.isolates.clear();
                self.count("evicted");
            }
        }
    }
}

impl Place {
    fn look(&mut self) -> Vec<Offence> {
        if self.last_offence.is_some_and(|at| at.elapsed() > FORGIVEN_AFTER) {
            (self.offences, self.last_offence) = (0, None);
        }
        let all = self.isolates.iter().chain(&self.leaving);
        let offences: Vec<Offence> = all.filter_map(|isolate| isolate.take_offence()).collect();
        self.leaving.extend(self.isolates.extract_if(.., |isolate| !isolate.is_open() && isolate.refused().is_none()));
        if offences.is_empty() {
            return offences;
        }
        self.offences += u32::try_from(offences.len()).unwrap_or(u32::MAX);
        self.last_offence = Some(Instant::now());
        if let Some(further) = self.offences.checked_sub(OFFENCES_FREE) {
            let rest = REST_MIN * 2_u32.saturating_pow(further.min(10));
            self.resting = Some(Instant::now() + rest.min(REST_MAX));
        }
        offences
    }

    /// While the script computes for one request, another runtime of it takes the next ones.
    fn stand_in(&mut self) {
        let is_busy = |isolate: &Arc<Isolate>| isolate.computing().is_some_and(|(time, _)| time > STAND_IN_AFTER);
        if self.leaving.len() < STAND_INS_MAX
            && let Some(busy) = self.isolates.iter().position(is_busy)
        {
            let isolate = self.isolates.remove(busy);
            isolate.retire();
            self.leaving.push(isolate);
        }
    }
}
