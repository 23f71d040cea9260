//! `starling-testnet`: parse, run, exit.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    starling_testnet::cli::Cli::parse().run()
}
