//! Clients that wander from PoP to PoP with their bookmarks, while things go wrong: what one has seen or written, it
//! sees wherever it goes.

use super::*;

/// A client.
#[derive(Default)]
struct Client {
    bookmark: Bookmark,
    /// The latest that it has seen of each key.
    seen: BTreeMap<Key, Marker>,
}

/// What happened to the clients of a world.
#[derive(Default, Debug)]
struct Wanderings {
    covered_at_once: u64,
    covered_later: u64,
    timed_out: u64,
    refused: u64,
    /// Bookmarks that ask for a moment.
    with_a_moment: u64,
}

/// A client was shown less than it had seen, at this node.
#[derive(Debug, PartialEq)]
struct Stale {
    node: NodeId,
    key: Key,
    seen: Marker,
}

impl Client {
    fn see(&mut self, key: &Key, dot: Dot, stamp: Timestamp, marker: Marker) {
        self.bookmark.note(dot, stamp);
        self.seen.insert(key.clone(), marker);
    }

    /// One request at a random PoP.
    fn ask(&mut self, world: &mut World, went: &mut Wanderings) -> Result<(), Stale> {
        let process = world.rng.random_range(0..world.processes.len());
        if !world.is_up(process) {
            return Ok(());
        }
        let patience_ms = 2_000;
        let wait = Request::AwaitCovered { bookmark: self.bookmark.clone(), patience_ms };
        let ticket = world.request(process, wait);
        let at_once = world.replies.contains_key(&ticket);
        for _ in 0..=patience_ms {
            if world.replies.contains_key(&ticket) {
                break;
            }
            world.run_until(world.now + Mono::from_ms(1));
        }
        match &world.replies[&ticket] {
            Reply::Done if at_once => went.covered_at_once += 1,
            Reply::Done => went.covered_later += 1,
            Reply::TimedOut(_) => {
                went.timed_out += 1;
                return Ok(());
            }
            other => panic!("{other:?}"),
        }
        let replica = world.processes[process].replica.as_ref().expect("nothing crashes while a client waits");
        let image = replica.store().image().clone();
        for (key, seen) in &self.seen {
            if image.entry(key).is_none_or(|entry| entry.marker() < *seen) {
                return Err(Stale { node: replica.config.node, key: key.clone(), seen: *seen });
            }
        }
        match world.rng.random_range(0..10) {
            0..4 => {
                let key = user_key(world.rng.random_range(0..12));
                let bytes = world.rng.next_u64().to_be_bytes();
                let ticket = world.write(process, key.clone(), inline(&bytes));
                match world.replies[&ticket].clone() {
                    Reply::Written { dot, marker, stamp } => self.see(&key, dot, stamp, marker),
                    _ => went.refused += 1,
                }
            }
            4..9 => {
                let key = user_key(world.rng.random_range(0..12));
                if let Some(entry) = image.entry(&key) {
                    self.see(&key, entry.dot, entry.stamp, entry.marker());
                }
            }
            _ => {
                for (key, entry) in image.entries().filter(|(key, _)| !key.namespace().is_system()) {
                    self.see(key, entry.dot, entry.stamp, entry.marker());
                }
            }
        }
        if self.bookmark.encode().is_none() {
            let ticket = world.request(process, Request::Shorten(self.bookmark.clone()));
            let Reply::Bookmark(short) = world.replies[&ticket].clone() else { panic!("a short bookmark") };
            self.bookmark = short;
        }
        // As a client would carry it.
        let bytes = self.bookmark.encode().expect("short enough");
        self.bookmark = Bookmark::decode(&bytes).expect("what was written can be read");
        went.with_a_moment += u64::from(self.bookmark.after().is_some());
        Ok(())
    }
}

