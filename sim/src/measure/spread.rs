//! How writes spread: for each, when it became visible where. A write counts as visible where it is held or where
//! something that dominates it is. A host that stops is excused: its absence is not the write's lag.

use std::collections::BTreeMap;

use starling::replica::{Key, Marker};

use crate::host::Host;
use crate::outcome::Spread;

/// Writes measured; later ones are counted only.
const MEASURED_MAX: u64 = 20_000;
/// Writes whose spreading is kept for pictures.
const SAMPLES: usize = 24;

const UNSEEN: u32 = u32::MAX;
const EXCUSED: u32 = u32::MAX - 1;

/// A write that is everywhere.
pub struct Done {
    pub origin: usize,
    pub accepted_us: u64,
    pub last_us: u64,
    pub most_us: u64,
}

struct Open {
    number: u64,
    origin: usize,
    marker: Marker,
    accepted_us: u64,
    /// By host, microseconds.
    arrivals_us: Vec<u32>,
    /// By host, the one that it had the write from; the origin's number for itself. Empty without pictures.
    informers: Vec<u32>,
    unseen: usize,
}

/// All of them.
pub struct Spreads {
    open: BTreeMap<Key, Vec<Open>>,
    pub done: Vec<Done>,
    pub each_us: Vec<u64>,
    details: bool,
    kept: Vec<Spread>,
    slowest: Option<(u64, Spread)>,
    places: usize,
    /// Where each host stands.
    place_of: Vec<usize>,
    sums: Vec<(u64, u32)>,
    ended: bool,
}

impl Spreads {
    pub fn new(places: usize, details: bool) -> Self {
        Self {
            open: BTreeMap::new(),
            done: Vec::new(),
            each_us: Vec::new(),
            details,
            kept: Vec::new(),
            slowest: None,
            places,
            place_of: Vec::new(),
            sums: if details { vec![(0, 0); places * places] } else { Vec::new() },
            ended: false,
        }
    }

    pub fn host_added(&mut self, place: usize) {
        self.place_of.push(place);
    }

    #[allow(clippy::too_many_arguments, reason = "all that is known of one write")]
    pub fn accepted(
        &mut self,
        number: u64,
        host: usize,
        key: &Key,
        marker: Marker,
        hosts: &[Host],
        now_us: u64,
        everywhere: &mut u64,
    ) {
        if number > MEASURED_MAX || self.ended {
            return;
        }
        let holds = |host: &Host| host.image().entry(key).is_some_and(|entry| entry.marker() >= marker);
        let arrivals_us: Vec<u32> = hosts
            .iter()
            .enumerate()
            .map(|(other, this)| match () {
                () if !this.is_up() => EXCUSED,
                () if other == host || holds(this) => 0,
                () => UNSEEN,
            })
            .collect();
        let unseen = arrivals_us.iter().filter(|arrival| **arrival == UNSEEN).count();
        let informers = if self.details { vec![UNSEEN; hosts.len()] } else { Vec::new() };
        let open = Open { number, origin: host, marker, accepted_us: now_us, arrivals_us, informers, unseen };
        match unseen {
            0 => self.finish(&open, everywhere),
            _ => self.open.entry(key.clone()).or_default().push(open),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "all that is known of one arrival")]
    pub fn put(
        &mut self,
        host: usize,
        informer: Option<usize>,
        key: &Key,
        marker: Marker,
        now_us: u64,
        everywhere: &mut u64,
    ) {
        let Some(writes) = self.open.get_mut(key) else { return };
        let mut complete = false;
        for open in writes.iter_mut().filter(|open| open.marker <= marker) {
            if let Some(arrival) = open.arrivals_us.get_mut(host).filter(|arrival| **arrival == UNSEEN) {
                *arrival = (now_us - open.accepted_us).min(u64::from(EXCUSED - 1)) as u32;
                if let (Some(told), Some(informer)) = (open.informers.get_mut(host), informer) {
                    *told = informer as u32;
                }
                open.unseen -= 1;
                complete |= open.unseen == 0;
            }
        }
        if complete {
            self.collect(key.clone(), everywhere);
        }
    }

