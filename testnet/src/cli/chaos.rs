//! `starling-testnet chaos`, and `check` for histories that were recorded elsewhere.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::Notify;

use super::planet::{Directory, PlanetArgs, interrupted};
use super::{CliResult, Failure};
use crate::chaos::history::History;
use crate::chaos::judge::{Broken, judge};
use crate::chaos::lie::Lie;
use crate::chaos::watch::Watch;
use crate::chaos::{self, Order, Verdict, plan};
use crate::control::Desk;
use crate::world::World;

/// Clients at every node record what they see while faults are drawn from a seed; in the end a checker looks at it all
#[derive(Args)]
pub(super) struct ChaosArgs {
    #[command(flatten)]
    planet: PlanetArgs,
    /// How long
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Only print which faults the seed draws
    #[arg(long)]
    plan: bool,
    /// Put something between clients and nodes that lies, to see that the checker notices
    #[arg(long, value_name = "HOW")]
    lie: Option<Lie>,
    /// The program that a rolling restart goes on to
    #[arg(long, value_name = "PATH")]
    next: Option<PathBuf>,
    /// Put summary, history and plots here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the summary as JSON on standard output, and all else on standard error
    #[arg(long)]
    json: bool,
}

/// Nodes if nothing says how many.
const NODES: usize = 5;
/// Longest chaos, minutes.
const MINUTES_MAX: f64 = 24.0 * 60.0;

