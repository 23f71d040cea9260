//! How long a lost packet holds up what is behind it: loss recovery as QUIC has it (RFC 9002), and as quinn does it.
//!
//! A sender learns of a loss in one of two ways. If it sends something after the lost packet, the acknowledgement of that
//! comes a round trip later, and what is older than 9/8 of a round trip by then is lost. If it sends nothing until its probe
//! timeout, it sends two probes; quinn's carry none of what was lost, so it is their acknowledgement, another round trip
//! later, that tells. Which way it will be depends on what is sent next, and that is not known when a packet is lost; but the
//! pause after a packet is as the pause before it was, so the one that is known is taken for the other.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

/// Most that a node holds back an acknowledgement.
const ACK_DELAY_US: u64 = 5_000;
/// Timers are no finer.
const GRANULARITY_US: u64 = 1_000;
/// Longest pause between probes: by then something else has been sent that is one as well.
pub const PROBE_MAX_US: u64 = 1_000_000;
/// Most losses of one packet in a row that are drawn, and probes for each.
const LOSSES_MAX: u32 = 6;
/// Longest delay: after it the connection would have been given up, and what was on it sent again over another.
const DELAY_MAX_US: u64 = 10_000_000;

/// What the sender at one end of a link knows of it.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// How much round trips vary, as it has measured (`rttvar`), microseconds.
    variation_us: Option<u64>,
    /// When the last packet left, and how long after the one before.
    last_us: Option<u64>,
    pause_us: u64,
}

/// A fate that has come to a packet.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// There and back, microseconds.
    pub rtt_us: u64,
    /// How likely packets are lost now, millionths, for how many microseconds, and then.
    pub loss_ppm: u64,
    pub lasts_us: u64,
    pub later_ppm: u64,
    /// Other packets of the same message left right after it.
    pub is_followed: bool,
    /// An empty packet follows if nothing else does within an eighth of a round trip.
    pub has_tail_probe: bool,
}

impl Recovery {
    /// A message leaves. `variation_us` is how far a round trip is from the mean of them, on average.
    pub fn left(&mut self, left_us: u64, rtt_us: u64, variation_us: u64) {
        // The first measurement counts for half a round trip of variation.
        let before_us = self.variation_us.unwrap_or(rtt_us / 2);
        self.variation_us = Some((3 * before_us + variation_us) / 4);
        self.pause_us = self.last_us.map_or(u64::MAX, |last_us| left_us.saturating_sub(last_us));
        self.last_us = Some(left_us);
    }

    /// How much later than at first a packet arrives that was lost once, and how many times it was lost in all.
    pub fn delay_us(&self, loss: Loss, rng: &mut ChaCha8Rng) -> (u64, u32) {
        let Loss { rtt_us, is_followed, has_tail_probe, .. } = loss;
        let mut happens = |ppm: u64| rng.random_range(0..1_000_000) < ppm;
        let probe_us = rtt_us + (4 * self.variation_us.unwrap_or(rtt_us / 2)).max(GRANULARITY_US) + ACK_DELAY_US;
        let pause_us = match (is_followed, has_tail_probe) {
            (true, _) => 0,
            (false, true) => self.pause_us.min(rtt_us / 8),
            (false, false) => self.pause_us,
        };
        let (mut delay_us, mut losses) = (0, 0);
        while losses < LOSSES_MAX {
            losses += 1;
            // A packet or its acknowledgement.
            let exchange_ppm = either(loss.at(delay_us));
            // Of many that follow, one gets through.
            let is_told = is_followed || (pause_us < probe_us && !happens(exchange_ppm));
            delay_us += match is_told {
                true => (pause_us + rtt_us + ACK_DELAY_US).max(rtt_us * 9 / 8),
                false => {
                    let quiet_since_us = if pause_us < probe_us { pause_us } else { 0 };
                    let (mut wait_us, mut probes) = (probe_us, 1);
                    while probes < LOSSES_MAX && happens(exchange_ppm * exchange_ppm / 1_000_000) {
                        wait_us += (probe_us << probes).min(PROBE_MAX_US.max(probe_us));
                        probes += 1;
                    }
                    quiet_since_us + wait_us + rtt_us
                }
            };
            if !happens(loss.at(delay_us)) {
                break;
            }
        }
        (delay_us.min(DELAY_MAX_US), losses)
    }
}