    fn collect(&mut self, key: Key, everywhere: &mut u64) {
        let Some(writes) = self.open.remove(&key) else { return };
        let (complete, rest): (Vec<_>, Vec<_>) = writes.into_iter().partition(|open| open.unseen == 0);
        if !rest.is_empty() {
            self.open.insert(key, rest);
        }
        for open in complete {
            self.finish(&open, everywhere);
        }
    }

    pub fn excuse(&mut self, host: usize, everywhere: &mut u64) {
        let mut complete = Vec::new();
        for (key, writes) in &mut self.open {
            for open in writes {
                if let Some(arrival) = open.arrivals_us.get_mut(host).filter(|arrival| **arrival == UNSEEN) {
                    *arrival = EXCUSED;
                    open.unseen -= 1;
                    if open.unseen == 0 {
                        complete.push(key.clone());
                    }
                }
            }
        }
        for key in complete {
            self.collect(key, everywhere);
        }
    }

    fn finish(&mut self, open: &Open, everywhere: &mut u64) {
        if self.ended {
            return;
        }
        *everywhere += 1;
        let mut lags_us: Vec<u64> = open
            .arrivals_us
            .iter()
            .enumerate()
            .filter(|(host, arrival)| **arrival < EXCUSED && *host != open.origin)
            .map(|(_, arrival)| u64::from(*arrival))
            .collect();
        lags_us.sort_unstable();
        let last_us = lags_us.last().copied().unwrap_or(0);
        let most_us = lags_us.get((lags_us.len() * 99).div_ceil(100).max(1) - 1).copied().unwrap_or(0);
        self.each_us.extend(&lags_us);
        self.done.push(Done { origin: open.origin, accepted_us: open.accepted_us, last_us, most_us });
        if self.details {
            self.sample(open, last_us);
        }
    }

    fn sample(&mut self, open: &Open, last_us: u64) {
        let arrivals_us =
            open.arrivals_us.iter().map(|arrival| (*arrival < EXCUSED).then_some(u64::from(*arrival))).collect();
        let informers = open.informers.iter().map(|told| (*told != UNSEEN).then_some(*told as usize)).collect();
        let spread =
            Spread { write: open.number, origin: open.origin, accepted_us: open.accepted_us, arrivals_us, informers };
        if self.slowest.as_ref().is_none_or(|(slowest_us, _)| last_us > *slowest_us) {
            self.slowest = Some((last_us, spread.clone()));
        }
        self.all_arrivals(open);
        // Every so many, thinning out as there are more.
        if self.kept.len() >= 2 * SAMPLES {
            let mut number = 0;
            self.kept.retain(|_| {
                number += 1;
                number % 2 == 0
            });
        }
        let stride = (self.done.len() / SAMPLES).max(1);
        if self.done.len().is_multiple_of(stride) {
            self.kept.push(spread);
        }
    }

    fn all_arrivals(&mut self, open: &Open) {
        let origin = self.place_of[open.origin];
        for (host, arrival) in open.arrivals_us.iter().enumerate() {
            if *arrival < EXCUSED {
                let (sum, count) = &mut self.sums[origin * self.places + self.place_of[host]];
                *sum += u64::from(*arrival);
                *count += 1;
            }
        }
    }

    pub fn end(&mut self) {
        self.ended = true;
    }

    pub fn unfinished(&self) -> u64 {
        self.open.values().map(|writes| writes.len() as u64).sum()
    }

    pub fn samples(&mut self) -> Vec<Spread> {
        let mut samples = std::mem::take(&mut self.kept);
        let stride = samples.len().div_ceil(SAMPLES).max(1);
        samples = samples.into_iter().step_by(stride).collect();
        if let Some((_, slowest)) = self.slowest.take()
            && samples.iter().all(|spread| spread.write != slowest.write)
        {
            samples.insert(0, slowest);
        }
        samples
    }

    pub fn matrix(&self) -> Vec<Vec<u32>> {
        let mean = |(sum, count): &(u64, u32)| if *count == 0 { 0 } else { (sum / u64::from(*count)) as u32 };
        self.sums.chunks(self.places.max(1)).map(|row| row.iter().map(mean).collect()).collect()
    }
}
