//! What is measured while a world lives: how writes spread, what it costs, how full queues get. Looks on; changes and
//! judges nothing.

mod spread;

use std::collections::BTreeMap;

use starling::replica::{Alarm, Class, Edits, Key, Marker, Message, Timestamp};

use crate::bounds::Bounds;
use crate::clocks::EPOCH_MS;
use crate::host::Host;
use crate::outcome::{
    Bucket, Details, FaultSpan, Flow, NodeBytes, Outcome, Quantiles, Slice, Summary, Traffic, Writes,
};
use crate::places::Place;
use crate::scenario::Fault;
use spread::Spreads;

/// Slices of the time line.
const SLICES: u64 = 60;
/// Hosts whose queues are looked at each time.
const HOSTS_AT_ONCE: usize = 48;

/// Everything measured.
pub struct Measure {
    places: Vec<Place>,
    bounds: Bounds,
    place_of: Vec<usize>,
    details: bool,
    /// Between the first write and the moment when all were equal.
    counting: bool,
    pub writes: Writes,
    pub lost_packets: u64,
    pub connections: u64,
    pub disconnections: u64,
    pub bookmark_waits_us: Vec<u64>,
    watermark_lags_us: Vec<u64>,
    pub healed_us: Option<u64>,
    flows: [Flow; 4],
    copies: u64,
    records_synced: u64,
    alarms: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    fault_spans: Vec<FaultSpan>,
    counters: BTreeMap<String, u64>,
    peaks: BTreeMap<String, u64>,
    samples: usize,
    spreads: Spreads,
    measured_us: u64,
}

impl Measure {
    pub fn new(places: Vec<Place>, bounds: Bounds, details: bool) -> Self {
        Self {
            spreads: Spreads::new(places.len(), details),
            places,
            bounds,
            place_of: Vec::new(),
            details,
            counting: false,
            writes: Writes::default(),
            lost_packets: 0,
            connections: 0,
            disconnections: 0,
            bookmark_waits_us: Vec::new(),
            watermark_lags_us: Vec::new(),
            healed_us: None,
            flows: [Flow::default(); 4],
            copies: 0,
            records_synced: 0,
            alarms: BTreeMap::new(),
            faults: BTreeMap::new(),
            fault_spans: Vec::new(),
            counters: BTreeMap::new(),
            peaks: BTreeMap::new(),
            samples: 0,
            measured_us: 0,
        }
    }

    pub fn host_added(&mut self, place: usize) {
        self.place_of.push(place);
        self.spreads.host_added(place);
    }

    /// A process has ended: what its replica counted is kept.
    pub fn stopped(&mut self, host: usize, hosts: &[Host]) {
        self.count_of(&hosts[host]);
        self.spreads.excuse(host, &mut self.writes.everywhere);
    }

    fn count_of(&mut self, host: &Host) {
        for (name, count) in host.replica.iter().flat_map(|replica| replica.counters()) {
            *self.counters.entry(name.to_owned()).or_default() += count;
        }
    }

    pub fn alarm(&mut self, alarm: &Alarm) {
        let name = match alarm {
            Alarm::MarkerConflict { .. } => "marker_conflict",
            Alarm::ClockSkew(_) => "clock_skew",
            Alarm::ClockFine => "clock_fine",
            Alarm::Superseded => "superseded",
            Alarm::Evicted => "evicted",
            Alarm::BadPeer { .. } => "bad_peer",
            Alarm::Damaged(_) => "damaged",
            Alarm::TooManySecrets => "too_many_secrets",
        };
        *self.alarms.entry(name.to_owned()).or_default() += 1;
    }

    pub fn fault(&mut self, fault: &Fault, targets: &[usize], now_us: u64) {
        let kind = fault.kind.name();
        *self.faults.entry(kind.to_owned()).or_default() += 1;
        if self.details {
            let label = match targets.len() {
                1 => format!("{kind} ({})", fault.nodes),
                count => format!("{kind} ({}, {count} nodes)", fault.nodes),
            };
            let until_us = now_us + fault.lasts.0;
            self.fault_spans.push(FaultSpan {
                kind: kind.to_owned(),
                label,
                from_us: now_us,
                until_us,
                nodes: targets.to_vec(),
            });
        }
    }

