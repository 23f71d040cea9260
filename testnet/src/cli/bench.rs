//! `starling-testnet compare`: one scenario, real and simulated, side by side; and `bench`, which does that for several
//! sizes and losses, and measures what nodes take.

mod page;

use std::cmp::Ordering::Equal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use starling_sim::scenario::{Scenario, Value};
use starling_sim::span::Span;

use super::planet::{Directory, PlanetArgs, interrupted};
use super::{CliResult, Failure};
use crate::load::{self, Throughput, Took};
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
#[derive(Serialize, Deserialize)]
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
        "\nOf the real times, until the answer (disk and processor of this machine): {:.1} ms at p50, {:.1} at p99.\n\
         A real node takes {:.1} ms of processor a second, and {} MiB.\n",
        ms(acknowledged.p50_us),
        ms(acknowledged.p99_us),
        real.cpu_ms_per_sec.unwrap_or(0.0),
        real.memory.unwrap_or(0) >> 20
    )
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Measured {
    /// How long writes take to be readable everywhere, and what that costs
    Lags,
    /// Writes and reads a second
    Throughput,
    /// A node that missed many writes
    CatchUp,
    /// A node that is new
    Bootstrap,
}

/// Measure lags at several sizes and losses beside the simulator's, throughput, catching up, joining
#[derive(Args)]
pub(super) struct BenchArgs {
    /// Only this, several with commas; what DIR has of other figures stays
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measured>,
    /// Sizes of flocks
    #[arg(long, value_delimiter = ',', default_values_t = [5, 15, 30])]
    sizes: Vec<usize>,
    /// Fractions of packets lost
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 0.01, 0.05])]
    losses: Vec<f64>,
    /// Writes of 1 KiB for each size and loss
    #[arg(long, default_value_t = 500)]
    writes: u64,
    /// One write within this time, on average
    #[arg(long, default_value = "100ms")]
    every: Span,
    /// A node misses so many writes, and catches up
    #[arg(long, default_value_t = 100_000)]
    catch_up: usize,
    /// A node joins so many MiB
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
#[derive(Default, Serialize, Deserialize)]
struct Report {
    lags: Vec<Both>,
    throughput: Option<Throughput>,
    catch_up: Option<Took>,
    bootstrap: Option<Took>,
    cores: usize,
}

impl BenchArgs {
    pub(super) async fn run(self, dir: &Path) -> CliResult {
        let mut report = match self.only.is_empty() {
            true => Report::default(),
            false => self.earlier()?,
        };
        report.cores = std::thread::available_parallelism().map_or(0, usize::from);
        let is_wanted = |measured| self.only.is_empty() || self.only.contains(&measured);
        if is_wanted(Measured::Lags) {
            let pairs = self.sizes.iter().flat_map(|nodes| self.losses.iter().map(move |loss| (*nodes, *loss)));
            for (nodes, loss) in pairs {
                let planet = self.planet(nodes, loss);
                let mut scenario = planet.scenario(nodes)?;
                scenario.workload.writes = self.writes;
                scenario.workload.value = Value::Bytes(1_024);
                scenario.duration = Span(self.every.0 * self.writes.max(1));
                let both =
                    on_planet(dir, &planet, &scenario, async |world| both(world, &scenario, self.seed).await).await?;
                eprintln!("{}", side_by_side(&both));
                report.lags.retain(|known| (known.real.nodes, known.real.loss) != (nodes, loss));
                report.lags.push(both);
                self.write(&mut report)?;
            }
        }
        let planet = self.planet(NODES, 0.0);
        let scenario = planet.scenario(NODES)?;
        if is_wanted(Measured::Throughput) {
            let load = on_planet(dir, &planet, &scenario, load::throughput).await?;
            eprintln!(
                "throughput, 1 node and all: {:.0} and {:.0} writes/s, {:.0} and {:.0} reads/s",
                load.writes_one, load.writes_all, load.reads_one, load.reads_all
            );
            report.throughput = Some(load);
        }
        let tell = |what: String, took: &Took| {
            eprintln!(
                "{what} in {:.1} s; it had up to {} MiB of memory, others up to {}",
                took.seconds, took.memory_peak_mib, took.others_peak_mib
            );
        };
        if is_wanted(Measured::CatchUp) {
            let took =
                on_planet(dir, &planet, &scenario, async |world| load::catch_up(world, self.catch_up).await).await?;
            tell(format!("caught up on {} writes", took.count), &took);
            report.catch_up = Some(took);
        }
        if is_wanted(Measured::Bootstrap) {
            let took =
                on_planet(dir, &planet, &scenario, async |world| load::bootstrap(world, self.bootstrap_mib).await)
                    .await?;
            tell(format!("joined {} MiB", took.count), &took);
            report.bootstrap = Some(took);
        }
        self.write(&mut report)?;
        eprintln!("figures and plots are in {}", self.out.display());
        Ok(ExitCode::SUCCESS)
    }

    /// What was measured before, if anything was.
    fn earlier(&self) -> Result<Report, Failure> {
        let path = self.out.join("bench.json");
        let Ok(json) = fs::read(&path) else { return Ok(Report::default()) };
        serde_json::from_slice(&json).map_err(|error| {
            Failure::Usage(format!("{}: {error}; remove it, or name another directory by --out", path.display()))
        })
    }

    fn write(&self, report: &mut Report) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.out.display());
        report
            .lags
            .sort_by(|a, b| (a.real.nodes, a.real.loss).partial_cmp(&(b.real.nodes, b.real.loss)).unwrap_or(Equal));
        fs::create_dir_all(&self.out).map_err(failed)?;
        let json = serde_json::to_vec_pretty(report).map_err(|error| error.to_string())?;
        fs::write(self.out.join("bench.json"), json).map_err(failed)?;
        fs::write(self.out.join("bench.html"), page::draw(report)).map_err(failed)
    }

    fn planet(&self, nodes: usize, loss: f64) -> PlanetArgs {
        let (seed, starling) = (self.seed, self.starling.clone());
        PlanetArgs { nodes: Some(nodes), loss: Some(loss), seed, starling, ..PlanetArgs::default() }
    }
}
