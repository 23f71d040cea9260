//! The program under test: where it is, and how it is started so that it never outlives the testnet.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The hidden command that a node's process begins as.
pub const BECOME: &str = "become-node";

/// Finds `starling`: as told, or beside this program.
pub fn find(told: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = told {
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        return match path.is_file() {
            true => Ok(path),
            false => Err(format!("there is no {}", path.display())),
        };
    }
    let own = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    let places = [own.parent(), own.parent().and_then(Path::parent)];
    let found = places.into_iter().flatten().map(|place| place.join("starling")).find(|path| path.is_file());
    found.ok_or_else(|| {
        let release = if own.components().any(|part| part.as_os_str() == "release") { " --release" } else { "" };
        format!("there is no starling beside {}; run `cargo build{release} --bin starling`, or name one with --starling PATH", own.display())
    })
}

/// A command that becomes `starling` with these arguments, in an environment without settings of its own.
pub fn command(launcher: &Path, starling: &Path) -> Command {
    let mut command = Command::new(launcher);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STARLING_") {
            command.env_remove(name);
        }
    }
    command.arg(BECOME).arg(std::process::id().to_string()).arg(starling);
    // A process group of its own: Ctrl-C is for the testnet, which ends its nodes itself.
    command.stdin(Stdio::null()).process_group(0);
    command
}

/// Becomes the node; returns only if that does not work. Runs in the node's process.
pub fn become_node(parent: u32, words: Vec<String>) -> io::Error {
    // Kept by what this process becomes: nothing outlives the testnet, however it ends.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    let is_orphan = getppid().is_none_or(|pid| pid.as_raw_nonzero().get().unsigned_abs() != parent);
    if is_orphan {
        return io::Error::other("the testnet has ended");
    }
    // A file that reaches its limit shall be an error, as on a full disk, not a signal.
    Command::new("/bin/sh").args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).args(words).exec()
}