    pub fn accepted(&mut self, host: usize, key: &Key, marker: Marker, hosts: &[Host], now_us: u64) {
        self.counting = true;
        self.writes.accepted += 1;
        self.spreads.accepted(self.writes.accepted, host, key, marker, hosts, now_us, &mut self.writes.everywhere);
    }

    pub fn committed(&mut self, host: usize, informer: Option<usize>, changes: &Edits, now_us: u64) {
        for (key, entry) in &changes.puts {
            self.spreads.put(host, informer, key, entry.marker(), now_us, &mut self.writes.everywhere);
        }
    }

    pub fn sent(&mut self, host: usize, class: Class, wire: u64, hosts: &mut [Host]) {
        if self.counting {
            hosts[host].sent[class as usize] += wire;
        }
    }

    pub fn received(&mut self, host: usize, class: Class, wire: u64, message: &Message, hosts: &mut [Host]) {
        if !self.counting {
            return;
        }
        hosts[host].received[class as usize] += wire;
        let flow = &mut self.flows[class as usize];
        flow.messages += 1;
        flow.bytes += wire;
        match message {
            Message::Records(records) => self.copies += records.pushes.len() as u64,
            Message::SyncChunk(chunk) => {
                self.copies += chunk.records.len() as u64;
                self.records_synced += chunk.records.len() as u64;
            }
            _ => {}
        }
    }

    /// Looks how full everything is and how far watermarks are behind, in large worlds with some hosts now and others the next time.
    pub fn sample(&mut self, hosts: &[Host], now_us: u64) {
        let stride = hosts.len().div_ceil(HOSTS_AT_ONCE).max(1);
        self.samples += 1;
        for replica in hosts.iter().skip(self.samples % stride).step_by(stride).filter_map(|h| h.replica.as_ref()) {
            let load = replica.load();
            let watermark = replica.watermark();
            if self.counting && watermark != Timestamp::default() {
                let passed_us = watermark.ms().saturating_sub(EPOCH_MS) * 1_000;
                self.watermark_lags_us.push(now_us.saturating_sub(passed_us));
            }
            let now = [
                ("queued_keys", load.queued),
                ("queued_keys_for_one_peer", load.queued_for_one),
                ("sessions_in", load.sessions_in),
                ("sessions_out", load.sessions_out),
                ("records_waiting_for_blobs", load.pending),
                ("requests_waiting", load.waiting),
                ("intervals_of_one_origin", load.intervals),
                ("record_bytes_in_flight_to_one_peer", load.records_in_flight),
            ];
            for (name, value) in now {
                match self.peaks.get_mut(name) {
                    Some(peak) => *peak = (*peak).max(value as u64),
                    None => _ = self.peaks.insert(name.to_owned(), value as u64),
                }
            }
        }
    }

    /// Traffic and lag are measured up to here.
    pub fn writes_end(&mut self, now_us: u64) {
        self.counting = false;
        self.measured_us = now_us;
        self.spreads.end();
    }

