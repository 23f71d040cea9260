//! One direction of the way between two nodes: how long a message takes and which of its packets are lost.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use starling::replica::Class;

use super::recovery::{Loss, Recovery};
use super::{PACKET_LEN, PACKET_OVERHEAD};
use crate::scenario::{Bursts, Links, ppm};

/// What links do, in integers.
#[derive(Clone, Debug)]
pub struct Weather {
    jitter_ppm: u64,
    loss_ppm: u64,
    bursts: Option<Burst>,
    reordering_ppm: u64,
    duplication_ppm: u64,
    bytes_per_sec: u64,
    queue_us: u64,
}

#[derive(Clone, Debug)]
struct Burst {
    loss_ppm: u64,
    good_us: u64,
    bad_us: u64,
}

impl Burst {
    fn of(bursts: &Bursts) -> Self {
        Self { loss_ppm: ppm(bursts.loss), good_us: bursts.good.0.max(1), bad_us: bursts.bad.0.max(1) }
    }
}

impl Weather {
    /// As a scenario has it.
    pub fn of(links: &Links) -> Self {
        Self {
            jitter_ppm: ppm(links.jitter),
            loss_ppm: ppm(links.loss),
            bursts: links.bursts.as_ref().map(Burst::of),
            reordering_ppm: ppm(links.reordering),
            duplication_ppm: ppm(links.duplication),
            bytes_per_sec: links.bandwidth_mbit * 125_000,
            queue_us: links.queue.0,
        }
    }

    /// The same with more loss.
    pub fn worse(&self, loss: f64, bursts: Option<&Bursts>) -> Self {
        let loss_ppm = (self.loss_ppm + ppm(loss)).min(1_000_000);
        Self { loss_ppm, bursts: bursts.map(Burst::of).or_else(|| self.bursts.clone()), ..self.clone() }
    }

    /// The loss of all moments together.
    fn mean_loss_ppm(&self) -> u64 {
        let in_bursts_ppm =
            self.bursts.as_ref().map_or(0, |burst| burst.loss_ppm * burst.bad_us / (burst.good_us + burst.bad_us));
        (self.loss_ppm + in_bursts_ppm).min(1_000_000)
    }

    /// Whether an empty packet follows a message of that class, as nodes send one after records where packets are lost.
    fn has_tail_probes(&self, class: Class) -> bool {
        class == Class::Records && self.mean_loss_ppm() >= TAIL_PROBES_FROM_PPM
    }

    /// Its bytes on the wire.
    pub fn tail_probe_len(&self, class: Class) -> u64 {
        if self.has_tail_probes(class) { PACKET_OVERHEAD } else { 0 }
    }
}

/// Something that sends so many bytes a second, a higher class before a lower one, packet by packet.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// By class: until then it is busy with what was sent before.
    free_us: [u64; 4],
}

impl Line {
    /// When the last of `wire` bytes, handed over at `ready`, has left.
    pub fn depart(&mut self, ready_us: u64, wire: u64, class: Class, bytes_per_sec: u64) -> u64 {
        let takes_us = wire * 1_000_000 / bytes_per_sec.max(1);
        let (before, after) = self.free_us.split_at_mut(class as usize + 1);
        let left_us = before.iter().copied().max().unwrap_or(0).max(ready_us) + takes_us;
        before[class as usize] = left_us;
        // What is of a lower class and still there goes on after it.
        after.iter_mut().filter(|free_us| **free_us > ready_us).for_each(|free_us| *free_us += takes_us);
        left_us
    }
}

/// The state of one direction.
#[derive(Clone, Debug, Default)]
pub struct Link {
    line: Line,
    recovery: Recovery,
    bad: bool,
    turns_us: u64,
}

/// What became of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Lost.
    Lost,
    /// It arrives then, perhaps twice.
    Arrives(u64, Option<u64>),
}

/// A message on a link.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub class: Class,
    /// Bytes on the wire.
    pub wire: u64,
}

/// Losses from which on nodes send tail probes, millionths.
const TAIL_PROBES_FROM_PPM: u64 = 5_000;
/// Packets of one message whose loss is drawn one by one.
const PACKETS_DRAWN: u64 = 64;

impl Link {
    /// Puts a message on the link, no earlier than `ready`; when the last of it has left.
    pub fn depart(&mut self, ready_us: u64, load: Load, weather: &Weather) -> u64 {
        self.line.depart(ready_us, load.wire, load.class, weather.bytes_per_sec)
    }

    /// When a message on a stream that has left at `left` is complete at the other side, lost packets sent again.
    /// Adds what was lost to `lost`.
    pub fn deliver(
        &mut self,
        left_us: u64,
        one_way_us: u64,
        load: Load,
        weather: &Weather,
        lost: &mut u64,
        rng: &mut ChaCha8Rng,
    ) -> u64 {
        let arrives = left_us + one_way_us + jitter(one_way_us, weather, rng);
        let loss_ppm = self.loss_ppm(left_us, weather, rng);
        let rtt_us = 2 * one_way_us;
        self.recovery.left(left_us, rtt_us, deviation(rtt_us, weather));
        if loss_ppm == 0 {
            return arrives;
        }
        let packets = load.wire.div_ceil(PACKET_LEN).max(1);
        let has_tail_probe = weather.has_tail_probes(load.class);
        let lasts_us = if weather.bursts.is_some() { self.turns_us.saturating_sub(left_us) } else { u64::MAX };
        let later_ppm = weather.mean_loss_ppm();
        let mut latest_us = 0;
        for packet in 1..=packets.min(PACKETS_DRAWN) {
            if rng.random_range(0..1_000_000) < loss_ppm {
                let loss =
                    Loss { rtt_us, loss_ppm, lasts_us, later_ppm, is_followed: packet < packets, has_tail_probe };
                let (delay_us, losses) = self.recovery.delay_us(loss, rng);
                latest_us = latest_us.max(delay_us);
                *lost += u64::from(losses);
            }
        }
        arrives + latest_us
    }

