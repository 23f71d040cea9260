//! The checker: whether a history is one that Starling may have. Pure. It knows what users are promised, and nothing of
//! how nodes work; where several outcomes are allowed it takes each of them.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Answer, Disk, History, Op, What};

/// Between a moment and what clocks and clients make of it, milliseconds.
const CLOCK_SLACK_MS: i64 = 1_500;
/// Violations told of each promise; a broken world breaks everything.
const TOLD_MAX: usize = 20;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Broken {
    /// Which one.
    pub promise: &'static str,
    /// What was seen.
    pub what: String,
}

/// All about one key.
struct Key<'a> {
    name: &'a str,
    /// By when they began; refused ones left out.
    writes: Vec<&'a Op>,
    reads: Vec<&'a Op>,
    /// The writes are known to have taken effect one after the other: one node, one disk, and none of unknown outcome but
    /// the last.
    is_ordered: bool,
}

/// Everything that is wrong with a history; nothing if it is fine.
pub fn judge(history: &History) -> Vec<Broken> {
    let mut found = Found(Vec::new());
    let lost: BTreeSet<Disk> = history.lost.iter().copied().collect();
    let keys = by_key(history);
    let witnesses = witnesses(history, &keys);
    for key in keys.values() {
        invented(key, &mut found);
        returned(key, &mut found);
        expired(history, key, &mut found);
        if key.is_ordered {
            in_order(key, &lost, &mut found);
        }
    }
    lists(history, &keys, &mut found);
    equal(history, &mut found);
    for (node, held) in history.held.iter().take(1) {
        for key in keys.values() {
            let value = held.get(key.name).map(String::as_str);
            kept(history, key, value, &lost, &witnesses, node, &mut found);
        }
    }
    for (node, held) in &history.held {
        for name in held.keys().filter(|name| !keys.contains_key(name.as_str())) {
            found.add("nothing is invented", || format!("{node} holds {name}, which nobody wrote"));
        }
    }
    found.0
}

struct Found(Vec<Broken>);

impl Found {
    fn add(&mut self, promise: &'static str, what: impl FnOnce() -> String) {
        if self.0.iter().filter(|told| told.promise == promise).count() < TOLD_MAX {
            self.0.push(Broken { promise, what: what() });
        }
    }
}

fn by_key(history: &History) -> BTreeMap<&str, Key<'_>> {
    let mut keys: BTreeMap<&str, Key<'_>> = BTreeMap::new();
    for op in &history.ops {
        let Some(name) = op.what.key() else { continue };
        let key = keys.entry(name).or_insert_with(|| Key { name, writes: vec![], reads: vec![], is_ordered: false });
        match (&op.answer, op.what.is_write()) {
            (Answer::Refused(_), _) => {}
            (_, true) => key.writes.push(op),
            (Answer::Found(_) | Answer::Absent, false) => key.reads.push(op),
            _ => {}
        }
    }
    for key in keys.values_mut() {
        key.writes.sort_by_key(|op| op.began_us);
        key.reads.sort_by_key(|op| op.began_us);
        let one_disk = key.writes.windows(2).all(|two| two[0].disk == two[1].disk);
        let one_by_one = key.writes.windows(2).all(|two| two[1].follows(two[0]) && two[0].is_done());
        key.is_ordered = one_disk && one_by_one;
    }
    keys
}

/// Who is known to have had the value of a put, by value: those who were asked for it and showed it, and for keys that
/// were written once those who listed them.
fn witnesses<'a>(history: &'a History, keys: &BTreeMap<&'a str, Key<'a>>) -> BTreeMap<&'a str, BTreeSet<Disk>> {
    let mut witnesses: BTreeMap<&str, BTreeSet<Disk>> = BTreeMap::new();
    for op in &history.ops {
        match &op.answer {
            Answer::Found(value) => _ = witnesses.entry(value).or_default().insert(op.disk),
            Answer::Keys(names) => {
                for key in names.iter().filter_map(|name| keys.get(name.as_str())) {
                    if let [write] = key.writes[..]
                        && let What::Put { value, .. } = &write.what
                    {
                        witnesses.entry(value).or_default().insert(op.disk);
                    }
                }
            }
            _ => {}
        }
    }
    witnesses
}

/// The value that a write leaves.
fn value_of(write: &Op) -> Option<&str> {
    match &write.what {
        What::Put { value, .. } => Some(value),
        _ => None,
    }
}

/// The value that an answer showed.
fn shown(read: &Op) -> Option<&str> {
    match &read.answer {
        Answer::Found(value) => Some(value),
        _ => None,
    }
}

fn expires_s(key: &Key<'_>, value: &str) -> Option<u64> {
    key.writes.iter().find_map(|write| match &write.what {
        What::Put { value: written, expires_s, .. } if written == value => *expires_s,
        _ => None,
    })
}

fn may_expire(key: &Key<'_>) -> bool {
    key.writes.iter().any(|write| matches!(write.what, What::Put { expires_s: Some(_), .. }))
}

