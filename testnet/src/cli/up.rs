//! `starling-testnet up`: a planet that stays until it is ended.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::sync::Notify;

use super::planet::{Directory, PlanetArgs, interrupted};
use super::{CliResult, Failure};
use crate::control::Desk;
use crate::table;
use crate::world::World;

/// Start nodes and keep them running; Ctrl-C, or `down` from another terminal, ends and removes all
#[derive(Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    planet: PlanetArgs,
    /// Leave data and logs where they are at the end
    #[arg(long)]
    keep: bool,
}

/// Nodes if nothing says how many.
const NODES: usize = 5;

impl UpArgs {
    pub(super) async fn run(self, dir: &Path) -> CliResult {
        let scenario = self.planet.scenario(NODES)?;
        let mut directory = Directory::make(dir)?;
        if self.keep {
            directory.keep();
        }
        let settings = self.planet.settings(&scenario, directory.path().to_owned())?;
        let world = Arc::new(World::new(settings)?);
        let down = Arc::new(Notify::new());
        let life = async {
            println!(
                "starting {} nodes; data and logs are in {}",
                scenario_nodes(&scenario),
                directory.path().display()
            );
            world
                .populate(|node, after| {
                    println!(
                        "{:>6.1} s  {:<8} {:<20} http://{}",
                        after.as_secs_f64(),
                        node.name,
                        node.place.city,
                        node.api_address
                    );
                })
                .await?;
            let desk = Desk::open(directory.path())?;
            println!("\n{}", table::text(&table::rows(&world).await));
            let dir = match dir.to_str() {
                Some("starling-testnet-data") | None => String::new(),
                Some(other) => format!(" --dir {other}"),
            };
            println!("up. In another terminal:  starling-testnet{dir} status      Ctrl-C ends all.");
            desk.serve(Arc::clone(&world), Arc::clone(&down)).await;
            Ok::<(), Failure>(())
        };
        let result = tokio::select! {
            result = life => result,
            () = interrupted() => Ok(()),
            () = down.notified() => Ok(()),
        };
        println!("\nending all nodes");
        world.down().await;
        result.map(|()| ExitCode::SUCCESS)
    }
}

fn scenario_nodes(scenario: &starling_sim::scenario::Scenario) -> usize {
    if scenario.places.pops.is_empty() { scenario.places.count } else { scenario.places.pops.len() }
}
