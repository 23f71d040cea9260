//! `starling-sim`: parse, run, exit.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    on_large_pages();
    starling_sim::cli::Cli::parse().run()
}

/// Starts this program over with large pages for its memory: a world of hundreds of nodes is gone through at random, and
/// looking up where its pages are takes an eighth of the time. glibc reads the setting when a program starts.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn on_large_pages() {
    use std::os::unix::process::CommandExt;
    const TUNABLES: &str = "GLIBC_TUNABLES";
    if let (None, Ok(program)) = (std::env::var_os(TUNABLES), std::env::current_exe()) {
        // Where that fails things go on as they are.
        let name = std::env::args_os().next().unwrap_or_default();
        let _ = std::process::Command::new(program)
            .arg0(name)
            .args(std::env::args_os().skip(1))
            .env(TUNABLES, "glibc.malloc.hugetlb=1")
            .exec();
    }
}
