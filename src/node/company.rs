//! Group commit in company: when many write at once, a turn waits a moment for those that are just coming back with
//! their next write, so that one fsync serves them together. A writer that is alone never waits.

use std::time::Duration;

use crate::replica::Mono;

/// Longest that a turn waits for company.
const PATIENCE_MAX: Mono = Mono::from_ms(1);
/// How long it naps before it looks again.
pub(super) const NAP: Duration = Duration::from_micros(20);

/// What the last turns were like.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Writes of the last two turns that made some durable.
    writes: [usize; 2],
    /// How long the last one took to commit.
    commit: Mono,
}

impl Company {
    /// Writes to wait for: half of those that are about, so that the other half's commit and this half's way to and
    /// from their clients go on at the same time.
    pub(super) fn expected(&self) -> usize {
        self.writes.iter().sum::<usize>() / 2
    }

    /// How long: waiting must stay cheap beside what it saves.
    pub(super) fn patience(&self) -> Mono {
        Mono(self.commit.0 / 2).min(PATIENCE_MAX)
    }

    /// A turn made `writes` durable, which took that long.
    pub(super) fn note(&mut self, writes: usize, commit: Mono) {
        self.writes = [writes, self.writes[0]];
        self.commit = commit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_writes_alone_does_not_wait_and_a_crowd_waits_for_half_of_it() {
        let mut company = Company::default();
        assert_eq!((company.expected(), company.patience()), (0, Mono(0)));
        company.note(1, Mono::from_ms(3));
        company.note(1, Mono::from_ms(3));
        assert!(company.expected() <= 1, "the one that is there is enough");
        company.note(60, Mono(400));
        company.note(4, Mono(400));
        assert_eq!((company.expected(), company.patience()), (32, Mono(200)));
        company.note(1, Mono::from_ms(50));
        assert_eq!((company.expected(), company.patience()), (2, PATIENCE_MAX), "the crowd has gone");
    }
}
