//! The command line.

mod places;
mod report;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Simulates Starling: the replica that production runs, in virtual time over real PoP locations.
#[derive(Parser)]
#[command(name = "starling-sim", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Places(places::PlacesArgs),
    Report(report::ReportArgs),
}

impl Cli {
    /// Does what was asked.
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Places(args) => args.run(),
            Command::Report(args) => args.run(),
        }
    }
}