fn at(op: &Op) -> String {
    format!("node {} at {:.3} s", op.disk.0, op.began_us as f64 / 1e6)
}

/// What is read was written, and not in the future.
fn invented(key: &Key<'_>, found: &mut Found) {
    for read in &key.reads {
        let Some(value) = shown(read) else { continue };
        let is_written = |write: &&&Op| value_of(write) == Some(value) && write.began_us <= read.ended_us;
        if !key.writes.iter().any(|write| is_written(&write)) {
            found.add("nothing is invented", || format!("{}: {} read {value}, which nobody wrote", key.name, at(read)));
        }
    }
}

/// A value that a node has had and then not had does not come back there: values are written once, and markers grow.
fn returned(key: &Key<'_>, found: &mut Found) {
    let expires = may_expire(key);
    let mut nodes: BTreeMap<Disk, Vec<(&Op, Option<&str>)>> = BTreeMap::new();
    for read in &key.reads {
        // When a clock is set back, what had expired shows again.
        if shown(read).is_some() || !expires {
            nodes.entry(read.disk).or_default().push((read, shown(read)));
        }
    }
    for write in key.writes.iter().filter(|write| write.is_done()) {
        nodes.entry(write.disk).or_default().push((write, value_of(write)));
    }
    for seen in nodes.values() {
        let mut spans: BTreeMap<&str, (&Op, &Op)> = BTreeMap::new();
        for (op, value) in seen {
            let Some(value) = value else { continue };
            let (first, last) = spans.entry(value).or_insert((op, op));
            if op.ended_us < first.ended_us {
                *first = op;
            }
            if op.began_us > last.began_us {
                *last = op;
            }
        }
        for (value, (first, last)) in spans {
            let between =
                seen.iter().find(|(op, other)| *other != Some(value) && op.follows(first) && last.follows(op));
            if let Some((op, other)) = between {
                let other = other.unwrap_or("nothing");
                found.add("nothing comes back", || {
                    format!(
                        "{}: {value} at {}, then {other} at {}, then {value} at {}",
                        key.name,
                        at(first),
                        at(op),
                        at(last)
                    )
                });
            }
        }
    }
}

/// From its time on a value is hidden by the clock of the node that is asked; before it is not, where it was written.
fn expired(history: &History, key: &Key<'_>, found: &mut Found) {
    if !may_expire(key) {
        return;
    }
    let clock_ms = |op: &Op, us: u64| (history.epoch_ms + us / 1_000) as i64 + op.clock_offset_ms;
    for read in &key.reads {
        match shown(read) {
            Some(value) => {
                let Some(expires_s) = expires_s(key, value) else { continue };
                if clock_ms(read, read.began_us) > expires_s as i64 * 1_000 + CLOCK_SLACK_MS {
                    found.add("what has expired is hidden", || {
                        format!("{}: {} still shows {value}", key.name, at(read))
                    });
                }
            }
            None => {
                let [write] = key.writes[..] else { continue };
                let What::Put { expires_s: Some(expires_s), .. } = write.what else { continue };
                let is_early = clock_ms(read, read.ended_us) < expires_s as i64 * 1_000 - CLOCK_SLACK_MS;
                if write.is_done() && read.disk == write.disk && read.follows(write) && is_early {
                    found.add("what has not expired is shown", || format!("{}: {} hides it", key.name, at(read)));
                }
            }
        }
    }
}

/// The place of a write among the writes of its key, -1 before the first.
type Place = isize;

/// The earliest place, from `least` on, after which a read may show this.
fn place(key: &Key<'_>, value: Option<&str>, least: Place) -> Option<Place> {
    if value.is_none() && least < 0 {
        return Some(-1);
    }
    let from = usize::try_from(least).unwrap_or(0);
    let places = (from..).zip(key.writes.get(from..).unwrap_or_default());
    places.into_iter().find(|(_, write)| value_of(write) == value).map(|(place, _)| place as Place)
}

/// Of a key that is written one write after the other, no node goes back; the node that took a write shows it or a later
/// one; and so does every node to who brings the write's bookmark. A bookmark of a write that is lost asks for nothing,
/// and a node that got another disk may have forgotten what bookmarks take for granted.
fn in_order(key: &Key<'_>, lost: &BTreeSet<Disk>, found: &mut Found) {
    if may_expire(key) {
        return;
    }
    // What each disk has shown: until when, and which place at least.
    let mut shown_by: BTreeMap<Disk, Vec<(&Op, Place)>> = BTreeMap::new();
    for read in &key.reads {
        let seen = shown_by.entry(read.disk).or_default();
        let before =
            seen.iter().filter(|(earlier, _)| read.follows(earlier)).map(|(_, place)| *place).max().unwrap_or(-1);
        let written = |is_meant: &dyn Fn(&Op) -> bool| {
            let last = key.writes.iter().rposition(|write| write.is_done() && read.follows(write) && is_meant(write));
            last.map_or(-1, |place| place as Place)
        };
        let own = written(&|write| write.disk == read.disk);
        let brought = match read.what {
            What::Get { bookmark: true, .. } if read.disk.1 == 0 => {
                written(&|write| write.client == read.client && !lost.contains(&write.disk))
            }
            _ => -1,
        };
        let value = shown(read);
        if place(key, value, -1).is_none() {
            // Invented, and told as that.
            continue;
        }
        let promises = [
            ("a node never goes back", before),
            ("a node shows what it took", own),
            ("a bookmark is honoured", brought),
        ];
        for (promise, least) in promises {
            if place(key, value, least).is_none() {
                let value = value.unwrap_or("nothing");
                let wanted = usize::try_from(least).ok().and_then(|least| key.writes.get(least));
                let wanted = wanted.and_then(|write| value_of(write)).unwrap_or("nothing");
                found.add(promise, || format!("{}: {} shows {value}, older than {wanted}", key.name, at(read)));
            }
        }
        if let Some(place) = place(key, value, before) {
            seen.push((read, place));
        }
    }
}

