//! The clocks and the entropy of this machine. Nothing else in a node reads them: whoever needs the time is handed
//! this, so that one setting moves the wall clock of a whole node.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::replica::{Mono, Now};

/// Reads both clocks of the machine.
#[derive(Clone, Copy, Debug)]
pub struct MachineClock {
    start: Instant,
    offset_ms: i64,
}

impl MachineClock {
    /// Monotonic time counts from here. The wall clock is read with `offset_ms` added to it.
    #[allow(clippy::disallowed_methods, reason = "time enters here")]
    pub fn start(offset_ms: i64) -> Self {
        Self { start: Instant::now(), offset_ms }
    }

    /// Both clocks, now.
    pub fn now(&self) -> Now {
        let mono = Mono(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX));
        Now { mono, wall_ms: self.wall_ms() }
    }

    /// Time since the Unix epoch; zero if the machine believes in a time before it.
    #[allow(clippy::disallowed_methods, reason = "time enters here")]
    pub fn wall(&self) -> Duration {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let offset = Duration::from_millis(self.offset_ms.unsigned_abs());
        if self.offset_ms < 0 { wall.saturating_sub(offset) } else { wall.saturating_add(offset) }
    }

    /// The same in whole milliseconds.
    pub fn wall_ms(&self) -> u64 {
        u64::try_from(self.wall().as_millis()).unwrap_or(u64::MAX)
    }

    /// When the driver should wake for a moment of the replica's.
    pub fn instant(&self, at: Mono) -> Instant {
        self.start + Duration::from_micros(at.0)
    }
}

/// Random bytes of the operating system.
#[allow(clippy::disallowed_methods, reason = "entropy enters here")]
pub fn entropy<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_moves_the_wall_clock_and_not_the_timers() {
        let (ahead, behind) = (MachineClock::start(90_000), MachineClock::start(-90_000));
        let difference_ms = ahead.wall_ms() - behind.wall_ms();
        assert!((180_000..190_000).contains(&difference_ms), "{difference_ms}");
        assert!(ahead.now().mono < Mono::from_ms(10_000));
        assert_eq!(MachineClock::start(i64::MIN).wall_ms(), 0, "no time before the epoch");
    }
}
