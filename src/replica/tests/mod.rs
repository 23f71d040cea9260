//! The protocol as a whole, in a small rough world.

mod corpus;
mod followers;
mod lies;
mod mending;
mod merge;
mod reissue;
mod sessions;
mod stories;
mod wire;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rand::{Rng, RngExt};

use super::*;
use world::{Roughness, World};

/// Seeds that a plain `cargo test` runs; `STARLING_SEEDS=5000` runs more, `STARLING_SEED=17` one alone.
const SEEDS: u64 = 80;

const STEPS: usize = 120;

/// What was found wrong.
#[derive(Debug, PartialEq)]
enum Violation {
    /// A node claims to have seen a write that it neither holds nor holds anything that dominates.
    Invariant { node: NodeId, dot: Dot },
    /// A write of two processes under one dot.
    ReusedDot(Dot),
    /// Two nodes hold different things after all faults had ended and time had passed.
    Diverged { left: NodeId, right: NodeId },
    /// Everyone lost something that somebody held when the faults ended.
    Lost { key: Key },
    /// The version vectors were still unequal.
    NotInStep,
    /// A value that has expired is still there.
    Kept { node: NodeId, key: Key },
    /// A watermark above a write that the node does not hold.
    Overstated { node: NodeId, dot: Dot },
}

fn user_key(number: u64) -> Key {
    Key::new(NamespaceId([7; 16]), &number.to_be_bytes()).expect("a short key")
}

fn inline(bytes: &[u8]) -> Content {
    Content { expire_ms: 0, metadata: Bytes::new(), value: Value::Inline(Bytes::copy_from_slice(bytes)) }
}

fn write_something(world: &mut World) {
    let process = world.rng.random_range(0..world.processes.len());
    if !world.is_up(process) {
        return;
    }
    let key = user_key(world.rng.random_range(0..12));
    let mut bytes = [0; 24];
    world.rng.fill_bytes(&mut bytes);
    let content = match world.rng.random_range(0..10) {
        0..2 => Content { value: Value::Tombstone, ..inline(b"") },
        2 => {
            let id = BlobId(bytes[..16].try_into().expect("16 bytes"));
            let mut chunks = Vec::new();
            for index in 0..2 {
                let chunk = Bytes::copy_from_slice(&bytes[index..]);
                chunks.push(*blake3::hash(&chunk).as_bytes());
                world.request(process, Request::PutChunk { key: key.clone(), id, index: index as u32, chunk });
            }
            Content { value: Value::Blob(Blob { id, len: 300_000, chunks }), ..inline(b"") }
        }
        _ => inline(&bytes),
    };
    // A third of the values live for some seconds only.
    let lives = !matches!(content.value, Value::Tombstone) && world.rng.random_range(0..3) == 0;
    let expire_ms = world.at(process).wall_ms + world.rng.random_range(0..5_000);
    let content = Content { expire_ms: if lives { expire_ms } else { 0 }, ..content };
    world.write(process, key, content);
}

/// For every dot that a node claims: it holds that write or one that dominates it.
fn check_invariant(world: &World) -> Result<(), Violation> {
    for replica in world.replicas() {
        let image = replica.store().image();
        let (versions, node) = (image.versions(), replica.config.node);
        let watermark = replica.watermark();
        for (dot, (key, marker)) in &world.written {
            let holds = image.entry(key).is_some_and(|entry| entry.marker() >= *marker);
            if versions.contains(*dot) && !holds {
                return Err(Violation::Invariant { node, dot: *dot });
            }
            let is_forgetful = world.forgetful.contains(&dot.origin.node);
            let by_member = replica.roster().members().any(|(member, _)| member == dot.origin.node);
            if by_member && !is_forgetful && marker.time <= watermark && !holds {
                return Err(Violation::Overstated { node, dot: *dot });
            }
        }
    }
    Ok(())
}

fn held(world: &World) -> BTreeMap<Key, (Marker, RecordHash)> {
    let mut held = BTreeMap::new();
    for replica in world.replicas() {
        for (key, entry) in replica.store().image().entries() {
            let best = held.entry(key.clone()).or_insert((entry.marker(), entry.hash));
            *best = (entry.marker(), entry.hash).max(*best);
        }
    }
    held
}

fn check_converged(world: &World, before: &BTreeMap<Key, (Marker, RecordHash)>) -> Result<(), Violation> {
    let replicas: Vec<_> = world.replicas().collect();
    for pair in replicas.windows(2) {
        let images = [pair[0].store().image(), pair[1].store().image()];
        if !images[0].entries().eq(images[1].entries()) || pair[0].digest() != pair[1].digest() {
            return Err(Violation::Diverged { left: pair[0].config.node, right: pair[1].config.node });
        }
        if pair[0].versions.hash() != pair[1].versions.hash() {
            return Err(Violation::NotInStep);
        }
    }
    let now = held(world);
    match before.iter().find(|(key, best)| now.get(key).is_none_or(|held| held < best)) {
        Some((key, _)) => Err(Violation::Lost { key: key.clone() }),
        None => Ok(()),
    }
}

