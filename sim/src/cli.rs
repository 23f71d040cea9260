//! The command line: what can be typed, and what `--help` teaches.

mod compare;
mod places;
mod replay;
mod report;
mod run;
mod scenarios;
mod swarm;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Simulates Starling: the replica that production runs, in virtual time over real PoP locations.
#[derive(Parser)]
#[command(name = "starling-sim", version, max_term_width = 100, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes:\n  0  all promises held\n  1  a promise was broken, or a figure got worse\n  2  wrong \
    command line or scenario\n\nExamples:\n  starling-sim run quiet-330\n  starling-sim run my.toml --pops 50 --seed 7 \
    --json\n  starling-sim swarm --seeds 1000\n  starling-sim compare base.json new.json"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::RunArgs),
    Swarm(swarm::SwarmArgs),
    Replay(replay::ReplayArgs),
    Compare(compare::CompareArgs),
    Scenarios(scenarios::ScenariosArgs),
    Places(places::PlacesArgs),
    Report(report::ReportArgs),
}

/// Something is wrong with what was typed or with a file.
const USAGE: u8 = 2;

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Run(args) => args.run(),
            Command::Swarm(args) => args.run(),
            Command::Replay(args) => args.run(),
            Command::Compare(args) => args.run(),
            Command::Scenarios(args) => args.run(),
            Command::Places(args) => Ok(args.run()),
            Command::Report(args) => Ok(args.run()),
        };
        result.unwrap_or_else(|error| {
            eprintln!("error: {error}");
            ExitCode::from(USAGE)
        })
    }
}

/// What went wrong, for whoever typed it.
type CliResult = Result<ExitCode, String>;
