//! What every command that starts a planet takes: which places, which links, which program, which directory. And how it
//! ends, whatever ends it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use starling_sim::scenario::{Scenario, builtin, check_nodes};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::program;
use crate::world::{Settings, place};

/// Says that a directory is a testnet's, and whose.
const MARK: &str = "testnet.json";

/// Which planet
#[derive(Args, Clone, Default)]
pub(super) struct PlanetArgs {
    /// One node at each of these PoPs, by IATA code, with commas between them
    #[arg(long, value_delimiter = ',', conflicts_with = "nodes")]
    pub(super) pops: Vec<String>,
    /// So many nodes, spread over the map
    #[arg(long)]
    pub(super) nodes: Option<usize>,
    /// Places and links of a scenario of the simulator's: a name (see `starling-sim scenarios`) or a file
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) scenario: Option<String>,
    /// Fraction of packets that get lost
    #[arg(long)]
    pub(super) loss: Option<f64>,
    /// Each packet takes up to this fraction of the way longer
    #[arg(long)]
    pub(super) jitter: Option<f64>,
    /// Bandwidth of each link, Mbit/s
    #[arg(long)]
    pub(super) mbit: Option<u64>,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// The program under test [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub(super) starling: Option<PathBuf>,
}

impl PlanetArgs {
    /// The scenario that was meant, with `nodes` nodes if nothing says how many.
    pub(super) fn scenario(&self, nodes: usize) -> Result<Scenario, Failure> {
        let mut scenario = match &self.scenario {
            None => Scenario::default(),
            Some(name) => {
                let text = builtin(name).map(str::to_owned).map_or_else(|| fs::read_to_string(name), Ok);
                let text = text.map_err(|error| {
                    Failure::Usage(format!("'{name}' is no scenario that comes along, and as a file: {error}"))
                })?;
                Scenario::read(&text).map_err(|error| Failure::Usage(format!("{name}: {error}")))?
            }
        };
        if !self.pops.is_empty() {
            let pops: Result<Vec<_>, _> = self.pops.iter().map(|pop| place(pop).map(|place| place.iata)).collect();
            scenario.places.pops = pops.map_err(Failure::Usage)?;
        } else if let Some(nodes) = self.nodes.or(self.scenario.is_none().then_some(nodes)) {
            check_nodes(nodes).map_err(|error| Failure::Usage(error.to_string()))?;
            match scenario.places.pops.len() {
                0 => scenario.places.count = nodes,
                pops if nodes <= pops => scenario.places.pops.truncate(nodes),
                pops => return Err(Failure::Usage(format!("the scenario names {pops} PoPs, fewer than {nodes}"))),
            }
        }
        let links = &mut scenario.links;
        links.loss = self.loss.unwrap_or(links.loss);
        links.jitter = self.jitter.unwrap_or(links.jitter);
        links.bandwidth_mbit = self.mbit.unwrap_or(links.bandwidth_mbit);
        scenario.check().map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(scenario)
    }

    /// A planet in a directory.
    pub(super) fn settings(&self, scenario: &Scenario, directory: PathBuf) -> Result<Settings, Failure> {
        let starling = program::find(self.starling.as_deref()).map_err(Failure::Usage)?;
        let settings = Settings::of(scenario, None, directory, starling).map_err(Failure::Usage)?;
        Ok(Settings { seed: self.seed, ..settings })
    }
}

/// A directory that a testnet has for itself. Removed at the end unless it is kept.
pub(super) struct Directory {
    path: PathBuf,
    is_kept: bool,
}

impl Directory {
    /// Makes it, in place of what an earlier testnet has left there.
    pub(super) fn make(path: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::Failed(format!("{}: {error}", path.display()));
        let path_text = path.display();
        let is_there = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if is_there {
            if !path.join(MARK).is_file() {
                return Err(Failure::Usage(format!(
                    "{path_text} holds something else; name another directory by --dir"
                )));
            }
            if running(path).is_some() {
                return Err(Failure::Usage(format!(
                    "a testnet runs in {path_text} already; end it with `down`, or name another directory by --dir"
                )));
            }
            fs::remove_dir_all(path).map_err(failed)?;
        }
        fs::create_dir_all(path).map_err(failed)?;
        let mark = serde_json::json!({ "pid": std::process::id() });
        fs::write(path.join(MARK), format!("{mark}\n")).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        Ok(Self { path, is_kept: false })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it where it is.
    pub(super) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The process of the testnet that runs in a directory.
pub(super) fn running(path: &Path) -> Option<u64> {
    let mark = fs::read(path.join(MARK)).ok()?;
    let mark: serde_json::Value = serde_json::from_slice(&mark).ok()?;
    mark["pid"].as_u64().filter(|pid| is_testnet(*pid))
}

/// Whether such a process lives and is one of ours.
fn is_testnet(pid: u64) -> bool {
    let exe =
        |of: &str| fs::read_link(format!("/proc/{of}/exe")).ok().and_then(|exe| exe.file_name().map(ToOwned::to_owned));
    exe(&pid.to_string()).is_some_and(|found| Some(found) == exe("self"))
}

/// Completes when the user wants the end: Ctrl-C, a hangup, or a plain kill.
pub(super) async fn interrupted() {
    let listen = |kind| signal(kind).ok();
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(listen);
    let mut waits = tokio::task::JoinSet::new();
    for mut signal in signals.into_iter().flatten() {
        waits.spawn(async move { signal.recv().await });
    }
    waits.join_next().await;
}