/// Long after, nobody keeps the bytes of what has expired, nor chunks that no entry refers to.
fn check_expired(world: &World) -> Result<u64, Violation> {
    let mut dropped = 0;
    for replica in world.replicas() {
        let (image, node) = (replica.store().image(), replica.config.node);
        let mut blobs = BTreeSet::new();
        for (key, entry) in image.entries() {
            dropped += u64::from(matches!(entry.content().value, Value::Dropped(_)));
            if entry.content().expire_ms != 0 && matches!(entry.content().value, Value::Inline(_) | Value::Blob(_)) {
                return Err(Violation::Kept { node, key: key.clone() });
            }
            blobs.extend(entry.blob().map(|blob| BlobAddress::of(key, blob.id)));
        }
        if let Some(orphan) = image.blobs().find(|blob| !blobs.contains(blob)) {
            println!("node {node} keeps chunks of {orphan:?}");
            return Err(Violation::Kept { node, key: user_key(0) });
        }
    }
    Ok(dropped)
}

/// One life of a world: faults and writes, then healing, then judgement.
fn live(seed: u64, sabotage: Sabotage) -> Result<Life, Violation> {
    let nodes = 3 + (seed % 5) as usize;
    let rough = Roughness { nodes, drop: 0.03, repeat: 0.05, faults: true };
    let mut world = World::new(seed, rough, sabotage);
    for _ in 0..STEPS {
        let steps = Mono(world.rng.random_range(1_000..250_000));
        world.run_until(world.now + steps);
        for _ in 0..world.rng.random_range(0..4) {
            write_something(&mut world);
        }
        if world.roughness.faults && world.rng.random_bool(0.25) {
            world.fault();
        }
        world.connect_all();
        check_invariant(&world)?;
    }
    world.heal();
    let before = held(&world);
    // Long enough for sessions that had stalled to time out and be asked for again, and for lives to be folded.
    for _ in 0..40 {
        world.run_until(world.now + Mono::from_ms(1_500));
        world.connect_all();
        check_invariant(&world)?;
    }
    if let Some(dot) = world.reused.first() {
        return Err(Violation::ReusedDot(*dot));
    }
    check_converged(&world, &before)?;
    let dropped = check_expired(&world)?;
    let folded = world.replicas().filter_map(|replica| replica.counters.get("folded_lives")).sum();
    Ok(Life { folded, dropped, alarms: world.alarms })
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("STARLING_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("STARLING_SEEDS").unwrap_or(SEEDS),
    }
}

/// What one world went through.
struct Life {
    folded: u64,
    /// Expired values whose bytes are gone.
    dropped: u64,
    alarms: BTreeMap<String, u64>,
}

/// Lives of all `seeds`, on every core, in the order of the seeds.
fn lives(seeds: std::ops::Range<u64>, sabotage: Sabotage) -> Vec<(u64, Result<Life, Violation>)> {
    on_every_core(seeds, |seed| live(seed, sabotage))
}

fn on_every_core<T: Send>(seeds: std::ops::Range<u64>, live: impl Fn(u64) -> T + Sync) -> Vec<(u64, T)> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let live = &live;
    let mut lives: Vec<_> = std::thread::scope(|scope| {
        let share = |core| seeds.clone().filter(move |seed| seed % cores == core).map(move |seed| (seed, live(seed)));
        let threads: Vec<_> = (0..cores).map(|core| scope.spawn(move || share(core).collect::<Vec<_>>())).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a world does not panic")).collect()
    });
    lives.sort_by_key(|(seed, _)| *seed);
    lives
}

#[test]
fn the_invariant_holds_and_all_converge_whatever_happens() {
    let (mut folded, mut dropped) = (0, 0);
    let mut alarms: BTreeMap<String, u64> = BTreeMap::new();
    for (seed, life) in lives(seeds(), Sabotage::default()) {
        match life {
            Ok(life) => {
                folded += life.folded;
                dropped += life.dropped;
                for (alarm, count) in life.alarms {
                    *alarms.entry(alarm).or_default() += count;
                }
            }
            Err(violation) => {
                panic!("seed {seed}: {violation:?}\nreplay: STARLING_SEED={seed} cargo test --lib the_invariant_holds")
            }
        }
    }
    println!("former lives folded: {folded}; expired values dropped: {dropped}; alarms: {alarms:?}");
    assert!(dropped > 0 || seeds().count() < 10, "some values must expire");
    assert!(folded > 0 || seeds().count() < 10, "worlds with restarts must fold some lives");
    assert!(!alarms.contains_key("MarkerConflict"), "{alarms:?}");
}

/// A test of the test: with the protocol broken on purpose, some seed must show it. (The simulator has all the ways.)
fn must_be_caught(sabotage: Sabotage) {
    let caught: Vec<_> =
        lives(0..60, sabotage).into_iter().filter_map(|(seed, life)| life.err().map(|found| (seed, found))).collect();
    println!("{sabotage:?}: caught in {} of 60 worlds, first {:?}", caught.len(), caught.first());
    assert!(!caught.is_empty(), "{sabotage:?} went unnoticed");
}

#[test]
fn a_naive_advance_of_the_version_vector_is_caught() {
    must_be_caught(Sabotage::NaiveAdvance);
}

#[test]
fn reusing_an_origin_is_caught() {
    must_be_caught(Sabotage::ReuseOrigin);
}
