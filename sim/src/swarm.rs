//! Small worlds, each drawn whole from a seed: how many nodes, how bad the network, tiny bounds, few keys, and a plan of
//! faults at the worst moments. Cheap enough for hundreds a minute, mean enough to find what is wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use starling::replica::{Mono, Sabotage, limits};

use crate::lies::Lie;
use crate::outcome::{Outcome, Violation};
use crate::scenario::{
    Bursts, Clock, Direction, Fault, FaultKind, Links, Nodes, Places, Scenario, Selector, Transport, Value, Workload,
};
use crate::span::Span;
use crate::world::{Options, World};

/// A scenario and how to run it, both drawn from a seed.
#[derive(Clone, Debug)]
pub struct Draw {
    /// What happens.
    pub scenario: Scenario,
    /// How it is run.
    pub options: Options,
}

/// Draws the world of a seed.
pub type Drawn = fn(u64, Sabotage) -> Draw;

/// The swarm, with or without a liar in each world.
pub fn drawn(with_liar: bool) -> Drawn {
    if with_liar { draw_with_liar } else { draw }
}

/// Draws a small world in which a member turns bad and is taken off the cluster at the end. Faults go on; those that lose
/// what a directory held are left out, so that whatever is lost is lost to the liar.
pub fn draw_with_liar(seed: u64, sabotage: Sabotage) -> Draw {
    let mut draw = draw(seed, sabotage);
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x6c69_6172_7300);
    let scenario = &mut draw.scenario;
    scenario.name = format!("liar-{seed}");
    scenario.about = "a small world drawn from a seed, with a liar in it".into();
    // Hearsay is mended by comparing all there is, now and then.
    scenario.settle = Span::secs(300);
    scenario.workload.travellers = 0;
    scenario.faults.retain(|fault| {
        !matches!(
            fault.kind,
            FaultKind::Restore { .. }
                | FaultKind::Wipe
                | FaultKind::Clone
                | FaultKind::Leave
                | FaultKind::Evict { .. }
                | FaultKind::DiskFull
                | FaultKind::Clock { .. }
                | FaultKind::Leap { .. }
        )
    });
    // Half of the liars stay with what is seen through at once.
    let is_told = |lie: &Lie, gossips: bool| gossips || !lie.is_hearsay();
    let gossips = rng.random_range(0..2) == 0;
    let mut lies: Vec<Lie> = Lie::ALL.into_iter().filter(|lie| is_told(lie, gossips)).collect();
    let count = if rng.random_range(0..4) == 0 { lies.len() } else { rng.random_range(1..4) };
    while lies.len() > count {
        lies.remove(rng.random_range(0..lies.len()));
    }
    let at = Span(rng.random_range(0..scenario.duration.0 / 2));
    let lasts = Span::ms(rng.random_range(2_000..20_000));
    let nodes = Selector::Node(rng.random_range(0..scenario.places.count));
    scenario.faults.push(Fault { at, lasts, nodes, kind: FaultKind::Lie { lies } });
    draw
}

