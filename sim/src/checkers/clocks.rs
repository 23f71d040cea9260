//! A wrong clock moves nobody else's: whoever has a right one stamps its writes with it, and but little later.

use starling::replica::{Edits, limits};

use super::{Checker, Scene, Verdict};

/// What drift makes of right clocks over days, and a turn that waits for its disk. A wrong one is an hour off.
const RIGHT_MS: u64 = 60_000;

/// Needs to remember nothing.
pub(super) struct ClocksStay;

impl Checker for ClocksStay {
    fn name(&self) -> &'static str {
        "clocks"
    }

    fn committed(&mut self, scene: &Scene, host: usize, changes: &Edits) -> Verdict {
        let node = scene.hosts[host].node;
        let own = changes.puts.iter().filter(|(_, entry)| entry.dot.origin.node == node);
        let Some((ms, key)) = own.map(|(key, entry)| (entry.stamp.ms(), key)).max() else { return Ok(()) };
        // Two wrong clocks may be all that a node sees, and then it goes by them; and a directory remembers what a wrong
        // clock had minted over it.
        let wrong = scene.hosts.iter().filter(|host| host.clock_was_wrong).count();
        let was_wrong = scene.hosts.iter().any(|host| host.node == node && host.clock_was_wrong);
        if was_wrong || wrong > 1 {
            return Ok(());
        }
        let right = scene.hosts.iter().filter(|host| !host.clock_was_wrong);
        let latest_ms = right.map(|host| host.now(scene.now_us).wall_ms).max().unwrap_or(0);
        let latest_ms = latest_ms + limits::ABSORB_MS_MAX + limits::PROMISE_MS_AHEAD + RIGHT_MS;
        if ms > latest_ms {
            return Err(format!("host {host} stamped {key:?} {} ms ahead of its clock", ms - latest_ms));
        }
        Ok(())
    }
}
