//! `starling-testnet demo`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::CliResult;
use super::planet::{Directory, PlanetArgs, interrupted};
use crate::demo;
use crate::world::World;

/// Five continents in two minutes, told as it happens: writes that arrive, a cut, its healing, a crash
#[derive(Args)]
pub(super) struct DemoArgs {
    /// The program under test [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    starling: Option<PathBuf>,
    /// Seconds that a paragraph stands before the next one comes
    #[arg(long, default_value_t = 8.0, value_parser = pace)]
    pace: f64,
}

fn pace(text: &str) -> Result<f64, String> {
    let pace = text.parse().ok().filter(|pace| (0.0..=60.0).contains(pace));
    pace.ok_or_else(|| "a number of seconds from 0 to 60".into())
}

impl DemoArgs {
    pub(super) async fn run(self, dir: &Path) -> CliResult {
        let pops = demo::POPS.map(str::to_owned).to_vec();
        let planet = PlanetArgs { pops, seed: 1, starling: self.starling, ..PlanetArgs::default() };
        let scenario = planet.scenario(demo::POPS.len())?;
        let directory = Directory::make(dir)?;
        let world = Arc::new(World::new(planet.settings(&scenario, directory.path().to_owned())?)?);
        let story = async {
            println!("Starling, on an emulated planet. Starting five nodes; each joins with a token of another one.\n");
            world.populate(|node, after| println!("  {:>5.1} s  {}", after.as_secs_f64(), node.place.city)).await?;
            demo::play(&world, Duration::from_secs_f64(self.pace)).await
        };
        let result = tokio::select! {
            result = story => result,
            () = interrupted() => Err("interrupted".to_owned()),
        };
        world.down().await;
        result?;
        println!(
            "\nThat was all; nothing is left running. `starling-testnet up` starts such a planet for you to play with."
        );
        Ok(ExitCode::SUCCESS)
    }
}
