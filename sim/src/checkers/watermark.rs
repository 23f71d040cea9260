//! A watermark never overstates: everything that anyone committed up to it is here, on disk, whether or not the writer is
//! known here yet; those excepted who have departed, and whom they let in: nobody waits for what a departed node may have
//! written, and that may be whom it let in.

use std::collections::BTreeSet;

use starling::replica::{NodeId, Timestamp};

use super::{Checker, Scene, Verdict};

/// In large worlds, this many hosts are looked at each time, others the next time.
const HOSTS_AT_ONCE: usize = 12;

/// Where to go on.
#[derive(Default)]
pub(super) struct Watermark {
    next: usize,
}

fn check(scene: &Scene, host: usize) -> Verdict {
    let this = &scene.hosts[host];
    let is_judged = !this.is_committing() && !scene.liars.is(this.node);
    let Some(replica) = this.replica.as_ref().filter(|_| is_judged) else { return Ok(()) };
    let watermark = replica.watermark();
    if watermark == Timestamp::default() {
        return Ok(());
    }
    let departed: BTreeSet<NodeId> = replica.roster().departed().collect();
    let image = this.durable_image();
    for write in scene.ledger.writes().filter(|write| write.stamp <= watermark) {
        // What a node says of its former lives, and thereby of whom it let in, is too little once its directory was put
        // back or cloned.
        let node = write.dot.origin.node;
        let is_promised = !scene.liars.hearsay && !scene.liars.is(node) && scene.ledger.is_vouched_for(node, &departed);
        if is_promised && !scene.ledger.lost.contains(&write.dot) && !scene.holds(image, write) {
            return Err(format!(
                "host {host} says it has everything up to {watermark:?} on disk, and lacks {} of {:?}, stamped {:?}",
                write.dot, write.key, write.stamp
            ));
        }
    }
    Ok(())
}

impl Checker for Watermark {
    fn name(&self) -> &'static str {
        "watermark"
    }

    fn inspect(&mut self, scene: &Scene) -> Verdict {
        for _ in 0..HOSTS_AT_ONCE.min(scene.hosts.len()) {
            self.next = (self.next + 1) % scene.hosts.len();
            check(scene, self.next)?;
        }
        Ok(())
    }

    fn at_rest(&mut self, scene: &Scene) -> Verdict {
        (0..scene.hosts.len()).try_for_each(|host| check(scene, host))
    }
}