/// Draws a small world.
pub fn draw(seed: u64, sabotage: Sabotage) -> Draw {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x7377_6172_6d00);
    let nodes = rng.random_range(3..=9);
    let duration = Span::ms(rng.random_range(8_000..30_000));
    let one_in = |n: u32, rng: &mut ChaCha8Rng| rng.random_range(0..n) == 0;
    let links = Links {
        jitter: [0.0, 0.1, 1.0][rng.random_range(0..3)],
        loss: [0.0, 0.0, 0.02, 0.2][rng.random_range(0..4)],
        bursts: one_in(4, &mut rng).then(|| Bursts { loss: 0.7, good: Span::secs(3), bad: Span::ms(400) }),
        reordering: 0.1,
        duplication: 0.1,
        bandwidth_mbit: [5, 50, 200][rng.random_range(0..3)],
        queue: Span::ms(300),
    };
    let workload = Workload {
        writes: rng.random_range(60..260),
        keys: rng.random_range(2..16),
        zipf: 0.5,
        hot: [0.0, 0.5][rng.random_range(0..2)],
        value: if one_in(2, &mut rng) { Value::Mixed } else { Value::Bytes(40) },
        deletes: 0.15,
        ttl: 0.1,
        ttl_max: Span::secs(20),
        bookmark_reads: 0.3,
        travellers: 2,
        acks: 0.3,
        acks_nodes: rng.random_range(0..4),
        bulk: if one_in(3, &mut rng) { rng.random_range(20..80) } else { 0 },
        namespaces: 2,
        namespaces_deleted: u64::from(one_in(3, &mut rng)),
    };
    let scenario = Scenario {
        name: format!("swarm-{seed}"),
        about: "a small world drawn from a seed".into(),
        duration,
        // Where every fifth packet is lost, an exchange takes a second, and bounds this small make for many of them.
        settle: Span::secs(if links.loss > 0.1 { 300 } else { 90 }),
        places: Places { count: nodes, pops: Vec::new() },
        links,
        nodes: Nodes {
            acquainted: one_in(2, &mut rng),
            settled: false,
            uplink_mbit: 100,
            fsync: Span::ms(rng.random_range(1..30)),
            input: Span(20),
            clock_skew: Span::ms(rng.random_range(0..150)),
            clock_drift_ppm: 100,
        },
        transport: Transport {
            records_as_datagrams: one_in(2, &mut rng),
            redial_max: Span::secs(2),
            idle_timeout: Span::secs(rng.random_range(2..10)),
            stream_window: [60_000, 300_000, 2 << 20][rng.random_range(0..3)],
            ..Transport::default()
        },
        workload,
        faults: draw_faults(nodes, duration, &mut rng),
    };
    let mut scenario = scenario;
    scenario.faults.extend(draw_returns(seed, nodes, duration));
    let bounds = draw_bounds(&mut rng);
    let options =
        Options { seed, bounds, sabotage, inspect_us: rng.random_range(50_000..400_000), ..Options::default() };
    Draw { scenario, options }
}

/// Half of the worlds have the bounds of production, the others ones that a few writes reach.
fn draw_bounds(rng: &mut ChaCha8Rng) -> limits::Bounds {
    let mut bounds = limits::Bounds { fold_patience: Mono::from_ms(3_000), ..limits::Bounds::default() };
    if rng.random_range(0..2) == 0 {
        bounds.intervals_per_origin = rng.random_range(1..4);
        bounds.rumor_keys = rng.random_range(2..8);
        bounds.rumor_keys_total = rng.random_range(8..20);
        bounds.covers = rng.random_range(1..4);
        bounds.records_in_flight = rng.random_range(100..2_000);
        bounds.batch_len = rng.random_range(100..1_000);
        // Not drawn: the worlds that come after it stay those that they were.
        bounds.session_writes = 4 * bounds.batch_len as u64;
        bounds.session_reads = 1 + bounds.batch_len % 8;
        bounds.sessions_in = rng.random_range(1..3);
        bounds.sessions_out = rng.random_range(1..3);
        bounds.sync_window = rng.random_range(1..4);
        bounds.pending = rng.random_range(8..20);
        bounds.pending_soft = rng.random_range(1..3);
    }
    bounds
}

