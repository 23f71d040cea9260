//! No node finds fault with another: all of them run the same protocol.

use starling::replica::Alarm;

use super::{Checker, Scene, Verdict};

/// A process that starts so much after another is the newer one to everyone, whatever its directory had promised…
const SURELY_LATER_US: u64 = 5_000_000;
/// …and however the two clocks have drifted.
const DRIFT_PPM: u64 = 250;

/// Needs to remember nothing.
pub(super) struct PeersBehave;

impl Checker for PeersBehave {
    fn name(&self) -> &'static str {
        "peers"
    }

    fn alarm(&mut self, scene: &Scene, host: usize, alarm: &Alarm) -> Verdict {
        match alarm {
            Alarm::Superseded => {
                let this = &scene.hosts[host];
                let later_us = SURELY_LATER_US + scene.now_us / 1_000_000 * DRIFT_PPM;
                let others = scene.hosts.iter().enumerate();
                let others = others.filter(|(other, that)| *other != host && that.node == this.node);
                let (mut count, mut is_newest, mut is_sure) = (0, true, !this.clock_was_wrong);
                for (_, other) in others {
                    count += 1;
                    is_newest &= this.started_us > other.started_us + later_us;
                    is_sure &= !other.clock_was_wrong;
                }
                match count == 0 || is_newest && is_sure {
                    true => {
                        Err(format!("host {host} is called the older of {} processes and is the newest", count + 1))
                    }
                    false => Ok(()),
                }
            }
            Alarm::BadPeer { node, .. } if scene.liars.is(*node) => Ok(()),
            Alarm::BadPeer { .. } if scene.liars.hearsay => Ok(()),
            Alarm::MarkerConflict { .. } if scene.liars.any() => Ok(()),
            Alarm::BadPeer { .. } | Alarm::MarkerConflict { .. } => Err(format!("host {host}: {alarm}")),
            _ => Ok(()),
        }
    }
}
