//! Nodes that break a promise: somebody between them and the clients lies, in each way that there is, and the checker must
//! notice. And must not, where nobody lies.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use starling_testnet::chaos::judge::Broken;
use starling_testnet::chaos::lie::Lie;
use starling_testnet::chaos::plan::{Hurt, Planned};
use starling_testnet::chaos::{self, Order};
use starling_testnet::program;
use starling_testnet::world::{Settings, World, place};

const SEED: u64 = 1;

async fn chaos(world: Arc<World>, lie: Option<Lie>, seconds: u64, plan: Vec<Planned>) -> Vec<Broken> {
    let expiry_quiet = if lie == Some(Lie::KeepExpired) { 0 } else { seconds };
    let order = Order {
        duration: Duration::from_secs(seconds),
        seed: SEED,
        plan,
        expiry_quiet: Duration::from_secs(expiry_quiet),
        lie,
        next: None,
    };
    let told = Arc::new(move |line| println!("{lie:?}: {line}"));
    chaos::run(&world, &order, told).await.expect("chaos runs").0.broken
}

#[track_caller]
fn notices(lie: Lie, broken: &[Broken], promises: &[&str]) {
    assert!(broken.iter().any(|broken| promises.contains(&broken.promise)), "{lie:?}, seed {SEED}: {broken:#?}");
}

fn at(at_ms: u64, lasts_ms: u64, hurt: Hurt) -> Planned {
    Planned { at_ms, lasts_ms, hurt }
}

async fn lies() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = Settings {
        places: ["ams", "sin", "gru"].map(|pop| place(pop).expect("it is on the list")).to_vec(),
        links: Default::default(),
        uplink_mbit: 1_000,
        seed: SEED,
        directory: directory.path().canonicalize().expect("a directory"),
        starling: program::find(None).expect("the tests of the whole workspace build starling"),
        launcher: PathBuf::from(env!("CARGO_BIN_EXE_starling-testnet")),
    };
    let world = Arc::new(World::new(settings).expect("a planet"));
    world.populate(|_, _| {}).await.expect("all nodes start");

    // Each with clients and a namespace of its own, all at once.
    let expired = tokio::spawn(chaos(Arc::clone(&world), Some(Lie::KeepExpired), 18, vec![]));
    let honest = tokio::spawn(chaos(Arc::clone(&world), None, 18, vec![]));
    let liars = [
        (Lie::LoseWrites, &["what was acknowledged is kept"][..]),
        // Which one depends on what was read before.
        (Lie::ShowOld, &["a node shows what it took", "a node never goes back", "nothing comes back"]),
        (Lie::Resurrect, &["nothing comes back"]),
        (Lie::IgnoreBookmarks, &["a bookmark is honoured"]),
        (Lie::HideFromLists, &["a node lists what it took"]),
        (Lie::Differ, &["all nodes end equal"]),
    ];
    let running = liars.map(|(lie, _)| tokio::spawn(chaos(Arc::clone(&world), Some(lie), 18, vec![])));
    assert_eq!(honest.await.expect("it ends"), Vec::new());
    for ((lie, promises), running) in liars.into_iter().zip(running) {
        notices(lie, &running.await.expect("it ends"), promises);
    }

    // What a node took while it was cut off is on its disk alone; then it forgets, or loses its disk.
    let plan = vec![at(1_000, 6_000, Hurt::Cut(vec![0], vec![1, 2], false)), at(5_000, 500, Hurt::Kill(0))];
    let broken = chaos(Arc::clone(&world), Some(Lie::ForgetWhenKilled), 9, plan).await;
    notices(Lie::ForgetWhenKilled, &broken, &["what was acknowledged is kept"]);
    let plan = vec![at(1_000, 6_000, Hurt::Cut(vec![2], vec![0, 1], false)), at(5_000, 0, Hurt::Wipe(2))];
    let broken = chaos(Arc::clone(&world), Some(Lie::ClaimAcks), 9, plan).await;
    notices(Lie::ClaimAcks, &broken, &["what was acknowledged is kept"]);
    notices(Lie::KeepExpired, &expired.await.expect("it ends"), &["what has expired is hidden"]);
    world.down().await;
}

#[test]
fn every_lie_is_noticed_and_honesty_too() {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(lies());
}
