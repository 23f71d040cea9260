//! Dots are unique, markers are within their key, and a record is everywhere what its origin made it.

use std::collections::BTreeMap;

use starling::replica::{Dot, Edits, Image, Key, Marker, RecordHash};

use super::{Checker, Scene, Verdict};

/// Remembers every dot and every marker.
pub(super) struct Unique {
    dots: BTreeMap<Dot, (Key, RecordHash, Marker)>,
    markers: BTreeMap<(Key, Marker), Dot>,
}

impl Unique {
    pub(super) fn of(image: &Image) -> Self {
        let dots = image.entries().map(|(key, entry)| (entry.dot, (key.clone(), entry.hash, entry.marker()))).collect();
        let markers = image.entries().map(|(key, entry)| ((key.clone(), entry.marker()), entry.dot)).collect();
        Self { dots, markers }
    }
}

impl Checker for Unique {
    fn name(&self) -> &'static str {
        "unique"
    }

    fn committed(&mut self, scene: &Scene, host: usize, changes: &Edits) -> Verdict {
        for (key, entry) in &changes.puts {
            let dot = entry.dot;
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
                    if let Some(other) = self.markers.insert((key.clone(), entry.marker()), dot) {
                        return Err(format!("{dot} and {other} of {key:?} share the marker {:?}", entry.marker()));
                    }
                    self.dots.insert(dot, (key.clone(), entry.hash, entry.marker()));
                }
            }
        }
        Ok(())
    }
}
