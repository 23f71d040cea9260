//! `starling-testnet net`: the planet without nodes, for programs of others.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::sync::Notify;

use super::planet::{Directory, PlanetArgs, interrupted};
use super::{CliResult, Failure};
use crate::control::Desk;
use crate::world::{Settings, World};

const EXAMPLES: &str = "A program that is to stand at a PoP binds its UDP socket to the address under LISTEN and tells others the one \
under CALL. Whatever they send there takes as long as the way is. `cut`, `isolate`, `slow`, `heal`, `status` and `down` work from \
another terminal.";

/// Only the network between the places: for other programs that talk over UDP
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct NetArgs {
    #[command(flatten)]
    planet: PlanetArgs,
}

/// Places if nothing says how many.
const NODES: usize = 5;

impl NetArgs {
    pub(super) async fn run(self, dir: &Path) -> CliResult {
        let scenario = self.planet.scenario(NODES)?;
        let directory = Directory::make(dir)?;
        let settings = Settings::of(&scenario, None, directory.path().to_owned(), PathBuf::new())?;
        let world = Arc::new(World::new(Settings { seed: self.planet.seed, ..settings })?);
        println!("{:<8} {:<20} {:<24} CALL", "PLACE", "", "LISTEN");
        for node in world.reserve()? {
            println!("{:<8} {:<20} {:<24} {}", node.name, node.place.city, node.private.to_string(), node.public);
        }
        let down = Arc::new(Notify::new());
        let desk = Desk::open(directory.path())?;
        println!("\nCtrl-C ends it.");
        tokio::select! {
            () = desk.serve(Arc::clone(&world), Arc::clone(&down)) => {}
            () = interrupted() => {}
            () = down.notified() => {}
        }
        Ok::<_, Failure>(ExitCode::SUCCESS)
    }
}
