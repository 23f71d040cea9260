//! What becomes of a packet on its way from one node to another: when it arrives, or that it does not. Pure: time is an
//! argument, randomness comes from a seed. Links behave by the simulator's own model, so that both mean the same.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use starling_sim::network::cuts::Cuts;
use starling_sim::network::link::{Fate, Link, Weather};
use starling_sim::places::{Delays, Place};
use starling_sim::scenario::{Bursts, Links, ppm};

/// What IP and UDP add to each packet, bytes.
const HEADERS_LEN: u64 = 28;

/// A pair of nodes, in a direction.
pub type Pair = (usize, usize);

/// How much worse than its distance a way is, for a while.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slowness {
    /// Added to the one-way time, microseconds.
    pub delay_us: u64,
    /// Fraction of packets lost, beside what is lost anyway.
    pub loss: f64,
    /// Bursts of loss instead of the links' own.
    pub bursts: Option<Bursts>,
    /// Mbit/s instead of the links' own.
    pub bandwidth_mbit: Option<u64>,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Nothing goes through.
    Cut,
    /// It got lost, or found its queue full.
    Lost,
    /// It arrives then (microseconds), perhaps twice.
    Arrives(u64, Option<u64>),
}

/// All ways between all nodes.
pub struct Ways {
    seed: u64,
    links: Links,
    uplink_mbit: u64,
    places: Vec<Place>,
    delays: Delays,
    cuts: Cuts,
    slow: BTreeMap<Pair, Slowness>,
    ways: BTreeMap<Pair, Way>,
    uplinks: Vec<Line>,
}

/// One direction between two nodes.
struct Way {
    link: Link,
    line: Line,
    weather: Weather,
    rng: ChaCha8Rng,
    /// When the last packet that kept its place arrives.
    last_us: u64,
}

/// Something that sends so many bytes a second.
#[derive(Clone, Default)]
struct Line {
    free_us: u64,
}

impl Line {
    /// When the packet has left; `None` if it would wait too long for that.
    fn depart(&mut self, ready_us: u64, wire: u64, mbit: u64, queue_us: u64) -> Option<u64> {
        let begins_us = self.free_us.max(ready_us);
        if begins_us > ready_us + queue_us {
            return None;
        }
        self.free_us = begins_us + wire * 8 / mbit.max(1);
        Some(self.free_us)
    }
}

impl Ways {
    /// Between no nodes yet.
    pub fn new(links: Links, uplink_mbit: u64, seed: u64) -> Self {
        Self {
            seed,
            links,
            uplink_mbit,
            places: Vec::new(),
            delays: Delays::between(&[]),
            cuts: Cuts::default(),
            slow: BTreeMap::new(),
            ways: BTreeMap::new(),
            uplinks: Vec::new(),
        }
    }

    /// One more node; its number.
    pub fn add(&mut self, place: Place) -> usize {
        self.places.push(place);
        self.delays = Delays::between(&self.places);
        self.uplinks.push(Line::default());
        self.places.len() - 1
    }

    /// The one-way time that distance and slowness make, without jitter.
    pub fn one_way_us(&self, (from, to): Pair) -> u64 {
        self.delays.one_way_us(from, to) + self.slow.get(&(from, to)).map_or(0, |slow| slow.delay_us)
    }

    /// Where nodes stand.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Cuts what nodes in `from` send to nodes in `to`, until the fault of that number ends.
    pub fn cut(&mut self, fault: usize, from: &[usize], to: &[usize]) {
        self.cuts.add(fault, from, to, self.places.len());
    }

    /// Ends what a fault had cut.
    pub fn mend(&mut self, fault: usize) {
        self.cuts.end(fault);
    }

    /// Makes a way slow, or as it was.
    pub fn slow(&mut self, pair: Pair, slowness: Option<Slowness>) {
        if let Some(way) = self.ways.get_mut(&pair) {
            way.weather = weather(&self.links, slowness.as_ref());
        }
        match slowness {
            Some(slowness) => self.slow.insert(pair, slowness),
            None => self.slow.remove(&pair),
        };
    }

    /// Another loss on all links.
    pub fn set_loss(&mut self, loss: f64) {
        self.links.loss = loss;
        for (pair, way) in &mut self.ways {
            way.weather = weather(&self.links, self.slow.get(pair));
        }
    }

    /// Ends all cuts and all slowness.
    pub fn heal(&mut self) {
        self.cuts.clear();
        for pair in std::mem::take(&mut self.slow).into_keys() {
            self.slow(pair, None);
        }
    }

    /// Whether nothing goes through.
    pub fn is_cut(&self, (from, to): Pair) -> bool {
        self.cuts.is_cut(from, to)
    }

    /// Whether a way is slower than its distance.
    pub fn is_slow(&self, pair: Pair) -> bool {
        self.slow.contains_key(&pair)
    }

