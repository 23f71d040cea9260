//! `starling-sim`: parse, run, exit.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    starling_sim::cli::Cli::parse().run()
}
