//! `starling-sim replay`: one small world of the swarm again.

use std::path::PathBuf;

use clap::Args;

use super::CliResult;
use super::run::{conclude, watched};
use crate::sabotage;
use crate::scenario::check_nodes;
use crate::shrink::cut_down;
use crate::world::Kept;

/// Run one world of the swarm again, whole or cut down.
#[derive(Args)]
pub(super) struct ReplayArgs {
    /// Which.
    #[arg(long)]
    seed: u64,
    /// With a liar in it.
    #[arg(long)]
    liar: bool,
    /// With this many nodes.
    #[arg(long)]
    nodes: Option<usize>,
    /// With these faults of its plan only, as in 0,3-5 or none.
    #[arg(long)]
    faults: Option<Kept>,
    /// With these acts of its clients only.
    #[arg(long)]
    ops: Option<Kept>,
    /// With the protocol broken on purpose.
    #[arg(long)]
    sabotage: Option<String>,
    /// Print the world as a scenario and don't run it.
    #[arg(long)]
    print: bool,
    /// Tell the way of one write through the network, by its number in the order of acceptance, from 1.
    #[arg(long, value_name = "WRITE")]
    trace: Option<u64>,
    /// Print one JSON object on standard output, and nothing else there.
    #[arg(long)]
    json: bool,
    /// Store the summary as JSON, for `compare`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl ReplayArgs {
    pub(super) fn run(self) -> CliResult {
        let sabotage = sabotage::named(self.sabotage.as_deref())?;
        check_nodes(self.nodes.unwrap_or(1)).map_err(|error| error.to_string())?;
        let mut draw = cut_down(self.liar, self.seed, sabotage, self.nodes, self.faults, self.ops);
        draw.options.watched = self.trace;
        if self.print {
            print!("{}", draw.scenario.write());
            println!("# bounds: {:?}", draw.options.bounds);
            return Ok(std::process::ExitCode::SUCCESS);
        }
        let (outcome, lines) = watched(&draw.scenario, &draw.options);
        lines.iter().for_each(|line| eprintln!("{line}"));
        conclude(&outcome, self.json, self.out.as_ref())
    }
}