impl Loss {
    /// How likely a packet is lost that leaves so much later.
    fn at(&self, delay_us: u64) -> u64 {
        if delay_us < self.lasts_us { self.loss_ppm } else { self.later_ppm }
    }
}

/// How likely one of two happens that are equally likely.
fn either(ppm: u64) -> u64 {
    2 * ppm - ppm * ppm / 1_000_000
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const LOSS: Loss = Loss {
        rtt_us: 100_000,
        loss_ppm: 1,
        lasts_us: u64::MAX,
        later_ppm: 1,
        is_followed: false,
        has_tail_probe: false,
    };

    /// After messages with such a pause between them.
    fn after(pause_us: u64, messages: u64) -> Recovery {
        let mut recovery = Recovery::default();
        (0..messages).for_each(|number| recovery.left(number * pause_us, LOSS.rtt_us, 0));
        recovery
    }

    #[test]
    fn what_follows_tells_of_a_loss_and_if_nothing_does_a_probe() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut once = |recovery: &Recovery, loss| recovery.delay_us(loss, &mut rng).0;
        assert_eq!(once(&after(0, 100), LOSS), 112_500, "9/8 of a round trip");
        assert_eq!(
            once(&after(50_000, 100), LOSS),
            155_000,
            "the pause, a round trip, and the acknowledgement's delay"
        );
        // A round trip, the timers' grain and the acknowledgement's delay until the probe; a round trip for its answer.
        assert_eq!(once(&after(1_000_000, 100), LOSS), 206_000);
        assert_eq!(once(&after(1_000_000, 100), Loss { is_followed: true, ..LOSS }), 112_500);
        assert_eq!(once(&after(1_000_000, 100), Loss { has_tail_probe: true, ..LOSS }), 117_500);
        assert_eq!(once(&after(1_000_000, 1), LOSS), 355_000, "a young connection is careful");
    }

    #[test]
    fn what_is_lost_again_waits_again() {
        let (recovery, mut rng) = (after(1_000_000, 100), ChaCha8Rng::seed_from_u64(2));
        let fates: Vec<_> =
            (0..20_000).map(|_| recovery.delay_us(Loss { loss_ppm: 200_000, ..LOSS }, &mut rng)).collect();
        let again = fates.iter().filter(|(_, losses)| *losses > 1).count();
        assert!((3_700..4_300).contains(&again), "{again}");
        assert!(fates.iter().all(|(delay_us, losses)| *delay_us >= u64::from(*losses) * 206_000));
        let backed_off = fates.iter().filter(|(delay_us, losses)| *losses == 1 && *delay_us > 206_000).count();
        // Both probes, or both their answers: 0.36 squared, of the sixteen thousand.
        assert!((1_900..2_250).contains(&backed_off), "{backed_off}");
        let (delay_us, losses) = recovery.delay_us(Loss { loss_ppm: 1_000_000, ..LOSS }, &mut rng);
        assert_eq!((delay_us, losses), (DELAY_MAX_US, LOSSES_MAX), "a link without mercy");
        // For as long as it is: sent again after 112.5 and 225 ms, lost, and after 337.5 ms.
        let burst = Loss { loss_ppm: 1_000_000, lasts_us: 300_000, later_ppm: 1, ..LOSS };
        let (delay_us, losses) = recovery.delay_us(Loss { is_followed: true, ..burst }, &mut rng);
        assert_eq!((delay_us, losses), (337_500, 3));
    }
}
