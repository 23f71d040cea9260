//! `starling workers …`: what runs JavaScript Workers.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, Signal};
use serde_json::json;

use super::{CliError, print};
use crate::config::{Config, Environment};
use crate::terminal::tell;
use crate::worker::workerd::{Pinned, find, installed_at};

const INSTALL_ABOUT: &str = "Install workerd, Cloudflare's runtime for Workers, into the data directory.

It comes from npm, with the npm client and whatever registry that is configured for, at the version that this Starling was \
tested with; its content must have the hash that this Starling knows. A node that runs finds it within seconds.";

const INSTALL_EXAMPLES: &str = "Examples:
  starling workers install
  starling workers install --data /var/lib/starling";

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(200);

#[derive(Subcommand)]
pub(super) enum WorkersCommand {
    Install(InstallArgs),
    /// Become the engine, and end with the node
    #[command(hide = true)]
    RunEngine(RunEngineArgs),
}

/// Install workerd, which runs Workers
#[derive(Args)]
#[command(long_about = INSTALL_ABOUT, after_long_help = INSTALL_EXAMPLES)]
pub(super) struct InstallArgs {
    /// Data directory of the node [default: ./starling-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Install it again, though it is there
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct RunEngineArgs {
    /// The engine's command line
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

impl InstallArgs {
    pub(super) async fn run(self, environment: &Environment) -> Result<(), CliError> {
        let flags = self.data.iter().map(|data| ("data", data.to_string_lossy().into_owned())).collect::<Vec<_>>();
        let data = Config::load(None, environment, &flags)?.data;
        let failed = |error: io::Error| CliError::Install(error.to_string());
        crate::serve::keep_files_private();
        fs::create_dir_all(&data).map_err(failed)?;
        let target = installed_at(&data);
        let pin = Pinned::of_this_machine()
            .ok_or_else(|| CliError::Install(format!("there is no workerd for {} on Linux", std::env::consts::ARCH)))?;
        let is_there = pin.is_at(&target) && !self.force;
        if !is_there {
            tell(&format!("installing workerd {} into {}", pin.version, target.display()));
            install(&pin, &target)?;
        }
        let found = find(Some(&pin.program(&target)), &data).map_err(|error| CliError::Install(error.to_string()))?;
        if self.json {
            let told = json!({ "path": found.path, "version": found.version, "installed": !is_there });
            return print(&format!("{told}\n"));
        }
        let how = if is_there { "is there already" } else { "is installed" };
        print(&format!("{} {how}: {}\n", found.version, found.path.display()))
    }
}

/// Has npm fetch the package beside the target, and puts it in its place once it is whole.
fn install(pin: &Pinned, target: &Path) -> Result<(), CliError> {
    let failed = |error: io::Error| CliError::Install(error.to_string());
    let fresh = target.with_extension("new");
    remove(&fresh).map_err(failed)?;
    fs::create_dir_all(&fresh).map_err(failed)?;
    fs::write(fresh.join("package.json"), pin.package()).map_err(failed)?;
    // The lock names the hash: npm refuses any other content.
    fs::write(fresh.join("package-lock.json"), pin.lock()).map_err(failed)?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", "."]);
    npm.current_dir(&fresh).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let spawned = npm.spawn();
    if spawned.is_err() {
        let _ = remove(&fresh);
    }
    let child = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => CliError::Install(
            "npm is missing; install Node.js, or give `starling serve` a workerd of your own with --workerd".into(),
        ),
        _ => CliError::Install(format!("npm does not run: {error}")),
    })?;
    let bar = ProgressBar::new(pin.len);
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {bytes} of {total_bytes}  {elapsed}") {
        bar.set_style(style);
    }
    let waiting = std::thread::spawn(move || child.wait_with_output());
    while !waiting.is_finished() {
        bar.set_position(len(&fresh).min(pin.len));
        std::thread::sleep(TICK);
    }
    bar.finish_and_clear();
    let output = waiting.join().map_err(|_| CliError::Install("npm was not waited for".into()))?.map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let _ = remove(&fresh);
        return Err(CliError::Install(format!("npm says:\n{}", said.trim())));
    }
    remove(target).and_then(|()| fs::rename(&fresh, target)).map_err(failed)
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes of all files below a directory.
fn len(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => len(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

impl RunEngineArgs {
    /// Returns only if that does not work.
    pub(super) fn run(self) -> Result<(), CliError> {
        let failed = |cause: io::Error| CliError::Io { action: "become the engine", cause };
        // Kept by what this process becomes: nothing outlives the node, however it ends.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed(error.into()))?;
        if rustix::process::getppid().is_none_or(|parent| parent.is_init() && !node_is_init()) {
            // It ended before that took effect.
            return Ok(());
        }
        // Secrets don't belong into a file, and a Worker that eats all memory should be the first to go.
        let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let _ = fs::write("/proc/self/oom_score_adj", "500");
        let mut words = self.command.into_iter();
        let program = words.next().unwrap_or_default();
        Err(failed(Command::new(program).args(words).exec()))
    }
}

/// In a container the node itself may be the first process.
fn node_is_init() -> bool {
    let exe = |of: &str| fs::read_link(format!("/proc/{of}/exe")).ok();
    exe("1").is_some() && exe("1") == exe("self")
}
