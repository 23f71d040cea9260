//! Group commit in company: when many write at once, a turn waits a moment for those that are just coming back with
//! their next write, so that one fsync serves them together. A writer that is alone never waits.

use std::time::Duration;

use crate::replica::Mono;

/// Longest that a turn waits for company.
const PATIENCE_MAX: Mono = Mono::from_ms(2);
/// How long it naps before it looks again.
pub(super) const NAP: Duration = Duration::from_micros(20);

/// What the last turn was like that made writes durable.
#[derive(Debug, Default)]
pub(super) struct Company {
    writers: usize,
    commit: Mono,
}

impl Company {
    /// Writes to wait for: whoever was answered comes back, and whoever waited then is here.
    pub(super) fn expected(&self) -> usize {
        self.writers
    }

    /// How long: waiting must stay cheap beside what it saves.
    pub(super) fn patience(&self) -> Mono {
        Mono(self.commit.0 / 2).min(PATIENCE_MAX)
    }

    /// A turn made `writes` durable, which took that long; meanwhile `waiting` others came.
    pub(super) fn note(&mut self, writes: usize, waiting: usize, commit: Mono) {
        *self = Self { writers: writes + waiting, commit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_alone_does_not_wait_and_in_a_crowd_all_are_waited_for_a_little() {
        let mut company = Company::default();
        assert_eq!((company.expected(), company.patience()), (0, Mono(0)));
        company.note(1, 0, Mono::from_ms(3));
        assert_eq!(company.expected(), 1, "the one that is there is enough");
        company.note(40, 24, Mono(400));
        assert_eq!((company.expected(), company.patience()), (64, Mono(200)));
        company.note(1, 0, Mono::from_ms(50));
        assert_eq!((company.expected(), company.patience()), (1, PATIENCE_MAX), "the crowd has gone");
    }
}
