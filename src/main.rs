//! The `starling` program: parse, run, tell how it went.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use starling::allocator::BySize;
use starling::cli::Cli;
use starling::exit::Exit;
use starling::terminal;

#[global_allocator]
static MEMORY: BySize = BySize;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            terminal::tell(&format!("error: {error}"));
            error.exit().into()
        }
    }
}
