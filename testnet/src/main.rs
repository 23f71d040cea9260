//! `starling-testnet`: parse, run, exit.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    starling_testnet::cli::Cli::parse().run()
}
