//! A machine's wall clock, as wrong as one likes. Monotonic time is the world's own.

use crate::scenario::Clock;

/// Unix time in milliseconds when a world begins.
pub const EPOCH_MS: u64 = 1_700_000_000_000;

/// Tells Unix time from the world's time.
#[derive(Clone, Debug, Default)]
pub struct WallClock {
    /// At this moment of the world…
    since_us: u64,
    /// …it was off by this, in microseconds…
    offset_us: i64,
    /// …and runs off by this from there.
    drift_ppm: i64,
    frozen: bool,
}

impl WallClock {
    /// Off by this much, and drifting.
    pub fn new(offset_us: i64, drift_ppm: i64) -> Self {
        Self { offset_us, drift_ppm, ..Self::default() }
    }

    /// How far off it is, microseconds.
    pub fn offset_us(&self, now_us: u64) -> i64 {
        let passed = now_us.saturating_sub(self.since_us) as i64;
        match self.frozen {
            true => self.offset_us - passed,
            false => self.offset_us + (i128::from(passed) * i128::from(self.drift_ppm) / 1_000_000) as i64,
        }
    }

    /// What it shows.
    pub fn read_ms(&self, now_us: u64) -> u64 {
        (EPOCH_MS * 1_000 + now_us).saturating_add_signed(self.offset_us(now_us)) / 1_000
    }

    /// Goes wrong from now on.
    pub fn break_as(&mut self, how: Clock, now_us: u64) {
        self.offset_us = self.offset_us(now_us);
        self.since_us = now_us;
        match how {
            Clock::Ahead(by) => self.offset_us += by.0 as i64,
            Clock::Behind(by) => self.offset_us -= by.0 as i64,
            Clock::DriftPpm(ppm) => self.drift_ppm = ppm,
            Clock::Frozen => self.frozen = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Span;

    #[test]
    fn clocks_drift_jump_and_freeze() {
        let mut clock = WallClock::new(-2_000, 100);
        assert_eq!(clock.read_ms(0), EPOCH_MS - 2);
        assert_eq!(clock.offset_us(10_000_000), -1_000);
        clock.break_as(Clock::Ahead(Span::secs(3_600)), 10_000_000);
        assert_eq!(clock.offset_us(10_000_000), 3_599_999_000);
        clock.break_as(Clock::Frozen, 10_000_000);
        assert_eq!(clock.read_ms(10_000_000), clock.read_ms(90_000_000));
    }
}
