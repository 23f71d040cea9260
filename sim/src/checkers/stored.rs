//! What a store holds hangs together: every entry has its row in the index and every row its entry, a large value is
//! visible only whole, and no chunk is left behind.

use std::collections::BTreeSet;

use starling::replica::{BlobAddress, Edits, Image};

use super::{Checker, Scene, Verdict};

/// Needs to remember nothing.
pub(super) struct Stored;

fn whole(image: &Image, host: usize, hearsay: bool) -> Verdict {
    let mut rows = image.index();
    let mut entries = 0;
    for (key, entry) in image.entries() {
        entries += 1;
        if let Some(blob) = entry.blob()
            && !image.holds_blob(BlobAddress::of(key, blob.id), blob.chunks.len() as u32)
        {
            return Err(format!("host {host} shows {key:?} without all of its chunks"));
        }
    }
    let stray = rows.find(|(dot, key)| image.entry(key).is_none_or(|entry| entry.dot != *dot));
    if let Some((dot, key)) = stray.filter(|_| !hearsay) {
        return Err(format!("host {host} has an index row of {dot} for {key:?}, which holds something else"));
    }
    if image.index().count() != entries && !hearsay {
        return Err(format!("host {host} has {entries} entries and {} index rows", image.index().count()));
    }
    Ok(())
}

impl Checker for Stored {
    fn name(&self) -> &'static str {
        "stored"
    }

    fn committed(&mut self, scene: &Scene, host: usize, changes: &Edits) -> Verdict {
        let image = scene.hosts[host].image();
        // What was put may have given way in the same turn, to a later write or because it had expired.
        let held = changes.puts.iter().filter_map(|(key, _)| Some((key, image.entry(key)?)));
        for (key, entry) in held {
            if let Some(blob) = entry.blob()
                && !image.holds_blob(BlobAddress::of(key, blob.id), blob.chunks.len() as u32)
            {
                return Err(format!("host {host} shows {key:?} without all of its chunks"));
            }
        }
        Ok(())
    }

    fn started(&mut self, scene: &Scene, host: usize) -> Verdict {
        whole(scene.hosts[host].image(), host, scene.liars.hearsay)
    }

    fn at_rest(&mut self, scene: &Scene) -> Verdict {
        for (host, this) in scene.hosts.iter().enumerate().filter(|(_, this)| this.is_up()) {
            let image = this.image();
            whole(image, host, scene.liars.hearsay)?;
            let in_use: BTreeSet<BlobAddress> = image
                .entries()
                .filter_map(|(key, entry)| entry.blob().map(|blob| BlobAddress::of(key, blob.id)))
                .collect();
            let left = image.chunks().find(|(blob, _)| !in_use.contains(blob) && !image.is_open(*blob));
            if let Some((_, index)) = left {
                return Err(format!("host {host} keeps chunk {index} of a blob that nothing refers to"));
            }
        }
        Ok(())
    }
}