fn draw_faults(nodes: usize, duration: Span, rng: &mut ChaCha8Rng) -> Vec<Fault> {
    let count = rng.random_range(2..16);
    (0..count)
        .map(|_| {
            let at = Span(rng.random_range(0..duration.0));
            let lasts = Span::ms(rng.random_range(20..9_000));
            let one = |rng: &mut ChaCha8Rng| Selector::Node(rng.random_range(0..nodes));
            let some = |rng: &mut ChaCha8Rng| Selector::Share(rng.random_range(10..70));
            let nodes = if rng.random_range(0..3) == 0 { some(rng) } else { one(rng) };
            let from = if rng.random_range(0..2) == 0 { Selector::All } else { one(rng) };
            let direction = [Direction::Both, Direction::Out, Direction::In][rng.random_range(0..3)];
            let kind = match rng.random_range(0..100) {
                0..22 => FaultKind::Crash { keep: rng.random_range(0..3) },
                22..30 => FaultKind::Restore { age: Span::ms(rng.random_range(0..12_000)) },
                30..33 => FaultKind::Wipe,
                33..36 => FaultKind::Clone,
                36..40 => FaultKind::Join { count: 1 },
                40 => FaultKind::Leave,
                41 => FaultKind::Evict { cut_off: false, returns: false },
                42..56 => FaultKind::Partition { from, direction },
                56..60 => FaultKind::Flap { from, period: Span::ms(rng.random_range(200..3_000)) },
                60..72 => FaultKind::Reset { from },
                72..76 => FaultKind::Loss { loss: 0.3, bursts: None },
                76..79 => FaultKind::Slow { factor: rng.random_range(10..300) },
                79..84 => FaultKind::Pause,
                84..88 => FaultKind::Deaf,
                88..91 => FaultKind::SlowDisk { fsync: Span::ms(rng.random_range(50..900)) },
                91..93 => FaultKind::DiskFull,
                93..99 => FaultKind::Clock {
                    clock: match rng.random_range(0..5) {
                        0 => Clock::Ahead(Span::secs(3_600)),
                        1 => Clock::Behind(Span::secs(3_600)),
                        2 => Clock::DriftPpm(rng.random_range(-50_000..50_000)),
                        3 => Clock::Ahead(Span::ms(rng.random_range(0..400))),
                        _ => Clock::Frozen,
                    },
                },
                _ => FaultKind::Leap { by: Span::secs(rng.random_range(1..100_000)) },
            };
            // Wherever a node stays away for good, it is one node and not a third of them.
            let nodes = match kind {
                FaultKind::Wipe | FaultKind::Leave | FaultKind::Evict { .. } | FaultKind::Clone => one(rng),
                _ => nodes,
            };
            Fault { at, lasts, nodes, kind }
        })
        .collect()
}

/// In one world of ten, nodes that are cut off, evicted, and come back as others with what they alone have. Drawn apart,
/// so that all other worlds are what they were.
fn draw_returns(seed: u64, nodes: usize, duration: Span) -> Vec<Fault> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x7265_7475_726e);
    let count = if seed % 10 == 1 { rng.random_range(1..=3) } else { 0 };
    let evict = |_| Fault {
        at: Span(rng.random_range(0..duration.0)),
        lasts: Span::ms(rng.random_range(20..12_000)),
        nodes: Selector::Node(rng.random_range(0..nodes)),
        kind: FaultKind::Evict { cut_off: rng.random_range(0..4) > 0, returns: true },
    };
    (0..count).map(evict).collect()
}

/// Runs a drawn world; a panic of the replica is a violation like any other.
pub fn run(draw: &Draw) -> Outcome {
    let run = || World::run(&draw.scenario, &draw.options, &mut |_| {});
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        let mut outcome = Outcome::default();
        outcome.summary.seed = draw.options.seed;
        outcome.summary.violations.push(Violation { checker: "panic".into(), at_us: 0, what });
        outcome
    })
}

/// A seed whose world broke a promise.
#[derive(Clone, Debug)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// What broke.
    pub violation: Violation,
}

/// Lives `seeds` on `threads`; the first to fail, lowest seed first, stops it. Calls `done` after each.
pub fn search(
    draw: Drawn,
    seeds: std::ops::Range<u64>,
    threads: usize,
    sabotage: Sabotage,
    done: &(dyn Fn(&Outcome) + Sync),
) -> Option<Found> {
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let found: Mutex<Vec<Found>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = run(&draw(seed, sabotage));
                    if let Some(violation) = outcome.summary.violations.first().cloned() {
                        stop.store(true, Ordering::Relaxed);
                        if let Ok(mut found) = found.lock() {
                            found.push(Found { seed, violation });
                        }
                    }
                    done(&outcome);
                }
            });
        }
    });
    found.into_inner().ok()?.into_iter().min_by_key(|found| found.seed)
}