    /// The document; the caller adds what it alone knows.
    pub fn outcome(mut self, hosts: &[Host], now_us: u64) -> Outcome {
        for host in hosts {
            self.count_of(host);
        }
        let done = std::mem::take(&mut self.spreads.done);
        self.writes.unfinished = self.spreads.unfinished();
        let bound_of = |bounds: &[u64], origin: usize| bounds[self.place_of[origin]];
        let over_origins = |bounds: &[u64]| Quantiles::of(done.iter().map(|d| bound_of(bounds, d.origin)).collect());
        let lag_last = Quantiles::of(done.iter().map(|done| done.last_us).collect());
        let over_bound =
            |done: &spread::Done| done.last_us * 1_000 / bound_of(&self.bounds.relayed_us, done.origin).max(1);
        let summary = Summary {
            nodes: self.place_of.len(),
            pops: self.places.len(),
            virtual_us: now_us,
            lag_last,
            lag_most: Quantiles::of(done.iter().map(|done| done.most_us).collect()),
            lag_each: Quantiles::of(std::mem::take(&mut self.spreads.each_us)),
            bound_relayed: over_origins(&self.bounds.relayed_us),
            bound_direct: over_origins(&self.bounds.direct_us),
            lag_over_bound: Quantiles::of(done.iter().map(over_bound).collect()),
            traffic: self.traffic(),
            writes: self.writes.clone(),
            peaks: std::mem::take(&mut self.peaks),
            healed_us: self.healed_us,
            alarms: std::mem::take(&mut self.alarms),
            counters: std::mem::take(&mut self.counters),
            faults: std::mem::take(&mut self.faults),
            bookmark_reads: self.bookmark_waits_us.len() as u64,
            bookmark_wait: Quantiles::of(std::mem::take(&mut self.bookmark_waits_us)),
            watermark_lag: Quantiles::of(std::mem::take(&mut self.watermark_lags_us)),
            ..Summary::default()
        };
        let details = match self.details {
            true => self.details_of(hosts, &done, summary.bound_relayed),
            false => Details::default(),
        };
        Outcome { summary, details }
    }

    fn traffic(&self) -> Traffic {
        let counter = |name: &str| self.counters.get(name).copied().unwrap_or(0);
        let shares = (self.writes.accepted * self.place_of.len() as u64).max(1);
        let milli = |count: u64| (u128::from(count) * 1_000 / u128::from(shares)) as u64;
        let bytes: u64 = self.flows.iter().map(|flow| flow.bytes).sum();
        Traffic {
            classes: CLASSES.iter().zip(self.flows).map(|(name, flow)| (name.to_string(), flow)).collect(),
            lost_packets: self.lost_packets,
            connections: self.connections,
            disconnections: self.disconnections,
            bytes_per_write_per_node_milli: milli(bytes),
            data_bytes_per_write_per_node_milli: milli(bytes - self.flows[Class::Control as usize].bytes),
            messages_per_write_per_node_milli: milli(self.flows.iter().map(|flow| flow.messages).sum()),
            copies_per_node_milli: milli(self.copies),
            syncs_asked: counter("syncs_asked"),
            syncs_completed: counter("syncs_completed"),
            records_synced: self.records_synced,
        }
    }

    fn details_of(&mut self, hosts: &[Host], done: &[spread::Done], bound: Quantiles) -> Details {
        let lags_us: Vec<u64> = done.iter().map(|done| done.last_us).collect();
        let histogram = Bucket::of(&lags_us, bound.p50_us);
        let slice_us = (self.measured_us / SLICES).max(250_000);
        let mut slices: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for done in done {
            slices.entry(done.accepted_us / slice_us).or_default().push(done.last_us);
        }
        let by_class = |bytes: &[u64; 4]| CLASSES.iter().zip(bytes).map(|(name, b)| (name.to_string(), *b)).collect();
        Details {
            nodes: self.place_of.clone(),
            places: self.places.clone(),
            spreads: self.spreads.samples(),
            histogram,
            over_time: slices
                .into_iter()
                .map(|(slice, lags)| Slice {
                    at_us: slice * slice_us,
                    writes: lags.len() as u64,
                    lag: Quantiles::of(lags),
                })
                .collect(),
            faults: std::mem::take(&mut self.fault_spans),
            node_bytes: hosts
                .iter()
                .enumerate()
                .map(|(node, host)| NodeBytes { node, sent: by_class(&host.sent), received: by_class(&host.received) })
                .collect(),
            matrix: self.spreads.matrix(),
            bound_relayed_us: self.bounds.relayed_us.clone(),
            bound_direct_us: self.bounds.direct_us.clone(),
        }
    }
}

const CLASSES: [&str; 4] = ["control", "records", "sync", "blobs"];
