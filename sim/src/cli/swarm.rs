//! `starling-sim swarm`: many small worlds, until one fails.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::CliResult;
use crate::machine::Stopwatch;
use crate::sabotage;
use crate::shrink::shrink;
use crate::swarm::{drawn, search};

/// Draw small worlds from seeds, faults and all, until one breaks a promise; shrink that one.
#[derive(Args)]
pub(super) struct SwarmArgs {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; by default all cores. What happens in a world does not depend on them.
    #[arg(long, visible_alias = "threads")]
    jobs: Option<usize>,
    /// Runs spent on making a failing world smaller.
    #[arg(long, default_value_t = 300)]
    shrink: usize,
    /// In each world a member turns bad, lies in every way there is, and is evicted.
    #[arg(long)]
    liar: bool,
    /// Break the protocol on purpose, to see it caught: `list` prints the ways.
    #[arg(long)]
    sabotage: Option<String>,
    /// Print one JSON object on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct SwarmSummary {
    first_seed: u64,
    worlds: u64,
    virtual_us: u64,
    writes: u64,
    faults: BTreeMap<String, u64>,
    alarms: BTreeMap<String, u64>,
    /// A hash over the trace hashes of all worlds, in no order.
    traces: String,
    failed_seed: Option<u64>,
    checker: Option<String>,
    what: Option<String>,
    replay: Option<String>,
    real_seconds: f64,
}

impl SwarmArgs {
    pub(super) fn run(self) -> CliResult {
        if self.sabotage.as_deref() == Some("list") {
            sabotage::ALL.iter().for_each(|(name, _, about)| println!("{name:<18} {about}"));
            return Ok(ExitCode::SUCCESS);
        }
        if self.seeds == 0 || self.jobs == Some(0) {
            return Err("at least one seed and one thread are needed".into());
        }
        let sabotage = sabotage::named(self.sabotage.as_deref())?;
        let threads = self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let stopwatch = Stopwatch::start();
        let bar = ProgressBar::new(self.seeds);
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} worlds, {per_sec}, {eta} left") {
            bar.set_style(style);
        }
        let totals = Mutex::new(SwarmSummary {
            first_seed: self.seed,
            worlds: 0,
            virtual_us: 0,
            writes: 0,
            faults: BTreeMap::new(),
            alarms: BTreeMap::new(),
            traces: String::new(),
            failed_seed: None,
            checker: None,
            what: None,
            replay: None,
            real_seconds: 0.0,
        });
        let traces = Mutex::new([0u8; 32]);
        let found =
            search(drawn(self.liar), self.seed..self.seed.saturating_add(self.seeds), threads, sabotage, &|outcome| {
                bar.inc(1);
                let summary = &outcome.summary;
                if let Ok(mut totals) = totals.lock() {
                    totals.worlds += 1;
                    totals.virtual_us += summary.virtual_us;
                    totals.writes += summary.writes.accepted;
                    for (kind, count) in &summary.faults {
                        *totals.faults.entry(kind.clone()).or_default() += count;
                    }
                    for (kind, count) in &summary.alarms {
                        *totals.alarms.entry(kind.clone()).or_default() += count;
                    }
                }
                if let Ok(mut traces) = traces.lock() {
                    let hash = blake3::hash(format!("{} {}", summary.seed, summary.trace_hash).as_bytes());
                    traces.iter_mut().zip(hash.as_bytes()).for_each(|(sum, byte)| *sum ^= byte);
                }
            });
        bar.finish_and_clear();
        let mut totals = totals.into_inner().map_err(|error| error.to_string())?;
        let traces = traces.into_inner().map_err(|error| error.to_string())?;
        totals.traces = traces.iter().map(|byte| format!("{byte:02x}")).collect();
        totals.real_seconds = (stopwatch.elapsed().as_secs_f64() * 1_000.0).round() / 1_000.0;
        if let Some(found) = &found {
            totals.failed_seed = Some(found.seed);
            totals.checker = Some(found.violation.checker.clone());
            totals.what = Some(found.violation.what.clone());
            eprintln!("seed {} broke '{}': {}", found.seed, found.violation.checker, found.violation.what);
            let spinner = ProgressBar::new_spinner();
            let shrunk = shrink(self.liar, found.seed, sabotage, self.shrink, &mut |shrunk| {
                spinner.tick();
                let (ops, faults) = (shrunk.ops.0.len(), shrunk.faults.0.len());
                spinner.set_message(format!("shrinking: {} nodes, {faults} faults, {ops} acts", shrunk.nodes));
            });
            spinner.finish_and_clear();
            if let Some(shrunk) = shrunk {
                let command = shrunk.command(self.sabotage.as_deref());
                eprintln!("smallest world that breaks it: {}", shrunk.violation.what);
                totals.replay = Some(command);
            }
        }
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&totals).map_err(|error| error.to_string())?),
            false => {
                let rate = totals.worlds as f64 * 60.0 / totals.real_seconds.max(0.001);
                println!(
                    "{} worlds ({} to {}), {} writes, {:.0} virtual hours, {rate:.0} worlds a minute on {threads} threads",
                    totals.worlds,
                    self.seed,
                    self.seed + totals.worlds.saturating_sub(1),
                    totals.writes,
                    totals.virtual_us as f64 / 3.6e9,
                );
                match &totals.replay {
                    Some(command) => println!("replay it with:\n  {command}"),
                    None if found.is_some() => {
                        let liar = if self.liar { " --liar" } else { "" };
                        println!(
                            "replay it with:\n  starling-sim replay --seed {}{liar}",
                            totals.failed_seed.unwrap_or(0)
                        )
                    }
                    None => println!("all promises held"),
                }
            }
        }
        Ok(ExitCode::from(u8::from(found.is_some())))
    }
}
