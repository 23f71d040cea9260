//! How a world begins: where nodes stand, who they are, what their directories hold.

use std::collections::BTreeMap;

use rand::Rng;
use starling::replica::{Config, Durability, Input, MemStore, Mono, NodeId, Now, Replica, Store};

use super::clients::roster_entry;
use super::events::{Event, Queue};
use super::run::Options;
use super::travellers::Traveller;
use super::{Planned, World};
use crate::bounds::Bounds;
use crate::checkers::Judge;
use crate::clocks::{EPOCH_MS, WallClock};
use crate::host::Host;
use crate::measure::Measure;
use crate::network::cuts::Cuts;
use crate::network::link::Weather;
use crate::places::{self, Delays, Place};
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::watch::Watch;
use crate::workload;

/// Nodes have this long to find one another before clients come.
pub(super) const WARM_UP_US: u64 = 3_000_000;

impl World {
    pub(super) fn new(scenario: &Scenario, options: &Options) -> Self {
        let seed = options.seed;
        let mut rng = Self::new_rng(seed, 0x0077_6f72_6c64);
        let standing = standing(scenario, options.nodes);
        let places = distinct(&standing);
        let delays = Delays::between(&places);
        let bounds = Bounds::of(&delays);
        let number_of: BTreeMap<&str, usize> =
            places.iter().enumerate().map(|(number, place)| (place.iata.as_str(), number)).collect();
        let nodes: Vec<NodeId> = standing.iter().map(|_| NodeId(rng.next_u64())).collect();
        let directory = match scenario.nodes.acquainted {
            true => acquainted(&nodes, &standing, scenario.nodes.settled, &mut rng),
            false => MemStore::default(),
        };
        let image = directory.image().clone();
        let machines = &scenario.nodes;
        let hosts: Vec<Host> = nodes
            .iter()
            .zip(&standing)
            .map(|(node, place)| {
                let mut either_way = |limit: u64| (rng.next_u64() % (2 * limit + 1)) as i64 - limit as i64;
                let clock = WallClock::new(either_way(machines.clock_skew.0), either_way(machines.clock_drift_ppm));
                let place = number_of[place.iata.as_str()];
                let mut host = Host::new(*node, place, MemStore::restored(image.clone()), clock, machines.fsync.0);
                if !machines.acquainted {
                    host.seeds.clone_from(&nodes);
                }
                host
            })
            .collect();
        let mut ops = workload::draw(scenario, hosts.len(), seed);
        if let Some(kept) = &options.ops {
            let mut number = 0;
            ops.retain(|_| {
                number += 1;
                kept.contains(number - 1)
            });
        }
        for op in &mut ops {
            op.at_us += WARM_UP_US;
        }
        let mut measure = Measure::new(places.clone(), bounds, options.details);
        hosts.iter().for_each(|host| measure.host_added(host.place));
        let mut world = Self {
            scenario: scenario.clone(),
            seed,
            rng,
            now_us: 0,
            leapt_us: 0,
            queue: Queue::default(),
            hosts,
            places,
            delays,
            connections: Vec::new(),
            pairs: BTreeMap::new(),
            cuts: Cuts::default(),
            weather: Weather::of(&scenario.links),
            local_weather: BTreeMap::new(),
            plan: Vec::<Planned>::new(),
            ops,
            next_op: 0,
            ticket: 0,
            clients: BTreeMap::new(),
            travellers: Traveller::all(scenario.workload.travellers, seed),
            travellers_rest: false,
            decoded: None,
            bounds: options.bounds,
            sabotage: options.sabotage,
            rewritten: Default::default(),
            awaited: Default::default(),
            returning: Default::default(),
            will_return: Default::default(),
            to_evict: Default::default(),
            judge: Judge::new(&image, options.bounds),
            measure,
            trace: Trace::default(),
            watch: Watch::new(options.watched),
            outputs: Vec::new(),
        };
        let faults: Vec<_> = match &options.faults {
            Some(kept) => {
                let faults = scenario.faults.iter().enumerate();
                faults.filter(|(number, _)| kept.contains(*number)).map(|(_, fault)| fault.clone()).collect()
            }
            None => scenario.faults.clone(),
        };
        world.plan(&faults, WARM_UP_US);
        for host in 0..world.hosts.len() {
            let at_us = world.rng_below(20_000);
            world.schedule(at_us, Event::Start { host });
        }
        world.travellers_set_out(WARM_UP_US);
        if let Some(first) = world.ops.first() {
            world.schedule(first.at_us, Event::NextOp);
        }
        world
    }

    pub(super) fn draw_node(&mut self) -> NodeId {
        NodeId(self.rng.next_u64())
    }
}

fn standing(scenario: &Scenario, nodes: Option<usize>) -> Vec<Place> {
    let all = places::all();
    let named: Vec<Place> =
        scenario.places.pops.iter().filter_map(|pop| all.iter().find(|place| place.iata == *pop)).cloned().collect();
    match (named.is_empty(), nodes) {
        (true, nodes) => places::spread(nodes.unwrap_or(scenario.places.count)),
        (false, Some(nodes)) => named.iter().cycle().take(nodes).cloned().collect(),
        (false, None) => named,
    }
}

fn distinct(standing: &[Place]) -> Vec<Place> {
    let mut distinct: Vec<Place> = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for place in standing {
        if known.insert(place.iata.clone()) {
            distinct.push(place.clone());
        }
    }
    distinct
}

/// A directory in which every node has put itself on the roster, each in a life of its own that is over, and folded if
/// the flock is settled.
fn acquainted(nodes: &[NodeId], standing: &[Place], settled: bool, rng: &mut rand::rngs::ChaCha8Rng) -> MemStore {
    let mut store = MemStore::default();
    let now = Now { mono: Mono(0), wall_ms: EPOCH_MS - 60_000 };
    for (node, place) in nodes.iter().zip(standing) {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let config = Config::new(*node, Durability::Fsync, seed);
        // Memory does not fail.
        let Ok(mut replica) = Replica::open(config, store.clone(), now) else { continue };
        let request = roster_entry(*node, &place.iata);
        let written = replica.handle(Input::Request { ticket: 0, request }, now).and_then(|()| replica.commit(now));
        if written.is_ok() {
            store = MemStore::restored(replica.into_store().image().clone());
        }
    }
    if settled {
        for (origin, seen) in store.image().versions().iter() {
            store.fold(origin, seen.last());
        }
        // Memory does not fail.
        let _ = store.commit(true);
    }
    store
}
