//! A reader of the change feed that wanders from node to node with its position, while things go wrong: it misses
//! nothing, and in the end it knows what everyone holds.

use super::*;

/// What a reader was given, by key.
type Given = BTreeMap<Key, Marker>;

struct Follower {
    given: Given,
    position: Position,
    /// The process that it follows, and how much of what is told it has read.
    at: Option<(usize, usize)>,
}

impl Follower {
    /// Goes to a node: what it holds and was not given yet, then what is told.
    fn attach(&mut self, world: &mut World, process: usize) {
        let ticket = world.request(process, Request::Watch);
        let Reply::Watching { position, departed } = world.replies[&ticket].clone() else { panic!("it watches") };
        let replica = world.processes[process].replica.as_ref().expect("it runs");
        let image = replica.store().image().clone();
        for (key, entry) in image.entries().filter(|(key, _)| !key.namespace().is_system()) {
            if !self.position.has(entry, |node| departed.contains(&node)) {
                self.give(key, entry.marker());
            }
        }
        self.position = position;
        self.at = Some((process, world.told.len()));
    }

    fn give(&mut self, key: &Key, marker: Marker) {
        let given = self.given.entry(key.clone()).or_insert(marker);
        *given = marker.max(*given);
    }

    /// Reads what was told, or some of it: then it leaves in the middle.
    fn read(&mut self, world: &mut World, leaves: bool) {
        let Some((process, from)) = self.at else { return };
        let told = world.told[from..].iter().filter(|(teller, _)| *teller == process);
        let told: Vec<Changes> = told.map(|(_, changes)| changes.clone()).collect();
        let last = if leaves { world.rng.random_range(0..=told.len()) } else { told.len() };
        for (index, batch) in told.iter().take(last).enumerate() {
            let all = batch.changes.len();
            let is_cut = leaves && index + 1 == last;
            let count = if is_cut { world.rng.random_range(0..=all) } else { all };
            for change in &batch.changes[..count] {
                self.give(&change.key, change.marker);
                self.position.gave(change);
            }
            if count == all {
                self.position.gave_all(batch);
            }
        }
        self.at = (!leaves).then_some((process, world.told.len()));
        // As a client would carry it.
        self.position = Position::decode(&self.position.encode()).expect("what was written can be read");
    }
}

fn follow(seed: u64, sabotage: Sabotage) -> Result<usize, (Key, Option<Marker>)> {
    let nodes = 3 + (seed % 3) as usize;
    let rough = Roughness { nodes, drop: 0.03, repeat: 0.05, faults: true };
    let mut world = World::new(seed, rough, sabotage);
    world.copies = false;
    let mut follower = Follower { given: Given::new(), position: Position::default(), at: None };
    let mut moves = 0;
    for _ in 0..STEPS {
        let steps = Mono(world.rng.random_range(1_000..150_000));
        world.run_until(world.now + steps);
        for _ in 0..world.rng.random_range(0..6) {
            write_something(&mut world);
        }
        let leaves = world.rng.random_bool(0.2);
        follower.read(&mut world, leaves);
        if world.rng.random_bool(0.15) {
            world.fault();
            // A process that has ended tells nothing more; a new one tells nobody unasked.
            follower.read(&mut world, true);
        }
        let process = world.rng.random_range(0..world.processes.len());
        if follower.at.is_none() && world.is_up(process) {
            follower.attach(&mut world, process);
            moves += 1;
        }
        world.connect_all();
    }
    follower.read(&mut world, true);
    world.heal();
    for _ in 0..4 {
        world.run_until(world.now + Mono::from_ms(5_000));
        world.connect_all();
    }
    let last = world.processes.len() - 1;
    follower.attach(&mut world, last);
    let image = world.processes[last].replica.as_ref().expect("it runs").store().image().clone();
    for (key, entry) in image.entries().filter(|(key, _)| !key.namespace().is_system()) {
        let given = follower.given.get(key).copied();
        if given.is_none_or(|given| given < entry.marker()) {
            return Err((key.clone(), given));
        }
    }
    Ok(moves)
}

#[test]
fn a_follower_misses_nothing_wherever_it_goes() {
    let mut moves = 0;
    for (seed, followed) in on_every_core(seeds(), |seed| follow(seed, Sabotage::default())) {
        moves += followed.unwrap_or_else(|(key, given)| {
            panic!(
                "seed {seed}: {key:?} is newer than {given:?}\n\
                 replay: STARLING_SEED={seed} cargo test --lib a_follower_misses_nothing"
            )
        });
    }
    assert!(moves > 0);
}

#[test]
fn a_position_that_claims_too_much_is_caught() {
    let sabotage = Sabotage::BoastfulPositions;
    let caught = on_every_core(0..20, |seed| follow(seed, sabotage)).into_iter().filter(|(_, found)| found.is_err());
    assert!(caught.count() > 0, "{sabotage:?} went unnoticed");
}