fn wander(seed: u64, sabotage: Sabotage) -> Result<Wanderings, Stale> {
    let nodes = 3 + (seed % 5) as usize;
    let rough = Roughness { nodes, drop: 0.03, repeat: 0.05, faults: true };
    let mut world = World::new(seed, rough, sabotage);
    // A directory that is put back forgets what it had told everyone that it has.
    world.copies = false;
    let mut clients: Vec<Client> = (0..4).map(|_| Client::default()).collect();
    let mut went = Wanderings::default();
    for _ in 0..STEPS {
        let steps = Mono(world.rng.random_range(1_000..150_000));
        world.run_until(world.now + steps);
        for client in &mut clients {
            client.ask(&mut world, &mut went)?;
        }
        if world.rng.random_bool(0.2) {
            world.fault();
        }
        world.connect_all();
    }
    world.heal();
    for _ in 0..4 {
        world.run_until(world.now + Mono::from_ms(5_000));
        world.connect_all();
    }
    // When all is well again, nobody waits in vain.
    let before = went.timed_out;
    for client in &mut clients {
        for _ in 0..4 {
            client.ask(&mut world, &mut went)?;
        }
    }
    assert_eq!(went.timed_out, before, "seed {seed}: a bookmark is never covered");
    Ok(went)
}

fn wander_all(seeds: std::ops::Range<u64>, sabotage: Sabotage) -> Vec<(u64, Result<Wanderings, Stale>)> {
    on_every_core(seeds, |seed| wander(seed, sabotage))
}

#[test]
fn clients_see_what_they_have_seen_wherever_they_go() {
    let mut sum = Wanderings::default();
    for (seed, went) in wander_all(seeds(), Sabotage::default()) {
        let went = went.unwrap_or_else(|stale| {
            panic!("seed {seed}: {stale:?}\nreplay: STARLING_SEED={seed} cargo test --lib clients_see_what_they")
        });
        sum.covered_at_once += went.covered_at_once;
        sum.covered_later += went.covered_later;
        sum.timed_out += went.timed_out;
        sum.refused += went.refused;
        sum.with_a_moment += went.with_a_moment;
    }
    println!("{sum:?}");
    let is_single = std::env::var("STARLING_SEED").is_ok();
    assert!(is_single || sum.covered_later > 0 && sum.timed_out > 0 && sum.with_a_moment > 0, "{sum:?}");
}

fn must_show(sabotage: Sabotage) {
    let shown = wander_all(0..30, sabotage).into_iter().filter_map(|(seed, went)| Some((seed, went.err()?)));
    let shown: Vec<_> = shown.collect();
    println!("{sabotage:?}: shown in {} of 30 worlds, first {:?}", shown.len(), shown.first());
    assert!(!shown.is_empty(), "{sabotage:?} went unnoticed");
}

#[test]
fn a_bookmark_that_is_not_waited_for_is_caught() {
    must_show(Sabotage::TrustBookmarks);
}

#[test]
fn a_bookmark_that_forgets_is_caught() {
    must_show(Sabotage::ForgetMarks);
}

#[test]
fn who_would_wait_beyond_the_bound_is_told_so() {
    let mut config = Config::new(NodeId(1), Durability::Fsync, [1; 32]);
    config.bounds.waiters = 2;
    let now = Now { mono: Mono(0), wall_ms: 1_700_000_000_000 };
    let mut replica = Replica::open(config, MemStore::default(), now).expect("memory does not fail");
    let mut bookmark = Bookmark::default();
    let elsewhere = Origin { node: NodeId(2), incarnation: Incarnation(3) };
    bookmark.note(elsewhere.dot(1), Timestamp::from_ms(now.wall_ms));
    let mut ask = |ticket, at: Now| {
        let request = Request::AwaitCovered { bookmark: bookmark.clone(), patience_ms: 1000 };
        replica.handle(Input::Request { ticket, request }, at).expect("memory does not fail");
        replica.commit(at).expect("memory does not fail");
        let mut replies = BTreeMap::new();
        while let Some(output) = replica.poll_output() {
            if let Output::Reply { ticket, reply } = output {
                replies.insert(ticket, reply);
            }
        }
        replies
    };
    assert!(ask(1, now).is_empty() && ask(2, now).is_empty(), "they wait");
    assert!(matches!(ask(3, now).get(&3), Some(Reply::Refused(Refusal::Overloaded))));
    let later = Now { mono: Mono::from_ms(1000), wall_ms: now.wall_ms + 1000 };
    let replies = ask(4, later);
    assert!([1, 2].iter().all(|ticket| matches!(replies.get(ticket), Some(Reply::TimedOut(_)))), "{replies:?}");
    assert!(ask(5, later).is_empty(), "there is room again");
}
