//! The clocks and the entropy of this machine, for the driver and for starting up.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::replica::{Mono, Now};

/// Reads both clocks of the machine.
#[derive(Clone, Copy, Debug)]
pub struct MachineClock {
    start: Instant,
}

impl MachineClock {
    /// Monotonic time counts from here.
    #[allow(clippy::disallowed_methods, reason = "time enters here")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Both clocks, now.
    #[allow(clippy::disallowed_methods, reason = "time enters here")]
    pub fn now(&self) -> Now {
        let mono = Mono(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX));
        Now { mono, wall_ms: u64::try_from(wall().as_millis()).unwrap_or(u64::MAX) }
    }

    /// When the driver should wake for a moment of the replica's.
    pub fn instant(&self, at: Mono) -> Instant {
        self.start + Duration::from_micros(at.0)
    }
}

/// Time since the Unix epoch; zero if the machine believes in a time before it.
#[allow(clippy::disallowed_methods, reason = "time enters here")]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Random bytes of the operating system.
#[allow(clippy::disallowed_methods, reason = "entropy enters here")]
pub fn entropy<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
