//! The `starling` program: parse, run, tell how it went.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use starling::cli::Cli;
use starling::exit::Exit;
use starling::terminal;

/// Much is made on one thread and freed on another: an entry by whoever takes in a request and by the thread that flushes it,
/// a response by a Worker and by its visitor's connection. The system's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => Exit::Ok.into(),
        Err(error) => {
            terminal::tell(&format!("error: {error}"));
            error.exit().into()
        }
    }
}