/// A node lists what it took, and nothing that nobody wrote.
fn lists(history: &History, keys: &BTreeMap<&str, Key<'_>>, found: &mut Found) {
    let mut once: BTreeMap<Disk, Vec<&Key<'_>>> = BTreeMap::new();
    for key in keys.values().filter(|key| !may_expire(key)) {
        if let [write] = key.writes[..]
            && write.is_done()
            && value_of(write).is_some()
        {
            once.entry(write.disk).or_default().push(key);
        }
    }
    for list in &history.ops {
        let (What::List { prefix }, Answer::Keys(names)) = (&list.what, &list.answer) else { continue };
        let listed: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        for name in listed.iter().filter(|name| !keys.contains_key(*name)) {
            found.add("nothing is invented", || format!("{} lists {name}, which nobody wrote", at(list)));
        }
        let taken = once.get(&list.disk).map(Vec::as_slice).unwrap_or_default();
        for key in taken.iter().filter(|key| key.name.starts_with(prefix.as_str()) && list.follows(key.writes[0])) {
            if !listed.contains(key.name) {
                found.add("a node lists what it took", || format!("{} does not list {}", at(list), key.name));
            }
        }
    }
}

/// All nodes hold the same.
fn equal(history: &History, found: &mut Found) {
    let Some((first, wanted)) = history.held.iter().next() else { return };
    for (node, held) in &history.held {
        let names: BTreeSet<&String> = wanted.keys().chain(held.keys()).collect();
        for name in names {
            let (a, b) = (wanted.get(name), held.get(name));
            if a != b {
                found.add("all nodes end equal", || format!("{name}: {first} has {a:?}, {node} has {b:?}"));
            }
        }
    }
}

/// What is held at the end is a last write: none that was acknowledged and came after it is missing.
fn kept(
    history: &History,
    key: &Key<'_>,
    held: Option<&str>,
    lost: &BTreeSet<Disk>,
    witnesses: &BTreeMap<&str, BTreeSet<Disk>>,
    node: &str,
    found: &mut Found,
) {
    // A write that was on lost disks only may be gone.
    let is_safe = |write: &&&Op| {
        let Answer::Done { on } = &write.answer else { return false };
        let seen = value_of(write).and_then(|value| witnesses.get(value)).into_iter().flatten();
        on.iter().chain(seen).any(|disk| !lost.contains(disk))
    };
    let safe: Vec<&&Op> = key.writes.iter().filter(|write| is_safe(write)).collect();
    let now_ms = history.epoch_ms + history.held_us / 1_000;
    let is_over = |write: &Op| match write.what {
        What::Put { expires_s: Some(expires_s), .. } => now_ms as i64 > expires_s as i64 * 1_000 - CLOCK_SLACK_MS,
        _ => false,
    };
    if let Some(value) = held
        && let Some(expires_s) = expires_s(key, value)
        && now_ms as i64 > expires_s as i64 * 1_000 + CLOCK_SLACK_MS
    {
        found.add("what has expired is hidden", || format!("{}: {node} still holds {value} at the end", key.name));
    }
    // A later write at the same node beats an earlier one, if that was over before and its disk has lived on.
    let is_beaten =
        |write: &Op| safe.iter().any(|later| write.is_done() && later.follows(write) && later.disk == write.disk);
    let candidates = key.writes.iter().filter(|write| !is_beaten(write));
    let fits = |write: &&&Op| value_of(write) == held || (held.is_none() && is_over(write));
    let was_never_safe = held.is_none() && safe.is_empty();
    if !was_never_safe && !candidates.into_iter().any(|write| fits(&write)) {
        let last = safe
            .last()
            .map(|write| format!("{} was acknowledged by {}", value_of(write).unwrap_or("a deletion"), at(write)));
        found.add("what was acknowledged is kept", || {
            format!(
                "{}: at the end {node} holds {}, yet {}",
                key.name,
                held.unwrap_or("nothing"),
                last.unwrap_or("nobody wrote that".into())
            )
        });
    }
}
