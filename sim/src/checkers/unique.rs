//! Dots are unique, markers are within their key, and a record is everywhere what its origin made it. A write that was
//! issued again has two dots, one marker, and one content.

use std::collections::BTreeMap;

use starling::replica::{Content, Dot, Edits, Image, Key, Marker, RecordHash, Value};

use super::{Checker, Scene, Verdict};

/// Remembers every dot and every marker.
pub(super) struct Unique {
    dots: BTreeMap<Dot, (Key, RecordHash, Marker)>,
    markers: BTreeMap<(Key, Marker), (Dot, Content)>,
}

impl Unique {
    pub(super) fn of(image: &Image) -> Self {
        let dots = image.entries().map(|(key, entry)| (entry.dot, (key.clone(), entry.hash, entry.marker()))).collect();
        let markers = image.entries();
        let markers = markers.map(|(key, entry)| ((key.clone(), entry.marker()), (entry.dot, entry.content().clone())));
        let markers = markers.collect();
        Self { dots, markers }
    }
}

/// Whether a write was issued again as it was; one that had expired, without its bytes.
fn is_same(before: &Content, again: &Content) -> bool {
    let has_expired = again.value == Value::Tombstone && again.expire_ms != 0;
    before == again || (has_expired && before.expire_ms == again.expire_ms)
}

impl Checker for Unique {
    fn name(&self) -> &'static str {
        "unique"
    }

    fn committed(&mut self, scene: &Scene, host: usize, changes: &Edits) -> Verdict {
        for (key, entry) in &changes.puts {
            let dot = entry.dot;
            if scene.liars.hearsay || scene.liars.is(dot.origin.node) {
                continue;
            }
            match self.dots.get(&dot) {
                Some((known, hash, marker)) => {
                    if (known, *hash, *marker) != (key, entry.hash, entry.marker()) {
                        return Err(format!("{dot} is one thing elsewhere and another at host {host}: {key:?}"));
                    }
                }
                None if dot.origin.node != scene.hosts[host].node => {
                    return Err(format!("host {host} holds {dot}, which nobody wrote"));
                }
                None => {
                    let (marker, content) = (entry.marker(), entry.content());
                    if let Some((other, before)) = self.markers.insert((key.clone(), marker), (dot, content.clone())) {
                        let was_reissued = [dot, other].iter().any(|dot| dot.origin != marker.origin);
                        if !was_reissued || !is_same(&before, content) {
                            return Err(format!("{dot} and {other} of {key:?} share the marker {marker:?}"));
                        }
                    }
                    self.dots.insert(dot, (key.clone(), entry.hash, entry.marker()));
                }
            }
        }
        Ok(())
    }
}
