//! `starling-sim run`: one scenario, from beginning to end.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::CliResult;
use super::table;
use crate::machine::{Stopwatch, memory_mib};
use crate::outcome::Outcome;
use crate::report;
use crate::scenario::{Scenario, builtin, check_nodes};
use crate::span::Span;
use crate::world::{Options, Progress, World};

/// Run a scenario: one that comes along (see `scenarios`), or a file.
#[derive(Args)]
pub(super) struct RunArgs {
    /// Name of a scenario that comes along, or path of a TOML file.
    #[arg(default_value = "quiet-330")]
    scenario: String,
    /// This many nodes instead of the scenario's. With fewer of them, faults at nodes that are not there befall others.
    #[arg(long)]
    pops: Option<usize>,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// This many writes instead of the scenario's.
    #[arg(long)]
    writes: Option<u64>,
    /// Writes within this time instead of the scenario's, as in 30s.
    #[arg(long)]
    duration: Option<Span>,
    /// Print one JSON object on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
    /// Store the outcome as JSON, for `compare` and `report`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a page that shows the run, HTML.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Tell the way of one write through the network, by its number in the order of acceptance, from 1.
    #[arg(long, value_name = "WRITE")]
    trace: Option<u64>,
}

impl RunArgs {
    pub(super) fn run(self) -> CliResult {
        let mut scenario = load(&self.scenario)?;
        if let Some(writes) = self.writes {
            scenario.workload.writes = writes;
        }
        if let Some(duration) = self.duration {
            scenario.duration = duration;
        }
        scenario.check().and_then(|()| check_nodes(self.pops.unwrap_or(1))).map_err(|error| error.to_string())?;
        let details = self.report.is_some() || self.out.is_some();
        let options = Options { seed: self.seed, nodes: self.pops, watched: self.trace, details, ..Options::default() };
        let (mut outcome, lines) = watched(&scenario, &options);
        outcome.summary.replay = self.command();
        lines.iter().for_each(|line| eprintln!("{line}"));
        if let Some(path) = &self.report {
            std::fs::write(path, report::page(&outcome))
                .map_err(|error| format!("can't write {}: {error}", path.display()))?;
        }
        conclude(&outcome, self.json, self.out.as_ref())
    }

    /// What to type to run it again.
    fn command(&self) -> String {
        let pops = self.pops.map(|pops| format!(" --pops {pops}")).unwrap_or_default();
        let writes = self.writes.map(|writes| format!(" --writes {writes}")).unwrap_or_default();
        let duration = self.duration.map(|duration| format!(" --duration {duration}")).unwrap_or_default();
        format!("starling-sim run {} --seed {}{pops}{writes}{duration}", self.scenario, self.seed)
    }
}

/// A scenario by name or path.
pub(super) fn load(name: &str) -> Result<Scenario, String> {
    let text = match builtin(name) {
        Some(text) => text.to_owned(),
        None => std::fs::read_to_string(name)
            .map_err(|error| format!("'{name}' is no scenario that comes along, and as a file: {error}"))?,
    };
    Scenario::read(&text).map_err(|error| format!("{name}: {error}"))
}

/// Runs under a progress bar.
pub(super) fn watched(scenario: &Scenario, options: &Options) -> (Outcome, Vec<String>) {
    let stopwatch = Stopwatch::start();
    let bar = ProgressBar::new(1);
    let style =
        ProgressStyle::with_template("{bar:30} {elapsed} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    let mut lines = Vec::new();
    let mut outcome = World::run_watched(scenario, options, &mut lines, &mut |progress: Progress| {
        let Progress { now_us, end_us, accepted, everywhere, up, phase } = progress;
        bar.set_length(end_us / 1_000);
        bar.set_position(now_us.min(end_us) / 1_000);
        let secs = now_us as f64 / 1e6;
        bar.set_message(format!("{secs:.0} s: {phase}; {up} nodes up, {accepted} writes, {everywhere} everywhere"));
    });
    bar.finish_and_clear();
    outcome.summary.real_seconds = (stopwatch.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0;
    outcome.summary.real_memory_mib = memory_mib();
    (outcome, lines)
}

/// Prints and stores what came out; the exit code says whether all promises held.
pub(super) fn conclude(outcome: &Outcome, json: bool, out: Option<&PathBuf>) -> CliResult {
    let text = serde_json::to_string_pretty(outcome).map_err(|error| error.to_string())?;
    if let Some(path) = out {
        std::fs::write(path, &text).map_err(|error| format!("can't write {}: {error}", path.display()))?;
    }
    match json {
        true => println!("{text}"),
        false => print!("{}", table::render(&outcome.summary)),
    }
    Ok(ExitCode::from(u8::from(!outcome.summary.violations.is_empty())))
}