impl ChaosArgs {
    pub(super) async fn run(self, dir: &Path) -> CliResult {
        if !(0.2..=MINUTES_MAX).contains(&self.minutes) {
            return Err(Failure::Usage(format!("--minutes takes 0.2 to {MINUTES_MAX}")));
        }
        let scenario = self.planet.scenario(NODES)?;
        let duration = Duration::from_secs_f64(self.minutes * 60.0);
        let nodes = if scenario.places.pops.is_empty() { scenario.places.count } else { scenario.places.pops.len() };
        if nodes < 3 {
            return Err(Failure::Usage("chaos takes three nodes at least".into()));
        }
        let plan = plan::draw(nodes, duration.as_millis() as u64, self.planet.seed);
        if self.plan {
            for planned in plan {
                println!("{:>7.1} s  {planned}", planned.at_ms as f64 / 1e3);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut directory = Directory::make(dir)?;
        let settings = self.planet.settings(&scenario, directory.path().to_owned())?;
        let next =
            self.next.as_deref().map(|next| crate::program::find(Some(next))).transpose().map_err(Failure::Usage)?;
        let world = Arc::new(World::new(settings)?);
        let (seed, lie) = (self.planet.seed, self.lie);
        let order = Order { duration, seed, plan, expiry_quiet: chaos::EXPIRY_QUIET, lie, next };
        let down = Arc::new(Notify::new());
        let story = async {
            eprintln!("starting {nodes} nodes in {}", directory.path().display());
            world.populate(|_, _| {}).await?;
            let desk = Desk::open(directory.path())?;
            let served = tokio::spawn(desk.serve(Arc::clone(&world), Arc::clone(&down)));
            for node in world.nodes() {
                eprintln!("  {:<2} {:<8} {:<20} http://{}", node.number, node.name, node.place.city, node.api_address);
            }
            let result = chaos::run(&world, &order, Arc::new(|line| eprintln!("{line}"))).await;
            served.abort();
            result
        };
        let result = tokio::select! {
            result = story => result,
            () = interrupted() => Err("interrupted".to_owned()),
            () = down.notified() => Err("ended by `down`".to_owned()),
        };
        world.down().await;
        let (verdict, history, watch) = match result {
            Ok(result) => result,
            Err(error) => return Err(Failure::Failed(format!("{error}\n{}", self.keep(&mut directory, nodes, None)))),
        };
        drop(world);
        if let Some(out) = &self.out {
            write_all(out, &verdict, &history, &watch)?;
        }
        tell(&verdict);
        if self.json {
            println!("{:#}", serde_json::to_value(&verdict).unwrap_or_default());
        }
        if verdict.broken.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("{}", self.keep(&mut directory, nodes, Some((&verdict, &history, &watch))));
        Ok(ExitCode::FAILURE)
    }

    /// Moves all there is to a folder of its own; says where, and how to see it again.
    fn keep(&self, directory: &mut Directory, nodes: usize, found: Option<(&Verdict, &History, &Watch)>) -> String {
        directory.keep();
        let seed = self.planet.seed;
        let parent = directory.path().parent().unwrap_or(Path::new(".")).to_owned();
        let target =
            (1..).map(|number| parent.join(format!("starling-chaos-seed-{seed}-{number}"))).find(|path| !path.exists());
        let target = target.unwrap_or_else(|| directory.path().to_owned());
        let target = match fs::rename(directory.path(), &target) {
            Ok(()) => target,
            Err(_) => directory.path().to_owned(),
        };
        if let Some((verdict, history, watch)) = found
            && write_all(&target, verdict, history, watch).is_err()
        {
            return format!("nothing could be written to {}", target.display());
        }
        let which = match (&self.planet.scenario, self.planet.pops.is_empty()) {
            (Some(scenario), _) => format!(" --scenario {scenario}"),
            (None, true) => format!(" --nodes {nodes}"),
            (None, false) => format!(" --pops {}", self.planet.pops.join(",")),
        };
        let replay = format!("starling-testnet chaos{which} --minutes {} --seed {seed}", self.minutes);
        let _ = fs::write(target.join("replay"), format!("{replay}\n"));
        format!(
            "logs, data and history are in {}\nthe same faults again:  {replay}\nthe same history again: starling-testnet check {}",
            target.display(),
            target.join("history.json").display()
        )
    }
}

fn write_all(directory: &Path, verdict: &Verdict, history: &History, watch: &Watch) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(failed)?;
    let write = |name: &str, text: Vec<u8>| {
        fs::File::create(directory.join(name)).and_then(|mut file| file.write_all(&text)).map_err(failed)
    };
    let json = |value: Result<Vec<u8>, serde_json::Error>| value.map_err(|error| error.to_string());
    write("summary.json", json(serde_json::to_vec_pretty(verdict))?)?;
    write("history.json", json(serde_json::to_vec(history))?)?;
    write("processes.json", json(serde_json::to_vec(watch))?)?;
    let title = format!("{} nodes, {} s of chaos, seed {}", verdict.nodes, verdict.seconds, verdict.seed);
    write("processes.html", watch.page(&title).into_bytes())
}

fn tell(verdict: &Verdict) {
    let list = |counts: &std::collections::BTreeMap<String, usize>| {
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    eprintln!("\nfaults     {}", list(&verdict.faults));
    eprintln!("requests   {}", list(&verdict.requests));
    eprintln!("keys       {}", verdict.keys);
    let flat = &verdict.flatness;
    eprintln!(
        "processes  memory {} then {} MiB, file descriptors {} then {}, disk {} then {} MiB (medians early and late)",
        flat.memory_mib.0, flat.memory_mib.1, flat.fds.0, flat.fds.1, flat.disk_mib.0, flat.disk_mib.1
    );
    eprintln!("           fullest disk {} then {} MiB", flat.fullest_mib.0, flat.fullest_mib.1);
    if let Some(ms) = verdict.converged_ms {
        eprintln!("equal      {:.1} s after the healing began", ms as f64 / 1e3);
    }
    conclude(&verdict.broken);
}

fn conclude(broken: &[Broken]) {
    for Broken { promise, what } in broken {
        eprintln!("BROKEN     {promise}: {}", what);
    }
    if broken.is_empty() {
        eprintln!("promises   all held");
    }
}

/// Judge a history that was recorded: the checker of `chaos` alone
#[derive(Args)]
pub(super) struct CheckArgs {
    /// As `chaos` writes them: history.json
    history: PathBuf,
}

impl CheckArgs {
    pub(super) fn run(self) -> CliResult {
        let unreadable = |error: String| Failure::Usage(format!("{}: {error}", self.history.display()));
        let text = fs::read(&self.history).map_err(|error| unreadable(error.to_string()))?;
        let history: History = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        let broken = judge(&history);
        eprintln!("{} requests, {} nodes at the end", history.ops.len(), history.held.len());
        conclude(&broken);
        Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