    /// What becomes of a datagram that has left at `left`.
    pub fn datagram(
        &mut self,
        now_us: u64,
        left_us: u64,
        one_way_us: u64,
        weather: &Weather,
        rng: &mut ChaCha8Rng,
    ) -> Fate {
        if left_us > now_us + weather.queue_us {
            return Fate::Lost;
        }
        let loss_ppm = self.loss_ppm(left_us, weather, rng);
        if loss_ppm > 0 && rng.random_range(0..1_000_000) < loss_ppm {
            return Fate::Lost;
        }
        let arrival = |rng: &mut ChaCha8Rng| {
            let late = weather.reordering_ppm > 0 && rng.random_range(0..1_000_000) < weather.reordering_ppm;
            let more = if late { rng.random_range(0..=one_way_us) } else { 0 };
            left_us + one_way_us + more + jitter(one_way_us, weather, rng)
        };
        let first = arrival(rng);
        let twice = weather.duplication_ppm > 0 && rng.random_range(0..1_000_000) < weather.duplication_ppm;
        Fate::Arrives(first, twice.then(|| arrival(rng)))
    }

    /// The loss of this moment.
    fn loss_ppm(&mut self, now_us: u64, weather: &Weather, rng: &mut ChaCha8Rng) -> u64 {
        let Some(burst) = &weather.bursts else { return weather.loss_ppm };
        // Times from half to one and a half of the mean: no logarithm, so no platform's rounding.
        let mut span = |mean_us: u64| mean_us / 2 + rng.random_range(0..=mean_us);
        if self.turns_us == 0 {
            self.turns_us = now_us + span(burst.good_us);
        }
        while self.turns_us <= now_us {
            self.bad = !self.bad;
            self.turns_us += span(if self.bad { burst.bad_us } else { burst.good_us });
        }
        match self.bad {
            true => (weather.loss_ppm + burst.loss_ppm).min(1_000_000),
            false => weather.loss_ppm,
        }
    }
}

/// Mostly little, at most the full fraction: the square of an even draw.
fn jitter(one_way_us: u64, weather: &Weather, rng: &mut ChaCha8Rng) -> u64 {
    if weather.jitter_ppm == 0 {
        return 0;
    }
    let draw = u64::from(rng.random::<u32>() >> 16);
    one_way_us * weather.jitter_ppm / 1_000_000 * (draw * draw) / (65_536 * 65_536)
}

/// How far a round trip with [`jitter`] in both directions is from the mean, on average: 0.17 of the fraction.
fn deviation(rtt_us: u64, weather: &Weather) -> u64 {
    rtt_us * weather.jitter_ppm / 1_000_000 * 17 / 100
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::span::Span;

    fn weather(loss: f64, bursts: Option<Bursts>) -> Weather {
        Weather::of(&Links { loss, bursts, jitter: 0.0, ..Links::default() })
    }

    fn load(wire: u64, class: Class) -> Load {
        Load { class, wire }
    }

    #[test]
    fn bandwidth_queues_and_distance_delays() {
        let (mut link, mut rng) = (Link::default(), ChaCha8Rng::seed_from_u64(1));
        let clear = weather(0.0, None);
        // 25 MB/s: a megabyte takes 40 ms, the next one waits for it.
        assert_eq!(link.depart(0, load(1_000_000, Class::Sync), &clear), 40_000);
        assert_eq!(link.depart(0, load(1_000_000, Class::Sync), &clear), 80_000);
        assert_eq!(link.depart(0, load(25_000, Class::Control), &clear), 1_000, "small and urgent goes first");
        assert_eq!(link.depart(0, load(25_000, Class::Blobs), &clear), 82_000);
        let mut lost = 0;
        assert_eq!(link.deliver(80_000, 50_000, load(100, Class::Records), &clear, &mut lost, &mut rng), 130_000);
        assert_eq!(lost, 0);
    }

    #[test]
    fn a_lost_packet_is_late_and_loss_has_its_rate() {
        let (mut link, mut rng) = (Link::default(), ChaCha8Rng::seed_from_u64(2));
        let lossy = weather(0.05, None);
        let (mut lost, mut late) = (0, 0);
        for _ in 0..20_000 {
            let arrives = link.deliver(0, 40_000, load(500, Class::Records), &lossy, &mut lost, &mut rng);
            assert!(arrives == 40_000 || arrives >= 40_000 + 90_000, "{arrives}");
            late += u64::from(arrives > 40_000);
        }
        assert!((900..1_100).contains(&late), "{late}");
        assert!(lost >= late);
    }

    #[test]
    fn bursts_lose_in_bad_times_only() {
        let bursts = Bursts { loss: 0.5, good: Span::secs(9), bad: Span::secs(1) };
        let (mut link, mut rng) = (Link::default(), ChaCha8Rng::seed_from_u64(3));
        let weather = weather(0.0, Some(bursts));
        let lost: Vec<bool> = (0..200_000)
            .map(|ms| link.datagram(ms * 1_000, ms * 1_000, 10_000, &weather, &mut rng) == Fate::Lost)
            .collect();
        let total = lost.iter().filter(|lost| **lost).count();
        assert!((5_000..16_000).contains(&total), "about a twentieth: {total}");
        let quiet = lost.chunks(100).filter(|chunk| chunk.iter().all(|lost| !lost)).count();
        assert!(quiet > 1_600, "mostly in one piece: {quiet}");
    }
}
