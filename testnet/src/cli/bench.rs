//! `starling-testnet compare`: one scenario, real and simulated, side by side; and `bench`, which does that for several
//! sizes and losses, and measures what nodes take.

mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use starling_sim::scenario::{Scenario, Value};
use starling_sim::span::Span;

use super::planet::{Directory, PlanetArgs, interrupted};
use super::{CliResult, Failure};
use crate::load::{self, Throughput};
use crate::measure::{self, Figures};
use crate::scripted;
use crate::world::World;

/// Run one scenario with real nodes and in the simulator, and print both figures side by side
#[derive(Args)]
pub(super) struct CompareArgs {
    #[command(flatten)]
    planet: PlanetArgs,
    /// This many writes instead of the scenario's
    #[arg(long)]
    writes: Option<u64>,
    /// Writes within this time instead of the scenario's, as in 30s
    #[arg(long)]
    duration: Option<Span>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A scenario's figures.
#[derive(Serialize)]
struct Both {
    real: Figures,
    simulated: Figures,
}

/// Nodes if nothing says how many.
const NODES: usize = 5;

impl CompareArgs {
    pub(super) async fn run(self, dir: &Path) -> CliResult {
        let mut scenario = self.planet.scenario(NODES)?;
        scenario.workload.writes = self.writes.unwrap_or(scenario.workload.writes);
        scenario.duration = self.duration.unwrap_or(scenario.duration);
        scenario.check().map_err(|error| Failure::Usage(error.to_string()))?;
        scripted::check(&scenario).map_err(Failure::Usage)?;
        let both =
            on_planet(dir, &self.planet, &scenario, async |world| both(world, &scenario, self.planet.seed).await)
                .await?;
        match self.json {
            true => println!("{:#}", serde_json::to_value(&both).unwrap_or_default()),
            false => print!("{}", side_by_side(&both)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn both(world: &Arc<World>, scenario: &Scenario, seed: u64) -> Result<Both, String> {
    let real = measure::real(world, scenario, seed).await?;
    let (scenario, seed) = (scenario.clone(), seed);
    // Virtual time takes a processor for itself.
    let simulated = tokio::task::spawn_blocking(move || measure::simulated(&scenario, seed)).await;
    Ok(Both { real, simulated: simulated.map_err(|error| error.to_string())? })
}

/// Starts a planet, does something on it, and ends it.
async fn on_planet<T>(
    dir: &Path,
    planet: &PlanetArgs,
    scenario: &Scenario,
    work: impl AsyncFnOnce(&Arc<World>) -> Result<T, String>,
) -> Result<T, Failure> {
    let directory = Directory::make(dir)?;
    let world = Arc::new(World::new(planet.settings(scenario, directory.path().to_owned())?)?);
    let story = async {
        world.populate(|_, _| {}).await?;
        work(&world).await
    };
    let result = tokio::select! {
        result = story => result,
        () = interrupted() => Err("interrupted".to_owned()),
    };
    world.down().await;
    Ok(result?)
}

fn side_by_side(both: &Both) -> String {
    let Both { real, simulated } = both;
    let mut text = format!(
        "{} nodes, {:.0} % loss, {} writes ({} unfinished)\n\n{:<42} {:>10} {:>10} {:>8}\n",
        real.nodes,
        real.loss * 100.0,
        real.writes,
        real.unfinished,
        "",
        "real",
        "simulated",
        "ratio"
    );
    let mut row = |name: &str, real: f64, simulated: f64| {
        let ratio = if simulated > 0.0 { format!("{:.2}", real / simulated) } else { "-".to_owned() };
        text += &format!("{name:<42} {real:>10.1} {simulated:>10.1} {ratio:>8}\n");
    };
    let ms = |us: u64| us as f64 / 1e3;
    for (name, of) in [
        ("readable at the last node", (&real.lag_last, &simulated.lag_last)),
        ("readable at any node", (&real.lag_each, &simulated.lag_each)),
        ("bound, straight", (&real.bound, &simulated.bound)),
    ] {
        for (which, us) in [
            ("p50", (of.0.p50_us, of.1.p50_us)),
            ("p99", (of.0.p99_us, of.1.p99_us)),
            ("max", (of.0.max_us, of.1.max_us)),
        ] {
            row(&format!("{name}, {which}, ms"), ms(us.0), ms(us.1));
        }
    }
    row("bytes per write and node", real.bytes_per_write_per_node, simulated.bytes_per_write_per_node);
    let acknowledged = &real.acknowledged;
    text + &format!(
        "\nOf the real times, until the answer (disk and processor of this machine): {:.1} ms at p50, {:.1} at p99.\n",
        ms(acknowledged.p50_us),
        ms(acknowledged.p99_us)
    )
}

/// Measure lags at several sizes and losses beside the simulator's, throughput, catching up, joining
#[derive(Args)]
pub(super) struct BenchArgs {
    /// Sizes of flocks
    #[arg(long, value_delimiter = ',', default_values_t = [5, 15])]
    sizes: Vec<usize>,
    /// Fractions of packets lost
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 0.01, 0.05])]
    losses: Vec<f64>,
    /// Writes of 1 KiB for each size and loss, one in 100 ms
    #[arg(long, default_value_t = 200)]
    writes: u64,
    /// A node misses so many writes, and catches up; 0: not measured
    #[arg(long, default_value_t = 100_000)]
    catch_up: usize,
    /// A node joins so many MiB; 0: not measured
    #[arg(long, default_value_t = 1_024)]
    bootstrap_mib: usize,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The program under test [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    starling: Option<PathBuf>,
    /// Put JSON and a page with plots here
    #[arg(long, value_name = "DIR", default_value = "starling-testnet-bench")]
    out: PathBuf,
}

/// All figures.
#[derive(Serialize)]
struct Report {
    lags: Vec<Both>,
    throughput: Throughput,
    catch_up_writes: usize,
    catch_up_seconds: Option<f64>,
    bootstrap_mib: usize,
    bootstrap_seconds: Option<f64>,
    cores: usize,
}

impl BenchArgs {
    pub(super) async fn run(self, dir: &Path) -> CliResult {
        let mut lags = Vec::new();
        for (nodes, loss) in self.sizes.iter().flat_map(|nodes| self.losses.iter().map(move |loss| (*nodes, *loss))) {
            let planet = self.planet(nodes, loss);
            let mut scenario = planet.scenario(nodes)?;
            scenario.workload.writes = self.writes;
            scenario.workload.value = Value::Bytes(1_024);
            scenario.duration = Span::ms(100 * self.writes.max(1));
            let both =
                on_planet(dir, &planet, &scenario, async |world| both(world, &scenario, self.seed).await).await?;
            eprintln!("{}", side_by_side(&both));
            lags.push(both);
        }
        let planet = self.planet(NODES, 0.0);
        let scenario = planet.scenario(NODES)?;
        let report = on_planet(dir, &planet, &scenario, async |world| {
            let throughput = load::throughput(world).await?;
            eprintln!(
                "throughput, 1 node and all: {:.0} and {:.0} writes/s, {:.0} and {:.0} reads/s",
                throughput.writes_one, throughput.writes_all, throughput.reads_one, throughput.reads_all
            );
            let mut report = Report {
                lags,
                throughput,
                catch_up_writes: self.catch_up,
                catch_up_seconds: None,
                bootstrap_mib: self.bootstrap_mib,
                bootstrap_seconds: None,
                cores: std::thread::available_parallelism().map_or(0, usize::from),
            };
            if self.catch_up > 0 {
                let seconds = load::catch_up(world, self.catch_up).await?;
                eprintln!("caught up on {} writes in {seconds:.1} s", self.catch_up);
                report.catch_up_seconds = Some(seconds);
            }
            if self.bootstrap_mib > 0 {
                let seconds = load::bootstrap(world, self.bootstrap_mib).await?;
                eprintln!("joined {} MiB in {seconds:.1} s", self.bootstrap_mib);
                report.bootstrap_seconds = Some(seconds);
            }
            Ok(report)
        })
        .await?;
        let failed = |error: std::io::Error| format!("{}: {error}", self.out.display());
        fs::create_dir_all(&self.out).map_err(failed)?;
        let json = serde_json::to_vec_pretty(&report).map_err(|error| error.to_string())?;
        fs::write(self.out.join("bench.json"), json).map_err(failed)?;
        fs::write(self.out.join("bench.html"), page::draw(&report)).map_err(failed)?;
        eprintln!("figures and plots are in {}", self.out.display());
        Ok(ExitCode::SUCCESS)
    }

    fn planet(&self, nodes: usize, loss: f64) -> PlanetArgs {
        let (seed, starling) = (self.seed, self.starling.clone());
        PlanetArgs { nodes: Some(nodes), loss: Some(loss), seed, starling, ..PlanetArgs::default() }
    }
}
