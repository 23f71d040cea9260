//! `starling-sim`: parse, run, exit.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    starling_sim::cli::Cli::parse().run()
}