    /// What becomes of a packet of so many bytes that a node sends now.
    pub fn pass(&mut self, now_us: u64, pair: Pair, len: usize) -> Passage {
        if self.is_cut(pair) {
            return Passage::Cut;
        }
        let wire = len as u64 + HEADERS_LEN;
        let one_way_us = self.one_way_us(pair);
        let slowness = self.slow.get(&pair);
        let (seed, links) = (self.seed, &self.links);
        let way = self.ways.entry(pair).or_insert_with(|| Way {
            link: Link::default(),
            line: Line::default(),
            weather: weather(links, slowness),
            rng: ChaCha8Rng::seed_from_u64(seed ^ ((pair.0 as u64) << 32 | pair.1 as u64).wrapping_mul(0x9e37_79b9)),
            last_us: 0,
        });
        let mbit = slowness.and_then(|slow| slow.bandwidth_mbit).unwrap_or(links.bandwidth_mbit);
        let left_us = self.uplinks[pair.0]
            .depart(now_us, wire, self.uplink_mbit, links.queue.0)
            .and_then(|left_us| way.line.depart(left_us, wire, mbit, links.queue.0));
        let Some(left_us) = left_us else { return Passage::Lost };
        match way.link.datagram(left_us, left_us, one_way_us, &way.weather, &mut way.rng) {
            Fate::Lost => Passage::Lost,
            Fate::Arrives(arrives_us, twice_us) => {
                // Jitter delays the packets behind as well; only those that are meant to be are overtaken.
                let latest_us = left_us + one_way_us + one_way_us * ppm(links.jitter) / 1_000_000;
                let mut arrives_us = arrives_us;
                if arrives_us <= latest_us {
                    way.last_us = way.last_us.max(arrives_us);
                    arrives_us = way.last_us;
                }
                Passage::Arrives(arrives_us, twice_us)
            }
        }
    }
}

fn weather(links: &Links, slowness: Option<&Slowness>) -> Weather {
    let bursts = slowness.and_then(|slow| slow.bursts.as_ref());
    Weather::of(links).worse(slowness.map_or(0.0, |slow| slow.loss), bursts)
}

#[cfg(test)]
mod tests {
    use starling_sim::places::all;
    use starling_sim::span::Span;

    use super::*;

    fn ways(links: Links, pops: &[&str]) -> Ways {
        let mut ways = Ways::new(links, 1_000, 7);
        for pop in pops {
            ways.add(all().into_iter().find(|place| place.iata == *pop).expect("it is on the list"));
        }
        ways
    }

    fn arrival(passage: Passage) -> u64 {
        match passage {
            Passage::Arrives(at_us, _) => at_us,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn distance_and_jitter_delay_and_nothing_is_overtaken() {
        let mut ways = ways(Links { jitter: 0.2, ..Links::default() }, &["AMS", "SIN"]);
        let one_way_us = ways.one_way_us((0, 1));
        assert!((80_000..150_000).contains(&one_way_us), "{one_way_us}");
        let mut last_us = 0;
        for number in 0..1_000 {
            let now_us = number * 100;
            let at_us = arrival(ways.pass(now_us, (0, 1), 100));
            assert!(at_us >= now_us + one_way_us && at_us >= last_us);
            assert!(at_us <= now_us + one_way_us * 6 / 5 + 100_000);
            last_us = at_us;
        }
    }

    #[test]
    fn packets_are_lost_repeated_and_overtaken_as_often_as_it_says() {
        let links = Links { loss: 0.05, reordering: 0.1, duplication: 0.02, jitter: 0.0, ..Links::default() };
        let mut ways = ways(links, &["AMS", "SIN"]);
        let (mut lost, mut twice, mut overtaken, mut last_us) = (0, 0, 0, 0);
        for number in 0..20_000 {
            match ways.pass(number * 1_000, (0, 1), 100) {
                Passage::Arrives(at_us, again) => {
                    overtaken += u64::from(at_us < last_us);
                    last_us = last_us.max(at_us);
                    twice += u64::from(again.is_some());
                }
                _ => lost += 1,
            }
        }
        assert!((850..1_150).contains(&lost), "{lost}");
        assert!((300..500).contains(&twice), "{twice}");
        assert!(overtaken > 1_000, "{overtaken}");
    }

    #[test]
    fn a_full_queue_drops_and_then_goes_on() {
        let links = Links { bandwidth_mbit: 8, queue: Span::ms(10), jitter: 0.0, ..Links::default() };
        let mut ways = ways(links, &["AMS", "AMS"]);
        // A megabyte a second: 1,000 bytes take a millisecond.
        let passed = |ways: &mut Ways, now_us: u64| {
            (0..100).filter(|_| matches!(ways.pass(now_us, (0, 1), 972), Passage::Arrives(..))).count()
        };
        // The uplink before it takes a moment for each as well.
        assert!((11..=12).contains(&passed(&mut ways, 0)));
        assert!(passed(&mut ways, 0) <= 1);
        assert!((11..=12).contains(&passed(&mut ways, 20_000)), "what was dropped holds nobody up");
    }

    #[test]
    fn cuts_have_a_direction_and_slowness_an_end() {
        let mut ways = ways(Links { jitter: 0.0, ..Links::default() }, &["AMS", "IAD", "SIN"]);
        ways.cut(1, &[0], &[1, 2]);
        assert_eq!(ways.pass(0, (0, 1), 10), Passage::Cut);
        assert!(matches!(ways.pass(0, (1, 0), 10), Passage::Arrives(..)));
        ways.cut(2, &[0], &[1]);
        ways.mend(1);
        assert!(ways.is_cut((0, 1)) && !ways.is_cut((0, 2)));
        let clear_us = arrival(ways.pass(0, (1, 2), 10));
        ways.slow((1, 2), Some(Slowness { delay_us: 500_000, ..Slowness::default() }));
        assert!(arrival(ways.pass(1_000_000, (1, 2), 10)) >= 1_500_000 + clear_us - 100);
        ways.slow((2, 1), Some(Slowness { loss: 1.0, ..Slowness::default() }));
        assert_eq!(ways.pass(0, (2, 1), 10), Passage::Lost);
        ways.heal();
        assert!(matches!(ways.pass(0, (0, 1), 10), Passage::Arrives(..)));
        assert!(matches!(ways.pass(0, (2, 1), 10), Passage::Arrives(..)));
    }
}
